# SPDX-License-Identifier: AGPL-3.0-or-later
"""tests.support.programs, which `make programs` runs before anything else."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.orthanc import CHECKOUT


def test_programs_are_fetched_without_the_plugin_in_pythons_path() -> None:
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", "import tests.support.programs"]
    ended = subprocess.run(command, cwd=CHECKOUT, env=plain, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
