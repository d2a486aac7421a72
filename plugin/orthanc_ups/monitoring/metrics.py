# SPDX-License-Identifier: AGPL-3.0-or-later
"""The table of all metrics, and their publication at Orthanc's ``/tools/metrics-prometheus``.

Orthanc's metrics have no labels, so a quantity that exists per subscriber is published as a sum and as its maximum.
docs/metrics.md repeats the table; a test compares the two.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from ..core.events import EventType
from ..core.lateness import LateKind
from ..core.states import State
from ..core.statuses import Service
from ..core.workitem import Subscription
from ..delivery.outbox import Delivery
from ..delivery.worker import Worker
from ..dicomweb.http_port import HttpPort
from ..dicomweb.websocket_channel import WebSocketChannel
from ..dimse.scp import DimseServer
from ..dimse.scu import DimseChannel
from ..health import Health, Role
from ..orthanc.sdk import Orthanc
from ..projection.sparing import Sparing
from ..service import UpsService
from ..worklist.late_watch import LateSummary, LateWatch
from ..worklist.subscriptions import Subscriptions
from .audit import Emit

_log = logging.getLogger("orthanc_ups.monitoring.metrics")
_EVERY: Final = 2.0
_CHUNK: Final = 50
_CHANGING: Final = tuple(service for service in Service if service not in (Service.RETRIEVE, Service.SEARCH))
_CHANNELS: Final = ("dimse", "websocket", "webhook")
_TYPES: Final = {
    EventType.STATE_REPORT: "UPS State Reports",
    EventType.CANCEL_REQUESTED: "UPS Cancel Requested",
    EventType.PROGRESS_REPORT: "UPS Progress Reports",
    EventType.SCP_STATUS_CHANGE: "SCP Status Changes (start or stop of this server)",
    EventType.ASSIGNED: "UPS Assigned",
}
_LATE: Final = {
    LateKind.START: "scheduled, and their start passed more than LateAfter ago",
    LateKind.INPUTS: "scheduled, their start has passed, and their inputs are INCOMPLETE",
    LateKind.COMPLETION: "in progress past their expected completion",
    LateKind.EXPIRATION: "past their expiration and not yet final",
    LateKind.SILENT: "in progress, and not updated by their performer for longer than Ups.SilentAfter",
}
_OUTCOMES: Final = {
    "failed": "Failed attempts to deliver an event that will be retried",
    "dead": "Events that became dead letters",
    "lost": "Events discarded because there were too many dead letters",
    "dropped": "Waiting events that an operator dropped",
    "replaced": "Progress Reports that a newer one of the same workitem replaced while they waited",
    "repeated": "Events that an operator sent again",
}

_BY_RULES: Final = {
    "created": "Workitems that rules created",
    "updated": "Workitems that rules updated",
    "completed": "Workitems that rules completed",
    "canceled": "Workitems that rules canceled",
    "asked": "Cancellation requests that rules sent to performers",
    "failed": "Times that an action of a rule was refused",
    "stopped": "Times that a rule was stopped because it triggered itself",
}


class MetricKind(Enum):
    """How a metric changes: counters only grow (from zero at each start), gauges rise and fall."""

    COUNTER = "counter"
    GAUGE = "gauge"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric; ``meaning`` is a phrase without full stop."""

    name: str
    kind: MetricKind
    meaning: str


def _counter(name: str, meaning: str) -> Metric:
    return Metric(f"ups_{name}_total", MetricKind.COUNTER, meaning)


def _gauge(name: str, meaning: str) -> Metric:
    return Metric(f"ups_{name}", MetricKind.GAUGE, meaning)


def _word(name: str) -> str:
    return name.lower().replace(" ", "_")


METRICS: Final = (
    _gauge("workitems", "Workitems in the worklist"),
    *(_gauge(f"workitems_{_word(state.value)}", f"Workitems that are {state.value}") for state in State),
    _gauge("late", "Workitems that are late or stuck, for any reason"),
    _gauge("late_maximum", "The largest number of these in any worklist label"),
    *(_gauge(f"late_{kind.value}", f"Late: {_LATE[kind]}") for kind in LateKind),
    _gauge("scheduled_oldest_seconds", "Time since the earliest past start of a scheduled workitem"),
    _gauge("in_progress_longest_seconds", "Time since the earliest claim of a workitem that is in progress"),
    *(
        _counter(f"accepted_{_word(service.value)}", f"Accepted requests: {service.value}")
        for service in _CHANGING
    ),
    *(
        _counter(f"refused_{_word(service.value)}", f"Refused requests: {service.value}")
        for service in _CHANGING
    ),
    _counter("subscriptions_created", "Subscriptions created, both global and to single workitems"),
    _counter("subscriptions_removed", "Subscriptions removed"),
    _counter("subscriptions_suspended", "Global subscriptions suspended"),
    _counter("locks_released", "Deletion Locks released by an operator or by Ups.MaximumLockAge"),
    _gauge("subscriptions_active", "Subscriptions in force: global, filtered and to single workitems"),
    _gauge("subscribers", "AE titles with at least one subscription"),
    _counter("events_sent", "Events delivered, once per receiver and channel"),
    *(
        _counter(f"events_sent_{kind.name.lower()}", f"Events delivered: {_TYPES[kind]}")
        for kind in EventType
    ),
    *(_counter(f"events_sent_{channel}", f"Events delivered by {channel}") for channel in _CHANNELS),
    *(_counter(f"events_{name}", meaning) for name, meaning in _OUTCOMES.items()),
    _gauge("events_pending", "Events waiting for a receiver"),
    _gauge("events_pending_maximum", "Events waiting for the receiver that is furthest behind"),
    _gauge("events_pending_oldest_seconds", "Age of the oldest waiting event"),
    _gauge("subscribers_failing", "Receivers that cannot be reached now; delivery to them is retried"),
    _gauge("subscribers_refusing", "Receivers whose last event became a dead letter"),
    _gauge("subscribers_unreachable", "Receivers with waiting events and without a configured address"),
    _gauge("dead_letters", "Stored dead letters"),
    _gauge(
        "delivery_seconds_median_maximum",
        "Median time from a change to its delivery, for the slowest receiver",
    ),
    _gauge("delivery_seconds_p95_maximum", "The 95th percentile of that time, for the slowest receiver"),
    _gauge("service_open", "1 while GET /ups/health answers 200 (open, or on standby), else 0"),
    _gauge("dimse_port_open", "1 while the DIMSE port accepts connections, else 0"),
    _gauge("http_port_open", "1 while the plugin's HTTP port accepts connections, else 0"),
    _gauge("associations", "DICOM associations that peers have opened to the UPS port"),
    _gauge("event_associations", "DICOM associations open to receivers of events"),
    _gauge("http_connections", "Connections to the DICOMweb port, WebSockets included"),
    _gauge("web_sockets", "Open WebSockets"),
    _gauge("commands_in_flight", "Changes that are being written"),
    _gauge("store_silent", "1 while Orthanc's store does not answer, else 0"),
    _gauge("projection_broken", "1 while the projection is being rebuilt and requests are refused, else 0"),
    _counter("restores", "Times that the worklist was deleted in Orthanc and written back"),
    _counter("rebuilds", "Times that the search index failed and was rebuilt"),
    _counter("uploads_refused", "Refused uploads of UPS instances"),
    _counter("rules_fired", "Times that a rule fired"),
    *(_counter(f"rules_{name}", meaning) for name, meaning in _BY_RULES.items()),
    _counter("worklist_queries", "Worklist queries (MWL) that were answered from the workitems"),
    _counter("worklist_answers", "Workitems returned by worklist queries"),
    _counter("mpps_created", "Performed procedure steps (MPPS) created"),
    _counter("mpps_completed", "Performed procedure steps completed"),
    _counter("mpps_discontinued", "Performed procedure steps discontinued"),
    _gauge("rules_waiting", "Series, studies and patients that are not yet stable, and that rules wait for"),
    _gauge("leader", "1 on the Orthanc that keeps the worklist, 0 on a standby"),
    _gauge(
        "lag_seconds",
        "Seconds by which the search index of a standby is behind the store; 0 on the leader",
    ),
    _gauge("nodes", "Orthancs that share this worklist and are alive"),
)
"""Every metric, in the order of docs/metrics.md."""

METER_READINGS: Final = (
    "ups_service_open",
    "ups_dimse_port_open",
    "ups_http_port_open",
    "ups_associations",
    "ups_event_associations",
    "ups_http_connections",
    "ups_web_sockets",
    "ups_commands_in_flight",
    "ups_store_silent",
    "ups_projection_broken",
    "ups_uploads_refused_total",
    "ups_rules_waiting",
    "ups_leader",
    "ups_lag_seconds",
    "ups_nodes",
)
"""Metrics whose values come from ``Sources.meters``."""


@dataclass(frozen=True, slots=True)
class EndpointFigures:
    """The figures of an endpoint of delivery.

    Attributes:
        pending: the number of waiting events.
        oldest_at: when the oldest of them was committed, seconds since the epoch; None if none waits.
        retry_at: when the next attempt is due, seconds since the epoch; None if it is not waiting for one.
        dead_letters: the number of its dead letters.
        latency_median, latency_p95: seconds from a change to its delivery; None if nothing was delivered.
        refuses: True if it has dead letters and has accepted nothing since its last error.
        is_unreachable: True if events wait and the AE has no address.
    """

    pending: int
    oldest_at: float | None
    retry_at: float | None
    dead_letters: int
    latency_median: float | None
    latency_p95: float | None
    refuses: bool = False
    is_unreachable: bool = False


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the figures come from. Everything is called on the loop.

    Attributes:
        counters: counters of the worklist (``WorklistState.counters``).
        deliveries: counters by (outcome, channel, event type) (``Delivery.counts.all``).
        reports: the figures of every endpoint; may be a generator.
        states: number of workitems by Procedure Step State; may raise if they cannot be counted now.
        late: number of late workitems; may raise likewise.
        subscriptions: the number of subscriptions, and of AEs that have any.
        meters: a reading for each of METER_READINGS.
        now: seconds since the epoch.
    """

    counters: Callable[[], Mapping[str, int]]
    deliveries: Callable[[], Mapping[tuple[str, str, EventType], int]]
    reports: Callable[[], Iterable[EndpointFigures]]
    states: Callable[[], Awaitable[Mapping[str, int]]]
    late: Callable[[], Awaitable[LateSummary]]
    subscriptions: Callable[[], tuple[int, int]]
    meters: Mapping[str, Callable[[], float]]
    now: Callable[[], float]


def publisher(orthanc: Orthanc) -> Callable[[str, float], None]:
    """The function that sets a metric in this Orthanc: integers exactly if Orthanc can, others to seven digits."""
    kind = orthanc.MetricsType.DEFAULT
    exact = getattr(orthanc, "SetMetricsIntegerValue", None)

    def publish(name: str, value: float) -> None:
        if exact is not None and value == int(value):
            exact(name, int(value), kind)
        else:
            orthanc.SetMetricsValue(name, float(value), kind)

    return publish


class Metrics:
    """Reads the sources every two seconds and publishes every metric of the table."""

    def __init__(self, sources: Sources, publish: Callable[[str, float], None]) -> None:
        """``publish`` takes name and value. Raises ValueError if a meter is missing or unknown."""
        unmatched = set(METER_READINGS) ^ set(sources.meters)
        if unmatched:
            raise ValueError(
                f"no reading for a metric, or no metric for a reading: {', '.join(sorted(unmatched))}"
            )
        self._sources = sources
        self._publish = publish
        self._last_counts: dict[str, float] = {}

    async def run(self) -> None:
        """Publish every two seconds, forever."""
        while True:
            try:
                await self.publish()
            except Exception:
                _log.exception("Cannot publish metrics")
            await asyncio.sleep(_EVERY)

    async def publish(self) -> None:
        """Publish every metric of the table."""
        readings = await self.read()
        for metric in METRICS:
            self._publish(metric.name, readings.get(metric.name, 0))

    async def read(self) -> dict[str, float]:
        """Values by the name of the metric; an absent name means 0."""
        sources = self._sources
        counted = {f"ups_{name}_total": float(count) for name, count in sources.counters().items()}
        metered = {name: float(read()) for name, read in sources.meters.items()}
        active, subscribers = sources.subscriptions()
        return {
            **counted,
            **metered,
            **await self._workitems(),
            **_deliveries(sources.deliveries()),
            **_endpoints(await _collect(sources.reports()), sources.now()),
            "ups_subscriptions_active": active,
            "ups_subscribers": subscribers,
        }

    async def _workitems(self) -> dict[str, float]:
        """Counts by state and lateness; the last ones if workitems cannot be counted now."""
        try:
            states, late = await self._sources.states(), await self._sources.late()
        except Exception as error:
            _log.debug("Cannot count workitems: %s", error)
            return self._last_counts
        by_state = {
            f"ups_workitems_{_word(state.value)}": float(states.get(state.value, 0)) for state in State
        }
        total = float(sum(states.values()))
        self._last_counts = {"ups_workitems": total, **by_state, **_late(late, self._sources.now())}
        return self._last_counts


def _late(summary: LateSummary, now: float) -> dict[str, float]:
    oldest, longest = summary.oldest_scheduled, summary.longest_in_progress
    return {
        "ups_late": summary.total,
        "ups_late_maximum": max(summary.by_worklist().values(), default=0),
        **{f"ups_late_{kind.value}": count for kind, count in summary.by_kind().items()},
        "ups_scheduled_oldest_seconds": max(0.0, now - oldest[1]) if oldest else 0.0,
        "ups_in_progress_longest_seconds": max(0.0, now - longest[1]) if longest else 0.0,
    }


async def _collect(reports: Iterable[EndpointFigures]) -> list[EndpointFigures]:
    """Collect the figures, yielding to the loop now and then: a thousand reports take some milliseconds."""
    figures: list[EndpointFigures] = []
    for report in reports:
        figures.append(report)
        if len(figures) % _CHUNK == 0:
            await asyncio.sleep(0)
    return figures


def _deliveries(counts: Mapping[tuple[str, str, EventType], int]) -> dict[str, float]:
    readings: dict[str, float] = {}

    def add(name: str, count: int) -> None:
        readings[f"ups_events_{name}_total"] = readings.get(f"ups_events_{name}_total", 0.0) + count

    for (outcome, channel, kind), count in counts.items():
        if outcome == "delivered":
            for name in ("sent", f"sent_{kind.name.lower()}", f"sent_{channel.partition(':')[0]}"):
                add(name, count)
        elif outcome in _OUTCOMES:
            add(outcome, count)
    return readings


def _endpoints(reports: list[EndpointFigures], now: float) -> dict[str, float]:
    oldest = min((report.oldest_at for report in reports if report.pending and report.oldest_at), default=now)
    return {
        "ups_events_pending": sum(report.pending for report in reports),
        "ups_events_pending_maximum": max((report.pending for report in reports), default=0),
        "ups_events_pending_oldest_seconds": max(0.0, now - oldest),
        "ups_subscribers_failing": sum(
            report.pending > 0 and report.retry_at is not None for report in reports
        ),
        "ups_subscribers_refusing": sum(report.refuses for report in reports),
        "ups_subscribers_unreachable": sum(report.is_unreachable for report in reports),
        "ups_dead_letters": sum(report.dead_letters for report in reports),
        "ups_delivery_seconds_median_maximum": max(
            (report.latency_median or 0.0 for report in reports), default=0.0
        ),
        "ups_delivery_seconds_p95_maximum": max(
            (report.latency_p95 or 0.0 for report in reports), default=0.0
        ),
    }


# --- the figures of a running service ---


@dataclass(frozen=True, slots=True)
class Instruments:
    """Functions for metrics and audit records.

    Attributes:
        publish: sets a metric by its name.
        emit: emits an audit record; None if this Orthanc has no audit log.
        uploads_refused: the number of refused uploads of UPS instances.
    """

    publish: Callable[[str, float], None]
    emit: Emit | None
    uploads_refused: Callable[[], int]


@dataclass(frozen=True, slots=True)
class Interfaces:
    """The interfaces whose figures are published."""

    dimse: DimseServer
    events: DimseChannel
    http: HttpPort
    health: Health
    sockets: WebSocketChannel
    rules_waiting: Callable[[], int]
    nodes: Callable[[], int]


def meters(interfaces: Interfaces, instruments: Instruments) -> Mapping[str, Callable[[], float]]:
    """The functions that read the metrics of the interfaces, by the name of the metric."""
    return {
        "ups_service_open": lambda: interfaces.health.report().is_well,
        "ups_associations": lambda: interfaces.dimse.associations,
        "ups_event_associations": lambda: interfaces.events.associations,
        "ups_http_connections": lambda: interfaces.http.connections,
        "ups_dimse_port_open": lambda: interfaces.dimse.is_open,
        "ups_http_port_open": lambda: interfaces.http.is_open,
        "ups_web_sockets": lambda: sum(1 for _ in interfaces.sockets.connections()),
        "ups_uploads_refused_total": instruments.uploads_refused,
        "ups_rules_waiting": interfaces.rules_waiting,
        "ups_leader": lambda: interfaces.health.role is not Role.STANDBY,
        "ups_lag_seconds": lambda: 0.0,
        "ups_nodes": interfaces.nodes,
    }


def sources(service: UpsService, meters: Mapping[str, Callable[[], float]], late: LateWatch) -> Sources:
    """All sources. ``meters`` are those of the interfaces; those of the service are added."""
    own: dict[str, Callable[[], float]] = {
        "ups_commands_in_flight": lambda: service.in_flight,
        "ups_store_silent": lambda: service.store_is_silent,
        "ups_projection_broken": lambda: service.workitems.broken,
    }
    return Sources(
        counters=lambda: dict(service.counters),
        deliveries=service.delivery.counts.all,
        reports=lambda: _figures(service.delivery),
        states=Sparing(lambda: _states(service), _EVERY / 2).get,
        late=late.summary,
        subscriptions=lambda: subscription_counts(service.subscriptions),
        meters={**own, **meters},
        now=service.clock.now,
    )


async def _states(service: UpsService) -> Mapping[str, int]:
    return (await service.projection.counts()).by_state


def _figures(delivery: Delivery) -> Iterator[EndpointFigures]:
    return (_figures_of(worker, delivery) for worker in list(delivery.workers()))


def _figures_of(worker: Worker, delivery: Delivery) -> EndpointFigures:
    pause = worker.backoff.remaining
    return EndpointFigures(
        pending=worker.queue.pending,
        oldest_at=worker.queue.oldest_at,
        retry_at=delivery.clock.now() + pause if pause > 0 else None,
        dead_letters=delivery.dead.count(worker.endpoint),
        latency_median=worker.tally.latency(0.5),
        latency_p95=worker.tally.latency(0.95),
        refuses=delivery.dead.count(worker.endpoint) > 0
        and (worker.tally.last_error_at or 0.0) >= (worker.tally.last_success_at or 0.0),
        is_unreachable=worker.queue.pending > 0
        and worker.durable
        and not worker.channel.serves(worker.endpoint.receiving_ae),
    )


def subscription_counts(subscriptions: Subscriptions) -> tuple[int, int]:
    """The number of subscriptions in force, and of AEs that have at least one."""
    active = [_active(subscriptions, ae) for ae in subscriptions.aes()]
    return sum(active), sum(count > 0 for count in active)


def _active(subscriptions: Subscriptions, receiving_ae: str) -> int:
    standing = subscriptions.standing(receiving_ae)
    globally = standing.everything is not Subscription.NONE
    return globally + len(standing.filters) + subscriptions.specifics.count(receiving_ae)
