# SPDX-License-Identifier: AGPL-3.0-or-later
"""The mapping from workitems to answers of a worklist query (PS3.4 Table K.6-1, docs/modality-worklist.md)."""

from __future__ import annotations

from typing import Any

import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.ae_titles import AeTitles
from orthanc_ups.core.dataset import DataSet, element, items, text, values
from orthanc_ups.modality.scheduled_steps import answers_of, number_of, step_id, study_of
from orthanc_ups.modality.stations import Stations
from orthanc_ups.settings import ModalityWorklist
from tests.support import workitems

HOUR = 3_600_000_000
STATIONS = Stations(
    ModalityWorklist(stations={"CT1": "ROOM1", "MR1": "ROOM2^99H"}, modalities={"CT1": "CT"}), AeTitles()
)


def answers(**changes: Any) -> list[DataSet]:
    attributes = {**workitems.minimal(**changes), tags.SOP_INSTANCE_UID: element("UI", "2.25.9")}
    return answers_of(attributes, 42, STATIONS, HOUR)


def step(**changes: Any) -> DataSet:
    return items(answers(**changes)[0], "00400100")[0]


def at(*codes: DataSet) -> dict[str, Any]:
    return {"t00404025": element("SQ", *codes)}


def test_a_station_of_the_settings_has_its_ae_title() -> None:
    assert values(step(**at(workitems.code("ROOM1", "99ANY", "CT"))), "00400001") == ["CT1"]


def test_a_station_with_a_scheme_is_another_in_another_scheme() -> None:
    assert values(step(**at(workitems.code("ROOM2", "99H", "MR"))), "00400001") == ["MR1"]
    assert values(step(**at(workitems.code("ROOM2", "99X", "MR"))), "00400001") == ["ROOM2"]


def test_several_stations_are_several_ae_titles() -> None:
    both = at(workitems.code("ROOM1", "99H", "CT"), workitems.code("XA1", "99H", "Angiography of the heart"))
    assert values(step(**both), "00400001") == ["CT1", "XA1"]
    assert values(step(**both), "00400010") == ["CT", "XA1"]


def test_the_modality_is_a_station_class_of_dcm_or_that_of_the_settings() -> None:
    station = at(workitems.code("ROOM1", "99H", "CT"))
    assert text(step(**station), "00080060") == "CT"
    assert (
        text(step(**station, t00404026=element("SQ", workitems.code("PT", "DCM", "PET"))), "00080060") == "PT"
    )
    assert (
        text(step(**station, t00404026=element("SQ", workitems.code("PT", "99H", "PET"))), "00080060") == "CT"
    )


@pytest.mark.parametrize(
    ("start", "date", "time"),
    [
        ("20261122183000", "20261122", "183000"),
        ("20261122233000.5+0000", "20261123", "003000"),
        ("202611221830+0300", "20261122", "163000"),
        ("202611", "20261101", "000000"),
        ("00010101+1400", "", ""),
    ],
)
def test_the_start_is_in_the_local_zone(start: str, date: str, time: str) -> None:
    mapped = step(t00404005=element("DT", start))
    assert (text(mapped, "00400002"), text(mapped, "00400003")) == (date, time)


def test_a_start_in_the_zone_of_the_workitem_is_converted() -> None:
    mapped = step(t00404005=element("DT", "20261122183000"), t00080201=element("SH", "-0500"))
    assert (text(mapped, "00400002"), text(mapped, "00400003")) == ("20261123", "003000")


def test_each_requested_procedure_is_an_answer() -> None:
    requests = element("SQ", workitems.request("A-1"), workitems.request("A-2"))
    assert [text(answer, "00080050") for answer in answers(t0040A370=requests)] == ["A-1", "A-2"]


def test_without_a_request_the_step_stands_for_it() -> None:
    [answer] = answers()
    assert text(answer, "00401001") == "UPS42"
    assert text(answer, "00321060") == "Second reading"
    assert text(answer, "00401003") == "MEDIUM"


def test_a_study_is_that_of_the_workitem_or_its_request_or_always_the_same() -> None:
    [answer] = answers(t0020000D=element("UI", "2.25.1"))
    assert text(answer, "0020000D") == "2.25.1"
    first, again = answers()[0], answers()[0]
    assert text(first, "0020000D") == text(again, "0020000D") != ""
    assert text(first, "0020000D") == study_of({tags.SOP_INSTANCE_UID: element("UI", "2.25.9")})


@pytest.mark.parametrize("written", ["", "42", "UPS", "UPS-1", "UPS4 2", "ups42", "UPS٤", "UPS" + "1" * 20])
def test_an_id_of_somebody_else_is_no_number(written: str) -> None:
    assert number_of(written) is None


def test_a_step_id_leads_back_to_the_workitem() -> None:
    assert number_of(step_id(4711)) == 4711
    assert len(step_id(999_999_999)) <= 16
