# SPDX-License-Identifier: AGPL-3.0-or-later
"""Malformed and unexpected requests: never a 5xx, never a hang, nothing changed after a refusal (PS3.18 §8.5)."""

from __future__ import annotations

import gzip
import http.client
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orthanc_ups.codecs import dicom_json, dicom_xml
from orthanc_ups.core.dataset import DataSet
from tests.support.datasets import datasets
from tests.support.examples import examples
from tests.support.web_client import TIMEOUT, WebClient, new_uid, next_event, state
from tests.support.workitems import full, minimal, performed, progress

CASES = examples(60)
_SUPPORTED = frozenset({501})  # said of other SOP classes: an answer, not an error
FUZZ = settings(max_examples=CASES, suppress_health_check=list(HealthCheck))
GLOBAL, FILTERED = "1.2.840.10008.5.1.4.34.5", "1.2.840.10008.5.1.4.34.5.1"
TRANSACTION = "2.25.271828182845904523536"


@dataclass(frozen=True)
class Pool:
    """A service with a workitem in each state."""

    client: WebClient
    uids: list[str]

    def content(self, uid: str) -> bytes:
        return self.client.get(f"/workitems/{uid}").content


@pytest.fixture(scope="module")
def pool(service: WebClient) -> Iterator[Pool]:
    scheduled, claimed, completed, canceled = (service.create(full("greek")) for _ in range(4))
    service.claim(claimed)
    service.complete(completed)
    service.cancel(canceled)
    yield Pool(service, [scheduled, claimed, completed, canceled])


_JUNK = st.text(max_size=12)
_WORDS = st.sampled_from(
    (
        "workitems",
        "state",
        "cancelrequest",
        "subscribers",
        "suspend",
        "ws",
        "AI",
        GLOBAL,
        FILTERED,
        "1..2",
        "",
        "..",
        ".",
    )
)
_PARAMETERS = st.sampled_from(
    ("workitem", "transaction-uid", "requester", "filter", "deletionlock", "includefield", "limit", "offset", "accept",
     "charset", "fuzzymatching", "since", "PatientName", "00404005", "00404018.00080100", "SOPInstanceUID",
     "PregnancyStatus", "TimezoneOffsetFromUTC", "00091001", "TransactionUID")
)  # fmt: skip
_ARGUMENTS = st.one_of(
    _JUNK,
    st.sampled_from(
        ("true", "all", "1", "-1", "*", "?", "20260101-", "a=b,c", TRANSACTION, "application/dicom+xml")
    ),
)
_TYPES = st.sampled_from(
    ("application/dicom+json", "application/json", "application/dicom+xml", "text/plain", "",
     'multipart/related; type="application/dicom+xml"; boundary=b')
)  # fmt: skip


def _mangled(draw: st.DrawFn, text: bytes) -> bytes:
    if not text or draw(st.booleans()):
        return text
    at = draw(st.integers(0, len(text) - 1))
    return text[:at] + draw(st.binary(max_size=3)) + text[at + draw(st.integers(0, 3)) :]


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A data set in some notation, perhaps spoiled, or anything."""
    some: DataSet = draw(st.sampled_from((minimal(), full(), performed(), progress(), {})) | datasets())
    text = draw(
        st.sampled_from(
            (
                dicom_json.encode(some),
                b"[" + dicom_json.encode(some) + b"]",
                dicom_xml.encode(some),
                b"--b\r\nContent-Type: application/dicom+xml\r\n\r\n" + dicom_xml.encode(some) + b"\r\n--b--",
                dicom_json.encode(state("IN PROGRESS", TRANSACTION)),
                b"",
            )
        )
    )
    return draw(st.binary(max_size=40)) if draw(st.integers(0, 9)) == 0 else _mangled(draw, text)


_FORMS = (
    "/workitems",
    "/workitems/{uid}",
    "/workitems/{uid}/state",
    "/workitems/{uid}/cancelrequest",
    "/workitems/{uid}/subscribers/AI",
    "/workitems/{uid}/subscribers/AI/suspend",
    f"/workitems/{FILTERED}/subscribers/AI",
    f"/workitems/{GLOBAL}/subscribers/AI",
    "/subscribers/AI",
)


@dataclass(frozen=True)
class Request:
    """What is sent; `target` is the workitem that it may be about."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    target: int


@st.composite
def requests_(draw: st.DrawFn) -> Request:
    target = draw(st.integers(0, 3))
    path = draw(st.sampled_from(_FORMS))
    if draw(st.integers(0, 4)) == 0:
        path = "/" + "/".join(
            quote(segment, safe="") for segment in draw(st.lists(_WORDS | _JUNK, max_size=5))
        )
    pairs = draw(st.lists(st.tuples(_PARAMETERS | _JUNK, _ARGUMENTS), max_size=3))
    query = "&".join(f"{quote(name, safe='')}={quote(value, safe='*')}" for name, value in pairs)
    headers = {"Content-Type": draw(_TYPES), "Accept": draw(_TYPES)}
    body = draw(bodies())
    if draw(st.integers(0, 5)) == 0:
        headers["Content-Encoding"] = "gzip"
        body = gzip.compress(body) if draw(st.booleans()) else body
    method = draw(st.sampled_from(("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "LOCK")))
    return Request(method, f"{path}?{query}" if query else path, headers, body, target)


@FUZZ
@given(request=requests_())
def test_no_request_breaks_the_service_and_no_refused_one_changes_a_workitem(
    pool: Pool, request: Request
) -> None:
    uid = pool.uids[request.target]
    before = pool.content(uid)
    status = _sent(pool.client, request, uid)
    assert status < 500 or status in _SUPPORTED
    if status >= 400:
        assert pool.content(uid) == before


def _sent(client: WebClient, request: Request, uid: str) -> int:
    base = urlsplit(client.url)
    connection = http.client.HTTPConnection(base.hostname or "", base.port, timeout=TIMEOUT)
    headers = {name: value for name, value in request.headers.items() if value}
    try:
        path = base.path + request.path.replace("{uid}", uid)
        connection.request(request.method, path, request.body or None, headers)
        return connection.getresponse().status
    finally:
        connection.close()


@FUZZ
@given(
    content=st.binary(max_size=200),
    beginning=st.sampled_from((b"", b"GET ", b"POST /dicom-web/workitems HTTP/1.1\r\n")),
)
def test_no_bytes_on_the_connection_break_the_service(pool: Pool, content: bytes, beginning: bytes) -> None:
    base = urlsplit(pool.client.url)
    with socket.create_connection((base.hostname, base.port), TIMEOUT) as raw:
        raw.sendall(beginning + content + b"\r\n\r\n")
        raw.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while chunk := raw.recv(65536):
                answer += chunk
        except ConnectionResetError:
            pass
    assert b"HTTP/1.1 5" not in answer


@settings(FUZZ, max_examples=examples(20))
@given(frames=st.lists(st.binary(max_size=60), max_size=4))
def test_no_frames_break_a_notification_connection(pool: Pool, frames: list[bytes]) -> None:
    base = urlsplit(pool.client.url)
    with socket.create_connection((base.hostname, base.port), TIMEOUT) as raw:
        upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        raw.sendall(f"GET {base.path}/subscribers/FUZZ HTTP/1.1\r\nHost: x\r\n{upgrade}{key}\r\n".encode())
        assert raw.recv(65536).startswith(b"HTTP/1.1 101")
        for frame in frames:
            try:
                raw.sendall(frame)
            except OSError:
                break


def test_the_service_is_as_good_as_before(pool: Pool) -> None:
    ae = new_uid()[-16:]
    with pool.client.socket(ae) as opened:
        uid = pool.client.create()
        pool.client.post(f"/workitems/{uid}/subscribers/{ae}")
        pool.client.complete(uid)
        states: list[Any] = [next_event(opened)["00741000"]["Value"][0] for _ in range(3)]
    assert states == ["SCHEDULED", "IN PROGRESS", "COMPLETED"]
