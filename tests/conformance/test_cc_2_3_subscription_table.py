# SPDX-License-Identifier: AGPL-3.0-or-later
"""PS3.4 CC.2.3, Table CC.2.3-2: each action on each subscription state."""

from __future__ import annotations

import itertools

import pytest

from orthanc_ups.core.numbers import Numbers
from orthanc_ups.core.subscriptions import (
    ActKind,
    GlobalAct,
    Log,
    appended,
    compacted,
    initial_report_due,
    subscribed,
)
from orthanc_ups.core.workitem import SpecificAct, Subscription, Workitem

NONE, LOCK, NO_LOCK = Subscription.NONE, Subscription.LOCK, Subscription.NO_LOCK
AE = "WATCHER"
EARLIER, ACT = (
    10,
    20,
)  # sequence numbers of the specific act that makes the present state, and of the tested act


def workitem(state: Subscription, created: int = 5) -> Workitem:
    """A workitem to which the AE has brought itself into a subscription state by a specific act."""
    acts = {AE: SpecificAct(EARLIER, state)} if state is not NONE else {}
    return Workitem("1.2.3", created, {}, acts=acts)


def after(*acts: GlobalAct) -> Log:
    log = Log(AE)
    for act in acts:
        log = appended(log, act)
    return log


GLOBAL_CELLS = [
    # (action, present state, state afterwards, initial State Report)
    (ActKind.LOCK, NONE, LOCK, True),
    (ActKind.LOCK, LOCK, LOCK, False),
    (ActKind.LOCK, NO_LOCK, NO_LOCK, False),
    (ActKind.NO_LOCK, NONE, NO_LOCK, False),
    (ActKind.NO_LOCK, LOCK, LOCK, False),
    (ActKind.NO_LOCK, NO_LOCK, NO_LOCK, False),
    (ActKind.UNSUBSCRIBE, NONE, NONE, False),
    (ActKind.UNSUBSCRIBE, LOCK, NONE, False),
    (ActKind.UNSUBSCRIBE, NO_LOCK, NONE, False),
    (ActKind.SUSPEND, NONE, NONE, False),
    (ActKind.SUSPEND, LOCK, LOCK, False),
    (ActKind.SUSPEND, NO_LOCK, NO_LOCK, False),
]


@pytest.mark.parametrize(("kind", "present", "expected", "reported"), GLOBAL_CELLS)
def test_cc_2_3_global_action_on_an_existing_ups(
    kind: ActKind, present: Subscription, expected: Subscription, reported: bool
) -> None:
    act = GlobalAct(ACT, kind, through=9)
    log, ups = after(act), workitem(present)
    assert subscribed(log, ups) is expected
    assert initial_report_due(log, act, ups) is reported


@pytest.mark.parametrize(
    ("acts", "expected"),
    [
        ((), NONE),
        ((ActKind.LOCK,), LOCK),
        ((ActKind.NO_LOCK,), NO_LOCK),
        ((ActKind.LOCK, ActKind.SUSPEND), NONE),
        ((ActKind.LOCK, ActKind.UNSUBSCRIBE), NONE),
        ((ActKind.NO_LOCK, ActKind.LOCK), LOCK),
        ((ActKind.LOCK, ActKind.NO_LOCK), NO_LOCK),
        ((ActKind.SUSPEND, ActKind.LOCK), LOCK),
        ((ActKind.UNSUBSCRIBE, ActKind.NO_LOCK), NO_LOCK),
    ],
)
def test_cc_2_3_a_new_ups_takes_the_global_state(acts: tuple[ActKind, ...], expected: Subscription) -> None:
    log = after(*(GlobalAct(ACT + n, kind, through=4) for n, kind in enumerate(acts)))
    assert subscribed(log, workitem(NONE, created=5)) is expected


@pytest.mark.parametrize("globally", [ActKind.LOCK, ActKind.NO_LOCK, ActKind.SUSPEND, ActKind.UNSUBSCRIBE])
@pytest.mark.parametrize("specific", [LOCK, NO_LOCK, NONE])
def test_cc_2_3_a_later_specific_action_beats_every_global_one(
    globally: ActKind, specific: Subscription
) -> None:
    log = after(GlobalAct(EARLIER, globally, through=9))
    ups = Workitem("1.2.3", 5, {}, acts={AE: SpecificAct(ACT, specific)})
    assert subscribed(log, ups) is specific


def test_cc_2_3_unsubscribing_one_ups_leaves_the_global_subscription_to_later_ones() -> None:
    log = after(GlobalAct(EARLIER, ActKind.LOCK, through=9))
    unsubscribed = Workitem("1.2.3", 5, {}, acts={AE: SpecificAct(ACT, NONE)})
    later = Workitem("1.2.4", 10, {})
    assert (subscribed(log, unsubscribed), subscribed(log, later)) == (NONE, LOCK)


def test_cc_2_3_a_global_subscribe_takes_back_a_ups_that_was_unsubscribed_one_by_one() -> None:
    act = GlobalAct(ACT, ActKind.LOCK, through=9)
    ups = Workitem("1.2.3", 5, {}, acts={AE: SpecificAct(EARLIER, NONE)})
    assert subscribed(after(act), ups) is LOCK
    assert initial_report_due(after(act), act, ups)


def filtered(sequence: int, kind: ActKind, through: int, *matched: int) -> GlobalAct:
    return GlobalAct(sequence, kind, through, True, {}, Numbers.of(matched))


def test_cc_2_3_2_a_filter_takes_existing_ups_that_match_and_no_others() -> None:
    act = filtered(ACT, ActKind.LOCK, 9, 5)
    log = after(act)
    assert subscribed(log, workitem(NONE, created=5)) is LOCK
    assert initial_report_due(log, act, workitem(NONE, created=5))
    assert subscribed(log, workitem(NONE, created=6)) is NONE
    assert not initial_report_due(log, act, workitem(NONE, created=6))


@pytest.mark.parametrize(
    ("acts", "expected"),
    [
        ([filtered(ACT, ActKind.LOCK, 4)], LOCK),
        ([filtered(ACT, ActKind.NO_LOCK, 4)], NO_LOCK),
        ([filtered(ACT, ActKind.LOCK, 4), filtered(30, ActKind.SUSPEND, 4)], NONE),
        ([filtered(ACT, ActKind.LOCK, 4), filtered(30, ActKind.UNSUBSCRIBE, 4)], NONE),
        ([filtered(ACT, ActKind.LOCK, 4), GlobalAct(30, ActKind.UNSUBSCRIBE, 4)], NONE),
        ([filtered(ACT, ActKind.LOCK, 4), GlobalAct(30, ActKind.SUSPEND, 4)], LOCK),
        ([filtered(ACT, ActKind.LOCK, 4), GlobalAct(30, ActKind.NO_LOCK, 4)], NO_LOCK),
    ],
)
def test_cc_2_3_2_a_new_ups_that_fits_a_standing_filter(
    acts: list[GlobalAct], expected: Subscription
) -> None:
    ups = Workitem("1.2.3", 5, {}, filtered=(ACT,))
    assert subscribed(after(*acts), ups) is expected


def test_cc_2_3_2_unsubscribing_filters_ends_what_they_took_and_nothing_else() -> None:
    log = after(filtered(10, ActKind.LOCK, 9, 5), filtered(20, ActKind.UNSUBSCRIBE, 9, 5))
    assert subscribed(log, workitem(NONE, created=5)) is NONE
    other = Workitem("1.2.4", 6, {}, acts={AE: SpecificAct(15, LOCK)})
    assert subscribed(log, other) is LOCK


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_a_compacted_log_means_the_same_for_every_ups(length: int) -> None:
    kinds = (ActKind.LOCK, ActKind.SUSPEND, ActKind.UNSUBSCRIBE, ActKind.NO_LOCK)
    for acts in itertools.product(kinds, repeat=length):
        log = after(*(GlobalAct(10 * n, kind, through=2 * n) for n, kind in enumerate(acts, start=1)))
        short = compacted(log)
        for created in range(1, 2 * length + 3):
            for specific in (
                None,
                *(SpecificAct(10 * n + 5, s) for n in range(length + 1) for s in Subscription),
            ):
                if specific and created > 2 * (specific.sequence // 10 + 1):
                    continue  # nobody acts on a UPS before it exists
                ups = Workitem("1.2.3", created, {}, acts={AE: specific} if specific else {})
                assert subscribed(short, ups) is subscribed(log, ups), (acts, created, specific)
