# SPDX-License-Identifier: AGPL-3.0-or-later
"""The projection answers queries. It is an index of the store, which is authoritative.

Any failure raises ProjectionBroken, and so does every later call except ``count``, ``documents``, ``renew`` and
``close``. Nothing is lost, because the store has every change. ``renew`` creates an empty projection, and
``rebuilding`` fills it from the store.

Changes are first kept in memory and written to the file many times a second, in batches of one transaction each, by a
thread. Single workitems are read on the event loop, from memory or the file. Searches run in worker threads, each with
its own connection; changes in memory are written before a search, so that it sees every earlier change.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import tzinfo
from pathlib import Path
from typing import Any, Final, TypeVar

from ..core.dataset import DataSet
from ..core.date_times import UTC, Zone, zone
from ..core.events import Event
from ..core.interned import Interned
from ..core.matching import Query
from ..core.selection import Selection
from ..core.workitem import Workitem
from ..store import keys
from ..store.documents import (
    UnreadableDocument,
    attributes_of,
    decode,
    decode_interned,
    selected,
    unpacked,
    whole,
)
from ..store.port import Entry
from .file import ProjectionBroken, ProjectionFile
from .pending import PendingWrites
from .queries import Column, Ids, Sql
from .reader import Counts, Searches
from .recent import Recent, StoredWorkitem
from .writer import ProjectionBatch, ProjectionWriter, TombstoneRow, WorkitemRows, change_of, event_row

_T = TypeVar("_T")

__all__ = ["Counts", "Projection", "ProjectionBroken", "Rebuild", "StoredWorkitem"]

_log = logging.getLogger("orthanc_ups.store")
_AT_ONCE: Final = 200
_FORGOTTEN_AT_ONCE: Final = 1_000
_EVENTS_OF_WORKITEM: Final = 1_000
_WRITE_DELAY: Final = 0.03  # seconds
_ROWS_TIME: Final = 0.0003  # seconds per turn of the loop
_WRITE_AT: Final = 64  # changes
_MAXIMUM_BATCHES: Final = 8
_MISSES: Final = 1_000
_GET: Final = """
    SELECT m.version, b.document FROM workitem m CROSS JOIN body b ON b.id = m.id WHERE m.uid = ?
"""


class Rebuild:
    """Takes the entries of the store while the projection is rebuilt."""

    def __init__(self, take: Callable[[Sequence[Entry]], list[Entry]]) -> None:
        self._take = take

    def take(self, entries: Sequence[Entry]) -> list[Entry]:
        """Write entries of workitems, without decoding documents that are already in the file.

        Returns damaged entries, which are not documents of workitems. The file keeps what it has of these, because
        it may be the only copy. Raises ProjectionBroken.
        """
        return self._take(entries)


class Projection:
    """The read model of the worklist in an SQLite file.

    Attributes:
        renewed: why the file had to be created when it was opened, None if its content is used.
        broken: why the projection cannot be used, None while it can.
        on_broken: called on the loop when a read in a thread or a write in the background failed. Calls that fail
            on the loop only raise ProjectionBroken.
        is_copy: True if workitems can be deleted from the store by others, and this file is the copy to restore them
            from. Then ``write_copy`` is called before a change is answered.
    """

    def __init__(self, path: str | Path, local: Zone) -> None:
        self.broken: str | None = None
        self.on_broken: Callable[[ProjectionBroken], object] = lambda error: None
        self.is_copy = False
        self._path = path
        self._local = local
        file = ProjectionFile(path, local, rebuild=False)
        try:
            self._open(file)
        except ProjectionBroken as error:
            _log.warning("The projection %s is damaged (%s)", path, error)
            self.renew()

    @classmethod
    def open(cls, path: str | Path, *, timezone: str | tzinfo | None = None) -> Projection:
        """Open a projection; ``:memory:`` means a temporary file.

        A file that is damaged, of another version or zone, or was in use when the machine went down is created anew.
        ``timezone`` is the zone of date-times without an offset, as in ``Query.of``.
        Raises ProjectionBroken if the file cannot be created or another process uses it; ValueError if ``timezone``
        is not a zone.
        """
        local = zone(timezone) if isinstance(timezone, str) else timezone or UTC
        if local is None:
            raise ValueError(f"{timezone!r} is not an offset from UTC such as +0100")
        return cls(path, local)

    def _open(self, file: ProjectionFile) -> None:
        self._file = file
        self.broken = None
        self._recent = Recent()
        self._pending = PendingWrites()
        self._missing: set[str] = set()
        self._lock = threading.Lock()
        self._timer: asyncio.Handle | None = None
        self._connection: sqlite3.Connection | None = None
        self._is_rebuilding = False
        self._interned = Interned()
        self._counts: tuple[int, Counts] | None = None
        self._thread = ThreadPoolExecutor(1, "ups-projection")
        try:
            self._writer = ProjectionWriter(self._file.writer)
        except sqlite3.Error as error:
            raise self._broke(error) from error
        finally:
            self._searches = Searches(self._file.reader, self._local, self._read_failed, self._write_down)
        self.renewed = self._file.renewed
        self._whole = True
        self._count = self._counted()
        if self.renewed:
            _log.info("Rebuilding the projection %s: %s", self._file.path, self.renewed)

    @property
    def path(self) -> str | Path:
        """The path with which it was opened."""
        return self._path

    @property
    def file(self) -> ProjectionFile:
        """The open file; ``renew`` replaces it."""
        return self._file

    @property
    def searches(self) -> int:
        """The number of searches running or waiting for a thread."""
        return self._searches.waiting

    def old_documents(self) -> Iterator[tuple[str, str, bytes]]:
        """Key, version and document of each workitem in a file that was set aside."""
        for uid, version, document in self._file.old_documents():
            yield keys.workitem(uid), version, document

    def forget_old(self) -> None:
        """Delete the file that was set aside, once its workitems have been compared with the store."""
        self._file.forget_old()

    def renew(self) -> None:
        """Discard everything and start with an empty file. Raises ProjectionBroken if it cannot be created."""
        self._release(keep=False)
        try:
            self._open(ProjectionFile(self._path, self._local, rebuild=True))
        except ProjectionBroken as error:
            self.broken = str(error)
            raise

    def close(self) -> None:
        """Write everything to the file, end running searches and close it. May be called twice.

        The file of a broken projection is deleted, so that the next start rebuilds it.
        """
        self._release(keep=self.broken is None)
        self.broken = self.broken or "it is closed"

    def _release(self, *, keep: bool) -> None:
        if keep:
            with suppress(ProjectionBroken):
                self.flush()
        self._thread.shutdown(wait=True)
        self._searches.close()
        self._close_connection()
        self._file.close(keep=keep and self.broken is None)

    def _close_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def check(self) -> None:
        """Raise ProjectionBroken if the file was deleted or replaced. To be called periodically."""
        self._check()
        if not self._file.is_there():
            raise self._broke("the file was deleted or replaced")

    # --- single workitems, on the event loop ---

    def put(self, workitem: Workitem, version: str, document: bytes) -> None:
        """Add or replace a workitem that was just written to the store."""
        self._check()
        uid = workitem.uid
        stored = StoredWorkitem(workitem, version, document)
        is_there, before = self._before(uid)
        self._count += not is_there
        self._missing.discard(uid)
        self._pending.put(stored, before)
        self._recent.keep(stored, len(document))
        self._changed()

    def remove(self, uid: str) -> None:
        """Remove a workitem, if present."""
        self._check()
        self._count -= self._before(uid)[0]
        self._pending.remove(uid)
        self._recent.forget(uid)
        self._changed()

    def _before(self, uid: str) -> tuple[bool, Workitem | None]:
        """True if a workitem exists, and its current state if that is in memory."""
        is_remembered, stored = self._remembered(uid)
        if is_remembered:
            return stored is not None, None if stored is None else stored.workitem
        return bool(self._rows("SELECT 1 FROM workitem WHERE uid = ?", uid)), None

    def get(self, uid: str) -> StoredWorkitem | None:
        """The workitem with a UID, None if it does not exist."""
        self._check_whole()
        is_remembered, stored = self._remembered(uid)
        return stored if is_remembered else self._read(uid)

    def _remembered(self, uid: str) -> tuple[bool, StoredWorkitem | None]:
        """True if memory has the answer, and the workitem (None if it does not exist)."""
        stored = self._recent.get(uid)
        if stored is not None:
            return True, stored
        return (True, None) if uid in self._missing else self._pending.get(uid)

    def _read(self, uid: str) -> StoredWorkitem | None:
        for version, document in self._documents(_GET, uid):
            stored = StoredWorkitem(self._decoded(document), version, document)
            self._recent.keep(stored, len(document))
            return stored
        if len(self._missing) >= _MISSES:
            self._missing.clear()
        self._missing.add(uid)
        return None

    def document(self, uid: str) -> bytes | None:
        """The document of a workitem as stored, None if it does not exist."""
        self._check_whole()
        is_remembered, stored = self._remembered(uid)
        if is_remembered:
            return None if stored is None else stored.document
        return next((document for _, document in self._documents(_GET, uid)), None)

    def text(self, uid: str) -> bytes | None:
        """The attributes of a workitem as JSON text of the inner form (core/dataset.py), None if it does not exist."""
        document = self.document(uid)
        with self._guarded():
            return None if document is None else whole(document)

    # --- from memory to the file ---

    def _changed(self) -> None:
        """Schedule a write: soon, or right away if many changes have been collected."""
        self._searches.outdated()
        if self._is_rebuilding:
            self.flush()
        elif len(self._pending) >= _WRITE_AT:
            self._write_soon()
        elif self._timer is None:
            with suppress(RuntimeError):  # without a loop, the next read or flush writes
                self._timer = asyncio.get_running_loop().call_later(_WRITE_DELAY, self._make_some_rows)

    def _make_some_rows(self) -> None:
        """Make a few rows per turn of the loop, so that many changes do not delay a request."""
        self._timer = None
        if self.broken is not None:
            return
        try:
            with self._guarded():
                is_more = self._pending.make_rows(self._local, _ROWS_TIME)
        except ProjectionBroken as error:
            self.on_broken(error)
            return
        if is_more:
            self._timer = asyncio.get_running_loop().call_soon(self._make_some_rows)
        else:
            self._write_soon()

    def _write_soon(self) -> None:
        """Let the thread write what is in memory; if it is far behind, write here, which delays further changes."""
        self._forget_timer()
        if self.broken is not None:
            return
        try:
            self._hand_over()
        except ProjectionBroken as error:
            self.on_broken(error)
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        if self._pending.batches_waiting > _MAXIMUM_BATCHES:
            with suppress(ProjectionBroken):
                self._write_down()
        loop.run_in_executor(self._thread, self._write_down).add_done_callback(self._wrote)

    def _wrote(self, writing: asyncio.Future[None]) -> None:
        error = None if writing.cancelled() else writing.exception()
        if isinstance(error, ProjectionBroken) and self.broken is not None:  # not renewed meanwhile
            self.on_broken(error)

    def _forget_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _hand_over(self) -> None:
        """Turn what is in memory into a batch that any thread can write. On the loop."""
        if self._pending:
            with self._guarded():
                self._pending.hand_over(self._local)

    def _write_down(self) -> None:
        """Write the batches that were handed over, in order. In any thread."""
        with self._lock:
            for batch in self._pending.handed_over():
                with self._guarded():
                    self._writer.write(batch)

    def flush(self) -> None:
        """Write what is in memory to the file before returning. Raises ProjectionBroken."""
        self._forget_timer()
        self._hand_over()
        self._write_down()

    def write_copy(self) -> None:
        """Call ``flush`` if this file is a copy. Raises ProjectionBroken."""
        if self.is_copy:
            self.flush()

    def last_event(self) -> int:
        """The greatest sequence in the event log, 0 if it is empty."""
        self.flush()
        return int(self._rows("SELECT COALESCE(MAX(sequence), 0) FROM event")[0][0])

    def count(self) -> int:
        """The number of workitems; while broken, the last number."""
        return self._count

    # --- marks, tombstones and differences from the store, for a start (store/journal.py) ---

    def marks(self) -> Sequence[str]:
        """The marks in the file; none while it is incomplete."""
        with self._guarded(), self._lock:
            return self._writer.marks() if self._whole else ()

    async def write_mark(self, mark: str) -> None:
        """Write all earlier changes and then a mark to the file. Raises ProjectionBroken."""
        self._check_whole()
        self._hand_over()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._write_mark, mark)

    def _write_mark(self, mark: str) -> None:
        self._write_down()
        with self._guarded(), self._lock:
            self._writer.write_mark(mark)

    def keep_tombstones(self, entries: Iterable[Entry]) -> None:
        """Add entries of purged workitems."""
        self._check()
        for entry in entries:
            uid = keys.uid_of(entry.key)
            self._pending.keep_tombstone(TombstoneRow(uid, entry.version, entry.document))
        self._changed()

    def drop_tombstone(self, uid: str) -> None:
        """Remove the entry of a purged workitem, if present."""
        self._check()
        self._pending.keep_tombstone(TombstoneRow(uid))
        self._changed()

    def tombstones(self) -> Iterator[Entry]:
        """The entries of all purged workitems."""
        self.flush()
        for uid, version, document in self._rows("SELECT uid, version, document FROM tombstone"):
            yield Entry(keys.workitem(uid), document, version)

    def align(self, entries: Sequence[Entry]) -> list[Entry]:
        """Update the workitems of these entries of the store, if they differ.

        Returns damaged entries, as ``Rebuild.take``. Raises ProjectionBroken.
        """
        self.flush()
        damaged: list[Entry] = []
        for offset in range(0, len(entries), _AT_ONCE):
            damaged += self._take(entries[offset : offset + _AT_ONCE])
        for entry in entries:
            self._recent.forget(keys.uid_of(entry.key))
        self._missing.clear()
        self._searches.outdated()
        self._count = self._counted()
        return damaged

    # --- many workitems, on the event loop, some at a time ---

    def created(self, after: int, through: int, limit: int) -> list[Workitem]:
        """Workitems with creation numbers greater than ``after`` up to ``through``, in that order."""
        return self._some("m.created > ? AND m.created <= ?", "m.created, m.id", (after, through), limit)

    def ended(self, after: tuple[float, int], before: float, limit: int) -> list[Workitem]:
        """Final workitems that ended before a time (seconds since the epoch), by time of end and creation number.

        ``after``: both values of the last workitem of the page before.
        """
        where = "m.ended >= ? AND m.ended < ? AND (m.ended, m.created) > (?, ?)"
        return self._some(where, "m.ended, m.created", (after[0], before, *after), limit)

    def with_events_after(self, sequence: int) -> Iterator[Workitem]:
        """Workitems whose documents contain an event with a sequence greater than ``sequence``."""
        return self._each("m.last_event > ?", sequence)

    def with_acts(self) -> Iterator[Workitem]:
        """Workitems with subscriptions or unsubscriptions of their own, or with overflow entries."""
        return self._each("m.noted <> 0")

    def documents(self) -> Iterator[tuple[str, bytes, str]]:
        """Key, document and version of every workitem's entry.

        Works while the projection is broken or being rebuilt, because it may be the last copy. Raises ProjectionBroken
        at the first that cannot be read.
        """
        if self.broken is None:
            with suppress(ProjectionBroken):
                self.flush()
        after = -1
        text = (
            "SELECT m.id, m.uid, b.document, m.version FROM workitem m CROSS JOIN body b ON b.id = m.id "
            "WHERE m.id > ? ORDER BY m.id LIMIT ?"
        )
        while rows := self._last_copies(text, after):
            with self._guarded(even_broken=True):
                yield from [
                    (keys.workitem(uid), unpacked(stored), version) for _, uid, stored, version in rows
                ]
            after = rows[-1][0]

    def versions(self) -> Iterator[tuple[str, str]]:
        """SOP Instance UID and version of every workitem."""
        self.flush()
        after, text = -1, "SELECT m.id, m.uid, m.version FROM workitem m WHERE m.id > ? ORDER BY m.id LIMIT ?"
        while rows := self._rows(text, after, _AT_ONCE):
            yield from [(uid, version) for _, uid, version in rows]
            after = rows[-1][0]

    def _last_copies(self, text: str, after: int) -> list[Any]:
        try:
            with self._lock:
                return self._file.writer.execute(text, (after, _AT_ONCE)).fetchall()
        except sqlite3.Error as error:
            raise self._broke(error) from error

    def _each(self, where: str, *values: int) -> Iterator[Workitem]:
        after, text = -1, f"SELECT m.id FROM workitem m WHERE {where} AND m.id > ? ORDER BY m.id LIMIT ?"  # noqa: S608
        self._check_whole()
        self.flush()
        while rows := self._rows(text, *values, after, _AT_ONCE):
            for (row,) in rows:
                for _, document in self._documents("SELECT id, document FROM body WHERE id = ?", row):
                    yield self._decoded(document)
            after = rows[-1][0]

    def _some(self, where: str, order: str, values: tuple[object, ...], limit: int) -> list[Workitem]:
        self._check_whole()
        self.flush()
        text = (
            "SELECT m.version, b.document FROM workitem m CROSS JOIN body b ON b.id = m.id "  # noqa: S608
            f"WHERE {where} ORDER BY {order} LIMIT ?"
        )
        return [self._decoded(document) for _, document in self._documents(text, *values, limit)]

    # --- rebuilding ---

    @contextmanager
    def rebuilding(self) -> Iterator[Rebuild]:
        """Synchronize with the store: the caller passes every entry of a workitem to ``Rebuild.take``.

        Workitems that were not passed are removed at the end. If an exception leaves the block, nothing is removed, and
        reads raise ProjectionBroken until a later rebuilding succeeds.
        """
        if self.broken is None:
            self.flush()
        self._close_connection()
        with self._guarded(), self._lock:
            self._writer.begin()
        self._recent.clear()
        self._missing.clear()
        self._is_rebuilding = True
        self._interned = Interned()
        self._whole = complete = False
        try:
            yield Rebuild(self._take)
            complete = True
        finally:
            self._is_rebuilding = False
            self._interned.clear()
            if not self.broken:
                self._finish(complete=complete)

    def _finish(self, *, complete: bool) -> None:
        with self._guarded(), self._lock:
            removed = self._writer.finish(complete=complete)
        self._searches.outdated()
        self._count, self._whole = self._counted(), complete
        if removed:
            _log.info("Removed %d workitems from the projection that the store does not have", removed)

    def _take(self, entries: Sequence[Entry]) -> list[Entry]:
        triples = [(keys.uid_of(entry.key), entry.version, entry.document) for entry in entries]
        with self._guarded(), self._lock:
            same = self._writer.unchanged(triples)
        changed = [entry for entry in entries if keys.uid_of(entry.key) not in same]
        changes = [(entry, self._change(entry)) for entry in changed]
        damaged = [entry for entry, change in changes if change is None]
        batch = ProjectionBatch([change for _, change in changes if change is not None])
        # Written here: a second thread would compete for Python's global lock, and both together would take longer.
        with self._guarded(), self._lock:
            for entry in damaged:
                self._writer.spare(keys.uid_of(entry.key))
            self._writer.write(batch)
        return damaged

    def _change(self, entry: Entry) -> WorkitemRows | None:
        """The rows of an entry; None if it is damaged."""
        try:
            workitem = decode_interned(entry.document, self._interned)
        except UnreadableDocument:
            return None
        if entry.key != keys.workitem(workitem.uid):
            return None
        with self._guarded():
            return change_of(workitem, entry.version, entry.document, self._local, None)

    # --- queries, off the event loop ---

    async def search(
        self,
        query: Query,
        offset: int = 0,
        limit: int | None = None,
        order: str | None = None,
        words: Sequence[str] = (),
        also: Sequence[Column | Ids] = (),
    ) -> tuple[tuple[DataSet, ...], int]:
        """The attributes of the matches from ``offset`` on, at most ``limit``, and the number of all matches.

        ``order`` is one of ``start`` (the default), ``created``, ``modification``, ``state``, ``priority``,
        ``label``, ``worklist_label``, ``patient_name``, ``station``, ``performer``, ``progress``,
        ``urgency`` (priority, then start), ``work``, ``completion``, ``expiration``, ``claimer``, ``claimed``,
        ``ended``, ``duration``, ``performed``; a leading ``-`` reverses it, but matches without a value
        (``NONE_LAST``) come last either way. Ties are in the order of creation. Each of ``words``
        (``core/free_text.py``) must occur in a match, and each test of ``also`` must hold.
        Raises ValueError for any other order, UpsError (A700, 503) if too many searches are waiting.
        """
        self._up_to_date()
        return await self._searches.search(
            query, offset, limit, order or "start", tuple(words), attributes_of, tuple(also)
        )

    async def search_texts(
        self, query: Query, offset: int, limit: int | None, selection: Selection
    ) -> tuple[tuple[bytes, ...], int]:
        """Like ``search`` by scheduled start, with the selected attributes as JSON text of the inner form."""
        self._up_to_date()
        return await self._searches.search(
            query, offset, limit, "start", (), lambda document: selected(document, selection)
        )

    async def workitems(
        self,
        query: Query,
        offset: int,
        limit: int,
        order: str,
        words: Sequence[str] = (),
        also: Sequence[Column | Ids] = (),
    ) -> tuple[tuple[Workitem, ...], int]:
        """Like ``search``, with whole workitems."""
        self._up_to_date()
        return await self._searches.search(query, offset, limit, order, tuple(words), decode, tuple(also))

    async def walk(
        self,
        query: Query,
        order: str,
        words: Sequence[str],
        also: Sequence[Column | Ids],
        form: Callable[[Workitem], _T],
        part: range,
        many: int = 100,
    ) -> tuple[AsyncIterator[list[_T]], int]:
        """The results of ``form`` for all current matches, ``many`` at a time, and the number of all matches.

        Only matches at the positions in ``part`` are returned, without those deleted meanwhile. ``form`` runs in
        another thread.
        """
        self._up_to_date()
        return await self._searches.walk(
            query, order, tuple(words), lambda document: form(decode(document)), tuple(also), part, many
        )

    async def stream(self, query: Query, chunk: int = 25) -> AsyncIterator[list[DataSet]]:
        """The attributes of all matches by scheduled start, at most ``chunk`` at a time, each match once.

        May be abandoned at any time. A workitem that changes meanwhile may be returned or not.
        """
        self._up_to_date()
        async for matches in self._searches.stream(query, chunk):
            yield matches

    async def numbers(self, query: Query) -> list[int]:
        """The creation numbers of all matches, ascending."""
        self._up_to_date()
        return await self._searches.run(lambda reader: reader.numbers(query))

    async def tally(
        self, query: Query, words: Sequence[str] = (), also: Sequence[Column | Ids] = ()
    ) -> dict[str, int]:
        """The number of matches per state; parameters as in ``search``."""
        self._up_to_date()
        return await self._searches.run(lambda reader: reader.tally(query, words, also))

    async def read(self, sql: Sql) -> list[tuple[object, ...]]:
        """The rows of a statement of ``late.py`` or ``vocabulary.py``."""
        self._up_to_date()
        return await self._searches.run(lambda reader: reader.read(sql))

    async def counts(self) -> Counts:
        """The number of workitems per worklist label and state."""
        self._up_to_date()
        generation, counts = self._searches.generation, self._counts
        if counts is None or counts[0] != generation:
            counts = generation, await self._searches.run(lambda reader: reader.counts())
            self._counts = counts
        return counts[1]

    # --- the event log ---

    def record_events(self, events: Iterable[Event]) -> None:
        """Add released events to the event log, replacing any with the same sequence."""
        with self._guarded():
            self._pending.record([event_row(event) for event in events])
        self._changed()

    def respell_receivers(self, titles: Mapping[str, str]) -> None:
        """Replace AE titles (the keys) in the event log by others (the values)."""
        self.flush()
        with self._guarded(), self._lock:
            self._writer.respell_receivers(titles)

    def forget_events(self, before: float, limit: int = _FORGOTTEN_AT_ONCE) -> int:
        """Remove up to ``limit`` events committed before a time (seconds since the epoch); return how many."""
        self.flush()
        with self._guarded(), self._lock:
            return self._writer.forget_events(before, limit)

    async def events(self, after: int, limit: int, receiver: str | None = None) -> list[Event]:
        """Up to ``limit`` logged events after a sequence, in order; with ``receiver``, only those to that AE."""
        self._check()
        self._hand_over()
        return await self._searches.run(lambda reader: reader.events(after, limit, receiver))

    async def events_of(self, uid: str, limit: int = _EVENTS_OF_WORKITEM) -> list[Event]:
        """The last logged events of a workitem, oldest first."""
        self._check()
        self._hand_over()
        return await self._searches.run(lambda reader: reader.events_of(uid, limit))

    # --- checks and errors ---

    def _check(self) -> None:
        if self.broken:
            raise ProjectionBroken(self.broken)

    def _up_to_date(self) -> None:
        """Let the next search see every earlier change."""
        self._check_whole()
        self._hand_over()

    def _check_whole(self) -> None:
        self._check()
        if not self._whole:
            raise ProjectionBroken("it is being rebuilt")

    def _read_failed(self, error: Exception) -> ProjectionBroken:
        """Report a read that failed in a thread, because some callers cannot start a rebuild. On the loop."""
        broken = self._broke(error)
        self.on_broken(broken)
        return broken

    def _broke(self, error: object) -> ProjectionBroken:
        self.broken = self.broken or str(error)
        return ProjectionBroken(self.broken)

    @contextmanager
    def _guarded(self, *, even_broken: bool = False) -> Iterator[None]:
        """Turn any error into ProjectionBroken, so that a change that is stored does not seem to have failed."""
        if not even_broken:
            self._check()
        try:
            yield
        except Exception as error:
            raise self._broke(error) from error

    def _rows(self, text: str, *values: object) -> list[Any]:
        with self._guarded():
            if self._connection is None:
                self._connection = self._file.reader()
            return self._connection.execute(text, values).fetchall()

    def _documents(self, text: str, *values: object) -> list[tuple[str, bytes]]:
        with self._guarded():
            return [(version, unpacked(stored)) for version, stored in self._rows(text, *values)]

    def _decoded(self, document: bytes) -> Workitem:
        with self._guarded():
            return decode(document)

    def _counted(self) -> int:
        return int(self._rows("SELECT COUNT(*) FROM workitem")[0][0])
