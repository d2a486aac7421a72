# SPDX-License-Identifier: AGPL-3.0-or-later
"""The overview (counts, charts, addresses, warnings), and the facts that the page needs once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from ..core.states import State
from ..delivery.management import EndpointReport
from ..dicomweb.rights import Rights
from ..projection.projection import ProjectionBroken
from ..worklist.late_watch import LateSummary
from . import answers, fields, sentences, views
from .activity import Activity
from .alerts import Alert, subscriber_link
from .lists import Lists
from .ports import (
    MAXIMUM_LATE_GROUPS,
    ORDERS,
    DeliveryControl,
    Inspection,
    ManagementClock,
    Modalities,
    ServerFacts,
)
from .queries import filters
from .routing import Call, Route
from .sentences import Sentence, TimeSpan, Value
from .subscribers import health_of, is_subscribed

_FULL_SHARE: Final = 0.8
_OLD_AGE: Final = 120.0  # seconds
_CLOCK_STEP_SHOWN: Final = 86_400.0  # seconds


class Overview:
    """Handlers of the overview and of ``/system``."""

    def __init__(
        self,
        inspection: Inspection,
        lists: Lists,
        delivery: DeliveryControl,
        modalities: Modalities,
        activity: Activity,
        clock: ManagementClock,
        facts: ServerFacts,
        rights: Rights,
        more_alerts: Callable[[], Sequence[Alert]] = tuple,
    ) -> None:
        self._inspection = inspection
        self._lists = lists
        self._delivery = delivery
        self._modalities = modalities
        self._activity = activity
        self._clock = clock
        self._facts = facts
        self._rights = rights
        self._more_alerts = more_alerts

    def routes(self) -> tuple[Route, ...]:
        """Routes of the overview and of the facts about the system."""
        return (
            Route("GET", "/system", self.system),
            Route("GET", "/overview", self.overview),
        )

    async def system(self, call: Call) -> answers.System:
        """Facts that a client needs once: names and versions, rights, and the fields of filters and forms."""
        facts = self._facts
        return {
            "name": facts.name,
            "ae": facts.ae_title,
            "version": facts.version,
            "orthanc_version": facts.orthanc_version,
            "user": call.requester.user,
            "rights": self._rights_of(call.requester.user),
            "default_language": facts.default_language,
            "workitems_url": facts.workitems_url,
            "states": [state.value for state in State],
            "orders": list(ORDERS),
            "filters": filters(),
            "fields": fields.described(),
            "reasons": fields.reasons(),
            "aes": self._aes(),
        }

    def _rights_of(self, user: str | None) -> answers.UserRights:
        return {
            "act": self._rights.may_act(user),
            "administer": self._rights.may_administer(user),
            "ae_titles": list(self._rights.ae_titles(user)),
        }

    def _aes(self) -> list[str]:
        return sorted({*self._modalities.ae_titles(), *self._inspection.subscriber_aes()})

    async def overview(self, call: Call) -> answers.OverviewJson:
        """Counts, charts of the last hour and day, addresses, warnings in words."""
        reports = self._delivery.report()
        self._activity.sample()
        index_alerts: list[Alert] = []
        counts: answers.CountsJson | None = None
        late: answers.LateJson | None = None
        try:
            counts, late = await self._lists.counts(call), self._late(await self._inspection.late())
        except ProjectionBroken as error:  # warnings are needed even more while nothing can be counted
            index_alerts = [Alert(Sentence(sentences.NO_COUNTS, {"why": error.detail}), is_error=True)]
        return {
            "counts": counts,
            "late": late,
            "charts": {"hour": self._chart(60, 1), "day": self._chart(24 * 60, 15)},
            "delivery": {
                "pending": sum(report.pending for report in reports),
                "dead_letters": sum(report.dead_letters for report in reports),
                "subscribers": len(self._inspection.subscriber_aes()),
            },
            "listeners": [
                {"name": listener.name, "address": listener.address, "note": listener.note}
                for listener in self._facts.listeners
            ],
            "started": views.iso(self._activity.started),
            "warnings": [alert.described() for alert in (*index_alerts, *self._alerts(reports))],
        }

    def _late(self, summary: LateSummary) -> answers.LateJson:
        oldest, longest = summary.oldest_scheduled, summary.longest_in_progress
        return {
            "late_work": {
                "total": summary.total,
                "kinds": {kind.value: count for kind, count in summary.by_kind().items()},
                "worklists": [
                    {"worklist": worklist, "count": count}
                    for worklist, count in summary.by_worklist().items()
                ],
                "groups": [
                    {"worklist": group.worklist, "station": group.station, "count": group.total}
                    for group in summary.groups[:MAXIMUM_LATE_GROUPS]
                ],
            },
            "oldest_scheduled": {"uid": oldest[0], "at": views.iso(oldest[1])} if oldest else None,
            "longest_in_progress": {"uid": longest[0], "at": views.iso(longest[1])} if longest else None,
        }

    def _chart(self, minutes: int, step: int) -> answers.Chart:
        series, latency = self._activity.series, self._activity.latency
        return {
            "minutes": minutes,
            "step": step,
            "created": series("accepted_create", minutes, step),
            "changed": series("accepted_change_state", minutes, step),
            "updated": series("accepted_update", minutes, step),
            "delivered": series("delivered", minutes, step),
            "latency": {"median": latency(0.5, minutes, step), "p95": latency(0.95, minutes, step)},
        }

    # --- warnings ---

    def _alerts(self, reports: Sequence[EndpointReport]) -> list[Alert]:
        """All warnings, errors first."""
        alerts = list(self._every_alert(reports))
        return sorted(alerts, key=lambda alert: not alert.is_error)

    def _every_alert(self, reports: Sequence[EndpointReport]) -> Iterator[Alert]:
        yield from (Alert(Sentence(words)) for words in self._facts.warnings)
        yield from self._more_alerts()
        yield from self._unreachable(reports)
        for report in reports:
            yield from self._channel_alerts(report)
        refused = sum(count or 0 for count in self._activity.series("uploads_refused", 24 * 60, 60))
        if refused:
            yield Alert(Sentence(sentences.UPLOADS_REFUSED, {"n": refused}))
        step, now = self._activity.clock_step, self._clock.now().timestamp()
        if step and now - step.at < _CLOCK_STEP_SHOWN:
            words = sentences.CLOCK_BACK if step.seconds < 0 else sentences.CLOCK_FORWARD
            yield Alert(Sentence(words, {"span": TimeSpan(abs(step.seconds))}))

    def _unreachable(self, reports: Sequence[EndpointReport]) -> Iterator[Alert]:
        """AEs that are subscribed and cannot be reached."""
        served = {report.endpoint.receiving_ae for report in reports if report.serving}
        reachable = served | set(self._modalities.ae_titles())
        waiting = {report.endpoint.receiving_ae for report in reports if report.pending}
        for ae in self._inspection.subscriber_aes():
            if ae not in reachable | waiting and is_subscribed(self._inspection.subscriber(ae)):
                yield Alert(Sentence(sentences.UNREACHABLE, {"ae": ae}), subscriber_link(ae))

    def _channel_alerts(self, report: EndpointReport) -> Iterator[Alert]:
        ae, pending = report.endpoint.receiving_ae, report.pending
        link = subscriber_link(ae)
        health, why = health_of(report)
        waiting: dict[str, Value] = {"n": pending, "ae": ae}
        if pending and not report.serving and report.durable:
            yield Alert(Sentence(sentences.NO_ADDRESS, waiting), link, is_error=True)
        elif pending and report.oldest_at is not None:
            waits = self._clock.now().timestamp() - report.oldest_at
            if health == "trouble" or waits > _OLD_AGE:
                values: dict[str, Value] = {**waiting, "span": TimeSpan(waits), "why": report.last_error}
                words = sentences.EVENTS_WAIT_AS if report.last_error else sentences.EVENTS_WAIT
                yield Alert(Sentence(words, values), link, is_error=True)
        if health == "refusing":
            yield Alert(
                Sentence(sentences.REFUSES, {"ae": ae, "why": why.values["why"]}), link, is_error=True
            )
        if pending > _FULL_SHARE * self._facts.maximum_pending:
            maximum = self._facts.maximum_pending
            full = Sentence(sentences.OUTBOX_FULL, {"ae": ae, "pending": pending, "maximum": maximum})
            yield Alert(full, link)
        if report.dead_letters:
            channel = self._facts.webhook_names.get(report.endpoint.channel, report.endpoint.channel)
            number = report.dead_letters
            letters = Sentence(sentences.DEAD_LETTERS, {"ae": ae, "n": number, "channel": channel})
            yield Alert(letters, link)
