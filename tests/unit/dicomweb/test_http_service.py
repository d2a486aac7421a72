# SPDX-License-Identifier: AGPL-3.0-or-later
"""The listener over the network: who is admitted, limits, what pages of other origins may do."""

from __future__ import annotations

import json
import logging
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from orthanc_ups.codecs import dicom_json
from orthanc_ups.core.commands import Purge, Requester
from orthanc_ups.settings import OrthancSettings, Settings
from tests.support.waiting import wait_until
from tests.support.web_client import TIMEOUT, basic, next_event, state
from tests.support.web_service import DIMSE_AE, LettingIn, WebService
from tests.support.workitems import minimal

GLOBAL = "1.2.840.10008.5.1.4.34.5"
PASSWORDS = {"bob": "secret", "root": "toor", "eve": "evil"}


@dataclass
class Raw:
    """A connection to which a test writes what it likes."""

    connection: socket.socket

    def send(self, content: bytes) -> None:
        self.connection.sendall(content)

    def answer(self) -> bytes:
        """Everything up to the end of the connection."""
        content = b""
        while chunk := self.connection.recv(65536):
            content += chunk
        return content

    def status(self) -> int:
        return int(self.connection.recv(65536).split()[1])


@pytest.fixture
def raw(request: pytest.FixtureRequest) -> Iterator[Any]:
    opened: list[socket.socket] = []

    def open_(service: WebService) -> Raw:
        opened.append(socket.create_connection(("127.0.0.1", service.settings.http_port), TIMEOUT))
        return Raw(opened[-1])

    yield open_
    for connection in opened:
        connection.close()


@pytest.fixture(scope="module")
def small() -> Iterator[WebService]:
    """A service with small limits."""
    settings = Settings(
        maximum_body_size=10_000,
        maximum_nesting=3,
        maximum_header_size=2_000,
        maximum_connections=20,
        http_idle_timeout=0.5,
        maximum_results=2,
    )
    with WebService(settings) as service:
        yield service


# --- limits -----------------------------------------------------------------------------------------


def test_body_that_is_too_large_is_413(small: WebService) -> None:
    answer = small.post("/workitems", b" " * 10_001)
    assert answer.status_code == 413
    assert "MaximumBodySize" in answer.json()["Detail"]
    chunks = iter([b"[" * 5_000] * 3)
    assert small.request("POST", "/workitems", data=chunks).status_code == 413


def test_body_that_nests_too_deeply_is_400(small: WebService) -> None:
    nested = b'{"00400555":{"vr":"SQ","Value":[' * 4 + b"{}" + b"]}}" * 4
    answer = small.post("/workitems", nested)
    assert answer.status_code == 400
    assert answer.json()["Attribute"] == ".".join(["00400555"] * 4)
    assert small.post("/workitems", b"[" * 9_000).status_code == 400


def test_header_that_is_too_large_is_431(small: WebService) -> None:
    for headers in (
        {"X-Large": "x" * 2_500},
        {f"X-{n}": "x" * 100 for n in range(30)},
        {f"X-{n}": "" for n in range(200)},
    ):
        answer = small.get("/workitems", headers=headers)
        assert answer.status_code == 431
        assert "header" in answer.json()["Detail"]


def test_request_line_that_is_too_long_is_414(small: WebService) -> None:
    answer = small.get("/workitems?PatientID=" + "x" * 2_500)
    assert answer.status_code == 414
    assert "MaximumHeaderSize" in answer.json()["Detail"]


def test_connections_beyond_the_limit_are_turned_away(small: WebService, raw: Any) -> None:
    crowd = [raw(small) for _ in range(25)]
    turned_away = 0
    for connection in crowd:
        connection.send(b"GET /dicom-web/workitems/1.2.3 HTTP/1.1\r\nHost: x\r\n\r\n")
        turned_away += connection.status() == 503
    assert turned_away >= 5
    wait_until(lambda: small.get("/workitems/1.2.3").status_code == 404, "room again", TIMEOUT, 0.1)


@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"GET /dicom-web/workitems HTTP/1.1\r\nHost: x\r\n",
        b"GET /dicom-web/workitems/1.2 HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_idle_connections_are_closed(small: WebService, raw: Any, beginning: bytes) -> None:
    connection = raw(small)
    connection.send(beginning)
    connection.answer()  # ends, which is the point


def test_body_that_does_not_come_is_408(small: WebService, raw: Any) -> None:
    connection = raw(small)
    connection.send(b"POST /dicom-web/workitems HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    assert b" 408 " in connection.answer()


def test_page_is_no_longer_than_allowed(small: WebService) -> None:
    for _ in range(3):
        small.create()
    answer = small.get("/workitems?limit=1000")
    assert len(answer.json()) == 2
    assert "additional results" in answer.headers["Warning"]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"GET /dicom-web/workitems HTTP/1.1\r\nHost: x\r\nNo colon\r\n\r\n", 400),
        (b"GET /dicom-web/workitems/%ff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"POST /dicom-web/workitems HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", 400),
        (
            b"POST /dicom-web/workitems HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
            400,
        ),
        (
            b"POST /dicom-web/workitems HTTP/1.1\r\nHost: x\r\nExpect: magic\r\nContent-Length: 1\r\n\r\n{",
            417,
        ),
        (
            b"GET /dicom-web/subscribers/BOARD HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            b"Connection: \x80\r\n\r\n",
            400,
        ),
        (b"GET http://x/dicom-web/workitems/1.2.3 HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"GET /elsewhere HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /dicom-webworkitems HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /dicom-web/../dicom-web/workitems HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    ],
)
def test_what_is_no_good_http_gets_a_clear_answer(
    small: WebService, raw: Any, request_: bytes, status: int
) -> None:
    connection = raw(small)
    connection.send(request_)
    assert connection.status() == status


def test_client_that_leaves_within_its_body_is_no_error_of_ours(
    small: WebService, raw: Any, caplog: pytest.LogCaptureFixture
) -> None:
    leaving = raw(small)
    leaving.send(b"POST /dicom-web/workitems HTTP/1.1\r\nHost: x\r\nContent-Length: 90\r\n\r\n{")
    leaving.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # reset
    leaving.connection.close()
    for _ in range(3):
        small.create()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_client_that_waits_is_told_to_continue(small: WebService, raw: Any) -> None:
    connection = raw(small)
    body = dicom_json.encode(minimal())
    head = "POST /dicom-web/workitems HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nConnection: close\r\n"
    connection.send(
        f"{head}Content-Type: application/dicom+json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    )
    assert connection.status() == 100
    connection.send(body)
    assert b" 201 " in connection.answer()


# --- who comes in -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded() -> Iterator[WebService]:
    """A service of an Orthanc with users; `bob` has two AE titles, `root` any, `eve` none."""
    settings = Settings(users={"bob": ("BOB1", "BOB2"), "root": ("*",)})
    orthanc_settings = OrthancSettings(remote_access_allowed=True, authentication_enabled=True)
    with WebService(settings, orthanc_settings, LettingIn(PASSWORDS)) as service:
        yield service


def credentials(user: str) -> tuple[str, str]:
    return user, PASSWORDS[user]


def test_nobody_comes_in_without_credentials(guarded: WebService) -> None:
    for method, path in (
        ("GET", "/workitems"),
        ("POST", "/workitems"),
        ("OPTIONS", "/"),
        ("GET", "/nothing"),
    ):
        answer = guarded.request(method, path, auth=None)
        if path == "/nothing":
            assert answer.status_code == 404
        else:
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"].startswith("Basic")
    assert guarded.get("/workitems", auth=("bob", "wrong")).status_code == 401
    assert guarded.get("/workitems", auth=credentials("bob")).status_code in (200, 204)


@pytest.mark.parametrize(
    ("user", "path", "status"),
    [
        ("bob", f"/workitems/{GLOBAL}/subscribers/BOB1", 201),
        ("bob", f"/workitems/{GLOBAL}/subscribers/CT1", 403),
        ("root", f"/workitems/{GLOBAL}/subscribers/CT1", 201),
        ("eve", f"/workitems/{GLOBAL}/subscribers/EVE", 403),
    ],
)
def test_users_subscribe_for_their_own_ae_titles(
    guarded: WebService, user: str, path: str, status: int
) -> None:
    assert guarded.post(path, auth=credentials(user)).status_code == status
    assert guarded.delete(path, auth=credentials(user)).status_code == (200 if status == 201 else 403)


def test_users_act_as_their_own_ae_titles(guarded: WebService) -> None:
    answer = guarded.post("/workitems", minimal(), auth=credentials("bob"))
    path = answer.headers["Location"].removeprefix(guarded.url)
    claim = state("IN PROGRESS", "1.2.3")
    assert guarded.put(f"{path}/state?requester=CT1", claim, auth=credentials("bob")).status_code == 403
    assert (
        guarded.post(path, {"00741204": {"vr": "LO", "Value": ["x"]}}, auth=credentials("eve")).status_code
        == 403
    )
    assert guarded.get(path, auth=credentials("eve")).status_code == 200
    assert guarded.put(f"{path}/state?requester=BOB2", claim, auth=credentials("bob")).status_code == 200
    assert guarded.post(f"{path}/cancelrequest", auth=credentials("eve")).status_code == 403


def test_sockets_only_bring_events_of_ones_own(guarded: WebService) -> None:
    def status(user: str, ae: str) -> int:
        headers = {"Authorization": basic(*credentials(user))}
        try:
            with guarded.socket(ae, additional_headers=headers):
                return 101
        except InvalidStatus as refusal:
            return refusal.response.status_code

    assert [status("bob", ae) for ae in ("BOB1", "CT1")] == [101, 403]
    assert [status("root", "CT1"), status("eve", "EVE")] == [101, 403]
    with pytest.raises(InvalidStatus) as refusal:
        guarded.socket("BOB1")
    assert refusal.value.response.status_code == 401


def test_requester_is_the_first_ae_title_of_the_user(guarded: WebService) -> None:
    answer = guarded.post("/workitems", minimal(), auth=credentials("bob"))
    path = answer.headers["Location"].removeprefix(guarded.url)
    guarded.put(f"{path}/state", state("IN PROGRESS", "1.2.3"), auth=credentials("bob"))
    uid = path.rpartition("/")[2]
    guarded.post(f"/workitems/{uid}/subscribers/{DIMSE_AE}", auth=credentials("root"))
    assert guarded.post(f"{path}/cancelrequest", auth=credentials("bob")).status_code == 202
    events = wait_until(
        lambda: [
            event for event in guarded.dimse.events.get(DIMSE_AE, []) if event.uid == uid and event.type == 2
        ],
        "asked",
    )
    assert events[0].information["00741236"] == {"vr": "AE", "Value": ["BOB1"]}


def test_without_remote_access_loopback_comes_in() -> None:
    with WebService(orthanc_settings=OrthancSettings(remote_access_allowed=False)) as service:
        assert service.get("/workitems").status_code in (200, 204)


def test_orthanc_is_asked_once_in_a_while() -> None:
    with WebService() as service:
        for _ in range(10):
            service.get("/workitems")
        assert service.upstream.asked == 1


# --- one worklist, two faces ------------------------------------------------------------------------


def test_ae_with_dimse_address_and_socket_is_told_on_both(guarded: WebService) -> None:
    with WebService() as service, service.socket(DIMSE_AE) as opened:
        uid = service.create()
        service.post(f"/workitems/{uid}/subscribers/{DIMSE_AE}")
        assert next_event(opened)["00001000"]["Value"] == [uid]
        wait_until(
            lambda: [event.uid for event in service.dimse.events.get(DIMSE_AE, [])] == [uid],
            "told by DIMSE, too",
        )


def test_purged_workitem_is_410() -> None:
    with WebService() as service:
        uid = service.create()
        service.cancel(uid)
        service.call(service.service.worklist.execute(Purge(Requester("TEST", "retention"), uid)))
        claim = state("IN PROGRESS", "1.2.3")
        assert service.get(f"/workitems/{uid}").status_code == 410
        assert service.post(f"/workitems/{uid}", {}).status_code == 410
        assert service.put(f"/workitems/{uid}/state", claim).status_code == 410
        assert service.post(f"/workitems?workitem={uid}", minimal()).status_code == 409


def test_going_down_is_told_before_sockets_are_closed() -> None:
    with ExitStack() as sockets:
        with WebService() as service:
            opened = sockets.enter_context(service.socket("AI"))
            service.post(f"/workitems/{GLOBAL}/subscribers/AI")
            uid = service.create()
            assert next_event(opened)["00001000"]["Value"] == [uid]
        event = next_event(opened)
        assert event["00001002"]["Value"] == [4]
        assert event["00741242"]["Value"] == ["GOING DOWN"]
        with pytest.raises(ConnectionClosed) as end:
            opened.recv(TIMEOUT)
    assert end.value.rcvd is not None
    assert end.value.rcvd.code == 1001


def test_answers_do_not_name_libraries(small: WebService) -> None:
    assert small.get("/workitems/1.2.3").headers["Server"] == "orthanc-ups"
    assert json.loads(small.get("/workitems/1.2.3").content)["Status"] == "C307"
