# SPDX-License-Identifier: AGPL-3.0-or-later
"""PS3.18 §11.8 Request Cancellation."""

import pytest

from orthanc_ups.core.dataset import DataSet, element
from tests.support.web_client import WebClient, new_ae, new_uid, next_event
from tests.support.workitems import code

REASON: DataSet = {
    "0074100A": element("UR", "tel:+49-40-0000000"),
    "0074100C": element("LO", "Reading room 7"),
    "0074100E": element("SQ", code("110514", "DCM", "Incorrect worklist entry selected")),
    "00741238": element("LT", "Wrong patient"),
}


def test_11_8_3_scheduled_workitem_is_canceled(service: WebClient) -> None:
    uid = service.create()
    answer = service.post(f"/workitems/{uid}/cancelrequest", REASON)
    assert (answer.status_code, answer.content) == (202, b"")
    canceled = service.retrieve(uid)
    assert canceled["00741000"] == element("CS", "CANCELED")
    (information,) = canceled["00741002"]["Value"]
    assert information["00741238"] == REASON["00741238"]
    assert information["0074100E"] == REASON["0074100E"]


def test_11_8_1_body_is_optional(service: WebClient) -> None:
    uid = service.create()
    assert service.post(f"/workitems/{uid}/cancelrequest").status_code == 202
    assert service.retrieve(uid)["00741000"] == element("CS", "CANCELED")


@pytest.mark.parametrize("form", ["/cancelrequest?requester=RIS", "/cancelrequest/RIS"])
def test_11_8_1_requester_is_told_to_the_performer(service: WebClient, form: str) -> None:
    uid = service.create()
    service.claim(uid)
    performer = new_ae()
    with service.socket(performer) as socket:
        service.post(f"/workitems/{uid}/subscribers/{performer}")
        assert next_event(socket)["00001002"]["Value"] == [1]
        assert service.post(f"/workitems/{uid}{form}", REASON).status_code == 202
        event = next_event(socket)
    assert event["00001002"] == {"vr": "US", "Value": [2]}
    assert event["00741236"] == {"vr": "AE", "Value": ["RIS"]}
    assert event["00741238"] == {"vr": "LT", "Value": ["Wrong patient"]}
    assert event["0074100A"] == {"vr": "UR", "Value": ["tel:+49-40-0000000"]}
    assert event["0074100C"] == {"vr": "LO", "Value": ["Reading room 7"]}
    assert event["0074100E"]["Value"][0]["00080100"] == {"vr": "SH", "Value": ["110514"]}
    assert service.retrieve(uid)["00741000"] == element("CS", "IN PROGRESS")


def test_11_8_1_arguments_of_other_transactions_do_no_harm(service: WebClient) -> None:
    uid = service.create()
    body: DataSet = {**REASON, "00081195": element("UI", uid), "00741000": element("CS", "CANCELED")}
    assert (
        service.post(f"/workitems/{uid}/cancelrequest", {**body, "00741204": element("LO", "x")}).status_code
        == 400
    )
    assert service.post(f"/workitems/{uid}/cancelrequest", body).status_code == 202


def test_11_8_2_performer_that_cannot_be_told_is_409(service: WebClient) -> None:
    uid = service.create()
    service.claim(uid)
    answer = service.post(f"/workitems/{uid}/cancelrequest")
    assert answer.status_code == 409
    assert answer.headers["Warning"] == f"299 {service.url}: The performer cannot be contacted."


def test_11_8_3_already_canceled_is_202_with_a_warning(service: WebClient) -> None:
    uid = service.create()
    service.cancel(uid)
    answer = service.post(f"/workitems/{uid}/cancelrequest")
    assert answer.status_code == 202
    text = "The UPS is already in the requested state of CANCELED."
    assert answer.headers["Warning"] == f"299 {service.url}: {text}"


def test_11_8_2_completed_is_409(service: WebClient) -> None:
    uid = service.create()
    service.complete(uid)
    answer = service.post(f"/workitems/{uid}/cancelrequest")
    assert answer.status_code == 409
    assert answer.headers["Warning"] == f"299 {service.url}: The UPS is already COMPLETED."


def test_11_8_2_unknown_workitem_is_404(service: WebClient) -> None:
    assert service.post(f"/workitems/{new_uid()}/cancelrequest").status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {"00741204": element("LO", "label")},
        {"00741238": element("LT", "a\x00b")},
        {"0074100A": element("UR", "with blank")},
        {"0074100E": element("SQ", {"00080100": element("US", 1)})},
    ],
)
def test_11_8_2_malformed_request_is_400(service: WebClient, body: DataSet) -> None:
    uid = service.create()
    assert service.post(f"/workitems/{uid}/cancelrequest", body).status_code == 400
    assert service.retrieve(uid)["00741000"] == element("CS", "SCHEDULED")
