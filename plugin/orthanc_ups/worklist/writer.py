# SPDX-License-Identifier: AGPL-3.0-or-later
"""Compare-and-set writes that end in certainty: written, surely not written, or somebody else was first."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from ..store.port import Entries, Entry, EntryConflict, EntryExists, StoreUnavailable

_log = logging.getLogger("orthanc_ups.store")
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 5.0


class Conflict(Exception):
    """Another writer was first. ``entry`` is what stands there now, None if nothing does."""

    def __init__(self, entry: Entry | None) -> None:
        super().__init__("the entry was changed by somebody else")
        self.entry = entry


class Writer:
    """Writes entries until it is certain what became of them.

    When an answer is lost, the same compare-and-set is sent again: if the first one did arrive, the second
    conflicts with it and the entry is found to hold our very document (documents carry a counter, so no two
    are equal). It cannot be written twice.
    """

    def __init__(self, entries: Entries) -> None:
        self._entries = entries

    async def write(self, key: str, document: bytes, version: str | None) -> str:
        """Create (``version`` None) or replace an entry; return its new version.

        Raises:
            Conflict: the entry is not what ``version`` says.
            StoreUnavailable: surely not written.
        """
        pause, doubtful = _FIRST_PAUSE, False
        while True:
            try:
                if version is None:
                    return await self._entries.create(key, document)
                return await self._entries.replace(key, document, version)
            except (EntryConflict, EntryExists):
                return await self._mine(key, document)
            except StoreUnavailable as error:
                if error.certain and not doubtful:
                    raise
                doubtful = True
                _log.warning("No certain answer for a write of %s (%s); asking again", key, error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _mine(self, key: str, document: bytes) -> str:
        entry = await self._read(key)
        if entry is not None and entry.document == document:
            return entry.version
        raise Conflict(entry)

    async def _read(self, key: str) -> Entry | None:
        pause = _FIRST_PAUSE
        while True:
            try:
                return await self._entries.read(key)
            except StoreUnavailable as error:
                _log.warning("Cannot read %s back (%s); trying again", key, error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def overwrite(self, key: str, document: bytes) -> str:
        """Write whatever stands there now. For entries that only this plugin writes."""
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
            entry = await self._read(key)
            if entry is not None:
                raise Conflict(entry) from None
