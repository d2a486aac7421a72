# SPDX-License-Identifier: AGPL-3.0-or-later
"""The management API over fakes: what an operator reads, and how HTTP is kept in order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import element
from orthanc_ups.core.states import State
from orthanc_ups.dicomweb.request import WebRequest
from tests.support.management_rig import JSON, ManagementRig
from tests.support.workitems import full, minimal, uid


@pytest.fixture
def rig() -> ManagementRig:
    return ManagementRig()


def test_a_page_has_rows_in_the_asked_order_and_the_total(rig: ManagementRig) -> None:
    for number, priority in enumerate(("LOW", "HIGH", "MEDIUM"), 1):
        rig.have(number, minimal(t00741200=element("CS", priority)))
    page = rig.ask("GET", "/workitems", query="order=priority&limit=2")
    assert (page["total"], page["offset"]) == (3, 0)
    assert [row["priority"] for row in page["workitems"]] == ["HIGH", "MEDIUM"]


def test_a_row_says_what_an_operator_looks_for(rig: ManagementRig) -> None:
    rig.have(1, full("japanese"))
    row = rig.ask("GET", "/workitems")["workitems"][0]
    assert row["patient"]["name"] == "Aokawa, Haruka (青川 春香, あおかわ はるか)"
    assert row["stations"] == ["Station READING7", "Station READING8"]
    assert row["start"] == "2026-11-22T18:30:00Z"
    assert row["expected"] == "2026-11-22T18:30:00Z"  # 19:30 +0100
    assert row["state"] == "SCHEDULED"
    assert row["progress"] == {"percent": None, "description": ""}


@pytest.mark.parametrize(
    ("query", "total"),
    [
        ("PatientName=fair*", 1),
        ("PatientName=nobody*", 0),
        ("ProcedureStepState=SCHEDULED,IN%20PROGRESS", 1),
        ("ProcedureStepState=COMPLETED", 0),
        ("ScheduledStationNameCodeSequence.CodeValue=READING8", 1),
        ("ScheduledProcedureStepStartDateTime=20261122-", 1),
        ("ScheduledProcedureStepStartDateTime=-20261121", 0),
        ("ReferencedRequestSequence.AccessionNumber=A-4712", 1),
        ("text=ines+second", 1),
        ("text=A-4711", 1),
        ("text=ines+zzz", 0),
        ("study=1.2.826.0.1.3680043.10.1999.1.2", 1),  # only an input is of this study
    ],
)
def test_the_list_is_filtered_by_keys_and_free_text(rig: ManagementRig, query: str, total: int) -> None:
    rig.have(1, full())
    assert rig.ask("GET", "/workitems", query=query)["total"] == total


def test_every_required_matching_key_is_in_the_vocabulary_and_is_taken(rig: ManagementRig) -> None:
    names = [field["name"] for field in rig.ask("GET", "/system")["filters"]]
    assert len(names) == len(set(names)) > 40
    samples = {"DT": "20260101", "DA": "20260101", "UI": "1.2.3"}
    for field in rig.ask("GET", "/system")["filters"]:
        value = {"datetime": samples["DT"], "date": samples["DA"], "uid": samples["UI"]}.get(
            field["kind"], "X"
        )
        assert rig.ask("GET", "/workitems", query=f"{field['name']}={value}")["total"] == 0


def test_a_name_that_is_no_key_is_refused_by_name(rig: ManagementRig) -> None:
    refusal = rig.refused(400, "GET", "/workitems", query="PatientShoeSize=9")
    assert "PatientShoeSize" in refusal["error"]


def test_a_malformed_value_names_its_attribute(rig: ManagementRig) -> None:
    refusal = rig.refused(400, "GET", "/workitems", query="ScheduledProcedureStepStartDateTime=yesterday")
    assert refusal["attribute"] == "ScheduledProcedureStepStartDateTime"
    assert refusal["status"] == "IDENTIFIER_MISMATCH"


@pytest.mark.parametrize("query", ["limit=0", "limit=9999", "limit=-1", "offset=x", "order=shoes"])
def test_nonsense_about_the_page_is_refused(rig: ManagementRig, query: str) -> None:
    rig.refused(400, "GET", "/workitems", query=query)


def test_csv_has_all_matches_and_no_formula(rig: ManagementRig) -> None:
    rig.have(1, minimal(t00741204=element("LO", '=HYPERLINK("http://x")')))
    rig.have(2)
    answer = rig.answer("GET", "/workitems.csv", query="order=created")
    lines = answer.body.decode("utf-8-sig").splitlines()
    assert len(lines) == 3
    assert "\"'=HYPERLINK" in lines[1]
    assert answer.header("Content-Disposition") == 'attachment; filename="workitems.csv"'


def test_csv_of_chosen_workitems_comes_by_post(rig: ManagementRig) -> None:
    chosen = [rig.have(number) for number in (1, 2, 3)][:2]
    answer = rig.answer("POST", "/workitems.csv", {"query": {"SOPInstanceUID": "\\".join(chosen)}})
    lines = answer.body.decode("utf-8-sig").splitlines()
    assert sorted(line.rpartition(",")[2] for line in lines[1:]) == sorted(chosen)


def test_csv_comes_piece_by_piece_and_says_how_many_lines_follow(rig: ManagementRig) -> None:
    for number in range(1, 6):
        rig.have(number)
    answer = rig.answer("GET", "/workitems.csv", query="order=created&offset=1")
    assert (answer.header("X-UPS-Total"), answer.header("X-UPS-Lines")) == ("5", "4")
    assert answer.body.count(b"\r\n") == 5, "the headings and each line end in CR LF"


def test_part_of_the_matches_comes_as_csv(rig: ManagementRig) -> None:
    for number in range(1, 6):
        rig.have(number)
    answer = rig.answer(
        "POST", "/workitems.csv", {"query": {"order": "created", "offset": "3", "limit": "9"}}
    )
    assert answer.header("X-UPS-Total") == "5"
    assert [line.rpartition(",")[2] for line in answer.body.decode().splitlines()[1:]] == [uid(4), uid(5)]


def test_a_query_may_travel_in_a_header_past_a_server_that_spoils_it(rig: ManagementRig) -> None:
    rig.have(1, minimal(t00741204=element("LO", "A & B = C+D")))
    header = {"x-ups-query": "ProcedureStepLabel=A%20%26%20B%20%3D%20C%2BD"}
    assert rig.ask("GET", "/workitems", query="spoiled=1", headers=header)["total"] == 1


def test_one_workitem_is_told_in_readable_groups(rig: ManagementRig) -> None:
    answer = rig.ask("GET", f"/workitems/{rig.have(1, full())}")
    groups = {group["name"]: group["attributes"] for group in answer["groups"]}
    assert list(groups)[:2] == ["Scheduling", "Patient and request"]
    station = next(
        group for group in groups["Scheduling"] if group["keyword"] == "ScheduledStationNameCodeSequence"
    )
    assert station["items"][0]["code"] == {
        "meaning": "Station READING7",
        "value": "READING7",
        "scheme": "99STATIONS",
    }
    start = next(group for group in groups["Scheduling"] if group["tag"] == tags.START)
    assert (start["name"], start["times"]) == (
        "Scheduled Procedure Step Start DateTime",
        ["2026-11-22T18:30:00Z"],
    )
    assert answer["inputs"][0]["sources"] == ["ARCHIVE"]
    assert answer["history"] == [{"at": "2026-11-22T18:30:00.000Z", "who": "RIS by DIMSE", "what": "created"}]


def test_the_transaction_uid_is_nowhere_to_be_read(rig: ManagementRig) -> None:
    uid = rig.have()
    rig.ask("POST", f"/workitems/{uid}/claim", {})
    body = rig.answer("GET", f"/workitems/{uid}").body.decode()
    assert "00081195" not in body
    assert "TransactionUID" not in body
    assert "2.25.1001" not in body


def test_an_unknown_workitem_is_404(rig: ManagementRig) -> None:
    assert rig.refused(404, "GET", "/workitems/1.2.3")["status"] == "NO_SUCH_WORKITEM"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("DELETE", "/workitems", 405), ("POST", "/system", 405), ("GET", "/", 404)],
)
def test_unknown_paths_and_methods(rig: ManagementRig, method: str, path: str, status: int) -> None:
    rig.refused(status, method, path, {} if method == "POST" else None)


@pytest.mark.parametrize("body", [b"{", b"[]", b"7", b'{"attributes": []}', b'{"attributes": {}, "uid": 5}'])
def test_a_body_must_be_an_object_of_the_right_shape(rig: ManagementRig, body: bytes) -> None:
    answer = asyncio.run(rig.api.answer(WebRequest("POST", "/workitems", headers=JSON, body=body)))
    assert answer.status == 400
    assert not rig.worklist.workitems


def test_a_deeply_nested_body_is_refused(rig: ManagementRig) -> None:
    nested: dict[str, Any] = {}
    for _ in range(300):
        nested = {"ScheduledWorkitemCodeSequence": [nested]}
    assert "deeply" in rig.refused(400, "POST", "/workitems", {"attributes": nested})["error"]


def test_a_page_of_another_site_cannot_act(rig: ManagementRig) -> None:
    uid = rig.have()
    path = f"/workitems/{uid}/claim"
    rig.refused(415, "POST", path, {}, headers={"content-type": "text/plain"})
    rig.refused(403, "POST", path, {}, headers={**JSON, "sec-fetch-site": "cross-site"})
    assert rig.worklist.workitems[uid].state is State.SCHEDULED


def test_a_fault_of_ours_is_an_answer_without_details(
    rig: ManagementRig, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> Any:
        raise RuntimeError("secret")

    rig.worklist.counts = fail  # type: ignore[method-assign]
    refusal = rig.refused(500, "GET", "/counts")
    assert "secret" not in refusal["error"]
    assert "secret" in caplog.text


def test_answers_are_not_kept_by_browsers(rig: ManagementRig) -> None:
    assert rig.answer("GET", "/system").header("Cache-Control") == "no-store"


def test_late_work_is_listed_and_counted_and_says_why(rig: ManagementRig) -> None:
    """What starts now is not late after a minute, but after the grace (``Ups.LateAfter``)."""
    uid = rig.have(1, {**minimal(), tags.START: element("DT", "20261122183000+0000")})
    rig.clock.pass_by(seconds=60)
    assert rig.ask("GET", "/workitems", query="late=yes")["workitems"] == []
    rig.clock.pass_by(seconds=900)
    (row,) = rig.ask("GET", "/workitems", query="late=start,silent")["workitems"]
    assert (row["uid"], row["late"]) == (uid, ["start"])
    counts = rig.ask("GET", "/counts", query="PatientID=nobody")
    assert (counts["late"], sum(counts["matches"].values())) == (0, 0)
    assert rig.ask("GET", "/counts")["late"] == 1


def test_who_has_it_since_when_and_for_how_long(rig: ManagementRig) -> None:
    uid = rig.have(1)
    rig.ask("POST", f"/workitems/{uid}/claim", {})
    rig.clock.pass_by(minutes=5)
    performed = {
        "PerformedStationNameCodeSequence": [
            {"CodeValue": "R7", "CodingSchemeDesignator": "99", "CodeMeaning": "Room 7"}
        ]
    }
    rig.ask("POST", f"/workitems/{uid}/complete", {"performed": performed})
    query = "claimer=UPSWORKLIST&duration=300-&ended=20261122&claimed=20261122"
    (row,) = rig.ask("GET", "/workitems", query=query)["workitems"]
    assert row["claimed"]["ae"] == "UPSWORKLIST" and row["duration"] == 300.0
    assert row["performed_stations"] == ["Room 7"]
    assert rig.ask("GET", "/workitems", query="claimer=CAD1")["workitems"] == []
    assert rig.ask("GET", "/names", query="of=claimer")["names"] == [{"name": "UPSWORKLIST", "count": 1}]


@pytest.mark.parametrize("query", ["late=often", "claimed=yesterday", "duration=long"])
def test_what_cannot_be_asked_is_refused_by_name(rig: ManagementRig, query: str) -> None:
    assert f'"{query.partition("=")[0]}" is' in rig.refused(400, "GET", "/workitems", query=query)[
        "error"
    ].replace("“", '"')
