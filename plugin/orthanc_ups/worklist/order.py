# SPDX-License-Identifier: AGPL-3.0-or-later
"""The one order of everything: numbers are handed out, and events released without a gap."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..core.events import Event


@dataclass(eq=False, slots=True)
class Ticket:
    """A run of sequence numbers of one command: ``first``, ``first + 1``, … ``first + count - 1``."""

    first: int
    count: int
    events: Sequence[Event] | None = None


class Order:
    """Hands out sequence numbers and releases events in their order.

    An event is released once every smaller number is settled: committed or given up. So whoever has seen
    event N has seen everything addressed to it up to N, which is what cursors and ``since`` rely on.
    """

    def __init__(self, first: int, release: Callable[[Sequence[Event]], None]) -> None:
        self._next = first
        self._release = release
        self._waiting: deque[Ticket] = deque()

    def start_at(self, first: int) -> None:
        """Use no number below ``first`` from now on."""
        self._next = max(self._next, first)

    @property
    def next(self) -> int:
        """The next sequence number that will be handed out."""
        return self._next

    @property
    def in_flight(self) -> int:
        """Commands that hold numbers and are not settled yet."""
        return len(self._waiting)

    def take(self, count: int) -> Ticket:
        """Reserve ``count`` numbers; the ticket must be settled or given up."""
        ticket = Ticket(self._next, count)
        self._next += count
        self._waiting.append(ticket)
        return ticket

    def settle(self, ticket: Ticket, events: Sequence[Event]) -> None:
        """The command is committed: release its events, and those behind it that waited for it."""
        ticket.events = events
        self._release_head()

    def give_up(self, ticket: Ticket) -> None:
        """The command came to nothing; its numbers stay unused. Does nothing if it is settled already."""
        if ticket.events is None:
            self.settle(ticket, ())

    def _release_head(self) -> None:
        ready: list[Event] = []
        while self._waiting and self._waiting[0].events is not None:
            ready.extend(self._waiting.popleft().events or ())
        if ready:
            self._release(ready)
