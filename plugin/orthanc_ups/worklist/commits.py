# SPDX-License-Identifier: AGPL-3.0-or-later
"""One command, one write: the workitem with its not yet delivered events (design: events commit with the change)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ..core.events import Event, Occurrence
from ..core.workitem import HistoryEntry, SpecificAct, Subscription, Workitem
from ..store.document import encode, encode_events
from ..store.port import Entry
from .header import Header
from .ledger import Ledger
from .order import Order, Ticket
from .shadow import VANISHED, Kept, Shadow
from .writer import Writer

KEPT_SETTLED: Final = 4
SPILL_ABOVE: Final = 64
SPILLED_AT_ONCE: Final = 48


@dataclass(frozen=True, slots=True)
class Overflow:
    """Older waiting events of a workitem in an entry of their own."""

    key: str
    version: str
    document: bytes
    events: tuple[Event, ...]

    def entry(self) -> Entry:
        """As it stands in the store."""
        return Entry(self.key, self.document, self.version)


def workitem_key(uid: str) -> str:
    """Key of a workitem's entry."""
    return f"workitem/{uid}"


class Commits:
    """Writes workitems. Knows nothing of the rules; every change of a workitem ends here."""

    def __init__(
        self,
        writer: Writer,
        shadow: Shadow,
        ledger: Ledger,
        header: Header,
        order: Order,
        settled: Callable[[Event], bool],
        history_length: int,
    ) -> None:
        self._writer = writer
        self._shadow = shadow
        self._ledger = ledger
        self._header = header
        self._order = order
        self._settled = settled
        self._history_length = history_length
        self.overflows: dict[str, list[Overflow]] = {}
        self.next_creation = 1

    async def commit(
        self,
        before: Kept | None,
        after: Workitem,
        occurrences: Sequence[Occurrence],
        entry: HistoryEntry,
        act: tuple[str, Subscription] | None = None,
    ) -> Workitem:
        """Write a workitem and its events; release the events once that is certain.

        ``act`` is a specific act of an AE, made by this very write.
        Raises Conflict if somebody else changed it, StoreUnavailable if it was surely not written.
        """
        if before is None:
            after = await self._numbered(after)
        told = self._addressed(after, occurrences)
        ticket = self._order.take(len(told) + (1 if act else 0))
        try:
            if act:
                after = _with_act(after, act[0], SpecificAct(ticket.first, act[1], entry.at))
            events = _numbered_events(ticket, after.uid, told, entry.at)
            after = await self._trimmed(after, events)
            history = (*after.history, entry)[-self._history_length :]
            after = replace(after, history=history, revision=after.revision + 1)
            await self._write(before, after)
            self._order.settle(ticket, events)
        finally:
            self._order.give_up(ticket)
        return after

    async def _numbered(self, created: Workitem) -> Workitem:
        while self._header.short_of(self._order.next, self.next_creation):
            await self._header.reserve(self._order.next, self.next_creation)
        number = self.next_creation
        self.next_creation += 1
        filtered = self._ledger.matching_filters(created.attributes)
        return replace(created, created=number, filtered=filtered)

    def _addressed(
        self, workitem: Workitem, occurrences: Sequence[Occurrence]
    ) -> list[tuple[Occurrence, tuple[str, ...]]]:
        everyone = self._ledger.receivers(workitem) if occurrences else ()
        pairs = [(one, (one.only,) if one.only else everyone) for one in occurrences]
        return [(one, receivers) for one, receivers in pairs if receivers]

    async def _write(self, before: Kept | None, after: Workitem) -> None:
        document = encode(after)
        version = before.version if before and before.version != VANISHED else None
        version = await self._writer.write(workitem_key(after.uid), document, version)
        self._shadow.put(after, version, document)
        self._ledger.note(after)

    async def _trimmed(self, workitem: Workitem, new: tuple[Event, ...]) -> Workitem:
        """Drop what every receiver has, keep the last few of those, spill what is too much."""
        settled = [event for event in workitem.events if self._settled(event)][-KEPT_SETTLED:]
        waiting = [event for event in workitem.events if not self._settled(event)]
        spilled = workitem.spilled
        if len(waiting) + len(new) > SPILL_ABOVE and len(waiting) >= SPILLED_AT_ONCE:
            spilled = (*spilled, waiting[0].sequence)
            await self._spill(workitem.uid, tuple(waiting[:SPILLED_AT_ONCE]))
            settled, waiting = [], waiting[SPILLED_AT_ONCE:]
        return replace(
            workitem, events=(*settled, *waiting, *new), spilled=self._unsettled(workitem, spilled)
        )

    async def _spill(self, uid: str, events: tuple[Event, ...]) -> None:
        """Written before the workitem lets go of them; after a crash between both they are simply there twice."""
        key = f"events/{uid}/{events[0].sequence}"
        document = encode_events(uid, events)
        version = await self._writer.overwrite(key, document)
        self.overflows.setdefault(uid, []).append(Overflow(key, version, document, events))

    def _unsettled(self, workitem: Workitem, spilled: tuple[int, ...]) -> tuple[int, ...]:
        known = {one.events[0].sequence: one for one in self.overflows.get(workitem.uid, ())}
        return tuple(at for at in spilled if at in known and not self._is_settled(known[at]))

    def _is_settled(self, overflow: Overflow) -> bool:
        return all(self._settled(event) for event in reversed(overflow.events))

    async def sweep(self, uid: str) -> None:
        """Remove the overflow entries of a workitem that every receiver has passed."""
        for overflow in [one for one in self.overflows.get(uid, ()) if self._is_settled(one)]:
            await self.drop_overflow(uid, overflow)

    async def drop_overflow(self, uid: str, overflow: Overflow) -> None:
        """Remove an overflow entry that nobody waits for."""
        await self._writer.remove(overflow.key, overflow.version)
        left = [one for one in self.overflows.get(uid, ()) if one is not overflow]
        if left:
            self.overflows[uid] = left
        else:
            self.overflows.pop(uid, None)

    def waits(self, workitem: Workitem) -> bool:
        """True if some receiver still has to get an event of this workitem."""
        mine = any(not self._settled(event) for event in workitem.events)
        return mine or any(not self._is_settled(one) for one in self.overflows.get(workitem.uid, ()))


def _with_act(workitem: Workitem, receiving_ae: str, act: SpecificAct) -> Workitem:
    return replace(workitem, acts={**workitem.acts, receiving_ae: act})


def _numbered_events(
    ticket: Ticket, uid: str, told: Sequence[tuple[Occurrence, tuple[str, ...]]], at: float
) -> tuple[Event, ...]:
    first = ticket.first + ticket.count - len(told)
    return tuple(
        Event(first + place, one.type, uid, one.information, receivers, at)
        for place, (one, receivers) in enumerate(told)
    )
