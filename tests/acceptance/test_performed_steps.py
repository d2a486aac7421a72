# SPDX-License-Identifier: AGPL-3.0-or-later
"""A modality performs its worklist on a real Orthanc: MWL, then MPPS (PS3.4 Annex F), and the workitems follow."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import DataSet, element, items, text
from tests.support import modality, workitems
from tests.support.dcmtk import findscu_worklist
from tests.support.dimse_client import UpsClient
from tests.support.modality import ModalityClient
from tests.support.orthanc import RealOrthanc

pytestmark = pytest.mark.one_store(
    "a performed step is an entry, and the contract tests hold each store to that"
)

STEP = "ScheduledProcedureStepSequence[0]"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def orthanc_overrides(store: str) -> dict[str, Any]:
    titles = ("SCU", "CT1", "MR1")
    return {
        "DicomModalities": {title: [title, "127.0.0.1", 104] for title in titles},
        "Ups": {"Store": store, "ModalityWorklist": {"Enable": True, "Stations": {"CT1": "CTROOM1"}}},
    }


@pytest.fixture
def ct(orthanc: RealOrthanc) -> Iterator[ModalityClient]:
    with ModalityClient(orthanc.ups_dicom_port) as client:
        yield client


def scheduled(client: UpsClient, patient: str, study: str = modality.STUDY, **changes: Any) -> str:
    """A workitem at CT1."""
    station = element("SQ", workitems.code("CTROOM1", "99HOSPITAL", "CT room 1"))
    attributes = workitems.minimal(
        t00100020=element("LO", patient), t00404025=station, t0020000D=element("UI", study), **changes
    )
    answer = client.create(attributes)
    assert answer.code in (0, 0xB300), answer
    return answer.uid


def from_worklist(orthanc: RealOrthanc, patient: str) -> DataSet:
    """The item of Scheduled Step Attributes Sequence that a modality makes of its worklist."""
    keys = [f"PatientID={patient}", "StudyInstanceUID", "AccessionNumber", "RequestedProcedureID"]
    keys += [f"{STEP}.ScheduledStationAETitle=CT1", f"{STEP}.ScheduledProcedureStepID"]
    [answer] = findscu_worklist(orthanc.dicom_port, keys, calling="CT1")
    [step] = answer.ScheduledProcedureStepSequence
    return modality.scheduled(
        t0020000D=element("UI", str(answer.StudyInstanceUID)),
        t00400009=element("SH", str(step.ScheduledProcedureStepID)),
    )


def new_uid() -> str:
    return f"2.25.99{next(_numbers):06}"


def begin(ct: ModalityClient, item: DataSet, patient: str = "P1", **changes: Any) -> str:
    uid = new_uid()
    answer = ct.begin(uid, modality.begun(item, t00100020=element("LO", patient), **changes))
    assert (answer.code, answer.uid) == (0, uid), answer
    return uid


def state(client: UpsClient, workitem: str) -> str:
    return text(client.get(workitem).attributes, tags.STATE)


def step_of(orthanc: RealOrthanc, uid: str) -> dict[str, Any]:
    answer = requests.get(f"{orthanc.base_url}/ups/api/mpps/{uid}")
    answer.raise_for_status()
    content: dict[str, Any] = answer.json()
    return content


def test_f_7_2_a_step_from_the_worklist_claims_and_completes_its_workitem(
    orthanc: RealOrthanc, ct: ModalityClient
) -> None:
    workitem = scheduled(ct, "A1")
    uid = begin(ct, from_worklist(orthanc, "A1"), "A1")
    assert state(ct, workitem) == "IN PROGRESS"
    assert ct.report(uid, {"00400340": element("SQ", modality.series(1, 5))}).code == 0
    [progress] = items(ct.get(workitem).attributes, tags.PROGRESS_INFORMATION)
    assert text(progress, tags.PROGRESS_DESCRIPTION) == "1 series, 5 instances"
    assert ct.report(uid, modality.ended()).code == 0
    attributes = ct.get(workitem).attributes
    assert text(attributes, tags.STATE) == "COMPLETED"
    [performed] = items(attributes, tags.PERFORMED_PROCEDURE)
    assert text(items(performed, "00404028")[0], tags.CODE_VALUE) == "CTROOM1"
    assert text(performed, "00404050").startswith("20261201083100")
    assert text(performed, "00404051").startswith("20261201084500")
    outputs = items(performed, "00404033")
    assert [text(item, "0020000E") for item in outputs] == [f"{modality.STUDY}.1", f"{modality.STUDY}.2"]
    assert text(items(outputs[0], "0040E021")[0], "00080054") == "ORTHANC"
    history = requests.get(f"{orthanc.base_url}/ups/api/workitems/{workitem}").json()["history"]
    assert {entry["who"] for entry in history[1:]} == {"CT1 by MPPS"}


def test_f_7_2_a_discontinued_step_cancels_its_workitem(orthanc: RealOrthanc, ct: ModalityClient) -> None:
    workitem = scheduled(ct, "A2")
    uid = begin(ct, from_worklist(orthanc, "A2"), "A2")
    assert ct.report(uid, modality.discontinued()).code == 0
    attributes = ct.get(workitem).attributes
    assert text(attributes, tags.STATE) == "CANCELED"
    [progress] = items(attributes, tags.PROGRESS_INFORMATION)
    [reason] = items(progress, tags.DISCONTINUATION_REASONS)
    assert text(reason, tags.CODE_VALUE) == "110516"


def test_f_7_2_2_a_final_step_may_no_longer_be_updated(orthanc: RealOrthanc, ct: ModalityClient) -> None:
    uid = begin(ct, modality.scheduled(t0020000D=element("UI", "2.25.1")))
    assert ct.report(uid, modality.ended()).code == 0
    answer = ct.report(uid, modality.ended("DISCONTINUED"))
    assert (answer.code, answer.command["ErrorID"]) == (0x0110, 0xA710)
    assert answer.comment == "Performed Procedure Step Object may no longer be updated"
    assert text(ct.retrieve(uid).attributes, "00400252") == "COMPLETED"


def test_f_7_2_statuses_of_refusals(ct: ModalityClient) -> None:
    uid = begin(ct, modality.scheduled(t0020000D=element("UI", "2.25.2")))
    assert ct.begin(uid, modality.begun()).code == 0x0111
    assert ct.report(new_uid(), modality.ended()).code == 0x0112
    assert ct.begin(new_uid(), modality.begun(t00400252=element("CS", "COMPLETED"))).code == 0x0106
    answer = ct.begin(new_uid(), modality.begun(t00400253=None, t00400241=None))
    assert answer.code == 0x0120
    listed = {f"{int(tag):08X}" for tag in answer.command["AttributeIdentifierList"]}
    assert listed == {"00400241", "00400253"}
    assert ct.begin(new_uid(), modality.begun(t00400253=element("SH"))).code == 0x0121
    assert ct.report(uid, {"00400252": element("CS", "PAUSED")}).code == 0x0106
    assert ct.retrieve(new_uid()).code == 0x0112


def test_f_7_2_2_what_is_fixed_at_creation_is_not_changed_and_that_is_told(ct: ModalityClient) -> None:
    uid = begin(ct, modality.scheduled(t0020000D=element("UI", "2.25.3")))
    answer = ct.report(uid, modality.ended(t00100020=element("LO", "OTHER"), t00400253=element("SH", "PPS1")))
    assert answer.code == 0x0107
    assert "(0010,0020)" in answer.comment and "(0040,0253)" not in answer.comment
    assert text(ct.retrieve(uid).attributes, tags.PATIENT_ID) == "P1"


def test_a_step_without_a_workitem_is_kept_and_visible(orthanc: RealOrthanc, ct: ModalityClient) -> None:
    uid = begin(ct, modality.scheduled(t0020000D=element("UI", "2.25.4")), "A4")
    assert ct.report(uid, modality.ended()).code == 0
    shown = step_of(orthanc, uid)
    assert (shown["status"], shown["ae"], shown["workitems"]) == ("COMPLETED", "CT1", [])
    assert [entry["what"] for entry in shown["history"]] == ["created IN PROGRESS", "set, COMPLETED"]
    listed = requests.get(f"{orthanc.base_url}/ups/api/mpps").json()
    assert listed["steps"][0]["uid"] == uid


def test_a_workitem_of_another_performer_stays_theirs(orthanc: RealOrthanc, ct: ModalityClient) -> None:
    workitem = scheduled(ct, "A5")
    item = from_worklist(orthanc, "A5")
    assert ct.change_state(workitem, "IN PROGRESS", "2.25.77").code == 0
    uid = begin(ct, item, "A5")
    assert ct.report(uid, modality.ended()).code == 0
    assert state(ct, workitem) == "IN PROGRESS"
    [shown] = step_of(orthanc, uid)["workitems"]
    assert shown["note"] == "the workitem is already IN PROGRESS, by another performer"


def test_a_modality_that_loses_the_step_id_is_known_by_study_and_station(ct: ModalityClient) -> None:
    workitem = scheduled(ct, "A6", "2.25.66")
    uid = begin(ct, modality.scheduled(t0020000D=element("UI", "2.25.66")), "A6")
    assert state(ct, workitem) == "IN PROGRESS"
    assert ct.report(uid, modality.ended()).code == 0
    assert state(ct, workitem) == "COMPLETED"


def test_a_step_id_of_another_patient_is_not_believed(orthanc: RealOrthanc, ct: ModalityClient) -> None:
    workitem = scheduled(ct, "A7", "2.25.67")
    item = from_worklist(orthanc, "A7") | {"0020000D": element("UI", "2.25.68")}
    uid = begin(ct, item, "SOMEBODY")
    assert state(ct, workitem) == "SCHEDULED"
    assert "another patient or study" in step_of(orthanc, uid)["note"]


def test_a_group_of_workitems_is_performed_in_one_step(orthanc: RealOrthanc, ct: ModalityClient) -> None:
    first, second = scheduled(ct, "A8", "2.25.81"), scheduled(ct, "A9", "2.25.82")
    workitems = (from_worklist(orthanc, "A8"), from_worklist(orthanc, "A9"))
    uid = new_uid()
    assert ct.begin(uid, modality.begun(*workitems)).code == 0
    assert ct.report(uid, modality.ended()).code == 0
    assert (state(ct, first), state(ct, second)) == ("COMPLETED", "COMPLETED")


def test_an_unknown_ae_title_may_not(orthanc: RealOrthanc) -> None:
    with ModalityClient(orthanc.ups_dicom_port, "NOBODY") as stranger:
        assert stranger.begin(new_uid(), modality.begun()).code == 0x0124


def test_kill_9_between_create_and_set_loses_nothing(orthanc: RealOrthanc) -> None:
    with ModalityClient(orthanc.ups_dicom_port) as ct:
        workitem = scheduled(ct, "K1", "2.25.91")
        uid = begin(ct, from_worklist(orthanc, "K1"), "K1")
        alone = begin(ct, modality.scheduled(t0020000D=element("UI", "2.25.92")))
    orthanc.kill()
    orthanc.start()
    with ModalityClient(orthanc.ups_dicom_port) as ct:
        assert state(ct, workitem) == "IN PROGRESS"
        assert ct.begin(uid, modality.begun()).code == 0x0111
        assert ct.report(uid, modality.ended()).code == 0
        assert ct.report(alone, modality.ended()).code == 0
        assert state(ct, workitem) == "COMPLETED"
        assert text(ct.retrieve(alone).attributes, "00400252") == "COMPLETED"
