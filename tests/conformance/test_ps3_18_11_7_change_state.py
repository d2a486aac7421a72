# SPDX-License-Identifier: AGPL-3.0-or-later
"""PS3.18 §11.7 Change Workitem State."""

import pytest

from orthanc_ups.codecs import dicom_xml
from orthanc_ups.core.dataset import DataSet, element
from tests.support.web_client import WebClient, new_uid, state
from tests.support.workitems import performed

INCONSISTENT = "The submitted request is inconsistent with the state of the UPS Instance."
MISSING, INCORRECT = "The Transaction UID is missing.", "The Transaction UID is incorrect."


def current(service: WebClient, uid: str) -> str:
    result: str = service.retrieve(uid)["00741000"]["Value"][0]
    return result


def test_11_7_1_claim_and_complete(service: WebClient) -> None:
    uid, transaction = service.create(), new_uid()
    answer = service.put(f"/workitems/{uid}/state", state("IN PROGRESS", transaction))
    assert (answer.status_code, answer.content, answer.headers.get("Warning")) == (200, b"", None)
    assert current(service, uid) == "IN PROGRESS"
    service.post(f"/workitems/{uid}?transaction-uid={transaction}", performed())
    answer = service.put(f"/workitems/{uid}/state", state("COMPLETED", transaction))
    assert (answer.status_code, answer.content) == (200, b"")
    assert current(service, uid) == "COMPLETED"


@pytest.mark.parametrize(
    "form",
    ["/state?requester=CT1", "/state?Requester=CT1", "/state?requesterAE=CT1", "/state/CT1", "/state/"],
)
def test_11_7_1_requester_in_every_form(service: WebClient, form: str) -> None:
    uid = service.create()
    assert service.put(f"/workitems/{uid}{form}", state("IN PROGRESS", new_uid())).status_code == 200


@pytest.mark.parametrize("name", ["transaction-uid", "TransactionUID", "00081195"])
def test_11_7_1_transaction_uid_in_the_query_too(service: WebClient, name: str) -> None:
    uid, transaction = service.create(), new_uid()
    step: DataSet = {"00741000": element("CS", "IN PROGRESS")}
    assert service.put(f"/workitems/{uid}/state?{name}={transaction}", step).status_code == 200
    assert (
        service.put(f"/workitems/{uid}/state?{name}={new_uid()}", state("CANCELED", transaction)).status_code
        == 400
    )
    assert service.put(f"/workitems/{uid}/state", state("CANCELED", transaction)).status_code == 200


def test_11_7_1_arguments_of_other_transactions_do_no_harm(service: WebClient) -> None:
    uid = service.create()
    body = {
        **state("IN PROGRESS", new_uid()),
        "00741236": element("AE", "RIS"),
        "00741230": element("LO", "TRUE"),
    }
    assert service.put(f"/workitems/{uid}/state", {**body, **performed()}).json()["Status"] == "0114"
    assert service.put(f"/workitems/{uid}/state", body).status_code == 200


@pytest.mark.parametrize("spelling", ["in progress", "IN_PROGRESS", "In-Progress"])
def test_11_7_1_another_spelling_of_a_state_is_taken_and_told(service: WebClient, spelling: str) -> None:
    uid = service.create()
    answer = service.put(f"/workitems/{uid}/state", state(spelling, new_uid()))
    assert (answer.status_code, current(service, uid)) == (200, "IN PROGRESS")
    assert "was taken as IN PROGRESS" in answer.headers["X-Ups-Modifications"]


def test_11_7_1_requester_that_is_no_ae_title_is_400(service: WebClient) -> None:
    uid = service.create()
    for form in ("/state?requester=" + "x" * 17, "/state/a%5Cb"):
        assert service.put(f"/workitems/{uid}{form}", state("IN PROGRESS", new_uid())).status_code == 400
    assert current(service, uid) == "SCHEDULED"


def test_11_7_1_body_in_xml(service: WebClient) -> None:
    uid = service.create()
    body = dicom_xml.encode(state("IN PROGRESS", new_uid()))
    headers = {"Content-Type": "application/dicom+xml"}
    assert service.put(f"/workitems/{uid}/state", body, headers=headers).status_code == 200


@pytest.mark.parametrize("final", ["COMPLETED", "CANCELED"])
def test_11_7_3_already_there_is_200_with_a_warning(service: WebClient, final: str) -> None:
    uid = service.create()
    transaction = service.claim(uid)
    service.post(f"/workitems/{uid}?transaction-uid={transaction}", performed())
    assert service.put(f"/workitems/{uid}/state", state(final, transaction)).status_code == 200
    answer = service.put(f"/workitems/{uid}/state", state(final, transaction))
    assert answer.status_code == 200
    text = f"The UPS is already in the requested state of {final}."
    assert answer.headers["Warning"] == f"299 {service.url}: {text}"


@pytest.mark.parametrize(
    ("prepared", "requested", "status", "code"),
    [
        ("SCHEDULED", "SCHEDULED", 409, "C303"),
        ("SCHEDULED", "COMPLETED", 409, "C310"),
        ("SCHEDULED", "CANCELED", 409, "C310"),
        ("IN PROGRESS", "IN PROGRESS", 409, "C302"),
        ("IN PROGRESS", "SCHEDULED", 409, "C303"),
        ("IN PROGRESS", "COMPLETED", 409, "C304"),
        ("COMPLETED", "IN PROGRESS", 409, "C300"),
        ("COMPLETED", "CANCELED", 409, "C300"),
    ],
)
def test_11_7_2_inconsistent_with_the_state_is_409(
    service: WebClient, prepared: str, requested: str, status: int, code: str
) -> None:
    uid = service.create()
    transaction = {
        "SCHEDULED": lambda _: new_uid(),
        "IN PROGRESS": service.claim,
        "COMPLETED": service.complete,
    }[prepared](uid)
    answer = service.put(f"/workitems/{uid}/state", state(requested, transaction))
    assert (answer.status_code, answer.json()["Status"]) == (status, code)
    assert answer.headers["Warning"] == f"299 {service.url}: {INCONSISTENT}"
    assert current(service, uid) == prepared


@pytest.mark.parametrize(("transaction", "text"), [(None, MISSING), ("1.2.3", INCORRECT)])
def test_11_7_2_transaction_uid_missing_or_incorrect_is_400(
    service: WebClient, transaction: str | None, text: str
) -> None:
    uid = service.create()
    service.claim(uid)
    answer = service.put(f"/workitems/{uid}/state", state("CANCELED", transaction))
    assert answer.status_code == 400
    assert answer.headers["Warning"] == f"299 {service.url}: {text}"
    assert current(service, uid) == "IN PROGRESS"


def test_11_7_2_second_claim_with_another_uid_is_400(service: WebClient) -> None:
    uid = service.create()
    service.claim(uid)
    answer = service.put(f"/workitems/{uid}/state", state("IN PROGRESS", new_uid()))
    assert (answer.status_code, answer.json()["Status"]) == (400, "C301")


@pytest.mark.parametrize(
    "body",
    [
        state(None, "1.2.3"),
        state("DISCONTINUED", "1.2.3"),
        state("IN PROGRESS", None),
        state("IN PROGRESS", "1..2"),
        {**state("IN PROGRESS", "1.2.3"), "00741204": element("LO", "more")},
        {"00081195": element("UI", "1.2", "1.3"), "00741000": element("CS", "IN PROGRESS")},
        {"00081195": element("UI", "1.2"), "00741000": element("US", 7)},
        {},
    ],
)
def test_11_7_2_malformed_request_is_400(service: WebClient, body: DataSet) -> None:
    uid = service.create()
    assert service.put(f"/workitems/{uid}/state", body).status_code == 400
    assert current(service, uid) == "SCHEDULED"


def test_11_7_2_unknown_workitem_is_404(service: WebClient) -> None:
    assert service.put(f"/workitems/{new_uid()}/state", state("IN PROGRESS", new_uid())).status_code == 404


def test_11_7_other_methods_are_405(service: WebClient) -> None:
    answer = service.get(f"/workitems/{service.create()}/state")
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "PUT, OPTIONS"
