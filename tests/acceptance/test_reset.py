# SPDX-License-Identifier: AGPL-3.0-or-later
"""``POST /tools/reset`` and SIGHUP restart Orthanc; the worklist opens again, and subscribers are notified."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from tests.support.load import Subscribers, subscribe_globally
from tests.support.load_plan import as_json
from tests.support.orthanc import RealOrthanc
from tests.support.ports import is_listening
from tests.support.waiting import wait_until
from tests.support.workitems import UID_ROOT, full

pytestmark = pytest.mark.slow
WELL_KNOWN = "1.2.840.10008.5.1.4.34.5"


def by_request(orthanc: RealOrthanc) -> None:
    requests.post(f"{orthanc.base_url}/tools/reset", timeout=60).raise_for_status()


def by_signal(orthanc: RealOrthanc) -> None:
    """Orthanc heeds it if its configuration has changed."""
    changed = orthanc.configuration | {"Name": "Changed"}
    (orthanc.folder / "orthanc.json").write_text(json.dumps(changed))
    os.kill(orthanc.pid, signal.SIGHUP)


RESETS = (by_request, by_signal)


def reset(orthanc: RealOrthanc, ask: Callable[[RealOrthanc], None]) -> None:
    """Reset Orthanc, and wait until it is there again."""
    begun = len(orthanc.log_text())
    ask(orthanc)
    orthanc.logs("Orthanc has started", since=begun)
    wait_until(
        lambda: orthanc.health() == 200 and is_listening(orthanc.ups_dicom_port),
        orthanc.log_tail,
        60,
    )


def descriptors(orthanc: RealOrthanc) -> list[str]:
    """The files in Orthanc's folder that it holds open."""
    result = []
    for file in Path(f"/proc/{orthanc.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            result.append(file.readlink())
    return sorted(str(file) for file in result if file.is_relative_to(orthanc.folder))


def test_a_reset_brings_the_worklist_back(suite: str, tmp_path: Path) -> None:
    record = tmp_path / "record"
    subscribers = Subscribers(record, ("WARD",))
    with subscribers, RealOrthanc(suite, {"DicomModalities": subscribers.modalities}) as orthanc:
        url = f"http://127.0.0.1:{orthanc.ups_http_port}/dicom-web/workitems"
        subscribe_globally(orthanc, "WARD")
        requests.post(f"{url}?{UID_ROOT}.1", as_json(full()), timeout=60).raise_for_status()
        orthanc.logs("Orthanc has started")
        process, files = orthanc.pid, descriptors(orthanc)
        for ask in RESETS:
            reset(orthanc, ask)
            assert requests.get(f"{url}/{UID_ROOT}.1", timeout=60).status_code == 200
        assert orthanc.pid == process
        # A database opens its journal for a moment; what a reset leaked would stay open.
        wait_until(lambda: descriptors(orthanc) == files, lambda: f"{files} → {descriptors(orthanc)}")
        expected = ["GOING DOWN", "RESTARTED"] * len(RESETS)
        wait_until(lambda: seen(record) == expected, lambda: f"{seen(record)}\n{orthanc.log_tail()}")
        assert orthanc.stop() == 0
        subscribers.end()


def seen(record: Path) -> list[str]:
    """Every SCP Status Change, in order."""
    lines = (line.split("\t") for line in record.read_text().splitlines())
    return [change for _, uid, change in lines if uid == WELL_KNOWN]
