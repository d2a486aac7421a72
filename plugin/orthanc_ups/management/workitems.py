# SPDX-License-Identifier: AGPL-3.0-or-later
"""One workitem: reading it, and the operator's actions. Every action is a command of the worklist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from ..codecs.corrections import Corrections
from ..core import statuses, tags
from ..core.commands import (
    ChangeState,
    Close,
    Create,
    Purge,
    ReleaseLock,
    RequestCancel,
    Subscribe,
    Unsubscribe,
    Update,
)
from ..core.dataset import DataSet, element, is_empty, text
from ..core.outcome import Outcome
from ..core.reasons import in_words
from ..core.states import State
from ..core.statuses import Service, UpsError
from ..core.subscriptions import Log, standing
from ..core.workitem import Subscription, Workitem, claimer_of
from ..delivery.management import EndpointReport
from ..dicomweb.response import HttpProblem
from ..dicomweb.rights import Rights
from . import answers, bodies, views
from .completion import cancellation, for_creation, for_update, performed
from .copies import copy_of
from .fields import EDITABLE
from .keyword_form import to_data_set, to_keywords
from .ports import Commands, DeliveryControl, Inspection, ManagementClock, ServerFacts
from .queries import in_words as filter_in_words
from .resources import Resources
from .routing import Call, Route
from .starting import Starting

_ACTIONS: Final[Mapping[State, tuple[str, ...]]] = {
    State.SCHEDULED: ("edit", "claim", "request-cancel"),
    State.IN_PROGRESS: ("complete", "cancel", "request-cancel"),
    State.COMPLETED: ("purge",),
    State.CANCELED: ("purge",),
}
_INPUT: Final = "00404021"
_OUTPUT: Final = "00404033"
_MAXIMUM_LETTERS: Final = 500


class Workitems:
    """Handlers for one workitem."""

    def __init__(
        self,
        commands: Commands,
        inspection: Inspection,
        delivery: DeliveryControl,
        resources: Resources,
        starting: Starting,
        clock: ManagementClock,
        facts: ServerFacts,
        rights: Rights,
    ) -> None:
        self._commands = commands
        self._inspection = inspection
        self._delivery = delivery
        self._resources = resources
        self._starting = starting
        self._clock = clock
        self._facts = facts
        self._rights = rights

    def routes(self) -> tuple[Route, ...]:
        """Routes of single workitems."""
        path, subscriber = "/workitems/{uid}", "/workitems/{uid}/subscribers/{ae}"
        return (
            Route("POST", "/workitems", self.create),
            Route("GET", path, self.read),
            Route("PUT", path, self.update),
            Route("DELETE", path, self.purge),
            Route("GET", f"{path}/events", self.events),
            Route("GET", f"{path}/copy", self.copy),
            Route("POST", f"{path}/claim", self.claim),
            Route("POST", f"{path}/complete", self.complete),
            Route("POST", f"{path}/cancel", self.cancel),
            Route("POST", f"{path}/request-cancel", self.request_cancel),
            Route("PUT", subscriber, self.subscribe),
            Route("DELETE", subscriber, self.unsubscribe),
            Route("DELETE", f"{subscriber}/lock", self.release_lock),
        )

    # --- reading ---

    async def read(self, call: Call) -> answers.WorkitemJson:
        """One workitem in readable form, without its events."""
        workitem = await self._inspection.workitem(call.uid)
        local = self._clock.now().tzinfo
        content = workitem.attributes
        performed_items = (content.get(tags.PERFORMED_PROCEDURE) or {}).get("Value") or [{}]
        return {
            **views.row(workitem, local, views.late(workitem, self._facts.late, self._clock.now())),
            "actions": self._actions(workitem, call.requester.user),
            "groups": views.groups(workitem, local),
            "inputs": views.references(content, _INPUT),
            "outputs": views.references(performed_items[0], _OUTPUT),
            "history": views.history(workitem.history),
            "subscribers": self._subscribers(workitem),
            "form": {key: value for key, value in to_keywords(content).items() if key in EDITABLE},
            "closing": self._closing(workitem, call),
        }

    def _actions(self, workitem: Workitem, user: str | None) -> list[str]:
        """The actions that the state and the rights of the user allow."""
        allowed = {
            "purge": self._rights.may_administer(user),
            "complete": self._may_close(workitem, user),
            "cancel": self._may_close(workitem, user),
        }
        acting = self._rights.may_act(user)
        return [action for action in _ACTIONS[workitem.state] if allowed.get(action, acting)]

    def _may_close(self, workitem: Workitem, user: str | None) -> bool:
        """True if the user may act for the performer, whose Transaction UID is not required here."""
        performer = claimer_of(workitem)
        return self._rights.may_act_for(user, performer) if performer else self._rights.may_administer(user)

    def _subscribers(self, workitem: Workitem) -> list[answers.WorkitemSubscriber]:
        return [
            {
                "ae": ae,
                "lock": state is Subscription.LOCK,
                "specific": ae in workitem.acts,
                "filter": filters_of(self._inspection.subscriber(ae).log, workitem),
            }
            for ae, state in self._inspection.subscribers(workitem)
        ]

    def _closing(self, workitem: Workitem, call: Call) -> dict[str, Any] | None:
        if workitem.state is not State.IN_PROGRESS:
            return None
        return to_keywords(performed(workitem, self._clock.now(), self._facts.ae_title))

    async def copy(self, call: Call, query: bodies.CopyQuery) -> answers.Copy:
        """Initial values for a new workitem, copied from this one."""
        workitem = await self._inspection.workitem(call.uid)
        content = copy_of(workitem, self._clock.now(), repeats=query.repeats)
        return {"title": text(content, tags.LABEL), "attributes": to_keywords(content)}

    async def events(self, call: Call) -> answers.Events:
        """Event reports, and their delivery to each receiver."""
        logged = await self._inspection.event_log(call.uid)
        local = self._clock.now().tzinfo
        rows = [(report, [self._receiver(report, ae) for ae in report.receivers]) for report in logged]
        return {"events": [views.event(report, receivers, local) for report, receivers in reversed(rows)]}

    def _receiver(self, event: Any, ae: str) -> answers.Receiver:
        """The delivery of an event to an AE; ``why`` is the last error of its channel, or why the event was
        given up.
        """
        state = self._inspection.delivered(event, ae)
        if state == "delivered":
            return {"ae": ae, "state": state}
        if state == "dead":
            return {"ae": ae, "state": state, "why": self._why_dead(event, ae), "retry": None}
        channels = self._delivery.report(ae)
        retries = [channel.retry_at for channel in channels if channel.retry_at is not None]
        return {
            "ae": ae,
            "state": state,
            "why": _why_waiting(channels),
            "retry": views.iso(min(retries, default=None)),
        }

    def _why_dead(self, event: Any, ae: str) -> str:
        letters = self._delivery.dead_letters(ae, 0, _MAXIMUM_LETTERS)
        return next(
            (letter.reason for letter in letters if letter.sequence == event.sequence), "it was given up"
        )

    # --- creating and changing ---

    async def create(self, call: Call, body: bodies.CreateWorkitem) -> answers.OutcomeJson:
        """Create a workitem (PS3.4 CC.2.5), completed by a template and by inputs in Orthanc.

        Absent type 2 attributes are added empty; state, priority, readiness and start get usual values.
        """
        corrections = self._corrections()
        dataset = to_data_set(self._starting.attributes(call, body), "", corrections)
        inputs = await self._resources.references(call, body.inputs or ())
        if inputs and is_empty(dataset.get(_INPUT)):
            dataset[_INPUT] = element("SQ", *inputs)
        uid = body.uid or self._clock.new_uid()
        attributes = for_creation(dataset, self._clock.now())
        command = Create(call.requester, uid, attributes, corrections.sentences)
        return outcome_json(await self._commands.execute(command), Service.CREATE)

    async def update(self, call: Call, body: bodies.UpdateWorkitem) -> answers.OutcomeJson:
        """Change attributes of a SCHEDULED workitem (PS3.4 CC.2.6)."""
        corrections = self._corrections()
        attributes = for_update(to_data_set(body.attributes, "", corrections))
        if not attributes:
            raise HttpProblem(400, '"attributes" is empty: there is nothing to change')
        command = Update(call.requester, call.uid, attributes, corrections=corrections.sentences)
        return outcome_json(await self._commands.execute(command), Service.UPDATE)

    async def claim(self, call: Call, body: bodies.ClaimWorkitem) -> answers.OutcomeJson:
        """Claim on behalf of a performer; the user must have the right to act for it.

        The Transaction UID is not disclosed; `complete` and `cancel` do not need it.
        """
        requester = call.requester
        if body.performer.strip():
            performer = self._rights.ae_title(body.performer)
            self._rights.check(requester.user, performer)
            requester = replace(requester, ae=performer)
        command = ChangeState(requester, call.uid, State.IN_PROGRESS.value, self._clock.new_uid())
        return outcome_json(await self._commands.execute(command), Service.CHANGE_STATE)

    async def complete(self, call: Call, body: bodies.CompleteWorkitem) -> answers.OutcomeJson:
        """Close as COMPLETED on behalf of a performer."""
        workitem = await self._inspection.workitem(call.uid)
        self._check_closing(workitem, call)
        proposed = performed(workitem, self._clock.now(), self._facts.ae_title)
        corrections = self._corrections()
        item = {**proposed, **to_data_set(body.performed or {}, "performed", corrections)}
        attributes = for_update({tags.PERFORMED_PROCEDURE: element("SQ", dict(sorted(item.items())))})
        return await self._close(call, State.COMPLETED, attributes, corrections.sentences)

    async def cancel(self, call: Call, body: bodies.CancelWorkitem) -> answers.OutcomeJson:
        """Close as CANCELED on behalf of a performer; the reason is also stored in the workitem."""
        workitem = await self._inspection.workitem(call.uid)
        self._check_closing(workitem, call)
        reasons = _reasons(call, body)
        call = replace(call, requester=replace(call.requester, reason=in_words(reasons)))
        return await self._close(call, State.CANCELED, cancellation(workitem, reasons))

    def _check_closing(self, workitem: Workitem, call: Call) -> None:
        """Raise UpsError 0124 (403) unless the user may act for the performer."""
        performer = claimer_of(workitem)
        if performer:
            self._rights.check(call.requester.user, performer)
        elif workitem.state is State.IN_PROGRESS:
            self._rights.check_administration(call.requester.user)

    def _corrections(self) -> Corrections:
        return Corrections(lenient=not self._facts.strict)

    async def _close(
        self, call: Call, state: State, attributes: DataSet, corrections: tuple[str, ...] = ()
    ) -> answers.OutcomeJson:
        command = Close(call.requester, call.uid, state.value, attributes, corrections)
        return outcome_json(await self._commands.execute(command), Service.CHANGE_STATE)

    async def request_cancel(self, call: Call, body: bodies.RequestCancellation) -> answers.CancellationJson:
        """Request cancellation (PS3.4 CC.2.2).

        A SCHEDULED workitem is canceled at once. For one IN PROGRESS the performer is asked to cancel.
        """
        information = _reasons(call, body) | _contact(body)
        command = RequestCancel(call.requester, call.uid, dict(sorted(information.items())))
        outcome = outcome_json(await self._commands.execute(command), Service.REQUEST_CANCEL)
        workitem = await self._inspection.workitem(call.uid)
        return {**outcome, "state": workitem.state.value}

    async def purge(self, call: Call, query: bodies.ReasonQuery) -> answers.OutcomeJson:
        """Delete a final workitem that no Deletion Lock holds.

        Later requests for it are answered with 410 and the reason.
        """
        return outcome_json(await self._commands.execute(Purge(call.requester, call.uid)), Service.UPDATE)

    # --- subscriptions to this workitem ---

    async def subscribe(self, call: Call, body: bodies.SubscribeToWorkitem) -> answers.OutcomeJson:
        """Subscribe an AE to this workitem (PS3.4 CC.2.3)."""
        command = Subscribe(call.requester, call.uid, call.ae, body.lock)
        return outcome_json(await self._commands.execute(command), Service.SUBSCRIBE)

    async def unsubscribe(self, call: Call, query: bodies.ReasonQuery) -> answers.OutcomeJson:
        """Unsubscribe an AE from this workitem."""
        command = Unsubscribe(call.requester, call.uid, call.ae)
        return outcome_json(await self._commands.execute(command), Service.UNSUBSCRIBE)

    async def release_lock(self, call: Call, query: bodies.ReasonQuery) -> answers.OutcomeJson:
        """Release an AE's Deletion Lock; it stays subscribed."""
        command = ReleaseLock(call.requester, call.uid, call.ae)
        return outcome_json(await self._commands.execute(command), Service.UNSUBSCRIBE)


def _why_waiting(channels: Sequence[EndpointReport]) -> str:
    """Why an event has not been delivered yet, from the channels of its receiver."""
    errors = [channel.last_error for channel in channels if channel.last_error]
    if errors:
        return errors[-1]
    if not any(channel.serving for channel in channels):
        return "no address is configured for this AE title"
    return "on its way"


def filters_of(log: Log, workitem: Workitem) -> str:
    """The filters by which an AE is subscribed to a workitem, in words; "" if there are none."""
    acts = {act.sequence: act for act in log.acts}
    filters = [
        acts[sequence].filter or {}
        for sequence in standing(log).filters
        if sequence in acts and (sequence in workitem.filtered or workitem.created in acts[sequence].matched)
    ]
    return "; ".join(map(filter_in_words, filters))


def outcome_json(outcome: Outcome, service: Service) -> answers.OutcomeJson:
    """An outcome as JSON. Raises UpsError if its HTTP status is that of an error."""
    if outcome.status.http_for(service) >= 400:
        raise UpsError(outcome.status)
    has_warning = outcome.status is not statuses.SUCCESS
    return {
        "uid": outcome.uid,
        "status": outcome.status.name,
        "warning": outcome.status.meaning if has_warning else None,
        "details": list(outcome.details),
    }


def _reasons(call: Call, body: bodies.CancelWorkitem) -> DataSet:
    """The reason in words and as a code item. Raises UpsError if the code item is invalid."""
    reasons: DataSet = {}
    if call.requester.reason:
        reasons[tags.REASON_FOR_CANCELLATION] = element("LT", call.requester.reason)
    if body.code:
        reasons[tags.DISCONTINUATION_REASONS] = element("SQ", to_data_set(body.code, "code"))
    return reasons


def _contact(body: bodies.RequestCancellation) -> DataSet:
    contact: DataSet = {}
    if uri := body.contact_uri.strip():
        contact[tags.CONTACT_URI] = element("UR", uri)
    if name := body.contact_name.strip():
        contact[tags.CONTACT_NAME] = element("LO", name)
    return contact
