# SPDX-License-Identifier: AGPL-3.0-or-later
"""The worklist: every change goes through it (PS3.4 Annex CC)."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, Protocol, TypeVar

from ..core import statuses, tags
from ..core.ae_titles import InvalidAeTitle, valid_ae_title
from ..core.commands import (
    SERVICE_OF,
    ChangeState,
    Close,
    Command,
    Create,
    Purge,
    ReleaseLock,
    RequestCancel,
    Requester,
    Subscribe,
    Suspend,
    Unsubscribe,
)
from ..core.dataset import DataSet, items, text
from ..core.decide import Circumstances, Decidable, Decision, decide
from ..core.matching import Query
from ..core.outcome import WHOLE, Outcome, Page, Paging, T
from ..core.reasons import reason_of
from ..core.states import State, Transaction
from ..core.statuses import UpsError
from ..core.value_rules import DataSetLimits
from ..core.workitem import HistoryEntry, Subscription, Workitem
from ..store import keys
from ..store.port import StoreUnavailable
from ..store.writer import Conflict
from .commits import ATTEMPTS, Commits, conflicts_refusal
from .global_acts import GlobalActs
from .state import WorklistState
from .workitem_store import StoredWorkitem

_log = logging.getLogger("orthanc_ups.worklist")
_MAXIMUM_RUNNING: Final = 2_000
_ANSWER_WITHIN: Final = 30.0
_UNKNOWN: Final = "Orthanc's store does not answer; it is not known yet whether the request was carried out"
_T = TypeVar("_T")


class ReceivingAes(Protocol):
    """Which AE titles events can be sent to."""

    async def is_known(self, receiving_ae: str, requester: Requester) -> bool:
        """True if events can be sent to the AE: it has a DIMSE address, a webhook, or uses UPS-RS."""
        ...


class Outputs(Protocol):
    """Looks for the outputs of workitems in Orthanc."""

    async def missing(self, references: Sequence[DataSet]) -> Sequence[str]:
        """The referenced SOP Instance UIDs that should be in this Orthanc, but are not.

        ``references`` are items of Output Information Sequence. Raises StoreUnavailable.
        """
        ...


class Worklist:
    """Takes commands and queries. Lives on one asyncio loop; every method must be called there.

    Attributes:
        observers: called with each accepted command and its outcome; must be quick and never raise.
        outputs: looks for outputs before a workitem is completed; None unless ``Ups.CheckOutputs`` is set.
        maximum_running: how many commands may run at a time; more are refused (0213, 503).
        patience: how long a caller waits before it is answered that the outcome is not known yet (0110, 500).
    """

    def __init__(self, state: WorklistState, commits: Commits, receiving_aes: ReceivingAes) -> None:
        self._state = state
        self._commits = commits
        self._global_acts = GlobalActs(state, commits)
        self._receiving_aes = receiving_aes
        self._limits = DataSetLimits(state.settings.maximum_nesting)
        self._running: set[asyncio.Task[Any]] = set()
        self._closed = False
        self.observers: list[Callable[[Command, Outcome], None]] = []
        self.outputs: Outputs | None = None
        self.maximum_running = _MAXIMUM_RUNNING
        self.patience = Patience(_ANSWER_WITHIN)

    # --- commands ---

    async def execute(self, command: Command) -> Outcome:
        """Carry out a command. It is completed even if the caller is cancelled.

        Raises UpsError if it is refused; then nothing has changed. The exception is a store that does not answer in
        time: the error (0110) then says that the outcome is not known yet.
        """
        if self._closed:
            raise UpsError(statuses.RESOURCE_LIMITATION, "the worklist is shutting down")
        self._state.workitems.check()
        if self._state.writer.is_stuck or len(self._running) >= self.maximum_running:
            raise UpsError(statuses.RESOURCE_LIMITATION, "Orthanc's store does not answer; try again later")
        ending = self.patience.begin()
        task = self._in_background(self._carry_out(self._spelled(command), ending))
        if not await ending:
            raise UpsError(statuses.PROCESSING_FAILURE, _UNKNOWN)
        return task.result()

    async def _carry_out(self, command: Command, ending: asyncio.Future[bool]) -> Outcome:
        """Carry out a command, and set ``ending`` as the last step.

        A callback of the task would run one turn of the loop later.
        """
        name = SERVICE_OF[type(command)].value.replace(" ", "_")
        try:
            if isinstance(command, (Subscribe, Unsubscribe, Suspend)):
                outcome = await self._on_subscription(command)
            else:
                outcome = await self._on_workitem(command)
        except UpsError as error:
            self._state.counters[f"refused_{name}"] += 1
            _log.info("%s: %s of %s refused: %s", command.requester, name, command.uid, error.detail)
            raise
        except StoreUnavailable as error:
            self._state.counters[f"refused_{name}"] += 1
            _log.error("%s of %s not stored: %s", name, command.uid, error)
            raise UpsError(statuses.RESOURCE_LIMITATION, f"Orthanc cannot store it now: {error}") from error
        else:
            self._state.counters[f"accepted_{name}"] += 1
            for notify in self.observers:
                notify(command, outcome)
            return outcome
        finally:
            if not ending.done():
                ending.set_result(True)

    def _spelled(self, command: Command) -> Command:
        """The command with each AE title in the spelling that is used throughout."""
        requester = command.requester
        ae = self._state.titles.spelled(requester.ae)
        if ae != requester.ae:
            command = replace(command, requester=replace(requester, ae=ae))
        if isinstance(command, (Subscribe, Unsubscribe, Suspend, ReleaseLock)):
            receiving_ae = self._state.titles.spelled(command.receiving_ae)
            if receiving_ae != command.receiving_ae:
                command = replace(command, receiving_ae=receiving_ae)
        return command

    def _in_background(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Start a task. From Python 3.12 on it runs at once until it first waits."""
        loop = asyncio.get_running_loop()
        if sys.version_info >= (3, 12):
            task = asyncio.Task(work, loop=loop, eager_start=True)
        else:
            task = loop.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # so that asyncio does not log it: the caller has it, or was cancelled

    async def close(self, within: float) -> None:
        """Accept no more commands, and wait at most ``within`` seconds for the running ones to end.

        They are not cancelled, because it would be unknown whether their writes arrived.
        """
        self._closed = True
        if self._running:
            await asyncio.wait(set(self._running), timeout=within)

    # --- one workitem ---

    async def _on_workitem(self, command: Decidable) -> Outcome:
        """Decide and write while holding the workitem; start over if something outside the plugin changed its entry."""
        uid, workitems = command.uid, self._state.workitems
        async with self._state.locks.workitem(uid):
            for _ in range(ATTEMPTS):
                before = workitems.get(uid)
                workitem = before.workitem if before else None
                circumstances = self._circumstances(command, workitem)
                if self.outputs is not None and workitem is not None:
                    missing = await self._missing_outputs(self.outputs, command, workitem)
                    circumstances = replace(circumstances, missing_outputs=missing)
                decision = decide(workitem, command, circumstances)
                try:
                    return await self._write(command, before, decision, circumstances.now)
                except Conflict as conflict:
                    workitems.adopt(uid, conflict.entry)
                    adopted = workitems.get(uid)
                    if adopted is not None:
                        self._commits.adopt(adopted.workitem)
            raise conflicts_refusal(keys.workitem(uid))

    def _circumstances(self, command: Decidable, workitem: Workitem | None) -> Circumstances:
        """What the rules for this command need to know besides the workitem."""
        state, settings = self._state, self._state.settings
        circumstances = Circumstances(
            state.now(),
            settings.worklist_label,
            limits=self._limits,
            strict=settings.strict,
            deletion_locks=settings.deletion_locks,
        )
        if workitem is None:
            return replace(
                circumstances,
                purged=state.workitems.is_gone(command.uid),
                is_full=isinstance(command, Create) and state.workitems.count() >= settings.maximum_workitems,
                inherited=self._inherited(command),
            )
        if isinstance(command, RequestCancel):
            return replace(circumstances, watched=bool(state.subscriptions.receivers(workitem)))
        if isinstance(command, (Unsubscribe, ReleaseLock)):
            subscription = state.subscriptions.state(command.receiving_ae, workitem)
            return replace(circumstances, subscription=subscription)
        if isinstance(command, Purge):
            return replace(
                circumstances,
                lock_holders=state.subscriptions.lock_holders(workitem),
                is_undelivered=self._commits.has_undelivered(workitem),
            )
        return circumstances

    def _inherited(self, command: Decidable) -> tuple[tuple[str, Subscription], ...]:
        """The subscribers of the workitems that a new one replaces, unless their global subscription covers it."""
        if not isinstance(command, Create) or not self._state.settings.inherit_subscribers:
            return ()
        subscriptions = self._state.subscriptions
        inherited: dict[str, Subscription] = {}
        for item in items(command.attributes, tags.REPLACED):
            replaced = self._state.workitems.get(text(item, tags.REFERENCED_INSTANCE))
            inherited.update(
                (ae, state)
                for ae, state in (subscriptions.subscribers(replaced.workitem) if replaced else ())
                if state not in (Subscription.NONE, subscriptions.standing(ae).everything)
            )
        return tuple(sorted(inherited.items()))

    @staticmethod
    async def _missing_outputs(outputs: Outputs, command: Decidable, workitem: Workitem) -> tuple[str, ...]:
        """If the command completes the workitem: the outputs that should be in this Orthanc but are not."""
        content = workitem.attributes
        if isinstance(command, Close):
            content = {**content, **command.attributes}
        elif (
            not isinstance(command, ChangeState)
            or workitem.compare(command.transaction) is not Transaction.RIGHT
        ):
            return ()
        if command.state != State.COMPLETED.value or workitem.state is not State.IN_PROGRESS:
            return ()
        procedures = items(content, tags.PERFORMED_PROCEDURE)
        references = [item for procedure in procedures for item in items(procedure, tags.OUTPUTS)]
        return tuple(await outputs.missing(references))

    async def _write(
        self, command: Decidable, before: StoredWorkitem | None, decision: Decision, now: datetime
    ) -> Outcome:
        """Carry out what was decided. Raises Conflict or StoreUnavailable."""
        uid = command.uid
        workitems = (before.workitem, decision.workitem) if before else (decision.workitem,)
        why = reason_of(command, *workitems)
        outcome = Outcome(decision.status, uid, decision.modified, decision.details, why)
        entry = HistoryEntry(now.timestamp(), str(command.requester), decision.what, why)
        if isinstance(command, Purge):
            assert before is not None
            await self._commits.purge(before, entry)
            return outcome
        if before is not None and decision.workitem is before.workitem and decision.act is None:
            return outcome
        acts = (*((decision.act,) if decision.act else ()), *decision.inherited)
        after = await self._commits.commit(before, decision.workitem, decision.occurrences, entry, acts)
        if decision.counter:
            self._state.counters[decision.counter] += 1
        _log.info("%s: %s; workitem %s is %s", command.requester, decision.what, uid, after.state.value)
        if self._state.overflows.of(uid):
            self._in_background(self._state.overflows.sweep_workitem(uid))
        return outcome

    # --- subscriptions (PS3.4 CC.2.3) ---

    async def _on_subscription(self, command: Subscribe | Unsubscribe | Suspend) -> Outcome:
        # An AE that subscribed before titles were checked may still unsubscribe.
        if not self._state.titles.is_in_use(command.receiving_ae):
            _check_ae_title(command.receiving_ae)
        is_global = command.uid in tags.WELL_KNOWN
        if isinstance(command, Suspend) and not is_global:
            raise UpsError(statuses.WRONG_ACTION, "only a global subscription can be suspended")
        if isinstance(command, Subscribe):
            await self._check_receiving_ae(command)
            command = replace(command, receiving_ae=self._state.titles.use(command.receiving_ae))
        if is_global or isinstance(command, Suspend):
            async with self._state.locks.everything():
                outcome = await self._global_acts.carry_out(command, self._state.now().timestamp())
        else:
            outcome = await self._on_workitem(command)
        # An AE that is no longer known may still unsubscribe.
        if outcome.status is statuses.NO_SUCH_SUBSCRIPTION:
            await self._check_receiving_ae(command)
        return outcome

    async def _check_receiving_ae(self, command: Subscribe | Unsubscribe | Suspend) -> None:
        if not await self._receiving_aes.is_known(command.receiving_ae, command.requester):
            detail = f"Receiving AE {command.receiving_ae} is not in DicomModalities"
            raise UpsError(statuses.UNKNOWN_RECEIVING_AE, detail, tags.RECEIVING_AE)

    # --- queries ---

    def workitem(self, uid: str) -> Workitem:
        """A workitem with its history, events and acts. Raises UpsError (C307; 404 or 410)."""
        return self._existing(uid, self._state.workitems.get(uid)).workitem

    def _existing(self, uid: str, value: T | None) -> T:
        if value is None:
            purged = self._state.workitems.is_gone(uid)
            raise UpsError(statuses.GONE if purged else statuses.NO_SUCH_WORKITEM)
        return value

    async def retrieve(self, uid: str) -> DataSet:
        """The attributes of a workitem, without Transaction UID. Raises UpsError (C307; 404 or 410)."""
        return self.workitem(uid).attributes

    def document_of(self, uid: str) -> bytes:
        """The stored document of a workitem, which differs after each change. Raises UpsError (C307; 404 or 410)."""
        return self._existing(uid, self._state.workitems.document(uid))

    def text_of(self, uid: str) -> bytes:
        """The attributes of a workitem as JSON (core/dataset.py). Raises UpsError (C307; 404 or 410)."""
        return self._existing(uid, self._state.workitems.text(uid))

    def find(self, query: Query) -> AsyncIterator[list[DataSet]]:
        """The answers of a C-FIND in chunks, with exactly the requested attributes (PS3.4 CC.2.8)."""
        return self._state.workitems.stream(query)

    async def search(self, query: Query, paging: Paging = WHOLE) -> Page[DataSet]:
        """One page of a search (PS3.18 §11.9) with its return attributes."""
        returns = query.returns(paging.include, paging.everything)
        matches, total = await self._state.workitems.search(query, paging.offset, paging.limit)
        return _page(tuple(map(returns.of, matches)), total, paging)

    async def search_texts(self, query: Query, paging: Paging = WHOLE) -> Page[bytes]:
        """As ``search``, but each workitem as JSON (core/dataset.py)."""
        returns = query.returns(paging.include, paging.everything)
        matches, total = await self._state.workitems.search_texts(query, paging.offset, paging.limit, returns)
        return _page(tuple(matches), total, paging)


def _page(matches: tuple[T, ...], total: int, paging: Paging) -> Page[T]:
    return Page(matches, total, max(0, total - paging.offset - len(matches)))


def _check_ae_title(receiving_ae: str) -> None:
    try:
        valid_ae_title(receiving_ae)
    except InvalidAeTitle as error:
        detail = f"Receiving AE (0074,1234): {error}"
        raise UpsError(statuses.INVALID_ARGUMENT, detail, tags.RECEIVING_AE) from error


class Patience:
    """Waits with a time limit, which is the same for all, so that a single timer suffices. Lives on one loop.

    Attributes:
        seconds: the limit.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._waiting: deque[tuple[float, asyncio.Future[bool]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> asyncio.Future[bool]:
        """A future to wait for. The work sets it to True when it ends; it becomes False after ``seconds``."""
        loop = asyncio.get_running_loop()
        ending: asyncio.Future[bool] = loop.create_future()
        while self._waiting and self._waiting[0][1].done():
            self._waiting.popleft()
        self._waiting.append((loop.time() + self.seconds, ending))
        if self._timer is None:
            self._timer = loop.call_later(self.seconds, self._end_overdue)
        return ending

    def _end_overdue(self) -> None:
        """End the waits whose time is up. The first in the queue is always the next to end."""
        loop, self._timer = asyncio.get_running_loop(), None
        while self._waiting:
            until, ending = self._waiting[0]
            if not ending.done() and until > loop.time():
                self._timer = loop.call_at(until, self._end_overdue)
                return
            self._waiting.popleft()
            if not ending.done():
                ending.set_result(False)
