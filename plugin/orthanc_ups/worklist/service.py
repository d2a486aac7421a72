# SPDX-License-Identifier: AGPL-3.0-or-later
"""The worklist: the one door through which everything changes (PS3.4 Annex CC)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol, TypeVar

from ..core import statuses, tags
from ..core.commands import (
    SERVICE_OF,
    Command,
    Create,
    Purge,
    ReleaseLock,
    Requester,
    Subscribe,
    Suspend,
    Unsubscribe,
    WorkitemCommand,
)
from ..core.dataset import DataSet
from ..core.decide import Circumstances, Decision, decide
from ..core.events import Occurrence, state_report
from ..core.matching import Query
from ..core.statuses import Status, UpsError
from ..core.workitem import HistoryEntry, Subscription, Workitem
from ..outcome import Outcome, Page
from ..settings import Settings
from ..store.port import StoreUnavailable
from .commits import Commits
from .counters import Counters
from .gate import Gate
from .global_acts import GlobalActs
from .ledger import Ledger
from .shadow import Kept, Shadow
from .writer import Conflict

_log = logging.getLogger("orthanc_ups.worklist")
_TRIES: Final = 5
_WELL_KNOWN: Final = (tags.GLOBAL_SUBSCRIPTION, tags.FILTERED_SUBSCRIPTION)
_T = TypeVar("_T")


class ReceivingAes(Protocol):
    """Which AE titles can be told of events at all."""

    async def is_known(self, receiving_ae: str, requester: Requester) -> bool:
        """True if events can be sent to the AE: it has a DIMSE address, a webhook, or uses UPS-RS."""
        ...


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A decision, the specific act that goes with it, and what to count once it is written."""

    decision: Decision
    act: tuple[str, Subscription] | None = None
    counted: str | None = None


class Worklist:
    """Takes commands and queries. Lives on one asyncio loop; every method must be called there."""

    def __init__(
        self,
        settings: Settings,
        commits: Commits,
        shadow: Shadow,
        ledger: Ledger,
        global_acts: GlobalActs,
        gate: Gate,
        receiving_aes: ReceivingAes,
        now: Callable[[], datetime],
        counters: Counters,
    ) -> None:
        self._settings = settings
        self._commits = commits
        self._shadow = shadow
        self._ledger = ledger
        self._global_acts = global_acts
        self._gate = gate
        self._receiving_aes = receiving_aes
        self._now = now
        self._counters = counters
        self._running: set[asyncio.Task[Any]] = set()

    # --- commands ---

    async def execute(self, command: Command) -> Outcome:
        """Carry out a command. It is carried to its end even if the caller goes away.

        Raises UpsError if it is refused; then nothing has changed.
        """
        return await asyncio.shield(self._in_background(self._answered(command)))

    def _in_background(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # the caller has it, or went away: it is not lost news for the loop

    async def drain(self) -> None:
        """Wait until every running command has ended."""
        while self._running:
            await asyncio.gather(*self._running, return_exceptions=True)

    async def _answered(self, command: Command) -> Outcome:
        name = SERVICE_OF[type(command)].value.replace(" ", "_")
        try:
            outcome = await self._dispatched(command)
        except UpsError as error:
            self._counters.add(f"refused_{name}")
            _log.info("%s: %s of %s refused: %s", command.requester, name, command.uid, error.detail)
            raise
        except StoreUnavailable as error:
            self._counters.add(f"refused_{name}")
            _log.error("%s of %s not stored: %s", name, command.uid, error)
            raise UpsError(statuses.RESOURCE_LIMITATION, f"Orthanc cannot store it now: {error}") from error
        self._counters.add(f"accepted_{name}")
        return outcome

    async def _dispatched(self, command: Command) -> Outcome:
        if isinstance(command, (Subscribe, Unsubscribe, Suspend)):
            return await self._on_subscription(command)
        if isinstance(command, ReleaseLock):
            return await self._on_one(command.uid, command.requester, self._released(command))
        if isinstance(command, Purge):
            return await self._purged(command)
        return await self._on_one(command.uid, command.requester, self._decided(command))

    # --- one workitem ---

    async def _on_one(
        self, uid: str, requester: Requester, attempt: Callable[[Kept | None], _Attempt]
    ) -> Outcome:
        async with self._gate.workitem(uid):
            for _ in range(_TRIES):
                before = self._shadow.get(uid)
                planned = attempt(before)
                try:
                    return await self._carried_out(uid, requester, before, planned)
                except Conflict as conflict:
                    self._shadow.adopt(uid, conflict.entry)
        raise UpsError(statuses.PROCESSING_FAILURE, f"{uid} is changed by others all the time")

    def _decided(self, command: WorkitemCommand) -> Callable[[Kept | None], _Attempt]:
        def attempt(before: Kept | None) -> _Attempt:
            workitem = before.workitem if before else None
            self._check_not_gone(command.uid, before, is_create=isinstance(command, Create))
            watched = workitem is not None and bool(self._ledger.receivers(workitem))
            label = self._settings.worklist_label
            return _Attempt(decide(workitem, command, Circumstances(self._now(), label, watched)))

        return attempt

    def _check_not_gone(self, uid: str, before: Kept | None, *, is_create: bool) -> None:
        if is_create:
            if before is None and self._shadow.is_gone(uid):
                raise UpsError(statuses.DUPLICATE_INSTANCE, f"a UPS {uid} existed already")
            if before is None and self._shadow.count() >= self._settings.maximum_workitems:
                raise UpsError(statuses.RESOURCE_LIMITATION, "the worklist is full (Ups.MaximumWorkitems)")
        elif before is None:
            raise self._absent(uid)

    def _absent(self, uid: str) -> UpsError:
        return UpsError(statuses.GONE if self._shadow.is_gone(uid) else statuses.NO_SUCH_WORKITEM)

    async def _carried_out(
        self, uid: str, requester: Requester, before: Kept | None, planned: _Attempt
    ) -> Outcome:
        decision = planned.decision
        outcome = Outcome(decision.status, uid, decision.told, decision.details)
        if before is not None and decision.workitem is before.workitem and planned.act is None:
            return outcome
        entry = HistoryEntry(self._now().timestamp(), str(requester), decision.what)
        after = await self._commits.commit(
            before, decision.workitem, decision.occurrences, entry, planned.act
        )
        if planned.counted:
            self._counters.add(planned.counted)
        _log.info("%s: %s; workitem %s is %s", requester, decision.what, uid, after.state.value)
        if uid in self._commits.overflows:
            self._in_background(self._commits.sweep(uid))
        return outcome

    # --- subscriptions (PS3.4 CC.2.3) ---

    async def _on_subscription(self, command: Subscribe | Unsubscribe | Suspend) -> Outcome:
        if not command.receiving_ae:
            raise UpsError(statuses.INVALID_ARGUMENT, "Receiving AE (0074,1234) is empty", tags.RECEIVING_AE)
        if command.uid in _WELL_KNOWN:
            if isinstance(command, Subscribe):
                await self._check_known(command)
            return await self._globally(command)
        if isinstance(command, Suspend):
            detail = "only a global subscription can be suspended"
            raise UpsError(statuses.WRONG_ACTION, detail)
        if isinstance(command, Subscribe):
            await self._check_known(command)
            return await self._on_one(command.uid, command.requester, self._subscribed(command))
        return await self._on_one(command.uid, command.requester, self._unsubscribed(command))

    async def _check_known(self, command: Subscribe) -> None:
        if not await self._receiving_aes.is_known(command.receiving_ae, command.requester):
            detail = f"Receiving AE {command.receiving_ae} is not in DicomModalities"
            raise UpsError(statuses.UNKNOWN_RECEIVING_AE, detail, tags.RECEIVING_AE)

    async def _globally(self, command: Subscribe | Unsubscribe | Suspend) -> Outcome:
        async with self._gate.everything():
            return await self._global_acts.carry_out(command, self._now().timestamp())

    def _granted(self, lock: bool) -> tuple[Subscription, Status]:
        if lock and not self._settings.deletion_locks:
            return Subscription.NO_LOCK, statuses.LOCK_NOT_GRANTED
        return (Subscription.LOCK if lock else Subscription.NO_LOCK), statuses.SUCCESS

    def _subscribed(self, command: Subscribe) -> Callable[[Kept | None], _Attempt]:
        granted, status = self._granted(command.lock)

        def attempt(before: Kept | None) -> _Attempt:
            workitem = self._present(command.uid, before)
            report: tuple[Occurrence, ...] = (state_report(workitem.attributes, command.receiving_ae),)
            what = f"subscribed {command.receiving_ae} with {granted.value.replace('no lock', 'no Deletion Lock')}"
            decision = Decision(workitem, what, status, report)
            return _Attempt(decision, (command.receiving_ae, granted), "subscriptions_created")

        return attempt

    def _unsubscribed(self, command: Unsubscribe) -> Callable[[Kept | None], _Attempt]:
        def attempt(before: Kept | None) -> _Attempt:
            workitem = self._present(command.uid, before)
            if self._ledger.state(command.receiving_ae, workitem) is Subscription.NONE:
                return _Attempt(Decision(workitem, status=statuses.NO_SUCH_SUBSCRIPTION))
            decision = Decision(workitem, f"unsubscribed {command.receiving_ae}")
            return _Attempt(decision, (command.receiving_ae, Subscription.NONE), "subscriptions_removed")

        return attempt

    def _released(self, command: ReleaseLock) -> Callable[[Kept | None], _Attempt]:
        def attempt(before: Kept | None) -> _Attempt:
            workitem = self._present(command.uid, before)
            if self._ledger.state(command.receiving_ae, workitem) is not Subscription.LOCK:
                return _Attempt(Decision(workitem, status=statuses.NO_SUCH_SUBSCRIPTION))
            decision = Decision(workitem, f"released the Deletion Lock of {command.receiving_ae}")
            return _Attempt(decision, (command.receiving_ae, Subscription.NO_LOCK), "locks_released")

        return attempt

    def _present(self, uid: str, before: Kept | None) -> Workitem:
        if before is None:
            raise self._absent(uid)
        return before.workitem

    # --- forgetting (PS3.4 CC.1.1, retention) ---

    async def _purged(self, command: Purge) -> Outcome:
        async with self._gate.workitem(command.uid):
            kept = self._shadow.get(command.uid)
            workitem = self._present(command.uid, kept)
            self._check_purgeable(workitem)
            for overflow in list(self._commits.overflows.get(command.uid, ())):
                await self._commits.drop_overflow(command.uid, overflow)
            assert kept is not None
            await self._shadow.bury(kept, self._now().timestamp())
            self._ledger.forget(workitem)
            _log.info("%s: purged %s (%s)", command.requester, command.uid, workitem.state.value)
            return Outcome(statuses.SUCCESS, command.uid)

    def _check_purgeable(self, workitem: Workitem) -> None:
        if not workitem.state.is_final:
            raise UpsError(
                statuses.MAY_NOT_UPDATE, f"the UPS is {workitem.state.value}, not in a final state"
            )
        holders = self._ledger.lock_holders(workitem)
        if holders:
            raise UpsError(statuses.MAY_NOT_UPDATE, f"held by a Deletion Lock of {', '.join(holders)}")
        if self._commits.waits(workitem):
            raise UpsError(statuses.MAY_NOT_UPDATE, "events of it are not delivered yet")

    # --- queries ---

    async def retrieve(self, uid: str) -> DataSet:
        """The attributes of a workitem, without Transaction UID. Raises UpsError (C307; 404 or 410)."""
        kept = self._shadow.get(uid)
        if kept is None:
            raise self._absent(uid)
        return kept.workitem.attributes

    def find(self, query: Query) -> AsyncIterator[list[DataSet]]:
        """The answers of a C-FIND in chunks, with exactly the requested attributes (PS3.4 CC.2.8)."""
        return self._shadow.stream(query)

    async def search(
        self,
        query: Query,
        *,
        offset: int = 0,
        limit: int | None = None,
        include: frozenset[str] | None = None,
        all_fields: bool = False,
    ) -> Page:
        """One page of a search (PS3.18 §11.9) with its return attributes."""
        found, total = await self._shadow.search(query, offset, limit)
        chosen = tuple(query.select_with_returns(one, include, all_fields) for one in found)
        return Page(chosen, total, max(0, total - offset - len(chosen)))
