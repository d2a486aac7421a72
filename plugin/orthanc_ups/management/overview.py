# SPDX-License-Identifier: AGPL-3.0-or-later
"""The whole at a glance: counts, charts, addresses, warnings in words; and what the page needs to know once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from ..core.states import State
from ..delivery.management import EndpointReport
from ..dicomweb.rights import Rights
from ..worklist.late_watch import LateSummary
from . import answers, fields, views
from .activity import Activity
from .alerts import Alert, subscriber_link
from .lists import Lists
from .ports import ORDERS, DeliveryDesk, Inspection, ManagementClock, Modalities, ServerFacts
from .queries import filters
from .routing import Call, Route
from .subscribers import health_of, is_subscribed

_MOST_GROUPS: Final = 50
_FULL: Final = 0.8
_OLD: Final = 120.0
_CLOCK_MATTERS: Final = 86_400.0


class Overview:
    """Handlers for what concerns everything."""

    def __init__(
        self,
        inspection: Inspection,
        lists: Lists,
        desk: DeliveryDesk,
        modalities: Modalities,
        activity: Activity,
        clock: ManagementClock,
        facts: ServerFacts,
        rights: Rights,
        more_warnings: Callable[[], Sequence[str | Alert]] = tuple,
    ) -> None:
        self._inspection = inspection
        self._lists = lists
        self._desk = desk
        self._modalities = modalities
        self._activity = activity
        self._clock = clock
        self._facts = facts
        self._rights = rights
        self._more_warnings = more_warnings

    def routes(self) -> tuple[Route, ...]:
        """What is offered."""
        return (
            Route("GET", "/system", self.system),
            Route("GET", "/overview", self.overview),
        )

    async def system(self, call: Call) -> answers.System:
        """What a client needs to know once: who we are, and the vocabulary of filters and forms."""
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
        """What the user may do (``Ups.Users``)."""
        return {
            "act": self._rights.may_act(user),
            "administer": self._rights.may_administer(user),
            "ae_titles": list(self._rights.ae_titles(user)),
        }

    def _aes(self) -> list[str]:
        return sorted({*self._modalities.ae_titles(), *self._inspection.subscriber_aes()})

    async def overview(self, call: Call) -> answers.OverviewJson:
        """Counts, charts of the last hour and day, addresses, warnings in words."""
        reports = self._desk.report()
        self._activity.sample()
        return {
            **await self._lists.counts(call),
            **self._late(await self._inspection.late()),
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
            "warnings": [alert.described() for alert in self._alerts(reports)],
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
                    for group in summary.groups[:_MOST_GROUPS]
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
        """What does not work comes first."""
        alerts = list(self._every_alert(reports))
        return sorted(alerts, key=lambda alert: not alert.is_error)

    def _every_alert(self, reports: Sequence[EndpointReport]) -> Iterator[Alert]:
        for warning in (*self._facts.warnings, *self._more_warnings()):
            yield warning if isinstance(warning, Alert) else Alert(warning)
        yield from self._unreachable(reports)
        for report in reports:
            yield from self._of_channel(report)
        yield from self._refused_uploads()
        step, now = self._activity.clock_step, self._clock.now().timestamp()
        if step and now - step.at < _CLOCK_MATTERS:
            way = "back" if step.seconds < 0 else "forward"
            yield Alert(
                f"The clock of this server jumped {way} by {in_time(abs(step.seconds))}. Times in histories and "
                "retention may be off; check its time synchronisation."
            )

    def _unreachable(self, reports: Sequence[EndpointReport]) -> Iterator[Alert]:
        """AEs that are subscribed, and that nothing can reach."""
        served = {report.endpoint.receiving_ae for report in reports if report.serving}
        reachable = served | set(self._modalities.ae_titles())
        waiting = {report.endpoint.receiving_ae for report in reports if report.pending}
        for ae in self._inspection.subscriber_aes():
            if ae not in reachable | waiting and is_subscribed(self._inspection.subscriber(ae)):
                yield Alert(
                    f"{ae} is subscribed, but is not in DicomModalities and has no WebSocket open: nothing reaches it.",
                    subscriber_link(ae),
                )

    def _refused_uploads(self) -> Iterator[Alert]:
        refused = sum(count or 0 for count in self._activity.series("uploads_refused", 24 * 60, 60))
        if refused:
            uploads = "upload of a UPS object was" if refused == 1 else "uploads of UPS objects were"
            yield Alert(
                f"{refused:,} {uploads} refused within a day: workitems come by N-CREATE or UPS-RS, not by C-STORE, "
                "STOW-RS or REST. Orthanc's log says who sent them."
            )

    def _of_channel(self, report: EndpointReport) -> Iterator[Alert]:
        ae, now = report.endpoint.receiving_ae, self._clock.now().timestamp()
        link = subscriber_link(ae)
        health, words = health_of(report)
        events = "event waits" if report.pending == 1 else "events wait"
        if report.pending and not report.serving and report.durable:
            yield Alert(
                f"{report.pending:,} {events} for {ae}, but no address is configured for it: add it to "
                "DicomModalities, or let it open its WebSocket.",
                link,
                is_error=True,
            )
        elif (
            report.pending
            and report.oldest_at is not None
            and (health == "trouble" or now - report.oldest_at > _OLD)
        ):
            why = f" {report.last_error[:1].upper()}{report.last_error[1:]}." if report.last_error else ""
            waits = in_time(now - report.oldest_at)
            yield Alert(
                f"{report.pending:,} {events} for {ae}, the oldest for {waits}.{why}", link, is_error=True
            )
        if health == "refusing":
            yield Alert(f"{ae} refuses events: {words}.", link, is_error=True)
        if report.pending > _FULL * self._facts.maximum_pending:
            yield Alert(
                f"The outbox for {ae} is nearly full: {report.pending:,} of {self._facts.maximum_pending:,}. "
                "Beyond that, the oldest events become dead letters.",
                link,
            )
        if report.dead_letters:
            letters = "dead letter" if report.dead_letters == 1 else "dead letters"
            by = self._facts.webhook_names.get(report.endpoint.channel, report.endpoint.channel)
            yield Alert(
                f"{ae} has {report.dead_letters:,} {letters} ({by}): send them again or drop them.", link
            )


def in_time(seconds: float) -> str:
    """A length of time in words, such as ``3 minutes``."""
    for size, unit in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'' if count == 1 else 's'}"
    count = int(seconds)
    return f"{count} second{'' if count == 1 else 's'}"
