# SPDX-License-Identifier: AGPL-3.0-or-later
"""Nothing is lost when Orthanc is killed: 8 writers, 5 subscribers, kill -9 at random moments."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.support.load import (
    Subscribers,
    Writers,
    sequences_of,
    subscribe_globally,
    wait_until_told,
    writer_modalities,
)
from tests.support.orthanc import RealOrthanc

pytestmark = pytest.mark.one_store("each store is killed on the Orthanc that has it by default")

LISTENERS, SOCKETS, RESUMING = ("WARD1", "WARD2", "WARD3"), ("BOARD",), ("PHONE",)
SETTINGS = {"ReplaceWaitingProgress": False, "RetryFirst": 0.2, "RetryMaximum": 1.0}


@pytest.mark.parametrize("rounds", [3, pytest.param(200, marks=pytest.mark.torture)])
@pytest.mark.timeout(3600)
def test_no_change_and_no_event_is_lost_by_kill_9(
    suite: str, store: str, tmp_path: Path, rounds: int
) -> None:
    chance = random.Random()
    journal, record = tmp_path / "journal", tmp_path / "record"
    subscribers = Subscribers(record, LISTENERS, SOCKETS, RESUMING)
    modalities = {**subscribers.modalities, **writer_modalities()}
    with (
        subscribers,
        RealOrthanc(suite, {"DicomModalities": modalities, "Ups": {**SETTINGS, "Store": store}}) as orthanc,
    ):
        subscribe_globally(orthanc, *subscribers.names)
        subscribers.open_sockets(orthanc)
        with Writers(orthanc, journal) as writers:
            for _ in range(rounds):
                time.sleep(chance.uniform(0.2, 1.5))
                orthanc.kill()
                orthanc.start()
            writers.end()
        verdict = wait_until_told(journal, record, subscribers.names, timeout=120)
        subscribers.end()
    print(f"\n{suite}, {store}: {rounds} times killed: {verdict}")
    assert verdict.is_good, f"{verdict}\n{orthanc.log_tail()}"
    assert verdict.changes > 10 * rounds, "the writers hardly wrote"
    rising = sequences_of(record, RESUMING[0])
    assert rising == sorted(set(rising)), "a socket that resumes was told something twice or out of order"
