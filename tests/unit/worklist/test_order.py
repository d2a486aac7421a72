# SPDX-License-Identifier: AGPL-3.0-or-later
"""Events are released in the order of their numbers, whatever the order in which writes end."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from orthanc_ups.core.events import Event, EventType
from orthanc_ups.worklist.order import Order, Ticket


def events_of(ticket: Ticket) -> list[Event]:
    numbers = range(ticket.first, ticket.first + ticket.count)
    return [Event(number, EventType.STATE_REPORT, "1.2.3", {}, ("A",), 0.0) for number in numbers]


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=12), st.randoms())
def test_released_in_order_and_only_when_everything_before_is_settled(
    commands: list[tuple[int, bool]], random: object
) -> None:
    released: list[int] = []

    def release(events: Sequence[Event]) -> None:
        released.extend(event.sequence for event in events)

    order = Order(1, release)
    tickets = [(order.take(count), settled) for count, settled in commands]
    shuffled = list(tickets)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    unsettled = {ticket.first for ticket, _ in tickets}
    for ticket, settled in shuffled:
        order.settle(ticket, events_of(ticket)) if settled else order.give_up(ticket)
        unsettled.discard(ticket.first)
        assert released == sorted(released)
    expected = [event.sequence for ticket, settled in tickets if settled for event in events_of(ticket)]
    assert released == expected
    assert order.in_flight == 0


def test_an_event_waits_for_a_smaller_number_in_flight() -> None:
    released: list[Event] = []
    order = Order(10, released.extend)
    first, second = order.take(1), order.take(2)
    order.settle(second, events_of(second))
    assert released == []
    order.give_up(first)
    assert [event.sequence for event in released] == [11, 12]


def test_giving_up_a_settled_ticket_changes_nothing() -> None:
    released: list[Event] = []
    order = Order(1, released.extend)
    ticket = order.take(1)
    order.settle(ticket, events_of(ticket))
    order.give_up(ticket)
    assert [event.sequence for event in released] == [1]
