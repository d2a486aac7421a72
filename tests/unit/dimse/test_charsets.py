# SPDX-License-Identifier: AGPL-3.0-or-later
"""Text on the DIMSE wire: every character set in, UTF-8 out (PS3.5 §6.1.2)."""

import struct
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from orthanc_ups.codecs.encoded_values import undeclared
from orthanc_ups.core.dataset import DataSet, element
from orthanc_ups.dimse.data_sets import BIG_ENDIAN, EXPLICIT, IMPLICIT, Bounds, Syntax, decode, encode

LATIN1 = undeclared("Latin1")


UNCOMPRESSED = [IMPLICIT, EXPLICIT, BIG_ENDIAN]


def decoded(encoded: bytes, syntax: Syntax = EXPLICIT, **bounds: Any) -> DataSet:
    return decode(encoded, syntax, Bounds(**bounds), 1_000_000, LATIN1)


NAMES = [
    ("ISO_IR 100", "Ångström^Zoë", {"Alphabetic": "Ångström^Zoë"}),
    ("ISO_IR 101", "Łuczak^Paweł", {"Alphabetic": "Łuczak^Paweł"}),
    ("ISO_IR 126", "Διονυσιος", {"Alphabetic": "Διονυσιος"}),
    ("ISO_IR 127", "قباني^لنزار", {"Alphabetic": "قباني^لنزار"}),
    ("ISO_IR 138", "שרון^דבורה", {"Alphabetic": "שרון^דבורה"}),
    ("ISO_IR 144", "Люкceмбypг", {"Alphabetic": "Люкceмбypг"}),
    ("ISO_IR 148", "Çavuşoğlu", {"Alphabetic": "Çavuşoğlu"}),
    ("ISO_IR 166", "นามสกุล", {"Alphabetic": "นามสกุล"}),
    ("ISO_IR 13", "ﾔﾏﾀﾞ^ﾀﾛｳ", {"Alphabetic": "ﾔﾏﾀﾞ^ﾀﾛｳ"}),
    ("ISO_IR 192", "Wang^XiaoDong=王^小东", {"Alphabetic": "Wang^XiaoDong", "Ideographic": "王^小东"}),
    ("GB18030", "Wang^XiaoDong=王^小东", {"Alphabetic": "Wang^XiaoDong", "Ideographic": "王^小东"}),
    ("GBK", "Wang^XiaoDong=王^小东", {"Alphabetic": "Wang^XiaoDong", "Ideographic": "王^小东"}),
    (
        "\\ISO 2022 IR 87",
        "Yamada^Tarou=山田^太郎=やまだ^たろう",
        {"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"},
    ),
    (
        "ISO 2022 IR 13\\ISO 2022 IR 87",
        "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
        {"Alphabetic": "ﾔﾏﾀﾞ^ﾀﾛｳ", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"},
    ),
    (
        "\\ISO 2022 IR 149",
        "Hong^Gildong=洪^吉洞=홍^길동",
        {"Alphabetic": "Hong^Gildong", "Ideographic": "洪^吉洞", "Phonetic": "홍^길동"},
    ),
]


@pytest.mark.parametrize("syntax", UNCOMPRESSED, ids=lambda syntax: syntax.uid)
@pytest.mark.parametrize(("charset", "name", "expected"), NAMES, ids=[name[0] for name in NAMES])
def test_ps3_5_6_1_2_every_character_set_becomes_unicode(
    charset: str, name: str, expected: dict[str, str], syntax: Syntax
) -> None:
    dataset = decoded(written_by_pydicom(charset, name, syntax), syntax)
    assert dataset == {"00100010": element("PN", expected)}


def written_by_pydicom(charset: str, name: str, syntax: Syntax) -> bytes:
    dataset = Dataset()
    dataset.SpecificCharacterSet = charset.split("\\") if "\\" in charset else charset
    dataset.PatientName = name
    file = DicomBytesIO()
    file.is_implicit_VR, file.is_little_endian = not syntax.explicit, syntax.order == "<"
    write_dataset(file, dataset)
    return file.getvalue()


def raw(tag: str, vr: str, value: bytes) -> bytes:
    """One element in Explicit VR Little Endian."""
    group, number = int(tag[:4], 16), int(tag[4:], 16)
    if vr in ("OB", "SQ", "UC", "UN", "UT"):
        return struct.pack("<HH2sHL", group, number, vr.encode(), 0, len(value)) + value
    return struct.pack("<HH2sH", group, number, vr.encode(), len(value)) + value


def item(content: bytes) -> bytes:
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(content)) + content


def test_ps3_5_annex_k_chinese_names_in_iso_2022_ir_58() -> None:
    value = b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab="
    encoded = raw("00080005", "CS", b"\\ISO 2022 IR 58 ") + raw("00100010", "PN", value)
    expected = {"Alphabetic": "Zhang^XiaoDong", "Ideographic": "张^小东"}
    assert decoded(encoded) == {"00100010": element("PN", expected)}


def test_ps3_5_annex_k_several_lines_in_iso_2022_ir_58() -> None:
    value = b"First\r\n\x1b$)A\xd5\xc5\r\nLast \x1b$)A\xb6\xab"
    encoded = raw("00080005", "CS", b"\\ISO 2022 IR 58 ") + raw("00104000", "LT", value)
    assert decoded(encoded) == {"00104000": element("LT", "First\r\n张\r\nLast 东")}


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        (b"ISO_IR 203", "Œuvre^Šárka".encode("iso8859_15")),
        (b"ISO 2022 IR 203\\ISO 2022 IR 87 ", "Œuvre^Šárka".encode("iso8859_15")),
        (
            b"\\ISO 2022 IR 203",
            b"\x1b-b" + "Œuvre".encode("iso8859_15") + b"^\x1b-b" + "Šárka".encode("iso8859_15"),
        ),
    ],
    ids=["alone", "first", "extension"],
)
def test_ps3_3_c_12_1_1_2_latin_9_is_a_character_set(declared: bytes, value: bytes) -> None:
    encoded = raw("00080005", "CS", declared) + raw("00100010", "PN", value)
    assert decoded(encoded) == {"00100010": element("PN", {"Alphabetic": "Œuvre^Šárka"})}


def test_a_backslash_within_a_multi_byte_character_is_no_delimiter() -> None:
    name = "表^功".encode("gb18030") + "诶".encode("gb18030")
    assert b"\\" in "俓".encode("gbk")
    encoded = (
        raw("00080005", "CS", b"GBK ")
        + raw("00100020", "LO", "俓俓".encode("gbk"))
        + raw("00104000", "LT", name)
    )
    assert decoded(encoded)["00100020"] == element("LO", "俓俓")


def test_iso_2022_goes_back_to_the_first_encoding_behind_a_backslash() -> None:
    value = b"\x1b-L" + "Дом".encode("iso8859_5") + b"\\" + "né".encode("latin_1")
    encoded = raw("00080005", "CS", b"ISO 2022 IR 100\\ISO 2022 IR 144 ") + raw("00102000", "LO", value)
    assert decoded(encoded)["00102000"] == element("LO", "Дом", "né")


def test_ps3_5_7_5_3_an_item_inherits_the_character_set_or_has_its_own() -> None:
    inherited = item(raw("00080104", "LO", "Ελλάδα".encode("iso8859_7")))
    own = item(raw("00080005", "CS", b"ISO_IR 144") + raw("00080104", "LO", "Дом ".encode("iso8859_5")))
    encoded = raw("00080005", "CS", b"ISO_IR 126") + raw("00404018", "SQ", inherited + own + inherited)
    greek = {"00080104": element("LO", "Ελλάδα")}
    assert decoded(encoded)["00404018"] == element("SQ", greek, {"00080104": element("LO", "Дом")}, greek)


@pytest.mark.parametrize(
    ("name", "encoding"), [("Latin1", "latin_1"), ("Greek", "iso8859_7"), ("Utf8", "utf_8")]
)
def test_undeclared_text_is_taken_for_the_default_encoding_of_orthanc(name: str, encoding: str) -> None:
    text = "é" if name == "Latin1" else "Ω"
    encoded = raw("00100020", "LO", text.encode(encoding))
    assert decode(encoded, EXPLICIT, Bounds(), 1000, undeclared(name)) == {"00100020": element("LO", text)}


@pytest.mark.parametrize("term", ["ISO_IR_100", "ISO-IR 100", "ISO 2022 IR 100", "iso_ir 100", "ISO_IR100"])
def test_widely_seen_misspellings_of_character_sets_are_understood(term: str) -> None:
    encoded = raw("00080005", "CS", term.encode()) + raw("00100020", "LO", b"\xe9")
    assert decoded(encoded) == {"00100020": element("LO", "é")}


def test_text_beyond_ascii_goes_out_as_utf_8_with_its_name_once() -> None:
    encoded = encode({"00100020": element("LO", "é"), "00080001": element("UL", 1)}, EXPLICIT)
    assert encoded == (
        raw("00080001", "UL", b"\1\0\0\0")
        + raw("00080005", "CS", b"ISO_IR 192")
        + raw("00100020", "LO", "é".encode())
    )


def test_ascii_goes_out_without_character_set() -> None:
    assert encode({"00100020": element("LO", "e")}, EXPLICIT) == raw("00100020", "LO", b"e ")
