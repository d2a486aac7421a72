# SPDX-License-Identifier: AGPL-3.0-or-later
"""``Ups.MaximumNesting`` at its maximum: a workitem of this depth passes every interface, a deeper one none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from orthanc_ups.codecs import dicom_json, dicom_xml
from orthanc_ups.core.dataset import DataSet, element, items
from orthanc_ups.core.value_rules import DEEPEST
from tests.support.orthanc import RealOrthanc
from tests.support.raw_dimse import RawScu, decoded, encoded
from tests.support.web_client import WebClient, new_uid, next_event
from tests.support.workitems import code, full

pytestmark = pytest.mark.one_suite("our own ports read data sets before Orthanc sees anything")

BLOCK, DEEP = "00990010", "00991001"
REASONS = "0074100E"
REFUSED = 0x0106
XML = {"Content-Type": "application/dicom+xml"}
JSON = {"Content-Type": "application/dicom+json"}
SERVICES = ("dimse", "json", "xml", "json on Orthanc's port", "xml on Orthanc's port")


@pytest.fixture(scope="module")
def orthanc_overrides() -> dict[str, Any]:
    near = {"deep": ["DEEP", "127.0.0.1", 104]}
    return {"Ups": {"MaximumNesting": DEEPEST}, "DicomModalities": near}


@pytest.fixture(scope="module")
def clients(orthanc: RealOrthanc) -> Iterator[dict[bool, WebClient]]:
    """The plugin's port, and (True) Orthanc's own."""
    base = f"http://127.0.0.1:{orthanc.ups_http_port}"
    by_service = {
        False: WebClient(f"{base}/dicom-web"),
        True: WebClient(f"{orthanc.base_url}/dicom-web", keep_alive=False),
    }
    yield by_service
    for client in by_service.values():
        client.session.close()


def nested(depth: int) -> DataSet:
    """So many private sequences within one another; a value of its own at every level tells them apart."""
    dataset: DataSet = {BLOCK: element("LO", "DEEP"), "00991002": element("LO", "bottom")}
    for level in range(depth):
        dataset = {
            BLOCK: element("LO", "DEEP"),
            DEEP: element("SQ", dataset),
            "00991003": element("UT", f"Ebene {level} ä"),
        }
    return dataset


def create(orthanc: RealOrthanc, clients: dict[bool, WebClient], service: str, depth: int) -> tuple[str, int]:
    """Create such a workitem; gives UID and status."""
    uid, content = new_uid(), {**full(), **nested(depth)}
    content = dict(sorted(content.items()))
    if service == "dimse":
        return uid, asyncio.run(_created(orthanc.ups_dicom_port, uid, encoded(content)))
    client = clients["Orthanc" in service]
    body, headers = (
        (dicom_xml.encode(content), XML) if "xml" in service else (dicom_json.encode(content), JSON)
    )
    answer = client.post(f"/workitems%3Fworkitem={uid}", body, headers=headers) if "Orthanc" in service else (
        client.post(f"/workitems?workitem={uid}", body, headers=headers)
    )  # fmt: skip
    return uid, answer.status_code


async def _created(port: int, uid: str, data: bytes) -> int:
    async with await RawScu.open(port, "DEEP") as scu:
        return await scu.create(uid, data)


async def _got(port: int, uid: str) -> tuple[int, DataSet]:
    async with await RawScu.open(port, "DEEP") as scu:
        status, data = await scu.get(uid)
        return status, decoded(data)


def retrieve(orthanc: RealOrthanc, clients: dict[bool, WebClient], service: str, uid: str) -> DataSet:
    """Read a workitem back."""
    if service == "dimse":
        status, workitem = asyncio.run(_got(orthanc.ups_dicom_port, uid))
        assert status == 0x0000
        return workitem
    kind = "xml" if "xml" in service else "json"
    headers = {"Accept": f"application/dicom+{kind}"}
    answer = clients["Orthanc" in service].get(f"/workitems/{uid}", headers=headers)
    assert answer.status_code == 200, answer.text
    return dicom_xml.decode(answer.content) if kind == "xml" else dicom_json.decode(answer.content)[0]


@pytest.mark.parametrize("service", SERVICES)
def test_the_deepest_workitem_passes_every_wire(
    orthanc: RealOrthanc, clients: dict[bool, WebClient], service: str
) -> None:
    uid, status = create(orthanc, clients, service, DEEPEST)
    assert status in (0x0000, 201)
    for reader in SERVICES:
        answer = retrieve(orthanc, clients, reader, uid)
        assert {tag: answer[tag] for tag in (BLOCK, DEEP, "00991003")} == nested(DEEPEST), reader


@pytest.mark.parametrize("service", SERVICES)
def test_a_deeper_one_is_refused(orthanc: RealOrthanc, clients: dict[bool, WebClient], service: str) -> None:
    assert create(orthanc, clients, service, DEEPEST + 1)[1] in (REFUSED, 400)


def test_the_deepest_report_reaches_who_watches(clients: dict[bool, WebClient]) -> None:
    client = clients[False]
    uid = client.create(full())
    client.claim(uid)
    reason = dict(sorted({**code("110513", "DCM", "Discontinued"), **nested(DEEPEST - 1)}.items()))
    with client.socket("DEEP") as socket:
        assert client.post(f"/workitems/{uid}/subscribers/DEEP").status_code == 201
        next_event(socket)
        answer = client.post(f"/workitems/{uid}/cancelrequest", {REASONS: element("SQ", reason)})
        assert answer.status_code == 202, answer.text
        event = next_event(socket)
    (copy,) = items(event, REASONS)
    assert copy[DEEP] == reason[DEEP]


def test_the_deepest_workitem_moves_and_is_there_after_a_start(
    orthanc: RealOrthanc, clients: dict[bool, WebClient]
) -> None:
    uid, _ = create(orthanc, clients, "json", DEEPEST)
    client = clients[True]
    client.url = orthanc.base_url
    try:
        lines = client.get("/ups/api/export").content
        answer = client.post("/ups/api/import", lines, headers={"Content-Type": "application/x-ndjson"})
        assert answer.status_code == 200, answer.text
        assert client.get(f"/ups/api/workitems/{uid}").status_code == 200
    finally:
        client.url = f"{orthanc.base_url}/dicom-web"
    orthanc.kill()
    orthanc.start()
    assert retrieve(orthanc, clients, "dimse", uid)[DEEP] == nested(DEEPEST)[DEEP]


@pytest.mark.parametrize(("depth", "status"), [(DEEPEST, (200, 204)), (DEEPEST + 1, (400,)), (1000, (400,))])
def test_so_deep_is_a_search_too(clients: dict[bool, WebClient], depth: int, status: tuple[int, ...]) -> None:
    path = ".".join(["00404018"] * depth + ["00080100"])
    for parameter in (f"{path}=1", f"includefield={path}"):
        assert clients[False].get(f"/workitems?{parameter}").status_code in status
        assert clients[True].get(f"/workitems?{parameter}").status_code in status
