# SPDX-License-Identifier: AGPL-3.0-or-later
"""``/ups/api/export`` and ``/ups/api/import`` as a client sees them."""

from __future__ import annotations

from typing import Any

import orjson

from orthanc_ups.core.ae_titles import AeTitles
from orthanc_ups.dicomweb.origins import Origins
from orthanc_ups.dicomweb.request import WebRequest
from orthanc_ups.dicomweb.response import WebResponse
from orthanc_ups.dicomweb.rights import Rights
from orthanc_ups.management.routing import JSON_LINES, Router
from orthanc_ups.transfer.routes import PAGE_BYTES, Transfer, export
from tests.support.service import ServiceRig, on_loop
from tests.support.transfer import exported, kind
from tests.support.workitems import minimal, uid


def router(rig: ServiceRig) -> Router:
    routes = Transfer(rig.service.exporter, rig.service.import_session).routes()
    return Router(routes, "WORKLIST", Rights({}, AeTitles()), Origins(()))


async def get(rig: ServiceRig, path: str, query: str = "") -> WebResponse:
    return await router(rig).answer(WebRequest("GET", path, query, user="anna"))


async def post(
    rig: ServiceRig, body: bytes, media_type: str = JSON_LINES, api: Router | None = None
) -> WebResponse:
    headers = {"content-type": media_type}
    return await (api or router(rig)).answer(WebRequest("POST", "/import", "", headers, body, user="anna"))


def read(answer: WebResponse) -> Any:
    return orjson.loads(answer.body)


@on_loop
async def test_an_export_comes_in_pages_that_say_where_to_go_on() -> None:
    rig = await ServiceRig().start()
    for number in range(1, 6):
        await rig.create(number)
    lines: list[bytes] = []
    query = "limit=2"
    for _ in range(4):
        answer = await get(rig, "/export", query)
        assert answer.status == 200 and answer.content_type == "application/x-ndjson"
        page = answer.body.splitlines()
        lines += page
        if kind(page[-1]) == "end":
            break
        query = f"limit=2&after={read_last(page)}"
    assert [kind(line) for line in lines if kind(line) != "next"] == ["header", *["workitem"] * 5, "end"]


def read_last(page: list[bytes]) -> str:
    after: str = orjson.loads(page[-1])["after"]
    return after.replace("/", "%2F")


@on_loop
async def test_a_page_fits_into_one_post() -> None:
    rig = await ServiceRig().start()
    for number in range(1, 4):
        await rig.create(number, minimal(t00400400={"vr": "LT", "Value": ["x" * 10_000]}))
    page = (await get(rig, "/export")).body
    assert len(page) < PAGE_BYTES
    target = await ServiceRig().start()
    answer = await post(target, page)
    assert answer.status == 200 and read(answer)["import"]["state"] == "complete"
    assert target.service.workitems.count() == 3


@on_loop
async def test_the_whole_stream_is_the_pages_together() -> None:
    rig = await ServiceRig().start()
    for number in range(1, 6):
        await rig.create(number)
    stream = [line async for line in export(rig.service.exporter)]
    assert [line.rstrip() for line in stream[1:]] == (await exported(rig))[1:]


@on_loop
async def test_a_wrong_line_is_named_by_its_number_and_those_before_it_are_there() -> None:
    source, target = await ServiceRig().start(), await ServiceRig().start()
    for number in (1, 2, 3):
        await source.create(number)
    lines = await exported(source)
    answer = await post(target, b"\n".join([*lines[:2], b"", b'{"kind": "workitem"}', *lines[2:]]))
    assert answer.status == 400
    assert read(answer)["line"] == 4 and read(answer)["error"].startswith('line 4: "uid" is missing; "cr')
    assert read(answer)["import"]["counts"]["workitems"]["imported"] == 1
    assert target.service.workitems.count() == 1 and target.state(1) == "SCHEDULED"


@on_loop
async def test_an_import_begins_with_its_header() -> None:
    source, target = await ServiceRig().start(), await ServiceRig().start()
    await source.create(1)
    answer = await post(target, b"\n".join((await exported(source))[1:]))
    assert answer.status == 409 and "header" in read(answer)["error"]
    assert target.service.workitems.count() == 0


@on_loop
async def test_progress_can_be_asked_at_any_time() -> None:
    source, target = await ServiceRig().start(), await ServiceRig().start()
    await source.create(1)
    assert read(await get(target, "/import"))["state"] == "none"
    lines, api = await exported(source), router(target)
    await post(target, b"\n".join(lines[:-1]), api=api)
    running = read(await get(target, "/import"))
    assert running["state"] == "running" and running["counts"]["workitems"] == {
        "expected": 1,
        "imported": 1,
        "unchanged": 0,
        "conflicts": 0,
        "left_out": 0,
    }
    await post(target, lines[-1], api=api)
    assert read(await get(target, "/import"))["state"] == "complete"


@on_loop
async def test_positions_that_are_none_are_refused() -> None:
    rig = await ServiceRig().start()
    for after in ("x", "patients/1", "workitems/x", "workitems/-1", "dead_letters/AI%0Adimse%0Ax"):
        answer = await get(rig, "/export", f"after={after}")
        assert answer.status == 400 and '"after"' in read(answer)["error"]
    assert (await get(rig, "/export", "limit=0")).status == 400


@on_loop
async def test_only_lines_of_json_are_taken() -> None:
    rig = await ServiceRig().start()
    assert (await post(rig, b"{}", "application/json")).status == 415
    assert (await post(rig, b"{}", "text/plain")).status == 415


@on_loop
async def test_while_the_projection_is_rebuilt_a_client_is_told_to_come_back() -> None:
    rig = await ServiceRig().start()
    await rig.create(1)
    rig.service.workitems.broken = True
    assert (await get(rig, "/export")).status == 503
    rig.service.workitems.broken = False
    assert uid(1).encode() in (await get(rig, "/export")).body
