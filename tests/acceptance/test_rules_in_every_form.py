# SPDX-License-Identifier: AGPL-3.0-or-later
"""Every kind of cause, condition and input of docs/rules.md on a real Orthanc."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest
import requests
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import generate_uid

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import DataSet, element, items, text
from orthanc_ups.management.keyword_form import to_data_set
from tests.support.dimse_client import UpsClient
from tests.support.images import by_c_store, by_rest, file, image, series
from tests.support.orthanc import DICOMWEB_PLUGIN, PYTHON_PLUGIN, RealOrthanc
from tests.support.waiting import wait_until
from tests.support.web_client import WebClient
from tests.support.workitems import minimal, performed

INPUT, OUTPUT, REPLACED = "00404021", "00404033", "00741224"
WEEK: Final = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
FORMS: Final = {
    "RequestAttributesSequence.ScheduledProtocolCodeSequence.CodeValue": ["A1", "B2"],
    "RequestAttributesSequence.RequestedProcedureID": "RP-*",
    "SliceThickness": "2-10",
    "PatientAge": {"From": "018Y"},
    "StudyDate": "20200101-",
    "AccessionNumber": None,
    "PatientName": "jörg*",
    "Modality": {"Not": ["MR", "US"]},
    "ImageType": "AXIAL",
    "Origin": "RestApi",
    "Schedule": [{"Days": WEEK[:3]}, {"Days": WEEK[3:], "From": "00:00", "To": "24:00"}],
}


def creation(label: str, **more: Any) -> dict[str, Any]:
    return {"Attributes": {"ProcedureStepLabel": "{PatientID}", "WorklistLabel": label}, **more}


def rules(port: int) -> list[dict[str, Any]]:
    of = {"WorklistLabel": "STUDY"}
    return [
        {"Name": "study", "When": "StableStudy", "If": {"PatientID": "STUDY*"}, "Create": creation("STUDY")},
        {
            "Name": "patient",
            "When": "StablePatient",
            "If": {"PatientID": "PAT1"},
            "Create": creation("PATIENT"),
        },
        {"Name": "gone", "When": "Deleted", "If": of, "Cancel": {"Reason": "Images of {PatientID} are gone"}},
        {"Name": "left", "When": "Canceled", "If": of, "Create": creation("LEFT", Inputs="inputs")},
        {
            "Name": "label",
            "When": "StableSeries",
            "If": {"Labels": ["urgent*"]},
            "Create": creation("URGENT"),
        },
        {
            "Name": "web",
            "When": "StableSeries",
            "If": {"PatientID": "WEB1"},
            "Retrieve": f"http://127.0.0.1:{port}/dicom-web",
            "Create": creation("WEB"),
        },
        {
            "Name": "forms",
            "When": "StoredInstance",
            "If": FORMS,
            "Create": creation("FORMS", Inputs="instance"),
            "Update": {
                "Matching": {"WorklistLabel": "OPEN", "PatientID": "{PatientID}"},
                "Attributes": {"ScheduledProcedureStepPriority": "HIGH"},
            },
            "Cancel": {
                "Matching": {"WorklistLabel": "OLD", "PatientID": "{PatientID}"},
                "Reason": "replaced",
            },
        },
        {
            "Name": "late",
            "When": "StableSeries",
            "If": {"PatientID": "LATE2"},
            "Create": creation("LATE", LateInstances="replace"),
        },
        {
            "Name": "other",
            "When": "StoredInstance",
            "If": {"PatientID": "SENT?", "CallingAet": ["ct*", "MR1"]},
            "Create": creation("SENT"),
        },
    ]


@pytest.fixture(scope="module")
def orthanc(suite: str, store: str) -> Iterator[RealOrthanc]:
    orthanc = RealOrthanc(
        suite,
        {
            "StableAge": 1,
            "Plugins": [PYTHON_PLUGIN, DICOMWEB_PLUGIN],
            "DicomAlwaysAllowStore": True,
            "DicomModalities": {"AI": ["AI", "127.0.0.1", 104]},
            "Ups": {"Store": store, "CheckOutputs": True},
        },
    )
    orthanc.configuration["Ups"]["Rules"] = rules(orthanc.http_port)
    with orthanc:
        yield orthanc


def client(orthanc: RealOrthanc) -> WebClient:
    return WebClient(f"http://127.0.0.1:{orthanc.ups_http_port}/dicom-web")


def search(orthanc: RealOrthanc, **keys: str) -> list[DataSet]:
    answer = client(orthanc).get("/workitems", params={"includefield": "all", **keys})
    return answer.json() if answer.status_code == 200 else []


def awaited(orthanc: RealOrthanc, count: int = 1, **keys: str) -> list[DataSet]:
    """As soon as there are so many workitems."""
    wait_until(lambda: len(search(orthanc, **keys)) == count, lambda: f"{keys}: {search(orthanc)}")
    return search(orthanc, **keys)


def with_inputs(orthanc: RealOrthanc, *images: FileDataset, **keys: str) -> DataSet:
    """The only workitem that matches, as soon as it has exactly these inputs.

    What comes slowly is stable before the last image is there; then the workitem is updated.
    """
    wait_until(
        lambda: [instances(workitem) for workitem in search(orthanc, **keys)] == [uids(*images)],
        lambda: f"{keys}: {search(orthanc)}",
    )
    (workitem,) = search(orthanc, **keys)
    return workitem


def workitem(orthanc: RealOrthanc, **attributes: str) -> str:
    return client(orthanc).create(dict(sorted((minimal() | to_data_set(attributes)).items())))


def instances(dataset: DataSet) -> set[str]:
    return {
        text(reference, "00081155") for item in items(dataset, INPUT) for reference in items(item, "00081199")
    }


def uids(*images: FileDataset) -> set[str]:
    return {str(image.SOPInstanceUID) for image in images}


def state(orthanc: RealOrthanc, uid: str) -> str:
    return text(client(orthanc).retrieve(uid), tags.STATE)


def study_of(orthanc: RealOrthanc, dataset: FileDataset) -> str:
    """Orthanc's identifier of a study."""
    answer = requests.post(f"{orthanc.base_url}/tools/lookup", str(dataset.StudyInstanceUID), timeout=60)
    (identifier,) = [row["ID"] for row in answer.json() if row["Type"] == "Study"]
    return str(identifier)


def test_a_study_that_is_stable_is_the_input_series_by_series(orthanc: RealOrthanc) -> None:
    first = series(2, PatientID="STUDY1")
    study = str(first[0].StudyInstanceUID)
    second = series(1, "MR_small.dcm", PatientID="STUDY1", StudyInstanceUID=study)
    by_rest(orthanc, *first, *second)
    created = with_inputs(orthanc, *first, *second, PatientID="STUDY1")
    assert {text(item, "0020000E") for item in items(created, INPUT)} == {
        str(first[0].SeriesInstanceUID), str(second[0].SeriesInstanceUID),
    }  # fmt: skip


def test_a_patient_that_is_stable_has_all_its_studies_for_inputs(orthanc: RealOrthanc) -> None:
    first, second = series(1, PatientID="PAT1"), series(1, "MR_small.dcm", PatientID="PAT1")
    by_rest(orthanc, *first, *second)
    with_inputs(orthanc, *first, *second, PatientID="PAT1")


def test_a_study_that_is_deleted_cancels_and_the_cancelation_is_a_cause_of_its_own(
    orthanc: RealOrthanc,
) -> None:
    images = series(1, PatientID="STUDY2")
    by_rest(orthanc, *images)
    (created,) = awaited(orthanc, PatientID="STUDY2", WorklistLabel="STUDY")
    requests.delete(
        f"{orthanc.base_url}/studies/{study_of(orthanc, images[0])}", timeout=30
    ).raise_for_status()
    uid = text(created, tags.SOP_INSTANCE_UID)
    wait_until(lambda: state(orthanc, uid) == "CANCELED", lambda: state(orthanc, uid))
    (progress,) = items(client(orthanc).retrieve(uid), tags.PROGRESS_INFORMATION)
    assert text(progress, tags.REASON_FOR_CANCELLATION).startswith("Images of STUDY2 are gone")
    (follower,) = awaited(orthanc, PatientID="STUDY2", WorklistLabel="LEFT")
    assert instances(follower) == uids(*images)


def test_a_study_that_is_deleted_while_orthanc_does_not_run_is_seen(orthanc: RealOrthanc) -> None:
    images = series(1, PatientID="STUDY3")
    by_rest(orthanc, *images)
    (created,) = awaited(orthanc, PatientID="STUDY3", WorklistLabel="STUDY")
    orthanc.stop()
    orthanc.configuration["Ups"]["Enable"] = False
    orthanc.start()
    requests.delete(
        f"{orthanc.base_url}/studies/{study_of(orthanc, images[0])}", timeout=30
    ).raise_for_status()
    orthanc.stop()
    orthanc.configuration["Ups"]["Enable"] = True
    orthanc.start()
    uid = text(created, tags.SOP_INSTANCE_UID)
    wait_until(lambda: state(orthanc, uid) == "CANCELED", lambda: state(orthanc, uid))


def test_labels_of_the_study_count_for_its_series(orthanc: RealOrthanc) -> None:
    first = series(1, PatientID="LABEL1")
    by_rest(orthanc, *first)
    url = f"{orthanc.base_url}/studies/{study_of(orthanc, first[0])}/labels/urgent-now"
    requests.put(url, timeout=60).raise_for_status()
    second = series(1, PatientID="LABEL1", StudyInstanceUID=first[0].StudyInstanceUID)
    by_rest(orthanc, *second)
    wait_until(
        lambda: uids(*second) in map(instances, search(orthanc, PatientID="LABEL1")),
        lambda: str(search(orthanc, PatientID="LABEL1")),
    )


def test_table_cc_2_5_3_inputs_by_wado_rs_can_be_retrieved_as_they_say(orthanc: RealOrthanc) -> None:
    images = series(2, PatientID="WEB1")
    by_rest(orthanc, *images)
    created = with_inputs(orthanc, *images, PatientID="WEB1")
    (reference,) = items(created, INPUT)
    (way,) = items(reference, "0040E025")
    assert "0040E021" not in reference
    url = text(way, "00081190")
    answer = requests.get(url, headers={"Accept": 'multipart/related; type="application/dicom"'}, timeout=60)
    assert answer.status_code == 200
    assert all(str(image.SOPInstanceUID).encode() in answer.content for image in images)


def asked_for(**attributes: Any) -> FileDataset:
    """A CT image that all of FORMS fits, unless ``attributes`` say otherwise."""
    protocol, request = Dataset(), Dataset()
    protocol.CodeValue, protocol.CodingSchemeDesignator, protocol.CodeMeaning = "B2", "99X", "Thorax"
    request.ScheduledProtocolCodeSequence, request.RequestedProcedureID = [protocol], "RP-1"
    usual = {
        "StudyInstanceUID": generate_uid(), "SeriesInstanceUID": generate_uid(),
        "RequestAttributesSequence": [request], "PatientAge": "047Y", "AccessionNumber": "",
        "SpecificCharacterSet": "ISO_IR 192", "PatientName": "Jörg^Anna", "StudyDate": "20240229",
    }  # fmt: skip
    return image(**{**usual, **attributes})


def test_every_form_of_a_condition_fits_and_all_actions_are_done(orthanc: RealOrthanc) -> None:
    opened = workitem(orthanc, WorklistLabel="OPEN", PatientID="FORM1")
    old = workitem(orthanc, WorklistLabel="OLD", PatientID="FORM1")
    stored = asked_for(PatientID="FORM1")
    by_rest(orthanc, stored)
    (created,) = awaited(orthanc, PatientID="FORM1", WorklistLabel="FORMS")
    assert instances(created) == uids(stored)
    wait_until(lambda: state(orthanc, old) == "CANCELED", lambda: state(orthanc, old))
    wait_until(lambda: text(client(orthanc).retrieve(opened), tags.PRIORITY) == "HIGH", "it is updated")


def test_each_condition_alone_keeps_a_rule_from_firing_and_says_so(orthanc: RealOrthanc) -> None:
    unfit = {
        "RequestAttributesSequence": [], "SliceThickness": "1.25", "PatientAge": "017Y",
        "StudyDate": "20191231", "AccessionNumber": "A1", "PatientName": "Georg^Anna", "Modality": "US",
        "ImageType": ["ORIGINAL", "PRIMARY"],
    }  # fmt: skip
    for keyword, value in unfit.items():
        stored = asked_for(PatientID="FORM2", **{keyword: value})
        by_rest(orthanc, stored)
        question = {"study": str(stored.StudyInstanceUID)}
        answer = requests.post(f"{orthanc.base_url}/ups/api/rules/test", json=question, timeout=60).json()
        (rule,) = [rule for rule in answer["rules"] if rule["name"] == "forms"]
        (cause,) = rule["causes"]
        reasons = cause["why_not"]
        assert not cause["fires"] and reasons and all(reason.startswith(keyword) for reason in reasons), (
            reasons
        )
    by_c_store(orthanc, "CT1", asked_for(PatientID="FORM2"))  # not by REST
    by_rest(orthanc, asked_for(PatientID="FORM3"))
    awaited(orthanc, PatientID="FORM3")
    assert search(orthanc, PatientID="FORM2") == []


def test_a_late_instance_makes_a_workitem_that_replaces_the_claimed_one(orthanc: RealOrthanc) -> None:
    images = series(2, PatientID="LATE2")
    by_rest(orthanc, images[0])
    (first,) = awaited(orthanc, PatientID="LATE2")
    client(orthanc).claim(text(first, tags.SOP_INSTANCE_UID))
    by_rest(orthanc, images[1])
    awaited(orthanc, 2, PatientID="LATE2")
    (second,) = [
        workitem for workitem in search(orthanc, PatientID="LATE2") if instances(workitem) == uids(*images)
    ]
    (replaced,) = items(second, REPLACED)
    assert text(replaced, "00081155") == text(first, tags.SOP_INSTANCE_UID)


def test_senders_are_compared_as_ae_titles(orthanc: RealOrthanc) -> None:
    by_c_store(orthanc, "CT7", image(PatientID="SENT1", StudyInstanceUID=generate_uid()))
    by_c_store(orthanc, "XR1", image(PatientID="SENT2", StudyInstanceUID=generate_uid()))
    by_c_store(orthanc, "MR1", image(PatientID="SENT3", StudyInstanceUID=generate_uid()))
    awaited(orthanc, PatientID="SENT3")
    awaited(orthanc, PatientID="SENT1")
    assert search(orthanc, PatientID="SENT2") == []


def test_cc_2_5_1_1_completion_over_dimse_waits_for_outputs_and_names_them(orthanc: RealOrthanc) -> None:
    """``Ups.CheckOutputs``: C304."""
    result = image("test-SR.dcm", PatientID="OUT2", StudyInstanceUID=generate_uid())
    reference = {
        "00081150": element("UI", str(result.SOPClassUID)),
        "00081155": element("UI", str(result.SOPInstanceUID)),
    }
    output: DataSet = {
        "00081199": element("SQ", reference),
        "0020000D": element("UI", str(result.StudyInstanceUID)),
        "0020000E": element("UI", str(result.SeriesInstanceUID)),
        "0040E020": element("CS", "DICOM"),
        "0040E021": element("SQ", {"00080054": element("AE", "ORTHANC")}),
    }
    with UpsClient(orthanc.ups_dicom_port, "AI") as ai:
        uid, transaction = ai.create(minimal()).uid, "2.25.99"
        assert ai.change_state(uid, "IN PROGRESS", transaction).code == 0
        assert ai.update(uid, performed(t00404033=element("SQ", output)), transaction).code == 0
        refusal = ai.change_state(uid, "COMPLETED", transaction)
        assert refusal.code == 0xC304
        assert str(result.SOPInstanceUID)[-20:] in refusal.comment
        requests.post(f"{orthanc.base_url}/instances", file(result), timeout=60).raise_for_status()
        assert ai.change_state(uid, "COMPLETED", transaction).code == 0
