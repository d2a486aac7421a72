# SPDX-License-Identifier: AGPL-3.0-or-later
"""The shelves: a pseudo patient whose instances carry the worklist as their metadata. Pure; nothing is sent.

An entry is one user metadata of a shelf. Shelf and slot are hashes of its key, so an address needs no
lookup; where two keys meet, the second goes to its next address. The value of a metadata is one header line
(format, revision, key) and the document.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from functools import cache
from typing import Final, NamedTuple

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from ..orthanc.hooks import OwnInstances

PATIENT_ID: Final = "UPS WORKLIST (do not delete)"
PATIENT_NAME: Final = "UPS^Worklist (do not delete)"
UID_ROOT: Final = "2.25.176183828718899863568309756952814617994"
STUDY_UID: Final = f"{UID_ROOT}.1"
SERIES_UID: Final = f"{UID_ROOT}.2"
SHELVES: Final = 256

# User metadata of Orthanc have the numbers 1024–65535. Hospitals use the first ones, so these are left to them;
# the last ones are kept back for the shelves themselves.
FIRST_USER_SLOT: Final = 1024
SLOTS: Final = range(1040, 65520)
PROBE_SLOTS: Final = range(65520, 65535)
MARK_SLOT: Final = 65535

# Written to a shelf when all its entries are there; so a shelf that lacks it was made but not filled, or emptied.
MARK: Final = b"orthanc-ups shelf 1"

PROBES: Final = 16
_FORMAT: Final = "UPS1"
_RAW_DATA: Final = "1.2.840.10008.5.1.4.1.1.66"


class Address(NamedTuple):
    """Where an entry stands: ``shelf`` 0–255, ``slot`` is the number of the metadata."""

    shelf: int
    slot: int


def address(key: str, probe: int) -> Address:
    """The place number ``probe`` (0 is the best) for an entry of this key."""
    digest = hashlib.blake2b(f"{probe} {key}".encode(), digest_size=8).digest()
    number = int.from_bytes(digest, "big")
    return Address(number % SHELVES, SLOTS[number // SHELVES % len(SLOTS)])


def probe_of(key: str, position: Address) -> int | None:
    """The number of this place among those of the key, None if it is none of them."""
    return next((probe for probe in range(PROBES) if address(key, probe) == position), None)


@dataclass(frozen=True, slots=True)
class Value:
    """What stands at an address: ``revision`` counts the writes of this entry, from 0."""

    key: str
    revision: int
    document: bytes

    def encoded(self) -> bytes:
        """As it is stored. Raises ValueError if the key cannot be."""
        if not self.key or "\n" in self.key or "\r" in self.key:
            raise ValueError(f"not a key: {self.key!r}")
        return f"{_FORMAT} {self.revision} {self.key}\n".encode() + self.document


def decoded(stored: bytes) -> Value | None:
    """The value in these bytes, None if they are not of our making."""
    header, separator, document = stored.partition(b"\n")
    try:
        form, revision, key = header.decode().split(" ", 2)
        return Value(key, int(revision), document) if separator and form == _FORMAT else None
    except ValueError:
        return None


def md5(stored: bytes) -> str:
    """The digest by which Orthanc tells one content of a metadata from another, in hexadecimal."""
    return hashlib.md5(stored, usedforsecurity=False).hexdigest()


class Version(NamedTuple):
    """A version of the port: Orthanc's ETag of the entry, as far as it can be foretold."""

    revision: int
    digest: str

    def __str__(self) -> str:
        return f"{self.revision}-{self.digest}"

    @classmethod
    def parse(cls, text: str) -> Version:
        """Read what ``str`` wrote, or an ETag without its quotes. Raises ValueError."""
        revision, separator, digest = text.partition("-")
        if not separator:
            raise ValueError(f"not a version: {text!r}")
        return cls(int(revision), digest)


def sop_instance_uid(shelf: int) -> str:
    """SOP Instance UID of a shelf."""
    return f"{UID_ROOT}.3.{shelf}"


def _orthanc_id(*parts: str) -> str:
    digest = hashlib.sha1("|".join(parts).encode(), usedforsecurity=False).hexdigest()
    return "-".join(digest[start : start + 8] for start in range(0, 40, 8))


PATIENT: Final = _orthanc_id(PATIENT_ID)
STUDY: Final = _orthanc_id(PATIENT_ID, STUDY_UID)
SERIES: Final = _orthanc_id(PATIENT_ID, STUDY_UID, SERIES_UID)
INSTANCES: Final = tuple(
    _orthanc_id(PATIENT_ID, STUDY_UID, SERIES_UID, sop_instance_uid(shelf)) for shelf in range(SHELVES)
)
_OURS: Final = frozenset({PATIENT, STUDY, SERIES, *INSTANCES})


def is_ours(orthanc_id: str) -> bool:
    """Whether this is Orthanc's identifier of a shelf or of its series, study or patient."""
    return orthanc_id in _OURS


def shelves_of(key: str) -> frozenset[int]:
    """The shelves on which an entry may stand."""
    return frozenset(address(key, probe).shelf for probe in range(PROBES))


def path(address: Address) -> str:
    """The path of an entry in Orthanc's REST API."""
    return f"/instances/{INSTANCES[address.shelf]}/metadata/{address.slot}"


@cache
def _sop_instance_uids() -> frozenset[str]:
    return frozenset(map(sop_instance_uid, range(SHELVES)))


def own_instances(uploads: Uploads) -> OwnInstances:
    """The shelves as those see them who guard them against uploads of others."""
    return OwnInstances(
        PATIENT_ID, f"{UID_ROOT}.3.", _sop_instance_uids().__contains__, uploads.claim, is_ours
    )


def dicom_file(shelf: int) -> bytes:
    """The instance that is a shelf, as a DICOM file (PS3.10)."""
    dataset = Dataset()
    dataset.SOPClassUID = _RAW_DATA
    dataset.SOPInstanceUID = sop_instance_uid(shelf)
    dataset.Modality = "OT"
    dataset.StudyDescription = "Worklist of the UPS plugin"
    dataset.SeriesDescription = "Shelves of workitems"
    dataset.PatientName = PATIENT_NAME
    dataset.PatientID = PATIENT_ID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY_UID, SERIES_UID
    dataset.InstanceNumber = shelf + 1
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


class Uploads:
    """The shelves that we are sending to Orthanc right now. May be asked from any thread."""

    def __init__(self) -> None:
        self._expected: set[str] = set()

    def expect(self, shelf: int) -> None:
        """Announce one upload of a shelf."""
        self._expected.add(sop_instance_uid(shelf))

    def done(self, shelf: int) -> None:
        """The upload has ended, in whatever way."""
        self._expected.discard(sop_instance_uid(shelf))

    def claim(self, sop_instance: str) -> bool:
        """Whether an upload that arrives is the announced one; a second one is not."""
        try:
            self._expected.remove(sop_instance)
        except KeyError:
            return False
        return True
