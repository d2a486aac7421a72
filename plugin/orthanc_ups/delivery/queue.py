# SPDX-License-Identifier: AGPL-3.0-or-later
"""The queue of an endpoint: what still has to be sent to it, by sequence."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

from ..core.events import Event, EventType
from .port import Burst


@dataclass(frozen=True, slots=True)
class BurstAt:
    """A burst whose reports up to sequence ``after`` have been made."""

    burst: Burst
    after: int

    @property
    def remaining(self) -> int:
        """The greatest possible number of reports still to be made."""
        return self.burst.last - self.after


Waiting: TypeAlias = Event | BurstAt


def kind_of(item: Waiting) -> EventType:
    """The event type; that of a burst is State Report."""
    return item.type if isinstance(item, Event) else EventType.STATE_REPORT


def committed_at(item: Waiting) -> float:
    """When it was committed, in seconds since the epoch; 0 if unknown."""
    return item.at if isinstance(item, Event) else item.burst.at


def is_transient(item: Waiting) -> bool:
    """True for an SCP Status Change, which is never stored because the next one supersedes it."""
    return isinstance(item, Event) and item.type is EventType.SCP_STATUS_CHANGE


def sequence_of(item: Waiting) -> int:
    """What identifies an item in a queue or a dead letter: an event's sequence, or that of a burst's act."""
    return item.sequence if isinstance(item, Event) else item.burst.first


def _rank(item: Waiting) -> tuple[int, bool]:
    """The position in a queue: a burst comes after the reports already made from it."""
    return (item.sequence, False) if isinstance(item, Event) else (item.after, True)


class EventQueue:
    """Waiting events and bursts in ascending sequence, each event once.

    A new SCP Status Change replaces a waiting one, and so does a Progress Report one of the same workitem (if
    ``replace_progress``). Events in flight are not replaced.

    Attributes:
        bursts: the number of waiting bursts.
        held: a sequence after which earlier events may still be merged in: until it is None again, no event is
            taken and nothing after it counts as settled.
    """

    __slots__ = ("_in_flight", "_items", "_newest", "_replace_progress", "bursts", "held")

    def __init__(self, replace_progress: bool) -> None:
        self.held: int | None = None
        self._items: OrderedDict[int, Waiting] = OrderedDict()
        self._newest: dict[str, int] = {}
        self._replace_progress = replace_progress
        self._in_flight = 0
        self.bursts = 0

    def __len__(self) -> int:
        """The number of waiting events, without bursts."""
        return len(self._items) - self.bursts

    def __bool__(self) -> bool:
        """True if anything waits."""
        return bool(self._items) or self.held is not None

    def __iter__(self) -> Iterator[Waiting]:
        return iter(self._items.values())

    def __contains__(self, sequence: int) -> bool:
        """True if the event with this sequence waits or is in flight."""
        return isinstance(self._items.get(sequence), Event)

    @property
    def head(self) -> Waiting | None:
        """The first event or burst."""
        return next(iter(self._items.values()), None)

    @property
    def oldest_at(self) -> float | None:
        """When the head was committed, in seconds since the epoch; None if nothing waits or that is unknown."""
        head = self.head
        return None if head is None else committed_at(head) or None

    @property
    def pending(self) -> int:
        """Waiting events, plus the greatest possible number of reports of waiting bursts."""
        if not self.bursts:
            return len(self._items)
        return len(self) + sum(item.remaining for item in self if isinstance(item, BurstAt))

    def settled_through(self) -> int | None:
        """The sequence up to which nothing waits; None if nothing waits at all."""
        head = self.head
        if head is None:
            return self.held
        through = head.after if isinstance(head, BurstAt) else head.sequence - 1
        return through if self.held is None else min(through, self.held)

    def oldest(self, count: int) -> list[Waiting]:
        """The first ``count`` waiting items."""
        return list(islice(self._items.values(), count))

    def older_than(self, moment: float, count: int) -> list[Waiting]:
        """Those of the first ``count`` items committed before ``moment`` (seconds since the epoch)."""
        return [item for item in self.oldest(count) if 0 < committed_at(item) < moment]

    # --- filling ---

    def add(self, item: Waiting) -> Event | None:
        """Append an item whose sequence is greater than all before; return the event that it replaced, if any."""
        if isinstance(item, BurstAt):
            self._items[item.burst.first] = item
            self.bursts += 1
            return None
        subject = self._subject(item)
        if subject is None:
            self._items[item.sequence] = item
            return None
        older = self._newest.get(subject)
        replaced = self._pop(older) if older is not None and older > self._in_flight else None
        self._items[item.sequence] = item
        self._newest[subject] = item.sequence
        return replaced

    def _subject(self, event: Event) -> str | None:
        """A key that an event shares with those it replaces; None if it replaces none."""
        if event.type is EventType.PROGRESS_REPORT:
            return event.uid if self._replace_progress else None
        return "" if event.type is EventType.SCP_STATUS_CHANGE else None

    def merge(self, items: Iterable[Waiting]) -> None:
        """Merge in the items of another queue, by sequence, each once."""
        merged = {sequence_of(item): item for item in items} | self._items
        self._items = OrderedDict((sequence_of(item), item) for item in sorted(merged.values(), key=_rank))
        self.bursts = sum(isinstance(item, BurstAt) for item in merged.values())
        for item in self._items.values():
            if isinstance(item, Event) and (subject := self._subject(item)) is not None:
                self._newest[subject] = item.sequence

    # --- emptying ---

    def take(self, limit: int) -> list[Event]:
        """Up to ``limit`` events from the head, which are then in flight; none while a burst is the head."""
        taken: list[Event] = []
        for item in self._items.values() if self.held is None else ():
            if isinstance(item, BurstAt) or len(taken) == limit:
                break
            taken.append(item)
        if taken:
            self._in_flight = taken[-1].sequence
        return taken

    def end_attempt(self) -> None:
        """Note that nothing is in flight any more."""
        self._in_flight = 0

    def remove(self, sequences: Iterable[int]) -> list[Event]:
        """Remove events by sequence; return those that were in the queue."""
        return [event for sequence in sequences if (event := self._pop(sequence)) is not None]

    def remove_items(self, items: Iterable[Waiting]) -> None:
        """Remove events and bursts."""
        for item in items:
            if isinstance(item, BurstAt):
                self.end(item)
            else:
                self._pop(item.sequence)

    def _pop(self, sequence: int) -> Event | None:
        item = self._items.get(sequence)
        if not isinstance(item, Event):
            return None
        del self._items[sequence]
        subject = self._subject(item)
        if subject is not None and self._newest.get(subject) == sequence:
            del self._newest[subject]
        return item

    def clear(self) -> None:
        """Remove everything."""
        self._items.clear()
        self._newest.clear()
        self.bursts = 0

    # --- bursts ---

    def expand(self, at: BurstAt, reports: Sequence[Event]) -> None:
        """Insert the next reports before the burst at the head; without any, the burst has ended and is removed."""
        if self._items.get(at.burst.first) is not at:
            return
        if not reports:
            self.end(at)
            return
        self._items[at.burst.first] = BurstAt(at.burst, reports[-1].sequence)
        for event in reversed(reports):
            self._items[event.sequence] = event
            self._items.move_to_end(event.sequence, last=False)

    def end(self, at: BurstAt) -> None:
        """Remove a burst."""
        if self._items.pop(at.burst.first, None) is not None:
            self.bursts -= 1

    def end_bursts(self) -> None:
        """Remove every burst."""
        for item in [item for item in self if isinstance(item, BurstAt)]:
            self.end(item)
