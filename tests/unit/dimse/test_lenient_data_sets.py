# SPDX-License-Identifier: AGPL-3.0-or-later
"""Encodings of well-meaning peers that deviate from PS3.5 are accepted, and each correction is named."""

import base64
import struct
import zlib

import pytest

from orthanc_ups.codecs.corrections import Corrections
from orthanc_ups.codecs.encoded_values import undeclared
from orthanc_ups.core import tags
from orthanc_ups.core.commands import Create, Update
from orthanc_ups.core.dataset import DataSet, element
from orthanc_ups.core.statuses import UpsError
from orthanc_ups.dimse.data_sets import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    Bounds,
    Syntax,
    decode,
    encode,
)
from orthanc_ups.dimse.message import STATUS, CommandField
from tests.support import workitems
from tests.support.dimse_server import DimseRig
from tests.support.raw_dimse import RawPeer, find, operation

LATIN1 = undeclared("Latin1")
UID = workitems.uid(1)


def read(encoded: bytes, syntax: Syntax = EXPLICIT) -> tuple[DataSet, tuple[str, ...]]:
    corrections = Corrections()
    dataset = decode(encoded, syntax, Bounds(), 1_000_000, LATIN1, corrections)
    return dataset, corrections.sentences


def raw(tag: str, vr: str, value: bytes) -> bytes:
    """One element in Explicit VR Little Endian."""
    group, number = int(tag[:4], 16), int(tag[4:], 16)
    if vr in ("OB", "SQ", "UC", "UN", "UT"):
        return struct.pack("<HH2sHL", group, number, vr.encode(), 0, len(value)) + value
    return struct.pack("<HH2sH", group, number, vr.encode(), len(value)) + value


def implicit(tag: str, value: bytes) -> bytes:
    """One element in Implicit VR Little Endian."""
    return struct.pack("<HHL", int(tag[:4], 16), int(tag[4:], 16), len(value)) + value


def test_nothing_is_noted_of_a_data_set_as_it_should_be() -> None:
    for who in ("plain", "japanese", "greek"):
        for syntax in (EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED):
            workitem = workitems.full(who)
            assert read(encode(workitem, syntax), syntax) == (workitem, ())


def test_ps3_5_6_2_2_un_of_a_known_tag_is_what_the_dictionary_says() -> None:
    dataset, sentences = read(raw("00100020", "UN", b"EX-1") + raw("00404018", "UN", b""))
    assert dataset == {"00100020": element("LO", "EX-1"), "00404018": {"vr": "SQ"}}
    assert sentences == ()


@pytest.mark.parametrize(
    ("encoded", "syntax", "words"),
    [
        (encode(workitems.minimal(), IMPLICIT), EXPLICIT, "Implicit VR"),
        (encode(workitems.minimal(), EXPLICIT), IMPLICIT, "Explicit VR"),
    ],
    ids=["implicit", "explicit"],
)
def test_a_data_set_in_the_other_syntax_than_negotiated(encoded: bytes, syntax: Syntax, words: str) -> None:
    dataset, sentences = read(encoded, syntax)
    assert dataset == workitems.minimal()
    assert sentences == (f"the data set came in {words} Little Endian, which is not what was negotiated",)
    with pytest.raises(UpsError):
        decode(encoded, syntax, Bounds(), 1_000_000, LATIN1)


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT], ids=["explicit", "implicit"])
def test_ps3_10_7_1_the_head_of_a_file_is_left_out(syntax: Syntax) -> None:
    meta = raw("00020001", "OB", b"\0\1") + raw(
        "00020010", "UI", (syntax.uid + "\0" * (len(syntax.uid) % 2)).encode()
    )
    file = bytes(128) + b"DICM" + raw("00020000", "UL", struct.pack("<L", len(meta))) + meta
    dataset, sentences = read(file + encode(workitems.minimal(), syntax), EXPLICIT)
    assert dataset == workitems.minimal()
    assert sentences == ("the data set came with the head of a DICOM file, which was left out",)


@pytest.mark.parametrize("cut", [0, 3, 9, 20])
def test_the_head_of_a_file_that_is_cut_off_is_refused_or_empty(cut: int) -> None:
    meta = raw("00020010", "UI", b"1.2.840.10008.1.2.1\0")
    try:
        dataset, _ = read((bytes(128) + b"DICM" + meta)[: 132 + cut])
    except UpsError:
        return
    assert dataset == {}


def test_zeros_behind_the_data_set_and_odd_lengths_are_passed_over() -> None:
    assert read(raw("00100020", "LO", b"EX1") + bytes(64)) == ({"00100020": element("LO", "EX1")}, ())


def test_text_without_a_character_set_is_named() -> None:
    dataset, sentences = read(raw("00100020", "LO", "Zoë ".encode("latin_1")))
    assert dataset == {"00100020": element("LO", "Zoë")}
    assert sentences == (
        "text without Specific Character Set (0008,0005) was read as latin_1 (DefaultEncoding)",
    )


# --- private text of an Implicit VR peer ---


def private(charset: bytes, value: bytes) -> tuple[bytes, tuple[str, ...]]:
    creator = implicit("00110010", b"SOMEBODY")
    dataset, sentences = read(implicit("00080005", charset) + creator + implicit("00111001", value), IMPLICIT)
    assert dataset["00111001"]["vr"] == "UN"
    return base64.b64decode(dataset["00111001"]["InlineBinary"]), sentences


@pytest.mark.parametrize(
    ("charset", "encoding", "text"),
    [
        (b"ISO_IR 100", "latin_1", "Zoë war hier"),
        (b"ISO_IR 126", "iso8859_7", "Ελλάδα"),
        (b"ISO_IR 144", "iso8859_5", "Дом, 3"),
        (b"GB18030 ", "gb18030", "王小东"),
    ],
)
def test_ps3_5_6_1_2_private_text_goes_back_in_the_character_set_that_is_declared(
    charset: bytes, encoding: str, text: str
) -> None:
    value, sentences = private(charset, text.encode(encoding))
    assert value.decode("utf-8").rstrip(" ") == text
    assert sentences == ("(0011,1001) holds text, which is UTF-8 now",)


@pytest.mark.parametrize(
    "value",
    [
        struct.pack("<d", 1.5),
        struct.pack("<f", -0.1),
        struct.pack("<3f", -0.1, -6.4, -6.4),
        struct.pack("<L", 0xE9),
        b"\xe9\x41",
        bytes(range(256)),
        b"\x00\xe9\x41\x42",
        b"plain text",
    ],
)
def test_private_bytes_that_are_no_text_stay_as_they_are(value: bytes) -> None:
    assert private(b"ISO_IR 100", value) == (value, ())


def test_ps3_5_6_2_2_a_private_sequence_of_unknown_vr_is_one() -> None:
    inside = implicit("00080104", "Zoë ".encode("latin_1")) + implicit("00110010", b"SOMEBODY")
    item = struct.pack("<HHL", 0xFFFE, 0xE000, len(inside)) + inside
    head = implicit("00080005", b"ISO_IR 100") + implicit("00110010", b"SOMEBODY")
    dataset, sentences = read(head + implicit("00111001", item * 2), IMPLICIT)
    expected = {"00080104": element("LO", "Zoë"), "00110010": element("LO", "SOMEBODY")}
    assert dataset["00111001"] == element("SQ", expected, expected)
    assert sentences == ("(0011,1001) holds items, so its VR is SQ now",)
    cut = head + implicit("00111001", item[:-3])
    assert read(cut, IMPLICIT)[0]["00111001"]["vr"] == "UN"


def test_ps3_5_a_5_a_deflated_data_set_with_the_header_of_zlib_is_taken() -> None:
    encoded = zlib.compress(encode(workitems.minimal(), EXPLICIT))
    assert read(encoded, DEFLATED) == (workitems.minimal(), ())


def test_private_text_in_utf_8_stays_as_it_is() -> None:
    assert private(b"ISO_IR 192", "Zoë ".encode()) == ("Zoë ".encode(), ())


# --- the whole way ---


GROUP_0 = raw("00000002", "UI", b"1.2.840.10008.5.1.4.34.6.1") + raw("00001000", "UI", b"2.25.1")


def test_corrections_go_with_create_and_update() -> None:
    weight = raw("00101030", "DS", b"70.12345678901235 ") + raw("00111001", "UT", b"\xe9 ")
    with DimseRig() as rig, RawPeer(rig.port, tags.PUSH) as peer:
        assert peer.ask(operation(CommandField.N_CREATE, UID), weight).number(STATUS) == 0
        with RawPeer(rig.port, tags.PULL) as second:
            assert second.ask(operation(CommandField.N_SET, UID), weight).number(STATUS) == 0
        created, updated = rig.worklist.commands
    assert isinstance(created, Create)
    assert isinstance(updated, Update)
    assert created.attributes["00101030"] == element("DS", "70.12345678901235")  # for the rules to round
    sentence = "text without Specific Character Set (0008,0005) was read as latin_1 (DefaultEncoding)"
    assert created.corrections == updated.corrections == (sentence,)


def test_elements_of_the_command_set_within_the_data_set_reach_the_rules_which_drop_them() -> None:
    with DimseRig() as rig, RawPeer(rig.port, tags.PULL) as peer:
        state = raw("00741000", "CS", b"IN PROGRESS ")
        transaction = raw("00081195", "UI", b"2.25.77\0")
        assert peer.ask(operation(CommandField.N_SET, UID), GROUP_0).number(STATUS) == 0
        answer = peer.ask(operation(CommandField.N_ACTION, UID, action=1), GROUP_0 + transaction + state)
        assert answer.number(STATUS) == 0
        assert peer.ask(find(), GROUP_0 + raw("00741000", "CS", b"SCHEDULED ")).number(STATUS) == 0
        (updated, _), (query,) = rig.worklist.commands, rig.worklist.queries
    assert isinstance(updated, Update)
    assert set(updated.attributes) == {"00000002", "00001000"}
    assert not query.unsupported
