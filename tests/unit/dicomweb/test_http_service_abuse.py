# SPDX-License-Identifier: AGPL-3.0-or-later
"""Abuse of the listener: paths that are authorized as another, bytes that are not text, clients that never read."""

from __future__ import annotations

import asyncio
import base64
import http.client
import socket
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import pytest

from orthanc_ups.codecs import dicom_json
from orthanc_ups.core.dataset import DataSet
from orthanc_ups.core.statuses import UpsError
from orthanc_ups.dicomweb import bodies as web_body
from orthanc_ups.dicomweb.bodies import BodyReader, BodyReceiver
from orthanc_ups.dicomweb.response import HttpProblem
from orthanc_ups.settings import OrthancSettings, Settings
from tests.support.waiting import wait_until
from tests.support.web_client import TIMEOUT
from tests.support.web_service import LettingIn, WebService
from tests.support.workitems import minimal, uid

BOB = "Basic " + base64.b64encode(b"bob:secret").decode()


class OnlyCancelRequests(LettingIn):
    """A filter by path, as Lua filters are: Orthanc shows it the decoded path."""

    async def ask(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
        self.asked += 1
        allowed = method == "GET" or unquote(path).endswith("/cancelrequest")
        return (200 if allowed else 403), unquote(path).encode()


@pytest.fixture
def filtered() -> Iterator[WebService]:
    with WebService(upstream=OnlyCancelRequests()) as service:
        yield service


@pytest.mark.parametrize("hidden", ["%2Fcancelrequest", "%2fcancelrequest", "%3F/cancelrequest", "..%2Fx"])
def test_an_invalid_uid_is_not_authorized_as_another_path(filtered: WebService, hidden: str) -> None:
    url = f"{filtered.origin}/dicom-web/workitems/{uid(1)}"
    headers = {"Content-Type": "application/dicom+json"}
    answer = filtered.session.post(url + hidden, data=b"{}", headers=headers, timeout=TIMEOUT)
    assert answer.status_code in (400, 403, 404)
    assert filtered.session.post(url, data=b"{}", headers=headers, timeout=TIMEOUT).status_code == 403


@pytest.mark.parametrize(
    "ae",
    [
        "%2E%2E",
        "%2e",
        "..%2F..%2FX",
        "..%5CX",
        "%252E%252E",
        "..%252FX",
        "A%2FB",
        "A%00B",
        "A%0AB",
        "%20..%20",
    ],
)
@pytest.mark.parametrize("suffix", ["", "/suspend"])
def test_ae_titles_that_name_another_path_are_refused_before_orthanc_is_asked(
    filtered: WebService, ae: str, suffix: str
) -> None:
    before = filtered.upstream.asked
    for method in ("POST", "DELETE", "PUT"):
        target = f"/dicom-web/workitems/1.2.840.10008.5.1.4.34.5/subscribers/{ae}{suffix}"
        assert raw_status(filtered, method, target) == 400
    for target in (f"/dicom-web/subscribers/{ae}", f"/ws/subscribers/{ae}", f"/subscribers/{ae}"):
        assert raw_status(filtered, "GET", target) == 400
    assert filtered.upstream.asked == before


def raw_status(service: WebService, method: str, target: str) -> int:
    """The status of a request whose target is sent as it stands: other clients resolve dots."""
    connection = http.client.HTTPConnection("127.0.0.1", service.settings.http_port, timeout=TIMEOUT)
    try:
        connection.request(method, target)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.fixture
def guarded() -> Iterator[WebService]:
    orthanc_settings = OrthancSettings(remote_access_allowed=True, authentication_enabled=True)
    with WebService(Settings(), orthanc_settings, LettingIn({"bob": "secret"})) as service:
        yield service


def _status(service: WebService, lines: bytes, path: bytes = b"/dicom-web/workitems") -> int:
    with socket.create_connection(("127.0.0.1", service.settings.http_port), TIMEOUT) as connection:
        connection.sendall(b"GET %b HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n" % (path, lines))
        return int(connection.recv(65536).split()[1])


@pytest.mark.parametrize(
    ("shown", "status"),
    [
        (b"Authorization: " + BOB.encode(), 204),
        (b"Authorization: Basic \xc3\xa4", 401),  # UTF-8, but no Base64
        (b"Authorization: Basic \xff\xe4", 400),  # not UTF-8
        (b"Authorization: Bearer abc\xff", 400),
        (b"Cookie: \xff", 400),
        (b"X-Other: \xff", 401),
    ],
)
def test_credentials_of_any_bytes_get_an_answer(guarded: WebService, shown: bytes, status: int) -> None:
    assert _status(guarded, shown) == status


@pytest.mark.parametrize("key", [b"\xa6" * 24, b"AAAA", b"=", b"\xc3\xa4", b""])
@pytest.mark.parametrize("upgrade", [b"websocket", b"\xa6"])
def test_a_handshake_of_any_bytes_gets_an_answer(guarded: WebService, key: bytes, upgrade: bytes) -> None:
    lines = b"Authorization: %b\r\nUpgrade: %b\r\nConnection: Upgrade\r\n" % (BOB.encode(), upgrade)
    keys = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key
    assert _status(guarded, lines + keys, b"/dicom-web/subscribers/AI") == 400


def test_a_path_with_a_url_in_it_is_no_absolute_form(guarded: WebService) -> None:
    answer = guarded.session.get(
        f"{guarded.origin}/dicom-web/x://y/dicom-web/workitems",
        headers={"Authorization": BOB},
        timeout=TIMEOUT,
    )
    assert answer.status_code == 404


def test_who_takes_no_answers_however_small_is_cut_off() -> None:
    with WebService(Settings(http_idle_timeout=0.5)) as service:
        answer = service.post(f"/workitems?{uid(1)}", minimal())
        assert answer.status_code == 201
        request = f"GET /dicom-web/workitems/{uid(1)} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect(("127.0.0.1", service.settings.http_port))
            before = service.call(_number(service))
            deaf.setblocking(False)
            wait_until(lambda: _is_full(deaf, request), "the deaf client is full")
            wait_until(lambda: service.call(_number(service)) < before, "it is cut off")


async def _number(service: WebService) -> int:
    return service.listener.connections


def _is_full(connection: socket.socket, request: bytes) -> bool:
    """Ask on and on; true once nothing more is taken, or the connection is cut."""
    try:
        while True:
            connection.send(request * 100)
    except BlockingIOError:
        return True
    except OSError:
        return True


def test_large_bodies_do_not_queue_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_body, "PATIENCE", 0.01)
    busy, go_on = threading.Semaphore(0), threading.Event()

    def slow(*_: object) -> list[DataSet]:
        busy.release()
        go_on.wait(TIMEOUT)
        return [{}]

    monkeypatch.setattr(dicom_json, "decode", slow)
    headers, large = {"content-type": "application/dicom+json"}, b" " * (1 << 16)

    async def work() -> None:
        bodies = BodyReader(1 << 20, 32)
        reading = [asyncio.ensure_future(bodies.data_set(headers, large)) for _ in range(web_body.THREADS)]
        for _ in reading:
            assert await asyncio.to_thread(busy.acquire, timeout=TIMEOUT)
        with pytest.raises(HttpProblem) as refused:
            await bodies.data_set(headers, large)
        assert refused.value.status == 503
        assert refused.value.headers == (("Retry-After", "5"),)
        go_on.set()
        assert await asyncio.gather(*reading) == [{}] * web_body.THREADS

    asyncio.run(work())


def test_a_body_counts_until_its_request_is_answered() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"x" * 100

    def request() -> Any:
        content = SimpleNamespace(iter_any=chunks)
        return SimpleNamespace(content=content, content_length=100, headers={}, version=(1, 1))

    async def work() -> None:
        bodies = BodyReceiver(100, 1.0)
        unanswered = [bodies.of(request()) for _ in range(16)]
        for body_of in unanswered:
            assert await body_of.__aenter__() == b"x" * 100
        with pytest.raises(HttpProblem) as refused:
            async with bodies.of(request()):
                pass
        assert refused.value.status == 503
        await unanswered[0].__aexit__(None, None, None)
        async with bodies.of(request()) as body:
            assert len(body) == 100

    asyncio.run(work())


def test_more_values_than_the_rules_allow_are_refused_before_they_cost_much() -> None:
    body = b'{"00091001":{"vr":"US","Value":[' + b"1," * 600_000 + b"1]}}"
    with pytest.raises(UpsError, match="at most 100000 elements, items and values"):
        dicom_json.decode(body)


def test_a_tag_in_both_cases_stands_twice() -> None:
    with pytest.raises(UpsError, match="occurs twice"):
        dicom_json.decode(b'{"0040a370":{"vr":"SQ"},"0040A370":{"vr":"SQ","Value":[{}]}}')
