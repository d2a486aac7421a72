# SPDX-License-Identifier: AGPL-3.0-or-later
"""UPS-RS on Orthanc's own port: what its server drops is passed in other ways, and few of its threads are occupied."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import pytest

from orthanc_ups.config import read_orthanc_settings
from orthanc_ups.core.ae_titles import AeTitles
from orthanc_ups.dicomweb.authorization import PROBE_HEADER, Authorization
from orthanc_ups.dicomweb.orthanc_port import OrthancRoutes, patterns
from orthanc_ups.dicomweb.orthanc_requests import OrthancRequests, query_of
from orthanc_ups.dicomweb.request import WebRequest
from orthanc_ups.dicomweb.response import HttpProblem, WebResponse
from orthanc_ups.dicomweb.rights import Rights
from orthanc_ups.orthanc.loop_thread import LoopThread
from orthanc_ups.orthanc.refusal_log import RefusalLog
from orthanc_ups.settings import Settings
from tests.support.waiting import wait_until

_HAVE_CALLS_OF_THEIR_OWN = (301, 401, 405)


class Output:
    """Orthanc's answer, as a test can read it."""

    def __init__(self) -> None:
        self.status = 0
        self.body = b""
        self.content_type = ""
        self.headers: dict[str, str] = {}
        self.hangs_up = False

    def AnswerBuffer(self, answer: str | bytes, mime_type: str, /) -> None:
        self.status, self.body, self.content_type = 200, _bytes(answer), mime_type

    def StartStreamAnswer(self, mime_type: str, /) -> None:
        self.status, self.content_type = 200, mime_type

    def SendStreamChunk(self, chunk: bytes, /) -> None:
        assert chunk and self.status == 200
        if self.hangs_up:
            raise RuntimeError("Error in the network protocol")
        self.body += chunk

    def SendHttpStatus(self, status: int, body: str | bytes, /) -> None:
        assert status not in _HAVE_CALLS_OF_THEIR_OWN
        self.status, self.body, self.content_type = status, _bytes(body), "text/plain"

    def SendHttpStatusCode(self, status: int, /) -> None:
        assert status not in _HAVE_CALLS_OF_THEIR_OWN
        self.status = status

    def SendMethodNotAllowed(self, allowed: str, /) -> None:
        self.status = 405
        self.headers["Allow"] = allowed

    def SetHttpHeader(self, name: str, value: str, /) -> None:
        assert not self.status, "headers come before the answer"
        assert name not in self.headers, "Orthanc keeps only one"
        self.headers[name] = value

    def Redirect(self, location: str, /) -> None:
        self.status = 301


def _bytes(content: str | bytes) -> bytes:
    return content if isinstance(content, bytes) else content.encode()


class Handler:
    """Remembers requests and answers as a test says."""

    def __init__(self) -> None:
        self.asked: list[WebRequest] = []
        self.response = WebResponse(200, (), b"[]", "application/dicom+json")
        self.gate: asyncio.Event | None = None

    async def answer(self, request: WebRequest) -> WebResponse:
        self.asked.append(request)
        if self.gate is not None:
            await self.gate.wait()
        return self.response


class _Upstream:
    """Orthanc, asked about other paths than those that it has judged already; answers ``status``."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.status = 200

    async def ask(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
        self.asked.append((method, path))
        return self.status, unquote(path).encode()


class Rig:
    """Routes with a loop of their own."""

    def __init__(self, settings: Settings | None = None, **raw: Any) -> None:
        settings = settings or Settings()
        orthanc_settings = read_orthanc_settings({"AuthenticationEnabled": True, **raw})
        self.handler = Handler()
        self.thread = LoopThread("routes")
        self.thread.start()
        self.upstream = _Upstream()
        self.authorization = Authorization(self.upstream, settings, orthanc_settings, lambda: 0.0)
        requests = OrthancRequests(self.thread.submit, settings, orthanc_settings, RefusalLog())
        self.routes = OrthancRoutes(
            self.handler,
            self.authorization,
            Rights({}, AeTitles()),
            requests,
            settings,
            orthanc_settings,
        )

    def ask(self, uri: str, method: str = "GET", **more: Any) -> Output:
        output = Output()
        headers = {"host": "pacs:8042", **more.pop("headers", {})}
        self.routes.answer(output, uri, method=method, headers=headers, get=more.pop("get", {}), **more)
        return output

    def asked(self, uri: str, method: str = "GET", **more: Any) -> WebRequest:
        self.ask(uri, method, **more)
        return self.handler.asked[-1]


@pytest.fixture
def rig() -> Any:
    rig = Rig()
    yield rig
    rig.thread.stop(5)


@pytest.mark.parametrize(
    ("path", "matches"),
    [("/dicom-web/workitems", True), ("/dicom-web/workitems/1.2/state", True), ("/dicom-web/workitems?1.2.3", True),
     ("/dicom-web/subscribers/A", True), ("/dicom-web/studies", False), ("/dicom-web/subscribers", False)],
)  # fmt: skip
def test_patterns_leave_the_rest_of_dicomweb_alone(path: str, matches: bool) -> None:
    assert any(re.fullmatch(pattern, path) for pattern in patterns(Settings())) is matches


def test_root_may_have_special_characters() -> None:
    (pattern, _) = patterns(Settings(root="/a.b+c/"))
    assert re.fullmatch(pattern, "/a.b+c/workitems")
    assert not re.fullmatch(pattern, "/axb+c/workitems")


def test_addresses_are_those_of_this_port_but_sockets_are_on_ours(rig: Rig) -> None:
    request = rig.asked("/dicom-web/workitems")
    assert (request.path, request.service) == ("/workitems", "http://pacs:8042/dicom-web")
    assert request.web_socket_service == "ws://pacs:8043/dicom-web"


@pytest.mark.parametrize(
    ("host", "where"), [("[::1]:8042", "[::1]"), ("pacs", "pacs"), ("[::::]", "[::::]"), ("[", "localhost")]
)
def test_sockets_are_on_the_same_host(rig: Rig, host: str, where: str) -> None:
    request = rig.asked("/dicom-web/workitems", headers={"host": host})
    assert request.web_socket_service == f"ws://{where}:8043/dicom-web"


def test_user_is_whom_orthanc_has_let_in(rig: Rig) -> None:
    assert rig.asked("/dicom-web/workitems", headers={"authorization": "Basic Ym9iOng="}).user == "bob"


@pytest.mark.parametrize(
    ("uri", "more", "query"),
    [
        ("/dicom-web/workitems", {"get": {"PatientID": "a&b", "1.2.3": ""}}, "PatientID=a%26b&1.2.3"),
        ("/dicom-web/workitems?workitem=1.2", {"method": "POST"}, "workitem=1.2"),
        ("/dicom-web/workitems?1.2.3", {"method": "POST"}, "1.2.3"),
        (
            "/dicom-web/workitems",
            {"method": "POST", "headers": {"x-ups-query": "workitem=1.2"}},
            "workitem=1.2",
        ),
        (
            "/dicom-web/workitems",
            {"get": {"includefield": "b"}, "headers": {"x-ups-query": "includefield=a&includefield=b"}},
            "includefield=a&includefield=b",
        ),
    ],
)
def test_query_comes_by_every_way(rig: Rig, uri: str, more: dict[str, Any], query: str) -> None:
    request = rig.asked(uri, **more)
    assert (request.path, request.query) == ("/workitems", query)


@pytest.mark.parametrize(
    ("method", "override", "expected"),
    [
        ("GET", "OPTIONS", "OPTIONS"),
        ("GET", "head", "HEAD"),
        ("GET", "DELETE", "GET"),
        ("POST", "OPTIONS", "POST"),
    ],
)
def test_methods_that_orthanc_lacks_come_as_get(rig: Rig, method: str, override: str, expected: str) -> None:
    request = rig.asked("/dicom-web/workitems", method, headers={"x-ups-method": override})
    assert request.method == expected


def test_path_is_encoded_again(rig: Rig) -> None:
    request = rig.asked("/dicom-web/workitems/1.2/subscribers/AI 1", "POST")
    assert request.path == "/workitems/1.2/subscribers/AI%201"
    assert request.segments()[-1] == "AI 1"


def test_compression_is_left_to_orthanc(rig: Rig) -> None:
    assert (
        "accept-encoding"
        not in rig.asked("/dicom-web/workitems", headers={"accept-encoding": "gzip"}).headers
    )


@pytest.mark.parametrize(
    ("response", "status", "body", "content_type"),
    [
        (WebResponse(200, (), b"x", "application/dicom+json"), 200, b"x", "application/dicom+json"),
        (WebResponse(200), 200, b"", ""),
        (WebResponse(201, (("Location", "here"),)), 201, b"", ""),
        (WebResponse(204), 204, b"", ""),
        (WebResponse(409, (), b"{}", "application/json"), 409, b"{}", "text/plain"),
    ],
)
def test_every_answer_has_a_form_for_orthanc(
    rig: Rig, response: WebResponse, status: int, body: bytes, content_type: str
) -> None:
    rig.handler.response = response
    output = rig.ask("/dicom-web/workitems")
    assert (output.status, output.body, output.content_type) == (status, body, content_type)
    assert output.headers == dict(response.headers)


def test_methods_that_are_allowed_are_told(rig: Rig) -> None:
    rig.handler.response = HttpProblem(405, "no", (("Allow", "GET, POST"),)).response()
    output = rig.ask("/dicom-web/workitems", "PUT")
    assert (output.status, output.headers) == (405, {"Allow": "GET,POST"})


def test_repeated_headers_are_joined(rig: Rig) -> None:
    rig.handler.response = WebResponse(200, (("Warning", "a"), ("Vary", "x"), ("Warning", "b")))
    assert rig.ask("/dicom-web/workitems").headers == {"Warning": "a, b", "Vary": "x"}


def test_body_that_is_too_large_never_reaches_the_loop() -> None:
    rig = Rig(Settings(maximum_body_size=10))
    output = rig.ask("/dicom-web/workitems", "POST", body=b"x" * 11)
    assert (output.status, rig.handler.asked) == (413, [])
    rig.thread.stop(60)


def test_only_a_part_of_orthancs_threads_may_wait() -> None:
    rig = Rig(HttpThreadsCount=8)
    rig.handler.gate = asyncio.Event()
    outputs: list[Output] = []
    waiting = [
        threading.Thread(target=lambda: outputs.append(rig.ask("/dicom-web/workitems"))) for _ in range(2)
    ]
    for thread in waiting:
        thread.start()
    wait_until(lambda: len(rig.handler.asked) == 2, "both wait")
    assert rig.ask("/dicom-web/workitems").status == 503
    rig.thread.call_soon(rig.handler.gate.set)
    for thread in waiting:
        thread.join(60)
    assert [output.status for output in outputs] == [200, 200]
    assert rig.ask("/dicom-web/workitems").status == 200
    rig.thread.stop(60)


def test_question_of_the_listener_is_answered_without_doing_anything(rig: Rig) -> None:
    output = rig.ask(
        "/dicom-web/workitems/1.2", "POST", headers={PROBE_HEADER.lower(): rig.authorization.secret}
    )
    assert (output.status, output.body, rig.handler.asked) == (200, b"/dicom-web/workitems/1.2", [])


@pytest.mark.parametrize(
    ("method", "uri", "plain"),
    [("GET", "/dicom-web/workitems", "/workitems"),
     ("POST", "/dicom-web/workitems/1.2?1.3", "/workitems/1.2"),
     ("POST", "/dicom-web/workitems/1.2/subscribers/RIS?", "/workitems/1.2/subscribers/RIS"),
     ("POST", "/dicom-web/workitems/1.2/subscribers/RIS ", "/workitems/1.2/subscribers/RIS"),
     ("PUT", "/dicom-web/workitems/1.2/state/RIS", "/workitems/1.2/state"),
     ("PUT", "/dicom-web//workitems/1.2/state", "/workitems/1.2/state")],
)  # fmt: skip
def test_a_request_is_carried_out_only_if_orthanc_admits_to_its_plain_path(
    rig: Rig, method: str, uri: str, plain: str
) -> None:
    rig.upstream.status = 403
    assert rig.ask(uri, method).status == 403
    assert rig.handler.asked == []
    assert rig.upstream.asked == [(method, f"/dicom-web{plain}")]


@pytest.mark.parametrize("ae", ["..", ".", "%2E%2E", "..%2FX", "A\\B", "A\x07"])
def test_ae_titles_that_a_path_could_take_for_something_else_are_refused_before_anybody_is_asked(
    rig: Rig, ae: str
) -> None:
    assert rig.ask(f"/dicom-web/workitems/1.2/subscribers/{ae}", "POST").status == 400
    assert (rig.handler.asked, rig.upstream.asked) == ([], [])


@pytest.mark.parametrize("guess", ["", "x", "é", "\ud800"])
def test_nobody_else_can_ask_it(rig: Rig, guess: str) -> None:
    rig.ask("/dicom-web/workitems", headers={PROBE_HEADER.lower(): guess})
    assert len(rig.handler.asked) == 1


def test_foreign_pages_change_nothing(rig: Rig) -> None:
    foreign = {"origin": "https://evil.example"}
    assert rig.ask("/dicom-web/workitems", "POST", headers=foreign).status == 403
    assert rig.handler.asked == []
    assert rig.ask("/dicom-web/workitems", "POST", headers={"origin": "http://pacs:8042"}).status == 200


def test_error_of_ours_is_a_500(rig: Rig) -> None:
    rig.handler.response = None  # type: ignore[assignment]
    assert rig.ask("/dicom-web/workitems").status == 500


@pytest.mark.parametrize(
    ("arguments", "query"),
    [
        ({"PatientName": "M%C3%BCller"}, "PatientName=M%C3%BCller"),  # Orthanc 1.12.7
        ({"PatientName": "Müller"}, "PatientName=M%C3%BCller"),  # Orthanc 1.13.0
        ({"a": "1+1", "%31": "x"}, "a=1%2B1&%31=x"),
        ({"a": "100%", "1.2.3": ""}, "a=100%25&1.2.3"),
        ({"a": "x%20y&z=1"}, "a=x%20y%26z%3D1"),
    ],
)
def test_the_query_is_encoded_once_whether_orthanc_has_decoded_it_or_not(
    arguments: dict[str, str], query: str
) -> None:
    assert query_of(arguments) == query
