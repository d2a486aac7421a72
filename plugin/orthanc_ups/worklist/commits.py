# SPDX-License-Identifier: AGPL-3.0-or-later
"""Writes workitems: each command is one write, of the workitem together with its undelivered events."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from ..core.events import Event, EventType, Occurrence
from ..core.statuses import PROCESSING_FAILURE, UpsError
from ..core.workitem import HistoryEntry, SpecificAct, Subscription, Workitem
from ..store import keys
from ..store.documents import encode
from .state import WorklistState
from .workitem_store import StoredWorkitem, stored_version

_log = logging.getLogger("orthanc_ups.worklist")
ATTEMPTS: Final = 5
"""How often a command is tried while somebody else keeps changing the entry."""


def conflicts_refusal(key: str) -> UpsError:
    """The refusal (0110) of a command whose every attempt conflicted with a change by somebody else."""
    return UpsError(PROCESSING_FAILURE, f"{key} kept changing; gave up after {ATTEMPTS} attempts")


Addressed: TypeAlias = tuple[Occurrence, tuple[str, ...]]
"""What happened, and the Receiving AEs of its event."""


class Commits:
    """Writes every change of a workitem once the rules have decided it.

    Attributes:
        next_creation: the creation number of the next new workitem.
    """

    def __init__(self, state: WorklistState) -> None:
        self._state = state
        self.next_creation = 1

    async def commit(
        self,
        before: StoredWorkitem | None,
        after: Workitem,
        occurrences: Sequence[Occurrence],
        entry: HistoryEntry,
        acts: Sequence[tuple[str, Subscription]] = (),
    ) -> Workitem:
        """Write a workitem and its events; release the events once the write has succeeded.

        Each occurrence becomes an event with a sequence number and the AEs that are subscribed at that moment.
        The numbers are taken before the write, as a ticket. The document holds workitem, events and history, so that
        a single compare-and-set decides about all of them. After it the projection and the subscriptions are updated
        and the ticket is settled: its events go to delivery as soon as every smaller number is settled too. If the
        write has certainly failed, its numbers are given up.

        Example: two AEs are subscribed to workitem 7, which is at revision 4, and its performer completes it.
        The State Report gets sequence 120 and both receivers; the document is written with revision 5 and this
        event; once Orthanc has it, 120 is released and sent to both AEs.

        Args:
            before: the workitem as it was read; None to create it.
            after: the workitem as it is to be, still without creation number (if new), events, history and revision
                of this write.
            occurrences: what subscribers are to be notified of.
            entry: to be appended to the history.
            acts: specific acts of AEs (PS3.4 CC.2.3) that this write makes; their numbers precede those of the
                events. An AE whose act comes with the creation receives the events of the creation.

        Returns:
            The workitem as it was written.

        Raises:
            Conflict: somebody else changed it.
            StoreUnavailable: it was certainly not written.
        """
        await self.reserve(len(occurrences) + len(acts) + 1)
        if before is None:
            after = self._numbered(after)
        first = self._state.order.next
        with_acts = _with_acts(after, acts, first, entry.at)
        addressed = self._addressed(with_acts if before is None else after, occurrences)
        ticket = self._state.order.take(len(acts) + len(addressed))
        # If the write is cancelled, it is unknown whether it arrived. Then the ticket stays open, so that no cursor can
        # pass its events; if the write did arrive, they are delivered after the next start.
        try:
            events = _events(after.uid, addressed, first + len(acts), entry.at)
            earlier, spilled = await self._state.overflows.trim(with_acts, len(events))
            after = replace(
                with_acts,
                events=(*earlier, *events),
                spilled=spilled,
                history=_bounded((*after.history, entry), self._state.settings.history_length),
                revision=after.revision + 1,
            )
            document = encode(after)
            version = await self._state.writer.write(
                keys.workitem(after.uid), document, stored_version(before)
            )
        except Exception:
            self._state.order.give_up(ticket)
            raise
        try:
            self._state.workitems.put(after, version, document)
            self._note_subscriptions(after, acts, is_new=before is None)
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
        await self._state.overflows.sweep_workitem(workitem.uid)
        await self._state.workitems.purge(stored, entry)
        self._state.subscriptions.forget(workitem)
        reason = f" ({entry.why})" if entry.why else ""
        _log.info("%s: purged%s; workitem %s was %s", entry.who, reason, workitem.uid, workitem.state.value)

    async def reserve(self, count: int) -> None:
        """Make sure that ``count`` sequence numbers and a creation number are reserved. Raises StoreUnavailable."""
        order, reserved = self._state.order, self._state.worklist_entry
        while order.next + count >= reserved.sequences or self.next_creation >= reserved.creations:
            await reserved.reserve(order.next + count, self.next_creation)

    def _numbered(self, created: Workitem) -> Workitem:
        number = self.next_creation
        self.next_creation += 1
        filtered = self._state.subscriptions.matching_filters(created.attributes)
        return replace(created, created=number, filtered=filtered)

    def _note_subscriptions(
        self, workitem: Workitem, acts: Sequence[tuple[str, Subscription]], *, is_new: bool
    ) -> None:
        if is_new:
            self._state.subscriptions.note(workitem)
        else:
            for receiving_ae, _ in acts:
                self._state.subscriptions.note_act(receiving_ae, workitem)

    def adopt(self, workitem: Workitem) -> None:
        """Take over the subscriptions to a workitem that somebody else wrote, and never use its numbers again."""
        self.next_creation = max(self.next_creation, workitem.created + 1)
        sequences = [event.sequence for event in workitem.events]
        sequences += [act.sequence for act in workitem.acts.values()]
        self._state.order.start_at(max(sequences, default=0) + 1)
        self._state.subscriptions.note(workitem)

    def _addressed(self, workitem: Workitem, occurrences: Sequence[Occurrence]) -> list[Addressed]:
        """The occurrences that have receivers, each with its receivers."""
        addressed: list[Addressed] = []
        for occurrence in occurrences:
            subscribed = self._state.subscriptions.receivers
            receivers = (occurrence.only,) if occurrence.only else subscribed(workitem)
            if receivers:
                addressed.append((occurrence, receivers))
        return addressed

    def has_undelivered(self, workitem: Workitem) -> bool:
        """True if an event of the workitem has not reached all of its receivers yet."""
        return (
            any(not self._state.delivery.settled(event) for event in workitem.events)
            or not self._state.overflows.is_settled(workitem.uid)
            or any(not self._state.delivery.settled(report) for report in self._initial_reports(workitem))
        )

    def _initial_reports(self, workitem: Workitem) -> Iterator[Event]:
        """The initial State Reports that global subscribes owe for this workitem, without content."""
        for ae, act in self._state.subscriptions.reports_due(workitem):
            yield Event(act + workitem.created, EventType.STATE_REPORT, workitem.uid, {}, (ae,), 0.0)


def _events(uid: str, addressed: Sequence[Addressed], first: int, at: float) -> tuple[Event, ...]:
    """The events of a workitem, numbered from ``first``."""
    return tuple(
        Event(sequence, occurrence.type, uid, occurrence.information, receivers, at)
        for sequence, (occurrence, receivers) in enumerate(addressed, first)
    )


def _with_acts(
    workitem: Workitem, acts: Sequence[tuple[str, Subscription]], first: int, at: float
) -> Workitem:
    """The workitem with these acts, numbered from ``first``."""
    if not acts:
        return workitem
    new = {ae: SpecificAct(first + index, state, at) for index, (ae, state) in enumerate(acts)}
    return replace(workitem, acts={**workitem.acts, **new})


def _bounded(history: tuple[HistoryEntry, ...], length: int) -> tuple[HistoryEntry, ...]:
    """At most ``length`` entries: the first, which is the creation, and the latest ones."""
    if len(history) <= length:
        return history
    return (history[0], *history[1 - length :]) if length > 1 else history[-1:]
