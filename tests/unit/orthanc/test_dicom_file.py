# SPDX-License-Identifier: AGPL-3.0-or-later
"""The identity of an instance, read without a DICOM library."""

import io
import struct
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
)

from orthanc_ups.orthanc import dicom_file
from orthanc_ups.orthanc.dicom_file import PATIENT_ID, SOP_CLASS, Identity, Search, identify

CT = "1.2.840.10008.5.1.4.1.1.2"
PUSH = "1.2.840.10008.5.1.4.34.6.1"
WHO = Identity(CT, "1.2.3.4.5", "ID 7", CT)
SEARCH = Search({SOP_CLASS: ["1.2.840.10008.5.1.4.34.6."], PATIENT_ID: ["UPS WORKLIST"]})
SYNTAXES = [
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    JPEGBaseline8Bit,
]


def nested(depth: int) -> Dataset:
    """Sequences in sequences, each with a SOP Class of its own that must not be taken for the instance's."""
    item = Dataset()
    item.SOPClassUID, item.SOPInstanceUID, item.PatientID = PUSH, "9.9.9", "inside"
    for _ in range(depth):
        outer = Dataset()
        outer.LanguageCodeSequence = Sequence([item, Dataset()])
        outer.SOPClassUID = PUSH
        item = outer
    return item


def instance(depth: int = 2, *, undefined: bool = True) -> Dataset:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.LanguageCodeSequence = Sequence([nested(depth)])
    dataset.SOPClassUID, dataset.SOPInstanceUID = WHO.sop_class, WHO.sop_instance
    dataset.ReferencedSeriesSequence = Sequence([nested(1)])
    dataset.PatientName, dataset.PatientID = "Nobody", WHO.patient_id
    dataset.PatientComments = "behind"
    for element in dataset.iterall():
        element.is_undefined_length = undefined and element.VR == "SQ"
    return dataset


def encoded(dataset: Dataset, syntax: UID) -> bytes:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = UID(PUSH)  # Orthanc goes by the data set
    dataset.file_meta.MediaStorageSOPInstanceUID = UID("1.1")
    dataset.file_meta.TransferSyntaxUID = syntax
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


@pytest.mark.parametrize("undefined", [True, False], ids=["undefined lengths", "defined lengths"])
@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
def test_every_transfer_syntax_is_read(syntax: UID, undefined: bool) -> None:
    assert identify(encoded(instance(undefined=undefined), syntax)) == WHO


def ups(*, in_front: int = 0, patient_id: str = "P") -> Dataset:
    dataset = Dataset()
    for number in range(in_front):
        dataset.add_new(0x0009_0000 + 0x1000 + number, "LO", str(number))
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.PatientID = PUSH, "1.2.3", patient_id
    return dataset


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


SOP_CLASS_ELEMENT = element(8, 0x16, b"UI", PUSH.encode() + b"\0" * (len(PUSH) % 2))
HEAD = bytes(128) + b"DICM" + element(2, 0x10, b"UI", b"1.2.840.10008.1.2.1\0")


def explicit(*elements: bytes) -> bytes:
    return HEAD + b"".join(elements)


INSTANCE_ELEMENTS = element(8, 0x18, b"UI", b"1.2.3\0"), element(0x10, 0x20, b"LO", b"P ")
ODD = {
    "behind Patient ID": explicit(*INSTANCE_ELEMENTS, SOP_CLASS_ELEMENT),
    "at the very end": explicit(
        *INSTANCE_ELEMENTS, element(0x10, 0x4000, b"LT", b"x" * 60_000), SOP_CLASS_ELEMENT
    ),
    "behind 20,001 elements": explicit(
        *(element(8, 8, b"CS", b"A ") for _ in range(20_001)), SOP_CLASS_ELEMENT, *INSTANCE_ELEMENTS
    ),
    "in no order, twice": explicit(element(0x10, 0x20, b"LO", b"P "), SOP_CLASS_ELEMENT, *INSTANCE_ELEMENTS),
    "behind a VR that nobody knows": explicit(
        element(8, 5, b"ZZ", b""), struct.pack("<L", 4) + b"abcd", SOP_CLASS_ELEMENT, *INSTANCE_ELEMENTS
    ),
    "as another VR": explicit(
        element(8, 0x16, b"ZZ", b"") + struct.pack("<L", len(PUSH) + 1) + PUSH.encode() + b"\0",
        *INSTANCE_ELEMENTS,
    ),
    "without meta information": SOP_CLASS_ELEMENT + b"".join(INSTANCE_ELEMENTS),
    "without preamble": HEAD[132:] + SOP_CLASS_ELEMENT + b"".join(INSTANCE_ELEMENTS),
    "with spaces in front": explicit(
        element(8, 0x16, b"UI", b" " * 5_000 + PUSH.encode() + b"\0"), *INSTANCE_ELEMENTS
    ),
    "implicit where explicit is said": HEAD
    + b"\x08\x00\x16\x00"
    + struct.pack("<L", 26)
    + PUSH.encode()
    + b"\0",
    "big endian where little is said": HEAD + b"\x00\x08\x00\x16UI\x00\x1a" + PUSH.encode() + b"\0",
}


@pytest.mark.parametrize("file", ODD.values(), ids=ODD)
def test_what_is_not_in_order_is_searched_as_a_whole(file: bytes) -> None:
    assert identify(file) is None
    assert SEARCH.matches(file) == {SOP_CLASS}
    assert SEARCH.matches(file.replace(PUSH.encode(), CT.encode() + b"\0")) == frozenset()


def test_a_deflated_file_is_searched_as_a_whole() -> None:
    data = encoded(ups(in_front=10_000), DeflatedExplicitVRLittleEndian)
    assert SEARCH.matches(data) == {SOP_CLASS}
    data = encoded(ups(patient_id="UPS WORKLIST (do not delete)"), DeflatedExplicitVRLittleEndian)
    assert SEARCH.matches(data) == {SOP_CLASS, PATIENT_ID}


def test_a_value_of_another_element_does_not_match() -> None:
    dataset = Dataset()
    dataset.ReferencedSOPClassUID = PUSH
    dataset.PatientComments = "UPS WORKLIST"
    assert SEARCH.matches(encoded(dataset, ExplicitVRLittleEndian)) == frozenset()


def test_deep_nesting_needs_no_stack() -> None:
    item, delimiter = b"\xfe\xff\x00\xe0\xff\xff\xff\xff", b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    sequence = b"\x08\x00\x06\x00SQ\0\0\xff\xff\xff\xff"
    file = explicit((sequence + item) * 3000 + delimiter * 3000, SOP_CLASS_ELEMENT, *INSTANCE_ELEMENTS)
    assert identify(file) is None
    assert SEARCH.matches(file) == {SOP_CLASS}


def test_what_is_behind_patient_id_is_not_read() -> None:
    whole = encoded(instance(), ExplicitVRLittleEndian)
    end = whole.index(b"ID 7") + 4
    assert identify(whole[:end]) == WHO


@given(st.binary(max_size=400))
def test_nothing_raises_on_garbage(garbage: bytes) -> None:
    for data in (garbage, bytes(128) + b"DICM" + garbage):
        assert identify(data) is None or isinstance(identify(data), Identity)
        SEARCH.matches(data)


@given(st.integers(0, 700), st.integers(0, 255), st.sampled_from(SYNTAXES[:4]))
def test_nothing_raises_on_a_damaged_or_cut_file(position: int, byte: int, syntax: UID) -> None:
    whole = bytearray(encoded(instance(), syntax))
    whole[position % len(whole)] = byte
    for file in (bytes(whole), bytes(whole[:position])):
        identify(file)
        SEARCH.matches(file)


def test_a_bomb_is_not_kept_in_memory_and_counts_as_a_match(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_file, "MAXIMUM_INFLATED", 100_000_000)
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(110)) + packer.flush()
    meta = encoded(instance(), DeflatedExplicitVRLittleEndian)
    start = meta.index(DeflatedExplicitVRLittleEndian.encode()) + len(DeflatedExplicitVRLittleEndian)
    tracemalloc.start()
    try:
        assert SEARCH.matches(meta[:start] + bomb) == {SOP_CLASS, PATIENT_ID}
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()
