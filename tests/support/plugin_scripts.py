# SPDX-License-Identifier: AGPL-3.0-or-later
"""Small Python plugins for Orthanc, for tests of single parts of the package inside a real Orthanc."""

from pathlib import Path

from tests.support.orthanc import CHECKOUT, PLUGIN

_HEAD = f"""
import json, sys
sys.path.insert(0, {str(CHECKOUT / "plugin")!r})
import orthanc
"""


def write_script(folder: Path, text: str) -> Path:
    """A script that Orthanc can load. It can use ``orthanc``, ``json`` and the package."""
    script = folder / "script.py"
    script.write_text(_HEAD + text)
    return script


_SHIFTED = """
import sys
import time
_real = time.time

def _shifted():
    try:
        with open({offset!r}) as file:
            return _real() + float(file.read() or 0)
    except OSError:
        return _real()

time.time = _shifted
__file__ = {plugin!r}
sys.path.insert(0, {folder!r})
with open(__file__) as file:
    exec(compile(file.read(), __file__, "exec"))
"""


def with_shifted_clock(folder: Path, offset: Path, plugin: Path = PLUGIN) -> Path:
    """The plugin in an Orthanc whose wall clock is wrong by the number of seconds in a file."""
    script = folder / PLUGIN.name
    text = _SHIFTED.format(offset=str(offset), plugin=str(plugin), folder=str(plugin.parent))
    script.write_text(text)
    return script
