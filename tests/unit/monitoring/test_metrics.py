# SPDX-License-Identifier: AGPL-3.0-or-later
"""Every metric of the table is published, with the figure that its name promises."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import element
from orthanc_ups.core.events import EventType
from orthanc_ups.core.lateness import LateKind
from orthanc_ups.monitoring import metrics as figures
from orthanc_ups.monitoring.metrics import (
    METER_READINGS,
    METRICS,
    EndpointFigures,
    MetricKind,
    Metrics,
    Sources,
    publisher,
)
from orthanc_ups.projection.late import LateGroup
from orthanc_ups.worklist.late_watch import LateSummary
from tests.support.service import FILTERED, GLOBAL, ServiceRig, late_watch, on_loop
from tests.support.workitems import progress

NAMES = [metric.name for metric in METRICS]
METERS = {name: (lambda value=at: value) for at, name in enumerate(METER_READINGS, 1)}


async def states() -> Mapping[str, int]:
    return {"SCHEDULED": 4, "IN PROGRESS": 1}


async def late() -> LateSummary:
    kinds = dict.fromkeys(LateKind, 0)
    groups = (
        LateGroup("READING", "room 7", 3, {**kinds, LateKind.START: 3, LateKind.INPUTS: 1}),
        LateGroup("AI", "", 1, {**kinds, LateKind.SILENT: 1}),
    )
    return LateSummary(groups, ("1.2.3", 700.0), ("1.2.4", 400.0))


@on_loop
async def test_late_work_can_be_watched() -> None:
    readings = await Metrics(sources(), lambda name, value: None).read()
    assert readings["ups_late"] == 4 and readings["ups_late_maximum"] == 3
    assert [readings[f"ups_late_{kind.value}"] for kind in LateKind] == [3, 1, 0, 0, 1]
    assert readings["ups_scheduled_oldest_seconds"] == 300.0
    assert readings["ups_in_progress_longest_seconds"] == 600.0


def sources(**others: object) -> Sources:
    usual: dict[str, object] = {
        "counters": lambda: {"subscriptions_created": 3, "restores": 1},
        "deliveries": lambda: {
            ("delivered", "dimse", EventType.STATE_REPORT): 5,
            ("delivered", "webhook:PACS", EventType.ASSIGNED): 2,
            ("delivered", "webhook:RIS", EventType.STATE_REPORT): 1,
            ("offered", "dimse", EventType.STATE_REPORT): 9,
            ("failed", "dimse", EventType.STATE_REPORT): 7,
        },
        "reports": lambda: [
            EndpointFigures(3, 940.0, 1010.0, 2, 0.1, 4.0),
            EndpointFigures(8, 990.0, None, 0, 0.2, 0.3),
            EndpointFigures(0, None, 1020.0, 0, None, None),
        ],
        "states": states,
        "late": late,
        "subscriptions": lambda: (6, 2),
        "meters": METERS,
        "now": lambda: 1000.0,
    }
    return Sources(**{**usual, **others})  # type: ignore[arg-type]


@on_loop
async def test_every_metric_is_published_each_time() -> None:
    published: list[tuple[str, float]] = []
    metrics = Metrics(sources(), lambda name, value: published.append((name, value)))
    await metrics.publish()
    assert [name for name, _ in published] == NAMES


@on_loop
async def test_the_figures_are_those_of_their_sources() -> None:
    result = await Metrics(sources(), lambda name, value: None).read()
    assert result["ups_workitems"] == 5 and result["ups_workitems_in_progress"] == 1
    assert result["ups_subscriptions_created_total"] == 3 and result["ups_restores_total"] == 1
    assert result["ups_events_sent_total"] == 8 and result["ups_events_sent_webhook_total"] == 3
    assert result["ups_events_sent_state_report_total"] == 6 and result["ups_events_sent_assigned_total"] == 2
    assert result["ups_events_failed_total"] == 7
    assert result["ups_events_pending"] == 11 and result["ups_events_pending_maximum"] == 8
    assert result["ups_events_pending_oldest_seconds"] == 60
    assert result["ups_subscribers_failing"] == 1 and result["ups_dead_letters"] == 2
    assert result["ups_delivery_seconds_median_maximum"] == 0.2
    assert result["ups_delivery_seconds_p95_maximum"] == 4.0
    assert result["ups_subscriptions_active"] == 6 and result["ups_subscribers"] == 2
    assert result["ups_service_open"] == 1 and result[METER_READINGS[-1]] == len(METER_READINGS)


@on_loop
async def test_workitems_that_cannot_be_counted_now_are_told_as_before() -> None:
    answers = [{"SCHEDULED": 4}]

    async def fading() -> Mapping[str, int]:
        return answers.pop()

    metrics = Metrics(sources(states=fading), lambda name, value: None)
    assert (await metrics.read())["ups_workitems_scheduled"] == 4
    assert (await metrics.read())["ups_workitems_scheduled"] == 4


def test_names_are_those_of_prometheus_and_say_what_they_count() -> None:
    assert len(NAMES) == len(set(NAMES))
    for metric in METRICS:
        assert re.fullmatch(r"ups_[a-z0-9_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind is MetricKind.COUNTER)
        assert metric.meaning and not metric.meaning.endswith(".")


@pytest.mark.parametrize("meters", [{}, {**METERS, "ups_ghosts": lambda: 0.0}])
def test_every_meter_must_be_there_and_be_known(meters: Mapping[str, object]) -> None:
    with pytest.raises(ValueError, match=r"ups_associations|ups_ghosts"):
        Metrics(sources(meters=meters), lambda name, value: None)


@on_loop
async def test_a_running_worklist_tells_what_it_has() -> None:
    rig = await ServiceRig("AI", "RIS", "DOSE").start()
    wires = set(METER_READINGS) - {"ups_commands_in_flight", "ups_store_silent", "ups_projection_broken"}
    metrics = Metrics(
        figures.sources(rig.service, dict.fromkeys(wires, lambda: 0.0), late_watch(rig.service)),
        lambda *arguments: None,
    )
    await rig.create(1)
    await rig.create(2)
    await rig.claim(2)
    await rig.subscribe("AI", GLOBAL)
    await rig.subscribe("AI", 1)
    await rig.subscribe("RIS", FILTERED, keys={tags.PRIORITY: element("CS", "HIGH")})
    await rig.subscribe("DOSE", GLOBAL)
    await rig.unsubscribe("DOSE", GLOBAL)
    rig.channel.down["AI"] = "it is switched off"
    await rig.cancel(1)
    await rig.pass_by(30)
    result = await metrics.read()
    assert result["ups_workitems"] == 2 and result["ups_workitems_in_progress"] == 1
    assert result["ups_subscriptions_active"] == 3 and result["ups_subscribers"] == 2
    assert result["ups_subscriptions_created_total"] == 4 and result["ups_subscriptions_removed_total"] == 1
    assert result["ups_events_pending"] == 2 and result["ups_events_pending_oldest_seconds"] == 30
    assert result["ups_subscribers_failing"] == 1
    assert result["ups_events_sent_total"] == 1 == result["ups_events_sent_state_report_total"]
    assert result["ups_commands_in_flight"] == 0 == result["ups_store_silent"]


def test_whole_figures_are_published_exactly_where_orthanc_can() -> None:
    calls: list[tuple[Any, ...]] = []
    older = SimpleNamespace(
        MetricsType=SimpleNamespace(DEFAULT=0),
        SetMetricsValue=lambda *arguments: calls.append(("float", *arguments)),
    )
    newer = SimpleNamespace(
        **vars(older), SetMetricsIntegerValue=lambda *arguments: calls.append(("integer", *arguments))
    )
    for orthanc in (older, newer):
        publish = publisher(cast("Any", orthanc))
        publish("ups_workitems", 20_000_001.0)
        publish("ups_delivery_seconds_p95_maximum", 0.25)
    assert calls == [
        ("float", "ups_workitems", 20_000_001.0, 0),
        ("float", "ups_delivery_seconds_p95_maximum", 0.25, 0),
        ("integer", "ups_workitems", 20_000_001, 0),
        ("float", "ups_delivery_seconds_p95_maximum", 0.25, 0),
    ]


@on_loop
async def test_a_running_worklist_counts_what_the_table_names() -> None:
    """The names under which the worklist counts are those of the table."""
    rig = await ServiceRig("AI", "RIS").start()
    await rig.create(1)
    await rig.subscribe("AI", GLOBAL)
    await rig.subscribe("RIS", 1, lock=True)
    await rig.suspend("AI")
    await rig.claim(1)
    await rig.update(progress(), 1)
    await rig.release_lock("RIS", 1)
    await rig.unsubscribe("RIS", 1)
    await rig.create(2)
    await rig.cancel(2)
    counted = {f"ups_{name}_total" for name in rig.service.counters}
    assert counted <= set(NAMES)
    assert {"ups_subscriptions_created_total", "ups_subscriptions_removed_total"} <= counted
