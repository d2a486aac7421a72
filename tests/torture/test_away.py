# SPDX-License-Identifier: AGPL-3.0-or-later
"""A subscriber that is away holds nobody up, and gets everything in order when it is back."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from orthanc_ups.core import tags
from tests.support.load import (
    Subscribers,
    Writers,
    sequences_of,
    subscribe_globally,
    wait_until_told,
    writer_modalities,
)
from tests.support.orthanc import RealOrthanc
from tests.support.ports import free_port
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.one_suite("delivery leaves by our own connections"),
    pytest.mark.one_store("delivery leaves by our own connections"),
]

SETTINGS = {
    "ReplaceWaitingProgress": False,
    "RetryFirst": 0.5,
    "RetryMaximum": 2.0,
    "MaximumPendingPerSubscriber": 1_000_000,  # beyond, the oldest would become dead letters
}
A_TENTH = 0.9
TURNS, ATTEMPTS = 3, 3
MEASURED = 10_000
"""Rates are compared from so many events on: it takes a minute, and a machine that does nothing else."""


def told_count(record: Path) -> int:
    """How many events of the subscriber that is there were taken down."""
    return record.read_bytes().count(b"WARD\t")


def change_count(journal: Path) -> int:
    """How many changes are in the journal."""
    return journal.read_bytes().count(b"\n")


def rate(record: Path, seconds: float) -> float:
    """Events per second at the subscriber that is there."""
    before, begun = told_count(record), time.monotonic()
    time.sleep(seconds)
    return (told_count(record) - before) / (time.monotonic() - begun)


def unsubscribe(orthanc: RealOrthanc, name: str) -> None:
    path = f"/dicom-web/workitems/{tags.GLOBAL_SUBSCRIPTION}/subscribers/{name}"
    requests.delete(f"http://127.0.0.1:{orthanc.ups_http_port}{path}", timeout=30).raise_for_status()


def compared(record: Path, begin: Callable[[], None], end: Callable[[], None], seconds: float) -> float:
    """The rate of the others between ``begin`` and ``end`` as part of that outside.

    Measured in turns, as the machine does other things as well; and again if it seems too low.
    """
    best = 0.0
    for _ in range(ATTEMPTS):
        without, with_it = [], []
        for _ in range(TURNS):
            without.append(rate(record, seconds))
            begin()
            with_it.append(rate(record, seconds))
            end()
        best = max(best, statistics.median(with_it) / statistics.median(without))
        if best >= A_TENTH:
            break
    return best


def slowed_by_a_dead_one(orthanc: RealOrthanc, record: Path) -> float:
    return compared(
        record, lambda: subscribe_globally(orthanc, "GHOST"), lambda: unsubscribe(orthanc, "GHOST"), 0.6
    )


def away_and_back(orthanc: RealOrthanc, tmp_path: Path, port: int, *, measured: bool) -> float:
    """AWAY and PHONE come back: the rate of the others while both catch up as part of that while they hang.

    Many writers rest between their changes, as performers do: what the others get does not depend on the speed of
    a machine on which the ones that catch up have to run as well.
    """
    journal, record, missed = (tmp_path / name for name in ("journal", "record", "missed"))
    with Writers(orthanc, journal, dimse=60, http=0, first=20, pace=1.0) as resting:
        begun = told_count(record)
        wait_until(lambda: told_count(record) > begun + 50, "the writers write")
        with Subscribers(missed, (f"AWAY:{port}",), ("PHONE",)) as back:
            back.open_sockets(orthanc)
            back.pause()
            ratio = compared(record, back.go_on, back.pause, 2.0) if measured else 1.0
            back.go_on()
            resting.end()
            verdict = wait_until_told(journal, missed, ("AWAY", "PHONE"), timeout=300)
            back.end()
    assert verdict.is_good, verdict
    return ratio


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "count",
    [
        1_000,
        pytest.param(10_000, marks=pytest.mark.torture),
        pytest.param(100_000, marks=pytest.mark.torture),
    ],
)
def test_who_is_away_for_many_events_slows_nobody_and_gets_all_in_order(
    suite: str, store: str, tmp_path: Path, count: int
) -> None:
    journal, record, missed = (tmp_path / name for name in ("journal", "record", "missed"))
    port = free_port()
    there = Subscribers(record, ("WARD",))
    modalities = {**there.modalities, **writer_modalities(80), "away": ["AWAY", "127.0.0.1", port]}
    modalities["ghost"] = ["GHOST", "127.0.0.1", free_port()]
    with (
        there,
        RealOrthanc(suite, {"DicomModalities": modalities, "Ups": {**SETTINGS, "Store": store}}) as orthanc,
    ):
        subscribe_globally(orthanc, "WARD", "AWAY", "PHONE")
        there.open_sockets(orthanc)
        with Writers(orthanc, journal) as writers:
            wait_until(lambda: told_count(record) > 100, "the writers write")
            dead = slowed_by_a_dead_one(orthanc, record) if count >= MEASURED else 1.0
            wait_until(lambda: change_count(journal) >= count, "the events are made", 600, interval=0.2)
            writers.end()
        assert wait_until_told(journal, record, ("WARD",)).is_good
        catching_up = away_and_back(orthanc, tmp_path, port, measured=count >= MEASURED)
        assert wait_until_told(journal, record, ("WARD",)).is_good
        there.end()
    print(f"\n{suite}, {store}: away {dead:.2f}, catching up {catching_up:.2f} of the others' rate")
    assert dead >= A_TENTH, "a dead subscriber slows the others"
    assert catching_up >= A_TENTH, "a subscriber that catches up slows the others"
    sequences = sequences_of(missed, "PHONE")
    assert len(sequences) >= count
    assert sequences == sorted(set(sequences)), "not in order, or told twice"
