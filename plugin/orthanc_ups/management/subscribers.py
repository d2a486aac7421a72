# SPDX-License-Identifier: AGPL-3.0-or-later
"""Subscribers: their subscriptions, the delivery to them, and the operator's actions."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from ..core import tags
from ..core.commands import Subscribe, Suspend, Unsubscribe
from ..core.dataset import DataSet, text
from ..core.dictionary import path_name
from ..core.matching import Query
from ..core.mechanisms import Mechanisms
from ..core.statuses import Service, UpsError
from ..core.subscriptions import ActKind, GlobalAct, Log, standing
from ..core.workitem import Subscription
from ..delivery.management import EndpointReport
from ..delivery.port import Unreachable
from ..dicomweb.response import HttpProblem
from . import answers, bodies, sentences, views
from .keyword_form import to_data_set, to_keywords
from .ports import Commands, DeliveryControl, Dimse, Inspection, Modalities, ServerFacts, SubscriberSummary
from .queries import in_words, to_identifier
from .routing import Call, Route
from .sentences import Sentence
from .workitems import outcome_json

_SCOPES: Final[Mapping[str, str]] = {
    "global": tags.GLOBAL_SUBSCRIPTION,
    "filtered": tags.FILTERED_SUBSCRIPTION,
}


class Subscribers:
    """Handlers for subscribers."""

    def __init__(
        self,
        commands: Commands,
        inspection: Inspection,
        delivery: DeliveryControl,
        dimse: Dimse,
        modalities: Modalities,
        facts: ServerFacts,
    ) -> None:
        self._commands = commands
        self._inspection = inspection
        self._delivery = delivery
        self._dimse = dimse
        self._modalities = modalities
        self._webhook_names = facts.webhook_names

    def routes(self) -> tuple[Route, ...]:
        """Routes of subscribers, their subscriptions and the delivery to them."""
        path = "/subscribers/{ae}"
        return (
            Route("GET", "/subscribers", self.all),
            Route("GET", path, self.read),
            Route("GET", f"{path}/workitems", self.workitems),
            Route("POST", f"{path}/subscribe", self.subscribe),
            Route("POST", f"{path}/unsubscribe", self.unsubscribe),
            Route("POST", f"{path}/suspend", self.suspend),
            Route("POST", f"{path}/echo", self.echo),
            Route("POST", f"{path}/test-event", self.test_event),
            Route("POST", f"{path}/retry", self.retry),
            Route("POST", f"{path}/drop", self.drop),
            Route("POST", f"{path}/resend", self.resend),
            Route("GET", f"{path}/dead-letters", self.dead_letters),
            Route("POST", f"{path}/dead-letters/resend", self.resend_dead),
            Route("POST", f"{path}/dead-letters/drop", self.drop_dead),
        )

    # --- reading ---

    async def all(self, call: Call) -> answers.SubscribersJson:
        """Every subscriber: subscriptions in words and state of delivery."""
        reports: dict[str, list[EndpointReport]] = {}
        for report in self._delivery.report():
            reports.setdefault(report.endpoint.receiving_ae, []).append(report)
        aes = sorted({*self._inspection.subscriber_aes(), *reports})
        titles = frozenset(self._modalities.ae_titles())
        return {"subscribers": [self._subscriber(ae, reports.get(ae, []), ae in titles) for ae in aes]}

    def _subscriber(
        self, ae: str, reports: list[EndpointReport], is_configured: bool
    ) -> answers.SubscriberJson:
        subscriber = self._inspection.subscriber(ae)
        return {
            "ae": ae,
            "known": is_configured,
            **_subscriptions(subscriber.log),
            "specific": subscriber.specific,
            "locks": subscriber.locks,
            "channels": [
                channel(report, self._webhook_names, is_subscribed=is_subscribed(subscriber))
                for report in reports
            ],
        }

    async def read(self, call: Call, query: bodies.SubscribedQuery) -> answers.SubscriberPage:
        """One subscriber, with a page of the workitems that it subscribed to individually, the latest first."""
        is_configured = call.ae in self._modalities.ae_titles()
        described = self._subscriber(call.ae, list(self._delivery.report(call.ae)), is_configured)
        return {
            **described,
            "workitems": [
                _specific(*subscription)
                for subscription in self._inspection.specific(call.ae, query.offset, query.limit)
            ],
        }

    async def workitems(self, call: Call, query: bodies.SubscribedQuery) -> answers.SubscribedWorkitems:
        """A page of the workitems that an AE subscribed to individually, the latest first."""
        page = self._inspection.specific(call.ae, query.offset, query.limit)
        rows = [await self._subscribed_workitem(uid, state) for uid, state in page]
        return {"total": self._inspection.subscriber(call.ae).specific, "workitems": rows}

    async def _subscribed_workitem(self, uid: str, state: Subscription) -> answers.SubscribedWorkitem:
        subscription = _specific(uid, state)
        try:
            workitem = await self._inspection.workitem(uid)
        except UpsError:
            return {**subscription, "label": "", "state": ""}
        label = text(workitem.attributes, tags.LABEL)
        return {**subscription, "label": label, "state": workitem.state.value}

    # --- subscriptions (PS3.4 CC.2.3) ---

    async def subscribe(self, call: Call, body: bodies.SubscribeBody) -> answers.OutcomeJson:
        """Subscribe to every workitem, to those that match a filter, or to one (PS3.4 CC.2.3)."""
        uid = _target(body.scope, body.uid)
        mechanisms = Mechanisms.of_words(body.mechanisms or ())
        keys = _filter(body.filter or {}, mechanisms) if uid == tags.FILTERED_SUBSCRIPTION else None
        command = Subscribe(call.requester, uid, call.ae, body.lock, keys, mechanisms)
        return outcome_json(await self._commands.execute(command), Service.SUBSCRIBE)

    async def unsubscribe(self, call: Call, body: bodies.UnsubscribeBody) -> answers.OutcomeJson:
        """End a subscription."""
        command = Unsubscribe(call.requester, _target(body.scope, body.uid), call.ae)
        return outcome_json(await self._commands.execute(command), Service.UNSUBSCRIBE)

    async def suspend(self, call: Call, body: bodies.SuspendBody) -> answers.OutcomeJson:
        """Suspend a global subscription: new workitems are no longer subscribed to."""
        command = Suspend(call.requester, _SCOPES[body.scope], call.ae)
        return outcome_json(await self._commands.execute(command), Service.SUSPEND)

    # --- delivery ---

    async def echo(self, call: Call, body: bodies.Body) -> answers.Seconds:
        """C-ECHO to the AE; 502 if it cannot be reached."""
        return {"seconds": await self._dimse.echo(call.ae)}

    async def test_event(self, call: Call, body: bodies.Body) -> answers.Channels:
        """Send an SCP Status Change."""
        channels = self._delivery.send_test_event(call.ae)
        if not channels:
            raise Unreachable(f"no address is configured for {call.ae}, and it has no WebSocket open")
        return {"channels": channels}

    async def retry(self, call: Call, body: bodies.Body) -> answers.Pending:
        """Retry waiting events at once."""
        self._delivery.retry_now(call.ae)
        return {"pending": sum(report.pending for report in self._delivery.report(call.ae))}

    async def drop(self, call: Call, body: bodies.SomeEvents) -> answers.Dropped:
        """Give up waiting events, for good."""
        return {"dropped": await self._delivery.drop(call.ae, body.sequences)}

    async def resend(self, call: Call, body: bodies.EventRange) -> answers.RangeJson:
        """Send the events of a range of sequence numbers again."""
        if body.first > body.last:
            raise HttpProblem(400, f'"first" is {body.first}, expected at most "last", which is {body.last}')
        self._delivery.resend(call.ae, body.first, body.last)
        return {"first": body.first, "last": body.last}

    async def dead_letters(self, call: Call, query: bodies.DeadLettersQuery) -> answers.DeadLettersJson:
        """Events that were given up, oldest first."""
        letters = self._delivery.dead_letters(call.ae, query.offset, query.limit)
        total = sum(entry.dead_letters for entry in self._delivery.report(call.ae))
        return {"total": total, "letters": [_letter(entry) for entry in letters]}

    async def resend_dead(self, call: Call, body: bodies.SomeEvents) -> answers.Resent:
        """Send dead letters again."""
        return {"resent": self._delivery.resend_dead(call.ae, body.sequences)}

    async def drop_dead(self, call: Call, body: bodies.SomeEvents) -> answers.Dropped:
        """Delete dead letters, for good."""
        return {"dropped": await self._delivery.drop_dead(call.ae, body.sequences)}


def _specific(uid: str, state: Subscription) -> answers.SpecificSubscription:
    return {"uid": uid, "lock": state is Subscription.LOCK}


def _target(scope: str, uid: str) -> str:
    if scope != "workitem":
        return _SCOPES[scope]
    if not uid:
        raise HttpProblem(400, '"uid" is missing; the scope "workitem" needs it')
    return uid


def _filter(keywords: Mapping[str, Any], mechanisms: Mechanisms) -> DataSet:
    """The filter of a request, with dotted keywords as in the list, or nested ones. Refuses keys without effect."""
    nested = any(isinstance(value, (Mapping, list)) for value in keywords.values())
    keys = to_data_set(keywords, "filter") if nested else to_identifier(keywords)
    try:
        unsupported = Query.of(keys, mechanisms=mechanisms).unsupported
    except UpsError:
        return keys  # the worklist reports what is wrong with it
    if unsupported:
        raise HttpProblem(400, f"{path_name(unsupported[0])} is not a matching key of a workitem")
    return keys


def _subscriptions(log: Log) -> answers.SubscriptionsJson:
    """The subscriptions that an AE's global acts amount to, in words."""
    now = standing(log)
    by_sequence = {act.sequence: act for act in log.acts}
    filters = [_filtered(by_sequence[at], state) for at, state in now.filters.items() if at in by_sequence]
    return {
        "everything": None
        if now.everything is Subscription.NONE
        else {"lock": now.everything is Subscription.LOCK},
        "filters": filters,
        "suspended": _suspended(log),
    }


def _filtered(act: GlobalAct, state: Subscription) -> answers.Filter:
    keys = act.filter or {}
    return {
        "sequence": act.sequence,
        "words": in_words(keys),
        "filter": to_keywords(keys),
        "mechanisms": act.mechanisms.words(),
        "lock": state is Subscription.LOCK,
        "since": views.iso(act.at or None),
    }


def _suspended(log: Log) -> list[answers.Filter]:
    """Global subscriptions that were suspended and could be resumed."""
    suspensions: list[answers.Filter] = []
    for filtered in (False, True):
        acts = [act for act in log.acts if act.filtered is filtered]
        if not acts or acts[-1].kind is not ActKind.SUSPEND:
            continue
        for act in _before_last_end(acts):
            scope = "filtered" if filtered else "global"
            suspensions.append({**_filtered(act, _STATES[act.kind]), "scope": scope})
    return suspensions


_STATES: Final = {ActKind.LOCK: Subscription.LOCK, ActKind.NO_LOCK: Subscription.NO_LOCK}


def _before_last_end(acts: list[GlobalAct]) -> list[GlobalAct]:
    """The subscribing acts that the last Suspend ended; of those to every workitem only the last one counts."""
    ended: list[GlobalAct] = []
    for act in acts[:-1]:
        ended = [*ended, act] if act.kind.subscribes else []
    return ended if acts[-1].filtered else ended[-1:]


def channel(
    report: EndpointReport, names: Mapping[str, str] = MappingProxyType({}), *, is_subscribed: bool = True
) -> answers.ChannelJson:
    """One channel to an AE, with its state as a word and as a sentence."""
    health, sentence = health_of(report, is_subscribed=is_subscribed)
    return {
        "channel": report.endpoint.channel,
        "name": names.get(report.endpoint.channel, ""),
        "health": health,
        "words": str(sentence),
        "sentence": sentence.described(),
        "durable": report.durable,
        "pending": report.pending,
        "oldest": views.iso(report.oldest_at),
        "last_success": views.iso(report.last_success_at),
        "last_error": report.last_error,
        "last_error_at": views.iso(report.last_error_at),
        "retry": views.iso(report.retry_at),
        "delivered": report.delivered,
        "failed": report.failed,
        "dead_letters": report.dead_letters,
        "per_minute": list(report.per_minute),
        "latency": {"median": report.latency_median, "p95": report.latency_p95},
    }


def health_of(report: EndpointReport, *, is_subscribed: bool = True) -> tuple[str, Sentence]:
    """``good``, ``idle``, ``trouble``, ``refusing`` or ``unreachable``, and why.

    If an event was given up after the last success, it is never ``good``.
    """
    if not report.serving and report.durable:
        if is_subscribed or report.pending:
            return "unreachable", Sentence(sentences.NO_WAY)
        return "idle", Sentence(sentences.ENDED)
    if report.dead_letters and (report.last_error_at or 0.0) >= (report.last_success_at or 0.0):
        why = report.last_error or Sentence(sentences.SEE_DEAD_LETTERS)
        return "refusing", Sentence(sentences.GIVEN_UP, {"why": why})
    if report.failing and report.pending:
        error = report.last_error
        return "trouble", Sentence(error[:1].upper() + error[1:] if error else sentences.LAST_FAILED)
    if report.pending:
        return "good", Sentence(sentences.ON_THEIR_WAY)
    if report.last_success_at is None:
        return "idle", Sentence(sentences.NOTHING_YET)
    return "good", Sentence(sentences.HAS_EVERYTHING)


def is_subscribed(subscriber: SubscriberSummary) -> bool:
    """True if the AE has any subscription."""
    current = standing(subscriber.log)
    return bool(subscriber.specific or current.filters) or current.everything is not Subscription.NONE


def _letter(letter: Any) -> answers.DeadLetterJson:
    return {
        "sequence": letter.sequence,
        "channel": letter.endpoint.channel,
        "type": int(letter.type),
        "name": views.EVENT_NAMES[letter.type],
        "uid": letter.uid,
        "at": views.iso(letter.at),
        "died": views.iso(letter.died_at),
        "reason": letter.reason,
        "count": letter.count,
    }
