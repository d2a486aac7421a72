# SPDX-License-Identifier: AGPL-3.0-or-later
"""Data sets that are broken, too deep or too large are refused, whatever they are."""

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthanc_ups.codecs.encoded_values import undeclared
from orthanc_ups.core import statuses
from orthanc_ups.core.dataset import DataSet, element
from orthanc_ups.core.statuses import UpsError
from orthanc_ups.dimse.data_sets import DEFLATED, EXPLICIT, SYNTAXES, Bounds, Syntax, decode, encode
from tests.support import workitems
from tests.support.examples import examples

LATIN1 = undeclared("Latin1")


def decoded(encoded: bytes, syntax: Syntax = EXPLICIT, **bounds: Any) -> DataSet:
    return decode(encoded, syntax, Bounds(**bounds), 1_000_000, LATIN1)


def raw(tag: str, vr: str, value: bytes) -> bytes:
    """One element in Explicit VR Little Endian."""
    group, number = int(tag[:4], 16), int(tag[4:], 16)
    if vr in ("OB", "SQ", "UC", "UN", "UT"):
        return struct.pack("<HH2sHL", group, number, vr.encode(), 0, len(value)) + value
    return struct.pack("<HH2sH", group, number, vr.encode(), len(value)) + value


def item(content: bytes) -> bytes:
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(content)) + content


OPEN_SEQUENCE = struct.pack("<HH2sHL", 0x0040, 0x4018, b"SQ", 0, 0xFFFFFFFF)


NESTED_OPEN = OPEN_SEQUENCE + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)


BROKEN = {
    "header cut off": (raw("00100020", "LO", b"ID")[:5], statuses.PROCESSING_FAILURE, None),
    "long header cut off": (raw("0040A160", "UT", b"")[:10], statuses.PROCESSING_FAILURE, None),
    "value cut off": (raw("00100020", "LO", b"IDENTITY")[:-1], statuses.PROCESSING_FAILURE, "00100020"),
    "no vr": (raw("00100020", "LO", b"ID").replace(b"LO", b"\0\4"), statuses.PROCESSING_FAILURE, "00100020"),
    "twice": (raw("00100020", "LO", b"ID") * 2, statuses.PROCESSING_FAILURE, "00100020"),
    "stray delimiter": (struct.pack("<HHL", 0xFFFE, 0xE00D, 0), statuses.PROCESSING_FAILURE, "FFFEE00D"),
    "no items": (
        raw("00404018", "SQ", raw("00080100", "SH", b"A ")),
        statuses.PROCESSING_FAILURE,
        "00404018",
    ),
    "item too long": (
        raw("00404018", "SQ", struct.pack("<HHL", 0xFFFE, 0xE000, 99)),
        statuses.PROCESSING_FAILURE,
        "00404018",
    ),
    "item not ended": (NESTED_OPEN, statuses.PROCESSING_FAILURE, None),
    "sequence not ended": (
        OPEN_SEQUENCE + item(b""),
        statuses.PROCESSING_FAILURE,
        "00404018",
    ),
    "undefined length text": (
        struct.pack("<HH2sHL", 0x0040, 0xA160, b"UT", 0, 0xFFFFFFFF),
        statuses.PROCESSING_FAILURE,
        "0040A160",
    ),
    "half a number": (raw("00280010", "US", b"\1\2\3"), statuses.INVALID_VALUE, "00280010"),
    "half a tag": (raw("00280009", "AT", b"\1\2"), statuses.INVALID_VALUE, "00280009"),
    "code beyond ascii": (raw("00100040", "CS", b"M\xe9"), statuses.INVALID_VALUE, "00100040"),
    "four name groups": (raw("00100010", "PN", b"a=b=c=d "), statuses.INVALID_VALUE, "00100010"),
    "unknown character set": (raw("00080005", "CS", b"KLINGON "), statuses.INVALID_VALUE, "00080005"),
    "character set as a number": (raw("00080005", "US", b"\1\0"), statuses.INVALID_VALUE, "00080005"),
    "not utf-8": (
        raw("00080005", "CS", b"ISO_IR 192") + raw("00100020", "LO", b"\xff\xfe"),
        statuses.INVALID_VALUE,
        "00100020",
    ),
    "broken iso 2022": (
        raw("00080005", "CS", b"\\ISO 2022 IR 87") + raw("00100020", "LO", b"\x1b$B\xff\xff\xff"),
        statuses.INVALID_VALUE,
        "00100020",
    ),
    "in an item": (
        raw("00404018", "SQ", item(raw("00280010", "US", b"\1"))),
        statuses.INVALID_VALUE,
        "00404018.00280010",
    ),
}


@pytest.mark.parametrize(("encoded", "status", "tag"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_data_set_is_refused(encoded: bytes, status: statuses.Status, tag: str | None) -> None:
    with pytest.raises(UpsError) as refused:
        decoded(encoded)
    assert (refused.value.status, refused.value.tag) == (status, tag)


@pytest.mark.parametrize("depth", [1, 32, 200])
def test_nesting_is_bounded_and_the_bound_itself_is_reached(depth: int) -> None:
    dataset: DataSet = {"00100020": element("LO", "ID")}
    for _ in range(depth):
        dataset = {"00404018": element("SQ", dataset)}
    for syntax in SYNTAXES.values():
        encoded = encode(dataset, syntax)
        assert decoded(encoded, syntax, nesting=depth) == dataset
        with pytest.raises(UpsError) as refused:
            decoded(encoded, syntax, nesting=depth - 1)
        assert refused.value.status is statuses.INVALID_VALUE
        assert refused.value.tag is not None and refused.value.tag.endswith("00404018")


def test_a_hundred_thousand_open_items_are_refused_at_the_bound() -> None:
    with pytest.raises(UpsError) as refused:
        decoded(NESTED_OPEN * 50_000)
    assert refused.value.status is statuses.INVALID_VALUE


def test_the_number_of_elements_is_bounded() -> None:
    items = item(raw("00080100", "SH", b"A ")) * 100
    assert decoded(raw("00404018", "SQ", items), parts=201)
    with pytest.raises(UpsError) as refused:
        decoded(raw("00404018", "SQ", items), parts=200)
    assert refused.value.status is statuses.RESOURCE_LIMITATION


def test_the_number_of_values_is_bounded() -> None:
    with pytest.raises(UpsError) as refused:
        decoded(raw("00189908", "UC", b"\\" * 200_000))
    assert (refused.value.status, refused.value.tag) == (statuses.RESOURCE_LIMITATION, "00189908")


def test_a_deflated_bomb_is_refused_before_it_is_inflated() -> None:
    bomb = encode({"0040A160": element("UT", "x" * 50_000_000)}, DEFLATED)
    assert len(bomb) < 100_000
    with pytest.raises(UpsError) as refused:
        decode(bomb, DEFLATED, Bounds(), 1_000_000, LATIN1)
    assert refused.value.status is statuses.RESOURCE_LIMITATION


@pytest.mark.parametrize("cut", [3, 20])
def test_a_deflated_data_set_that_is_cut_off_is_refused(cut: int) -> None:
    with pytest.raises(UpsError) as refused:
        decoded(encode(workitems.full(), DEFLATED)[:-cut], DEFLATED)
    assert refused.value.status is statuses.PROCESSING_FAILURE


@given(st.binary(max_size=200), st.sampled_from(list(SYNTAXES.values())))
@settings(max_examples=examples(80))
@pytest.mark.filterwarnings("ignore")
def test_any_bytes_are_decoded_or_refused(encoded: bytes, syntax: Syntax) -> None:
    try:
        decoded(encoded, syntax)
    except UpsError as refused:
        assert refused.status in (
            statuses.PROCESSING_FAILURE,
            statuses.INVALID_VALUE,
            statuses.RESOURCE_LIMITATION,
        )


@given(st.data(), st.sampled_from(list(SYNTAXES.values())))
@settings(max_examples=examples(80))
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_workitem_is_decoded_or_refused(data: st.DataObject, syntax: Syntax) -> None:
    encoded = bytearray(encode(workitems.full("japanese"), syntax))
    for _ in range(data.draw(st.integers(1, 4))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    del encoded[data.draw(st.integers(0, len(encoded))) :]
    try:
        decoded(bytes(encoded), syntax)
    except UpsError as refused:
        assert refused.detail
