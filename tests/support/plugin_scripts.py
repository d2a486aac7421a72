# SPDX-License-Identifier: AGPL-3.0-or-later
"""Small Python plugins for Orthanc, for tests of single parts of ours inside a real one."""

from pathlib import Path

from tests.support.orthanc import CHECKOUT

_HEAD = f"""
import json, sys
sys.path.insert(0, {str(CHECKOUT / "plugin")!r})
import orthanc
"""


def write_script(folder: Path, text: str) -> Path:
    """A script that Orthanc can load; ``orthanc``, ``json`` and our package can be used in it."""
    script = folder / "script.py"
    script.write_text(_HEAD + text)
    return script
