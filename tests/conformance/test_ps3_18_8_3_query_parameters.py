# SPDX-License-Identifier: AGPL-3.0-or-later
"""PS3.18 §8.3 Query Parameters: what is not supported is ignored and named, on every transaction alike."""

from collections.abc import Callable

import pytest
from requests import Response
from websockets.sync.client import connect

from orthanc_ups.core.dataset import element
from tests.support.web_client import WebClient, new_uid, state
from tests.support.workitems import minimal, performed

GLOBAL = "1.2.840.10008.5.1.4.34.5"
FILTERED = "1.2.840.10008.5.1.4.34.5.1"
STRANGE = "_=1732&session_code=x&foo"


def create(service: WebClient, query: str) -> Response:
    return service.post(f"/workitems?workitem={new_uid()}&{query}", minimal())


def retrieve(service: WebClient, query: str) -> Response:
    return service.get(f"/workitems/{service.create()}?{query}")


def update(service: WebClient, query: str) -> Response:
    return service.post(f"/workitems/{service.create()}?{query}", {"00741204": element("LO", "Other")})


def change_state(service: WebClient, query: str) -> Response:
    return service.put(f"/workitems/{service.create()}/state?{query}", state("IN PROGRESS", new_uid()))


def request_cancellation(service: WebClient, query: str) -> Response:
    return service.post(f"/workitems/{service.create()}/cancelrequest?{query}")


def search(service: WebClient, query: str) -> Response:
    return service.get(f"/workitems?SOPInstanceUID={service.create()}&{query}")


def subscribe(service: WebClient, query: str) -> Response:
    return service.post(f"/workitems/{service.create()}/subscribers/B1QUERY?{query}")


def subscribe_filtered(service: WebClient, query: str) -> Response:
    return service.post(f"/workitems/{FILTERED}/subscribers/B1FILTER?filter=PatientID=nobody&{query}")


def unsubscribe(service: WebClient, query: str) -> Response:
    uid = service.create()
    service.post(f"/workitems/{uid}/subscribers/B1QUERY")
    return service.delete(f"/workitems/{uid}/subscribers/B1QUERY?{query}")


def suspend(service: WebClient, query: str) -> Response:
    service.post(f"/workitems/{GLOBAL}/subscribers/B1SUSPEND")
    return service.post(f"/workitems/{GLOBAL}/subscribers/B1SUSPEND/suspend?{query}")


def capabilities(service: WebClient, query: str) -> Response:
    return service.request("OPTIONS", f"/?{query}")


Transaction = Callable[[WebClient, str], Response]
TRANSACTIONS: list[tuple[Transaction, int]] = [
    (create, 201),
    (retrieve, 200),
    (update, 200),
    (change_state, 200),
    (request_cancellation, 202),
    (search, 200),
    (subscribe, 201),
    (subscribe_filtered, 201),
    (unsubscribe, 200),
    (suspend, 200),
    (capabilities, 200),
]


@pytest.mark.parametrize(("transaction", "status"), TRANSACTIONS)
def test_8_3_1_unsupported_parameters_are_ignored_and_named(
    service: WebClient, transaction: Transaction, status: int
) -> None:
    answer = transaction(service, STRANGE)
    assert answer.status_code == status, answer.text
    start = f"299 {service.url}: Unsupported query parameters were ignored: "
    assert answer.headers["Warning"] == f"{start}_, session_code, foo"


@pytest.mark.parametrize(("transaction", "status"), TRANSACTIONS)
def test_8_3_1_parameters_of_another_transaction_are_ignored_and_named(
    service: WebClient, transaction: Transaction, status: int
) -> None:
    """A search takes it for the attribute of that name, which is no matching key."""
    foreign, named = "since", "were ignored: since"
    if transaction is search:
        foreign, named = "deletionlock", "were not used: DeletionLock (0074,1230)"
    answer = transaction(service, f"{foreign}=7")
    assert answer.status_code == status, answer.text
    assert answer.headers["Warning"].endswith(named)


def test_8_3_1_a_notification_connection_names_what_it_ignores(service: WebClient) -> None:
    with connect(f"{service.web_sockets}/subscribers/B1SOCKET?since=0&{STRANGE}", proxy=None) as socket:
        assert socket.response is not None
        assert socket.response.headers["Warning"].endswith("were ignored: _, session_code, foo")


def test_8_3_1_a_refusal_names_what_was_ignored(service: WebClient) -> None:
    """A mistyped parameter may be why."""
    uid = service.create()
    transaction = service.claim(uid)
    answer = service.post(f"/workitems/{uid}?transacton-uid={transaction}", performed())
    assert answer.status_code == 400
    assert "were ignored: transacton-uid" in answer.headers["Warning"]


@pytest.mark.parametrize(
    ("transaction", "name"),
    [
        *((create, name) for name in ("AffectedSOPInstanceUID", "requester")),
        *((update, name) for name in ("transaction-uid", "requester")),
        (change_state, "requester"),
        (request_cancellation, "requester"),
        *((search, name) for name in ("includefield", "offset", "limit", "fuzzymatching")),
        *((subscribe, name) for name in ("deletionlock", "requester")),
        *((subscribe_filtered, name) for name in ("deletionlock", "filter")),
        (unsubscribe, "requester"),
        (suspend, "requester"),
    ],
)
@pytest.mark.parametrize("sign", ["=", "=%20", ""])
def test_8_3_1_a_supported_parameter_without_value_is_400_and_named(
    service: WebClient, transaction: Transaction, name: str, sign: str
) -> None:
    answer = transaction(service, name + sign)
    assert answer.status_code == 400
    assert name in answer.json()["Detail"]


def test_11_4_1_an_empty_workitem_is_400(service: WebClient) -> None:
    answer = service.post("/workitems?workitem=", minimal())
    assert (answer.status_code, answer.json()["Detail"]) == (400, "workitem has no value")


def test_11_10_1_a_mistyped_key_of_a_filter_is_named_since_the_subscription_is_wider(
    service: WebClient,
) -> None:
    path = f"/workitems/{FILTERED}/subscribers/B1WIDER"
    answer = service.post(f"{path}?filter=PatientID=nobody,PatintName=Doe")
    assert answer.status_code == 201
    assert answer.headers["Warning"].endswith("were ignored: PatintName")
    answer = service.post(f"{path}?filter=PatintName=Doe")
    assert answer.status_code == 400
    assert answer.headers["Warning"].endswith("were ignored: PatintName")
