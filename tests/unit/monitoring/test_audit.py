# SPDX-License-Identifier: AGPL-3.0-or-later
"""One audit record per accepted change, without patient data or Transaction UID, and never in the way."""

from __future__ import annotations

import logging
import threading
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from orthanc_ups.core.commands import Close, Create, Purge, Requester
from orthanc_ups.core.outcome import Outcome
from orthanc_ups.core.statuses import SUCCESS
from orthanc_ups.monitoring import audit
from orthanc_ups.monitoring.audit import AuditLog, AuditRecord, emitter
from tests.support.service import SCHEDULER, TRANSACTION, ServiceRig, on_loop
from tests.support.workitems import full, performed, uid

ANNA = Requester("WORKLIST", "page", "anna")


def orthanc_with(emit: Any) -> Any:
    return SimpleNamespace(ResourceType=SimpleNamespace(NONE=4), EmitAuditLog=emit)


@on_loop
async def test_each_accepted_change_is_recorded_with_who_what_and_which() -> None:
    records: list[AuditRecord] = []
    rig = await ServiceRig("AI").start()
    rig.service.worklist.observers.append(lambda *act: records.append(audit.record_of(*act)))
    await rig.create(1, full("greek"))
    await rig.subscribe("AI", 1, lock=True)
    await rig.complete(1)
    await rig.release_lock("AI", 1)
    assert [record.action for record in records] == [
        "ups-create", "ups-subscribe", "ups-change-state", "ups-update", "ups-change-state", "ups-release-lock",
    ]  # fmt: skip
    assert {record.uid for record in records} == {uid(1)} and {record.user for record in records} == {
        "SCHEDULER"
    }
    content = orjson.loads(records[1].data)
    assert content == {
        "ae": "SCHEDULER", "via": "DIMSE", "status": "SUCCESS", "receiving_ae": "AI", "lock": True,
    }  # fmt: skip
    assert orjson.loads(records[2].data)["state"] == "IN PROGRESS"
    for record in records:
        data = record.data.decode()
        assert TRANSACTION not in data and "Καστανίδης" not in data


@on_loop
async def test_what_is_refused_leaves_no_record() -> None:
    acts: list[object] = []
    rig = await ServiceRig().start()
    rig.service.worklist.observers.append(lambda *act: acts.append(act))
    await rig.refused(Purge(SCHEDULER, uid(1)))
    await rig.create(1)
    await rig.refused(Create(SCHEDULER, uid(1), full()))
    assert len(acts) == 1


def test_a_user_is_named_rather_than_the_worklist_itself() -> None:
    record = audit.record_of(Close(ANNA, uid(1), "COMPLETED", performed()), Outcome(SUCCESS, uid(1)))
    assert record.user == "anna" and record.action == "ups-close"
    assert orjson.loads(record.data) == {
        "ae": "WORKLIST", "via": "page", "status": "SUCCESS", "state": "COMPLETED",
    }  # fmt: skip


def test_orthanc_gets_source_user_level_resource_action_and_data() -> None:
    calls: list[tuple[Any, ...]] = []
    emit = emitter(orthanc_with(lambda *arguments: calls.append(arguments)), allow_threads=True)
    assert emit is not None
    emit(AuditRecord("anna", uid(1), "ups-create", b"{}"))
    assert calls == [("orthanc-ups", "anna", 4, uid(1), "ups-create", b"{}")]


def test_where_it_could_hold_up_the_interpreter_or_is_unknown_nothing_is_emitted() -> None:
    assert emitter(orthanc_with(print), allow_threads=False) is None
    older: Any = SimpleNamespace(ResourceType=SimpleNamespace(NONE=4))
    assert emitter(older, allow_threads=True) is None


def test_records_are_emitted_in_order_on_a_thread_of_their_own() -> None:
    emitted: list[tuple[str, str]] = []
    log = AuditLog(lambda record: emitted.append((record.uid, threading.current_thread().name)))
    log.start()
    for number in range(50):
        log.accepted(Purge(ANNA, uid(number)), Outcome(SUCCESS, uid(number)))
    assert log.stop(60.0)
    assert emitted == [(uid(number), "ups-audit") for number in range(50)]


def test_the_thread_is_woken_once_for_all_that_happens_in_a_moment() -> None:
    emitted: list[str] = []
    later: list[Any] = []
    log = AuditLog(lambda record: emitted.append(record.uid), later.append)
    log.start()
    for number in range(3):
        log.accepted(Purge(ANNA, uid(number)), Outcome(SUCCESS, uid(number)))
    (work,) = later
    assert not emitted
    work()
    log.accepted(Purge(ANNA, uid(3)), Outcome(SUCCESS, uid(3)))
    assert len(later) == 2
    log.hand_over()
    assert log.stop(60.0)
    assert emitted == [uid(number) for number in range(4)]


def test_a_slow_orthanc_holds_nobody_up_and_is_reported_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(audit, "MAXIMUM_WAITING", 3)
    release, started = threading.Event(), threading.Event()

    def emit(record: AuditRecord) -> None:
        started.set()
        release.wait(60.0)

    log = AuditLog(emit)
    log.start()
    log.accepted(Purge(ANNA, uid(0)), Outcome(SUCCESS, uid(0)))
    assert started.wait(60.0)
    with caplog.at_level(logging.ERROR, "orthanc_ups.monitoring.audit"):
        for number in range(10):
            log.accepted(Purge(ANNA, uid(number)), Outcome(SUCCESS, uid(number)))
    assert [record.message for record in caplog.records] == [
        "Orthanc takes audit records too slowly; some are discarded"
    ]
    assert not log.stop(0.05)
    release.set()
    assert log.stop(60.0)


def test_an_orthanc_that_fails_is_reported_once_and_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    emitted: list[str] = []

    def emit(record: AuditRecord) -> None:
        emitted.append(record.uid)
        raise RuntimeError("the database is down")

    log = AuditLog(emit)
    log.start()
    with caplog.at_level(logging.ERROR, "orthanc_ups.monitoring.audit"):
        for number in range(3):
            log.accepted(Purge(ANNA, uid(number)), Outcome(SUCCESS, uid(number)))
        assert log.stop(60.0)
    assert len(emitted) == 3
    assert [record.message for record in caplog.records] == [
        "Orthanc does not accept audit records: the database is down"
    ]


def test_a_log_that_never_started_stops_at_once() -> None:
    assert AuditLog(lambda record: None).stop(0.0)
