# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the log says of refused HTTP requests, and what it does not."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator

import pytest

from orthanc_ups.settings import OrthancSettings, Settings
from tests.support.web_client import TIMEOUT, new_uid, state
from tests.support.web_service import LettingIn, WebService
from tests.support.workitems import changed, minimal

GLOBAL = "1.2.840.10008.5.1.4.34.5"
SECRET = "Secret^Jane"


@pytest.fixture(autouse=True)
def _warnings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "orthanc_ups")


@pytest.fixture
def service() -> Iterator[WebService]:
    with WebService() as running:
        yield running


def test_a_refused_update_names_workitem_client_status_and_reason(
    service: WebService, caplog: pytest.LogCaptureFixture
) -> None:
    uid, wrong = service.create(), new_uid()
    service.claim(uid)
    assert service.post(f"/workitems/{uid}?TransactionUID={wrong}", {}).status_code == 400
    (line,) = caplog.messages
    assert line.startswith(f"Update of {uid} by somebody at 127.0.0.1 refused with 400: ")
    assert line.endswith(" (C301)")
    assert wrong not in line


@pytest.mark.parametrize(
    ("method", "path", "line"),
    [
        ("GET", "/workitems/1.2.3", "Retrieve of 1.2.3 by somebody at 127.0.0.1 refused with 404: "),
        ("GET", f"/patients/{SECRET}", "HTTP GET by somebody at 127.0.0.1 refused with 404: "),
        ("PATCH", "/workitems", "HTTP PATCH by somebody at 127.0.0.1 refused with 405: "),
        ("GET", "/subscribers/AE1", "WebSocket of AE1 by somebody at 127.0.0.1 refused with 400: "),
        ("POST", f"/workitems/{GLOBAL}/subscribers/AE1?PatientName={SECRET}",
         f"Subscribe of {GLOBAL} for AE1 by somebody at 127.0.0.1 refused with 400: "),
        ("DELETE", f"/workitems/{GLOBAL}/subscribers/AE1",
         f"Unsubscribe of {GLOBAL} for AE1 by somebody at 127.0.0.1 refused with 404: "),
        ("GET", f"/workitems?PatientName={SECRET}&limit=x", "Search by somebody at 127.0.0.1 refused with 400: "),
    ],
)  # fmt: skip
def test_every_transaction_has_a_readable_line(
    service: WebService, caplog: pytest.LogCaptureFixture, method: str, path: str, line: str
) -> None:
    assert service.request(method, path).status_code >= 400
    (logged,) = caplog.messages
    assert logged.startswith(line)
    assert len(logged) > len(line)


def test_what_is_carried_out_leaves_no_line(service: WebService, caplog: pytest.LogCaptureFixture) -> None:
    service.complete(service.create())
    assert service.get("/workitems?PatientID=none").status_code == 204
    assert caplog.messages == []


@pytest.mark.parametrize("tag", ["00100010", "00100020", "00100030", "00404005", "00741204", "00741200"])
@pytest.mark.parametrize("vr", ["PN", "LO", "DT", "CS", "US", "XX", "SQ", "UI"])
def test_no_line_has_patient_data_in_it(
    service: WebService, caplog: pytest.LogCaptureFixture, tag: str, vr: str
) -> None:
    for value in (SECRET, SECRET * 100, {"Alphabetic": SECRET}, {"00100010": SECRET}):
        body = changed(minimal(), **{f"t{tag}": {"vr": vr, "Value": [value]}})
        try:
            service.post(f"/workitems?workitem={new_uid()}", body)
        except TypeError:  # not JSON
            continue
        service.get("/workitems", params={tag: SECRET, f"{SECRET}": "1", "PatientWeight": SECRET})
        service.post(f"/workitems/{GLOBAL}/subscribers/A", params={"filter": SECRET, SECRET: SECRET})
    assert "Secret" not in caplog.text


def test_no_line_has_a_password_or_a_transaction_uid_in_it(caplog: pytest.LogCaptureFixture) -> None:
    transaction = "2.25.4711081547110815"
    orthanc_settings = OrthancSettings(remote_access_allowed=True, authentication_enabled=True)
    with WebService(None, orthanc_settings, LettingIn({"bob": "pass-word"})) as guarded:
        uid = new_uid()
        for auth in (None, ("bob", "wr0ng"), ("eve", "pass-word")):
            assert guarded.get(f"/workitems/{uid}", auth=auth).status_code == 401
        for query in (transaction, f"transaction-uid={transaction}&transaction-uid=1", f"x={transaction}"):
            guarded.post(f"/workitems/{uid}?{query}", minimal(), auth=("bob", "pass-word"))
            guarded.put(f"/workitems/{uid}/state?{query}", state("X", transaction), auth=("bob", "pass-word"))
    assert "Retrieve of " + uid + " by somebody at 127.0.0.1 refused with 401" in caplog.text
    assert "Retrieve of " + uid + " by user eve at 127.0.0.1 refused with 401" in caplog.text
    assert "Update of " + uid + " by user bob at 127.0.0.1 refused with" in caplog.text
    assert not [word for word in ("wr0ng", "pass-word", transaction) if word in caplog.text]


def test_behind_a_trusted_proxy_the_client_is_named(caplog: pytest.LogCaptureFixture) -> None:
    with WebService(Settings(trusted_proxies=("127.0.0.0/8",))) as proxied:
        proxied.get("/workitems/1.2.3", headers={"X-Forwarded-For": "9.9.9.9, 10.0.0.7"})
        proxied.get("/workitems/1.2.4", headers={"X-Forwarded-For": "<script>"})
    assert "Retrieve of 1.2.3 by somebody at 10.0.0.7 refused" in caplog.text
    assert "Retrieve of 1.2.4 by somebody at 127.0.0.1 refused" in caplog.text


def test_what_is_no_http_has_a_line_and_a_flood_of_it_a_few(
    service: WebService, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(30):
        with socket.create_connection(("127.0.0.1", service.settings.http_port), TIMEOUT) as connection:
            connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 400 ") or connection.recv(65536) == b""
    assert caplog.messages[0].startswith("HTTP request by somebody at 127.0.0.1 refused with 400: ")
    assert len(caplog.messages) == 5
