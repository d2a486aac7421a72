# SPDX-License-Identifier: AGPL-3.0-or-later
"""Entries in Orthanc's key-value store: in process, through the SDK, on one writer thread.

Orthanc has key-value stores since 1.12.8 if its index supports them (``/system``: ``Capabilities.HasKeyValueStores``).
They are visible nowhere: no patient, no statistics, no ``/changes``. They have no compare-and-set, so every call is
made on one thread, which reads the version before it writes. SQLite allows no second process, so there is no other
writer.

A value is the revision of its entry in decimal, a line feed, and the document. A document of 1,000 bytes or more is
deflated, with ``deflated`` after the revision, so that a database page holds two workitems instead of half of one.
Revisions grow by one with each write; an entry that is created begins at the current time in microseconds, so that a
version of an entry that was removed is never taken for one of its successor.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

from ..orthanc.sdk import KeysValuesIterator, KeyValueStore
from . import keys
from .documents import UnreadableDocument, packed, unpacked
from .port import Entry, EntryConflict, EntryExists, StoreUnavailable

_log = logging.getLogger("orthanc_ups.store")
_STORE: Final = "orthanc-ups"
_CHUNK: Final = 256
_SMALL: Final = 1_000
"""Documents of this size in bytes or more are deflated."""
_AFTER_WORKITEMS: Final = keys.WORKLIST
"""The only key that sorts after those of workitems."""
_DEFLATED: Final = b" deflated"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Call:
    """Work for the writer thread, and the future on the loop that waits for its outcome."""

    work: Callable[[], Any]
    future: asyncio.Future[Any]


_Outcome = tuple[asyncio.Future[Any], Any, Exception | None]


class KeyValueEntries:
    """Entries in Orthanc's key-value store. ``open`` first, on the loop; ``close`` last.

    Nobody can delete entries from outside, so nothing is ever missing or restored.
    """

    name: Final = "key-value"
    location: Final = f'the key-value store "{_STORE}" of Orthanc'
    exposed: Final = False
    incomplete: frozenset[int] = frozenset()

    def __init__(self, orthanc: KeyValueStore) -> None:
        """Prepare, without calling Orthanc."""
        self._orthanc = orthanc
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    async def open(self) -> None:
        """Start the writer thread; can be repeated. Raises StoreUnavailable if Orthanc's store does not answer."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, args=(asyncio.get_running_loop(),), name="ups-store", daemon=True
            )
            self._thread.start()
        await self._call(lambda: self._orthanc.GetKeyValue(_STORE, ""))

    async def close(self) -> None:
        """Finish the waiting calls and end the writer thread."""
        if self._thread is not None:
            self._calls.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    # --- the writer thread --------------------------------------------------------------------------

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take all waiting calls at once, and return their outcomes together, so that the loop wakes up once."""
        closing = False
        while not closing:
            batch = [self._calls.get()]
            with contextlib.suppress(Empty):
                while True:
                    batch.append(self._calls.get_nowait())
            closing = None in batch
            outcomes = [_outcome(call) for call in batch if call is not None]
            with contextlib.suppress(RuntimeError):  # the loop is closed, and nothing waits any more
                loop.call_soon_threadsafe(_settle, outcomes)

    async def _call(self, work: Callable[[], _T]) -> _T:
        if self._thread is None:
            raise StoreUnavailable("the key-value store is closed", certain=True)
        future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        self._calls.put(_Call(work, future))
        return await future

    # --- entries ------------------------------------------------------------------------------------

    async def load(self) -> AsyncIterator[list[Entry]]:
        """Every entry in chunks, by key."""
        iterator = await self._call(lambda: self._orthanc.CreateKeysValuesIterator(_STORE))
        at_end = False
        while not at_end:
            chunk, at_end = await self._call(lambda: _next_entries(iterator))
            if chunk:
                yield chunk

    async def load_others(self) -> AsyncIterator[list[Entry]]:
        """Like ``load`` up to the first workitem, then the worklist entry: nothing else sorts after workitems."""
        async for chunk in self.load():
            others = [entry for entry in chunk if entry.key < keys.WORKITEM]
            yield others
            if len(others) < len(chunk):
                break
        last = await self.read(_AFTER_WORKITEMS)
        if last is not None:
            yield [last]

    async def scan(self) -> AsyncGenerator[list[Entry], None]:
        """Like ``load``, which changes nothing here."""
        async for chunk in self.load():
            yield chunk

    async def read(self, key: str) -> Entry | None:
        """One entry as the store has it now."""
        return await self._call(lambda: self._read(key))

    async def create(self, key: str, document: bytes) -> str:
        """Write a new entry and return its version. Raises EntryExists."""

        def work() -> str:
            if self._read(key) is not None:
                raise EntryExists(key)
            return self._write(key, document, time.time_ns() // 1000)

        return await self._call(work)

    async def replace(self, key: str, document: bytes, version: str) -> str:
        """Overwrite an entry that still has this version and return its new one. Raises EntryConflict."""

        def work() -> str:
            self._compare(key, version)
            return self._write(key, document, int(version) + 1)

        return await self._call(work)

    async def remove(self, key: str, version: str) -> None:
        """Delete an entry that still has this version. Raises EntryConflict."""

        def work() -> None:
            self._compare(key, version)
            try:
                self._orthanc.DeleteKeyValue(_STORE, key)
            except Exception as error:
                self._refuse_unless(self._orthanc.GetKeyValue(_STORE, key) is None, error)

        await self._call(work)

    async def exists(self) -> bool:
        """True if Orthanc has any entry."""
        return await self._call(lambda: self._orthanc.CreateKeysValuesIterator(_STORE).Next())

    async def discard(self) -> None:
        """Delete every entry: nothing of the store remains in Orthanc."""
        while await self._call(self._delete_some):
            pass

    async def missing(self) -> frozenset[int]:
        """Nothing is ever missing."""
        return frozenset()

    async def restore(self, entries: AsyncIterator[Entry]) -> int:
        """Nothing to write back."""
        return 0

    # --- on the writer thread -----------------------------------------------------------------------

    def _read(self, key: str) -> Entry | None:
        value = self._orthanc.GetKeyValue(_STORE, key)
        return None if value is None else _entry(key, value)

    def _delete_some(self) -> bool:
        """Delete the first entries; False if there were none."""
        iterator = self._orthanc.CreateKeysValuesIterator(_STORE)
        obsolete: list[str] = []
        while len(obsolete) < _CHUNK and iterator.Next():
            obsolete.append(iterator.GetKey())
        for key in obsolete:
            self._orthanc.DeleteKeyValue(_STORE, key)
        return bool(obsolete)

    def _compare(self, key: str, version: str) -> None:
        entry = self._read(key)
        if entry is None or entry.version != version:
            raise EntryConflict(key)

    def _write(self, key: str, document: bytes, revision: int) -> str:
        value = value_of(revision, document)
        try:
            self._orthanc.StoreKeyValue(_STORE, key, value)
        except Exception as error:  # Orthanc's own, such as a full or locked database
            self._refuse_unless(self._orthanc.GetKeyValue(_STORE, key) == value, error)
        return str(revision)

    @staticmethod
    def _refuse_unless(done: bool, error: Exception) -> None:
        """Raise StoreUnavailable after a failure, unless what is stored now shows that the call was done."""
        if not done:
            raise StoreUnavailable(f"Orthanc's key-value store: {error}", certain=True) from error


def value_of(revision: int, document: bytes) -> bytes:
    """The stored value of an entry."""
    if len(document) < _SMALL:
        return b"%d\n%b" % (revision, document)
    return b"%d%b\n%b" % (revision, _DEFLATED, packed(document))


def _entry(key: str, value: bytes) -> Entry | None:
    head, line_feed, document = value.partition(b"\n")
    revision = head.removesuffix(_DEFLATED)
    if not line_feed or not revision.isdigit():
        _log.error("The value of %s in Orthanc's key-value store is not an entry of the worklist", key)
        return None
    if revision != head:
        with contextlib.suppress(UnreadableDocument):  # the reader of a damaged document reports it
            document = unpacked(document)
    return Entry(key, document, revision.decode())


def _next_entries(iterator: KeysValuesIterator) -> tuple[list[Entry], bool]:
    """The next entries, and True if they are the last: Orthanc refuses ``Next`` after the end."""
    entries: list[Entry] = []
    while len(entries) < _CHUNK:
        if not iterator.Next():
            return entries, True
        entry = _entry(iterator.GetKey(), iterator.GetValue())
        if entry is not None:
            entries.append(entry)
    return entries, False


def _outcome(call: _Call) -> _Outcome:
    try:
        return call.future, call.work(), None
    except (EntryConflict, EntryExists, StoreUnavailable) as error:
        return call.future, None, error
    except Exception as error:
        # Orthanc's own exceptions, such as for a locked or full database: the outcome is unknown.
        return call.future, None, StoreUnavailable(f"Orthanc's key-value store: {error}", certain=False)


def _settle(outcomes: Sequence[_Outcome]) -> None:
    for future, result, error in outcomes:
        if future.done():  # the waiting task was cancelled
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
