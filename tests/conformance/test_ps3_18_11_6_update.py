# SPDX-License-Identifier: AGPL-3.0-or-later
"""PS3.18 §11.6 Update Workitem."""

import pytest

from orthanc_ups.core.dataset import DataSet, element
from tests.support.web_client import WebClient, new_uid
from tests.support.workitems import performed, progress

LABEL: DataSet = {"00741204": element("LO", "Third reading")}
NOT_CLAIMED = "The target URI did not reference a claimed Workitem."
INCONSISTENT = "The submitted request is inconsistent with the current state of the Workitem."


def warning(service: WebClient, text: str) -> str:
    return f"299 {service.url}: {text}"


def test_11_6_1_scheduled_workitem_is_updated_without_transaction_uid(service: WebClient) -> None:
    uid = service.create()
    answer = service.post(f"/workitems/{uid}", LABEL)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["Content-Location"] == f"{service.url}/workitems/{uid}"
    assert service.retrieve(uid)["00741204"] == LABEL["00741204"]


@pytest.mark.parametrize(
    "form",
    [
        *("transaction-uid={t}", "Transaction-uid={t}", "Transaction-UID={t}", "transaction={t}", "{t}"),
        *("TransactionUid={t}", "TransactionUID={t}", "transactionuid={t}", "TRANSACTION-UID={t}"),
        *("00081195={t}", "transaction_uid={t}", "transaction-uid={t}&TransactionUID={t}"),
    ],
)
def test_11_6_1_claimed_workitem_is_updated_with_transaction_uid_in_the_query(
    service: WebClient, form: str
) -> None:
    uid = service.create()
    transaction = service.claim(uid)
    answer = service.post(f"/workitems/{uid}?" + form.format(t=transaction), progress("40"))
    assert answer.status_code == 200
    assert service.retrieve(uid)["00741002"]["Value"][0]["00741004"] == element("DS", "40")


def test_11_6_1_transaction_uid_in_the_body(service: WebClient) -> None:
    uid = service.create()
    transaction = service.claim(uid)
    body = {"00081195": element("UI", transaction), **progress("41")}
    assert service.post(f"/workitems/{uid}", body).status_code == 200
    assert service.post(f"/workitems/{uid}?transaction-uid={transaction}", body).status_code == 200


def test_11_6_1_transaction_uids_that_differ_are_400(service: WebClient) -> None:
    uid = service.create()
    transaction = service.claim(uid)
    body = {"00081195": element("UI", transaction), **progress("41")}
    before = service.retrieve(uid)
    assert service.post(f"/workitems/{uid}?transaction-uid={new_uid()}", body).status_code == 400
    assert service.retrieve(uid) == before


@pytest.mark.parametrize("query", ["", "?transaction-uid=1.2.3"])
def test_11_6_2_missing_or_wrong_transaction_uid_is_400(service: WebClient, query: str) -> None:
    uid = service.create()
    service.claim(uid)
    before = service.retrieve(uid)
    answer = service.post(f"/workitems/{uid}{query}", progress())
    assert answer.status_code == 400
    assert answer.headers["Warning"] == warning(service, NOT_CLAIMED)
    assert answer.json()["Status"] == "C301"
    assert service.retrieve(uid) == before


def test_11_6_2_transaction_uid_on_a_scheduled_workitem_is_409(service: WebClient) -> None:
    uid = service.create()
    before = service.retrieve(uid)
    answer = service.post(f"/workitems/{uid}?transaction-uid={new_uid()}", LABEL)
    assert answer.status_code == 409
    assert answer.headers["Warning"] == warning(service, INCONSISTENT)
    assert service.retrieve(uid) == before


def test_11_6_2_final_state_is_400(service: WebClient) -> None:
    uid = service.create()
    transaction = service.complete(uid)
    before = service.retrieve(uid)
    answer = service.post(f"/workitems/{uid}?transaction-uid={transaction}", LABEL)
    assert answer.status_code == 400
    assert answer.headers["Warning"] == warning(service, INCONSISTENT)
    assert answer.json()["Status"] == "C300"
    assert service.retrieve(uid) == before


@pytest.mark.parametrize(
    ("change", "attribute"),
    [
        ({"00741000": element("CS", "IN PROGRESS")}, "00741000"),
        ({"00080018": element("UI", "1.2.3")}, "00080018"),
        ({"00100010": element("PN", {"Alphabetic": "Other"})}, "00100010"),
        ({"00741200": element("CS", "URGENT")}, "00741200"),
        ({"00404005": element("DT", "tomorrow")}, "00404005"),
    ],
)
def test_11_6_2_attributes_that_may_not_be_set_are_400(
    service: WebClient, change: DataSet, attribute: str
) -> None:
    uid = service.create()
    before = service.retrieve(uid)
    answer = service.post(f"/workitems/{uid}", change)
    assert answer.status_code == 400
    assert answer.json()["Attribute"] == attribute
    assert service.retrieve(uid) == before


def test_11_6_1_sequences_are_replaced_whole(service: WebClient) -> None:
    uid = service.create()
    transaction = service.claim(uid)
    service.post(f"/workitems/{uid}?transaction-uid={transaction}", progress("10", "reading"))
    only = {"00741002": element("SQ", {"00741004": element("DS", "20")})}
    service.post(f"/workitems/{uid}?transaction-uid={transaction}", only)
    assert service.retrieve(uid)["00741002"] == only["00741002"]


def test_11_6_3_modifications_are_told_by_a_warning(service: WebClient) -> None:
    answer = service.post(f"/workitems/{service.create()}", {"00404010": element("DT", "20200101")})
    assert answer.status_code == 200
    fixed = warning(service, "The Workitem was updated with modifications.")
    assert answer.headers["Warning"].startswith(f"{fixed}, ")
    assert "(0040,4010)" in answer.headers["Warning"]


def test_11_6_2_unknown_workitem_is_404(service: WebClient) -> None:
    assert service.post(f"/workitems/{new_uid()}", performed()).status_code == 404


def test_11_6_2_empty_body_is_400(service: WebClient) -> None:
    assert service.post(f"/workitems/{service.create()}").status_code == 400
