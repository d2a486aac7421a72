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
_AT_FIRST: Final = 0.01  # seconds: an Orthanc may be told to stop as soon as it has started
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


async def told_to_stop(status: Path = _STATUS, every: float = _EVERY, at_first: float = _AT_FIRST) -> None:
    """Return when Orthanc has been told to stop; never on a system that does not tell.

    A look that fails tells nothing: a process without free file descriptors runs all the same.

    Args:
        status: the process's ``/proc/…/status``.
        every: seconds between two looks.
        at_first: the same, until Orthanc has been seen to handle its signals, soon after ORTHANC_STARTED. Handlers
            that come and go between two looks would be taken for some that are still to come.
    """
    await _seen(status, at_first, True, 1)
    await _seen(status, every, False, _FOR_GOOD)


async def goes_on(status: Path = _STATUS, every: float = _EVERY) -> None:
    """Return when Orthanc, which seemed to be told to stop, handles its signals again."""
    await _seen(status, every, True, _AGAIN)


async def _seen(status: Path, every: float, catching: bool, enough: int) -> None:
    """Return once the process has been seen to handle SIGTERM, or not to, so many times in a row."""
    looks, seen = _Looks(status), 0
    try:
        while seen < enough:
            await asyncio.sleep(every)
            answer = looks.catching()
            if answer is not None:
                seen = seen + 1 if answer is catching else 0
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
