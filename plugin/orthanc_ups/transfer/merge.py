# SPDX-License-Identifier: AGPL-3.0-or-later
"""An export into a worklist that has some already: what is new comes in as if it were created now.

Workitems get the next creation numbers and keep content, state, owner and history. Their waiting events come with
new sequences, in order, and then a State Report tells every subscriber of the new workitem. An AE that has no
global subscriptions here repeats those of the export, as by N-ACTION; one that has some keeps its own.
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
from ..delivery.dead_letters import PREFIX
from ..delivery.documents import Batch, Progress, encode_batch
from ..delivery.port import Endpoint
from ..store.port import Entry
from ..store.writer import Conflict
from ..worklist.commits import Commits
from ..worklist.state import WorklistState
from ..worklist.worklist import Worklist
from .records import IMPORTED, TAKEN, UNCHANGED, Fate, Reach, Verdict, compared, conflict, meaning

_log = logging.getLogger("orthanc_ups.worklist")
_Letter = tuple[str, EventType, float]
_Wish = tuple[ActKind, bool, DataSet | None, Mechanisms]


class Merge:
    """Takes records of one export. One at a time; every method may raise StoreUnavailable and can be repeated."""

    def __init__(
        self, state: WorklistState, commits: Commits, worklist: Worklist, requester: Requester
    ) -> None:
        self._state = state
        self._commits = commits
        self._worklist = worklist
        self._requester = requester
        self._grant_locks = state.settings.deletion_locks
        self._logs: dict[str, Log] = {}
        self._reaches: dict[str, Mapping[str, Progress]] = {}
        self._moved_in: set[str] = set()
        self._earlier: dict[str, list[_Wish]] = {}  # of another spelling of the AE title
        self._letters: dict[Endpoint, set[_Letter]] = {}

    # --- subscribers ---

    def note(self, record: Log | Reach) -> None:
        """Remember what acts and cursors mean for the workitems to come."""
        if isinstance(record, Log):
            self._logs[record.receiving_ae] = record
        else:
            self._reaches[record.receiving_ae] = record.channels

    async def log(self, log: Log) -> Verdict:
        """The global subscriptions of an AE, made again."""
        self.note(log)
        ours = self._state.subscriptions.log(log.receiving_ae)
        if meaning(ours, self._granted) == meaning(log, self._granted):
            self._moved_in.add(log.receiving_ae)
            return UNCHANGED
        commands = list(self._commands(log))
        done = [
            _wish(act) for act in ours.acts
        ]  # an import that came no further made these, if they are among them
        wished = [*map(self._wished, commands), *self._earlier.get(log.receiving_ae, ())]
        if any(act not in wished for act in done):
            return conflict("is subscribed here; its own subscriptions are kept")
        self._earlier[log.receiving_ae] = wished
        return await self._subscribe(
            log, [command for command in commands if self._wished(command) not in done]
        )

    async def _subscribe(self, log: Log, commands: list[Subscribe]) -> Verdict:
        try:
            for command in commands:
                await self._worklist.execute(command)
        except UpsError as error:
            if error.status is RESOURCE_LIMITATION:
                raise
            return conflict(error.detail)
        self._moved_in.add(log.receiving_ae)
        return IMPORTED

    def _commands(self, log: Log) -> Iterator[Subscribe]:
        who, ae = replace(self._requester, ae=log.receiving_ae), log.receiving_ae
        now, acts = standing(log), {act.sequence: act for act in log.acts}
        if now.everything is not Subscription.NONE:
            lock = now.everything is Subscription.LOCK
            yield Subscribe(who, tags.GLOBAL_SUBSCRIPTION, ae, lock)
        for act, granted_state in now.filters.items():
            lock = granted_state is Subscription.LOCK
            yield Subscribe(who, tags.FILTERED_SUBSCRIPTION, ae, lock, acts[act].filter, acts[act].mechanisms)

    def _wished(self, command: Subscribe) -> _Wish:
        """What becomes of a command."""
        kind = ActKind.LOCK if command.lock and self._grant_locks else ActKind.NO_LOCK
        return kind, command.uid == tags.FILTERED_SUBSCRIPTION, command.filter, command.mechanisms

    def _granted(self, requested: Subscription) -> Subscription:
        refused = requested is Subscription.LOCK and not self._grant_locks
        return Subscription.NO_LOCK if refused else requested

    # --- workitems ---

    async def workitem(self, theirs: Workitem) -> Verdict:
        """A workitem, as if it were created now in the state that it has."""
        uid, workitems = theirs.uid, self._state.workitems
        async with self._state.locks.workitem(uid):
            ours = workitems.get(uid)
            if ours is not None:
                return compared(ours.workitem, theirs)
            if workitems.is_gone(uid):
                return conflict("was purged here")
            try:
                await self._create(theirs)
            except Conflict:
                return TAKEN
        return IMPORTED

    async def _create(self, theirs: Workitem) -> None:
        """In one write with its subscriptions: a crash leaves all of it or nothing, so it can be repeated."""
        acts = dict(self._acts(theirs, self._as_created(theirs)))
        what = ["imported", *(f"imported the subscription of {ae}: {acts[ae].value}" for ae in acts)]
        *entries, last = [self._entry(text) for text in what]
        history = (*theirs.history, *entries)
        new = replace(theirs, acts=self._numbered(acts), history=history, events=(), spilled=())
        await self._commits.commit(None, new, (*self._waiting(theirs), *_news(theirs)), last)
        _log.info("%s: imported %s (%s)", self._requester, theirs.uid, theirs.state.value)

    def _as_created(self, theirs: Workitem) -> Workitem:
        """What the global acts here make of it. The caller holds the locks, so none of them comes in between."""
        created, fitting = self._commits.next_creation, self._state.subscriptions.matching_filters
        return replace(theirs, created=created, acts={}, filtered=fitting(theirs.attributes))

    def _numbered(self, states: Mapping[str, Subscription]) -> dict[str, SpecificAct]:
        """Acts with sequences of their own. No event has these, so nobody needs to wait for them."""
        ticket, at = self._state.order.take(len(states)), self._state.now().timestamp()
        self._state.order.give_up(ticket)
        return {ae: SpecificAct(sequence, states[ae], at) for sequence, ae in enumerate(states, ticket.first)}

    def _entry(self, what: str) -> HistoryEntry:
        return HistoryEntry(self._state.now().timestamp(), str(self._requester), what)

    def _waiting(self, theirs: Workitem) -> Iterator[Occurrence]:
        for event in theirs.events:
            for ae in event.receivers:
                if self._waits(event, ae):
                    yield Occurrence(event.type, event.information, ae)

    def _waits(self, event: Event, receiving_ae: str) -> bool:
        channels = self._reaches.get(receiving_ae, {}).values()
        cursor = min((progress.cursor for progress in channels if progress.cursor is not None), default=0)
        return event.sequence > cursor and not any(
            event.sequence in progress.dropped for progress in channels
        )

    def _acts(self, theirs: Workitem, ours: Workitem) -> Iterator[tuple[str, Subscription]]:
        """Where an AE's subscription to the workitem is not what its global acts say here."""
        for ae in sorted({*self._logs, *theirs.acts}):
            granted = self._granted(subscribed(self._logs.get(ae, Log(ae)), theirs))
            counts = granted is not Subscription.NONE or ae in self._moved_in
            if counts and granted is not self._state.subscriptions.state(ae, ours):
                yield ae, granted

    # --- dead letters ---

    async def dead(self, batch: Batch) -> Verdict:
        """Dead letters, under new numbers. Initial reports that were never made cannot be: they are left out."""
        letters = self._letters_of(batch.endpoint)
        events = [event for event in batch.letters if isinstance(event, Event)]
        new = [event for event in events if _letter(event) not in letters]
        if not new:
            return UNCHANGED if events else Verdict(Fate.LEFT_OUT)
        verdict = await self._take_letters(replace(batch, letters=tuple(new)), new)
        letters.update(map(_letter, new))
        return verdict

    def _letters_of(self, endpoint: Endpoint) -> set[_Letter]:
        if endpoint not in self._letters:
            letters = (
                letter for batch in self._state.delivery.dead.batches(endpoint) for letter in batch.letters
            )
            self._letters[endpoint] = {_letter(letter) for letter in letters if isinstance(letter, Event)}
        return self._letters[endpoint]

    async def _take_letters(self, batch: Batch, letters: list[Event]) -> Verdict:
        state = self._state
        await self._commits.reserve(len(letters))
        ticket = state.order.take(len(letters))
        try:
            numbered = tuple(replace(letter, sequence=ticket.first + at) for at, letter in enumerate(letters))
            key = f"{PREFIX}{batch.endpoint.receiving_ae}/{batch.endpoint.channel}/{ticket.first}"
            document = encode_batch(replace(batch, letters=numbered), 1)
            version = await state.writer.write(key, document, None)
            state.delivery.dead.load(Entry(key, document, version))
        except Conflict:
            return TAKEN
        finally:
            state.order.give_up(ticket)
        return IMPORTED


def _news(theirs: Workitem) -> Iterator[Occurrence]:
    """What everybody hears of a workitem that is new here; who performs it only while it is to be performed."""
    yield state_report(theirs.attributes)
    if not theirs.state.is_final and is_assigned(theirs.attributes):
        yield assigned(theirs.attributes)


def _wish(act: GlobalAct) -> _Wish:
    """What a global act is, whatever its numbers: kind, whether it is filtered, its filter, how that matches."""
    return act.kind, act.filtered, act.filter, act.mechanisms


def _letter(event: Event) -> _Letter:
    """What a dead letter is known by: its number differs from worklist to worklist."""
    return event.uid, event.type, event.at
