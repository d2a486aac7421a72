# SPDX-License-Identifier: AGPL-3.0-or-later
"""A real Orthanc shows every metric of the plugin and accepts its audit records, with AllowThreads on and off."""

from typing import Any

import pytest
import requests

from orthanc_ups.monitoring.metrics import METRICS
from tests.support.orthanc import RealOrthanc
from tests.support.plugin_scripts import write_script
from tests.support.waiting import wait_until

SCRIPT = """
import asyncio
from orthanc_ups.monitoring import audit, metrics
from orthanc_ups.worklist.late_watch import LateSummary

ALLOWED = json.loads(orthanc.GetConfiguration())["Python"]["AllowThreads"]
EMITTED, TOLD = [], {}
real = getattr(orthanc, "EmitAuditLog", None)

def recorded(*given):
    real(*given)
    EMITTED.append(given[1])

if real is not None:
    orthanc.EmitAuditLog = recorded

async def nothing():
    return {"SCHEDULED": 20000001}

async def nothing_late():
    return LateSummary()

SOURCES = metrics.Sources(
    counters=lambda: {"accepted_create": 3}, deliveries=dict, reports=list, states=nothing,
    late=nothing_late,
    subscriptions=lambda: (2, 1), meters={name: lambda: 0.0 for name in metrics.METER_READINGS},
    now=lambda: 0.0,
)

def answer(output, uri, **request):
    asyncio.run(metrics.Metrics(SOURCES, metrics.publisher(orthanc)).publish())
    emit = audit.emitter(orthanc, allow_threads=ALLOWED)
    TOLD["emits"] = emit is not None
    if emit is not None:
        log = audit.AuditLog(emit)
        log.start()
        for number in range(100):
            log._waiting.put(audit.AuditRecord("anna", f"1.2.{number}", "ups-create", b"{}"))
        TOLD["stopped"] = log.stop(5.0)
    output.AnswerBuffer(json.dumps({**TOLD, "emitted": len(EMITTED)}), "application/json")

orthanc.RegisterRestCallback("/test", answer)
"""


@pytest.fixture(scope="module", params=[True, False], ids=["AllowThreads", "no AllowThreads"])
def report(suite: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    script = write_script(tmp_path_factory.mktemp("metrics"), SCRIPT)
    with RealOrthanc(suite, {"Python": {"AllowThreads": request.param}}, script=script) as orthanc:
        content: dict[str, Any] = requests.get(f"{orthanc.base_url}/test", timeout=60).json()
        url = f"{orthanc.base_url}/tools/metrics-prometheus"
        names = {metric.name for metric in METRICS}
        wait_until(lambda: names <= shown_by(url).keys(), "the metrics are there")
        return content | {
            "suite": suite,
            "allowed": request.param,
            "metrics": {name: value for name, value in shown_by(url).items() if name.startswith("ups_")},
        }


def shown_by(url: str) -> dict[str, str]:
    """The metrics that Orthanc shows, with their values."""
    lines = (line.split(" ") for line in requests.get(url, timeout=60).text.splitlines())
    return {name: value for name, value, *_ in lines}


def test_every_metric_is_shown(report: dict[str, Any]) -> None:
    assert sorted(report["metrics"]) == sorted(metric.name for metric in METRICS)
    assert report["metrics"]["ups_accepted_create_total"] == "3"
    assert report["metrics"]["ups_subscriptions_active"] == "2"


def test_large_counts_are_exact_where_orthanc_can(report: dict[str, Any]) -> None:
    shown = report["metrics"]["ups_workitems"]
    assert shown == "20000001" if report["suite"] != "trixie" else float(shown) == pytest.approx(20000001)


def test_audit_records_are_taken_where_there_is_such_a_call_and_threads_are_allowed(
    report: dict[str, Any],
) -> None:
    expected = report["allowed"] and report["suite"] != "trixie"
    assert report["emits"] == expected
    assert report["emitted"] == (100 if expected else 0)
    assert report.get("stopped", True)
