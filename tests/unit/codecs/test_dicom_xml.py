# SPDX-License-Identifier: AGPL-3.0-or-later
"""The Native DICOM Model (PS3.19 A.1) to the inner form and back."""

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthanc_ups.codecs import dicom_xml
from orthanc_ups.codecs.dicom_xml import MalformedXml
from orthanc_ups.core.dataset import DataSet, element
from orthanc_ups.core.statuses import UpsError
from tests.support.datasets import datasets
from tests.support.workitems import full, stored

MODEL = "{http://dicom.nema.org/PS3.19/models/NativeDICOM}"


def read(content: str) -> DataSet:
    return dicom_xml.decode(f"<NativeDicomModel>{content}</NativeDicomModel>".encode())


def attribute(tag: str, vr: str, content: str, more: str = "") -> str:
    return f'<DicomAttribute tag="{tag}" vr="{vr}" {more}>{content}</DicomAttribute>'


@given(datasets())
def test_every_vr_survives_the_round_trip(dataset: DataSet) -> None:
    assert dicom_xml.decode(dicom_xml.encode(dataset)) == dataset


@pytest.mark.parametrize("who", ["plain", "japanese", "cyrillic", "greek", "latin-1"])
def test_whole_workitem_survives_the_round_trip(who: str) -> None:
    workitem = stored(base=full(who))
    assert dicom_xml.decode(dicom_xml.encode(workitem)) == workitem


def test_document_is_of_the_native_model() -> None:
    root = ElementTree.fromstring(dicom_xml.encode(full()))
    assert root.tag == f"{MODEL}NativeDicomModel"
    result = {child.get("tag"): child for child in root}
    assert result["00741000"].get("keyword") == "ProcedureStepState"
    assert result["00741000"].findtext(f"{MODEL}Value") == "SCHEDULED"
    assert (
        result["00404018"].findtext(f"{MODEL}Item/{MODEL}DicomAttribute[@tag='00080100']/{MODEL}Value")
        == "110005"
    )
    assert (
        result["00100010"].findtext(f"{MODEL}PersonName/{MODEL}Alphabetic/{MODEL}FamilyName") == "Fairweather"
    )
    assert result["00100010"].findtext(f"{MODEL}PersonName/{MODEL}Alphabetic/{MODEL}MiddleName") == "Q"


def test_specific_character_set_is_told_where_text_needs_it() -> None:
    assert b"ISO_IR 192" in dicom_xml.encode(full("japanese"))
    assert b"ISO_IR" not in dicom_xml.encode({"00100020": element("LO", "plain")})


def test_ps3_7_c_a_refusal_names_all_that_cannot_be_read() -> None:
    body = (
        b'<NativeDicomModel><DicomAttribute tag="00091001"/><DicomAttribute tag="00404018" vr="SQ"><Item number="1">'
        b'<DicomAttribute tag="00111001"/></Item></DicomAttribute></NativeDicomModel>'
    )
    with pytest.raises(UpsError) as caught:
        dicom_xml.decode(body)
    assert {fault.path for fault in caught.value.faults} == {"00091001", "00404018.00111001"}


def test_private_elements_name_their_creator() -> None:
    dataset = {"00770010": element("LO", "ACME"), "00771001": element("DS", "1.50")}
    result = ElementTree.fromstring(dicom_xml.encode(dataset))[1]
    assert (result.get("tag"), result.get("privateCreator")) == ("00771001", "ACME")


@pytest.mark.parametrize("block", ["00", "10"])
def test_private_creator_reserves_its_block(block: str) -> None:
    content = attribute(f"0077{block}01", "DS", '<Value number="1">1.50</Value>', 'privateCreator="ACME"')
    assert read(content) == {"00770010": element("LO", "ACME"), "00771001": element("DS", "1.50")}


def test_private_element_moves_to_the_block_of_its_creator() -> None:
    reserved = attribute("00770010", "LO", "<Value>OTHER</Value>") + attribute(
        "00770011", "LO", "<Value>ACME</Value>"
    )
    result = read(reserved + attribute("00770001", "SH", "<Value>x</Value>", 'privateCreator="ACME"'))
    assert result["00771101"] == element("SH", "x")


def test_private_creator_must_fit_its_block() -> None:
    reserved = attribute("00770010", "LO", "<Value>OTHER</Value>")
    with pytest.raises(UpsError, match="private creator"):
        read(reserved + attribute("00771001", "SH", "<Value>x</Value>", 'privateCreator="ACME"'))


def test_carriage_return_and_blanks_are_kept() -> None:
    note = element("LT", "  one\r\ntwo\ttab  ")
    assert dicom_xml.decode(dicom_xml.encode({"00400400": note})) == {"00400400": note}


def test_form_feed_is_kept_though_xml_has_none() -> None:
    note = element("LT", "page 1\fpage 2")
    assert dicom_xml.decode(dicom_xml.encode({"00400400": note})) == {"00400400": note}


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_words_for_numbers_are_words_in_texts(word: str) -> None:
    dataset = {"00400400": element("LT", word), "00701A07": element("FD", word)}
    assert dicom_xml.decode(dicom_xml.encode(dataset)) == dataset


def test_value_number_that_is_left_out_is_an_empty_value() -> None:
    result = read(attribute("00102000", "LO", '<Value number="2">b</Value><Value number="4">d</Value>'))
    assert result == {"00102000": element("LO", None, "b", None, "d")}


def test_namespace_keyword_and_numbers_may_be_missing() -> None:
    assert read(attribute("00102000", "LO", "<Value>a</Value><Value>b</Value>")) == {
        "00102000": element("LO", "a", "b")
    }


def test_other_encodings_are_read() -> None:
    content = attribute("00100020", "LO", "<Value>é</Value>")
    text = f'<?xml version="1.0" encoding="ISO-8859-1"?><NativeDicomModel>{content}</NativeDicomModel>'
    assert dicom_xml.decode(text.encode("latin-1")) == {"00100020": element("LO", "é")}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<NativeDicomModel>",
        b"<Other/>",
        b"<NativeDicomModel><Value>1</Value></NativeDicomModel>",
        b"<NativeDicomModel>text</NativeDicomModel>",
        b'<NativeDicomModel><DicomAttribute vr="LO"/></NativeDicomModel>',
        b'<!DOCTYPE x [<!ENTITY a "aaaa">]><NativeDicomModel/>',
        b'<!DOCTYPE x SYSTEM "http://127.0.0.1/x"><NativeDicomModel/>',
        b'<?xml version="1.0" encoding="nonsense"?><NativeDicomModel/>',
        b"<a>" * 100_000,
        b"<NativeDicomModel/><NativeDicomModel/>",
    ],
)
def test_what_is_no_native_model_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedXml):
        dicom_xml.decode(body)


BULK = attribute("00080104", "LO", "<BulkData/>")


@pytest.mark.parametrize(
    ("content", "path"),
    [
        (attribute("00404018", "SQ", f"<Item>{BULK}</Item>"), "00404018.00080104"),
        (attribute("00100020", "LO", "") * 2, "00100020"),
        (attribute("00100020", "LO", '<Value number="1">a</Value><Value number="1">b</Value>'), "00100020"),
        (attribute("00100020", "LO", '<Value number="999999999">a</Value>'), "00100020"),
        (attribute("00400400", "LT", "<InlineBinary>//</InlineBinary>"), "00400400"),
        ('<DicomAttribute tag="00091001"><Value>1</Value></DicomAttribute>', "00091001"),
    ],
)  # fmt: skip
def test_what_is_no_attribute_is_refused_with_its_path(content: str, path: str) -> None:
    with pytest.raises(UpsError) as refusal:
        read(content)
    assert (refusal.value.status.http, refusal.value.tag) == (400, path)


def nested(depth: int) -> bytes:
    start, end = '<DicomAttribute tag="00400555" vr="SQ"><Item>', "</Item></DicomAttribute>"
    return f"<NativeDicomModel>{start * depth}{end * depth}</NativeDicomModel>".encode()


def test_sequences_may_nest_as_deep_as_is_allowed_and_no_deeper() -> None:
    assert dicom_xml.decode(nested(32), 32)
    with pytest.raises(UpsError, match="too deeply"):
        dicom_xml.decode(nested(33), 32)


_PAIRED = ("NativeDicomModel", "Item", "Value", "PersonName", "Alphabetic", "FamilyName", "InlineBinary")
_PARTS = (
    *(f"<{name}>" for name in _PAIRED),
    *(f"</{name}>" for name in _PAIRED),
    '<DicomAttribute tag="00404018" vr="SQ">',
    '<DicomAttribute tag="00100010" vr="PN">',
    "</DicomAttribute>",
    "1.5",
)


@given(st.lists(st.sampled_from(_PARTS), max_size=12))
def test_any_arrangement_is_read_or_refused(parts: list[str]) -> None:
    try:
        dicom_xml.decode("".join(parts).encode())
    except (UpsError, MalformedXml) as refusal:
        assert str(refusal)
