# SPDX-License-Identifier: AGPL-3.0-or-later
"""PS3.18 §11.9 Search."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

import pytest

from orthanc_ups.codecs import dicom_xml
from orthanc_ups.core.dataset import DataSet, element
from orthanc_ups.dicomweb import multipart
from orthanc_ups.dicomweb.media_types import parse
from tests.support.web_client import WebClient, new_uid
from tests.support.workitems import code, full, minimal, station

ALWAYS_RETURNED = (
    "00080016", "00080018", "00081080", "00081084", "00100010", "00100020", "00100030", "00100040", "0020000D",
    "00380010", "00404005", "00404018", "00404021", "00404025", "00404026", "00404027", "00404041", "0040A370",
    "00741000", "00741002", "00741200", "00741202", "00741204",
)  # fmt: skip


@dataclass(frozen=True)
class Searched:
    """A service with a few workitems of one worklist label, so that other tests do not matter."""

    client: WebClient
    label: str
    uids: list[str]

    def find(self, query: str = "") -> list[DataSet]:
        answer = self.client.get(f"/workitems?WorklistLabel={self.label}&{query}")
        assert answer.status_code in (200, 204), answer.text
        return json.loads(answer.content) if answer.status_code == 200 else []

    def matches(self, query: str) -> list[int]:
        """Which of the workitems match, by their place in `uids`."""
        return sorted(self.uids.index(workitem["00080018"]["Value"][0]) for workitem in self.find(query))


@pytest.fixture(scope="module")
def searched(service: WebClient) -> Iterator[Searched]:
    label = new_uid()[-16:]
    marked = {"t00741202": element("LO", label)}
    workitems = [
        full("japanese", **marked),
        full("greek", **marked, t00741200=element("CS", "LOW")),
        minimal(
            **marked, t00404005=element("DT", "20260101120000+0100"), t00404025=element("SQ", station("CT1"))
        ),
        minimal(
            **marked,
            t00404005=element("DT", "20260201120000+0100"),
            t00404018=element("SQ", code("121726", "DCM", "Treatment")),
            t00404025=element("SQ", station("CT1"), station("CT2")),
        ),
    ]
    yield Searched(service, label, [service.create(workitem) for workitem in workitems])


@pytest.mark.parametrize(
    ("query", "matching"),
    [
        ("", [0, 1, 2, 3]),
        ("ProcedureStepState=SCHEDULED", [0, 1, 2, 3]),
        ("00741000=COMPLETED", []),
        ("ScheduledProcedureStepPriority=LOW", [1]),
        ("scheduledprocedureSTEPpriority=LOW", [1]),
        ("(0074,1200)=LOW", [1]),
        ("00404018.00080100=121726", [3]),
        ("ScheduledWorkitemCodeSequence.CodeValue=121726&ScheduledWorkitemCodeSequence.00080102=DCM", [3]),
        ("ScheduledStationNameCodeSequence.CodeValue=CT2", [3]),
        ("ScheduledStationNameCodeSequence.CodeValue=CT1", [2, 3]),
        ("PatientName=Aokawa*", [0]),
        ("PatientName=" + quote("Καστανίδης^*"), [1]),
        ("PatientID=HC-0008??", [0, 1]),
        ("ScheduledProcedureStepStartDateTime=20260101-20260131", [2]),
        ("ScheduledProcedureStepStartDateTime=20260115-", [0, 1, 3]),
        ("ScheduledProcedureStepStartDateTime=-20260115", [2]),
        ("ScheduledProcedureStepStartDateTime=20260201120000%2B0100", [3]),
        ("ScheduledProcedureStepStartDateTime=20260201120000+0100", [3]),
        ("TimezoneOffsetFromUTC=%2B0100&ScheduledProcedureStepStartDateTime=20260201120000", [3]),
        ("TimezoneOffsetFromUTC=-0500&ScheduledProcedureStepStartDateTime=20260201120000", []),
        ("PatientBirthDate=19730228", [0, 1]),
        ("PatientName=&PatientID", [0, 1, 2, 3]),
        ("ReferencedRequestSequence.AccessionNumber=A-4712", [0, 1]),
    ],
)
def test_11_9_1_1_matching(searched: Searched, query: str, matching: list[int]) -> None:
    assert searched.matches(query) == matching


def test_11_9_1_1_list_of_uids(searched: Searched) -> None:
    assert searched.matches(f"SOPInstanceUID={searched.uids[3]},{searched.uids[1]}") == [1, 3]
    assert searched.matches(f"00080018={searched.uids[0]}%2C{searched.uids[2]}") == [0, 2]


def test_11_9_1_2_return_keys_are_always_there(searched: Searched) -> None:
    for workitem in searched.find():
        assert set(ALWAYS_RETURNED) <= workitem.keys()
        assert list(workitem) == sorted(workitem)
        assert "00081195" not in workitem
        assert "00101030" not in workitem


def test_11_9_1_2_match_attributes_are_returned(searched: Searched) -> None:
    assert all(
        workitem["00101030"] == {"vr": "DS"}
        for workitem in searched.find("PatientWeight=")
        if not workitem["00100020"].get("Value")
    )
    assert all("00404011" in workitem for workitem in searched.find("ExpectedCompletionDateTime="))


@pytest.mark.parametrize(
    "query",
    ["includefield=PatientWeight,AdditionalPatientHistory", "includefield=PatientWeight&includefield=001021B0",
     "includefield=00101030,001021b0"],
)  # fmt: skip
def test_11_9_1_2_includefield(searched: Searched, query: str) -> None:
    for workitem in searched.find(query):
        assert {"00101030", "001021B0"} <= workitem.keys()


def test_11_9_1_2_includefield_all(searched: Searched) -> None:
    by_uid = {workitem["00080018"]["Value"][0]: workitem for workitem in searched.find("includefield=all")}
    for uid in searched.uids:
        (whole,) = searched.client.get(f"/workitems/{uid}").json()
        assert whole.items() <= by_uid[uid].items()


@pytest.mark.parametrize(
    ("query", "matching"),
    [
        (
            "emptyvaluematching=true"
            "&ScheduledHumanPerformersSequence.HumanPerformerCodeSequence.CodeValue=%22%22",
            [2, 3],
        ),
        ("emptyvaluematching=true&ScheduledHumanPerformersSequence=%22%22", [2, 3]),
        ("emptyvaluematching=true&AdmissionID=%22%22&PatientName=%22%22", [2, 3]),
        ("emptyvaluematching=false&multiplevaluematching=false", [0, 1, 2, 3]),
        ("multiplevaluematching=true&ScheduledProcedureStepPriority=LOW%5CHIGH", [0, 1]),
        ("multiplevaluematching=true&ScheduledStationNameCodeSequence.CodeValue=CT2%5CCT3", [3]),
        ("emptyvaluematching=true&multiplevaluematching=true&PatientID=%22%22%5CHC-0008*", [0, 1, 2, 3]),
    ],
)
def test_8_3_4_empty_and_multiple_value_matching(searched: Searched, query: str, matching: list[int]) -> None:
    assert searched.matches(query) == matching


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (
            "QueryRetrieveLevel=WORKLIST&Manufacturer=ACME",
            "of a Workitem and were not used: QueryRetrieveLevel (0008,0052), Manufacturer (0008,0070)",
        ),
        (
            "ReferencedRequestSequence.Manufacturer=ACME",
            "not used: ReferencedRequestSequence.Manufacturer (0008,0070)",
        ),
    ],
)
def test_11_9_1_1_keys_that_no_ups_has_are_universal_and_named(
    searched: Searched, query: str, words: str
) -> None:
    answer = searched.client.get(f"/workitems?WorklistLabel={searched.label}&{query}")
    assert len(answer.json()) == 4
    assert words in answer.headers["Warning"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("ProcedureStepState=SCHED*", "ProcedureStepState (0074,1000): expected SCHEDULED or IN PROGRESS"),
        ("ScheduledProcedureStepPriority=high", "ScheduledProcedureStepPriority (0074,1200): expected HIGH"),
        ("PatientID=A%5CB", "PatientID (0010,0020): expected"),
    ],
)
def test_11_9_1_1_a_key_that_nothing_can_fit_says_why(searched: Searched, query: str, words: str) -> None:
    answer = searched.client.get(f"/workitems?{query}")
    assert answer.status_code == 204
    assert f"No Workitem matches {words}" in answer.headers["Warning"]


def test_11_9_1_3_fuzzy_matching(searched: Searched) -> None:
    assert searched.matches("PatientName=haruka%20aoka") == []
    assert searched.matches("fuzzymatching=true&PatientName=haruka%20aoka") == [0]


def test_11_9_3_none_is_204_without_content(searched: Searched) -> None:
    answer = searched.client.get(f"/workitems?WorklistLabel={new_uid()[-16:]}")
    assert (answer.status_code, answer.content) == (204, b"")


def test_11_9_3_paging_is_stable_and_tells_what_remains(searched: Searched) -> None:
    base = f"/workitems?WorklistLabel={searched.label}"
    uids = []
    for offset in range(4):
        answer = searched.client.get(f"{base}&offset={offset}&limit=1")
        assert answer.status_code == 200
        uids += [workitem["00080018"]["Value"][0] for workitem in answer.json()]
        text = f"299 {searched.client.url}: There are {3 - offset} additional results that can be requested"
        assert answer.headers.get("Warning") == (text if offset < 3 else None)
    everything = [workitem["00080018"]["Value"][0] for workitem in searched.find()]
    assert uids == everything
    assert sorted(uids) == sorted(searched.uids)
    assert searched.client.get(f"{base}&offset=4").status_code == 204


def test_11_9_3_limit_0_counts(searched: Searched) -> None:
    answer = searched.client.get(f"/workitems?WorklistLabel={searched.label}&limit=0")
    assert answer.status_code == 204
    assert answer.headers["Warning"].endswith("There are 4 additional results that can be requested")


def test_11_9_3_multipart_has_one_part_for_each(searched: Searched) -> None:
    answer = searched.client.get(
        f"/workitems?WorklistLabel={searched.label}",
        headers={"Accept": 'multipart/related; type="application/dicom+xml"'},
    )
    media_type = parse(answer.headers["Content-Type"])
    assert media_type is not None
    parts = multipart.decode(answer.content, media_type.parameters["boundary"])
    result = [dicom_xml.decode(part.content)["00080018"]["Value"][0] for part in parts]
    assert sorted(result) == sorted(searched.uids)


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("PatientID=1&PatientID=2", "PatientID"),
        ("PatientID=1&00100020=1", "00100020"),
        ("offset=x", "offset"),
        ("limit=-1", "limit"),
        ("fuzzymatching=perhaps", "fuzzymatching"),
        ("includefield=Nonsense", "Nonsense"),
        ("ScheduledProcedureStepStartDateTime=yesterday", "0040,4005"),
        ("TimezoneOffsetFromUTC=x", "0008,0201"),
        ("PatientID=%ff", "UTF-8"),
    ],
)
def test_11_9_2_bad_parameter_is_400_and_named(service: WebClient, query: str, named: str) -> None:
    answer = service.get(f"/workitems?{query}")
    assert answer.status_code == 400
    assert named in answer.json()["Detail"]


def test_11_9_2_nothing_acceptable_is_406(service: WebClient) -> None:
    assert service.get("/workitems", headers={"Accept": "text/html"}).status_code == 406


def test_11_9_1_1_transaction_uid_is_no_key(service: WebClient) -> None:
    uid = service.create()
    transaction = service.claim(uid)
    owned = service.get(f"/workitems?SOPInstanceUID={uid}&TransactionUID={transaction}")
    wrong = service.get(f"/workitems?SOPInstanceUID={uid}&TransactionUID=1.2.3")
    assert (owned.status_code, owned.content) == (wrong.status_code, wrong.content)
    assert transaction.encode() not in owned.content
