# SPDX-License-Identifier: AGPL-3.0-or-later
"""One stored entry of delivery, kept right whoever else touches it, and remembered."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final

from ..store.port import Entries, Entry, EntryConflict, EntryExists, StoreUnavailable

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
