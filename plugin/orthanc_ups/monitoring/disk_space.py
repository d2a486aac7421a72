# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tells when a disk that the worklist needs is full: Orthanc's own errors then speak of a "cached statement"."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

_log = logging.getLogger("orthanc_ups")
LEAST: Final = 16 * 1024 * 1024
"""Bytes that should be free: what SQLite needs at once for its log and its checkpoint."""
_EVERY: Final = 5.0  # seconds


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


class DiskSpace:
    """Watches the disks of some folders, and says it once when one is full, and once when it has space again."""

    def __init__(self, folders: Iterable[Path], free: Callable[[Path], int] = _free) -> None:
        """``free`` gives the free bytes of the disk of a folder; it may raise OSError."""
        self._folders = tuple(dict.fromkeys(folders))
        self._free = free
        self._full: dict[Path, int] = {}

    def look(self) -> None:
        """Look now. A disk that cannot be looked at counts as before."""
        for folder in self._folders:
            try:
                self._take(folder, self._free(folder))
            except OSError as error:
                _log.debug("Cannot check the free space on the disk of %s: %s", folder, error)

    def _take(self, folder: Path, free: int) -> None:
        if free >= LEAST:
            if self._full.pop(folder, None) is not None:
                _log.warning("The disk of %s has free space again", folder)
        else:
            if folder not in self._full:
                _log.error("%s. Changes are refused until space is freed", _in_words(folder, free))
            self._full[folder] = free

    def warnings(self) -> tuple[str, ...]:
        """What an operator should know, in words."""
        return tuple(f"{_in_words(folder, free)}: free some space." for folder, free in self._full.items())

    def full(self) -> Mapping[Path, int]:
        """Folders whose disk is full, and the free bytes."""
        return self._full

    async def run(self) -> None:
        """Look again and again; for a task that runs as long as the plugin."""
        while True:
            self.look()
            await asyncio.sleep(_EVERY)


def _in_words(folder: Path, free: int) -> str:
    return (
        f"The disk of {folder} is full: {free // 1024} kB are free, expected {LEAST // 1024**2} MB at least"
    )
