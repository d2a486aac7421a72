# SPDX-License-Identifier: AGPL-3.0-or-later
"""Acts on the Global and the Filtered Global Subscription: one write each (PS3.4 CC.2.3)."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Final

from ..core import statuses, tags
from ..core.commands import Subscribe, Suspend, Unsubscribe
from ..core.dictionary import path_name
from ..core.matching import Query
from ..core.numbers import Numbers
from ..core.outcome import Outcome
from ..core.reasons import reason_of
from ..core.statuses import Status, UpsError
from ..core.subscriptions import MAXIMUM_ACTS, ActKind, GlobalAct, filters_taken
from ..core.workitem import Subscription
from ..delivery.port import Burst
from ..store import keys
from ..store.documents import UnreadableDocument, decode_log, encode_log
from ..store.port import Entry
from ..store.writer import Conflict
from .commits import ATTEMPTS, Commits, conflicts_refusal
from .loader import slowest_cursor
from .state import WorklistState

_log = logging.getLogger("orthanc_ups.worklist")
_LONG: Final = 50  # acts


class GlobalActs:
    """Carries out global acts. The caller holds the locks, so nothing else is running."""

    def __init__(self, state: WorklistState, commits: Commits) -> None:
        self._state = state
        self._commits = commits

    async def carry_out(self, command: Subscribe | Unsubscribe | Suspend, at: float) -> Outcome:
        """Write the act into the AE's log and start the initial reports. Raises UpsError."""
        filtered = command.uid == tags.FILTERED_SUBSCRIPTION
        if not isinstance(command, Subscribe) and not self._has_subscription(command, filtered):
            return Outcome(statuses.NO_SUCH_SUBSCRIPTION, command.uid)
        kind, status = self._kind(command)
        act = GlobalAct(0, kind, self._commits.next_creation - 1, filtered, at=at)
        if filtered:
            act = await self._with_matches(act, command)
        await self._write(command.receiving_ae, act)
        counters = {ActKind.UNSUBSCRIBE: "subscriptions_removed", ActKind.SUSPEND: "subscriptions_suspended"}
        self._state.counters[counters.get(kind, "subscriptions_created")] += 1
        name = "filtered" if filtered else "global"
        why = reason_of(command)
        reason = f" ({why})" if why else ""
        _log.info("%s: %s (%s) for %s%s", command.requester, kind.value, name, command.receiving_ae, reason)
        return Outcome(status, command.uid, reason=why)

    def _has_subscription(self, command: Unsubscribe | Suspend, filtered: bool) -> bool:
        standing = self._state.subscriptions.standing(command.receiving_ae)
        if filtered:
            suspended = standing.suspended if isinstance(command, Unsubscribe) else ()
            return bool(standing.filters or suspended)
        if isinstance(command, Suspend):
            return standing.everything is not Subscription.NONE
        return self._state.subscriptions.is_subscribed(command.receiving_ae)

    def _kind(self, command: Subscribe | Unsubscribe | Suspend) -> tuple[ActKind, Status]:
        if isinstance(command, Unsubscribe):
            return ActKind.UNSUBSCRIBE, statuses.SUCCESS
        if isinstance(command, Suspend):
            return ActKind.SUSPEND, statuses.SUCCESS
        if command.lock and not self._state.settings.deletion_locks:
            return ActKind.NO_LOCK, statuses.LOCK_NOT_GRANTED
        return (ActKind.LOCK if command.lock else ActKind.NO_LOCK), statuses.SUCCESS

    async def _with_matches(self, act: GlobalAct, command: Subscribe | Unsubscribe | Suspend) -> GlobalAct:
        """The act with the existing workitems that its filter matches: a filter is applied to each workitem once."""
        if not isinstance(command, Subscribe):
            numbers = filters_taken(self._state.subscriptions.log(command.receiving_ae))
            return replace(act, matched=numbers)
        query = self._query(command)
        try:
            numbers = Numbers.of(await self._state.workitems.numbers(query))
        except UpsError as error:
            if error.status is statuses.OUT_OF_RESOURCES:  # a status of C-FIND
                raise UpsError(statuses.RESOURCE_LIMITATION, error.detail) from error
            raise
        return replace(act, filter=command.filter, mechanisms=command.mechanisms, matched=numbers)

    def _query(self, command: Subscribe) -> Query:
        try:
            query = self._state.subscriptions.query(command.filter or {}, command.mechanisms)
        except UpsError as error:
            raise error.under(statuses.INVALID_ARGUMENT) from error
        if not query.has_matching_keys:
            detail = "a Filtered Global Subscription needs matching keys that a UPS has"
            raise UpsError(statuses.INVALID_ARGUMENT, detail)
        if query.unsupported:
            names = ", ".join(map(path_name, query.unsupported))
            _log.warning("A filter of %s has keys that no UPS has; not used: %s", command.receiving_ae, names)
        return query

    async def _write(self, receiving_ae: str, act: GlobalAct) -> None:
        reports = act.through if act.kind is ActKind.LOCK else 0
        await self._commits.reserve(1 + reports)
        ticket = self._state.order.take(1 + reports)
        try:  # as in Commits: a cancelled write leaves its ticket open
            act = replace(act, sequence=ticket.first)
            await self._append(receiving_ae, act)
        except Exception:
            self._state.order.give_up(ticket)
            raise
        self._state.order.settle(ticket, ())
        if reports:
            self._state.delivery.offer([Burst(receiving_ae, act.sequence, act.through, act.sequence, act.at)])
        elif act.kind is ActKind.UNSUBSCRIBE and not act.filtered:
            self._state.delivery.forget(receiving_ae)

    async def _append(self, receiving_ae: str, act: GlobalAct) -> None:
        subscriptions, key = self._state.subscriptions, keys.subscriber(receiving_ae)

        for _ in range(ATTEMPTS):
            log = subscriptions.with_act(receiving_ae, act, self._may_compact(receiving_ae))
            if act.kind.subscribes and len(log.acts) > MAXIMUM_ACTS:
                detail = f"{receiving_ae} has {MAXIMUM_ACTS} global subscriptions; unsubscribe globally first"
                raise UpsError(statuses.RESOURCE_LIMITATION, detail)
            version = subscriptions.version(receiving_ae)
            try:
                version = await self._state.writer.write(key, encode_log(log), version)
            except Conflict as conflict:
                self._adopt(receiving_ae, conflict.entry)
            else:
                subscriptions.keep(log, version)
                return
        raise conflicts_refusal(key)

    def _may_compact(self, receiving_ae: str) -> bool:
        """True if acts that a later one repeats may be dropped.

        Which initial reports an act owes is derived from the acts before it, which therefore remain until a stored
        cursor says that the reports were delivered. A long log is compacted earlier; then reports may be sent twice
        after a crash.
        """
        acts = self._state.subscriptions.log(receiving_ae).acts
        if len(acts) >= _LONG:
            return not self._state.delivery.has_burst(receiving_ae)
        last = max((act.sequence + act.through for act in acts if act.kind is ActKind.LOCK), default=0)
        key = keys.progress(receiving_ae)
        stored = (entry for entry in self._state.delivery.stored() if entry.key == key)
        return len(acts) > 1 and slowest_cursor(stored, [receiving_ae]) >= last

    def _adopt(self, receiving_ae: str, entry: Entry | None) -> None:
        """Something outside the plugin changed the log: take it over if it is readable, else write it back."""
        last = self._state.subscriptions.log(receiving_ae)
        if entry is None:
            _log.error("The subscriptions of %s vanished from the store; writing them back", receiving_ae)
            self._state.subscriptions.keep(last, None)
            return
        try:
            log = decode_log(entry.document)
        except UnreadableDocument as error:
            _log.error("The subscriptions of %s are corrupt (%s); writing them back", receiving_ae, error)
            log = last
        if log.receiving_ae != receiving_ae:
            log = last
        _log.warning("The subscriptions of %s were changed by somebody else", receiving_ae)
        self._state.subscriptions.keep(log, entry.version)
