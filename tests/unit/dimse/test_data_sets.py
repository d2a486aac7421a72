# SPDX-License-Identifier: AGPL-3.0-or-later
"""Data sets on the DIMSE wire, held against pydicom: nothing is lost."""

import base64
import math
import struct
import warnings
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, Sequence
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset

from orthanc_ups.codecs.encoded_values import undeclared
from orthanc_ups.core.dataset import BINARY_VRS, DataSet, element
from orthanc_ups.dimse.data_sets import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    SYNTAXES,
    Bounds,
    Syntax,
    decode,
    encode,
)
from tests.support import workitems
from tests.support.examples import examples

LATIN1 = undeclared("Latin1")


UNCOMPRESSED = [IMPLICIT, EXPLICIT, BIG_ENDIAN]


def decoded(encoded: bytes, syntax: Syntax = EXPLICIT, **bounds: Any) -> DataSet:
    return decode(encoded, syntax, Bounds(**bounds), 1_000_000, LATIN1)


LINE = st.text(
    st.characters(min_codepoint=0x20, exclude_characters="\\\x7f", exclude_categories=["Cs", "Cc"]),
    max_size=12,
)


WORD = LINE.map(lambda line: line.rstrip() + "x")


PLAIN = st.text("ABCXYZ0123456789_", min_size=1, max_size=12)


GROUP = LINE.map(lambda group: group.replace("=", "").rstrip())


def _name(groups: tuple[str, str, str]) -> dict[str, str] | None:
    by_group = dict(zip(("Alphabetic", "Ideographic", "Phonetic"), groups, strict=True))
    return {name: group for name, group in by_group.items() if group} or None


def _float(value: float) -> float | str:
    return (
        value
        if math.isfinite(value)
        else "NaN"
        if math.isnan(value)
        else f"{value}".replace("inf", "Infinity")
    )


def _whole(bits: int, signed: bool) -> st.SearchStrategy[int]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else st.integers(0, 2**bits - 1)


ONE_VALUE: dict[str, st.SearchStrategy[Any]] = {
    "AE": PLAIN,
    "AS": st.just("042Y"),
    "AT": st.integers(0, 2**32 - 1).map("{:08X}".format),
    "CS": PLAIN,
    "DA": st.sampled_from(["20261122", "19730228"]),
    "DS": st.sampled_from(["1.50", "-0", "1e-7", "71.50", "+3"]),
    "DT": st.sampled_from(["20261122183000.000000+0100", "2026"]),
    "FD": st.floats().map(_float),
    "FL": st.floats(width=32).map(_float),
    "IS": st.sampled_from(["0", "-12", "007"]),
    "LO": WORD,
    "LT": WORD.map(lambda word: word + "\r\n\\" + word),
    "PN": st.tuples(WORD.map(lambda word: word.replace("=", "")), GROUP, GROUP).map(_name),
    "SH": WORD,
    "SL": _whole(32, signed=True),
    "SS": _whole(16, signed=True),
    "ST": WORD.map(lambda word: word + "\\" + word),
    "SV": _whole(64, signed=True),
    "TM": st.sampled_from(["183000.123456", "18"]),
    "UC": WORD,
    "UI": st.sampled_from(["1.2.840.10008.1.1", "2.25.1"]),
    "UL": _whole(32, signed=False),
    "UR": st.sampled_from(["https://example.org/a?b=c", "tel:+49-40-0"]),
    "US": _whole(16, signed=False),
    "UT": WORD,
    "UV": _whole(64, signed=False),
}


SINGLE = {"LT", "ST", "UR", "UT"}


WORDS = {"OB": 2, "OD": 8, "OF": 4, "OL": 4, "OV": 8, "OW": 2, "UN": 2}


# One public attribute of each VR, so that Implicit VR knows it too.
TAGS = {
    "AE": "00400001", "AS": "00101010", "AT": "00280009", "CS": "00100040", "DA": "00100030",
    "DS": "00101030", "DT": "00404005", "FD": "00189073", "FL": "00089459", "IS": "00200013",
    "LO": "00100020", "LT": "00104000", "OB": "00282000", "OD": "00701A08", "OF": "00640009",
    "OL": "00660129", "OV": "00187001", "OW": "00281201", "PN": "00100010", "SH": "00080050",
    "SL": "00186020", "SQ": "00404018", "SS": "00189219", "ST": "00080081", "SV": "00720082",
    "TM": "00100032", "UC": "00189908", "UI": "0020000D", "UL": "00186016", "UR": "0074100A",
    "US": "00280010", "UT": "0040A160", "UV": "00720083",
}  # fmt: skip


def _values(vr: str) -> st.SearchStrategy[dict[str, Any]]:
    if vr in BINARY_VRS:
        whole = st.binary(max_size=4).map(lambda octets: octets * WORDS[vr])
        return whole.map(
            lambda octets: (
                {"vr": vr, "InlineBinary": base64.b64encode(octets).decode()} if octets else {"vr": vr}
            )
        )
    longest = 1 if vr in SINGLE else 3
    return st.lists(ONE_VALUE[vr], max_size=longest).map(lambda values: element(vr, *values))


PUBLIC = st.sampled_from(sorted(TAGS.keys() - {"SQ", "OD", "OV"})).flatmap(
    lambda vr: st.tuples(st.just(TAGS[vr]), _values(vr))
)


PRIVATE = st.sampled_from(sorted(ONE_VALUE.keys() | WORDS.keys())).flatmap(
    lambda vr: st.tuples(st.integers(0, 255).map("001110{:02X}".format), _values(vr))
)


def _data_sets(elements: st.SearchStrategy[tuple[str, Any]]) -> st.SearchStrategy[DataSet]:
    flat = st.lists(elements, max_size=6).map(lambda pairs: dict(sorted(dict(pairs).items())))
    return st.recursive(
        flat,
        lambda inner: st.tuples(flat, st.lists(inner, max_size=2)).map(
            lambda pair: dict(sorted({**pair[0], TAGS["SQ"]: element("SQ", *pair[1])}.items()))
        ),
        max_leaves=6,
    )


PUBLIC_DATA_SETS = _data_sets(PUBLIC)


ANY_DATA_SETS = _data_sets(st.one_of(PUBLIC, PRIVATE))


def as_pydicom_json(dataset: DataSet) -> dict[str, Any]:
    """The inner form as pydicom would write it: numbers for DS and IS."""
    return {tag: _pydicom_element(attribute) for tag, attribute in dataset.items()}


def _pydicom_element(attribute: dict[str, Any]) -> dict[str, Any]:
    vr = attribute["vr"]
    if vr == "SQ":
        return {"vr": vr, "Value": [as_pydicom_json(item) for item in attribute.get("Value", [])]}
    if "Value" not in attribute:
        return dict(attribute)
    if vr not in ("DS", "IS"):
        return attribute
    return {"vr": vr, "Value": [float(value) if vr == "DS" else int(value) for value in attribute["Value"]]}


def pydicom_json(encoded: bytes, syntax: Syntax) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom doubts some of the made-up values
        result = read_dataset(BytesIO(encoded), not syntax.explicit, syntax.order == "<")
        return _comparable(
            {tag: attribute for tag, attribute in result.to_json_dict().items() if tag != "00080005"}
        )


def _comparable(dataset: dict[str, Any]) -> dict[str, Any]:
    for attribute in dataset.values():
        if attribute["vr"] == "SQ":
            attribute["Value"] = [_comparable(item) for item in attribute.get("Value", [])]
        elif attribute["vr"] in ("FL", "FD") and "Value" in attribute:
            attribute["Value"] = [_float(number) for number in attribute["Value"]]
        elif attribute["vr"] == "PN" and "Value" in attribute:
            attribute["Value"] = [_name((*(name or {}).values(), "", "")[:3]) for name in attribute["Value"]]
        elif attribute["vr"] == "AT" and "Value" in attribute:
            attribute["Value"] = [f"{int(tag, 16):08X}" for tag in attribute["Value"]]
        if attribute.get("InlineBinary") == "":
            del attribute["InlineBinary"]
    return dataset


@given(ANY_DATA_SETS)
@settings(max_examples=examples())
def test_round_trip_in_explicit_syntaxes_loses_nothing(dataset: DataSet) -> None:
    for syntax in (EXPLICIT, BIG_ENDIAN, DEFLATED):
        assert decoded(encode(dataset, syntax), syntax) == dataset


@given(PUBLIC_DATA_SETS)
@settings(max_examples=examples())
def test_round_trip_in_implicit_vr_loses_nothing(dataset: DataSet) -> None:
    assert decoded(encode(dataset, IMPLICIT), IMPLICIT) == dataset


@given(PUBLIC_DATA_SETS, st.sampled_from([IMPLICIT, EXPLICIT]))
@settings(max_examples=examples())
def test_pydicom_reads_what_is_encoded(dataset: DataSet, syntax: Syntax) -> None:
    assert pydicom_json(encode(dataset, syntax), syntax) == as_pydicom_json(dataset)


@given(PUBLIC_DATA_SETS, st.sampled_from([IMPLICIT, EXPLICIT]), st.booleans())
@settings(max_examples=examples())
def test_what_pydicom_writes_is_decoded(dataset: DataSet, syntax: Syntax, open_ended: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = read_dataset(BytesIO(encode(dataset, EXPLICIT)), False, True)
        _touch(theirs, open_ended)
        file = DicomBytesIO()
        file.is_implicit_VR, file.is_little_endian = not syntax.explicit, True
        write_dataset(file, theirs)
    assert decoded(file.getvalue(), syntax) == dataset


def _touch(dataset: Dataset, open_ended: bool) -> None:
    """Make pydicom decode every value, so that it writes them anew, with or without defined lengths."""
    for attribute in dataset:
        if attribute.VR == "SQ":
            attribute.is_undefined_length = open_ended
            for item in attribute.value:
                item.is_undefined_length_sequence_item = open_ended
                _touch(item, open_ended)


@pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=lambda syntax: syntax.uid)
@pytest.mark.parametrize("who", workitems.PEOPLE)
def test_a_full_workitem_comes_back(syntax: Syntax, who: str) -> None:
    assert decoded(encode(workitems.full(who), syntax), syntax) == workitems.full(who)


def raw(tag: str, vr: str, value: bytes) -> bytes:
    """One element in Explicit VR Little Endian."""
    group, number = int(tag[:4], 16), int(tag[4:], 16)
    if vr in ("OB", "SQ", "UC", "UN", "UT"):
        return struct.pack("<HH2sHL", group, number, vr.encode(), 0, len(value)) + value
    return struct.pack("<HH2sH", group, number, vr.encode(), len(value)) + value


def item(content: bytes) -> bytes:
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(content)) + content


def test_decimal_and_integer_strings_keep_their_text() -> None:
    encoded = raw("00101030", "DS", b"1.50\\ -0 ") + raw("00200013", "IS", b"+007")
    assert decoded(encoded) == {"00101030": element("DS", "1.50", "-0"), "00200013": element("IS", "+007")}


def test_an_empty_value_among_others_is_none_and_comes_back() -> None:
    dataset = {
        "00102000": element("LO", "a", None, "b"),
        "00100010": element("PN", None, {"Ideographic": "王"}),
    }
    assert decoded(encode(dataset, EXPLICIT)) == dataset


@pytest.mark.parametrize("padding", [b"", b"  ", b"\0\0"])
def test_nothing_but_padding_is_no_value(padding: bytes) -> None:
    assert decoded(raw("00100020", "LO", padding)) == {"00100020": {"vr": "LO"}}


def test_an_empty_sequence_and_an_empty_item_differ() -> None:
    encoded = raw("00404018", "SQ", b"") + raw("00404021", "SQ", item(b""))
    assert decoded(encoded) == {"00404018": {"vr": "SQ"}, "00404021": {"vr": "SQ", "Value": [{}]}}


def test_group_lengths_and_trailing_padding_are_left_out() -> None:
    encoded = (
        raw("00080000", "UL", b"\x0a\0\0\0") + raw("00100020", "LO", b"e ") + raw("FFFCFFFC", "OB", b"\0\0")
    )
    assert decoded(encoded) == {"00100020": element("LO", "e")}


def test_private_elements_in_implicit_vr_are_un_and_their_creators_lo() -> None:
    private = {"00110010": element("LO", "HARBOUR"), "00111001": {"vr": "UN", "InlineBinary": "AQI="}}
    assert decoded(encode(private, IMPLICIT), IMPLICIT) == private


def test_ps3_5_6_2_2_un_of_a_known_attribute_is_read_as_its_vr() -> None:
    inner = encode({"00080100": element("SH", "110005")}, IMPLICIT)
    encoded = raw("00100020", "UN", b"ID") + raw("00404018", "UN", item(inner))
    assert decoded(encoded) == {
        "00100020": element("LO", "ID"),
        "00404018": element("SQ", {"00080100": element("SH", "110005")}),
    }


def test_ps3_5_6_2_2_a_value_too_long_for_16_bits_goes_as_un() -> None:
    dataset = {"00102000": element("LO", *["long value " * 5 + str(number) for number in range(2000)])}
    for syntax in UNCOMPRESSED:
        assert decoded(encode(dataset, syntax), syntax) == dataset


def test_a_vr_of_a_later_edition_is_un() -> None:
    encoded = struct.pack("<HH2sHL", 0x0011, 0x1001, b"ZZ", 0, 2) + b"\1\2"
    assert decoded(encoded) == {"00111001": {"vr": "UN", "InlineBinary": "AQI="}}


def test_big_endian_words_become_little_endian() -> None:
    encoded = struct.pack(">HH2sHL", 0x0028, 0x1201, b"OW", 0, 4) + b"\1\2\3\4"
    assert decoded(encoded, BIG_ENDIAN) == {
        "00281201": {"vr": "OW", "InlineBinary": base64.b64encode(b"\2\1\4\3").decode()}
    }


def test_elements_out_of_order_are_put_in_order() -> None:
    encoded = raw("00100020", "LO", b"e ") + raw("00080050", "SH", b"A ")
    assert list(decoded(encoded)) == ["00080050", "00100020"]


def test_sequences_of_pydicom_with_undefined_lengths_are_read() -> None:
    dataset = Dataset()
    code = Dataset()
    code.CodeValue = "110005"
    code.is_undefined_length_sequence_item = True
    dataset.ScheduledWorkitemCodeSequence = Sequence([code])
    dataset["ScheduledWorkitemCodeSequence"].is_undefined_length = True
    file = DicomBytesIO()
    file.is_implicit_VR, file.is_little_endian = True, True
    write_dataset(file, dataset)
    assert file.getvalue().endswith(struct.pack("<HHL", 0xFFFE, 0xE0DD, 0))
    assert decoded(file.getvalue(), IMPLICIT) == {
        "00404018": element("SQ", {"00080100": element("SH", "110005")})
    }
