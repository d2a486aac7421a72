# SPDX-License-Identifier: AGPL-3.0-or-later
"""Empty and Multiple Value Matching, and keys that no UPS has: PS3.4 C.2.2.2.7, C.2.2.2.8, C.2.2.1.3."""

from __future__ import annotations

from typing import Any

import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import DataSet, Element, element
from orthanc_ups.core.matching import Query
from orthanc_ups.core.mechanisms import Mechanisms
from orthanc_ups.core.statuses import UpsError
from tests.support import workitems
from tests.support.matching import matches, with_one

ADMISSION = "00380010"
ALLERGIES = "00102110"
EMPTY = Mechanisms.EMPTY
MULTIPLE = Mechanisms.MULTIPLE
BOTH = EMPTY | MULTIPLE


# --- C.2.2.2.7 Empty Value Matching ---


@pytest.mark.parametrize(
    ("tag", "vr", "filled"),
    [
        (ADMISSION, "LO", "ADM-1"),
        (tags.START, "DT", "20260101"),
        ("00100030", "DA", "19730228"),
        ("00100040", "CS", "F"),
        ("0020000D", "UI", "1.2.3"),
        ("00101022", "DS", "2"),
        ("001021C0", "US", 4),
        ("00400400", "LT", "urgent"),
    ],
)
def test_c_2_2_2_7_two_quotation_marks_match_what_is_empty_or_absent(tag: str, vr: str, filled: Any) -> None:
    key = {tag: element(vr, '""')}
    assert matches(key, with_one(tag, element(vr)), mechanisms=EMPTY)
    assert matches(key, workitems.changed(workitems.stored(), **{f"t{tag}": None}), mechanisms=EMPTY)
    assert not matches(key, with_one(tag, element(vr, filled)), mechanisms=EMPTY)


def test_c_2_2_2_7_person_names_may_be_empty() -> None:
    key = {tags.PATIENT_NAME: element("PN", {"Alphabetic": '""'})}
    for stored in (element("PN"), element("PN", {}), element("PN", {"Alphabetic": " "})):
        assert matches(key, with_one(tags.PATIENT_NAME, stored), mechanisms=EMPTY)
    somebody = with_one(tags.PATIENT_NAME, element("PN", {"Ideographic": "青川"}))
    assert not matches(key, somebody, mechanisms=EMPTY)


@pytest.mark.parametrize(
    ("stations", "fits"),
    [
        (None, True),
        (element("SQ"), True),
        (element("SQ", workitems.station("CT1")), False),
        (element("SQ", {tags.CODING_SCHEME: element("SH", "DCM")}), True),
        (element("SQ", workitems.station("CT1"), {tags.CODING_SCHEME: element("SH", "DCM")}), True),
    ],
)
def test_c_2_2_2_7_what_stands_in_no_item_is_absent(stations: Element | None, fits: bool) -> None:
    key = {tags.STATION_NAME: element("SQ", {tags.CODE_VALUE: element("SH", '""')})}
    stored = workitems.changed(workitems.stored(), **{f"t{tags.STATION_NAME}": stations})
    assert matches(key, stored, mechanisms=EMPTY) is fits
    scheme = {tags.CODE_VALUE: element("SH", '""'), tags.CODING_SCHEME: element("SH", "DCM")}
    keys = {tags.STATION_NAME: element("SQ", scheme)}
    assert matches(keys, stored, mechanisms=EMPTY) is (
        fits and bool(stations) and "Value" in (stations or {})
    )


def test_c_2_2_2_7_quotation_marks_are_characters_unless_agreed_upon() -> None:
    key = {tags.LABEL: element("LO", '""')}
    assert matches(key, with_one(tags.LABEL, element("LO", '""')))
    assert not matches(key, with_one(tags.LABEL, element("LO")))
    with pytest.raises(UpsError, match="StudyInstanceUID"):
        Query.of({"0020000D": element("UI", '""')})


# --- C.2.2.2.8 Multiple Value Matching ---


@pytest.mark.parametrize(
    ("stored", "fits"),
    [(["Nuts", "Latex"], True), (["Latex", "Bees", "Nuts"], True), (["Nuts"], False), ([], False)],
)
def test_c_2_2_2_8_each_value_must_match_one_of_an_attribute_with_several(
    stored: list[str], fits: bool
) -> None:
    key = {ALLERGIES: element("LO", "Nuts", "Latex")}
    assert matches(key, with_one(ALLERGIES, element("LO", *stored)), mechanisms=MULTIPLE) is fits


def test_c_2_2_2_8_values_are_alternatives_of_an_attribute_with_one() -> None:
    """Where the clause leaves the meaning open, the only one that can find anything."""
    key = {ADMISSION: element("LO", "A", "B*")}
    for stored, fits in (("A", True), ("B1", True), ("C", False)):
        assert matches(key, with_one(ADMISSION, element("LO", stored)), mechanisms=MULTIPLE) is fits


def test_c_2_2_2_7_and_8_empty_may_be_one_of_the_alternatives() -> None:
    key = {ADMISSION: element("LO", "A", '""')}
    for stored, fits in ((["A"], True), ([], True), (["B"], False)):
        assert matches(key, with_one(ADMISSION, element("LO", *stored)), mechanisms=BOTH) is fits


# --- C.2.2.1.3: keys that no UPS has ---


@pytest.mark.parametrize(
    "key",
    [
        {"00080052": element("CS", "WORKLIST")},
        {"00080070": element("LO", "ACME")},
        {"00080020": element("DA", "no date")},
        {"00080061": element("CS", "CT", "MR")},
        {"00400275": element("SQ", {"00400009": element("SH", "SPS1")})},
        {tags.STATION_NAME: element("SQ", {"00080070": element("LO", "ACME")})},
    ],
)
def test_c_2_2_1_3_a_key_that_no_ups_has_is_universal_and_told(key: DataSet) -> None:
    query = Query.of(key)
    assert query.matches(workitems.stored())
    assert query.has_keys
    assert len(query.unsupported) == 1
    narrowed = Query.of(key | {tags.LABEL: element("LO", "no such label")})
    assert narrowed.unsupported == query.unsupported
    assert not narrowed.matches(workitems.stored())


def test_c_2_2_1_3_a_key_without_value_asks_for_nothing_unsupported() -> None:
    assert not Query.of({"00080052": element("CS"), "00080070": element("LO", "*")}).unsupported


# --- keys that fit nothing ---


@pytest.mark.parametrize(
    ("tag", "vr", "value", "reason"),
    [
        (tags.STATE, "CS", "SCHED*", "expected SCHEDULED or IN PROGRESS or COMPLETED or CANCELED"),
        (tags.STATE, "CS", "DONE", "expected SCHEDULED"),
        (tags.PRIORITY, "CS", "high", "expected HIGH or MEDIUM or LOW"),
        (tags.LABEL, "LO", "x" * 65, "64"),
        (tags.LABEL, "LO", "a\\b", "expected"),
        ("00100040", "CS", "f", "expected"),
        ("00100040", "CS", "?", "literally"),
    ],
)
def test_a_key_that_no_workitem_can_fit_says_why(tag: str, vr: str, value: str, reason: str) -> None:
    ((path, why),) = Query.of({tag: element(vr, value)}).unmatchable
    assert path == tag
    assert reason in why


@pytest.mark.parametrize(
    ("tag", "vr", "value"),
    [
        (tags.STATE, "CS", "CANCELED"),
        (tags.LABEL, "LO", "*" * 100 + "x"),
        (tags.LABEL, "LO", "?" * 64),
        ("00400400", "LT", "*urgent*"),
        ("00100040", "CS", "F"),
    ],
)
def test_a_key_that_some_workitem_can_fit_is_not_complained_about(tag: str, vr: str, value: str) -> None:
    assert not Query.of({tag: element(vr, value)}).unmatchable
