# SPDX-License-Identifier: AGPL-3.0-or-later
"""Values by themselves: PS3.5 §6.2, the multiplicity of rows, and data sets made to hurt."""

from __future__ import annotations

from typing import Any, Final

import pytest

from orthanc_ups.core import rules, statuses, value_rules
from orthanc_ups.core.dataset import DataSet, element
from orthanc_ups.core.date_times import moment
from orthanc_ups.core.representations import REPRESENTATIONS
from orthanc_ups.core.statuses import UpsError
from orthanc_ups.core.value_rules import DEEPEST, DataSetLimits
from tests.support import workitems

NAME: Final = {"Alphabetic": "Åkesson^Bo", "Ideographic": "青川^春香", "Phonetic": "あおかわ^はるか"}

VALID: Final[dict[str, list[Any]]] = {
    "AE": ["ORTHANC", " PADDED ", "A" * 16, "with space"],
    "AS": ["042Y", "003D", "012W", "006M"],
    "AT": ["00404041", "0040a370"],
    "CS": ["IN PROGRESS", "A_1", "B" * 16, "READY "],
    "DA": ["20240229", "19000101 "],
    "DS": ["1.50", "-1e-3", "+.5", "7.", " 12 ", "1234567890123456"],
    "DT": [
        "2026",
        "202611",
        "20261122",
        "2026112218",
        "202611221830",
        "20261122183000",
        "20261122183060",
        "20261122183000.1",
        "20261122183000.123456+1400",
        "20261122-0330",
        "2026+0000",
        "20261122183000-1200 ",
    ],
    "FD": [1.5, 3, "NaN", "-Infinity"],
    "FL": [0.25, "Infinity", 3.4028234e38, -3.4028235677973362e38],
    "IS": ["12", "-2147483648", "+2147483647", " 7 "],
    "LO": ["a" * 64, "Жизнь", "東京", "a" * 64 + "  "],
    "LT": ["a\r\nb\tc\f", "back\\slash", "x" * 10240],
    "PN": [NAME, {"Alphabetic": "A^B^C^D^E"}, {"Alphabetic": ""}, {"Ideographic": "x" * 64}],
    "SH": ["a" * 16, "Ä 1"],
    "SL": [-(2**31), 2**31 - 1],
    "SS": [-(2**15), 2**15 - 1],
    "ST": ["x" * 1024, "two\nlines"],
    "SV": [-(2**63), 2**63 - 1],
    "TM": ["18", "1830", "183000", "183000.123456", "235960", "000000 "],
    "UC": ["x" * 5000],
    "UI": ["1.2.840.10008.5.1.4.34.6.1", "2.25.0", "1." + "2" * 62, "1.2 "],
    "UL": [0, 2**32 - 1],
    "UR": ["https://harbour.example/a?b=c%20d#e", "tel:+49-40-0", "urn:oid:1.2 "],
    "US": [0, 65535],
    "UT": ["x" * 20000, "a\\b"],
    "UV": [2**64 - 1],
}
INVALID: Final[dict[str, list[Any]]] = {
    "AE": ["A" * 17, "A\\B", "ÄE", "A\nB", "   ", 5],
    "AS": ["42Y", "042X", "0042Y"],
    "AT": ["0040404", "00404041G", 4210753],
    "CS": ["ready", "A-B", "C" * 17, "É", {}],
    "DA": ["20260229", "2026-11-22", "2026.11.22", "20261301", "202611", "00000101", "٢٠٢٦١١٢٢"],
    "DS": ["1,5", "1.5.2", "NaN", "", "12345678901234567", "0x10", 1.5],
    "DT": [
        "20261322",
        "20261122+1500",
        "20261122-0000",
        "20261122183061",
        "2026112224",
        "20261122183000.",
        "20261122183000.1234567",
        "20261122T183000",
        "now",
        "20261122-20261123",
    ],
    "FD": ["1.5", True, None.__class__],
    "FL": ["1", 1e39, -3.4028235677973366e38, 10**39],
    "IS": ["1.0", "2147483648", "-2147483649", "000000000000001", "one", 7],
    "LO": ["a" * 65, "a\\b", "a\x1bb", "a\nb", "a\x7fb", "\ud800", "\ufffe", 1],
    "LT": ["x" * 10241, "a\x1b$Bb", "a\x00"],
    "PN": [
        {"Alphabetic": "A^B^C^D^E^F"},
        {"Alphabetic": "x" * 65},
        {"Latin": "A"},
        {"Alphabetic": "A=B"},
        {"Alphabetic": None},
        "Quay^Ann",
        {"Alphabetic": "A\\B"},
        {"Alphabetic": "A\tB"},
    ],
    "SH": ["a" * 17],
    "SL": [2**31, True, "1"],
    "SS": [2**15, 1.0],
    "ST": ["x" * 1025, "\x0b"],
    "SV": [2**63],
    "TM": ["24", "1860", "183061", "18:30", "183000.1234567", "1"],
    "UC": ["a\\b", "a\nb"],
    "UI": ["1.2.", "1..2", ".1", "1.02", "1.a", "1." + "2" * 63, "1 .2", "1.2\x00"],
    "UL": [-1, 2**32],
    "UR": ["http://a b", "a\\b", "höfe", "a\nb"],
    "US": [-1, 65536, "1", 1.0],
    "UT": ["a\x1bb", "\udfff"],
    "UV": [-1, 2**64],
}
PRIVATE: Final = "00091001"


def refused(dataset: Any, limits: DataSetLimits = DataSetLimits()) -> UpsError:  # noqa: B008
    with pytest.raises(UpsError) as caught:
        value_rules.check_values(dataset, limits=limits)
    return caught.value


@pytest.mark.parametrize(
    ("vr", "value"), [(vr, value) for vr, ones in VALID.items() for value in ones if value != ""], ids=repr
)
def test_ps3_5_6_2_valid_values_are_taken(vr: str, value: Any) -> None:
    dataset = {PRIVATE: element(vr, value)}
    value_rules.check_values(dataset)
    assert REPRESENTATIONS[vr].valid(value)


@pytest.mark.parametrize(
    ("vr", "value"), [(vr, value) for vr, ones in INVALID.items() for value in ones if value != ""], ids=repr
)
def test_ps3_5_6_2_invalid_values_are_refused(vr: str, value: Any) -> None:
    error = refused({PRIVATE: element(vr, value)})
    assert (error.status, error.tag) == (statuses.INVALID_VALUE, PRIVATE)
    assert f"expected {REPRESENTATIONS[vr].form}" in error.detail


@pytest.mark.parametrize("vr", sorted(REPRESENTATIONS))
def test_ps3_5_6_2_every_vr_may_be_empty(vr: str) -> None:
    value_rules.check_values({PRIVATE: element(vr)})
    assert vr in {*VALID, "SQ", "OB", "OD", "OF", "OL", "OV", "OW", "UN"}


@pytest.mark.parametrize("vr", ["LO", "DA", "UI", "PN", "US"])
def test_empty_values_among_others_are_valid(vr: str) -> None:
    value_rules.check_values({PRIVATE: {"vr": vr, "Value": [None, VALID[vr][0], None]}})
    assert refused({PRIVATE: {"vr": vr, "Value": [None, INVALID[vr][0]]}}).tag == PRIVATE


@pytest.mark.parametrize(
    ("vr", "content", "valid"),
    [
        ("OB", "AQ==", True),
        ("UN", "", True),
        ("OW", "AQI=", True),
        ("OW", "AQ==", False),
        ("OF", "AQIDBA==", True),
        ("OF", "AQI=", False),
        ("OL", "AQI=", False),
        ("OD", "AQIDBAUGBwg=", True),
        ("OV", "AQIDBA==", False),
        ("OB", "A", False),
        ("OB", "not base64!", False),
        ("OB", 7, False),
        ("OB", "ÄÖ==", False),
    ],
)
def test_ps3_18_f_2_7_binary_content_is_base64_of_whole_words(vr: str, content: Any, valid: bool) -> None:
    dataset = {PRIVATE: {"vr": vr, "InlineBinary": content}}
    if valid:
        value_rules.check_values(dataset)
    else:
        assert refused(dataset).status is statuses.INVALID_VALUE


@pytest.mark.parametrize(
    "junk",
    [
        None,
        "READY",
        [],
        {},
        {"vr": "XX"},
        {"vr": []},
        {"vr": {}},
        {"vr": "LO", "Value": "no list"},
        {"vr": "LO", "Value": {}},
        {"vr": "LO", "BulkDataURI": "http://harbour.example/1"},
        {"vr": "LO", "InlineBinary": "AQ=="},
        {"vr": "OB", "Value": [1]},
        {"vr": "SQ", "Value": [None]},
        {"vr": "SQ", "Value": ["item"]},
        {"vr": "SQ", "Value": [[]]},
        {"vr": "SQ", "Value": [{"00091002": None}]},
    ],
    ids=repr,
)
def test_what_is_no_element_is_refused(junk: Any) -> None:
    assert refused({PRIVATE: junk}).status is statuses.INVALID_VALUE


@pytest.mark.parametrize(
    "tag",
    ["00001000", "00020010", "0004101", "FFFEE000", "0040a370", "PatientName", "", "0040A3701", 1000, None],
)
def test_what_is_no_tag_of_content_is_refused(tag: Any) -> None:
    assert refused({tag: element("LO", "x")}).status is statuses.NO_SUCH_ATTRIBUTE


def test_a_row_comes_with_its_vr() -> None:
    error = refused({"00741204": element("SH", "Reading")})
    assert error.detail == "ProcedureStepLabel (0074,1204) has VR SH, expected LO"


def test_a_tag_of_the_table_keeps_its_vr_elsewhere() -> None:
    hidden: DataSet = {PRIVATE: element("SQ", {"00100010": element("LO", "Quay")})}
    assert refused(hidden).tag == f"{PRIVATE}.00100010"


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ({"00741204": element("LO", "a", "b")}, "has 2 values, expected one"),
        ({"00400400": element("LT", "a", "b")}, "has 2 values, expected one"),
        ({PRIVATE: element("UT", "a", "b")}, "has 2 values, expected one"),
        ({"00404018": element("SQ", {}, {})}, "has 2 items, expected one"),
        ({"00741002": element("SQ", {}, {})}, "has 2 items, expected one"),
        ({"00741216": element("SQ", {}, {})}, "has 2 items, expected one"),
    ],
)
def test_one_value_or_item_where_one_is_allowed(dataset: DataSet, words: str) -> None:
    error = refused(dataset)
    assert error.status is statuses.INVALID_VALUE
    assert words in error.detail


def test_several_values_where_several_are_allowed() -> None:
    value_rules.check_values({"00102000": element("LO", "a", "b"), PRIVATE: element("LO", "a", "b")})
    assert not rules.RULES["00102000"].single


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        (
            {"00741200": element("CS", "URGENT")},
            "ScheduledProcedureStepPriority (0074,1200) is 'URGENT', expected HIGH or MEDIUM or LOW",
        ),
        ({"00404041": element("CS", 7)}, "is no text, expected INCOMPLETE or UNAVAILABLE or READY"),
        ({"00741200": element("CS", "X" * 99)}, f"is '{'X' * 24}…', expected"),
        (
            {"00741002": element("SQ", {"00741004": element("DS", "101")})},
            "ProcedureStepProgress (0074,1004) is not valid: expected a percentage from 0 to 100, in item 1 of "
            "ProcedureStepProgressInformationSequence (0074,1002)",
        ),
        ({"00080201": element("SH", "CET")}, "expected an offset from UTC such as +0100"),
    ],
)
def test_enumerated_values_and_forms(dataset: DataSet, words: str) -> None:
    error = refused(dataset)
    assert error.status is statuses.INVALID_VALUE
    assert words in error.detail


def test_the_path_leads_to_the_item_at_fault() -> None:
    codes = element("SQ", workitems.code(), {"00080100": element("SH", "x" * 17)})
    error = refused({"00404034": element("SQ", {}, {"00404009": codes})})
    assert error.tag == "00404034.00404009.00080100"
    assert "in item 2 of HumanPerformerCodeSequence (0040,4009), in item 2 of Scheduled" in error.detail


@pytest.mark.parametrize(
    ("tag", "vr", "secret"),
    [
        ("00100010", "PN", {"Alphabetic": "Secret^" * 9}),
        ("00100020", "LO", "SECRET" * 20),
        ("00101010", "AS", "SECRET"),
    ],
)
def test_patient_data_is_never_told(tag: str, vr: str, secret: Any) -> None:
    error = refused({tag: element(vr, secret)})
    assert "secret" not in f"{error} {error.detail} {error.tag}".lower()


def nested(depth: int) -> DataSet:
    dataset: DataSet = {PRIVATE: element("LO", "deep")}
    for _ in range(depth):
        dataset = {PRIVATE: element("SQ", dataset)}
    return dataset


def test_nesting_is_limited() -> None:
    value_rules.check_values(nested(4), limits=DataSetLimits(nesting=4))
    error = refused(nested(5), DataSetLimits(nesting=4))
    assert "at most 4 sequences within one another" in error.detail


def test_the_deepest_nesting_that_settings_allow_does_not_exhaust_the_stack() -> None:
    value_rules.check_values(nested(DEEPEST))
    assert refused(nested(DEEPEST + 1)).status is statuses.INVALID_VALUE
    assert refused(nested(100_000)).status is statuses.INVALID_VALUE


WIDE: Final[DataSet] = {PRIVATE: element("SQ", *({"00091002": element("LO", "x")} for _ in range(10)))}


@pytest.mark.parametrize(
    ("dataset", "parts"),
    [
        (WIDE, 31),
        ({PRIVATE: element("SQ", *({} for _ in range(30)))}, 31),
        ({PRIVATE: element("LO", *"x" * 30)}, 31),
        ({f"0009{number:04X}": element("LO") for number in range(31)}, 31),
    ],
)
def test_elements_items_and_values_are_limited(dataset: DataSet, parts: int) -> None:
    value_rules.check_values(dataset, limits=DataSetLimits(parts=parts))
    error = refused(dataset, DataSetLimits(parts=parts - 1))
    assert error.status is statuses.INVALID_VALUE
    assert f"at most {parts - 1} elements, items and values in all" in error.detail


@pytest.mark.parametrize(("vr", "value"), [(vr, value) for vr in ("DA", "DT", "TM") for value in VALID[vr]])
def test_every_valid_moment_can_be_matched(vr: str, value: str) -> None:
    assert moment(vr, value) is not None


def test_full_workitems_of_every_repertoire_are_valid() -> None:
    for who in workitems.PEOPLE:
        value_rules.check_values(workitems.full(who))
    value_rules.check_values(workitems.performed() | workitems.progress())
    assert len(workitems.PEOPLE) == 5
