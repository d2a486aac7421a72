# SPDX-License-Identifier: AGPL-3.0-or-later
"""Instances for Orthanc, from pydicom or made here, and the ways to store them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
import requests
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE
from pynetdicom.association import Association

from tests.support.orthanc import RealOrthanc

CT = "1.2.840.10008.5.1.4.1.1.2"


def image(name: str = "CT_small.dcm", **attributes: Any) -> FileDataset:
    """A file of pydicom's with a new SOP Instance UID and these attributes."""
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str), name
    dataset = pydicom.dcmread(io.BytesIO(Path(path).read_bytes()))
    for keyword, value in {"SOPInstanceUID": generate_uid(), **attributes}.items():
        setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def series(count: int, name: str = "CT_small.dcm", **attributes: Any) -> list[FileDataset]:
    """Images of one new series in one new study."""
    uids = {"StudyInstanceUID": generate_uid(), "SeriesInstanceUID": generate_uid()}
    return [image(name, **{**uids, "InstanceNumber": number, **attributes}) for number in range(1, count + 1)]


def instance(
    sop_class: str = CT, sop_instance: str = "1.2.3.9", patient_id: str = "P", **attributes: Any
) -> Dataset:
    """A small instance without pixels; all instances of its class share a study and series."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = UID(sop_class), UID(sop_instance)
    dataset.PatientID, dataset.PatientName = patient_id, "Test^Upload"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", f"1.2.3.{len(sop_class)}"
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def file(dataset: Dataset) -> bytes:
    """The instance as a DICOM file."""
    written = io.BytesIO()
    dataset.save_as(written, enforce_file_format=True)
    return written.getvalue()


def by_rest(orthanc: RealOrthanc, *images: FileDataset) -> None:
    """POST /instances."""
    for image in images:
        requests.post(f"{orthanc.base_url}/instances", file(image), timeout=60).raise_for_status()


def stow(orthanc: RealOrthanc, *files: bytes) -> requests.Response:
    """STOW-RS of DICOM files, through the official DICOMweb plugin."""
    parts = [b"--edge\r\nContent-Type: application/dicom\r\n\r\n" + content + b"\r\n" for content in files]
    kind = 'multipart/related; type="application/dicom"; boundary=edge'
    headers = {"Content-Type": kind, "Accept": "application/dicom+json"}
    url = f"{orthanc.base_url}/dicom-web/studies"
    return requests.post(url, b"".join(parts) + b"--edge--", headers=headers, timeout=60)


def by_stow(orthanc: RealOrthanc, *images: FileDataset) -> None:
    """Store images by STOW-RS; fails if one is refused."""
    stow(orthanc, *map(file, images)).raise_for_status()


@contextmanager
def c_store_association(
    orthanc: RealOrthanc, calling_ae: str, *contexts: tuple[str, str]
) -> Iterator[Association]:
    """An association to Orthanc's own port, for SOP classes and transfer syntaxes."""
    entity = AE(calling_ae)
    for sop_class, syntax in contexts:
        entity.add_requested_context(sop_class, syntax)
    association = entity.associate("127.0.0.1", orthanc.dicom_port, ae_title="ORTHANC")
    assert association.is_established
    try:
        yield association
    finally:
        association.release()


def by_c_store(orthanc: RealOrthanc, calling_ae: str, *images: FileDataset) -> None:
    """Store images by C-STORE over one association; fails if one is refused."""
    contexts = [(image.SOPClassUID, image.file_meta.TransferSyntaxUID) for image in images]
    with c_store_association(orthanc, calling_ae, *contexts) as association:
        for image in images:
            assert association.send_c_store(image).Status == 0x0000
