# SPDX-License-Identifier: AGPL-3.0-or-later
"""Answers are such that Orthanc's matcher, which compares texts, does not drop the Scheduled Procedure Step."""

from __future__ import annotations

from typing import Any

import pytest

from orthanc_ups.core.dataset import DataSet, element, items
from orthanc_ups.modality.orthanc_matcher import extractable

STEP = "00400100"
JOERG = {"Alphabetic": "Müller^Jörg"}
YAMADA = {"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"}


def of_step(tag: str, vr: str, answered: list[Any], asked: list[Any]) -> list[Any]:
    """The values of an attribute of the step once the answer is in the form that was asked for."""
    answer: DataSet = {STEP: element("SQ", {tag: element(vr, *answered)})}
    query: DataSet = {STEP: element("SQ", {tag: element(vr, *asked)})}
    [step] = items(extractable(answer, query), STEP)
    return list(step[tag].get("Value", []))


@pytest.mark.parametrize(
    ("vr", "answered", "asked", "expected"),
    [
        ("TM", ["093000"], ["093000"], ["093000"]),
        ("TM", ["093000"], ["0800-1000"], ["093000"]),
        ("TM", ["093000"], ["0800-0930"], ["0930"]),
        ("TM", ["093015"], ["-09"], ["09"]),
        ("TM", ["100000"], ["1000"], ["1000"]),
        ("DA", ["20261201"], ["20261201-20261202"], ["20261201"]),
        ("AE", ["CT1"], ["ct1"], ["ct1"]),
        ("AE", ["CT1", "MR1"], ["MR1"], ["MR1"]),
        ("AE", ["CT1", "MR1"], ["mr*", "xa1"], ["mr*"]),
        ("SH", ["Room 1", "Room 2"], ["Room 2"], ["Room 2"]),
        ("SH", ["Room 1", "Room 2"], ["Room*"], ["Room 1", "Room 2"]),
        ("PN", [JOERG], ["MÜLLER*"], [JOERG]),
        ("PN", [JOERG], [{"Alphabetic": "muller*"}], [{"Alphabetic": "Muller^Jorg"}]),
        ("PN", [{"Alphabetic": "Muller^Jorg"}], [{"Alphabetic": "Müll*"}], [{"Alphabetic": "Müller^Jorg"}]),
        ("PN", [YAMADA], [{"Ideographic": "山田*"}], [{"Ideographic": "山田^太郎"}]),
        ("PN", [YAMADA], [{"Alphabetic": "山田*"}], [{"Alphabetic": "山田^太郎"}]),
        ("PN", [YAMADA], [{"Alphabetic": "yamada*"}], [YAMADA]),
        ("LO", [], ["A value*"], ["A value"]),
        ("DA", [], ["20261201-"], ["20261201"]),
        ("LO", [], ["*"], []),
        ("LO", ["kept"], [], ["kept"]),
    ],
)
def test_an_attribute_of_the_step_fits_as_a_text(
    vr: str, answered: list[Any], asked: list[Any], expected: list[Any]
) -> None:
    assert of_step("00400000", vr, answered, asked) == expected


def test_codes_that_were_not_asked_for_stay_what_they_are() -> None:
    codes = element("SQ", {"00080100": element("SH", "A")}, {"00080100": element("SH", "B")})
    answer: DataSet = {STEP: element("SQ", {"00400008": codes})}
    query: DataSet = {STEP: element("SQ", {"00400008": element("SQ", {"00080100": element("SH", "A")})})}
    assert extractable(answer, query) == answer


def test_an_empty_sequence_is_left_out_of_a_step_that_was_asked_for_its_items() -> None:
    answer: DataSet = {STEP: element("SQ", {"00400008": element("SQ"), "00400007": element("LO", "CT")})}
    query: DataSet = {STEP: element("SQ", {"00400008": element("SQ", {"00080100": element("SH")})})}
    assert items(extractable(answer, query), STEP) == [{"00400007": element("LO", "CT")}]


def test_what_is_not_in_a_sequence_is_never_changed() -> None:
    answer: DataSet = {"00100010": element("PN", JOERG), "00104000": element("LT")}
    query: DataSet = {"00100010": element("PN", {"Alphabetic": "muller*"}), "00104000": element("LT", "x")}
    assert extractable(answer, query) == answer
