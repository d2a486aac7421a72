# SPDX-License-Identifier: AGPL-3.0-or-later
"""Lets the process of Orthanc end with its own exit code, despite a double free in Orthanc's Python plugin.

Seen with version 7.1 of that plugin on Orthanc 1.13.0 (not with 5.0 on 1.12.7), with a script of ten lines as well: a
change that Orthanc delivers after ORTHANC_STOPPED has been handled stays in the plugin's queue. The plugin's
finalization deletes what is in the queue, and the destructor of the queue deletes it again when the library is
unloaded. glibc then aborts ("corrupted size vs. prev_size while consolidating", exit code -6). Any write to Orthanc
during its stop has this effect, not only this plugin's.
"""

from __future__ import annotations

import ctypes
import logging
from pathlib import Path
from typing import Final

_log = logging.getLogger("orthanc_ups")
_MAPS: Final = Path("/proc/self/maps")
_LIBRARY: Final = "libOrthancPython"


def skip_the_second_delete(maps: Path = _MAPS) -> None:
    """Call once while the script loads. Does nothing if the plugin's library or glibc is not found.

    The library stays loaded, so its destructors do not run before ``exit``, which comes after Orthanc's ``main``, when
    the index, the storage and all plugins are closed. A handler registered here then ends the process at once, with the
    same exit code, before any destructor that was registered earlier.
    """
    library = _library(maps)
    if library is None:
        return
    try:
        ctypes.CDLL(library)  # another reference to it, which is never released
        _end_in_exit(ctypes.CDLL(None))
    except (OSError, AttributeError) as error:
        _log.warning("Orthanc may abort at the end of a stop: %s", error)


def _library(maps: Path) -> str | None:
    try:
        lines = maps.read_text("utf-8", "replace").splitlines()
    except OSError:
        return None
    return next(("/" + line.partition("/")[2] for line in lines if _LIBRARY in line), None)


def _end_in_exit(libc: ctypes.CDLL) -> None:
    # Called in reverse order: buffers are flushed, then _exit(status).
    libc.on_exit(ctypes.cast(libc._exit, ctypes.c_void_p), None)
    libc.__cxa_atexit(ctypes.cast(libc.fflush, ctypes.c_void_p), None, None)
