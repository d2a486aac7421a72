# SPDX-License-Identifier: AGPL-3.0-or-later
"""An hour of a department in ten minutes: the worklist is made, done, purged and forgotten, and memory stays flat."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import pytest
import requests

from tests.support.load import (
    Subscribers,
    Writers,
    record_of,
    subscribe_globally,
    wait_until_told,
    writer_modalities,
)
from tests.support.orthanc import RealOrthanc

WELL_KNOWN = "1.2.840.10008.5.1.4.34.5"
IN_TIME = 10.0  # seconds
MEGABYTE = 1_000_000
MINUTES = 10
SETTINGS = {
    "ReplaceWaitingProgress": False,
    "RetainFinal": "20s",
    "RememberPurged": "20s",
    "ReplayWindow": "20s",
}


def watched(orthanc: RealOrthanc, seconds: float) -> list[int]:
    """Resident memory, each second; with a search and a look at the page's API now and then, as people do."""
    result = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        result.append(orthanc.rss())
        for url in (
            f"http://127.0.0.1:{orthanc.ups_http_port}/dicom-web/workitems?ProcedureStepState=COMPLETED&limit=20",
            f"{orthanc.base_url}/ups/api/overview",
        ):
            assert requests.get(url, timeout=10).status_code in (200, 204)
        time.sleep(1)
    return result


@pytest.mark.torture
@pytest.mark.timeout(1800)
def test_ten_minutes_under_load_leave_memory_flat(suite: str, store: str, tmp_path: Path) -> None:
    journal, record = tmp_path / "journal", tmp_path / "record"
    subscribers = Subscribers(record, ("WARD1", "WARD2", "WARD3"), ("BOARD",), ("PHONE",))
    modalities = {**subscribers.modalities, **writer_modalities()}
    with (
        subscribers,
        RealOrthanc(suite, {"DicomModalities": modalities, "Ups": {**SETTINGS, "Store": store}}) as orthanc,
    ):
        subscribe_globally(orthanc, *subscribers.names)
        subscribers.open_sockets(orthanc)
        with Writers(orthanc, journal, pace=0.08) as writers:
            memory = watched(orthanc, MINUTES * 60)
            writers.end()
        verdict = wait_until_told(journal, record, subscribers.names)
        assert orthanc.stop(IN_TIME) == 0
        subscribers.end()
    print(
        f"\n{suite}, {store}: {verdict}\nmemory in MB, each minute: {[octets // MEGABYTE for octets in memory[::60]]}"
    )
    assert verdict.is_good, verdict
    reports, _ = record_of(record)
    assert all("GOING DOWN" in reports[name][WELL_KNOWN] for name in subscribers.names)
    fifth = len(memory) // 5
    early, late = statistics.median(memory[2 * fifth : 3 * fifth]), statistics.median(memory[-fifth:])
    assert late <= early * 1.05, f"{early / MEGABYTE:.0f} MB became {late / MEGABYTE:.0f} MB"
