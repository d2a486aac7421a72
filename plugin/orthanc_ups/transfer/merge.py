# SPDX-License-Identifier: AGPL-3.0-or-later
"""Imports into a worklist that already has workitems: new ones are added as if created now.

Workitems get the next creation numbers and keep content, state, owner and history. Their waiting events get new
sequences, in order, followed by a State Report to every subscriber of the new workitem. An AE without global
subscriptions here gets those of the export, as if by N-ACTION; an AE that has some keeps them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace

from ..core import tags
from ..core.commands import Requester, Subscribe
from ..core.dataset import DataSet
from ..core.events import Event, EventType, Occurrence, assigned, is_assigned, state_report
from ..core.mechanisms import Mechanisms
from ..core.statuses import RESOURCE_LIMITATION, UpsError
from ..core.subscriptions import ActKind, GlobalAct, Log, standing, subscribed
from ..core.workitem import HistoryEntry, SpecificAct, Subscription, Workitem
from ..delivery.documents import Batch, Progress, encode_batch
from ..delivery.port import Endpoint
from ..store import keys
from ..store.port import Entry
from ..store.writer import Conflict
from ..worklist.commits import Commits
from ..worklist.state import WorklistState
from ..worklist.worklist import Worklist
from .records import (
    ENTRY_EXISTS,
    IMPORTED,
    UNCHANGED,
    AeCursors,
    ImportOutcome,
    ImportResult,
    compare,
    conflict,
    effective_subscriptions,
)

_log = logging.getLogger("orthanc_ups.worklist")
_LetterKey = tuple[str, EventType, float]
_ActKey = tuple[ActKind, bool, DataSet | None, Mechanisms]


class Merge:
    """Merges the records of one export, one at a time. Methods may raise StoreUnavailable, and can then be repeated."""

    def __init__(
        self, state: WorklistState, commits: Commits, worklist: Worklist, requester: Requester
    ) -> None:
        self._state = state
        self._commits = commits
        self._worklist = worklist
        self._requester = requester
        self._grant_locks = state.settings.deletion_locks
        self._logs: dict[str, Log] = {}
        self._cursors: dict[str, Mapping[str, Progress]] = {}
        self._imported: set[str] = set()  # AEs with the global subscriptions of the export
        self._earlier: dict[str, list[_ActKey]] = {}  # of other spellings of the AE title
        self._letters: dict[Endpoint, set[_LetterKey]] = {}

    # --- subscribers ---

    def note(self, record: Log | AeCursors) -> None:
        """Remember acts and cursors; the workitems that follow refer to them."""
        if isinstance(record, Log):
            self._logs[record.receiving_ae] = record
        else:
            self._cursors[record.receiving_ae] = record.channels

    async def log(self, log: Log) -> ImportResult:
        """Import the global subscriptions of an AE, by subscribing on its behalf."""
        self.note(log)
        current = self._state.subscriptions.log(log.receiving_ae)
        if effective_subscriptions(current, self._granted) == effective_subscriptions(log, self._granted):
            self._imported.add(log.receiving_ae)
            return UNCHANGED
        commands = list(self._commands(log))
        # Acts of the export may be from an earlier import that was interrupted.
        present = [_act_key(act) for act in current.acts]
        exported = [*map(self._command_key, commands), *self._earlier.get(log.receiving_ae, ())]
        if any(act not in exported for act in present):
            return conflict("has subscriptions here, which are kept")
        self._earlier[log.receiving_ae] = exported
        return await self._subscribe(
            log, [command for command in commands if self._command_key(command) not in present]
        )

    async def _subscribe(self, log: Log, commands: list[Subscribe]) -> ImportResult:
        try:
            for command in commands:
                await self._worklist.execute(command)
        except UpsError as error:
            if error.status is RESOURCE_LIMITATION:
                raise
            return conflict(error.detail)
        self._imported.add(log.receiving_ae)
        return IMPORTED

    def _commands(self, log: Log) -> Iterator[Subscribe]:
        requester, ae = replace(self._requester, ae=log.receiving_ae), log.receiving_ae
        current, acts = standing(log), {act.sequence: act for act in log.acts}
        if current.everything is not Subscription.NONE:
            lock = current.everything is Subscription.LOCK
            yield Subscribe(requester, tags.GLOBAL_SUBSCRIPTION, ae, lock)
        for act, state in current.filters.items():
            lock = state is Subscription.LOCK
            yield Subscribe(
                requester, tags.FILTERED_SUBSCRIPTION, ae, lock, acts[act].filter, acts[act].mechanisms
            )

    def _command_key(self, command: Subscribe) -> _ActKey:
        """The key of the act that a command becomes."""
        kind = ActKind.LOCK if command.lock and self._grant_locks else ActKind.NO_LOCK
        return kind, command.uid == tags.FILTERED_SUBSCRIPTION, command.filter, command.mechanisms

    def _granted(self, requested: Subscription) -> Subscription:
        refused = requested is Subscription.LOCK and not self._grant_locks
        return Subscription.NO_LOCK if refused else requested

    # --- workitems ---

    async def workitem(self, exported: Workitem) -> ImportResult:
        """Import a workitem as if it were created now, in the state that it has."""
        uid, workitems = exported.uid, self._state.workitems
        async with self._state.locks.workitem(uid):
            stored = workitems.get(uid)
            if stored is not None:
                return compare(stored.workitem, exported)
            if workitems.is_gone(uid):
                return conflict("was purged here")
            try:
                await self._create(exported)
            except Conflict:
                return ENTRY_EXISTS
        return IMPORTED

    async def _create(self, exported: Workitem) -> None:
        """Create it and its subscriptions in one write: a crash leaves all or nothing, so this can be repeated."""
        acts = dict(self._acts(exported, self._as_created(exported)))
        what = ["imported", *(f"imported the subscription of {ae}: {acts[ae].value}" for ae in acts)]
        *entries, last = [self._entry(text) for text in what]
        history = (*exported.history, *entries)
        new = replace(exported, acts=self._numbered(acts), history=history, events=(), spilled=())
        await self._commits.commit(
            None, new, (*self._waiting_occurrences(exported), *_occurrences(exported)), last
        )
        _log.info("%s: imported %s (%s)", self._requester, exported.uid, exported.state.value)

    def _as_created(self, exported: Workitem) -> Workitem:
        """The workitem as the global acts here apply to it. The caller holds the locks, so these do not change."""
        filtered = self._state.subscriptions.matching_filters(exported.attributes)
        return replace(exported, created=self._commits.next_creation, acts={}, filtered=filtered)

    def _numbered(self, states: Mapping[str, Subscription]) -> dict[str, SpecificAct]:
        """Acts with new sequences. No event uses these, so their ticket is given up at once."""
        ticket, at = self._state.order.take(len(states)), self._state.now().timestamp()
        self._state.order.give_up(ticket)
        return {ae: SpecificAct(sequence, states[ae], at) for sequence, ae in enumerate(states, ticket.first)}

    def _entry(self, what: str) -> HistoryEntry:
        return HistoryEntry(self._state.now().timestamp(), str(self._requester), what)

    def _waiting_occurrences(self, exported: Workitem) -> Iterator[Occurrence]:
        for event in exported.events:
            for ae in event.receivers:
                if self._is_waiting(event, ae):
                    yield Occurrence(event.type, event.information, ae)

    def _is_waiting(self, event: Event, receiving_ae: str) -> bool:
        channels = self._cursors.get(receiving_ae, {}).values()
        cursor = min((progress.cursor for progress in channels if progress.cursor is not None), default=0)
        return event.sequence > cursor and not any(
            event.sequence in progress.dropped for progress in channels
        )

    def _acts(self, exported: Workitem, created: Workitem) -> Iterator[tuple[str, Subscription]]:
        """AEs whose subscription to the workitem is not that of their global acts here, and that subscription."""
        for ae in sorted({*self._logs, *exported.acts}):
            granted = self._granted(subscribed(self._logs.get(ae, Log(ae)), exported))
            counts = granted is not Subscription.NONE or ae in self._imported
            if counts and granted is not self._state.subscriptions.state(ae, created):
                yield ae, granted

    # --- dead letters ---

    async def dead_letters(self, batch: Batch) -> ImportResult:
        """Import dead letters with new numbers. Initial reports that were never created are left out."""
        letters = self._letter_keys(batch.endpoint)
        events = [event for event in batch.letters if isinstance(event, Event)]
        new = [event for event in events if _letter_key(event) not in letters]
        if not new:
            return UNCHANGED if events else ImportResult(ImportOutcome.LEFT_OUT)
        result = await self._import_letters(replace(batch, letters=tuple(new)), new)
        letters.update(map(_letter_key, new))
        return result

    def _letter_keys(self, endpoint: Endpoint) -> set[_LetterKey]:
        if endpoint not in self._letters:
            letters = (
                letter for batch in self._state.delivery.dead.batches(endpoint) for letter in batch.letters
            )
            self._letters[endpoint] = {_letter_key(letter) for letter in letters if isinstance(letter, Event)}
        return self._letters[endpoint]

    async def _import_letters(self, batch: Batch, letters: list[Event]) -> ImportResult:
        state = self._state
        await self._commits.reserve(len(letters))
        ticket = state.order.take(len(letters))
        try:
            numbered = tuple(replace(letter, sequence=ticket.first + at) for at, letter in enumerate(letters))
            key = keys.dead_letters(batch.endpoint.receiving_ae, batch.endpoint.channel, ticket.first)
            document = encode_batch(replace(batch, letters=numbered), 1)
            version = await state.writer.write(key, document, None)
            state.delivery.dead.load(Entry(key, document, version))
        except Conflict:
            return ENTRY_EXISTS
        finally:
            state.order.give_up(ticket)
        return IMPORTED


def _occurrences(exported: Workitem) -> Iterator[Occurrence]:
    """The events for a workitem that is new here; UPS Assigned only if it is not final."""
    yield state_report(exported.attributes)
    if not exported.state.is_final and is_assigned(exported.attributes):
        yield assigned(exported.attributes)


def _act_key(act: GlobalAct) -> _ActKey:
    """What identifies a global act regardless of its numbers: kind, whether it is filtered, filter, mechanisms."""
    return act.kind, act.filtered, act.filter, act.mechanisms


def _letter_key(event: Event) -> _LetterKey:
    """What identifies a dead letter regardless of its number, which differs between worklists."""
    return event.uid, event.type, event.at
