# SPDX-License-Identifier: AGPL-3.0-or-later
"""The inner form to encoded data sets: UTF-8 where ASCII is not enough, every length defined (PS3.5 §7)."""

from __future__ import annotations

import base64
import struct
import zlib
from bisect import bisect
from collections.abc import Iterable
from typing import Any, Final

from ..core.dataset import BINARY_VRS, DataSet, Element
from ..core.tags import SPECIFIC_CHARACTER_SET
from .dimse_charset import UTF8_TERM
from .dimse_syntax import IMPLICIT, NUMBER_CODES, SHORT_VRS, Syntax, swapped

_ITEM: Final = (0xFFFE, 0xE000)
_LONGEST_SHORT: Final = 0xFFFE
_NAME_GROUPS: Final = ("Alphabetic", "Ideographic", "Phonetic")


def encode(dataset: DataSet, syntax: Syntax) -> bytes:
    """Encode a data set, with (0008,0005) if any text in it needs more than ASCII.

    Raises:
        ValueError, struct.error: an element is not of the inner form.
    """
    encoder = _Encoder(syntax)
    encoded = encoder.whole(dataset)
    return _deflated(encoded) if syntax.deflated else encoded


def _deflated(plain: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    encoded = deflater.compress(plain) + deflater.flush()
    return encoded + b"\0" if len(encoded) % 2 else encoded


class _Encoder:
    """Writes one data set and notes whether UTF-8 was needed."""

    def __init__(self, syntax: Syntax) -> None:
        self._syntax = syntax
        self._needs_utf8 = False

    def whole(self, dataset: DataSet) -> bytes:
        tags = sorted(dataset.keys() - {SPECIFIC_CHARACTER_SET})
        elements = [self._element(tag, dataset[tag]) for tag in tags]
        if self._needs_utf8:
            declared = self._element(SPECIFIC_CHARACTER_SET, {"vr": "CS", "Value": [UTF8_TERM]})
            elements.insert(bisect(tags, SPECIFIC_CHARACTER_SET), declared)
        return b"".join(elements)

    def _level(self, dataset: DataSet) -> bytes:
        encoded = bytearray()
        for tag in sorted(dataset.keys() - {SPECIFIC_CHARACTER_SET}):
            encoded += self._element(tag, dataset[tag])
        return bytes(encoded)

    def _element(self, tag: str, element: Element) -> bytes:
        vr = element["vr"]
        value = self._items(element.get("Value") or ()) if vr == "SQ" else self._value(vr, element)
        order = self._syntax.order
        numbers = (int(tag[:4], 16), int(tag[4:], 16))
        if not self._syntax.explicit:
            return struct.pack(f"{order}HHL", *numbers, len(value)) + value
        if vr not in SHORT_VRS:
            return struct.pack(f"{order}HH2sHL", *numbers, vr.encode("ascii"), 0, len(value)) + value
        if len(value) <= _LONGEST_SHORT:
            return struct.pack(f"{order}HH2sH", *numbers, vr.encode("ascii"), len(value)) + value
        return self._too_long(numbers, vr, element)

    def _too_long(self, numbers: tuple[int, int], vr: str, element: Element) -> bytes:
        """What does not fit into 16 bits of length goes as UN, which is always little endian (PS3.5 §6.2.2)."""
        plain = _Encoder(IMPLICIT)
        value = plain._value(vr, element)
        self._needs_utf8 |= plain._needs_utf8
        return struct.pack(f"{self._syntax.order}HH2sHL", *numbers, b"UN", 0, len(value)) + value

    def _value(self, vr: str, element: Element) -> bytes:
        if vr in BINARY_VRS:
            return self._binary(vr, element.get("InlineBinary") or "")
        values = element.get("Value")
        if not values:
            return b""
        if vr in NUMBER_CODES:
            return _numbers(values, NUMBER_CODES[vr], self._syntax.order)
        if vr == "AT":
            halves = [int(half, 16) for one in values if one for half in (one[:4], one[4:])]
            return struct.pack(f"{self._syntax.order}{len(halves)}H", *halves)
        return self._text(vr, values)

    def _items(self, items: Iterable[DataSet]) -> bytes:
        encoded = bytearray()
        for item in items:
            level = self._level(item)
            encoded += struct.pack(f"{self._syntax.order}HHL", *_ITEM, len(level)) + level
        return bytes(encoded)

    def _binary(self, vr: str, inline: str) -> bytes:
        binary = base64.b64decode(inline, validate=True)
        binary = swapped(binary, vr) if self._syntax.order == ">" else binary
        return binary + b"\0" if len(binary) % 2 else binary

    def _text(self, vr: str, values: list[Any]) -> bytes:
        text = "\\".join(_written(one) for one in values)
        if text.isascii():
            encoded = text.encode("ascii")
        else:
            self._needs_utf8 = True
            encoded = text.encode("utf-8", errors="replace")
        if len(encoded) % 2:
            encoded += b"\0" if vr == "UI" else b" "
        return encoded


def _written(one: Any) -> str:
    if one is None:
        return ""
    if isinstance(one, dict):
        return "=".join(one.get(name) or "" for name in _NAME_GROUPS).rstrip("=")
    return str(one)


def _numbers(values: list[Any], code: str, order: str) -> bytes:
    convert = float if code in "fd" else int
    found = [convert(one) for one in values if one is not None]
    return struct.pack(f"{order}{len(found)}{code}", *found)
