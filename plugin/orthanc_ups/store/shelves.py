# SPDX-License-Identifier: AGPL-3.0-or-later
"""The shelves: instances of a pseudo patient, whose metadata are the worklist. Nothing is sent here.

There is one shelf at first, and another one is added whenever they are full. An entry is one user metadata of a
shelf. Shelf and slot are hashes of its key, so an address needs no lookup; where two keys collide, the second goes to
its next address. The value of a metadata is one header line (format, revision, key) and the document.

The shelf is chosen as in linear hashing: with 5 shelves, hash 6 belongs to shelf 6 mod 8, and as there is no shelf 6,
to 6 mod 4 = 2. Entries stay where they were written when shelves are added, so an entry is on one of at most nine
shelves: its hash mod 1, 2, 4, … 256. (Version 1.0.0.dev0 had 256 shelves from the first start, which is compatible.)
The few entries of which there is one each (``worklist``, ``node``, ``move``) are always on the first shelf, so that
all nodes look for them at the same address.
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
from ..orthanc.identifiers import identifier_of

PATIENT_ID: Final = "UPS WORKLIST (do not delete)"
PATIENT_NAME: Final = "UPS^Worklist (do not delete)"
STUDY_DESCRIPTION: Final = "Storage of the UPS worklist (plugin orthanc-ups), no images"
SERIES_DESCRIPTION: Final = "Workitems, subscriptions and events, as metadata"
UID_ROOT: Final = "2.25.176183828718899863568309756952814617994"
STUDY_UID: Final = f"{UID_ROOT}.1"
SERIES_UID: Final = f"{UID_ROOT}.2"
LABEL: Final = "orthanc-ups"

SHELVES: Final = 256
"""The highest number of shelves."""
FULL: Final = 1000
"""Mean number of entries per shelf from which another one is added.

A write costs the same however full a shelf is, but to read one entry Orthanc reads the whole shelf: 26 ms at 1,000
entries of 4 KB, 113 ms at 4,000; and listing them is more than linear: 45 ms at 1,000, 360 ms at 4,000, 2.2 s at
16,000 (SQLite, two busy cores).
"""

# User metadata of Orthanc have the numbers 1024–65535. The first are left to the hospital's own metadata, the last are
# reserved for the shelves themselves.
FIRST_USER_SLOT: Final = 1024
SLOTS: Final = range(1040, 65520)
PROBE_SLOTS: Final = range(65520, 65534)
COUNT_SLOT: Final = 65534
MARK_SLOT: Final = 65535

# Written to a shelf once it has all its entries. A shelf without it was created but not filled, or was emptied.
MARK: Final = b"orthanc-ups shelf 1"

PROBES: Final = 16
_FORMAT: Final = "UPS1"
_RAW_DATA: Final = "1.2.840.10008.5.1.4.1.1.66"


class Address(NamedTuple):
    """The address of an entry: ``shelf`` 0–255; ``slot`` is the number of the metadata."""

    shelf: int
    slot: int


def hashed(key: str, probe: int) -> Address:
    """Hash number ``probe`` of a key (0 is preferred): its address with 256 shelves."""
    digest = hashlib.blake2b(f"{probe} {key}".encode(), digest_size=8).digest()
    number = int.from_bytes(digest, "big")
    return Address(number % SHELVES, SLOTS[number // SHELVES % len(SLOTS)])


def is_single(key: str) -> bool:
    """True for the only entry of its kind, such as ``worklist``."""
    return "/" not in key


def new_address(key: str, probe: int, count: int) -> Address:
    """The address to write an entry at with ``count`` shelves, if its first ``probe`` addresses are occupied."""
    number, slot = hashed(key, probe)
    if is_single(key):
        return Address(0, slot)
    bits = (count - 1).bit_length()
    shelf = number % (1 << bits)
    return Address(shelf if shelf < count else shelf % (1 << (bits - 1)), slot)


def candidate_of(key: str, position: Address) -> int | None:
    """The number of an address among those possible for a key; None if it is not possible."""
    bits = position.shelf.bit_length()
    for probe in range(PROBES):
        number, slot = hashed(key, probe)
        if slot == position.slot and number % (1 << bits) == position.shelf:
            return bits * PROBES + probe
    return None


def address(key: str, candidate: int) -> Address:
    """The address with this number (see ``candidate_of``)."""
    bits, probe = divmod(candidate, PROBES)
    number, slot = hashed(key, probe)
    return Address(number % (1 << bits), slot)


def addresses(key: str, probe: int, count: int) -> list[Address]:
    """The addresses that an entry may have among ``count`` shelves, however many there were when it was written."""
    number, slot = hashed(key, probe)
    numbers = {number % (1 << bits) for bits in range(SHELVES.bit_length())}
    return [Address(shelf, slot) for shelf in sorted(numbers) if shelf < count]


@dataclass(frozen=True, slots=True)
class Value:
    """The content of an address: ``revision`` counts the writes of this entry, from 0."""

    key: str
    revision: int
    document: bytes

    def encoded(self) -> bytes:
        """The stored bytes. Raises ValueError if the key cannot be stored."""
        if not self.key or "\n" in self.key or "\r" in self.key:
            raise ValueError(f"not a key: {self.key!r}")
        return f"{_FORMAT} {self.revision} {self.key}\n".encode() + self.document


def decoded(stored: bytes) -> Value | None:
    """The value in these bytes, None if the plugin did not write them."""
    header, separator, document = stored.partition(b"\n")
    try:
        form, revision, key = header.decode().split(" ", 2)
        return Value(key, int(revision), document) if separator and form == _FORMAT else None
    except ValueError:
        return None


def md5(stored: bytes) -> str:
    """The digest by which Orthanc compares the content of metadata, in hexadecimal."""
    return hashlib.md5(stored, usedforsecurity=False).hexdigest()


class Version(NamedTuple):
    """The version of an entry: its ETag in Orthanc, as far as it can be predicted."""

    revision: int
    digest: str

    def __str__(self) -> str:
        return f"{self.revision}-{self.digest}"

    @classmethod
    def parse(cls, text: str) -> Version:
        """Parse the result of ``str``, or an ETag without its quotes. Raises ValueError."""
        revision, separator, digest = text.partition("-")
        if not separator:
            raise ValueError(f"not a version: {text!r}")
        return cls(int(revision), digest)


def sop_instance_uid(shelf: int) -> str:
    """SOP Instance UID of a shelf."""
    return f"{UID_ROOT}.3.{shelf}"


PATIENT: Final = identifier_of(PATIENT_ID)
STUDY: Final = identifier_of(PATIENT_ID, STUDY_UID)
SERIES: Final = identifier_of(PATIENT_ID, STUDY_UID, SERIES_UID)
INSTANCES: Final = tuple(
    identifier_of(PATIENT_ID, STUDY_UID, SERIES_UID, sop_instance_uid(shelf)) for shelf in range(SHELVES)
)
_OWN: Final = frozenset({PATIENT, STUDY, SERIES, *INSTANCES})


def is_own(orthanc_id: str) -> bool:
    """True for Orthanc's identifier of a shelf, or of its series, study or patient."""
    return orthanc_id in _OWN


def shelves_of(key: str) -> frozenset[int]:
    """The shelves on which an entry may be."""
    return frozenset(position.shelf for probe in range(PROBES) for position in addresses(key, probe, SHELVES))


def path(address: Address) -> str:
    """The path of an entry in Orthanc's REST API."""
    return f"/instances/{INSTANCES[address.shelf]}/metadata/{address.slot}"


@cache
def _sop_instance_uids() -> frozenset[str]:
    return frozenset(map(sop_instance_uid, range(SHELVES)))


def own_instances(uploads: Uploads) -> OwnInstances:
    """The instances that are shelves, for the guard against uploads by others."""
    return OwnInstances(
        PATIENT_ID, f"{UID_ROOT}.3.", _sop_instance_uids().__contains__, uploads.claim, is_own
    )


class StudyMoment(NamedTuple):
    """When the first shelf was created, which every shelf repeats: ``date`` is a value of VR DA, ``time`` of VR TM."""

    date: str
    time: str


def dicom_file(shelf: int, created: StudyMoment) -> bytes:
    """The instance that is a shelf, as a DICOM file (PS3.10)."""
    dataset = Dataset()
    dataset.SOPClassUID = _RAW_DATA
    dataset.SOPInstanceUID = sop_instance_uid(shelf)
    dataset.Modality = "OT"
    dataset.StudyDate, dataset.StudyTime = created
    dataset.StudyDescription = STUDY_DESCRIPTION
    dataset.SeriesDescription = SERIES_DESCRIPTION
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
    """The shelves that the plugin is sending to Orthanc right now. Thread-safe."""

    def __init__(self) -> None:
        self._expected: set[str] = set()

    def expect(self, shelf: int) -> None:
        """Announce one upload of a shelf."""
        self._expected.add(sop_instance_uid(shelf))

    def done(self, shelf: int) -> None:
        """The upload has ended, successfully or not."""
        self._expected.discard(sop_instance_uid(shelf))

    def claim(self, sop_instance: str) -> bool:
        """True if an upload that arrives was announced; a second upload of the same instance was not."""
        try:
            self._expected.remove(sop_instance)
        except KeyError:
            return False
        return True
