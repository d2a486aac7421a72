# SPDX-License-Identifier: AGPL-3.0-or-later
"""Attribute matching: PS3.4 C.2.2.2, clause by clause, on single workitems."""

from __future__ import annotations

from typing import Any

import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import DataSet, Element, element
from orthanc_ups.core.matching import Query
from orthanc_ups.core.statuses import IDENTIFIER_MISMATCH, UpsError
from tests.support import workitems

LABEL = tags.LABEL
NAME = tags.PATIENT_NAME
BIRTH_DATE = "00100030"
OTHER_IDS = "00101002"
REQUESTS = "0040A370"
ACCESSION = "00080050"


def matches(key: DataSet, stored: DataSet, **options: Any) -> bool:
    return Query.of(key, **options).matches(stored)


def with_one(tag: str, found: Element) -> DataSet:
    return workitems.changed(workitems.stored(), **{f"t{tag}": found})


def name(text: str, **groups: str) -> Element:
    return element("PN", {"Alphabetic": text, **groups} if text else groups)


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


# --- C.2.2.2.5 Range Matching ---


@pytest.mark.parametrize(
    ("key", "fits"),
    [
        ("20260101-20261231", True),
        ("20261122183000-20261122183000", True),
        ("20261122-", True),
        ("-20261122", True),
        ("-20261122183000.0", True),
        ("20261122183000.1-", False),
        ("-202611221829", False),
        ("2027-", False),
        ("2025-2026", True),
        ("2025-202610", False),
        ("20261122183000+0000 - 20261122183000+0000", True),
        ("20261122193000+0100-20261122193000+0100", True),
        ("20261122133000-0500-20261122133000-0500", True),
        ("-20261122133000-0500", True),
        ("-20261122133000-0600", True),
        ("-20261122133000-0400", False),
        ("20261122133000-0500-", True),
        ("20261122133000-0600-", False),
        ("20261122-1200", True),
        ("20261121-0500", False),
        ("20261122-0500-20261122-0500", True),
    ],
)
def test_c_2_2_2_5_3_date_time_ranges(key: str, fits: bool) -> None:
    stored = with_one(tags.START, element("DT", "20261122183000"))
    assert matches({tags.START: element("DT", key)}, stored) is fits


@pytest.mark.parametrize(
    ("key", "fits"),
    [
        ("19730228", True),
        ("19730101-19731231", True),
        ("19730228-", True),
        ("-19730228", True),
        ("-19730227", False),
        ("19730301-", False),
    ],
)
def test_c_2_2_2_5_1_date_ranges(key: str, fits: bool) -> None:
    assert matches({BIRTH_DATE: element("DA", key)}, with_one(BIRTH_DATE, element("DA", "19730228"))) is fits


@pytest.mark.parametrize(
    ("key", "fits"),
    [
        ("1430", True),
        ("14", True),
        ("0800-1430", True),
        ("-1429", False),
        ("143001-", False),
        ("1431", False),
    ],
)
def test_c_2_2_2_5_2_time_ranges_within_one_day(key: str, fits: bool) -> None:
    stored = with_one(REQUESTS, element("SQ", {"00402005": element("TM", "143000.25")}))
    assert matches({REQUESTS: element("SQ", {"00402005": element("TM", key)})}, stored) is fits


@pytest.mark.parametrize(
    ("tag", "vr", "key"),
    [
        (tags.START, "DT", "tomorrow"),
        (tags.START, "DT", "20261301"),
        (tags.START, "DT", "20260230"),
        (tags.START, "DT", "2026112218300"),
        (tags.START, "DT", "20260131-20260101"),
        (tags.START, "DT", "20260101-20260102-20260103"),
        (tags.START, "DT", "-"),
        (tags.START, "DT", "*"),
        (tags.START, "DT", "20260101 0500"),
        (BIRTH_DATE, "DA", "1973"),
        (BIRTH_DATE, "DA", "19730228-19720101"),
        ("00402005", "TM", "2000-0800"),
        ("00402005", "TM", "2500"),
        ("00402005", "TM", "12.5"),
    ],
)
def test_c_2_2_2_5_a_malformed_range_is_refused_by_name(tag: str, vr: str, key: str) -> None:
    with pytest.raises(UpsError, match=r"\([0-9A-F]{4},[0-9A-F]{4}\)") as refused:
        Query.of({tag: element(vr, key)})
    assert refused.value.status is IDENTIFIER_MISMATCH
    assert refused.value.tag == tag
    assert key not in refused.value.detail or len(key) < 2


@pytest.mark.parametrize(
    ("key_zone", "stored_zone", "local", "key", "fits"),
    [
        (None, None, None, "202611221830", True),
        (None, "+0100", None, "202611221730", True),
        (None, "+0100", None, "202611221830", False),
        ("+0100", None, None, "202611221930", True),
        ("-0500", "+0100", None, "202611221230", True),
        (None, None, "+0900", "202611221830", True),
        ("+0000", None, "+0900", "202611220930", True),
        ("+0000", "-0100", "+0900", "202611221930", True),
        ("+0000", "-0100", "+0900", "202611222130+0200", True),
    ],
)
def test_c_2_2_2_5_3_zones_of_value_then_data_set_then_place(
    key_zone: str | None, stored_zone: str | None, local: str | None, key: str, fits: bool
) -> None:
    identifier = {tags.START: element("DT", key)}
    stored = with_one(tags.START, element("DT", "20261122183000"))
    if key_zone:
        identifier[tags.TIMEZONE_OFFSET] = element("SH", key_zone)
    if stored_zone:
        stored[tags.TIMEZONE_OFFSET] = element("SH", stored_zone)
    assert matches(identifier, stored, timezone=local) is fits


# --- C.2.2.2.6 Sequence Matching ---


def requests(*pairs: tuple[str, str]) -> Element:
    return element(
        "SQ",
        *({ACCESSION: element("SH", one), "00401001": element("SH", other)} for one, other in pairs),
    )


def test_c_2_2_2_6_one_item_must_satisfy_all_keys_of_the_item() -> None:
    stored = with_one(REQUESTS, requests(("A-1", "RP-1"), ("A-2", "RP-2")))
    assert matches({REQUESTS: requests(("A-2", "RP-2"))}, stored)
    assert not matches({REQUESTS: requests(("A-1", "RP-2"))}, stored)
    assert matches({REQUESTS: requests(("A-*", ""))}, stored)


def test_c_2_2_2_6_sequences_match_recursively() -> None:
    stored = with_one(
        tags.HUMAN_PERFORMERS, element("SQ", workitems.performer("greek"), workitems.performer("cyrillic"))
    )

    def key(code: str, organization: str) -> DataSet:
        item = {
            tags.HUMAN_PERFORMER_CODES: element("SQ", {tags.CODE_VALUE: element("SH", code)}),
            tags.HUMAN_PERFORMER_ORGANIZATION: element("LO", organization),
        }
        return {tags.HUMAN_PERFORMERS: element("SQ", item)}

    assert matches(key("PCYRILL", "Harbour*"), stored)
    assert not matches(key("PCYRILL", "Hill*"), stored)
    assert not matches(key("PLATIN-", "Harbour*"), stored)


def test_c_2_2_2_6_codes_match_by_value_and_scheme_but_never_by_meaning() -> None:
    stored = with_one(tags.WORKITEM_CODE, element("SQ", workitems.code("110005", "DCM", "Interpretation")))

    def query(value: str, scheme: str, meaning: str) -> Query:
        return Query.of({tags.WORKITEM_CODE: element("SQ", workitems.code(value, scheme, meaning))})

    assert query("110005", "DCM", "something else").matches(stored)
    assert query("110005", "DCM", "something else").unsupported
    assert not query("110005", "99LOCAL", "Interpretation").matches(stored)
    assert not query("110004", "DCM", "Interpretation").matches(stored)


def test_c_2_2_2_6_more_than_one_item_in_a_key_is_refused() -> None:
    with pytest.raises(UpsError, match=r"ReferencedRequestSequence .* has 2 items, expected one") as refused:
        Query.of({REQUESTS: requests(("A-1", ""), ("A-2", ""))})
    assert refused.value.status is IDENTIFIER_MISMATCH
    assert refused.value.tag == REQUESTS


def test_c_2_2_2_6_a_malformed_nested_key_is_named_with_its_path() -> None:
    key = {REQUESTS: element("SQ", {"0020000D": element("UI", "no uid")})}
    with pytest.raises(UpsError, match=r"StudyInstanceUID .* in item 1 of ReferencedRequest") as refused:
        Query.of(key)
    assert refused.value.tag == f"{REQUESTS}.0020000D"


# --- C.2.2.2.8 Multiple Value Matching ---


def test_c_2_2_2_8_several_values_are_refused_unless_agreed_upon() -> None:
    key = {tags.STATE: element("CS", "SCHEDULED", "IN PROGRESS")}
    with pytest.raises(UpsError, match=r"ProcedureStepState .* expected one value, found 2"):
        Query.of(key)
    assert matches(key, workitems.stored(state="IN PROGRESS"), multiple=True)
    assert not matches(key, workitems.stored(state="COMPLETED"), multiple=True)


# --- Fuzzy semantic matching of person names (PS3.4 C.5.2.2.1.1, C.4.1.1.3.1) ---


@pytest.mark.parametrize(
    ("key", "fits"),
    [
        ("ines fairweather", True),
        ("Fairw", True),
        ("q ines", True),
        ("Fayrwether^Ines", True),
        ("Fairweather^Agnes", False),
        ("weather", False),
        ("ines*", True),
    ],
)
def test_fuzzy_names_match_words_in_any_order_by_beginning_or_sound(key: str, fits: bool) -> None:
    stored = with_one(NAME, element("PN", workitems.person("plain")))
    assert matches({NAME: name(key)}, stored, fuzzy=True) is fits


@pytest.mark.parametrize(
    ("one", "other", "fits"),
    [
        ("Meyer", "Maier", True),
        ("Schmidt", "Schmitt", True),
        ("Müller", "Mueller", True),
        ("Sophia", "Sofia", True),
        ("Meyer", "Moser", False),
        ("Li", "Lu", False),
        ("Журавлёва", "журав", True),
    ],
)
def test_fuzzy_names_that_sound_alike(one: str, other: str, fits: bool) -> None:
    assert matches({NAME: name(other)}, with_one(NAME, name(one)), fuzzy=True) is fits


# --- PS3.4 CC.2.8: what is a key at all ---


@pytest.mark.parametrize(
    ("identifier", "has_keys", "unsupported"),
    [
        ({}, False, False),
        ({tags.TRANSACTION_UID: element("UI", "1.2")}, False, True),
        ({tags.TIMEZONE_OFFSET: element("SH", "+0100")}, False, False),
        ({tags.PROGRESS_INFORMATION: element("SQ")}, False, False),
        ({tags.PROGRESS_INFORMATION: element("SQ", {tags.PROGRESS: element("DS", "50")})}, False, True),
        ({"00101010": element("AS", "042Y")}, False, True),
        ({"00101010": element("AS")}, False, False),
        ({tags.LABEL: element("LO"), "00101010": element("AS", "042Y")}, True, True),
        ({"00400400": element("LT", "*urgent*")}, True, False),
        ({"00991001": element("OB") | {"InlineBinary": "AAA="}}, True, True),
        ({"00991001": element("LO", "private")}, True, False),
    ],
)
def test_cc_2_8_keys_that_are_none_never_narrow(
    identifier: DataSet, has_keys: bool, unsupported: bool
) -> None:
    query = Query.of(identifier)
    assert (query.has_keys, query.unsupported) == (has_keys, unsupported)
    if not has_keys:
        assert query.matches(workitems.stored())


def test_cc_2_8_nested_keys_of_the_performed_procedure_match() -> None:
    stored = workitems.stored(base=workitems.minimal() | workitems.performed())

    def key(station: str) -> DataSet:
        codes = element("SQ", {tags.CODE_VALUE: element("SH", station)})
        return {tags.PERFORMED_PROCEDURE: element("SQ", {"00404028": codes})}

    assert matches(key("READING7"), stored)
    assert not matches(key("READING9"), stored)


def test_cc_2_8_a_key_with_a_wrong_vr_is_refused() -> None:
    with pytest.raises(UpsError, match=r"PatientName .* has VR LO, expected PN"):
        Query.of({NAME: element("LO", "Fairweather")})
    assert matches({LABEL: element("SH", "Second reading")}, workitems.stored())
