# SPDX-License-Identifier: AGPL-3.0-or-later
"""Notices that Orthanc has been told to stop, before Orthanc itself says so.

Before it sends ORTHANC_STOPPED, Orthanc waits until nothing in it has changed for a tenth of a second, so that its Lua
engine runs dry (seen on 1.12.7 and 1.13.0). Each change of a workitem is such a change: as long as somebody keeps
writing to the worklist, Orthanc could not be stopped at all. But the very first thing that Orthanc does when it is
told to stop, by a signal or through its REST API, is to give its signal handlers back, and the kernel knows that.

After a SIGHUP it gives them back as well, for the moment in which it looks whether its configuration has changed.
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
_FOR_GOOD: Final = 3  # looks in a row
_AGAIN: Final = 10  # looks in a row
_CAUGHT: Final = "SigCgt:"
_LONGEST: Final = 64 * 1024  # bytes of the file, which has 1.5 kB


def catches(status: str, number: int = signal.SIGTERM) -> bool:
    """Whether a process with this ``/proc/…/status`` (proc(5)) handles a signal itself.

    Raises ValueError if the text does not tell.
    """
    line = next((line for line in status.splitlines() if line.startswith(_CAUGHT)), "")
    return bool(int(line.removeprefix(_CAUGHT), 16) >> (number - 1) & 1)


async def told_to_stop(status: Path = _STATUS, every: float = _EVERY) -> None:
    """Return when Orthanc has been told to stop; never on a system that does not tell.

    A look that fails tells nothing: a process without free file descriptors runs all the same.
    """
    # It handles signals once ORTHANC_STARTED is sent.
    await _until(status, every, (True, 1), (False, _FOR_GOOD))


async def goes_on(status: Path = _STATUS, every: float = _EVERY) -> None:
    """Return when Orthanc, which seemed to be told to stop, handles its signals again."""
    await _until(status, every, (True, _AGAIN))


async def _until(status: Path, every: float, *states: tuple[bool, int]) -> None:
    """Return once each state, one after the other, has been seen so many times in a row."""
    looks = _Looks(status)
    try:
        for state, enough in states:
            seen = 0
            while seen < enough:
                await asyncio.sleep(every)
                catching = looks.catching()
                if catching is not None:
                    seen = seen + 1 if catching is state else 0
    finally:
        looks.close()


class _Looks:
    """Looks at a process again and again through one open file, which needs no further descriptor."""

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
        """Close the file."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(descriptor)
