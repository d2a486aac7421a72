# SPDX-License-Identifier: AGPL-3.0-or-later
"""Worklist queries over a whole service: which workitems match, which attributes are returned, and limits."""

from __future__ import annotations

from typing import Any

import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.ae_titles import AeTitles
from orthanc_ups.core.dataset import DataSet, element, items, text
from orthanc_ups.modality.stations import Stations
from orthanc_ups.modality.worklist import ModalityWorklists
from orthanc_ups.modality.worklist_query import UnusableKey, WorklistQuery
from orthanc_ups.settings import ModalityWorklist
from tests.support import workitems
from tests.support.service import ServiceRig, on_loop

STEP = "00400100"
SETTINGS = {"stations": {"CT1": "ROOM1"}, "modalities": {"CT1": "CT"}}
STATIONS = Stations(ModalityWorklist(stations={"CT1": "ROOM1"}, modalities={"CT1": "CT"}), AeTitles())


def step(**keys: Any) -> DataSet:
    """A query by keys of the step: tag with a leading ``t``, VR and values."""
    return {STEP: element("SQ", {tag[1:]: element(*key) for tag, key in keys.items()})}


def worklists(rig: ServiceRig, **settings: Any) -> ModalityWorklists:
    chosen = ModalityWorklist(enable=True, **(SETTINGS | settings))
    return ModalityWorklists(chosen, rig.service.workitems, Stations(chosen, AeTitles()), 0)


async def filled(count: int) -> ServiceRig:
    """Workitems at ROOM0 to ROOM4 in turn, one a day, each for a patient of its own."""
    rig = await ServiceRig().start()
    for number in range(1, count + 1):
        station = element("SQ", workitems.code(f"ROOM{number % 5}", "99H", "Room"))
        await rig.create(
            number,
            workitems.minimal(
                t00404025=station,
                t00404005=element("DT", f"202612{number:02}0830"),
                t00100020=element("LO", f"P{number}"),
                t00100010=element("PN", {"Alphabetic": f"Name{number}^Ann"}),
            ),
        )
    return rig


async def patients(rig: ServiceRig, query: DataSet, **settings: Any) -> list[str]:
    asked = {tags.PATIENT_ID: element("LO"), **query}
    result = await worklists(rig, **settings).find(asked)
    return [text(answer, tags.PATIENT_ID) for answer in result.answers]


@on_loop
async def test_k_6_1_2_queries_with_a_station_modality_date_or_patient_look_at_few_workitems() -> None:
    rig = await filled(20)
    for query, limit in (
        (step(t00400001=("AE", "CT1")), 4),
        (step(t00400001=("AE", "CT1"), t00400002=("DA", "20261206")), 1),
        (step(t00080060=("CS", "CT")), 4),
        (step(t00400002=("DA", "20261206-20261208")), 3),
        ({tags.PATIENT_ID: element("LO", "P7")}, 1),
        ({tags.PATIENT_NAME: element("PN", {"Alphabetic": "name7*"})}, 1),
        ({"00080050": element("SH", "A-1")}, 0),
        ({"0020000D": element("UI", "2.25.1")}, 0),
        ({"00401001": element("SH", "UPS7")}, 0),
        (step(t00400009=("SH", "UPS7*")), 0),
        (step(t00400002=("DA", "20261206"), t00400003=("TM", "0900-1000")), 0),
        (step(t00400002=("DA", "20261206"), t00400003=("TM", "0830")), 1),
        (step(t00400002=("DA", "20261206"), t00400003=("TM", "-08")), 1),
        (step(t00400002=("DA", "20261206-"), t00400003=("TM", "0830-")), 15),
        (step(t00400007=("LO", "nothing like it*")), 0),
        (step(t00400008=("SQ", {"00080100": element("SH", "NOBODY")})), 0),
    ):
        looked_at = 0
        for candidates in WorklistQuery(query, STATIONS, 0).candidates(in_progress=False):
            _, total = await rig.service.workitems.search(candidates, 0, 0)
            looked_at += total
        assert looked_at <= limit, query


@on_loop
async def test_k_6_1_2_a_time_of_a_single_date_finds_what_starts_then() -> None:
    rig = await filled(4)
    for time, expected in (
        ("0830", ["P2"]),
        ("-0830", ["P2"]),
        ("0800-09", ["P2"]),
        ("0831-", []),
        ("-0829", []),
    ):
        query = step(t00400002=("DA", "20261202"), t00400003=("TM", time))
        assert await patients(rig, query) == expected, time


@on_loop
async def test_answers_come_by_start_and_each_once() -> None:
    rig = await filled(12)
    assert await patients(rig, step(t00400001=("AE", "CT1"))) == ["P1", "P6", "P11"]
    assert await patients(rig, step(t00080060=("CS", "CT"))) == ["P1", "P6", "P11"]


@on_loop
async def test_only_scheduled_workitems_are_shown_unless_the_settings_say_so() -> None:
    rig = await filled(3)
    await rig.claim(2)
    assert await patients(rig, {}) == ["P1", "P3"]
    assert await patients(rig, {}, show_in_progress=True) == ["P1", "P2", "P3"]
    await rig.complete(3)
    assert await patients(rig, {}, show_in_progress=True) == ["P1", "P2"]


@on_loop
async def test_a_step_in_progress_has_started() -> None:
    rig = await filled(1)
    await rig.claim(1)
    query = step(t00400020=("CS", "STARTED"))
    assert await patients(rig, query, show_in_progress=True) == ["P1"]
    assert await patients(rig, step(t00400020=("CS", "SCHEDULED")), show_in_progress=True) == []


@on_loop
async def test_answers_are_bounded_and_that_is_told() -> None:
    rig = await filled(5)
    result = await worklists(rig, maximum_answers=2).find({tags.PATIENT_ID: element("LO")})
    assert len(result.answers) == 2
    assert result.reason == "there are more than 2 (MaximumAnswers)"
    assert (await worklists(rig, maximum_answers=5).find({tags.PATIENT_ID: element("LO")})).reason == ""


@on_loop
async def test_a_step_id_finds_its_workitem() -> None:
    rig = await filled(3)
    number = rig.workitem(2).created
    assert await patients(rig, step(t00400009=("SH", f"UPS{number}"))) == ["P2"]
    assert await patients(rig, step(t00400009=("SH", f"UPS{number}*"))) == ["P2"]
    assert await patients(rig, step(t00400009=("SH", "OTHER-1"))) == []
    assert await patients(rig, step(t00400009=("SH", f"UPS{number}", "UPS999"))) == ["P2"]
    assert await patients(rig, step(t00400009=("SH", "*"))) == ["P1", "P2", "P3"]
    assert await patients(rig, {"00401001": element("SH", f"UPS{number}")}) == ["P2"]
    assert await patients(rig, {"00401001": element("SH", "UPS*")}) == ["P1", "P2", "P3"]


@on_loop
async def test_a_requested_procedure_id_is_that_of_the_request_or_of_the_step() -> None:
    rig = await filled(2)
    request = element("SQ", workitems.request("A-1"))
    await rig.create(3, workitems.minimal(t0040A370=request, t00100020=element("LO", "P3")))
    for identifier, expected in (
        ("RP-1", ["P3"]),
        ("RP*", ["P3"]),
        ("UPS*", ["P1", "P2"]),
        ("*", ["P1", "P2", "P3"]),
    ):
        answered = await patients(rig, {"00401001": element("SH", identifier)})
        assert sorted(answered) == expected, identifier


@on_loop
async def test_an_unknown_modality_is_that_of_a_query_for_the_station() -> None:
    rig = await filled(3)
    query = step(t00400001=("AE", "ROOM2"), t00080060=("CS", "MR"))
    result = await worklists(rig).find(query)
    [answer] = result.answers
    assert text(items(answer, STEP)[0], "00080060") == "MR"
    assert await patients(rig, step(t00080060=("CS", "MR"))) == []
    assert await patients(rig, step(t00400001=("AE", "CT1"), t00080060=("CS", "MR"))) == []


@pytest.mark.parametrize(
    "query",
    [step(t00400002=("DA", "tomorrow")), step(t00400003=("TM", "noon")), {"0020000D": element("UI", "x")}],
    ids=["date", "time", "UID"],
)
def test_a_key_that_is_none_is_unusable(query: DataSet) -> None:
    with pytest.raises(UnusableKey):
        WorklistQuery(query, STATIONS, 0).candidates(in_progress=False)
