# SPDX-License-Identifier: AGPL-3.0-or-later
"""What an operator does to a workitem is a command of the worklist, with its rules."""

from __future__ import annotations

from typing import Any

import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.commands import Close, ReleaseLock, RequestCancel
from orthanc_ups.core.dataset import element
from orthanc_ups.core.states import State
from tests.support.management_rig import ManagementRig
from tests.support.workitems import full, minimal


@pytest.fixture
def rig() -> ManagementRig:
    return ManagementRig()


def test_an_operator_updates_what_is_scheduled(rig: ManagementRig) -> None:
    uid = rig.have()
    rig.ask("PUT", f"/workitems/{uid}", {"attributes": {"ScheduledProcedureStepPriority": "HIGH"}})
    assert rig.ask("GET", f"/workitems/{uid}")["priority"] == "HIGH"


def test_an_update_in_progress_is_refused_in_words(rig: ManagementRig) -> None:
    uid = rig.have()
    rig.ask("POST", f"/workitems/{uid}/claim", {})
    refusal = rig.refused(400, "PUT", f"/workitems/{uid}", {"attributes": {"ProcedureStepLabel": "x"}})
    assert refusal["status"] == "MISSING_TRANSACTION_UID"


def test_the_actions_follow_the_state(rig: ManagementRig) -> None:
    uid = rig.have()

    def read() -> Any:
        return rig.ask("GET", f"/workitems/{uid}")["actions"]

    assert read() == ["edit", "claim", "request-cancel"]
    rig.ask("POST", f"/workitems/{uid}/claim", {})
    assert read() == ["complete", "cancel", "request-cancel"]
    rig.ask("POST", f"/workitems/{uid}/complete", {})
    assert read() == ["purge"]


def test_claim_and_complete_on_behalf_need_no_transaction_uid(rig: ManagementRig) -> None:
    uid = rig.have(1, full())
    rig.ask("POST", f"/workitems/{uid}/claim", {})
    rig.clock.pass_by(minutes=15)
    closing = rig.ask("GET", f"/workitems/{uid}")["closing"]
    assert closing["PerformedProcedureStepStartDateTime"] == "20261122183000.000000+0000"
    assert closing["PerformedProcedureStepEndDateTime"] == "20261122184500.000000+0000"
    assert closing["PerformedStationNameCodeSequence"][0]["CodeValue"] == "READING7"
    rig.ask(
        "POST", f"/workitems/{uid}/complete", {"performed": {"PerformedProcedureStepDescription": "Done"}}
    )
    workitem = rig.worklist.workitems[uid]
    assert workitem.state is State.COMPLETED
    assert isinstance(rig.worklist.commands[-1], Close)
    assert workitem.attributes[tags.PERFORMED_PROCEDURE]["Value"][0]["00400254"]["Value"] == ["Done"]


def test_a_workitem_without_station_and_code_can_be_completed_too(rig: ManagementRig) -> None:
    uid = rig.have()
    rig.ask("POST", f"/workitems/{uid}/claim", {})
    rig.ask("POST", f"/workitems/{uid}/complete", {})
    done = rig.worklist.workitems[uid].attributes[tags.PERFORMED_PROCEDURE]["Value"][0]
    assert done["00404028"]["Value"][0][tags.CODE_VALUE]["Value"] == ["UPSWORKLIST"]


def test_what_is_wrong_in_the_final_state_form_is_named(rig: ManagementRig) -> None:
    uid = rig.have()
    rig.ask("POST", f"/workitems/{uid}/claim", {})
    refusal = rig.refused(
        409,
        "POST",
        f"/workitems/{uid}/complete",
        {"performed": {"PerformedStationNameCodeSequence": []}},
    )
    assert refusal["status"] == "FINAL_STATE_UNMET"
    assert refusal["attribute"].endswith("PerformedStationNameCodeSequence")
    assert rig.worklist.workitems[uid].state is State.IN_PROGRESS


REASON = {
    "reason": "Scanner is down",
    "code": {"CodeValue": "110501", "CodingSchemeDesignator": "DCM", "CodeMeaning": "Equipment failure"},
}


def test_a_cancellation_on_behalf_keeps_reason_and_progress(rig: ManagementRig) -> None:
    uid = rig.have()
    rig.ask("POST", f"/workitems/{uid}/claim", {})
    rig.ask("POST", f"/workitems/{uid}/cancel", REASON)
    workitem = rig.worklist.workitems[uid]
    item = workitem.attributes[tags.PROGRESS_INFORMATION]["Value"][0]
    assert workitem.state is State.CANCELED
    assert item[tags.REASON_FOR_CANCELLATION]["Value"] == ["Scanner is down"]
    assert item[tags.DISCONTINUATION_REASONS]["Value"][0][tags.CODE_VALUE]["Value"] == ["110501"]


def test_a_request_for_cancellation_carries_reason_and_contact(rig: ManagementRig) -> None:
    uid = rig.have()
    rig.ask(
        "POST",
        f"/workitems/{uid}/request-cancel",
        {**REASON, "contact_name": "Anna", "contact_uri": "tel:1"},
    )
    command = rig.worklist.commands[-1]
    assert isinstance(command, RequestCancel)
    assert command.information[tags.CONTACT_NAME]["Value"] == ["Anna"]
    assert rig.worklist.workitems[uid].state is State.CANCELED


def test_nobody_can_be_asked_to_cancel_if_nobody_listens(rig: ManagementRig) -> None:
    uid = rig.have()
    rig.ask("POST", f"/workitems/{uid}/claim", {})
    assert (
        rig.refused(409, "POST", f"/workitems/{uid}/request-cancel", {})["status"] == "PERFORMER_UNREACHABLE"
    )


def test_only_a_final_workitem_is_purged(rig: ManagementRig) -> None:
    uid = rig.have()
    assert "SCHEDULED" in rig.refused(409, "DELETE", f"/workitems/{uid}")["error"]
    rig.ask("POST", f"/workitems/{uid}/request-cancel", {})
    rig.ask("DELETE", f"/workitems/{uid}")
    assert not rig.worklist.workitems


def test_a_workitem_shows_who_is_subscribed_and_an_operator_releases_a_lock(rig: ManagementRig) -> None:
    uid = rig.have()
    rig.ask("PUT", f"/workitems/{uid}/subscribers/AI", {"lock": True})
    subscribers = rig.ask("GET", f"/workitems/{uid}")["subscribers"]
    assert subscribers == [{"ae": "AI", "lock": True, "specific": True, "filter": ""}]
    rig.ask("DELETE", f"/workitems/{uid}/subscribers/AI/lock")
    assert isinstance(rig.worklist.commands[-1], ReleaseLock)
    rig.refused(404, "DELETE", f"/workitems/{uid}/subscribers/AI/lock")
    rig.ask("DELETE", f"/workitems/{uid}/subscribers/AI")
    assert rig.ask("GET", f"/workitems/{uid}")["subscribers"] == []


def test_an_ae_without_address_cannot_be_subscribed(rig: ManagementRig) -> None:
    refusal = rig.refused(404, "PUT", f"/workitems/{rig.have()}/subscribers/NOBODY", {})
    assert refusal["status"] == "UNKNOWN_RECEIVING_AE"


def test_a_claim_on_behalf_is_that_of_the_named_performer() -> None:
    """Later it may be closed for that performer; a user who is not named for it may not claim so."""
    rig = ManagementRig(users={"anna": ("AI",)})
    uid = rig.have()
    rig.refused(403, "POST", f"/workitems/{uid}/claim", {"performer": "RIS"})
    rig.ask("POST", f"/workitems/{uid}/claim", {"performer": "AI"})
    workitem = rig.ask("GET", f"/workitems/{uid}")
    assert (workitem["claimed"]["ae"], workitem["claimed"]["who"]) == ("AI", "anna as AI by page")


def test_a_request_for_cancellation_says_what_became_of_it() -> None:
    """SCHEDULED: canceled at once. IN PROGRESS: the performer is asked (PS3.4 CC.2.2.3)."""
    rig = ManagementRig()
    first, second = rig.have(1), rig.have(2)
    rig.ask("POST", "/subscribers/AI/subscribe", {"scope": "global"})
    rig.ask("POST", f"/workitems/{second}/claim", {})
    states = [rig.ask("POST", f"/workitems/{uid}/request-cancel", {})["state"] for uid in (first, second)]
    assert states == ["CANCELED", "IN PROGRESS"]


def test_a_copy_begins_now_and_leaves_the_course_of_the_other_behind() -> None:
    """A repeat names the step that it replaces (PS3.3 C.30.3, Replaced Procedure Step Sequence)."""
    rig = ManagementRig()
    times = {
        tags.START: element("DT", "20261122083000+0000"),
        tags.EXPECTED_COMPLETION: element("DT", "20261122093000+0000"),
    }
    uid = rig.have(1, {**minimal(), **times})
    rig.ask("POST", f"/workitems/{uid}/request-cancel", {"reason": "Moved"})
    copy = rig.ask("GET", f"/workitems/{uid}/copy")["attributes"]
    assert not copy.keys() & {"SOPInstanceUID", "ProcedureStepState", "ReplacedProcedureStepSequence"}
    assert copy["ScheduledProcedureStepStartDateTime"].startswith("20261122183000")
    assert copy["ExpectedCompletionDateTime"].startswith("20261122193000")
    repeat = rig.ask("GET", f"/workitems/{uid}/copy", query="repeats=true")["attributes"]
    assert repeat["ReplacedProcedureStepSequence"][0]["ReferencedSOPInstanceUID"] == uid
    created = rig.ask("POST", "/workitems", {"attributes": repeat})["uid"]
    assert rig.ask("GET", f"/workitems/{created}")["state"] == "SCHEDULED"
