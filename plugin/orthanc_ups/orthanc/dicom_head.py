# SPDX-License-Identifier: AGPL-3.0-or-later
"""Who an instance says it is, from the first elements of its DICOM file.

Made for a callback that sees every instance of a hospital, on a thread with a small stack: no recursion, no
objects, and nothing is read behind Patient ID (PS3.5 §7, PS3.10 §7).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Final

_TRANSFER_SYNTAX: Final = 0x0002_0010
_SOP_CLASS: Final = 0x0008_0016
_SOP_INSTANCE: Final = 0x0008_0018
_PATIENT_ID: Final = 0x0010_0020
_WANTED: Final = frozenset({_TRANSFER_SYNTAX, _SOP_CLASS, _SOP_INSTANCE, _PATIENT_ID})

_ITEM: Final = 0xFFFE_E000
_DELIMITERS: Final = 0xFFFE
_UNDEFINED: Final = 0xFFFF_FFFF

_IMPLICIT: Final = "1.2.840.10008.1.2"
_DEFLATED: Final = "1.2.840.10008.1.2.1.99"
_BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"
_LONG_VRS: Final = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV",
                              b"UC", b"UN", b"UR", b"UT", b"UV"})  # fmt: skip

_INFLATED: Final = 65_536  # bytes looked at of a deflated data set
_MOST_ELEMENTS: Final = 20_000
_LONGEST_VALUE: Final = 256


@dataclass(frozen=True, slots=True)
class Identity:
    """Values without padding, "" where the file does not say."""

    sop_class: str = ""
    sop_instance: str = ""
    patient_id: str = ""


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
_IMPLICIT_LITTLE: Final = _Encoding.of(False)
_EXPLICIT_BIG: Final = _Encoding.of(True, ">")


def identify(file: bytes) -> Identity:
    """Read SOP Class UID, SOP Instance UID and Patient ID. What cannot be read is ""; never raises."""
    data, position, encoding = _data_set(file)
    found: dict[int, str] = {}
    for tag, start, end in _elements(data, position, encoding):
        if tag > _PATIENT_ID:
            break
        if tag in _WANTED:
            found[tag] = _text(data, start, end)
    return Identity(found.get(_SOP_CLASS, ""), found.get(_SOP_INSTANCE, ""), found.get(_PATIENT_ID, ""))


def _data_set(file: bytes) -> tuple[bytes, int, _Encoding]:
    """The bytes, the place and the encoding of the data set behind the file meta information."""
    if file[128:132] != b"DICM":
        return file, 0, _EXPLICIT_LITTLE if file[4:6].isalpha() else _IMPLICIT_LITTLE
    position, syntax = 132, ""
    for tag, start, end in _elements(file, position, _EXPLICIT_LITTLE):
        if tag >> 16 != 2:
            break
        position = end
        if tag == _TRANSFER_SYNTAX:
            syntax = _text(file, start, end)
    if syntax == _DEFLATED:
        return _inflated(file, position), 0, _EXPLICIT_LITTLE
    return (
        file,
        position,
        {_IMPLICIT: _IMPLICIT_LITTLE, _BIG_ENDIAN: _EXPLICIT_BIG}.get(syntax, _EXPLICIT_LITTLE),
    )


def _inflated(file: bytes, position: int) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(memoryview(file)[position:], _INFLATED)
    except zlib.error:
        return b""


def _text(data: bytes, start: int, end: int) -> str:
    return data[start : min(end, start + _LONGEST_VALUE)].decode("latin-1").strip("\0 ")


def _elements(data: bytes, position: int, encoding: _Encoding) -> Iterator[tuple[int, int, int]]:
    """Tag, start and end of the value of each element that is not inside a sequence."""
    depth = 0
    for _ in range(_MOST_ELEMENTS):
        if position + 8 > len(data):
            return
        group, number = encoding.tag.unpack_from(data, position)
        tag = group << 16 | number
        start, length = _length(data, position, group, encoding)
        if group == _DELIMITERS and tag != _ITEM:
            depth -= 1
        elif length == _UNDEFINED:
            depth += 1
        elif depth == 0 and tag != _ITEM:
            yield tag, start, start + length
        position = start + (length if length != _UNDEFINED else 0)


def _length(data: bytes, position: int, group: int, encoding: _Encoding) -> tuple[int, int]:
    """Where a value starts, and its length."""
    if not encoding.explicit or group == _DELIMITERS:
        return position + 8, int(encoding.long.unpack_from(data, position + 4)[0])
    if data[position + 4 : position + 6] not in _LONG_VRS:
        return position + 8, int(encoding.short.unpack_from(data, position + 6)[0])
    if position + 12 > len(data):
        return len(data), 0
    return position + 12, int(encoding.long.unpack_from(data, position + 8)[0])
