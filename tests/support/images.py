# SPDX-License-Identifier: AGPL-3.0-or-later
"""Real images for rules: those that pydicom brings, as new instances of a series and study of their own."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pydicom
import requests
from pydicom.data import get_testdata_file
from pydicom.dataset import FileDataset
from pydicom.uid import generate_uid
from pynetdicom import AE

from tests.support.orthanc import RealOrthanc


def image(name: str = "CT_small.dcm", **attributes: Any) -> FileDataset:
    """A file of pydicom with a new SOP Instance UID, and these attributes."""
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


def file(dataset: FileDataset) -> bytes:
    """As a DICOM file."""
    written = io.BytesIO()
    dataset.save_as(written, enforce_file_format=True)
    return written.getvalue()


def by_rest(orthanc: RealOrthanc, *images: FileDataset) -> None:
    """POST /instances."""
    for each in images:
        requests.post(f"{orthanc.base_url}/instances", file(each), timeout=60).raise_for_status()


def by_stow(orthanc: RealOrthanc, *images: FileDataset) -> None:
    """STOW-RS, through the official DICOMweb plugin."""
    parts = [b"--edge\r\nContent-Type: application/dicom\r\n\r\n" + file(each) + b"\r\n" for each in images]
    kind = 'multipart/related; type="application/dicom"; boundary=edge'
    headers = {"Content-Type": kind, "Accept": "application/dicom+json"}
    url = f"{orthanc.base_url}/dicom-web/studies"
    requests.post(url, b"".join(parts) + b"--edge--", headers=headers, timeout=60).raise_for_status()


def by_c_store(orthanc: RealOrthanc, calling_ae: str, *images: FileDataset) -> None:
    """C-STORE over one association."""
    entity = AE(calling_ae)
    for each in images:
        entity.add_requested_context(each.SOPClassUID, each.file_meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", orthanc.dicom_port, ae_title="ORTHANC")
    assert association.is_established
    try:
        for each in images:
            assert association.send_c_store(each).Status == 0x0000
    finally:
        association.release()
