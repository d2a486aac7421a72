# SPDX-License-Identifier: AGPL-3.0-or-later
"""Identifies a DICOM file, in a callback that gets every instance of a hospital, on a thread with a small stack.

An ordinary file (PS3.5 §7, PS3.10 §7) is identified by its first elements, and nothing after Patient ID is read. DCMTK,
with which Orthanc reads, also accepts files whose elements are out of order, without meta information, in another
encoding than declared, and more. These files are not parsed, but searched as a whole for the values that matter.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from struct import Struct
from typing import Final

MEDIA_STORAGE_SOP_CLASS: Final = 0x0002_0002
SOP_CLASS: Final = 0x0008_0016
SOP_INSTANCE: Final = 0x0008_0018
PATIENT_ID: Final = 0x0010_0020
_TRANSFER_SYNTAX: Final = 0x0002_0010
_IDENTITY: Final = (SOP_CLASS, SOP_INSTANCE, PATIENT_ID)

_ITEM: Final = 0xFFFE_E000
_DELIMITERS: Final = 0xFFFE
_UNDEFINED: Final = 0xFFFF_FFFF

_IMPLICIT: Final = "1.2.840.10008.1.2"
_DEFLATED: Final = "1.2.840.10008.1.2.1.99"
_BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"
_LONG_VRS: Final = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV",
                              b"UC", b"UN", b"UR", b"UT", b"UV"})  # fmt: skip
_SHORT_VRS: Final = frozenset({b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO",
                               b"LT", b"PN", b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"})  # fmt: skip

_HEAD: Final = 65_536  # bytes of a deflated data set that are inflated to identify it
_MAXIMUM_ELEMENTS: Final = 1_000  # before Patient ID in an ordinary file
_CHUNK: Final = 1 << 20
MAXIMUM_INFLATED: Final = 1 << 30  # bytes; larger data sets are not sent deflated
_LONGEST_VALUE: Final = 256
_LONGEST_HEADER: Final = 16  # bytes: tag, VR and length
_OVERLAP: Final = 4_096  # bytes


class _Odd(Exception):
    """The file is not an ordinary one."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Values without padding, "" if the file has none.

    Attributes:
        sop_class, sop_instance, patient_id: those of the data set.
        media_class: the SOP class of the meta information, which may differ from that of the data set.
    """

    sop_class: str
    sop_instance: str
    patient_id: str
    media_class: str = ""


@dataclass(frozen=True, slots=True)
class _Encoding:
    explicit: bool
    tag: Struct
    short: Struct
    long: Struct

    @classmethod
    def of(cls, explicit: bool, order: str = "<") -> _Encoding:
        return cls(explicit, Struct(f"{order}HH"), Struct(f"{order}H"), Struct(f"{order}L"))


_EXPLICIT_LITTLE: Final = _Encoding.of(True)
_ENCODINGS: Final = {_IMPLICIT: _Encoding.of(False), _BIG_ENDIAN: _Encoding.of(True, ">")}
_TAGS: Final = (Struct("<HH"), Struct(">HH"))


# --- ordinary files ---


def identify(file: bytes) -> Identity | None:
    """Read SOP Class UID, SOP Instance UID and Patient ID; None if the file is not ordinary. Never raises."""
    try:
        meta, position = _meta(file)
        syntax = meta.get(_TRANSFER_SYNTAX, "")
        data = file
        if syntax == _DEFLATED:
            data, position = _head_of_deflated(file, position), 0
        values = _identity(data, position, _ENCODINGS.get(syntax, _EXPLICIT_LITTLE))
    except _Odd:
        return None
    return Identity(
        values[SOP_CLASS], values[SOP_INSTANCE], values[PATIENT_ID], meta.get(MEDIA_STORAGE_SOP_CLASS, "")
    )


def _meta(file: bytes) -> tuple[dict[int, str], int]:
    """The values of the file meta information by tag, and the position of the data set. Raises _Odd."""
    if file[128:132] != b"DICM":
        raise _Odd
    values: dict[int, str] = {}
    position = 132
    while file[position : position + 2] == b"\x02\x00" and position + 8 <= len(file):
        group, number = _EXPLICIT_LITTLE.tag.unpack_from(file, position)
        start, length = _length(file, position, group, _EXPLICIT_LITTLE)
        position = start + length
        values[group << 16 | number] = _text(file, start, position)
    return values, position


def _head_of_deflated(file: bytes, position: int) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(memoryview(file)[position:], _HEAD)
    except zlib.error:
        raise _Odd from None


def _identity(data: bytes, position: int, encoding: _Encoding) -> dict[int, str]:
    values: dict[int, str] = {}
    last = 0
    for tag, start, end in _elements(data, position, encoding):
        if tag <= last or tag > PATIENT_ID or end > len(data):
            raise _Odd
        last = tag
        if tag in _IDENTITY:
            if end - start > _LONGEST_VALUE:
                raise _Odd
            values[tag] = _text(data, start, end)
            if tag == PATIENT_ID and len(values) == len(_IDENTITY):
                return values
    raise _Odd


def _text(data: bytes, start: int, end: int) -> str:
    return data[start : min(end, start + _LONGEST_VALUE)].decode("latin-1").strip("\0 ")


def _elements(data: bytes, position: int, encoding: _Encoding) -> Iterator[tuple[int, int, int]]:
    """Tag, start and end of the value of each element that is not inside a sequence. Raises _Odd."""
    depth = 0
    for _ in range(_MAXIMUM_ELEMENTS):
        if position + 8 > len(data):
            raise _Odd
        group, number = encoding.tag.unpack_from(data, position)
        tag = group << 16 | number
        start, length = _length(data, position, group, encoding)
        if group == _DELIMITERS and tag != _ITEM:
            depth -= 1
        elif length == _UNDEFINED:
            depth += 1
        elif depth == 0 and tag != _ITEM:
            yield tag, start, start + length
        if depth < 0:
            raise _Odd
        position = start + (length if length != _UNDEFINED else 0)
    raise _Odd


def _length(data: bytes, position: int, group: int, encoding: _Encoding) -> tuple[int, int]:
    """The position of a value and its length. Raises _Odd for unknown VRs, which DCMTK reads in ways of its own."""
    if not encoding.explicit or group == _DELIMITERS:
        return position + 8, int(encoding.long.unpack_from(data, position + 4)[0])
    vr = data[position + 4 : position + 6]
    if vr in _SHORT_VRS:
        return position + 8, int(encoding.short.unpack_from(data, position + 6)[0])
    if vr not in _LONG_VRS or position + 12 > len(data):
        raise _Odd
    length = int(encoding.long.unpack_from(data, position + 8)[0])
    if vr == b"UN" and length == _UNDEFINED:  # its items have another encoding (PS3.5 §6.2.2)
        raise _Odd
    return position + 12, length


# --- any file ---


class Search:
    """Searches a file for elements whose value has a certain prefix, at any position and in any encoding.

    It does not distinguish elements inside sequences from those of the instance itself: that would need a parser with
    all the peculiarities of DCMTK. It is therefore used only for files that are not ordinary.
    """

    def __init__(self, values: Mapping[int, Iterable[str]]) -> None:
        """``values``: prefixes of values by tag."""
        self._values = [(tag, start.encode()) for tag, starts in values.items() for start in starts]

    def matches(self, file: bytes) -> frozenset[int]:
        """The tags whose values occur; all tags if the file cannot be searched."""
        try:
            return frozenset(
                tag for data in _contents(file) for tag, value in self._values if _occurs(data, tag, value)
            )
        except _Odd:
            return frozenset(tag for tag, _ in self._values)


def _contents(file: bytes) -> Iterator[bytes]:
    """The file, and then its deflated part in overlapping pieces. Raises _Odd."""
    yield file
    try:
        meta, position = _meta(file)
    except _Odd:
        if _DEFLATED.encode() in file:
            raise
        return
    if meta.get(_TRANSFER_SYNTAX, "") == _DEFLATED:
        yield from _inflated(file, position)


def _inflated(file: bytes, position: int) -> Iterator[bytes]:
    packed = zlib.decompressobj(-zlib.MAX_WBITS)
    total, tail = 0, b""
    for start in range(position, len(file), _CHUNK):
        deflated = file[start : start + _CHUNK]
        while deflated:
            try:
                data = packed.decompress(deflated, _CHUNK)
            except zlib.error:
                return  # no reader gets beyond this
            total += len(data)
            if total > MAXIMUM_INFLATED:
                raise _Odd
            yield tail + data
            tail, deflated = (tail + data)[-_OVERLAP:], packed.unconsumed_tail


def _occurs(data: bytes, tag: int, value: bytes) -> bool:
    """True if the value follows the tag, with only VR, length and padding in between."""
    tags = tuple(order.pack(tag >> 16, tag & 0xFFFF) for order in _TAGS)
    position = data.find(value)
    while position >= 0:
        start = _before_padding(data, position)
        header = data[max(0, start - _LONGEST_HEADER) : position]
        if any(encoded_tag in header for encoded_tag in tags):
            return True
        position = data.find(value, position + 1)
    return False


def _before_padding(data: bytes, position: int) -> int:
    while position > 0:
        before = data[max(0, position - _OVERLAP) : position]
        bare = before.rstrip(b" \0")
        position -= len(before) - len(bare)
        if bare:
            break
    return position
