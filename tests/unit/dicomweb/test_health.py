# SPDX-License-Identifier: AGPL-3.0-or-later
"""``GET /ups/health``: what the service can do, from memory, for everybody, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from orthanc_ups.dicomweb.http_port import health_answer, unavailable
from orthanc_ups.health import Health, Role
from tests.support.web_service import LettingIn, WebService


@pytest.fixture
def service() -> Iterator[WebService]:
    with WebService(upstream=LettingIn({"ris": "secret"})) as running:
        yield running


def test_the_health_needs_no_credentials_and_tells_state_and_role_only(service: WebService) -> None:
    assert service.get("/workitems").status_code == 401
    answer = requests.get(f"{service.origin}/ups/health", timeout=60)
    assert (answer.status_code, answer.json()) == (200, {"State": "open", "Role": "alone"})
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_store_that_is_silent_is_503_with_the_reason(service: WebService) -> None:
    service.trouble = "the disk is full"
    answer = requests.get(f"{service.origin}/ups/health?from=probe", timeout=60)
    expected = {"State": "store silent", "Role": "alone", "Reason": "the disk is full"}
    assert (answer.status_code, answer.json()) == (503, expected)
    service.trouble = ""
    assert requests.get(f"{service.origin}/ups/health", timeout=60).status_code == 200


def test_head_has_the_status_and_other_methods_are_refused(service: WebService) -> None:
    head = requests.head(f"{service.origin}/ups/health", timeout=60)
    assert (head.status_code, head.content) == (200, b"")
    assert requests.post(f"{service.origin}/ups/health", timeout=60).status_code == 405


def test_before_the_worklist_is_open_everything_is_503_with_the_reason() -> None:
    health = Health()
    health.waits_for("cannot open the worklist: Orthanc answered 500")
    assert health_answer("GET", health.report()).status == 503
    answer = unavailable(health.report())
    assert answer.status == 503
    assert b"not open yet: cannot open the worklist: Orthanc answered 500" in answer.body
    assert answer.header("Retry-After")


def test_each_state_and_role_has_its_word() -> None:
    health = Health()
    states = [health.report().state.value]
    health.opened(str)
    states.append(health.report().state.value)
    health.role = Role.LEADER
    assert health.report().role.value == "leader"
    health.failed('"ReadOnly" is true')
    assert not health.report().is_well
    states.append(health.report().state.value)
    health.stopping()
    states.append(health.report().state.value)
    assert states == ["starting", "open", "failed", "stopping"]
