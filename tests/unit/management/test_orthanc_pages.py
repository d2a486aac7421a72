# SPDX-License-Identifier: AGPL-3.0-or-later
"""The management API on Orthanc's own port: how large a body may be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from orthanc_ups.dicomweb.authorization import PROBE_HEADER, Authorization
from orthanc_ups.dicomweb.origins import Origins
from orthanc_ups.dicomweb.orthanc_requests import OrthancRequests
from orthanc_ups.dicomweb.request import WebRequest
from orthanc_ups.dicomweb.response import WebResponse
from orthanc_ups.management.explorer_files import serve
from orthanc_ups.management.pages import OrthancPages
from orthanc_ups.orthanc.loop_thread import LoopThread
from orthanc_ups.orthanc.refusal_log import RefusalLog
from orthanc_ups.settings import Settings, Surroundings
from tests.unit.dicomweb.test_orthanc_port import Output

MOST = 10


class _Nobody:
    async def ask(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
        raise AssertionError("the API asks itself")


class House:
    """Pages with a loop of their own, and the paths that reached the API."""

    def __init__(self) -> None:
        self.reached: list[str] = []
        self.thread = LoopThread("pages")
        self.thread.start()
        door = OrthancRequests(
            self.thread.submit, Settings(maximum_body_size=MOST), Surroundings(), RefusalLog()
        )
        self.authorization = Authorization(_Nobody(), Settings(), Surroundings(), lambda: 0.0)
        self.pages = OrthancPages(door, self.api, serve, self.authorization,
                                  lambda _: "http://pacs:8042/dicom-web", Origins(()))  # fmt: skip

    async def api(self, request: WebRequest) -> WebResponse:
        self.reached.append(request.path)
        return WebResponse(200, (), b"{}", "application/json")

    def post(self, path: str, size: int) -> Output:
        output = Output()
        self.pages.answer(output, f"/ups/api{path}", method="POST", headers={}, get={}, body=b"x" * size)
        return output


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    yield made
    made.thread.stop(5)


@pytest.mark.parametrize("path", ["/import", "/import/"])
def test_an_import_takes_lines_that_are_larger_than_what_they_were_made_of(house: House, path: str) -> None:
    assert house.post(path, 4 * MOST).status == 200
    assert house.reached == [path]


def test_an_import_has_a_limit_too_and_names_it(house: House) -> None:
    output = house.post("/import", 4 * MOST + 1)
    assert (output.status, house.reached) == (413, [])
    assert b"larger than 40 bytes (4 times Ups.MaximumBodySize)" in output.body


@pytest.mark.parametrize("path", ["/workitems", "/imports", "/workitems/import"])
def test_everything_else_keeps_the_usual_limit(house: House, path: str) -> None:
    assert house.post(path, MOST).status == 200
    output = house.post(path, MOST + 1)
    assert output.status == 413 and b"larger than 10 bytes (Ups.MaximumBodySize)" in output.body


@pytest.mark.parametrize("path", ["/ups/api/workitems/1.2/claim", "/ups/app/index.html"])
def test_a_question_to_orthanc_is_answered_without_doing_anything(house: House, path: str) -> None:
    output = Output()
    headers = {PROBE_HEADER.lower(): house.authorization.secret}
    house.pages.answer(output, path, method="POST", headers=headers, get={}, body=b"")
    assert (output.status, output.body, house.reached) == (200, path.encode(), [])


@pytest.mark.parametrize("path", ["/ups/app/index.html", "/ups/app", "/ups/app/nothing"])
def test_the_files_of_the_page_can_only_be_read(house: House, path: str) -> None:
    for headers, status in (({}, 405), ({"origin": "https://evil.example"}, 403)):
        output = Output()
        house.pages.answer(output, path, method="POST", headers=headers, get={}, body=b"")
        assert output.status == status
