# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a command does to a workitem: ``decide`` returns a Decision, or raises UpsError."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from typing import Final, TypeAlias

from . import events, statuses, tags
from .attributes import Prepared, check_scheduled, prepare_create, prepare_update
from .closing import check_cancellation, complete_cancellation, refuse_unmet
from .commands import (
    ChangeState,
    Close,
    Create,
    Purge,
    ReleaseLock,
    RequestCancel,
    Subscribe,
    Unsubscribe,
    Update,
    WorkitemCommand,
)
from .dataset import DataSet, element, items, ordered
from .dictionary import keyword
from .events import Occurrence
from .representations import REPRESENTATIONS
from .states import REQUEST_CANCEL, Effect, State, Transaction, change_state
from .statuses import Status, UpsError
from .value_rules import USUAL, DataSetLimits
from .workitem import Subscription, Workitem, digest

Decidable: TypeAlias = WorkitemCommand | Subscribe | Unsubscribe | ReleaseLock | Purge
"""The commands on a single workitem."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome of the rules; nothing has happened yet.

    Attributes:
        workitem: as it will be; the very same object if nothing changes.
        what: the change in words, for history and log; without patient data and Transaction UID.
        status: success or a warning.
        occurrences: the events, in order.
        modified: attributes that the SCP corrected, for the answer.
        details: sentences that name each corrected attribute.
        act: an AE, and what its subscription to this workitem becomes; None if no subscription changes.
        inherited: like ``act``, for the subscribers of replaced workitems.
        counter: the metric to increment once the decision is written; empty for none.
    """

    workitem: Workitem
    what: str = ""
    status: Status = statuses.SUCCESS
    occurrences: tuple[Occurrence, ...] = ()
    modified: DataSet = field(default_factory=dict)
    details: tuple[str, ...] = ()
    act: tuple[str, Subscription] | None = None
    inherited: tuple[tuple[str, Subscription], ...] = ()
    counter: str = ""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the rules need to know besides the workitem.

    Attributes:
        now: aware date-time of the command.
        worklist_label: for workitems that come without one.
        watched: True if at least one AE is subscribed to the workitem.
        limits: limits of a data set.
        strict: correct only what the standard leaves to the SCP (``Ups.Strict``).
        purged: True if a workitem of this UID was purged, and its tombstone still exists.
        is_full: True if ``Ups.MaximumWorkitems`` exist.
        deletion_locks: True if Deletion Locks are granted.
        subscription: of the command's Receiving AE to the workitem (Table CC.2.3-2).
        lock_holders: the AEs whose Deletion Lock holds the workitem.
        is_undelivered: True if an event of the workitem still waits for a receiver.
        inherited: the AEs that are subscribed to a workitem that a new one replaces, with their states.
        missing_outputs: referenced SOP Instance UIDs that should be in this Orthanc, but are not.
    """

    now: datetime
    worklist_label: str = "DEFAULT"
    watched: bool = True
    limits: DataSetLimits = USUAL
    strict: bool = False
    purged: bool = False
    is_full: bool = False
    deletion_locks: bool = True
    subscription: Subscription = Subscription.NONE
    lock_holders: tuple[str, ...] = ()
    is_undelivered: bool = False
    inherited: tuple[tuple[str, Subscription], ...] = ()
    missing_outputs: tuple[str, ...] = ()


def is_uid(text: str) -> bool:
    """True for a valid UID: at most 64 characters, no component with leading zeros (PS3.5 §9.1)."""
    uid = text.strip(" ")
    return 0 < len(uid) <= _LONGEST_UID and _is_valid_uid(uid)


_LONGEST_UID: Final = 64
_STATES: Final = frozenset(State)
_is_valid_uid = lru_cache(4096)(REPRESENTATIONS["UI"].valid)  # the same UIDs recur


def decide(workitem: Workitem | None, command: Decidable, circumstances: Circumstances) -> Decision:
    """Decide on a command; ``workitem`` is None if it does not exist. Raises UpsError if the command is refused."""
    if isinstance(command, Create):
        return _create(workitem, command, circumstances)
    if workitem is None:
        raise UpsError(statuses.GONE if circumstances.purged else statuses.NO_SUCH_WORKITEM)
    if isinstance(command, Subscribe):
        return _subscribe(workitem, command, circumstances)
    if isinstance(command, Unsubscribe):
        return _unsubscribe(workitem, command, circumstances)
    if isinstance(command, ReleaseLock):
        return _release_lock(workitem, command, circumstances)
    if isinstance(command, Purge):
        return _purge(workitem, circumstances)
    if isinstance(command, Update):
        return _update(workitem, command, circumstances)
    if isinstance(command, ChangeState):
        return _change_state(workitem, command, circumstances)
    if isinstance(command, RequestCancel):
        return _request_cancel(workitem, command, circumstances)
    return _close_on_behalf(workitem, command, circumstances)


# --- Create (PS3.4 CC.2.5) ---


def _create(workitem: Workitem | None, command: Create, circumstances: Circumstances) -> Decision:
    _check_may_create(workitem, command, circumstances)
    prepared = prepare_create(
        command.attributes,
        circumstances.now,
        circumstances.worklist_label,
        limits=circumstances.limits,
        strict=circumstances.strict,
    )
    content = {**prepared.attributes, tags.SOP_INSTANCE_UID: element("UI", command.uid)}
    created = Workitem(command.uid, 0, ordered(content))
    occurrences = [events.state_report(created.attributes)]
    if events.is_assigned(created.attributes):
        occurrences.append(events.assigned(created.attributes))
    details = (*command.corrections, *prepared.modifications)
    status = statuses.CREATED_MODIFIED if details else statuses.SUCCESS
    modified = _modified(prepared, command.attributes) if details else {}
    return Decision(
        created, "created", status, tuple(occurrences), modified, details, inherited=circumstances.inherited
    )


def _check_may_create(workitem: Workitem | None, command: Create, circumstances: Circumstances) -> None:
    """Refuse a UID that is not valid, was purged, or exists (PS3.4 Table CC.1.1-2); any if the worklist is full.

    A state other than SCHEDULED precedes 0111.
    """
    if workitem is None and circumstances.purged:
        raise UpsError(statuses.DUPLICATE_INSTANCE, f"already existed, and was purged: UPS {command.uid}")
    if workitem is None and circumstances.is_full:
        raise UpsError(statuses.RESOURCE_LIMITATION, "the worklist is full (Ups.MaximumWorkitems)")
    if not is_uid(command.uid):
        raise UpsError(statuses.INVALID_INSTANCE, "the SOP Instance UID is not a valid UID")
    if workitem is not None or command.uid in tags.WELL_KNOWN:
        check_scheduled(command.attributes, strict=circumstances.strict)
        raise UpsError(statuses.DUPLICATE_INSTANCE, f"already exists: UPS {command.uid}")


def _modified(prepared: Prepared, sent: DataSet) -> DataSet:
    """The attributes of the request as they are stored, where that differs from what was sent."""
    return {
        tag: attribute
        for tag, attribute in prepared.attributes.items()
        if sent.get(tag) != attribute and (tag in sent or tag in prepared.modified)
    }


# --- Update (PS3.4 CC.2.6) ---


def _update(workitem: Workitem, command: Update, circumstances: Circumstances) -> Decision:
    _check_may_update(workitem, command.transaction)
    return _updated(workitem, command.attributes, command.corrections, circumstances)


def _check_may_update(workitem: Workitem, transaction: str | None) -> None:
    if workitem.state.is_final:
        raise UpsError(statuses.MAY_NOT_UPDATE, f"the UPS is {workitem.state.value}")
    if workitem.state is State.SCHEDULED:
        if transaction:
            detail = "the UPS is SCHEDULED; it must be updated without Transaction UID (0008,1195)"
            raise UpsError(statuses.NOT_IN_PROGRESS, detail, tags.TRANSACTION_UID)
        return
    comparison = workitem.compare(transaction)
    if comparison is not Transaction.RIGHT:
        missing = comparison is Transaction.MISSING
        status = statuses.MISSING_TRANSACTION_UID if missing else statuses.WRONG_TRANSACTION_UID
        raise UpsError(status, tag=tags.TRANSACTION_UID)


def _updated(
    workitem: Workitem, modifications: DataSet, corrections: tuple[str, ...], circumstances: Circumstances
) -> Decision:
    prepared = prepare_update(
        workitem.attributes,
        modifications,
        circumstances.now,
        limits=circumstances.limits,
        strict=circumstances.strict,
    )
    after = prepared.attributes
    details = (*corrections, *prepared.modifications)
    status = statuses.UPDATED_MODIFIED if details else statuses.SUCCESS
    modified = _modified(prepared, modifications) if details else {}
    keywords = ", ".join(keyword(tag) for tag in sorted(modifications))
    return Decision(
        replace(workitem, attributes=after),
        f"updated {keywords}" if keywords else "updated nothing",
        status,
        _occurrences_of_update(workitem.attributes, after),
        modified,
        details,
    )


_WATCHED_PROGRESS: Final = (tags.PROGRESS, tags.PROGRESS_DESCRIPTION, tags.COMMUNICATIONS_URIS)


def _occurrences_of_update(before: DataSet, after: DataSet) -> tuple[Occurrence, ...]:
    """Events 1, 5 and 3 if readiness, assignment or progress changed (PS3.4 CC.2.6.3).

    The removal of an assignment is a change, too (PS3.4 CC.2.4.3).
    """
    occurrences: list[Occurrence] = []
    if before.get(tags.READINESS) != after.get(tags.READINESS):
        occurrences.append(events.state_report(after))
    if any(items(before, tag) != items(after, tag) for tag in (tags.STATION_NAME, tags.HUMAN_PERFORMERS)):
        occurrences.append(events.assigned(after))
    return (*occurrences, *_progressed(before, after))


def _progressed(before: DataSet, after: DataSet) -> tuple[Occurrence, ...]:
    report = None if _progress(before) == _progress(after) else events.progress_report(after)
    return (report,) if report else ()


def _progress(content: DataSet) -> list[DataSet]:
    progress = items(content, tags.PROGRESS_INFORMATION)
    watched: list[DataSet] = [
        {tag: item[tag] for tag in _WATCHED_PROGRESS if tag in item} for item in progress
    ]
    return [item for item in watched if item]


# --- Change State (PS3.4 CC.2.1) ---


def _change_state(workitem: Workitem, command: ChangeState, circumstances: Circumstances) -> Decision:
    requested, details = _requested(command.state, strict=circumstances.strict)
    transaction = workitem.compare(command.transaction)
    if transaction is Transaction.RIGHT and not is_uid(command.transaction or ""):
        transaction = Transaction.WRONG
    cell = change_state(requested, workitem.state, transaction)
    if isinstance(cell, Status):
        return _refused_or_warned(workitem, cell)
    if cell is Effect.CLAIM:
        return replace(_claimed(workitem, command.transaction or ""), details=details)
    return replace(_closed(workitem, requested, circumstances), details=details)


def _requested(state: str, *, strict: bool = False) -> tuple[State, tuple[str, ...]]:
    """The requested state, and corrections of its spelling: case, underscores, the British CANCELLED."""
    try:
        return State(state), ()
    except ValueError:
        if not strict:
            spelled = " ".join(re.split(r"[\s_-]+", state.strip().upper())).replace("CANCELLED", "CANCELED")
            if spelled in _STATES:
                return State(spelled), (f"ProcedureStepState (0074,1000) was taken as {spelled}",)
        expected = ", ".join(member.value for member in State if member is not State.SCHEDULED)
        detail = f"Procedure Step State (0074,1000) is {state[:20]!r}, expected one of {expected}"
        raise UpsError(statuses.INVALID_ARGUMENT, detail, tags.STATE) from None


def _refused_or_warned(workitem: Workitem, status: Status) -> Decision:
    if status.is_failure:
        raise UpsError(status)
    return Decision(workitem, status=status)


def _in_state(content: DataSet, state: State) -> DataSet:
    return {**content, tags.STATE: element("CS", state.value)}


def _claimed(workitem: Workitem, transaction: str) -> Decision:
    after = _in_state(workitem.attributes, State.IN_PROGRESS)
    claimed = replace(workitem, attributes=after, owner=digest(transaction))
    return Decision(claimed, "claimed", occurrences=(events.state_report(after),))


def _closed(workitem: Workitem, state: State, circumstances: Circumstances) -> Decision:
    """Check the final state requirements on the stored workitem; complete it first for CANCELED (PS3.4 CC.2.5.1.1)."""
    content, now = workitem.attributes, circumstances.now
    if state is State.CANCELED:
        content = complete_cancellation(content, now, {})
    refuse_unmet(content, state, circumstances.missing_outputs)
    after = _in_state(content, state)
    closed = replace(workitem, attributes=ordered(after), ended=now.timestamp())
    return Decision(closed, state.value.lower(), occurrences=(events.state_report(after),))


def _close_on_behalf(workitem: Workitem, command: Close, circumstances: Circumstances) -> Decision:
    """An operator closes a workitem whose performer is lost, which the SCP may do with caution (PS3.4 CC.2.1.3)."""
    requested, _ = _requested(command.state)
    if workitem.state is not State.IN_PROGRESS:
        cell = change_state(requested, workitem.state, Transaction.RIGHT)
        return _refused_or_warned(workitem, cell if isinstance(cell, Status) else statuses.NOT_IN_PROGRESS)
    if not requested.is_final:
        raise UpsError(statuses.ALREADY_IN_PROGRESS)
    if not command.attributes:
        closed = _closed(workitem, requested, circumstances)
        return replace(closed, what=f"{closed.what} on behalf")
    updated = _updated(workitem, command.attributes, command.corrections, circumstances)
    closed = _closed(updated.workitem, requested, circumstances)
    return replace(
        closed,
        what=f"{closed.what} on behalf",
        occurrences=(*updated.occurrences, *closed.occurrences),
        details=updated.details,
    )


# --- Request Cancellation (PS3.4 CC.2.2) ---


def _request_cancel(workitem: Workitem, command: RequestCancel, circumstances: Circumstances) -> Decision:
    information, corrections = check_cancellation(
        command.information, limits=circumstances.limits, strict=circumstances.strict
    )
    details = (*command.corrections, *corrections)
    if command.only_scheduled and workitem.state is not State.SCHEDULED:
        raise UpsError(statuses.PROCESSING_FAILURE, f"the UPS is {workitem.state.value} already")
    cell = REQUEST_CANCEL[workitem.state]
    if isinstance(cell, Status):
        return _refused_or_warned(workitem, cell)
    if cell is Effect.CANCEL_UNCLAIMED:
        return replace(_canceled_unclaimed(workitem, information, circumstances.now), details=details)
    if not circumstances.watched:
        raise UpsError(
            statuses.PERFORMER_UNREACHABLE, "no AE is subscribed to this UPS, so none can be asked"
        )
    request_event = events.cancel_requested(command.requester.ae, information)
    return Decision(
        replace(workitem), "asked the performer to cancel", occurrences=(request_event,), details=details
    )


def _canceled_unclaimed(workitem: Workitem, information: DataSet, now: datetime) -> Decision:
    """The SCP cancels a SCHEDULED workitem itself; subscribers see IN PROGRESS, then CANCELED (PS3.4 CC.2.2.3)."""
    started = _in_state(workitem.attributes, State.IN_PROGRESS)
    completed = complete_cancellation(workitem.attributes, now, information)
    after = ordered(_in_state(completed, State.CANCELED))
    canceled = replace(workitem, attributes=after, ended=now.timestamp())
    reports = (events.state_report(started), *_progressed(started, after), events.state_report(after))
    return Decision(canceled, "canceled before it was claimed", occurrences=reports)


# --- Subscribe, Unsubscribe to one workitem (PS3.4 CC.2.3) ---


def _subscribe(workitem: Workitem, command: Subscribe, circumstances: Circumstances) -> Decision:
    """The Receiving AE gets a State Report whatever its subscription was before (PS3.4 Table CC.2.3-2)."""
    granted = Subscription.LOCK if command.lock and circumstances.deletion_locks else Subscription.NO_LOCK
    refused = command.lock and not circumstances.deletion_locks
    lock_name = "a Deletion Lock" if granted is Subscription.LOCK else "no Deletion Lock"
    return Decision(
        workitem,
        f"subscribed {command.receiving_ae} with {lock_name}",
        statuses.LOCK_NOT_GRANTED if refused else statuses.SUCCESS,
        (events.state_report(workitem.attributes, command.receiving_ae),),
        act=(command.receiving_ae, granted),
        counter="subscriptions_created",
    )


def _unsubscribe(workitem: Workitem, command: Unsubscribe, circumstances: Circumstances) -> Decision:
    """Unsubscribes from this workitem only: the AE's global subscription stays (PS3.4 Table CC.2.3-2)."""
    if circumstances.subscription is Subscription.NONE:
        return Decision(workitem, status=statuses.NO_SUCH_SUBSCRIPTION)
    return Decision(
        workitem,
        f"unsubscribed {command.receiving_ae}",
        act=(command.receiving_ae, Subscription.NONE),
        counter="subscriptions_removed",
    )


def _release_lock(workitem: Workitem, command: ReleaseLock, circumstances: Circumstances) -> Decision:
    """A Deletion Lock becomes a plain subscription (PS3.4 CC.2.3.3)."""
    if circumstances.subscription is not Subscription.LOCK:
        return Decision(workitem, status=statuses.NO_SUCH_SUBSCRIPTION)
    return Decision(
        workitem,
        f"released the Deletion Lock of {command.receiving_ae}",
        act=(command.receiving_ae, Subscription.NO_LOCK),
        counter="locks_released",
    )


# --- Purge (PS3.4 CC.1.1) ---


def _purge(workitem: Workitem, circumstances: Circumstances) -> Decision:
    """A final workitem may be purged once no Deletion Lock holds it and its events are delivered."""
    if not workitem.state.is_final:
        detail = f"the UPS is {workitem.state.value}, not in a final state"
        raise UpsError(statuses.MAY_NOT_UPDATE, detail)
    if circumstances.lock_holders:
        holders = ", ".join(circumstances.lock_holders)
        raise UpsError(statuses.MAY_NOT_UPDATE, f"held by a Deletion Lock of {holders}")
    if circumstances.is_undelivered:
        raise UpsError(statuses.MAY_NOT_UPDATE, "events of it are not delivered yet")
    return Decision(workitem, "purged")
