# SPDX-License-Identifier: AGPL-3.0-or-later
"""Compare-and-set writes: ``Writer`` ends in certainty, ``StoredEntry`` merges what others wrote."""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Awaitable, Callable
from typing import Final

from ..core.pauses import growing
from .port import Entries, Entry, EntryConflict, EntryExists, ShelvesLost, StoreUnavailable

_log = logging.getLogger("orthanc_ups.store")
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 5.0
_STUCK_AFTER: Final = 5


class Conflict(Exception):
    """Another writer was first. ``entry`` is what stands there now, None if nothing does."""

    def __init__(self, entry: Entry | None) -> None:
        super().__init__("the entry was changed by somebody else")
        self.entry = entry


class Writer:
    """Writes entries until it is certain what became of them.

    When an answer is lost, the same compare-and-set is sent again: if the first one did arrive, the second
    conflicts with it and the entry is found to hold our very document (documents carry a counter, so no two
    are equal). It cannot be written twice. That may take as long as Orthanc is silent; ``is_stuck`` then tells
    that it is of no use to begin anything else.
    """

    def __init__(self, entries: Entries, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._entries = entries
        self._sleep = sleep
        self._stuck: set[_UncertainWrite] = set()
        self._failure = ""

    @property
    def is_stuck(self) -> bool:
        """True while some write has been asked about several times without an answer."""
        return bool(self._stuck)

    @property
    def trouble(self) -> str:
        """Why the last write was not done, "" if it was."""
        return "Orthanc does not say whether a change was stored" if self._stuck else self._failure

    async def write(self, key: str, document: bytes, version: str | None) -> str:
        """Create (``version`` None) or replace an entry; return its new version.

        Raises:
            Conflict: the entry is not what ``version`` says.
            StoreUnavailable: surely not written. (A cancelled write alone leaves the question open.)
        """
        try:
            written = await self._written(key, document, version)
        except StoreUnavailable as error:
            self._failure = str(error)
            raise
        self._failure = ""
        return written

    async def _written(self, key: str, document: bytes, version: str | None) -> str:
        uncertain = _UncertainWrite(key, self._sleep, self._stuck)
        try:
            while True:
                try:
                    return await self._sent(key, document, version)
                except (EntryConflict, EntryExists):
                    return await self._mine(key, document, uncertain)
                except StoreUnavailable as error:
                    await uncertain.pause_or_raise(error)
                except Exception as error:
                    _log.exception("Writing %s failed: internal error", key)
                    return await self._mine_or_failed(key, document, uncertain, error)
        finally:
            uncertain.end()

    async def _sent(self, key: str, document: bytes, version: str | None) -> str:
        if version is None:
            return await self._entries.create(key, document)
        return await self._entries.replace(key, document, version)

    async def _mine(self, key: str, document: bytes, uncertain: _UncertainWrite) -> str:
        entry = await self._read(key, uncertain)
        if entry is not None and entry.document == document:
            return entry.version
        raise Conflict(entry)

    async def _mine_or_failed(
        self, key: str, document: bytes, uncertain: _UncertainWrite, error: Exception
    ) -> str:
        uncertain.begin()
        try:
            return await self._mine(key, document, uncertain)
        except Conflict:
            raise StoreUnavailable(f"internal error: {error!r}", certain=True) from error

    async def _read(self, key: str, uncertain: _UncertainWrite) -> Entry | None:
        while True:
            try:
                return await self._entries.read(key)
            except StoreUnavailable as error:
                certain = StoreUnavailable(f"{key} was changed and cannot be read: {error}", certain=True)
                await uncertain.pause_or_raise(error if isinstance(error, ShelvesLost) else certain)

    async def overwrite(self, key: str, document: bytes) -> str:
        """Write whatever stands there now. For entries that only this plugin writes. Raises StoreUnavailable."""
        version: str | None = None
        while True:
            try:
                return await self.write(key, document, version)
            except Conflict as conflict:
                version = conflict.entry.version if conflict.entry else None

    async def remove(self, key: str, version: str) -> None:
        """Delete an entry. Raises Conflict, or StoreUnavailable if nobody can tell."""
        try:
            await self._entries.remove(key, version)
        except EntryConflict:
            entry = await self._entries.read(key)
            if entry is not None:
                raise Conflict(entry) from None

    async def discard(self, key: str, version: str) -> None:
        """Delete an entry whatever stands there now. Raises StoreUnavailable if nobody can tell."""
        while True:
            try:
                return await self.remove(key, version)
            except Conflict as conflict:
                assert conflict.entry is not None
                version = conflict.entry.version


class _UncertainWrite:
    """Whether it is open what became of a write, and the pauses between the questions."""

    def __init__(
        self, key: str, sleep: Callable[[float], Awaitable[None]], stuck: set[_UncertainWrite]
    ) -> None:
        self._key = key
        self._sleep = sleep
        self._stuck = stuck
        self._pauses = growing(_FIRST_PAUSE, _LONGEST_PAUSE)
        self._attempts = 0
        self._is_uncertain = False

    def begin(self) -> None:
        """From now on nobody knows."""
        self._is_uncertain = True

    async def pause_or_raise(self, error: StoreUnavailable) -> None:
        """Pause before the next question; raise the error if there is none.

        What may have stood on lost shelves is lost with them, so that is certain too.
        """
        if isinstance(error, ShelvesLost) or (error.certain and not self._is_uncertain):
            raise error
        self._is_uncertain = True
        self._attempts += 1
        if self._attempts >= _STUCK_AFTER:
            self._stuck.add(self)
        _log.warning("No certain answer for a write of %s (%s); asking again", self._key, error)
        await self._sleep(next(self._pauses))

    def end(self) -> None:
        """It is known, or nobody waits for it any more."""
        self._stuck.discard(self)


_TRIES: Final = 5


class StoredEntry:
    """Compare-and-set writes of one entry; on a conflict what stands there is read and merged.

    The document is remembered (compressed), so that reading it costs no request, and the entry can be
    written back if it is deleted under us.
    """

    __slots__ = ("_doubtful", "_entries", "_packed", "_version", "key")

    def __init__(self, entries: Entries, key: str) -> None:
        self.key = key
        self._entries = entries
        self._version: str | None = None
        self._packed = b""
        self._doubtful: bytes | None = None

    def take(self, document: bytes, version: str) -> None:
        """What stands in the store."""
        self._version = version
        self._packed = zlib.compress(document, 1)
        self._doubtful = None

    @property
    def document(self) -> bytes:
        """The document as it was last written or loaded; empty if it never was."""
        return zlib.decompress(self._packed) if self._packed else b""

    @property
    def stored(self) -> Entry | None:
        """The entry as it stands in the store, None if it does not."""
        return Entry(self.key, self.document, self._version) if self._version is not None else None

    async def write(self, make: Callable[[bytes | None], bytes]) -> None:
        """Write the document that ``make`` returns.

        Args:
            make: is given None, or the document that somebody else wrote meanwhile, to merge with it.

        Raises:
            StoreUnavailable: the write may or may not have been done; writing again is right.
        """
        current: bytes | None = None
        for _ in range(_TRIES):
            document = make(current)
            try:
                self.take(document, await self._write(document))
                return
            except (EntryConflict, EntryExists):
                current = await self._reread()
        raise StoreUnavailable(
            f"entry {self.key} kept changing; gave up after {_TRIES} attempts", certain=True
        )

    async def _write(self, document: bytes) -> str:
        previous, self._doubtful = self._doubtful, document
        try:
            return await self._compare_and_set(document)
        except (EntryConflict, EntryExists):
            self._doubtful = previous
            raise

    async def _compare_and_set(self, document: bytes) -> str:
        if self._version is None:
            return await self._entries.create(self.key, document)
        return await self._entries.replace(self.key, document, self._version)

    async def _reread(self) -> bytes | None:
        entry = await self._entries.read(self.key)
        self._version = entry.version if entry else None
        if entry is None or entry.document == self._doubtful:
            return None  # a write of ours whose answer was lost did arrive
        return entry.document

    async def remove(self) -> None:
        """Delete the entry, whatever stands in it. May raise StoreUnavailable."""
        for _ in range(_TRIES):
            if self._version is None:
                return
            try:
                await self._entries.remove(self.key, self._version)
                self._version = None
                return
            except EntryConflict:
                await self._reread()
