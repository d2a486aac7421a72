# SPDX-License-Identifier: AGPL-3.0-or-later
"""Empty and Multiple Value Matching, and keys that no UPS has, on a real Orthanc (PS3.4 C.2.2.2.7, C.2.2.2.8)."""

from __future__ import annotations

from typing import Any

import pytest
from websockets.sync.client import ClientConnection

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import DataSet, element, text
from tests.support.dimse_client import Answer, UpsClient
from tests.support.orthanc import RealOrthanc
from tests.support.web_client import WebClient, new_uid, next_event
from tests.support.workitems import minimal, station

pytestmark = pytest.mark.one_suite("the search index answers, not Orthanc")

FILTERED = "1.2.840.10008.5.1.4.34.5.1"
EVERYTHING_NEGOTIATED = b"\1\1\1\1\1\1\1"


@pytest.fixture(scope="module")
def orthanc_overrides() -> dict[str, Any]:
    return {"DicomModalities": {"scu": ["SCU", "127.0.0.1", 104], "known": ["KNOWN", "127.0.0.1", 105]}}


def web(orthanc: RealOrthanc) -> WebClient:
    return WebClient(f"http://127.0.0.1:{orthanc.ups_http_port}/dicom-web")


def uids(answers: list[Answer]) -> list[str]:
    return sorted(text(answer.attributes, tags.SOP_INSTANCE_UID) for answer in answers if answer.attributes)


def with_station(label: str, *stations: str) -> DataSet:
    codes = element("SQ", *map(station, stations))
    return minimal(t00741202=element("LO", label), **{f"t{tags.STATION_NAME}": codes})


def workitems_told_of(socket: ClientConnection, last: str) -> set[str]:
    """The workitems of all events up to the first of that one; SCP Status Changes are of none."""
    uids: set[str] = set()
    while last not in uids:
        uids.add(next_event(socket)["00001000"]["Value"][0])
    return uids - {tags.GLOBAL_SUBSCRIPTION}


def test_c_find_matches_what_was_negotiated(orthanc: RealOrthanc) -> None:
    label = new_uid()[-16:]
    client = web(orthanc)
    none, first, second, _ = (
        client.create(with_station(label, *names)) for names in ((), ("A",), ("B",), ("C",))
    )
    key = {tags.SOP_INSTANCE_UID: element("UI"), tags.WORKLIST_LABEL: element("LO", label)}

    def stations(*names: str) -> DataSet:
        return key | {tags.STATION_NAME: element("SQ", {tags.CODE_VALUE: element("SH", *names)})}

    with UpsClient(orthanc.ups_dicom_port, extended=EVERYTHING_NEGOTIATED) as scu:
        assert set(scu.extended_answer.values()) == {b"\1\1\1\1\0\1\1"}
        assert uids(scu.find(stations('""'))) == [none]
        assert uids(scu.find(stations("A", "B"))) == sorted([first, second])
        assert uids(scu.find(stations('""', "A"))) == sorted([none, first])
    with UpsClient(orthanc.ups_dicom_port) as scu:
        assert uids(scu.find(stations('""'))) == []
        assert [response.code for response in scu.find(stations("A", "B"))] == [0xA900]


def test_c_2_2_1_3_query_retrieve_level_does_not_matter(orthanc: RealOrthanc) -> None:
    label = new_uid()[-16:]
    uid = web(orthanc).create(with_station(label, "A"))
    key = {
        "00080052": element("CS", "WORKLIST"),
        tags.SOP_INSTANCE_UID: element("UI"),
        tags.WORKLIST_LABEL: element("LO", label),
    }
    with UpsClient(orthanc.ups_dicom_port) as scu:
        answers = scu.find(key)
        assert [answer.code for answer in answers] == [0xFF01, 0]
        assert uids(answers) == [uid]
        alone = scu.find({"00080052": element("CS", "WORKLIST")})
        assert alone[0].code == 0xFF01


def test_a_filter_matches_the_same_after_a_restart(orthanc: RealOrthanc) -> None:
    label, http = new_uid()[-16:], web(orthanc)
    station_key = "ScheduledStationNameCodeSequence.CodeValue=%22%22%5CB"
    answer = http.post(
        f"/workitems/{FILTERED}/subscribers/UNASSIGNED?emptyvaluematching=true&multiplevaluematching=true"
        f"&WorklistLabel={label}&{station_key}"
    )
    assert (answer.status_code, answer.headers.get("Warning")) == (201, None)
    with UpsClient(orthanc.ups_dicom_port, extended=EVERYTHING_NEGOTIATED) as scu:
        codes = element("SQ", {tags.CODE_VALUE: element("SH", '""')})
        keys = {tags.WORKLIST_LABEL: element("LO", label), tags.STATION_NAME: codes}
        assert scu.subscribe(FILTERED, "KNOWN", filter=keys).code == 0
    orthanc.kill()
    orthanc.start()
    http = web(orthanc)
    with http.socket("UNASSIGNED") as unassigned, http.socket("KNOWN") as performer:
        http.create(with_station(label, "A"))
        station_b, nobody = http.create(with_station(label, "B")), http.create(with_station(label))
        assert workitems_told_of(unassigned, last=nobody) == {station_b, nobody}
        assert workitems_told_of(performer, last=nobody) == {nobody}
