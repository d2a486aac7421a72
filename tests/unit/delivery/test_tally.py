# SPDX-License-Identifier: AGPL-3.0-or-later
"""What is counted of deliveries."""

from __future__ import annotations

from orthanc_ups.core.events import EventType
from orthanc_ups.delivery.tally import MINUTES, DeliveryCounts, Tally

NOON = 1_795_000_020.0  # a whole minute


def test_deliveries_per_minute_of_the_last_hour() -> None:
    tally = Tally()
    tally.add_delivery(NOON, 0.1)
    tally.add_delivery(NOON + 59, 0.1)
    tally.add_delivery(NOON + 60, 0.1)
    assert tally.per_minute(NOON + 61)[-2:] == (2, 1)
    assert tally.per_minute(NOON + 180)[-4:] == (2, 1, 0, 0)
    assert sum(tally.per_minute(NOON + 59 * 60)) == 3
    assert sum(tally.per_minute(NOON + 60 * 60)) == 1
    assert tally.per_minute(NOON + 1e9) == (0,) * MINUTES


def test_a_clock_that_is_set_back_breaks_no_count() -> None:
    tally = Tally()
    tally.add_delivery(NOON, 0.1)
    tally.add_delivery(NOON - 3_600, 0.1)
    assert len(tally.per_minute(NOON - 3_600)) == MINUTES
    assert tally.delivered == 2


def test_quantiles_of_the_latest_latencies() -> None:
    tally = Tally()
    assert tally.latency(0.5) is None
    for number in range(1_000):
        tally.add_delivery(NOON, float(number))
    assert tally.latency(0.0) == 936.0
    assert tally.latency(0.5) == 968.0
    assert tally.latency(1.0) == 999.0


def test_lasting_counts_are_restored_and_never_go_back() -> None:
    tally = Tally()
    tally.add_delivery(NOON, 0.1)
    tally.note_error(NOON + 1, "connection refused")
    restored = Tally()
    restored.restore(tally.document())
    assert restored.document() == tally.document()
    tally.add_delivery(NOON + 2, 0.1)
    tally.restore(restored.document())
    assert tally.delivered == 2 and tally.last_success_at == NOON + 2


def test_counts_by_channel_and_event_type() -> None:
    counts = DeliveryCounts()
    counts.of("dimse").delivered[EventType.ASSIGNED] += 3
    counts.of("websocket").lost[EventType.STATE_REPORT] += 1
    assert counts.all() == {
        ("delivered", "dimse", EventType.ASSIGNED): 3,
        ("lost", "websocket", EventType.STATE_REPORT): 1,
    }
