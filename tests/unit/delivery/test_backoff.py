# SPDX-License-Identifier: AGPL-3.0-or-later
"""When a failed delivery is tried again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orthanc_ups.delivery.backoff import SOONEST, Backoff
from orthanc_ups.settings import Settings
from tests.support.delivery import VirtualClock


def backoff(clock: VirtualClock, first: float = 1.0, factor: float = 2.0, maximum: float = 300.0) -> Backoff:
    return Backoff(Settings(retry_first=first, retry_factor=factor, retry_maximum=maximum), clock)


def test_pauses_grow_by_the_factor_up_to_the_maximum() -> None:
    pauses = backoff(VirtualClock(), first=1.0, factor=3.0, maximum=20.0)
    assert [pauses.failed() for _ in range(5)] == [1.0, 3.0, 9.0, 20.0, 20.0]


@given(st.floats(0.0, 1.0, exclude_max=True))
def test_jitter_takes_away_at_most_a_half(chance: float) -> None:
    clock = VirtualClock()
    clock.chance = chance
    assert 0.5 <= backoff(clock).failed() <= 1.0


def test_a_success_ends_it() -> None:
    pauses = backoff(VirtualClock())
    pauses.failed()
    assert (pauses.failing, pauses.remaining) == (True, 1.0)
    pauses.succeeded()
    assert (pauses.failing, pauses.remaining) == (False, 0.0)
    assert pauses.failed() == 1.0


def test_seeing_the_receiver_ends_the_pause_but_not_more_than_five_times_a_second() -> None:
    clock = VirtualClock()
    pauses = backoff(clock, first=100.0)
    pauses.attempt()
    pauses.failed()
    pauses.hurry()
    assert pauses.remaining == SOONEST
    clock.passed += 50.0
    pauses.attempt()
    pauses.failed()
    clock.passed += 1.0
    pauses.hurry()
    assert pauses.remaining == 0.0


def test_a_receiver_seen_during_an_attempt_that_fails_is_tried_again_soon() -> None:
    clock = VirtualClock()
    pauses = backoff(clock, first=100.0, factor=1.0)
    pauses.failed()
    pauses.attempt()
    clock.passed += 30.0
    pauses.hurry()
    assert pauses.failed() == SOONEST
    assert pauses.failed() == 100.0, "once; also if no attempt could be made, for want of an address"


def test_an_operator_need_not_wait_at_all() -> None:
    pauses = backoff(VirtualClock(), first=100.0)
    pauses.attempt()
    pauses.failed()
    pauses.hurry(now=True)
    assert pauses.remaining == 0.0


def test_a_clock_that_is_set_back_prolongs_nothing() -> None:
    clock = VirtualClock()
    pauses = backoff(clock, first=10.0)
    pauses.failed()
    clock.wall -= 86_400.0
    clock.passed += 10.0
    assert pauses.remaining == 0.0


def test_an_endless_series_of_failures_does_not_overflow() -> None:
    pauses = backoff(VirtualClock(), factor=100.0)
    assert [pauses.failed() for _ in range(2_000)][-1] == 300.0
