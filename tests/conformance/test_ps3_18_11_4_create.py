# SPDX-License-Identifier: AGPL-3.0-or-later
"""PS3.18 §11.4 Create Workitem."""

import pytest

from orthanc_ups.codecs import dicom_json, dicom_xml
from orthanc_ups.core.dataset import DataSet, element
from orthanc_ups.dicomweb import multipart
from tests.support.web_client import WebClient, new_uid
from tests.support.workitems import changed, full, minimal

XML = {"Content-Type": "application/dicom+xml"}


@pytest.mark.parametrize(
    "form",
    [
        *("workitem={uid}", "{uid}", "AffectedSOPInstanceUID={uid}", "Workitem={uid}", "WORKITEM={uid}"),
        *("SOPInstanceUID={uid}", "sopinstanceuid={uid}", "00080018={uid}", "00001000={uid}"),
        "workitem={uid}&SOPInstanceUID={uid}",
    ],
)
def test_11_4_1_uid_in_the_query(service: WebClient, form: str) -> None:
    uid = new_uid()
    answer = service.post("/workitems?" + form.format(uid=uid), minimal())
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"{service.url}/workitems/{uid}"
    assert answer.content == b""
    assert service.retrieve(uid)["00080018"] == element("UI", uid)


@pytest.mark.parametrize("tag", ["00080018", "00001000"])
def test_11_4_1_uid_in_the_body(service: WebClient, tag: str) -> None:
    uid = new_uid()
    answer = service.post("/workitems", changed(minimal(), **{f"t{tag}": element("UI", uid)}))
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"{service.url}/workitems/{uid}"
    assert service.retrieve(uid)["00741000"] == element("CS", "SCHEDULED")


def test_11_4_1_uid_in_both_places_must_be_the_same(service: WebClient) -> None:
    uid = new_uid()
    body = changed(minimal(), t00080018=element("UI", uid))
    assert service.post(f"/workitems?workitem={new_uid()}", body).status_code == 400
    assert service.get(f"/workitems/{uid}").status_code == 404
    assert service.post(f"/workitems?workitem={uid}", body).status_code == 201


def test_11_4_1_without_uid_the_server_assigns_one(service: WebClient) -> None:
    answer = service.post("/workitems", minimal())
    assert answer.status_code == 201
    uid = answer.headers["Location"].rpartition("/")[2]
    assert service.retrieve(uid)["00080018"] == element("UI", uid)


@pytest.mark.parametrize("who", ["plain", "japanese", "cyrillic", "greek", "latin-1"])
@pytest.mark.parametrize("kind", ["object", "array", "json", "xml", "multipart"])
def test_11_4_1_every_media_type_of_the_body(service: WebClient, kind: str, who: str) -> None:
    workitem, uid = full(who), new_uid()
    body, headers = _written(workitem, kind)
    answer = service.post(f"/workitems?workitem={uid}", body, headers=headers)
    assert answer.status_code == 201, answer.text
    stored = service.retrieve(uid)
    assert {tag: stored[tag] for tag in workitem} == workitem


def _written(workitem: DataSet, kind: str) -> tuple[bytes, dict[str, str]]:
    if kind == "xml":
        return dicom_xml.encode(workitem), XML
    if kind == "multipart":
        body, boundary = multipart.encode([dicom_xml.encode(workitem)], "application/dicom+xml")
        return body, {"Content-Type": f'multipart/related; type="application/dicom+xml"; boundary={boundary}'}
    text = dicom_json.encode(workitem)
    body = b"[" + text + b"]" if kind == "array" else text
    return body, {"Content-Type": "application/json" if kind == "json" else "application/dicom+json"}


def test_11_4_3_modifications_are_told_by_a_warning(service: WebClient) -> None:
    stamped = minimal(t00404010=element("DT", "20200101"))  # the server's to set
    answer = service.post(f"/workitems?workitem={new_uid()}", stamped)
    assert answer.status_code == 201
    fixed = f"299 {service.url}: The Workitem was created with modifications."
    named = (
        f"299 {service.url}: ScheduledProcedureStepModificationDateTime (0040,4010) was set by the worklist"
    )
    assert answer.headers["Warning"] == f"{fixed}, {named}"
    assert "(0040,4010)" in answer.headers["X-Ups-Modifications"]


def test_11_4_3_nothing_modified_no_warning(service: WebClient) -> None:
    workitem = full(t00080005=None)
    answer = service.post(f"/workitems?workitem={new_uid()}", workitem)
    assert answer.status_code == 201
    assert "Warning" not in answer.headers


def test_11_4_2_a_uid_that_exists_is_409_in_every_state(service: WebClient) -> None:
    uid = service.create()
    before = service.retrieve(uid)
    assert service.post(f"/workitems?workitem={uid}", full()).status_code == 409
    assert service.retrieve(uid) == before
    service.cancel(uid)
    assert service.post(f"/workitems?workitem={uid}", minimal()).status_code == 409


@pytest.mark.parametrize("uid", ["1.2.840.10008.5.1.4.34.5", "1.2.840.10008.5.1.4.34.5.1"])
def test_11_4_2_subscription_uids_are_taken(service: WebClient, uid: str) -> None:
    assert service.post(f"/workitems?workitem={uid}", minimal()).status_code == 409


@pytest.mark.parametrize(
    ("workitem", "attribute"),
    [
        (minimal(t00741000=element("CS", "IN PROGRESS")), "00741000"),
        (minimal(t00741000=None), "00741000"),
        (minimal(t00741204=None), "00741204"),
        (minimal(t00741204={"vr": "LO"}), "00741204"),
        (minimal(t00741200=element("CS", "URGENT")), "00741200"),
        (minimal(t00741002=element("SQ", {"00741004": element("DS", "1")})), "00741002"),
        (minimal(t00404005=element("DT", "yesterday")), "00404005"),
        (minimal(t00404018=element("SQ", {"00080100": element("SH", "1")})), "00404018.00080104"),
        (minimal(t00741204=element("LO", "x" * 65)), "00741204"),
    ],
)
def test_11_4_2_body_against_the_rules_is_400_and_names_the_attribute(
    service: WebClient, workitem: DataSet, attribute: str
) -> None:
    uid = new_uid()
    answer = service.post(f"/workitems?workitem={uid}", workitem)
    assert answer.status_code == 400
    assert answer.json()["Attribute"] == attribute
    assert service.get(f"/workitems/{uid}").status_code == 404


def test_11_4_2_a_refusal_names_every_attribute_at_fault(service: WebClient) -> None:
    code = element("SQ", {"00080100": element("SH", "X")})
    wrong = minimal(t00741204=None, t00404005=None, t00741200=element("CS", "URGENT"), t00404018=code)
    answer = service.post(f"/workitems?workitem={new_uid()}", wrong)
    assert (answer.status_code, answer.json()["Status"]) == (400, "0120")
    assert [fault["Tag"] for fault in answer.json()["Attributes"]] == [
        "00404005",
        "00741204",
        "00404018.00080104",
        "00404018.00080102",
        "00741200",
    ]
    assert answer.json()["Attributes"][2] == {
        "Tag": "00404018.00080104",
        "Keyword": "ScheduledWorkitemCodeSequence.CodeMeaning",
        "Reason": "CodeMeaning (0008,0104) is missing, in item 1 of ScheduledWorkitemCodeSequence (0040,4018)",
    }


@pytest.mark.parametrize("uid", ["1..2", "01.2", "1.2.", "x", "1." * 40 + "1"])
def test_11_4_2_malformed_uid_is_400(service: WebClient, uid: str) -> None:
    assert service.post(f"/workitems?workitem={uid}", minimal()).status_code == 400


def test_11_4_1_sop_class_may_be_told_but_must_be_push(service: WebClient) -> None:
    push = changed(minimal(), t00080016=element("UI", "1.2.840.10008.5.1.4.34.6.1"))
    assert service.post("/workitems", push).status_code == 201
    ct = changed(minimal(), t00080016=element("UI", "1.2.840.10008.5.1.4.1.1.2"))
    assert service.post("/workitems", ct).status_code == 501


def test_11_4_1_empty_transaction_uid_is_what_the_standard_asks_for(service: WebClient) -> None:
    answer = service.post("/workitems", changed(minimal(), t00081195={"vr": "UI"}))
    assert answer.status_code == 201
    assert "00081195" not in service.retrieve(answer.headers["Location"].rpartition("/")[2])


def test_11_4_2_empty_body_is_400(service: WebClient) -> None:
    assert service.post("/workitems").status_code == 400


def test_11_4_2_other_media_type_is_415(service: WebClient) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/dicom"):
        assert service.post("/workitems", minimal(), headers={"Content-Type": kind}).status_code == 415
