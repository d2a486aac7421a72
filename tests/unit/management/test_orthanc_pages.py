# SPDX-License-Identifier: AGPL-3.0-or-later
"""The management API on Orthanc's own port: sizes of bodies, downloads, and what the log says of refusals."""

from __future__ import annotations

import base64
import json
import logging
import threading
from collections.abc import AsyncGenerator, Iterator, Mapping

import pytest

from orthanc_ups.dicomweb.authorization import PROBE_HEADER, Authorization
from orthanc_ups.dicomweb.origins import Origins
from orthanc_ups.dicomweb.orthanc_requests import OrthancRequests
from orthanc_ups.dicomweb.request import WebRequest
from orthanc_ups.dicomweb.response import WebResponse
from orthanc_ups.health import Health
from orthanc_ups.management.explorer_files import serve
from orthanc_ups.management.pages import OrthancPages, answer_closed
from orthanc_ups.management.routing import error_response
from orthanc_ups.orthanc.loop_thread import LoopThread
from orthanc_ups.orthanc.refusal_log import RefusalLog
from orthanc_ups.settings import OrthancSettings, Settings
from tests.unit.dicomweb.test_orthanc_port import Output

MOST = 10


class _Nobody:
    async def ask(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
        raise AssertionError("the API asks itself")


class Rig:
    """Pages with a loop of their own, and the paths that reached the API."""

    def __init__(self) -> None:
        self.reached: list[str] = []
        self.ended = threading.Event()
        self.fails = False
        self.thread = LoopThread("pages")
        self.thread.start()
        requests = OrthancRequests(
            self.thread.submit, Settings(maximum_body_size=MOST), OrthancSettings(), RefusalLog()
        )
        self.authorization = Authorization(
            _Nobody(), Settings(), OrthancSettings(authentication_enabled=True), lambda: 0.0
        )
        self.pages = OrthancPages(requests, self.api, serve, self.authorization,
                                  lambda _: "http://pacs:8042/dicom-web", Origins(()))  # fmt: skip

    async def api(self, request: WebRequest) -> WebResponse:
        self.reached.append(request.path)
        if request.path == "/workitems.csv":
            return WebResponse(200, (("X-UPS-Lines", "3"),), content_type="text/csv", pieces=self._pieces())
        if request.path == "/refused":
            return error_response(400, "the label is too long", "INVALID_VALUE")
        return WebResponse(200, (), b"{}", "application/json")

    async def _pieces(self) -> AsyncGenerator[bytes]:
        try:
            for number in range(3):
                yield b"%d\r\n" % number
                if self.fails:
                    raise OSError("the disk is gone")
        finally:
            self.ended.set()

    def get(self, path: str, headers: Mapping[str, str] | None = None, *, hangs_up: bool = False) -> Output:
        output = Output()
        output.hangs_up = hangs_up
        self.pages.answer(output, f"/ups/api{path}", method="GET", headers=headers or {}, get={}, body=b"")
        return output

    def post(self, path: str, size: int) -> Output:
        output = Output()
        self.pages.answer(output, f"/ups/api{path}", method="POST", headers={}, get={}, body=b"x" * size)
        return output


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.thread.stop(5)


@pytest.mark.parametrize("path", ["/import", "/import/"])
def test_an_import_takes_lines_that_are_larger_than_what_they_were_made_of(rig: Rig, path: str) -> None:
    assert rig.post(path, 4 * MOST).status == 200
    assert rig.reached == [path]


def test_an_import_has_a_limit_too_and_names_it(rig: Rig) -> None:
    output = rig.post("/import", 4 * MOST + 1)
    assert (output.status, rig.reached) == (413, [])
    assert b"larger than 40 bytes (4 times Ups.MaximumBodySize)" in output.body


@pytest.mark.parametrize("path", ["/workitems", "/imports", "/workitems/import"])
def test_everything_else_keeps_the_usual_limit(rig: Rig, path: str) -> None:
    assert rig.post(path, MOST).status == 200
    output = rig.post(path, MOST + 1)
    assert output.status == 413 and b"larger than 10 bytes (Ups.MaximumBodySize)" in output.body


@pytest.mark.parametrize("path", ["/ups/api/workitems/1.2/claim", "/ups/app/index.html"])
def test_a_question_to_orthanc_is_answered_without_doing_anything(rig: Rig, path: str) -> None:
    output = Output()
    headers = {PROBE_HEADER.lower(): rig.authorization.secret}
    rig.pages.answer(output, path, method="POST", headers=headers, get={}, body=b"")
    assert (output.status, output.body, rig.reached) == (200, path.encode(), [])


@pytest.mark.parametrize("path", ["/ups/app/index.html", "/ups/app", "/ups/app/nothing"])
def test_the_files_of_the_page_can_only_be_read(rig: Rig, path: str) -> None:
    for headers, status in (({}, 405), ({"origin": "https://evil.example"}, 403)):
        output = Output()
        rig.pages.answer(output, path, method="POST", headers=headers, get={}, body=b"")
        assert output.status == status


def test_a_download_comes_piece_by_piece(rig: Rig) -> None:
    output = rig.get("/workitems.csv")
    assert (output.status, output.content_type, output.body) == (200, "text/csv", b"0\r\n1\r\n2\r\n")
    assert output.headers == {"X-UPS-Lines": "3"}
    assert rig.ended.wait(60)


@pytest.mark.parametrize("reader_is_gone", [True, False])
def test_a_download_that_is_cut_off_ends_and_is_told(
    rig: Rig, caplog: pytest.LogCaptureFixture, reader_is_gone: bool
) -> None:
    rig.fails = not reader_is_gone
    output = rig.get("/workitems.csv", hangs_up=reader_is_gone)
    assert len(output.body) < 9, "fewer lines than X-UPS-Lines says"
    assert rig.ended.wait(60)
    assert "A download on Orthanc's port was cut off: " in caplog.text


@pytest.mark.parametrize("user", ["", "ann"])
def test_the_log_says_why_a_request_was_refused_and_whose_it_was(
    rig: Rig, caplog: pytest.LogCaptureFixture, user: str
) -> None:
    password = base64.b64encode(f"{user}:secret".encode()).decode()
    with caplog.at_level(logging.WARNING, "orthanc_ups.refused"):
        rig.get("/refused", {"authorization": f"Basic {password}"} if user else {})
    who = "user ann" if user else "somebody"
    assert (
        f"GET /ups/api/refused by {who} at Orthanc's port refused with 400: the label is too long (INVALID_VALUE)"
        in caplog.text
    )


def test_the_page_is_there_while_the_service_stands_by_and_the_api_says_why() -> None:
    health = Health()
    health.stands_by("node 1 keeps the worklist")
    page, api = Output(), Output()
    answer_closed(page, "/ups/app/index.html", health.report(), {"method": "GET"})
    answer_closed(api, "/ups/api/system", health.report(), {"method": "GET"})
    assert (page.status, page.content_type) == (200, "text/html; charset=utf-8")
    assert (api.status, api.headers["Retry-After"]) == (503, "5")
    answer = json.loads(api.body)
    assert (answer["status"], answer["error"]) == (
        "STANDBY",
        "The UPS service is on standby: node 1 keeps the worklist",
    )
