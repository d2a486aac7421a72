# SPDX-License-Identifier: AGPL-3.0-or-later
"""SIGTERM ends Orthanc within ten seconds, whatever is going on, and those who watch are told (PS3.4 CC.2.4)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from orthanc_ups.orthanc.stop_notice import catches
from tests.bench.filling import filled
from tests.support.load import (
    Subscribers,
    Writers,
    record_of,
    subscribe_globally,
    wait_until_told,
    writer_modalities,
)
from tests.support.orthanc import RealOrthanc
from tests.support.waiting import wait_until

pytestmark = pytest.mark.one_store("each store is stopped on the Orthanc that has it by default")

IN_TIME = 10.0
"""Seconds, in torture; what each run of the tests asks for is that it ends by itself, on slow machines too."""
WELL_KNOWN = "1.2.840.10008.5.1.4.34.5"
EVERYTHING = {"ReplaceWaitingProgress": False}


def test_an_orthanc_that_has_nothing_to_do_stops_cleanly(suite: str, store: str) -> None:
    with RealOrthanc(suite, {"Ups": {"Store": store}}) as orthanc:
        assert requests.get(f"{orthanc.base_url}/dicom-web/workitems", timeout=10).status_code == 204
        assert orthanc.stop() == 0


def test_sigterm_under_load_ends_in_time_and_says_going_down(suite: str, store: str, tmp_path: Path) -> None:
    journal, record = tmp_path / "journal", tmp_path / "record"
    subscribers = Subscribers(record, ("WARD1", "WARD2"), ("BOARD",))
    modalities = {**subscribers.modalities, **writer_modalities()}
    with (
        subscribers,
        RealOrthanc(suite, {"DicomModalities": modalities, "Ups": {**EVERYTHING, "Store": store}}) as orthanc,
    ):
        subscribe_globally(orthanc, *subscribers.names)
        subscribers.open_sockets(orthanc)
        with Writers(orthanc, journal, pace=0.02) as writers:
            wait_until(lambda: journal.stat().st_size > 10_000, "the writers write")
            assert orthanc.stop() == 0, orthanc.log_tail()
            orthanc.start()
            writers.end()
        verdict = wait_until_told(journal, record, subscribers.names)
        subscribers.end()
    assert verdict.is_good, verdict
    reports, _ = record_of(record)
    heard = {name: reports[name][WELL_KNOWN] for name in subscribers.names}
    assert heard == {name: ["GOING DOWN", "RESTARTED"] for name in subscribers.names}


@pytest.fixture(scope="module")
def well_filled(suite: str) -> Iterator[RealOrthanc]:
    """So many workitems that they are still being read in when most of the signals come."""
    orthanc = RealOrthanc(suite)
    filled(orthanc, 20_000)
    yield orthanc
    orthanc.discard()


def heeds_signals(orthanc: RealOrthanc, begun: int) -> bool:
    """For a moment after it says that it has started, a signal still ends it as any other program."""
    has_started = "Orthanc has started" in orthanc.log_text()[begun:]
    return has_started and catches(Path(f"/proc/{orthanc.pid}/status").read_text())


@pytest.mark.torture
@pytest.mark.parametrize("later", [number * 0.25 for number in range(20)])
def test_sigterm_ends_in_time_at_any_moment(well_filled: RealOrthanc, later: float) -> None:
    begun = len(well_filled.log_text())
    well_filled.launch()
    wait_until(lambda: heeds_signals(well_filled, begun), well_filled.log_tail, 60, 0.002)
    time.sleep(later)
    assert well_filled.stop(IN_TIME) == 0, well_filled.log_tail()
