# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the management API is built on, in memory: real rules, but fake storage and peers."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from orthanc_ups.core import statuses, tags
from orthanc_ups.core.commands import (
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
    Update,
)
from orthanc_ups.core.dataset import text
from orthanc_ups.core.date_times import UTC as UTC_OFFSET
from orthanc_ups.core.decide import Circumstances, decide
from orthanc_ups.core.events import Event, EventType, Occurrence
from orthanc_ups.core.free_text import fits
from orthanc_ups.core.lateness import late_kinds
from orthanc_ups.core.matching import Query
from orthanc_ups.core.numbers import Numbers
from orthanc_ups.core.outcome import Outcome
from orthanc_ups.core.person_names import fold
from orthanc_ups.core.reasons import reason_of
from orthanc_ups.core.statuses import UpsError
from orthanc_ups.core.subscriptions import ActKind, GlobalAct, Log, appended, subscribed
from orthanc_ups.core.workitem import (
    HistoryEntry,
    SpecificAct,
    Subscription,
    Workitem,
    claim_of,
    claimer_of,
)
from orthanc_ups.delivery.dead_letters import DeadLetter
from orthanc_ups.delivery.management import EndpointReport
from orthanc_ups.delivery.port import Endpoint, Unreachable
from orthanc_ups.management.activity import Activity
from orthanc_ups.management.ports import DeliveryState, Listener, Listing, ServerFacts, SubscriberSummary
from orthanc_ups.management.views import row
from orthanc_ups.projection.narrowing import Narrowing
from orthanc_ups.worklist.late_watch import LateSummary
from orthanc_ups.worklist.workitem_store import ChangeFeed, Changes

_T = TypeVar("_T")
_WELL_KNOWN = (tags.GLOBAL_SUBSCRIPTION, tags.FILTERED_SUBSCRIPTION)
_RANKS = {"HIGH": 1, "MEDIUM": 2, "LOW": 3, "SCHEDULED": 1, "IN PROGRESS": 2, "COMPLETED": 3, "CANCELED": 4}
_ORDER_TAGS = {
    "modified": tags.MODIFICATION,
    "state": tags.STATE,
    "priority": tags.PRIORITY,
    "label": tags.LABEL,
    "worklist": tags.WORKLIST_LABEL,
    "start": tags.START,
}


class FakeClock:
    """A clock that stands still until a test moves it; UIDs count up."""

    def __init__(self, at: datetime = datetime(2026, 11, 22, 18, 30, tzinfo=UTC)) -> None:
        self.at = at
        self._passed = 0.0
        self._uids = itertools.count(1)

    def now(self) -> datetime:
        return self.at

    def new_uid(self) -> str:
        return f"2.25.{1000 + next(self._uids)}"

    def monotonic(self) -> float:
        """Seconds that have passed, even if the clock was set back."""
        return self._passed

    def pass_by(self, **span: float) -> None:
        self.at += timedelta(**span)
        self._passed += timedelta(**span).total_seconds()

    def set_back(self, **span: float) -> None:
        """Set the clock back, as an administrator could."""
        self.at -= timedelta(**span)


class FakeWorklist:
    """Executes commands in memory, and answers what the management API asks of a worklist."""

    def __init__(self, clock: FakeClock, known_aes: Collection[str] = ("RIS", "AI", "PACS")) -> None:
        self.clock = clock
        self.known_aes = known_aes
        self.workitems: dict[str, Workitem] = {}
        self.logs: dict[str, Log] = {}
        self.event_logs: dict[str, list[Event]] = {}
        self.fates: dict[tuple[int, str], DeliveryState] = {}
        self.commands: list[Command] = []
        self.feed = ChangeFeed()
        self.counted: Counter[str] = Counter()
        self._sequences = itertools.count(1)

    # --- commands ---

    async def execute(self, command: Command) -> Outcome:
        self.commands.append(command)
        if isinstance(command, (Subscribe, Unsubscribe, Suspend)) and command.uid in _WELL_KNOWN:
            return self._globally(command)
        if isinstance(command, (Subscribe, Unsubscribe, ReleaseLock)):
            return self._specifically(command)
        if isinstance(command, Purge):
            return self._purge(command)
        assert isinstance(command, (Create, Update, ChangeState, RequestCancel, Close))
        before = self.workitems.get(command.uid)
        watched = before is not None and bool(self.subscribers(before))
        decision = decide(before, command, Circumstances(self.clock.now(), "DEFAULT", watched))
        workitems = (before, decision.workitem) if before else (decision.workitem,)
        why = reason_of(command, *workitems)
        if decision.workitem is not before:
            created = before.created if before else len(self.workitems) + 1
            after = replace(decision.workitem, created=created)
            self._keep(after, command.requester, decision.what, why, decision.occurrences)
            self.counted[_COUNTED[type(command)]] += 1
        return Outcome(decision.status, command.uid, decision.modified, decision.details, why)

    def _keep(
        self,
        workitem: Workitem,
        who: Requester,
        what: str,
        why: str = "",
        occurrences: Sequence[Occurrence] = (),
    ) -> None:
        now = self.clock.now().timestamp()
        everyone = tuple(ae for ae, _ in self.subscribers(workitem))
        reports = [
            (occurrence, (occurrence.only,) if occurrence.only else everyone) for occurrence in occurrences
        ]
        events = [
            Event(next(self._sequences), event.type, workitem.uid, event.information, receivers, now)
            for event, receivers in reports
            if receivers
        ]
        history = (*workitem.history, HistoryEntry(now, str(who), what, why))
        self.workitems[workitem.uid] = replace(workitem, history=history)
        self.event_logs.setdefault(workitem.uid, []).extend(events)
        self.feed.note(workitem.uid)

    def _globally(self, command: Subscribe | Unsubscribe | Suspend) -> Outcome:
        self._check_known(command)
        filtered = command.uid == tags.FILTERED_SUBSCRIPTION
        keys = command.filter if isinstance(command, Subscribe) and filtered else None
        query = Query.of(keys or {})
        matched = Numbers.of(
            workitem.created
            for workitem in self.workitems.values()
            if filtered and query.matches(workitem.attributes)
        )
        kind = ActKind.UNSUBSCRIBE if isinstance(command, Unsubscribe) else ActKind.SUSPEND
        if isinstance(command, Subscribe):
            kind = ActKind.LOCK if command.lock else ActKind.NO_LOCK
        now = self.clock.now().timestamp()
        act = GlobalAct(next(self._sequences), kind, len(self.workitems), filtered, keys, matched, now)
        log = self.logs.get(command.receiving_ae, Log(command.receiving_ae))
        self.logs[command.receiving_ae] = appended(log, act)
        return Outcome(statuses.SUCCESS, command.uid)

    def _specifically(self, command: Subscribe | Unsubscribe | ReleaseLock) -> Outcome:
        workitem = self._workitem(command.uid)
        self._check_known(command)
        state = Subscription.NO_LOCK
        if isinstance(command, Unsubscribe):
            state = Subscription.NONE
        elif isinstance(command, Subscribe) and command.lock:
            state = Subscription.LOCK
        if isinstance(command, ReleaseLock) and (command.receiving_ae, Subscription.LOCK) not in (
            self.subscribers(workitem)
        ):
            return Outcome(statuses.NO_SUCH_SUBSCRIPTION, command.uid)
        act = SpecificAct(next(self._sequences), state, self.clock.now().timestamp())
        changed = replace(workitem, acts={**workitem.acts, command.receiving_ae: act})
        why = reason_of(command, workitem)
        self._keep(changed, command.requester, f"{command.receiving_ae}: {state.value}", why)
        return Outcome(statuses.SUCCESS, command.uid)

    def _check_known(self, command: Subscribe | Unsubscribe | Suspend | ReleaseLock) -> None:
        if isinstance(command, Subscribe) and command.receiving_ae not in self.known_aes:
            detail = f"Receiving AE {command.receiving_ae} is not in DicomModalities"
            raise UpsError(statuses.UNKNOWN_RECEIVING_AE, detail, tags.RECEIVING_AE)

    def _purge(self, command: Purge) -> Outcome:
        workitem = self._workitem(command.uid)
        if not workitem.state.is_final:
            raise UpsError(
                statuses.MAY_NOT_UPDATE, f"the UPS is {workitem.state.value}, not in a final state"
            )
        del self.workitems[command.uid]
        self.feed.note(command.uid)
        return Outcome(statuses.SUCCESS, command.uid)

    # --- looking ---

    def _workitem(self, uid: str) -> Workitem:
        if uid not in self.workitems:
            raise UpsError(statuses.NO_SUCH_WORKITEM)
        return self.workitems[uid]

    async def workitem(self, uid: str) -> Workitem:
        return self._workitem(uid)

    def subscribers(self, workitem: Workitem) -> list[tuple[str, Subscription]]:
        ae_titles = {*self.logs, *workitem.acts}
        result = [(ae, subscribed(self.logs.get(ae, Log(ae)), workitem)) for ae in sorted(ae_titles)]
        return [(ae, state) for ae, state in result if state is not Subscription.NONE]

    def subscriber_aes(self) -> list[str]:
        specific = {ae for workitem in self.workitems.values() for ae in workitem.acts}
        return sorted({*self.logs, *specific})

    def subscriber(self, ae: str) -> SubscriberSummary:
        states = [state for _, state in self._specific(ae)]
        return SubscriberSummary(self.logs.get(ae, Log(ae)), len(states), states.count(Subscription.LOCK))

    def _specific(self, ae: str) -> list[tuple[str, Subscription]]:
        acts = [
            (uid, workitem.acts[ae].state) for uid, workitem in self.workitems.items() if ae in workitem.acts
        ]
        return [(uid, state) for uid, state in acts[::-1] if state is not Subscription.NONE]

    def specific(self, ae: str, offset: int, limit: int) -> list[tuple[str, Subscription]]:
        return self._specific(ae)[offset : offset + limit]

    def _found(self, listing: Listing) -> list[Workitem]:
        return [
            workitem
            for workitem in self.workitems.values()
            if listing.query.matches(workitem.attributes)
            and fits(workitem.attributes, listing.words)
            and self._is_left(workitem, listing.narrowing)
        ]

    def _is_left(self, workitem: Workitem, narrowing: Narrowing) -> bool:
        now, claim = self.clock.now().timestamp(), claim_of(workitem)
        kinds = late_kinds(workitem, narrowing.policy, now, UTC_OFFSET)
        tests = (
            not narrowing.late or bool(narrowing.late & set(kinds)),
            not narrowing.claimers or claimer_of(workitem) in narrowing.claimers,
            _is_within(claim.at if claim else None, narrowing.claimed),
            _is_within(workitem.ended, narrowing.ended),
            _is_within(claim.duration if claim else None, narrowing.duration),
        )
        return all(tests)

    async def tally(self, listing: Listing) -> dict[str, int]:
        return dict(Counter(workitem.state.value for workitem in self._found(listing)))

    async def late(self) -> LateSummary:
        return LateSummary()

    async def names(self, column: str) -> list[tuple[str, int, Workitem | None]]:
        named = [
            (claimer_of(workitem), workitem)
            for workitem in self.workitems.values()
            if column == "claimer" and claimer_of(workitem)
        ]
        counted = Counter(name for name, _ in named)
        return [(name, count, dict(named)[name]) for name, count in counted.most_common()]

    async def page(self, listing: Listing) -> tuple[list[Workitem], int]:
        result = self._found(listing)
        result.sort(
            key=lambda workitem: (_sort_key(workitem, listing.order), workitem.created),
            reverse=listing.descending,
        )
        result.sort(key=lambda workitem: not _shown(workitem, listing.order))
        return result[listing.offset : listing.offset + listing.limit], len(result)

    async def walk(
        self, listing: Listing, form: Callable[[Workitem], _T]
    ) -> tuple[AsyncIterator[list[_T]], int]:
        workitems, total = await self.page(listing)

        async def some() -> AsyncIterator[list[_T]]:
            for at in range(0, len(workitems), 2):
                yield [form(workitem) for workitem in workitems[at : at + 2]]

        return some(), total

    async def counts(self) -> list[tuple[str, str, int]]:
        counted = Counter(
            (text(workitem.attributes, tags.WORKLIST_LABEL), workitem.state.value)
            for workitem in self.workitems.values()
        )
        return [(label, state, count) for (label, state), count in counted.items()]

    async def event_log(self, uid: str) -> list[Event]:
        self._workitem(uid)
        return self.event_logs.get(uid, [])

    def delivered(self, event: Event, ae: str) -> DeliveryState:
        return self.fates.get((event.sequence, ae), "delivered")

    def changes(self, since: int) -> Changes:
        return self.feed.since(since)


def _is_within(number: float | None, span: tuple[float, float] | None) -> bool:
    return span is None or (number is not None and span[0] <= number <= span[1])


_COUNTED: Mapping[type, str] = {
    Create: "accepted_create",
    Update: "accepted_update",
    ChangeState: "accepted_change_state",
    Close: "accepted_change_state",
    RequestCancel: "accepted_request_cancellation",
}


def _shown(workitem: Workitem, order: str) -> Any:
    """The value of a column that sorts empty values last; true for other columns."""
    shown: Mapping[str, Any] = row(workitem, UTC)
    if order == "progress":
        return shown["progress"]["percent"] is not None
    return shown[f"{order}s"] if order in ("station", "performer") else True


def _sort_key(workitem: Workitem, order: str) -> Any:
    shown: Mapping[str, Any] = row(workitem, UTC)
    if order == "progress":
        return shown["progress"]["percent"] or 0.0
    if order in ("station", "performer"):
        return fold(next(iter(shown[f"{order}s"]), ""))
    if order == "patient":
        names = workitem.attributes.get(tags.PATIENT_NAME, {}).get("Value") or [{}]
        return fold(names[0].get("Alphabetic", ""))
    if order in _ORDER_TAGS:
        result = text(workitem.attributes, _ORDER_TAGS[order])
        return _RANKS.get(result, 0) if order in ("state", "priority") else result
    return workitem.created


class FakeDelivery:
    """Delivery with reports that a test sets."""

    def __init__(self) -> None:
        self.reports: list[EndpointReport] = []
        self.letters: list[DeadLetter] = []
        self.done: list[tuple[Any, ...]] = []

    def report(self, receiving_ae: str | None = None) -> list[EndpointReport]:
        return [report for report in self.reports if receiving_ae in (None, report.endpoint.receiving_ae)]

    def retry_now(self, receiving_ae: str) -> None:
        self.done.append(("retry", receiving_ae))

    async def drop(self, receiving_ae: str, sequences: Collection[int] | None = None) -> int:
        self.done.append(("drop", receiving_ae, sequences))
        return sum(log.pending for log in self.report(receiving_ae))

    def resend(self, receiving_ae: str, first: int, last: int) -> None:
        self.done.append(("resend", receiving_ae, first, last))

    def send_test_event(self, receiving_ae: str) -> int:
        self.done.append(("test", receiving_ae))
        return len(self.report(receiving_ae))

    def dead_letters(self, receiving_ae: str, offset: int = 0, limit: int = 100) -> list[DeadLetter]:
        letters = [letter for letter in self.letters if letter.endpoint.receiving_ae == receiving_ae]
        return letters[offset : offset + limit]

    def resend_dead(self, receiving_ae: str, sequences: Collection[int] | None = None) -> int:
        self.done.append(("resend dead", receiving_ae, sequences))
        return len(self.letters) if sequences is None else len(sequences)

    async def drop_dead(self, receiving_ae: str, sequences: Collection[int] | None = None) -> int:
        self.done.append(("drop dead", receiving_ae, sequences))
        return len(self.letters) if sequences is None else len(sequences)


def endpoint_report(ae: str, channel: str = "dimse", **changes: Any) -> EndpointReport:
    """The report of a channel for which nothing waits."""
    usual: dict[str, Any] = {
        "durable": True,
        "serving": True,
        "failing": False,
        "pending": 0,
        "oldest_at": None,
        "last_success_at": None,
        "last_error": "",
        "last_error_at": None,
        "retry_at": None,
        "delivered": 0,
        "failed": 0,
        "dead": 0,
        "dead_letters": 0,
        "per_minute": (0,) * 60,
        "latency_median": None,
        "latency_p95": None,
    }
    return EndpointReport(Endpoint(ae, channel), **{**usual, **changes})


def dead_letter(ae: str, sequence: int, at: float = 0.0, **changes: Any) -> DeadLetter:
    """A State Report among the dead letters."""
    usual: dict[str, Any] = {"uid": "1.2.3", "died_at": at, "reason": "connection refused"}
    return DeadLetter(Endpoint(ae, "dimse"), sequence, EventType.STATE_REPORT, at=at, **{**usual, **changes})


class FakeDimse:
    """Answers C-ECHO for some AEs."""

    def __init__(self, answering: Collection[str] = ("RIS",)) -> None:
        self.answering = answering

    async def echo(self, ae: str) -> float:
        if ae not in self.answering:
            raise Unreachable(f"{ae} refused the connection")
        return 0.004


class FakeOrthanc:
    """Resources by path."""

    def __init__(self, resources: Mapping[str, Any] | None = None) -> None:
        self.resources = dict(resources or {})
        self.located: dict[str, list[tuple[str, str]]] = {}

    async def get(self, path: str) -> Any:
        return self.resources.get(path)

    async def lookup(self, uid: str) -> list[tuple[str, str]]:
        return self.located.get(uid, [])


class FakeModalities:
    """AE titles of DicomModalities."""

    def __init__(self, titles: Sequence[str] = ("AI", "PACS", "RIS")) -> None:
        self.titles = titles

    def ae_titles(self) -> Sequence[str]:
        return self.titles


def facts(**changes: Any) -> ServerFacts:
    """A plugin with two listeners."""
    usual: dict[str, Any] = {
        "ae_title": "UPSWORKLIST",
        "archive_ae_title": "ORTHANC",
        "name": "Harbour Clinic",
        "version": "1.0.0",
        "orthanc_version": "1.13.0",
        "listeners": (
            Listener("DIMSE", "UPSWORKLIST@{host}:4243", "N-CREATE, N-SET, N-GET, N-ACTION, C-FIND, C-ECHO"),
            Listener("UPS-RS", "http://{host}:8043/dicom-web", "HTTP and WebSocket"),
        ),
    }
    return ServerFacts(**{**usual, **changes})


def activity(worklist: FakeWorklist, clock: FakeClock) -> Activity:
    """Charts of what the fake counted."""
    return Activity(lambda: worklist.counted, lambda: clock.now().timestamp(), clock.monotonic)
