# SPDX-License-Identifier: AGPL-3.0-or-later
"""`make demo` plays to its end against a real Orthanc, twice, and leaves no subscription behind."""

from __future__ import annotations

import subprocess
import sys

import pytest
import requests

from tests.support.orthanc import CHECKOUT, RealOrthanc
from tests.support.ports import free_port

pytestmark = pytest.mark.one_suite("the demo is a client of the DIMSE port")

REPORTS = [
    "State Report SCHEDULED",
    "State Report IN PROGRESS",
    "Progress Report 25 % segmenting",
    "Progress Report 75 % segmenting",
    "State Report COMPLETED",
]


def played(orthanc: RealOrthanc, watcher_port: int) -> list[str]:
    """The event reports that the watcher received."""
    ports = {"orthanc": orthanc.dicom_port, "ups": orthanc.ups_dicom_port, "watcher": watcher_port}
    arguments = [f"--{name}-port={port}" for name, port in ports.items()]
    done = subprocess.run(
        [sys.executable, "-m", "tools.demo", *arguments],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, f"{done.stderr}\n{orthanc.log_tail()}"
    return [line.partition("receives: ")[2] for line in done.stdout.splitlines() if "receives: " in line]


def test_the_demo_plays_the_main_job(suite: str) -> None:
    port = free_port()
    peers = {
        "demo-watcher": ["DEMO_WATCHER", "127.0.0.1", port],
        "demo-performer": ["DEMO_PERFORMER", "127.0.0.1", 104],
    }
    with RealOrthanc(suite, {"DicomModalities": peers}) as orthanc:
        assert played(orthanc, port) == REPORTS
        assert played(orthanc, port) == REPORTS
        watcher = requests.get(f"{orthanc.base_url}/ups/api/subscribers/DEMO_WATCHER", timeout=60).json()
    assert (watcher["everything"], watcher["filters"], watcher["specific"]) == (None, [], 0)
