# SPDX-License-Identifier: AGPL-3.0-or-later
"""Reports when a disk that the worklist needs is full. Orthanc's own errors then mention a "cached statement" only."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

_log = logging.getLogger("orthanc_ups")
MINIMUM_FREE: Final = 16 * 1024 * 1024
"""Bytes that should be free: what SQLite may need at one time for its log and its checkpoint."""
_EVERY: Final = 5.0  # seconds


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


class DiskSpace:
    """Watches the disks of some folders, and logs once when one is full and once when it has free space again."""

    def __init__(self, folders: Iterable[Path], free: Callable[[Path], int] = _free) -> None:
        """``free`` returns the free bytes on the disk of a folder; it may raise OSError."""
        self._folders = tuple(dict.fromkeys(folders))
        self._free = free
        self._full: dict[Path, int] = {}

    def check(self) -> None:
        """Check now. A disk that cannot be checked keeps its last state."""
        for folder in self._folders:
            try:
                self._note(folder, self._free(folder))
            except OSError as error:
                _log.debug("Cannot check the free space on the disk of %s: %s", folder, error)

    def _note(self, folder: Path, free: int) -> None:
        if free >= MINIMUM_FREE:
            if self._full.pop(folder, None) is not None:
                _log.warning("The disk of %s has free space again", folder)
        else:
            if folder not in self._full:
                _log.error("%s. Changes are refused until space is freed", _sentence(folder, free))
            self._full[folder] = free

    def warnings(self) -> tuple[str, ...]:
        """Warnings for an operator, one per full disk."""
        return tuple(f"{_sentence(folder, free)}. Free some space." for folder, free in self._full.items())

    def full(self) -> Mapping[Path, int]:
        """Folders whose disk is full, with the free bytes."""
        return self._full

    async def run(self) -> None:
        """Check every few seconds, forever."""
        while True:
            self.check()
            await asyncio.sleep(_EVERY)


def _sentence(folder: Path, free: int) -> str:
    expected = MINIMUM_FREE // 1024**2
    return f"The disk of {folder} is full: {free // 1024} kB are free, expected at least {expected} MB"
