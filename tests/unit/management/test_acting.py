# SPDX-License-Identifier: AGPL-3.0-or-later
"""What an operator does to a workitem is a command of the worklist, with its rules."""

from __future__ import annotations

from typing import Any

import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.commands import Close, ReleaseLock, RequestCancel
from orthanc_ups.core.dataset import element
from orthanc_ups.core.states import State
from tests.support.management_desk import Desk
from tests.support.workitems import full, minimal


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_an_operator_updates_what_is_scheduled(desk: Desk) -> None:
    uid = desk.have()
    desk.ask("PUT", f"/workitems/{uid}", {"attributes": {"ScheduledProcedureStepPriority": "HIGH"}})
    assert desk.ask("GET", f"/workitems/{uid}")["priority"] == "HIGH"


def test_an_update_in_progress_is_refused_in_words(desk: Desk) -> None:
    uid = desk.have()
    desk.ask("POST", f"/workitems/{uid}/claim", {})
    refusal = desk.refused(400, "PUT", f"/workitems/{uid}", {"attributes": {"ProcedureStepLabel": "x"}})
    assert refusal["status"] == "MISSING_TRANSACTION_UID"


def test_the_actions_follow_the_state(desk: Desk) -> None:
    uid = desk.have()

    def read() -> Any:
        return desk.ask("GET", f"/workitems/{uid}")["actions"]

    assert read() == ["edit", "claim", "request-cancel"]
    desk.ask("POST", f"/workitems/{uid}/claim", {})
    assert read() == ["complete", "cancel", "request-cancel"]
    desk.ask("POST", f"/workitems/{uid}/complete", {})
    assert read() == ["purge"]


def test_claim_and_complete_on_behalf_need_no_transaction_uid(desk: Desk) -> None:
    uid = desk.have(1, full())
    desk.ask("POST", f"/workitems/{uid}/claim", {})
    desk.clock.pass_by(minutes=15)
    closing = desk.ask("GET", f"/workitems/{uid}")["closing"]
    assert closing["PerformedProcedureStepStartDateTime"] == "20261122183000.000000+0000"
    assert closing["PerformedProcedureStepEndDateTime"] == "20261122184500.000000+0000"
    assert closing["PerformedStationNameCodeSequence"][0]["CodeValue"] == "READING7"
    desk.ask(
        "POST", f"/workitems/{uid}/complete", {"performed": {"PerformedProcedureStepDescription": "Done"}}
    )
    workitem = desk.worklist.workitems[uid]
    assert workitem.state is State.COMPLETED
    assert isinstance(desk.worklist.commands[-1], Close)
    assert workitem.attributes[tags.PERFORMED_PROCEDURE]["Value"][0]["00400254"]["Value"] == ["Done"]


def test_a_workitem_without_station_and_code_can_be_completed_too(desk: Desk) -> None:
    uid = desk.have()
    desk.ask("POST", f"/workitems/{uid}/claim", {})
    desk.ask("POST", f"/workitems/{uid}/complete", {})
    done = desk.worklist.workitems[uid].attributes[tags.PERFORMED_PROCEDURE]["Value"][0]
    assert done["00404028"]["Value"][0][tags.CODE_VALUE]["Value"] == ["UPSWORKLIST"]


def test_what_is_wrong_in_the_final_state_form_is_named(desk: Desk) -> None:
    uid = desk.have()
    desk.ask("POST", f"/workitems/{uid}/claim", {})
    refusal = desk.refused(
        409,
        "POST",
        f"/workitems/{uid}/complete",
        {"performed": {"PerformedStationNameCodeSequence": []}},
    )
    assert refusal["status"] == "FINAL_STATE_UNMET"
    assert refusal["attribute"].endswith("PerformedStationNameCodeSequence")
    assert desk.worklist.workitems[uid].state is State.IN_PROGRESS


REASON = {
    "reason": "Scanner is down",
    "code": {"CodeValue": "110501", "CodingSchemeDesignator": "DCM", "CodeMeaning": "Equipment failure"},
}


def test_a_cancellation_on_behalf_keeps_reason_and_progress(desk: Desk) -> None:
    uid = desk.have()
    desk.ask("POST", f"/workitems/{uid}/claim", {})
    desk.ask("POST", f"/workitems/{uid}/cancel", REASON)
    workitem = desk.worklist.workitems[uid]
    item = workitem.attributes[tags.PROGRESS_INFORMATION]["Value"][0]
    assert workitem.state is State.CANCELED
    assert item[tags.REASON_FOR_CANCELLATION]["Value"] == ["Scanner is down"]
    assert item[tags.DISCONTINUATION_REASONS]["Value"][0][tags.CODE_VALUE]["Value"] == ["110501"]


def test_a_request_for_cancellation_carries_reason_and_contact(desk: Desk) -> None:
    uid = desk.have()
    desk.ask(
        "POST",
        f"/workitems/{uid}/request-cancel",
        {**REASON, "contact_name": "Anna", "contact_uri": "tel:1"},
    )
    command = desk.worklist.commands[-1]
    assert isinstance(command, RequestCancel)
    assert command.information[tags.CONTACT_NAME]["Value"] == ["Anna"]
    assert desk.worklist.workitems[uid].state is State.CANCELED


def test_nobody_can_be_asked_to_cancel_if_nobody_listens(desk: Desk) -> None:
    uid = desk.have()
    desk.ask("POST", f"/workitems/{uid}/claim", {})
    assert (
        desk.refused(409, "POST", f"/workitems/{uid}/request-cancel", {})["status"] == "PERFORMER_UNREACHABLE"
    )


def test_only_a_final_workitem_is_purged(desk: Desk) -> None:
    uid = desk.have()
    assert "SCHEDULED" in desk.refused(409, "DELETE", f"/workitems/{uid}")["error"]
    desk.ask("POST", f"/workitems/{uid}/request-cancel", {})
    desk.ask("DELETE", f"/workitems/{uid}")
    assert not desk.worklist.workitems


def test_a_workitem_shows_who_is_subscribed_and_an_operator_releases_a_lock(desk: Desk) -> None:
    uid = desk.have()
    desk.ask("PUT", f"/workitems/{uid}/subscribers/AI", {"lock": True})
    subscribers = desk.ask("GET", f"/workitems/{uid}")["subscribers"]
    assert subscribers == [{"ae": "AI", "lock": True, "specific": True, "filter": ""}]
    desk.ask("DELETE", f"/workitems/{uid}/subscribers/AI/lock")
    assert isinstance(desk.worklist.commands[-1], ReleaseLock)
    desk.refused(404, "DELETE", f"/workitems/{uid}/subscribers/AI/lock")
    desk.ask("DELETE", f"/workitems/{uid}/subscribers/AI")
    assert desk.ask("GET", f"/workitems/{uid}")["subscribers"] == []


def test_an_ae_without_address_cannot_be_subscribed(desk: Desk) -> None:
    refusal = desk.refused(404, "PUT", f"/workitems/{desk.have()}/subscribers/NOBODY", {})
    assert refusal["status"] == "UNKNOWN_RECEIVING_AE"


def test_a_claim_on_behalf_is_that_of_the_named_performer() -> None:
    """Later it may be closed for that performer; a user who is not named for it may not claim so."""
    desk = Desk(users={"anna": ("AI",)})
    uid = desk.have()
    desk.refused(403, "POST", f"/workitems/{uid}/claim", {"performer": "RIS"})
    desk.ask("POST", f"/workitems/{uid}/claim", {"performer": "AI"})
    workitem = desk.ask("GET", f"/workitems/{uid}")
    assert (workitem["claimed"]["ae"], workitem["claimed"]["who"]) == ("AI", "anna as AI by page")


def test_a_request_for_cancellation_says_what_became_of_it() -> None:
    """SCHEDULED: canceled at once. IN PROGRESS: the performer is asked (PS3.4 CC.2.2.3)."""
    desk = Desk()
    first, second = desk.have(1), desk.have(2)
    desk.ask("POST", "/subscribers/AI/subscribe", {"scope": "global"})
    desk.ask("POST", f"/workitems/{second}/claim", {})
    states = [desk.ask("POST", f"/workitems/{uid}/request-cancel", {})["state"] for uid in (first, second)]
    assert states == ["CANCELED", "IN PROGRESS"]


def test_a_copy_begins_now_and_leaves_the_course_of_the_other_behind() -> None:
    """A repeat names the step that it replaces (PS3.3 C.30.3, Replaced Procedure Step Sequence)."""
    desk = Desk()
    times = {
        tags.START: element("DT", "20261122083000+0000"),
        tags.EXPECTED_COMPLETION: element("DT", "20261122093000+0000"),
    }
    uid = desk.have(1, {**minimal(), **times})
    desk.ask("POST", f"/workitems/{uid}/request-cancel", {"reason": "Moved"})
    copy = desk.ask("GET", f"/workitems/{uid}/copy")["attributes"]
    assert not copy.keys() & {"SOPInstanceUID", "ProcedureStepState", "ReplacedProcedureStepSequence"}
    assert copy["ScheduledProcedureStepStartDateTime"].startswith("20261122183000")
    assert copy["ExpectedCompletionDateTime"].startswith("20261122193000")
    repeat = desk.ask("GET", f"/workitems/{uid}/copy", query="repeats=true")["attributes"]
    assert repeat["ReplacedProcedureStepSequence"][0]["ReferencedSOPInstanceUID"] == uid
    created = desk.ask("POST", "/workitems", {"attributes": repeat})["uid"]
    assert desk.ask("GET", f"/workitems/{created}")["state"] == "SCHEDULED"
