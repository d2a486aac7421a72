# SPDX-License-Identifier: AGPL-3.0-or-later
"""Makes ``POST /tools/reset`` of Orthanc work: the script is never loaded twice in one process.

For a reset Orthanc finalizes Python and initializes it again in the same process. Extension modules written in C
stay in memory and do not survive that: with those of aiohttp the script fails and Orthanc ends (seen on 1.13.0 with
CPython 3.14), or crashes (1.12.7 with CPython 3.13). So the second time, the process is replaced by a new one with the
same command line, process id and environment, before any such module is imported. At that moment Orthanc has closed
its ports and its database, and has not opened them again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

MARK: Final = "ORTHANC_UPS_LOADED_IN"
"""Environment variable with the id of the process in which the script was loaded; Python's own state does not
survive.
"""
_STANDARD: Final = 2  # file descriptors up to this one are standard input, output and error


def ensure(warn: Callable[[str], object], process: Path = Path("/proc/self")) -> None:
    """Call before anything else when the script loads; does not return if it was loaded in this process before.

    ``process``: the folder of this process in proc(5). Raises SystemExit, which ends Orthanc, if the process cannot be
    replaced.
    """
    if os.environ.pop(MARK, "") == str(os.getpid()):
        warn("UPS: Orthanc was reset; restarting it, as Python cannot load its modules twice in one process")
        try:
            _replace(process)
        except OSError as error:
            warn(f"UPS: Orthanc cannot be restarted after a reset and ends: {error}")
            raise SystemExit(1) from None
    os.environ[MARK] = str(os.getpid())


def _replace(process: Path) -> None:
    command = (process / "cmdline").read_bytes().split(b"\0")[:-1]
    for number in (int(descriptor.name) for descriptor in (process / "fd").iterdir()):
        if number > _STANDARD:
            _close_on_exec(number)
    os.execv(_program(process), command)  # noqa: S606  # the command of this very process


def _program(process: Path) -> str:
    """Path of the program; if it was replaced on the disk meanwhile, that of the running one."""
    file = process / "exe"
    return str(file.resolve() if file.exists() else file)


def _close_on_exec(descriptor: int) -> None:
    try:
        os.set_inheritable(descriptor, False)
    except OSError:
        return  # it is closed already
