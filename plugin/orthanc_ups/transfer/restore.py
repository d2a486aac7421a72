# SPDX-License-Identifier: AGPL-3.0-or-later
"""Imports into an empty worklist with all numbers unchanged, so it continues where the exported one stopped.

Creation numbers, sequences, acts and cursors are those of the export, so subscriptions mean the same and a WebSocket
client may resume by its sequence. The AEs of the export receive no events until everything is imported; then they
receive the waiting ones, in order. A crash at worst repeats events, because the stored cursors are those of the export
until the end.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Final

from ..core.events import Event
from ..core.numbers import Numbers
from ..core.subscriptions import Log
from ..core.workitem import Workitem
from ..delivery.documents import Batch, encode_batch
from ..delivery.queue import sequence_of
from ..store import keys
from ..store.documents import encode, encode_log
from ..store.port import Entry
from ..store.writer import Conflict
from ..worklist.commits import Commits
from ..worklist.loader import bursts, unsettled_events
from ..worklist.order import CREATIONS, SEQUENCES
from ..worklist.state import WorklistState
from .records import (
    ENTRY_EXISTS,
    IMPORTED,
    UNCHANGED,
    AeCursors,
    Head,
    ImportResult,
    Purged,
    Tail,
    compare,
    conflict,
    effective_subscriptions,
)

_log = logging.getLogger("orthanc_ups.worklist")
_CHUNK: Final = 50


class Restore:
    """Restores records unchanged, one at a time. Methods may raise StoreUnavailable, and can then be repeated."""

    def __init__(self, state: WorklistState, commits: Commits) -> None:
        self._state = state
        self._commits = commits
        self._logs: dict[str, Log] = {}
        self._flushed = True

    def is_possible(self, head: Head) -> bool:
        """True if this worklist is empty, or is being restored from the same worklist."""
        state = self._state
        if state.worklist_entry.restoring:
            return state.worklist_entry.restoring == head.identity
        return not (state.workitems.count() or state.workitems.tombstones or state.delivery.dead.endpoints())

    async def begin(self, head: Head) -> None:
        """Move the numbers here beyond those of the export, which may still grow. The caller holds the locks."""
        self._advance_numbers(head.next_sequence + SEQUENCES, head.next_creation + CREATIONS)
        worklist_entry = self._state.worklist_entry
        if worklist_entry.restoring != head.identity:
            await self._renumber()
        await worklist_entry.restore(head.identity, self._state.order.next, self._next_creation)

    async def _renumber(self) -> None:
        """Renumber the acts of AEs that are already subscribed, such as webhooks; they apply to no workitem yet."""
        state = self._state
        for log in state.subscriptions.logs():
            await self._commits.reserve(len(log.acts))
            ticket = state.order.take(len(log.acts))
            try:
                acts = tuple(
                    replace(act, sequence=number, through=0, matched=Numbers())
                    for number, act in enumerate(log.acts, ticket.first)
                )
                moved = replace(log, acts=acts, revision=log.revision + 1)
                key = keys.subscriber(log.receiving_ae)
                state.subscriptions.keep(moved, await state.writer.overwrite(key, encode_log(moved)))
            finally:
                state.order.give_up(ticket)

    @property
    def _next_creation(self) -> int:
        return self._commits.next_creation

    def _advance_numbers(self, next_sequence: int, next_creation: int) -> None:
        self._state.order.start_at(next_sequence)
        self._commits.next_creation = max(self._next_creation, next_creation)

    # --- subscribers ---

    async def log(self, log: Log) -> ImportResult:
        """Restore the global acts of an AE. They replace the acts here if both have the same effect."""
        subscriptions = self._state.subscriptions
        current = subscriptions.log(log.receiving_ae)
        if current.acts == log.acts:
            return UNCHANGED
        earlier = self._logs.get(log.receiving_ae)  # under another spelling of the AE title
        is_replaceable = not current.acts or (earlier is not None and earlier.acts == current.acts)
        if not is_replaceable and effective_subscriptions(current) != effective_subscriptions(log):
            return conflict("has subscriptions here, which are kept")
        last = max((act.sequence + act.through for act in log.acts), default=0)
        self._advance_numbers(last + 1, max((act.through for act in log.acts), default=0) + 1)
        version = subscriptions.version(log.receiving_ae)
        async with self._state.locks.everything():
            try:
                key = keys.subscriber(log.receiving_ae)
                subscriptions.keep(log, await self._state.writer.write(key, encode_log(log), version))
            except Conflict:
                return ENTRY_EXISTS
        self._logs[log.receiving_ae] = log
        return IMPORTED

    async def cursors(self, cursors: AeCursors) -> ImportResult:
        """Restore the cursors of an AE."""
        self._hold(cursors)
        return IMPORTED

    def _hold(self, cursors: AeCursors) -> None:
        self._state.delivery.hold(cursors.receiving_ae, cursors.channels)
        self._flushed = False

    # --- workitems ---

    async def workitem(self, workitem: Workitem) -> ImportResult | None:
        """Restore a workitem with its waiting events. Returns None if its creation number is in use."""
        state = self._state
        async with state.locks.workitem(workitem.uid):
            stored = state.workitems.get(workitem.uid)
            if stored is not None:
                return compare(stored.workitem, workitem)
            if state.workitems.is_gone(workitem.uid):
                return conflict("was purged here")
            if state.workitems.created(workitem.created - 1, workitem.created, 1):
                return None
            await self._prepare(workitem)
            return await self._write(workitem)

    async def _prepare(self, workitem: Workitem) -> None:
        """Store the cursors first, so that a crash after the workitem is written loses none of its events."""
        last = max((event.sequence for event in workitem.events), default=0)
        self._advance_numbers(last + 1, workitem.created + 1)
        await self._commits.reserve(0)
        for name in {name for event in workitem.events for name in event.receivers}:
            if self._state.delivery.held_from(name) is None:
                self._hold(AeCursors(name, {}))
        if not self._flushed:
            await self._state.delivery.flush()
            self._flushed = True

    async def _write(self, workitem: Workitem) -> ImportResult:
        workitem = await self._state.overflows.spill_all(workitem)
        document = encode(workitem)
        try:
            version = await self._state.writer.write(keys.workitem(workitem.uid), document, None)
        except Conflict:
            return ENTRY_EXISTS
        self._state.workitems.put(workitem, version, document)
        self._state.workitems.write_copy()
        self._state.subscriptions.note(workitem)
        return IMPORTED

    async def purged(self, purged: Purged) -> ImportResult:
        """Restore the tombstone of a purged workitem."""
        workitems = self._state.workitems
        async with self._state.locks.workitem(purged.uid):
            if workitems.is_gone(purged.uid):
                return UNCHANGED
            if workitems.get(purged.uid) is not None:
                return conflict("was purged in the exported worklist, but exists here and is kept")
            try:
                await workitems.tombstones.write(purged.uid, purged.last, None)
            except Conflict:
                return ENTRY_EXISTS
        return IMPORTED

    async def dead_letters(self, batch: Batch) -> ImportResult:
        """Restore events that were given up together."""
        dead, endpoint = self._state.delivery.dead, batch.endpoint
        sequences = dead.sequences(endpoint)
        letters = tuple(letter for letter in batch.letters if sequence_of(letter) not in sequences)
        if not letters:
            return UNCHANGED
        key = keys.dead_letters(endpoint.receiving_ae, endpoint.channel, sequence_of(letters[0]))
        document = encode_batch(replace(batch, letters=letters), 1)
        try:
            dead.load(Entry(key, document, await self._state.writer.write(key, document, None)))
        except Conflict:
            return ENTRY_EXISTS
        return IMPORTED

    # --- the end ---

    async def end(self, tail: Tail | None) -> None:
        """Deliver the waiting events: the import is complete, or (``tail`` is None) will not be completed."""
        if tail is not None:
            self._advance_numbers(tail.next_sequence, tail.next_creation)
            await self._state.worklist_entry.restore("", self._state.order.next, self._next_creation)
        state = self._state
        async with state.locks.everything():
            waiting = await self._waiting_events()
            state.workitems.record(waiting)
            state.delivery.take_in(waiting, bursts(list(state.subscriptions.logs())), state.order.next - 1)
        _log.info("The import has ended; the worklist has %d workitems", state.workitems.count())

    async def _waiting_events(self) -> list[Event]:
        """The events that may not have reached an AE of the export."""
        first = self._state.delivery.held_from()
        if first is None:
            return []
        workitems = []
        for count, workitem in enumerate(self._state.projection.with_events_after(first)):
            workitems.append(workitem)
            if count % _CHUNK == 0:
                await asyncio.sleep(0)
        return unsettled_events(iter(workitems), self._state.overflows.all())
