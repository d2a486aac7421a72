# SPDX-License-Identifier: AGPL-3.0-or-later
"""Sequences, several values, fuzzy names, and which attributes are keys: PS3.4 C.2.2.2.6 ff., CC.2.8."""

from __future__ import annotations

import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import DataSet, Element, element
from orthanc_ups.core.matching import Query
from orthanc_ups.core.mechanisms import Mechanisms
from orthanc_ups.core.statuses import IDENTIFIER_MISMATCH, UpsError
from tests.support import workitems
from tests.support.matching import matches, name, with_one

LABEL = tags.LABEL
NAME = tags.PATIENT_NAME
REQUESTS = "0040A370"
ACCESSION = "00080050"


# --- C.2.2.2.6 Sequence Matching ---


def requests(*pairs: tuple[str, str]) -> Element:
    return element(
        "SQ",
        *(
            {ACCESSION: element("SH", accession), "00401001": element("SH", step)}
            for accession, step in pairs
        ),
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
    assert matches(key, workitems.stored(state="IN PROGRESS"), mechanisms=Mechanisms.MULTIPLE)
    assert not matches(key, workitems.stored(state="COMPLETED"), mechanisms=Mechanisms.MULTIPLE)


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
    assert matches({NAME: name(key)}, stored, mechanisms=Mechanisms.FUZZY) is fits


@pytest.mark.parametrize(
    ("stored", "key", "fits"),
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
def test_fuzzy_names_that_sound_alike(stored: str, key: str, fits: bool) -> None:
    assert matches({NAME: name(key)}, with_one(NAME, name(stored)), mechanisms=Mechanisms.FUZZY) is fits


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
    assert (query.has_keys, bool(query.unsupported)) == (has_keys, unsupported)
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
