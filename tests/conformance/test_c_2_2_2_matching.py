# SPDX-License-Identifier: AGPL-3.0-or-later
"""Attribute matching of single values and texts: PS3.4 C.2.2.2.1 to C.2.2.2.4."""

from __future__ import annotations

from typing import Any

import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import DataSet, element
from orthanc_ups.core.matching import Query
from orthanc_ups.core.statuses import IDENTIFIER_MISMATCH, UpsError
from tests.support import workitems
from tests.support.matching import matches, name, with_one

LABEL = tags.LABEL
NAME = tags.PATIENT_NAME
OTHER_IDS = "00101002"


# --- C.2.2.2.1 Single Value Matching ---


@pytest.mark.parametrize(
    ("vr", "tag", "key", "stored", "fits"),
    [
        ("LO", LABEL, "Chest CT", "Chest CT", True),
        ("LO", LABEL, "Chest CT", "chest ct", False),
        ("LO", LABEL, "Chest CT  ", " Chest CT", True),
        ("LO", LABEL, "Chest", "Chest CT", False),
        ("CS", tags.STATE, "SCHEDULED", "SCHEDULED", True),
        ("CS", tags.STATE, "IN PROGRESS", "SCHEDULED", False),
        ("LO", LABEL, "Zoe\u0308", "Zoë", True),
        ("DS", "00101030", "71.5", "71.50", True),
        ("DS", "00101022", "71.5", "71.50", True),
        ("DS", "00101022", "7.15E1", "71.50 ", True),
        ("DS", "00101022", "71.4", "71.50", False),
        ("US", "001021C0", 1, 1, True),
        ("US", "001021C0", "1", 1, True),
        ("US", "001021C0", 2, 1, False),
    ],
)
def test_c_2_2_2_1_a_single_value_matches_the_same_value(
    vr: str, tag: str, key: Any, stored: Any, fits: bool
) -> None:
    assert matches({tag: element(vr, key)}, with_one(tag, element(vr, stored))) is fits


def test_c_2_2_2_1_one_of_several_stored_values_is_enough() -> None:
    stored = with_one("00102000", element("LO", "Contrast medium", "Pacemaker"))
    assert matches({"00102000": element("LO", "Pacemaker")}, stored)
    assert not matches({"00102000": element("LO", "Pace")}, stored)


def test_c_2_2_2_1_an_empty_or_absent_attribute_fails_any_key_with_a_value() -> None:
    key = {"00380010": element("LO", "ADM-1")}
    assert not matches(key, with_one("00380010", element("LO")))
    assert not matches(key, workitems.stored(t00380010=None))
    assert not matches({"00380010": element("LO", "?*")}, with_one("00380010", element("LO", "")))


@pytest.mark.parametrize(
    ("key", "stored", "fits"),
    [
        ("20260131", "20260131235959.5", True),
        ("202601", "20260131", True),
        ("2026", "20261231235959.999999", True),
        ("2026", "20270101", False),
        ("20260131143000.5", "20260131143000.500001", True),
        ("20260131143000.50", "20260131143000.51", False),
        ("20260131-0500", "20260131050000+0000", True),
        ("20260131-0500", "20260131045959+0000", False),
        ("20260131120000+0100", "20260131110000", True),
    ],
)
def test_c_2_2_2_1_a_date_time_covers_what_its_precision_leaves_open(
    key: str, stored: str, fits: bool
) -> None:
    assert matches({tags.START: element("DT", key)}, with_one(tags.START, element("DT", stored))) is fits


@pytest.mark.parametrize(
    ("key", "stored", "fits"),
    [
        ("fairweather^ines^q", {"Alphabetic": "Fairweather^Ines^Q"}, True),
        ("FAIRWEATHER^INES", {"Alphabetic": "Fairweather^Ines^Q"}, False),
        ("Fairweather", {"Alphabetic": "Fairweather^^^^"}, True),
        ("Angstrom-Muller^Zoe^Francois", workitems.PEOPLE["latin-1"], True),
        ("ЖУРАВЛЕВА^Мария^Олеговна", workitems.PEOPLE["cyrillic"], True),
        ("ΚΑΣΤΑΝΙΔΗΣ^Νεκταριος", workitems.PEOPLE["greek"], True),
        ("ＡＯＫＡＷＡ^Haruka", workitems.PEOPLE["japanese"], True),
        ("青川^春香", workitems.PEOPLE["japanese"], True),
        ("あおがわ^はるか", workitems.PEOPLE["japanese"], False),
    ],
)
def test_c_2_2_2_1_person_names_match_without_case_and_accents(
    key: str, stored: dict[str, str], fits: bool
) -> None:
    assert matches({NAME: name(key)}, with_one(NAME, element("PN", stored))) is fits


def test_c_2_2_2_1_ideographic_and_phonetic_keys_match_their_own_group_only() -> None:
    stored = with_one(NAME, element("PN", workitems.person("japanese")))
    assert matches({NAME: name("", Ideographic="青川*")}, stored)
    assert matches({NAME: name("", Phonetic="あおかわ^はるか")}, stored)
    assert not matches({NAME: name("", Phonetic="青川*")}, stored)
    assert matches({NAME: name("aokawa*", Ideographic="青川*")}, stored)
    assert not matches({NAME: name("aokawa*", Ideographic="赤川*")}, stored)


# --- C.2.2.2.2 List of UID Matching ---


def test_c_2_2_2_2_any_uid_of_a_list_matches() -> None:
    stored = workitems.stored(number=7)
    listed = element("UI", workitems.uid(6), workitems.uid(7))
    assert matches({tags.SOP_INSTANCE_UID: listed}, stored)
    assert not matches({tags.SOP_INSTANCE_UID: element("UI", workitems.uid(6))}, stored)
    assert not matches({tags.SOP_INSTANCE_UID: element("UI", workitems.uid(7) + "0")}, stored)


@pytest.mark.parametrize("uid", ["1.2.*", "1..2", "a.b", "1." * 40 + "1", "1.2,1.3"])
def test_c_2_2_2_2_what_is_no_uid_is_refused(uid: str) -> None:
    with pytest.raises(UpsError, match=r"SOPInstanceUID .* expected a UID") as refused:
        Query.of({tags.SOP_INSTANCE_UID: element("UI", uid)})
    assert refused.value.status is IDENTIFIER_MISMATCH
    assert refused.value.tag == tags.SOP_INSTANCE_UID


# --- C.2.2.2.3 Universal Matching ---


@pytest.mark.parametrize(
    "key",
    [
        {LABEL: element("LO")},
        {LABEL: element("LO", "")},
        {LABEL: element("LO", "  ")},
        {"00380010": element("LO", None)},
        {NAME: element("PN", {})},
        {NAME: element("PN", {"Alphabetic": ""})},
        {tags.START: element("DT")},
        {OTHER_IDS: element("SQ")},
        {OTHER_IDS: element("SQ", {})},
        {OTHER_IDS: element("SQ", {"00100020": element("LO")})},
    ],
)
def test_c_2_2_2_3_a_zero_length_key_matches_everything_and_is_a_key(key: DataSet) -> None:
    query = Query.of(key)
    assert query.matches(workitems.stored())
    assert query.matches({})
    assert query.has_keys
    assert not query.unsupported


# --- C.2.2.2.4 Wild Card Matching ---


@pytest.mark.parametrize(
    ("pattern", "stored", "fits"),
    [
        ("Chest*", "Chest CT", True),
        ("*CT", "Chest CT", True),
        ("*est*", "Chest CT", True),
        ("Ch??t CT", "Chest CT", True),
        ("Chest CT*", "Chest CT", True),
        ("Chest CT?", "Chest CT", False),
        ("chest*", "Chest CT", False),
        ("?", "é", True),
        ("C[h]est*", "Chest CT", False),
        ("C[h]est*", "C[h]est CT", True),
        ("C.*", "Chest CT", False),
        ("C*e*t*T", "Chest CT", True),
        ("C*e*t*x", "Chest CT", False),
    ],
)
def test_c_2_2_2_4_star_and_question_mark(pattern: str, stored: str, fits: bool) -> None:
    assert matches({LABEL: element("LO", pattern)}, with_one(LABEL, element("LO", stored))) is fits


@pytest.mark.parametrize("pattern", ["*", "**"])
def test_c_2_2_2_4_a_lone_star_is_universal_matching(pattern: str) -> None:
    assert matches({LABEL: element("LO", pattern)}, workitems.stored(t00741204=None))
    assert matches({NAME: name(pattern)}, with_one(NAME, element("PN")))


@pytest.mark.parametrize(
    ("tag", "vr", "key", "stored"),
    [
        (tags.PRIORITY, "CS", "HI*", "HIGH"),
        (tags.STATE, "CS", "*", "SCHEDULED"),
        (tags.READINESS, "CS", "READ?", "READY"),
        ("00100040", "CS", "?", "F"),
    ],
)
def test_c_2_2_2_4_where_only_single_values_are_allowed_wildcards_are_literal(
    tag: str, vr: str, key: str, stored: str
) -> None:
    assert not matches({tag: element(vr, key)}, with_one(tag, element(vr, stored)))


def test_c_2_2_2_4_wildcards_in_codes_are_literal() -> None:
    stored = with_one(tags.STATION_NAME, element("SQ", workitems.station("READING7")))
    for pattern in ("READING*", "READING?", "*"):
        key = {tags.STATION_NAME: element("SQ", {tags.CODE_VALUE: element("SH", pattern)})}
        assert not matches(key, stored)


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        ("ångström*", True),
        ("ANGSTROM*^zoe*", True),
        ("*^Zoë*", True),
        ("angstrom-m?ller^zoe^francois", True),
        ("angstrom^*", False),
        ("angstrom-muller^zoe^francois^*^*", True),
        ("*mueller*", False),
    ],
)
def test_c_2_2_2_4_wildcards_in_person_names(pattern: str, fits: bool) -> None:
    stored = with_one(NAME, element("PN", workitems.person("latin-1")))
    assert matches({NAME: name(pattern)}, stored) is fits


def test_c_2_2_2_4_components_that_are_not_there_are_empty_ones() -> None:
    stored = with_one(NAME, name("Yamada"))
    assert matches({NAME: name("yamada^*")}, stored)
    assert matches({NAME: name("yamada^*^*")}, stored)
    assert not matches({NAME: name("yamada^taro*")}, stored)
    assert matches({NAME: name("yamada^*^*")}, with_one(NAME, name("Yamada^Taro")))
