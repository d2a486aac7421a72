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
import signal
from pathlib import Path
from typing import Final

_STATUS: Final = Path("/proc/self/status")
_EVERY: Final = 0.1  # seconds
_FOR_GOOD: Final = 3  # looks in a row
_CAUGHT: Final = "SigCgt:"


def catches(status: str, number: int = signal.SIGTERM) -> bool:
    """Whether a process with this ``/proc/…/status`` (proc(5)) handles a signal itself."""
    found = next((line for line in status.splitlines() if line.startswith(_CAUGHT)), f"{_CAUGHT} 0")
    return bool(int(found.removeprefix(_CAUGHT), 16) >> (number - 1) & 1)


async def told_to_stop(status: Path = _STATUS, every: float = _EVERY) -> None:
    """Return when Orthanc has been told to stop; never on a system that does not tell."""
    for state, enough in ((True, 1), (False, _FOR_GOOD)):  # it handles them once ORTHANC_STARTED is sent
        seen = 0
        while seen < enough:
            await asyncio.sleep(every)
            seen = seen + 1 if _catches_now(status) is state else 0


def _catches_now(status: Path) -> bool:
    try:
        return catches(status.read_text("ascii", "replace"))
    except (OSError, ValueError):
        return False
