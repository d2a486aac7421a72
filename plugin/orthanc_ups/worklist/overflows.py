# SPDX-License-Identifier: AGPL-3.0-or-later
"""Overflow entries: the oldest undelivered events of a workitem, if they are too many for its document."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Final

from ..core.events import Event
from ..core.workitem import Workitem
from ..delivery.outbox import Delivery
from ..store import keys
from ..store.documents import encode_events
from ..store.port import Entry
from ..store.writer import Writer

SETTLED_IN_DOCUMENT: Final = 4
"""Settled events that stay in a document, for operators to read."""
SPILL_ABOVE: Final = 64
"""Greatest number of events that wait in a document."""
SPILLED_AT_ONCE: Final = 48
"""Events that move to an overflow entry in one write."""

_sequence = attrgetter("sequence")


@dataclass(frozen=True, slots=True)
class Overflow:
    """One overflow entry: the oldest waiting events of a workitem when it was written."""

    key: str
    version: str
    document: bytes
    events: tuple[Event, ...]

    @property
    def uid(self) -> str:
        """SOP Instance UID of the workitem."""
        return self.events[0].uid

    @property
    def entry(self) -> Entry:
        """The entry as it is stored."""
        return Entry(self.key, self.document, self.version)


class Overflows:
    """Limits the number of events in each document, without losing any.

    An event is *settled* once the cursors of all its receivers have passed it; until then it *waits*.
    """

    def __init__(self, writer: Writer, delivery: Delivery) -> None:
        self._writer = writer
        self._delivery = delivery
        self._by_uid: dict[str, list[Overflow]] = {}

    def load(self, overflows: Iterable[Overflow]) -> None:
        """Take over the stored overflow entries."""
        self._by_uid.clear()
        for overflow in overflows:
            self._by_uid.setdefault(overflow.uid, []).append(overflow)

    def of(self, uid: str) -> Sequence[Overflow]:
        """The overflow entries of a workitem, in no order."""
        return self._by_uid.get(uid, ())

    def all(self) -> Iterator[Overflow]:
        """Every overflow entry."""
        for overflows in list(self._by_uid.values()):
            yield from overflows

    async def trim(self, workitem: Workitem, count: int) -> tuple[list[Event], tuple[int, ...]]:
        """The events and overflow entries that the document of a workitem keeps, before ``count`` events are added.

        Waiting events stay in the document. Of the settled ones the last ``SETTLED_IN_DOCUMENT`` stay, so that an
        operator can read what happened last; earlier ones are dropped. If more than ``SPILL_ABOVE`` events would wait,
        the oldest ``SPILLED_AT_ONCE`` move to an overflow entry (``events/<UID>/<sequence of its first>``), which is
        written before the document: after a crash in between, both have these events. The document no longer names
        overflow entries whose events are all settled; ``sweep`` removes them.

        Example: of 70 events the first 10 are settled and 60 wait, and 5 new ones come. 60 + 5 is above 64, so 48
        waiting events move to an overflow entry, 12 stay beside the 5 new ones, and the settled ones are dropped.

        Raises StoreUnavailable.
        """
        settled: list[Event] = []
        waiting: list[Event] = []
        for event in sorted(workitem.events, key=_sequence):
            (settled if self._delivery.settled(event) else waiting).append(event)
        settled, spilled = settled[-SETTLED_IN_DOCUMENT:], workitem.spilled
        if len(waiting) + count > SPILL_ABOVE and len(waiting) >= SPILLED_AT_ONCE:
            spilled = (*spilled, await self._spill(workitem.uid, tuple(waiting[:SPILLED_AT_ONCE])))
            settled, waiting = [], waiting[SPILLED_AT_ONCE:]
        if spilled:
            undelivered = {
                overflow.events[0].sequence
                for overflow in self.of(workitem.uid)
                if not self._is_settled(overflow)
            }
            spilled = tuple(sequence for sequence in spilled if sequence in undelivered)
        events = sorted((*settled, *waiting), key=_sequence)  # settled events may be later than waiting ones
        return events, spilled

    async def spill_all(self, workitem: Workitem) -> Workitem:
        """Move the events of an imported workitem, which all wait, as ``trim`` does. Raises StoreUnavailable."""
        events, spilled = workitem.events, workitem.spilled
        while len(events) > SPILL_ABOVE:
            spilled = (*spilled, await self._spill(workitem.uid, events[:SPILLED_AT_ONCE]))
            events = events[SPILLED_AT_ONCE:]
        return replace(workitem, events=events, spilled=spilled)

    async def _spill(self, uid: str, events: tuple[Event, ...]) -> int:
        """Write an overflow entry; return the sequence by which the document names it."""
        sequence = events[0].sequence
        key, document = keys.overflow(uid, sequence), encode_events(uid, events)
        version = await self._writer.overwrite(key, document)
        older = [overflow for overflow in self.of(uid) if overflow.key != key]
        self._by_uid[uid] = [*older, Overflow(key, version, document, events)]
        return sequence

    def is_settled(self, uid: str) -> bool:
        """True if no event in the overflow entries of a workitem waits."""
        return all(map(self._is_settled, self.of(uid)))

    def _is_settled(self, overflow: Overflow) -> bool:
        return all(self._delivery.settled(event) for event in reversed(overflow.events))

    async def sweep(self) -> None:
        """Remove the settled overflow entries of all workitems. Raises StoreUnavailable."""
        for uid in list(self._by_uid):
            await self.sweep_workitem(uid)

    async def sweep_workitem(self, uid: str) -> None:
        """Remove the settled overflow entries of a workitem. Raises StoreUnavailable."""
        for settled in list(filter(self._is_settled, self.of(uid))):
            await self._writer.discard(settled.key, settled.version)
            remaining = [overflow for overflow in self.of(uid) if overflow.key != settled.key]
            if remaining:
                self._by_uid[uid] = remaining
            else:
                self._by_uid.pop(uid, None)
