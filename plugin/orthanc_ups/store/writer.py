# SPDX-License-Identifier: AGPL-3.0-or-later
"""Compare-and-set writes.

``CompareAndSet`` alone handles lost answers. ``Writer`` repeats it until the outcome is certain, for commands.
``StoredEntry`` leaves that to its caller and merges what another writer wrote, for cursors, dead letters and notes.
"""

from __future__ import annotations

import asyncio
import hashlib
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
_TRIES: Final = 5


class Conflict(Exception):
    """Another writer was first. ``entry`` is what is stored now, None if nothing is."""

    def __init__(self, entry: Entry | None) -> None:
        super().__init__("the entry was changed by somebody else")
        self.entry = entry


class CompareAndSet:
    """Writes to one entry, each on condition that the entry still has the version of the last one.

    When the answer to a write is lost, its document may or may not be stored. Whatever is written next, the same
    document or another one, settles that: if the lost write did arrive, the next one conflicts with it, and the entry
    holds the very document that is in doubt (documents carry a counter, so no two are equal). So nothing is written
    twice, and the plugin's own write is never taken for somebody else's.

    Example: the entry has version 7. The answer to the write of document A is lost: ``write(A)`` raises
    StoreUnavailable, and ``is_in_doubt`` is true. If A did arrive, a second ``write(A)`` is refused for version 7,
    reads A with version 8, and returns 8. A ``write(B)`` is refused as well, reads A, and replaces version 8 by B.

    Attributes:
        version: what the next write replaces; None to create the entry.
    """

    __slots__ = ("_doubtful", "_entries", "_key", "version")

    def __init__(self, entries: Entries, key: str, version: str | None = None) -> None:
        self.version = version
        self._entries = entries
        self._key = key
        self._doubtful: frozenset[bytes] = frozenset()

    @property
    def is_in_doubt(self) -> bool:
        """True while it is unknown whether a document that was sent is stored."""
        return bool(self._doubtful)

    def take(self, version: str | None) -> None:
        """The entry was read and has this version; None if it does not exist."""
        self.version = version
        self._doubtful = frozenset()

    async def write(self, document: bytes) -> str:
        """Create or replace the entry; return its new version.

        Raises:
            Conflict: somebody else wrote meanwhile, and nothing was written. ``version`` is theirs now.
            StoreUnavailable: certainly not written, unless ``is_in_doubt``.
        """
        while True:
            try:
                if self.version is None:
                    self.take(await self._entries.create(self._key, document))
                else:
                    self.take(await self._entries.replace(self._key, document, self.version))
            except (EntryConflict, EntryExists):
                if not await self._is_stored(document):
                    continue  # an earlier document of this plugin is, and ``version`` is its version
            except StoreUnavailable as error:
                if not error.certain:
                    self._doubt(document)
                raise
            except Exception as error:
                _log.exception("Writing %s failed: internal error", self._key)
                self._doubt(document)
                await self._require_stored(document, error)
            except BaseException:  # a cancelled task: its request may be under way
                self._doubt(document)
                raise
            assert self.version is not None
            return self.version

    def _doubt(self, document: bytes) -> None:
        self._doubtful |= {_digest(document)}

    async def _is_stored(self, document: bytes) -> bool:
        """After a conflict: True if the document is stored; False if an earlier one is, whose answer was lost."""
        doubtful, entry = self._doubtful, await self._read()
        self.take(entry.version if entry is not None else None)
        if entry is not None and entry.document == document:
            return True
        if entry is not None and _digest(entry.document) in doubtful:
            return False
        raise Conflict(entry)

    async def _require_stored(self, document: bytes, error: Exception) -> None:
        try:
            if await self._is_stored(document):
                return
        except Conflict:
            pass
        raise StoreUnavailable(f"internal error: {error!r}", certain=True) from error

    async def _read(self) -> Entry | None:
        try:
            return await self._entries.read(self._key)
        except ShelvesLost:
            raise
        except StoreUnavailable as error:
            reason = f"{self._key} was changed and cannot be read: {error}"
            raise StoreUnavailable(reason, certain=not self.is_in_doubt) from error

    async def remove(self) -> None:
        """Delete the entry.

        Raises:
            Conflict: somebody else wrote meanwhile, and nothing was deleted. ``version`` is theirs now.
            StoreUnavailable: it is unknown whether the entry is deleted.
        """
        if self.version is None:
            return
        try:
            await self._entries.remove(self._key, self.version)
            self.take(None)
        except EntryConflict:
            entry = await self._entries.read(self._key)
            self.take(entry.version if entry is not None else None)
            if entry is not None:
                raise Conflict(entry) from None

    async def discard(self) -> None:
        """Delete the entry whatever its version. Raises StoreUnavailable."""
        while self.version is not None:
            try:
                await self.remove()
            except Conflict:
                _log.debug("%s was changed before it was deleted", self._key)


def _digest(document: bytes) -> bytes:
    return hashlib.sha256(document).digest()


class Writer:
    """Writes entries until the outcome of each write is certain.

    That may take as long as Orthanc does not answer; ``is_stuck`` then says that starting more writes is pointless.
    """

    def __init__(self, entries: Entries, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._entries = entries
        self._sleep = sleep
        self._stuck: set[CompareAndSet] = set()
        self._failure = ""

    @property
    def is_stuck(self) -> bool:
        """True while some write has been repeated several times without an answer."""
        return bool(self._stuck)

    @property
    def trouble(self) -> str:
        """Why the last write failed, "" if it succeeded."""
        return "Orthanc does not say whether a change was stored" if self._stuck else self._failure

    async def write(self, key: str, document: bytes, version: str | None) -> str:
        """Create (``version`` None) or replace an entry; return its new version.

        Raises:
            Conflict: the entry is not what ``version`` says.
            StoreUnavailable: certainly not written. (Only a cancelled write leaves that open.)
        """
        entry = CompareAndSet(self._entries, key, version)
        attempts, pauses = 0, None
        try:
            while True:
                try:
                    written = await entry.write(document)
                    self._failure = ""
                    return written
                except StoreUnavailable as error:
                    # A write to lost shelves is lost with them, so it is certainly not stored.
                    if isinstance(error, ShelvesLost) or not entry.is_in_doubt:
                        self._failure = str(error)
                        raise
                    _log.warning("No certain answer for a write of %s (%s); asking again", key, error)
                attempts += 1
                if attempts == _STUCK_AFTER:
                    self._stuck.add(entry)
                pauses = pauses or growing(_FIRST_PAUSE, _LONGEST_PAUSE)
                await self._sleep(next(pauses))
        finally:
            self._stuck.discard(entry)

    async def overwrite(self, key: str, document: bytes) -> str:
        """Write whatever is stored now. For entries that only this plugin writes. Raises StoreUnavailable."""
        version: str | None = None
        while True:
            try:
                return await self.write(key, document, version)
            except Conflict as conflict:
                version = conflict.entry.version if conflict.entry else None

    async def remove(self, key: str, version: str) -> None:
        """Delete an entry. Raises Conflict, or StoreUnavailable if it is unknown whether it is deleted."""
        await CompareAndSet(self._entries, key, version).remove()

    async def discard(self, key: str, version: str) -> None:
        """Delete an entry whatever its version. Raises StoreUnavailable if it is unknown whether it is deleted."""
        await CompareAndSet(self._entries, key, version).discard()


class StoredEntry:
    """An entry with its document as it was last written or loaded; merges what somebody else wrote meanwhile.

    The document stays in memory, compressed, so that reading it costs no request and the entry can be written back
    if somebody deletes it in Orthanc.
    """

    __slots__ = ("_entry", "_packed", "key")

    def __init__(self, entries: Entries, key: str) -> None:
        self.key = key
        self._entry = CompareAndSet(entries, key)
        self._packed = b""

    def take(self, document: bytes, version: str) -> None:
        """Take over the stored document and its version."""
        self._entry.take(version)
        self._packed = zlib.compress(document, 1)

    @property
    def document(self) -> bytes:
        """The document as it was last written or loaded; empty if it never was."""
        return zlib.decompress(self._packed) if self._packed else b""

    @property
    def stored(self) -> Entry | None:
        """The entry as it is stored, None if it does not exist."""
        version = self._entry.version
        return Entry(self.key, self.document, version) if version is not None else None

    async def write(self, make: Callable[[bytes | None], bytes]) -> None:
        """Write the document that ``make`` returns.

        Args:
            make: called with None, or with the document that another writer stored meanwhile, to merge with it.

        Raises:
            StoreUnavailable: the write may or may not have been done; write again.
        """
        current: bytes | None = None
        for _ in range(_TRIES):
            document = make(current)
            try:
                self.take(document, await self._entry.write(document))
                return
            except Conflict as conflict:
                current = conflict.entry.document if conflict.entry else None
        raise StoreUnavailable(
            f"entry {self.key} kept changing; gave up after {_TRIES} attempts", certain=True
        )

    async def remove(self) -> None:
        """Delete the entry whatever its version. May raise StoreUnavailable."""
        await self._entry.discard()
