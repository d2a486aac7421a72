# SPDX-License-Identifier: AGPL-3.0-or-later
"""Who an instance says it is, read without a DICOM library."""

import io
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

from orthanc_ups.orthanc.dicom_head import Identity, identify

CT = "1.2.840.10008.5.1.4.1.1.2"
PUSH = "1.2.840.10008.5.1.4.34.6.1"
WHO = Identity(CT, "1.2.3.4.5", "ID 7")
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


def test_a_file_without_preamble_is_read() -> None:
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        file = io.BytesIO()
        instance().save_as(
            file, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True, enforce_file_format=False
        )
        assert identify(file.getvalue()) == WHO


def test_deep_nesting_needs_no_stack() -> None:
    item, delimiter = b"\xfe\xff\x00\xe0\xff\xff\xff\xff", b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    sequence = b"\x08\x00\x06\x00SQ\0\0\xff\xff\xff\xff"
    sop_class = b"\x08\x00\x16\x00UI" + len(CT + "\0").to_bytes(2, "little") + CT.encode() + b"\0"
    assert identify((sequence + item) * 3000 + delimiter * 3000 + sop_class).sop_class == CT


def test_what_is_behind_patient_id_is_not_read() -> None:
    whole = encoded(instance(), ExplicitVRLittleEndian)
    end = whole.index(b"ID 7") + 4
    assert identify(whole[:end]) == WHO


@given(st.binary(max_size=400))
def test_nothing_raises_on_garbage(garbage: bytes) -> None:
    for data in (garbage, bytes(128) + b"DICM" + garbage):
        assert isinstance(identify(data), Identity)


@given(st.integers(0, 700), st.integers(0, 255), st.sampled_from(SYNTAXES[:4]))
def test_nothing_raises_on_a_damaged_or_cut_file(place: int, byte: int, syntax: UID) -> None:
    whole = bytearray(encoded(instance(), syntax))
    whole[place % len(whole)] = byte
    assert isinstance(identify(bytes(whole)), Identity)
    assert isinstance(identify(bytes(whole[:place])), Identity)


def test_a_bomb_is_not_inflated() -> None:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = packer.compress(bytes(50_000_000)) + packer.flush()
    meta = encoded(instance(), DeflatedExplicitVRLittleEndian)
    start = meta.index(DeflatedExplicitVRLittleEndian.encode()) + len(DeflatedExplicitVRLittleEndian)
    assert identify(meta[:start] + bomb) == Identity()
