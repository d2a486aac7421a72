# SPDX-License-Identifier: AGPL-3.0-or-later
"""The queue of an endpoint."""

from __future__ import annotations

from orthanc_ups.core.events import Event
from orthanc_ups.delivery.port import Burst
from orthanc_ups.delivery.queue import BurstAt, EventQueue
from tests.support.delivery import event, progress, restarted


def queue(*items: Event | BurstAt, replace_progress: bool = True) -> EventQueue:
    filled = EventQueue(replace_progress)
    for item in items:
        filled.add(item)
    return filled


def standing(of: EventQueue) -> list[int]:
    return [item.sequence if isinstance(item, Event) else item.after for item in of]


def test_a_newer_progress_report_replaces_the_waiting_one_of_the_same_workitem() -> None:
    waiting = queue(progress(1, uid="1"), event(2, uid="1"), progress(3, uid="2"))
    assert waiting.add(progress(4, uid="1")) == progress(1, uid="1")
    assert standing(waiting) == [2, 3, 4]
    assert waiting.settled_through() == 1


def test_progress_reports_stay_if_the_setting_says_so() -> None:
    waiting = queue(progress(1), progress(2), replace_progress=False)
    assert standing(waiting) == [1, 2]


def test_a_progress_report_in_flight_is_not_replaced() -> None:
    waiting = queue(progress(1), progress(2, uid="other"))
    assert waiting.take(1) == [progress(1)]
    assert waiting.add(progress(3)) is None
    waiting.end_attempt()
    assert waiting.add(progress(4)) == progress(3)
    assert standing(waiting) == [1, 2, 4]


def test_state_reports_cancel_requests_and_assignments_are_never_replaced() -> None:
    from orthanc_ups.core.events import EventType

    kinds = (EventType.STATE_REPORT, EventType.CANCEL_REQUESTED, EventType.ASSIGNED)
    items = [event(sequence, kind=kind) for sequence, kind in enumerate(kinds * 2, start=1)]
    assert standing(queue(*items)) == [1, 2, 3, 4, 5, 6]


def test_only_the_newest_scp_status_change_waits() -> None:
    waiting = queue(restarted(1), event(2))
    assert waiting.add(restarted(3)) == restarted(1)
    assert standing(waiting) == [2, 3]


def test_a_burst_stands_at_its_place_and_is_expanded_at_the_head() -> None:
    burst = Burst("A", first=10, through=5, act=10)
    waiting = queue(event(9), BurstAt(burst, 10), event(16))
    assert (len(waiting), waiting.pending) == (2, 7)
    assert waiting.take(9) == [event(9)]
    waiting.remove([9])
    assert waiting.take(9) == [] and waiting.settled_through() == 10
    head = waiting.head
    assert isinstance(head, BurstAt)
    waiting.expand(head, [event(11), event(13)])
    assert standing(waiting) == [11, 13, 13, 16]
    waiting.remove([11, 13])
    head = waiting.head
    assert head == BurstAt(burst, 13) and waiting.settled_through() == 13
    waiting.expand(BurstAt(burst, 13), [])
    assert standing(waiting) == [13, 16], "only what stands at the head itself may be expanded"
    assert isinstance(head, BurstAt)
    waiting.expand(head, [])
    assert standing(waiting) == [16] and waiting.bursts == 0


def test_a_line_takes_in_another_in_order_and_each_once() -> None:
    burst = Burst("A", first=3, through=4, act=3)
    mine = queue(event(2), event(9), progress(12))
    mine.merge(queue(event(1), BurstAt(burst, 5), event(9), progress(10)))
    assert standing(mine) == [1, 2, 5, 9, 10, 12]
    assert (mine.bursts, len(mine), mine.pending) == (1, 5, 7)
    assert mine.add(progress(13)) == progress(12)


def test_a_hundred_thousand_leave_the_line_without_delay_at_the_head() -> None:
    """Deleting at the head of a plain dict would make this quadratic: minutes instead of a moment."""
    waiting = queue(*(event(number) for number in range(1, 100_001)))
    while batch := waiting.take(50):
        waiting.remove(event.sequence for event in batch)
    assert not waiting


def test_what_was_committed_before_a_moment_is_found_among_the_oldest() -> None:
    unknown = BurstAt(Burst("A", 1, 2, 1), 1)
    waiting = queue(unknown, event(4, at=10.0), event(5, at=20.0))
    assert waiting.older_than(15.0, 100) == [event(4, at=10.0)]
