# SPDX-License-Identifier: AGPL-3.0-or-later
"""DICOM JSON (PS3.18 Annex F) to the inner form and back."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthanc_ups.codecs import dicom_json
from orthanc_ups.core.dataset import BINARY_VRS, DataSet, element
from orthanc_ups.core.statuses import UpsError
from tests.support.datasets import VALUES, WIDTHS, datasets
from tests.support.workitems import full, stored


def read(text: str) -> DataSet:
    (dataset,) = dicom_json.decode(text.encode())
    return dataset


def values(vr: str, listed: str) -> list[Any]:
    result: list[Any] = read(f'{{"00091001":{{"vr":"{vr}","Value":[{listed}]}}}}')["00091001"]["Value"]
    return result


@given(datasets())
def test_every_vr_survives_the_round_trip(dataset: DataSet) -> None:
    assert dicom_json.decode(dicom_json.encode(dataset)) == [dataset]


def test_strategy_has_every_vr() -> None:
    assert WIDTHS.keys() == BINARY_VRS
    assert len(VALUES) + len(WIDTHS) + 1 == 34  # PS3.5 Table 6.2-1, SQ included


@pytest.mark.parametrize("who", ["plain", "japanese", "cyrillic", "greek", "latin-1"])
def test_whole_workitem_survives_the_round_trip(who: str) -> None:
    workitem = stored(base=full(who))
    assert dicom_json.decode(dicom_json.encode_all([workitem])) == [workitem]


def test_specific_character_set_is_told_where_text_needs_it_and_only_there() -> None:
    needed = json.loads(dicom_json.encode(full("greek")))
    assert needed["00080005"] == {"vr": "CS", "Value": ["ISO_IR 192"]}
    assert list(needed) == sorted(needed)
    assert "00080005" not in json.loads(dicom_json.encode({"00100020": element("LO", "plain")}))


@pytest.mark.parametrize(
    ("stored_text", "written"),
    [("1.50", "1.50"), ("-0", "-0"), ("0.10000000000000", "0.10000000000000"), ("1E5", "1E5"),
     ("+1.5", '"+1.5"'), ("007", '"007"'), (".5", '".5"'), ("1.", '"1."'), (" 2 ", '" 2 "'), ("1E400", '"1E400"')],
)  # fmt: skip
def test_decimal_strings_are_numbers_with_all_their_digits(stored_text: str, written: str) -> None:
    text = dicom_json.encode({"00101030": element("DS", stored_text)}).decode()
    assert text == f'{{"00101030":{{"vr":"DS","Value":[{written}]}}}}'
    assert values("DS", written) == [stored_text]


def test_text_that_looks_like_a_decimal_string_stays_text() -> None:
    sly = element("UT", 'x","vr":"DS","Value":["1"]', "1.5")
    assert orjson.loads(dicom_json.encode({"00080119": sly})) == {"00080119": sly}


@pytest.mark.parametrize(
    ("vr", "written"), [("UV", "18446744073709551615"), ("SV", "-9223372036854775808"), ("UV", "7")]
)
def test_64_bit_numbers_that_a_double_cannot_hold_are_strings(vr: str, written: str) -> None:
    text = dicom_json.encode({"00091001": element(vr, int(written))}).decode()
    assert (f'"{written}"' in text) == (len(written) > 16)
    assert values(vr, f'"{written}"') == values(vr, written) == [int(written)]


def test_a_number_too_long_for_a_decimal_string_is_rounded() -> None:
    (number,) = values("DS", "33.333333333333336")
    assert len(number) <= 16
    assert float(number) == pytest.approx(100 / 3)


@pytest.mark.parametrize("word", ["NaN", "nan"])
def test_not_a_number(word: str) -> None:
    assert values("FD", f'"{word}"') == ["NaN"]


@pytest.mark.parametrize(
    ("word", "inner"), [("inf", "Infinity"), ("-inf", "-Infinity"), ("Infinity", "Infinity")]
)
def test_infinities(word: str, inner: str) -> None:
    assert values("FL", f'"{word}"') == [inner]


@pytest.mark.parametrize("listed", ["null", '""'])
def test_one_empty_value_is_an_empty_element(listed: str) -> None:
    assert read(f'{{"00100020":{{"vr":"LO","Value":[{listed}]}}}}') == {"00100020": {"vr": "LO"}}


def test_empty_value_among_others_keeps_its_place() -> None:
    assert values("LO", '"a",null,"","b"') == ["a", None, None, "b"]


def test_empty_name_groups_are_left_out() -> None:
    assert values("PN", '{"Alphabetic":"Fairweather","Ideographic":""},{}') == [
        {"Alphabetic": "Fairweather"},
        None,
    ]


def test_empty_item_stays() -> None:
    assert values("SQ", "{}") == [{}]


def test_bare_object_and_array_are_the_same() -> None:
    text = dicom_json.encode(full())
    assert dicom_json.decode(text) == dicom_json.decode(b"[" + text + b"]")


def test_tags_become_upper_case_and_ascending() -> None:
    assert list(read('{"0040a040":{"vr":"CS"},"00080018":{"vr":"UI"}}')) == ["00080018", "0040A040"]


def test_group_lengths_and_character_set_are_left_out() -> None:
    assert read('{"00080000":{"vr":"UL","Value":[3]},"00080005":{"vr":"CS","Value":["ISO_IR 100"]}}') == {}


def test_missing_vr_is_taken_from_the_dictionary() -> None:
    assert read('{"00741000":{"Value":["SCHEDULED"]}}') == {"00741000": element("CS", "SCHEDULED")}


def test_base64_with_line_breaks_is_taken() -> None:
    assert read('{"00091001":{"vr":"OB","InlineBinary":"AAEC\\nAwQF"}}')["00091001"] == {
        "vr": "OB",
        "InlineBinary": "AAECAwQF",
    }


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('{"Patient":{"vr":"LO"}}', None),
        ('{"00404018":{"vr":"SQ","Value":[{"code":{"vr":"LO"}}]}}', "00404018"),
        ('{"00100020":"HC-1"}', "00100020"),
        ('{"00100020":{"vr":"LO","BulkDataURI":"http://x/1"}}', "00100020"),
        ('{"00091001":{"Value":["x"]}}', "00091001"),
        ('{"00404018":{"vr":"SQ","Value":["x"]}}', "00404018"),
        ('{"0040a040":{"vr":"CS"},"0040A040":{"vr":"CS"}}', "0040A040"),
        (
            '{"00404018":{"vr":"SQ","Value":[{"00080104":{"vr":"LO","BulkDataURI":"x"}}]}}',
            "00404018.00080104",
        ),
    ],
)
def test_what_is_no_data_set_is_refused_with_its_path(text: str, path: str | None) -> None:
    with pytest.raises(UpsError) as refusal:
        dicom_json.decode(text.encode())
    assert (refusal.value.status.http, refusal.value.tag) == (400, path)


def test_ps3_7_c_a_refusal_names_all_that_cannot_be_read() -> None:
    body = b'{"Foo": 1, "00091001": {"Value": ["x"]}, "00404018": {"vr": "SQ", "Value": [{"Bar": 1, "00080100": 2}]}}'
    with pytest.raises(UpsError) as caught:
        dicom_json.decode(body)
    assert {fault.path for fault in caught.value.faults} == {"", "00091001", "00404018", "00404018.00080100"}
    assert all(word in caught.value.detail for word in ("'Foo'", "'Bar'", "(0009,1001)", "(0008,0100)"))


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[1]", b'"x"', b"7", b"null", b"\xff\xfe{}", b'{"a":NaN}', b"[" * 100_000, b'{"a":1,"a":2}',
     b'{"a":{"b":1,"b":2}}', b'{"a":"\xff"}', b"{}{}"],
)  # fmt: skip
def test_what_is_no_json_is_malformed(body: bytes) -> None:
    with pytest.raises(dicom_json.MalformedJson):
        dicom_json.decode(body)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_body_in_another_encoding_is_told_to_be_no_utf_8(encoding: str) -> None:
    with pytest.raises(dicom_json.MalformedJson, match=r"not UTF-8: byte [0-9]+"):
        dicom_json.decode('{"00100020":{"vr":"LO","Value":["Ü"]}}'.encode(encoding))


def nested(depth: int) -> bytes:
    return b'{"00400555":{"vr":"SQ","Value":[' * depth + b"{}" + b"]}}" * depth


def test_sequences_may_nest_as_deep_as_is_allowed_and_no_deeper() -> None:
    assert dicom_json.decode(nested(32), 32)
    with pytest.raises(UpsError, match="too deeply"):
        dicom_json.decode(nested(33), 32)


_NAMES = st.sampled_from(("vr", "Value", "InlineBinary", "00404018", "00101030", "00091001")) | st.text()
_SCALARS = st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
_ANY_JSON = st.recursive(
    _SCALARS, lambda inner: st.lists(inner) | st.dictionaries(_NAMES, inner), max_leaves=20
)


@given(_ANY_JSON)
def test_any_json_is_read_or_refused(content: object) -> None:
    try:
        dicom_json.decode(json.dumps(content, allow_nan=False).encode())
    except (UpsError, ValueError) as refusal:
        assert str(refusal)
