# SPDX-License-Identifier: AGPL-3.0-or-later
"""Notices that Orthanc has been told to stop, before Orthanc itself says so.

Before it sends ORTHANC_STOPPED, Orthanc waits until nothing in it has changed for a tenth of a second, so that its Lua
engine has no events left (seen on 1.12.7 and 1.13.0). Writing a workitem is such a change, so while clients keep
writing to the worklist, Orthanc could not be stopped at all. But the very first thing that Orthanc does when it is
told to stop, by a signal or through its REST API, is to restore the default signal handlers, which /proc shows.

After a SIGHUP it restores them as well, while it checks whether its configuration has changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Final

_STATUS: Final = Path("/proc/self/status")
_EVERY: Final = 0.1  # seconds
_AT_FIRST: Final = 0.01  # seconds: an Orthanc may be told to stop as soon as it has started
_STOPPING_READS: Final = 3  # in a row
_RUNNING_READS: Final = 10  # in a row
_CAUGHT: Final = "SigCgt:"
_LONGEST: Final = 64 * 1024  # bytes of the file, which has 1.5 kB


def catches(status: str, number: int = signal.SIGTERM) -> bool:
    """Whether a process with this ``/proc/…/status`` (proc(5)) has a handler for a signal.

    Raises ValueError if the text does not say.
    """
    line = next((line for line in status.splitlines() if line.startswith(_CAUGHT)), "")
    return bool(int(line.removeprefix(_CAUGHT), 16) >> (number - 1) & 1)


async def told_to_stop(status: Path = _STATUS, every: float = _EVERY, at_first: float = _AT_FIRST) -> None:
    """Return when Orthanc has been told to stop; never on a system without ``/proc``.

    A failed read is ignored: the process may be out of file descriptors.

    Args:
        status: the process's ``/proc/…/status``.
        every: seconds between two reads.
        at_first: seconds between two reads until Orthanc has installed its signal handlers, soon after ORTHANC_STARTED.
            It is short because handlers that were installed and removed between two reads would go unnoticed.
    """
    await _observed(status, at_first, True, 1)
    await _observed(status, every, False, _STOPPING_READS)


async def goes_on(status: Path = _STATUS, every: float = _EVERY) -> None:
    """Return when Orthanc, which seemed to have been told to stop, handles its signals again."""
    await _observed(status, every, True, _RUNNING_READS)


async def _observed(status: Path, every: float, expected: bool, reads: int) -> None:
    """Return once that many reads in a row have shown that the process handles SIGTERM (or does not)."""
    reader, count = _StatusReader(status), 0
    try:
        while count < reads:
            await asyncio.sleep(every)
            catching = reader.catching()
            if catching is not None:
                count = count + 1 if catching is expected else 0
    finally:
        reader.close()


class _StatusReader:
    """Reads the status of a process repeatedly through one open file, so that it needs no new descriptor each time."""

    def __init__(self, status: Path) -> None:
        self._status = status
        self._descriptor = -1

    def catching(self) -> bool | None:
        """Whether the process handles SIGTERM; None if that is unknown."""
        try:
            if self._descriptor < 0:
                self._descriptor = os.open(self._status, os.O_RDONLY | os.O_CLOEXEC)
            return catches(os.pread(self._descriptor, _LONGEST, 0).decode("ascii", "replace"))
        except (OSError, ValueError):
            self.close()
            return None

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(descriptor)
