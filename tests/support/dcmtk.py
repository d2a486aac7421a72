# SPDX-License-Identifier: AGPL-3.0-or-later
"""DCMTK's command line tools, from Debian's package: fetched without root, like Orthanc itself."""

from __future__ import annotations

import functools
import os
import shlex
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import pydicom
from pydicom import Dataset

from tests.support.orthanc import NATIVE

_SUITE: Final = "forky"
_ENVIRONMENT: Final = {"ORTHANC_UPS_MORE_PACKAGES": "dcmtk"}


@functools.cache
def _paths() -> Mapping[str, str]:
    environment = {**os.environ, **_ENVIRONMENT}
    listed = subprocess.run(
        [NATIVE, "paths", "--suite", _SUITE],
        env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    words = (shlex.split(line)[0].partition("=") for line in listed.stdout.splitlines())
    return {name: value for name, _, value in words}


def run(tool: str, *arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run one of the tools. Raises CalledProcessError unless it ends with 0."""
    root = Path(_paths()["ORTHANC_ROOT"])
    dictionary = next(root.glob("usr/share/*dcmtk*/dicom.dic"))
    command = [*_paths()["ORTHANC_LOADER"].split(" "), str(root / "usr" / "bin" / tool), *arguments]
    return subprocess.run(
        command, env={**os.environ, "DCMDICTPATH": str(dictionary)}, cwd=folder, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=True, errors="replace",
    )  # fmt: skip


def findscu_worklist(
    port: int, keys: Sequence[str], *, calling: str = "SCU", called: str = "ORTHANC", charset: str = ""
) -> list[Dataset]:
    """The answers to ``findscu -W`` with these keys (``-k``), in the order in which they came.

    ``charset`` is sent as Specific Character Set; keys are sent in UTF-8.
    """
    listed = [*([f"SpecificCharacterSet={charset}"] if charset else []), *keys]
    with tempfile.TemporaryDirectory() as folder:
        run("findscu", "-W", "-X", "-aet", calling, "-aec", called, *(word for key in listed for word in ("-k", key)),
            "127.0.0.1", str(port), folder=Path(folder))  # fmt: skip
        return [pydicom.dcmread(path, force=True) for path in sorted(Path(folder).glob("rsp*.dcm"))]
