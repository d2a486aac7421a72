# SPDX-License-Identifier: AGPL-3.0-or-later
"""Writes workitems: one command is one write, of the workitem together with its undelivered events."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Final

from ..core.events import Event, EventType, Occurrence
from ..core.statuses import PROCESSING_FAILURE, UpsError
from ..core.workitem import HistoryEntry, SpecificAct, Subscription, Workitem
from ..store.documents import encode, encode_events
from ..store.port import Entry
from .state import WorklistState
from .workitem_store import StoredWorkitem, stored_version

_log = logging.getLogger("orthanc_ups.worklist")
KEPT_SETTLED: Final = 4
SPILL_ABOVE: Final = 64
SPILLED_AT_ONCE: Final = 48
ATTEMPTS: Final = 5
"""How many times a command is tried while somebody else keeps changing the entry."""


@dataclass(frozen=True, slots=True)
class Overflow:
    """An entry with older waiting events of a workitem, which its document has no room for."""

    key: str
    version: str
    document: bytes
    events: tuple[Event, ...]

    def entry(self) -> Entry:
        """The entry as it is stored."""
        return Entry(self.key, self.document, self.version)


def kept_changing(key: str) -> UpsError:
    """The refusal (0110) of a command whose every attempt found the entry changed by somebody else."""
    return UpsError(PROCESSING_FAILURE, f"{key} kept changing; gave up after {ATTEMPTS} attempts")


def workitem_key(uid: str) -> str:
    """Key of a workitem's entry."""
    return f"workitem/{uid}"


class Commits:
    """Writes workitems. Every change of a workitem passes here once the rules have decided it.

    Attributes:
        overflows: the overflow entries of each workitem that has any, by SOP Instance UID.
        next_creation: the creation number of the next new workitem.
    """

    def __init__(self, state: WorklistState) -> None:
        self._state = state
        self.overflows: dict[str, list[Overflow]] = {}
        self.next_creation = 1

    async def commit(
        self,
        before: StoredWorkitem | None,
        after: Workitem,
        occurrences: Sequence[Occurrence],
        entry: HistoryEntry,
        acts: Sequence[tuple[str, Subscription]] = (),
    ) -> Workitem:
        """Write a workitem and its events; release the events once that is certain.

        Each occurrence becomes an event, with a sequence number and the AEs that are subscribed at this moment.
        The numbers are taken before the write, as a ticket. The document holds workitem, events and history, so that
        one compare-and-set decides about all of them. After it the projection and the subscriptions are updated and
        the ticket is settled: its events go to delivery as soon as every smaller number is settled too. A write that
        has certainly failed gives its numbers up.

        Example: two AEs are subscribed to workitem 7, which is at revision 4, and its performer completes it.
        The State Report gets sequence 120 and both receivers; the document goes out with revision 5 and this
        event; when Orthanc has it, 120 is released, and both AEs are told.

        Args:
            before: as it was read; None to create it.
            after: as it is to be; gets its creation number (if new), history and revision here.
            occurrences: what subscribers are to be told.
            entry: for the history.
            acts: specific acts of AEs (PS3.4 CC.2.3) that this write makes; their numbers precede those of the
                events. An AE whose act comes with the creation receives the events of the creation.

        Raises:
            Conflict: somebody else changed it.
            StoreUnavailable: it was certainly not written.
        """
        await self.reserve(len(occurrences) + len(acts) + 1)
        if before is None:
            after = self._numbered(after)
            if acts:
                after = _with_acts(after, acts, self._state.order.next, entry.at)
        addressed = self._addressed(after, occurrences)
        ticket = self._state.order.take(len(addressed) + len(acts))
        # Nobody knows whether a cancelled write arrived. Then the ticket stays open, so that no cursor can pass its
        # events; if it did arrive, they are delivered after the next start.
        try:
            if acts:
                after = _with_acts(after, acts, ticket.first, entry.at)
            first_event = ticket.first + len(acts)
            events = tuple(
                Event(
                    first_event + index,
                    occurrence.type,
                    after.uid,
                    occurrence.information,
                    receivers,
                    entry.at,
                )
                for index, (occurrence, receivers) in enumerate(addressed)
            )
            waiting, spilled = await self._trimmed(after, len(events))
            after = replace(
                after,
                events=(*waiting, *events),
                spilled=spilled,
                history=_bounded((*after.history, entry), self._state.settings.history_length),
                revision=after.revision + 1,
            )
            document = encode(after)
            version = await self._state.writer.write(
                workitem_key(after.uid), document, stored_version(before)
            )
        except Exception:
            self._state.order.give_up(ticket)
            raise
        try:
            self._state.workitems.put(after, version, document)
            if before is None:
                self._state.subscriptions.note(after)
            else:
                for receiving_ae, _ in acts:
                    self._state.subscriptions.note_act(receiving_ae, after)
        finally:
            self._state.order.settle(ticket, events)
            self._state.workitems.write_copy()
        return after

    async def purge(self, stored: StoredWorkitem, entry: HistoryEntry) -> None:
        """Replace a workitem by a tombstone; ``entry`` says when, by whom and why.

        Raises:
            Conflict: somebody else changed it.
            StoreUnavailable: part of it may remain.
        """
        workitem = stored.workitem
        await self.sweep_one(workitem.uid)
        await self._state.workitems.purge(stored, entry)
        self._state.subscriptions.forget(workitem)
        reason = f" ({entry.why})" if entry.why else ""
        _log.info("%s: purged%s; workitem %s was %s", entry.who, reason, workitem.uid, workitem.state.value)

    async def reserve(self, count: int) -> None:
        """Make sure that ``count`` sequence numbers and a creation number may be used. Raises StoreUnavailable."""
        order, reserved = self._state.order, self._state.worklist_entry
        while order.next + count >= reserved.sequences or self.next_creation >= reserved.creations:
            await reserved.reserve(order.next + count, self.next_creation)

    def _numbered(self, created: Workitem) -> Workitem:
        number = self.next_creation
        self.next_creation += 1
        filtered = self._state.subscriptions.matching_filters(created.attributes)
        return replace(created, created=number, filtered=filtered)

    def use_no_number_of(self, workitem: Workitem) -> None:
        """Somebody else wrote a workitem: use none of its numbers again."""
        self.next_creation = max(self.next_creation, workitem.created + 1)
        used = [event.sequence for event in workitem.events]
        used += [act.sequence for act in workitem.acts.values()]
        self._state.order.start_at(max(used, default=0) + 1)
        self._state.subscriptions.note(workitem)

    def _addressed(
        self, workitem: Workitem, occurrences: Sequence[Occurrence]
    ) -> list[tuple[Occurrence, tuple[str, ...]]]:
        """The occurrences that have receivers, each with its receivers."""
        addressed: list[tuple[Occurrence, tuple[str, ...]]] = []
        for occurrence in occurrences:
            subscribed = self._state.subscriptions.receivers
            receivers = (occurrence.only,) if occurrence.only else subscribed(workitem)
            if receivers:
                addressed.append((occurrence, receivers))
        return addressed

    async def _trimmed(self, workitem: Workitem, coming: int) -> tuple[list[Event], tuple[int, ...]]:
        """The events that a workitem keeps in its document beside ``coming`` new ones, and its overflow entries.

        An event is *settled* once the cursors of all its receivers have passed it; until then it *waits*. Waiting
        events stay in the document. Of the settled ones the last ``KEPT_SETTLED`` stay, so that an operator can read
        what happened last; the others are dropped. If more than ``SPILL_ABOVE`` events would wait, the oldest
        ``SPILLED_AT_ONCE`` move to an overflow entry (``events/<UID>/<sequence of its first>``), which is written
        before the document. The document stops naming overflow entries that are settled; ``sweep`` removes them.

        Example: of 70 events the first 10 are settled and 60 wait, and 5 new ones come. 60 + 5 is above 64, so 48
        waiting events move to an overflow entry, 12 stay beside the 5 new ones, and the settled ones are dropped.
        """
        settled: list[Event] = []
        waiting: list[Event] = []
        for event in sorted(workitem.events, key=_sequence):
            (settled if self._state.delivery.settled(event) else waiting).append(event)
        settled, spilled = settled[-KEPT_SETTLED:], workitem.spilled
        if len(waiting) + coming > SPILL_ABOVE and len(waiting) >= SPILLED_AT_ONCE:
            spilled = (*spilled, waiting[0].sequence)
            await self._spill(workitem.uid, tuple(waiting[:SPILLED_AT_ONCE]))
            settled, waiting = [], waiting[SPILLED_AT_ONCE:]
        if spilled:
            spilled = self._unsettled(workitem, spilled)
        return sorted((*settled, *waiting), key=_sequence), spilled  # a receiver may be ahead of another

    async def _spill(self, uid: str, events: tuple[Event, ...]) -> None:
        """Write an overflow entry. The workitem is written after it; after a crash in between, both have the events."""
        key = f"events/{uid}/{events[0].sequence}"
        document = encode_events(uid, events)
        version = await self._state.writer.overwrite(key, document)
        others = [overflow for overflow in self.overflows.get(uid, ()) if overflow.key != key]
        self.overflows[uid] = [*others, Overflow(key, version, document, events)]

    def _unsettled(self, workitem: Workitem, spilled: tuple[int, ...]) -> tuple[int, ...]:
        overflows = {
            overflow.events[0].sequence: overflow for overflow in self.overflows.get(workitem.uid, ())
        }
        return tuple(at for at in spilled if at in overflows and not self._is_settled(overflows[at]))

    def _is_settled(self, overflow: Overflow) -> bool:
        return all(self._state.delivery.settled(event) for event in reversed(overflow.events))

    async def sweep(self) -> None:
        """Remove the overflow entries that every receiver has passed. Raises StoreUnavailable."""
        for uid in list(self.overflows):
            await self.sweep_one(uid)

    async def sweep_one(self, uid: str) -> None:
        """Remove the overflow entries of a workitem that every receiver has passed. Raises StoreUnavailable."""
        for settled in [overflow for overflow in self.overflows.get(uid, ()) if self._is_settled(overflow)]:
            await self._state.writer.discard(settled.key, settled.version)
            remaining = [overflow for overflow in self.overflows.get(uid, ()) if overflow.key != settled.key]
            self.overflows[uid] = remaining
            if not remaining:
                del self.overflows[uid]

    def waits(self, workitem: Workitem) -> bool:
        """True if an event of this workitem still waits for a receiver."""
        return (
            any(not self._state.delivery.settled(event) for event in workitem.events)
            or any(not self._is_settled(overflow) for overflow in self.overflows.get(workitem.uid, ()))
            or any(not self._state.delivery.settled(report) for report in self._initial_reports(workitem))
        )

    def _initial_reports(self, workitem: Workitem) -> Iterator[Event]:
        """The initial State Reports that global subscribes owe for this workitem, without content."""
        for ae, act in self._state.subscriptions.reports_due(workitem):
            yield Event(act + workitem.created, EventType.STATE_REPORT, workitem.uid, {}, (ae,), 0.0)


_sequence = attrgetter("sequence")


def _with_acts(
    workitem: Workitem, acts: Sequence[tuple[str, Subscription]], first: int, at: float
) -> Workitem:
    """The workitem with these acts, numbered from ``first``."""
    new = {ae: SpecificAct(first + index, state, at) for index, (ae, state) in enumerate(acts)}
    return replace(workitem, acts={**workitem.acts, **new})


def _bounded(history: tuple[HistoryEntry, ...], length: int) -> tuple[HistoryEntry, ...]:
    """At most ``length`` entries: the first, which is the creation, and the latest ones."""
    if len(history) <= length:
        return history
    return (history[0], *history[1 - length :]) if length > 1 else history[-1:]
