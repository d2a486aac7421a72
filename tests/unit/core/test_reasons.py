# SPDX-License-Identifier: AGPL-3.0-or-later
"""Why something was done is kept: in the history, in what is remembered of a deleted workitem, in the audit log."""

from __future__ import annotations

import logging
from dataclasses import replace

import orjson
import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.commands import ChangeState, Purge, ReleaseLock, RequestCancel, Requester, Subscribe
from orthanc_ups.core.dataset import element
from orthanc_ups.core.reasons import MAXIMUM, discreet
from orthanc_ups.core.statuses import GONE, UpsError
from orthanc_ups.core.workitem import HistoryEntry, Workitem, digest
from orthanc_ups.management.inspection import ServiceInspection
from orthanc_ups.monitoring import audit
from orthanc_ups.store.documents import decode, encode
from tests.support.management_rig import ManagementRig as PageRig
from tests.support.service import GLOBAL, OTHER_TRANSACTION, TRANSACTION, ServiceRig, late_watch, on_loop
from tests.support.transfer import exported, moved, of_kind
from tests.support.workitems import full, minimal, uid

LONG = "x" * (MAXIMUM + 1)


def anna(reason: str) -> Requester:
    return Requester("WORKLIST", "page", "anna", reason)


def about(name: str, patient_id: str = "", owner: str | None = None) -> Workitem:
    content = {
        **minimal(),
        tags.PATIENT_NAME: element("PN", {"Alphabetic": name, "Ideographic": "山田^太郎"}),
        tags.PATIENT_ID: element("LO", patient_id) if patient_id else element("LO"),
    }
    return Workitem(uid(1), 1, content, owner)


# --- what may be written down ---


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("Scanner is down", "Scanner is down"),
        ("Ms. DOE went home", "Ms. […] went home"),
        ("doe, jane: no show", "[…], […]: no show"),
        ("Does not start", "Does not start"),
        ("山田さん went home", "[…]さん went home"),
        ("4711 is the wrong patient", "[…] is the wrong patient"),
        (f"it used {TRANSACTION}", "it used […]"),
        (f"see {OTHER_TRANSACTION}", f"see {OTHER_TRANSACTION}"),
        ("two\nlines\x1b[31m\u202eand\ttabs", "two lines [31m and tabs"),
        ("", ""),
    ],
)
def test_a_reason_is_one_line_without_patient_or_transaction_uid(reason: str, expected: str) -> None:
    assert discreet(reason, about("Doe^Jane", "4711", digest(TRANSACTION))) == expected


def test_a_name_of_one_letter_or_none_blots_nothing_out() -> None:
    assert discreet("a b c", about("A^B")) == "a b c"
    assert discreet("a b c", Workitem(uid(1), 1, {})) == "a b c"


def test_a_reason_that_came_from_elsewhere_is_shortened() -> None:
    assert len(discreet(LONG)) == MAXIMUM and discreet(LONG).endswith("…")


# --- where it stands ---


@on_loop
async def test_the_history_keeps_why_and_a_restart_does_not_lose_it() -> None:
    rig = await ServiceRig("AI").start()
    await rig.create(1, full("greek"))
    await rig.do(ChangeState(anna("Room 7 has no network"), uid(1), "IN PROGRESS", TRANSACTION))
    await rig.subscribe("AI", 1, lock=True)
    await rig.do(ReleaseLock(anna("AI is switched off"), uid(1), "AI"))
    await rig.crash()
    await rig.restart()
    history = [(entry.who, entry.what, entry.why) for entry in rig.workitem().history]
    assert history == [
        ("SCHEDULER by DIMSE", "created", ""),
        ("anna as WORKLIST by page", "claimed", "Room 7 has no network"),
        ("SCHEDULER by DIMSE", "subscribed AI with a Deletion Lock", ""),
        ("anna as WORKLIST by page", "released the Deletion Lock of AI", "AI is switched off"),
    ]


@on_loop
async def test_the_reason_of_a_cancellation_request_stands_in_the_history_whoever_sent_it() -> None:
    rig = await ServiceRig().start()
    await rig.create(1)
    code = {tags.CODE_MEANING: element("LO", "Equipment failure")}
    information = {
        tags.REASON_FOR_CANCELLATION: element("LT", "Scanner is down"),
        tags.DISCONTINUATION_REASONS: element(
            "SQ", {tags.CODE_VALUE: element("SH", "110501"), tags.CODING_SCHEME: element("SH", "DCM"), **code}
        ),
    }
    await rig.do(RequestCancel(Requester("RIS", "DIMSE"), uid(1), dict(sorted(information.items()))))
    assert rig.workitem().history[-1].why == "Equipment failure: Scanner is down"


def test_documents_of_before_there_were_reasons_are_read() -> None:
    workitem = replace(about("Doe^Jane"), history=(HistoryEntry(1.0, "RIS by DIMSE", "created"),))
    assert orjson.loads(encode(workitem))["history"] == [[1.0, "RIS by DIMSE", "created"]]
    assert decode(encode(workitem)) == workitem
    explained = replace(workitem, history=(HistoryEntry(1.0, "RIS by DIMSE", "claimed", "as agreed"),))
    assert decode(encode(explained)) == explained


@on_loop
async def test_who_deleted_a_workitem_and_why_is_logged_and_remembered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = await ServiceRig().start()
    await rig.create(1, full("greek"))
    await rig.cancel(1)
    with caplog.at_level(logging.INFO, "orthanc_ups.worklist"):
        await rig.do(Purge(anna("Ordered twice for Καστανίδης"), uid(1)))
    assert f"anna as WORKLIST by page: purged (Ordered twice for […]); workitem {uid(1)}" in caplog.text
    await rig.crash()
    await rig.restart()
    inspection = ServiceInspection(rig.service, late_watch(rig.service))
    for inspect in (inspection.workitem, inspection.event_log):
        with pytest.raises(
            UpsError, match=r"by anna as WORKLIST by page: Ordered twice for \[…\]$"
        ) as refused:
            await inspect(uid(1))
        assert refused.value.status is GONE
    assert "Καστανίδης" not in caplog.text
    assert all("Καστανίδης" not in document.decode() for document in rig.stored().values())


@on_loop
async def test_reasons_move_with_an_export() -> None:
    source, target = await ServiceRig().start(), await ServiceRig().start()
    for number in (1, 2):
        await source.create(number)
        await source.do(ChangeState(anna("as agreed"), uid(number), "IN PROGRESS", TRANSACTION))
    await source.create(3)
    await source.cancel(3)
    await source.do(Purge(anna("Ordered twice"), uid(3)))
    await moved(source, target)
    assert [target.workitem(number).history[-1].why for number in (1, 2)] == ["as agreed"] * 2
    assert target.service.workitems.tombstones[uid(3)].last.why == "Ordered twice"
    purged = of_kind(await exported(target), "purged")
    assert [(line["who"], line["why"]) for line in purged] == [("anna as WORKLIST by page", "Ordered twice")]


@on_loop
async def test_the_audit_log_has_the_reason_also_of_what_has_no_history() -> None:
    records: list[audit.AuditRecord] = []
    rig = await ServiceRig("AI").start()
    rig.service.worklist.observers.append(lambda *act: records.append(audit.record_of(*act)))
    await rig.create(1, full("greek"))
    await rig.do(Subscribe(anna("New software"), GLOBAL, "AI"))
    await rig.do(ChangeState(anna("Καστανίδης waits"), uid(1), "IN PROGRESS", TRANSACTION))
    reasons = [orjson.loads(record.data).get("reason") for record in records]
    assert reasons == [None, "New software", "[…] waits"]


# --- asked for by the management API ---


def test_every_action_of_the_page_takes_a_reason() -> None:
    rig = PageRig()
    uid = rig.have()
    rig.ask("PUT", f"/workitems/{uid}/subscribers/AI", {"lock": True, "reason": "subscribe"})
    attributes = {"ScheduledProcedureStepPriority": "HIGH"}
    rig.ask("PUT", f"/workitems/{uid}", {"attributes": attributes, "reason": "edit"})
    rig.ask("POST", f"/workitems/{uid}/claim", {"reason": "claim"})
    rig.ask("DELETE", f"/workitems/{uid}/subscribers/AI/lock", query="reason=release%20it")
    rig.ask("DELETE", f"/workitems/{uid}/subscribers/AI", headers={"x-ups-query": "reason=unsubscribe"})
    rig.ask("POST", f"/workitems/{uid}/complete", {"reason": "complete"})
    reasons = [entry.get("why") for entry in rig.ask("GET", f"/workitems/{uid}")["history"]]
    assert reasons == [None, "subscribe", "edit", "claim", "release it", "unsubscribe", "complete"]
    rig.ask("DELETE", f"/workitems/{uid}", query="reason=delete")
    assert rig.worklist.commands[-1].requester.reason == "delete"


def test_a_cancellation_on_behalf_has_code_and_words_in_the_history() -> None:
    rig = PageRig()
    uid = rig.have()
    rig.ask("POST", f"/workitems/{uid}/claim", {})
    code = {"CodeValue": "110501", "CodingSchemeDesignator": "DCM", "CodeMeaning": "Equipment failure"}
    rig.ask("POST", f"/workitems/{uid}/cancel", {"reason": "Scanner is down", "code": code})
    last = rig.ask("GET", f"/workitems/{uid}")["history"][-1]
    assert last["why"] == "Equipment failure: Scanner is down"


@pytest.mark.parametrize("reason", [LONG, 7, ["x"]])
def test_a_reason_that_cannot_be_kept_is_refused_by_name_and_nothing_happens(reason: object) -> None:
    rig = PageRig()
    uid = rig.have()
    refusal = rig.refused(400, "POST", f"/workitems/{uid}/claim", {"reason": reason})
    assert refusal["error"].startswith('"reason"')
    assert rig.ask("GET", f"/workitems/{uid}")["state"] == "SCHEDULED"
    rig.refused(400, "DELETE", f"/workitems/{uid}", query=f"reason={LONG}")


def test_the_longest_reason_is_taken() -> None:
    rig = PageRig()
    uid = rig.have()
    rig.ask("POST", f"/workitems/{uid}/claim", {"reason": f"  {LONG[1:]}  "})
    assert rig.ask("GET", f"/workitems/{uid}")["history"][-1]["why"] == LONG[1:]
