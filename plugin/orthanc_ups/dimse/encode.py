# SPDX-License-Identifier: AGPL-3.0-or-later
"""The inner form to encoded data sets: UTF-8 where ASCII is not enough, every length defined (PS3.5 §7)."""

from __future__ import annotations

import base64
import struct
import zlib
from bisect import bisect
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

from ..codecs.charset import UTF8_TERM
from ..codecs.encoded_values import NAME_GROUPS, NUMBER_CODES
from ..core.dataset import BINARY_VRS, DataSet, Element
from ..core.tags import SPECIFIC_CHARACTER_SET
from .syntax import IMPLICIT, SHORT_VRS, Syntax, swapped

_ITEM: Final = (0xFFFE, 0xE000)
_LONGEST_SHORT: Final = 0xFFFE
_NONE: Final[frozenset[str]] = frozenset()
_LENGTHS: Final = {f"{order}{code}": struct.Struct(f"{order}{code}").pack for order in "<>" for code in "HL"}


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
        self._short_vrs = SHORT_VRS if syntax.explicit else _NONE
        self._short, self._long = (_LENGTHS[f"{syntax.order}{code}"] for code in "HL")

    def whole(self, dataset: DataSet) -> bytes:
        tags = [tag for tag in sorted(dataset) if tag != SPECIFIC_CHARACTER_SET]
        elements = [self._element(tag, dataset[tag]) for tag in tags]
        if self._needs_utf8:
            declared = self._element(SPECIFIC_CHARACTER_SET, {"vr": "CS", "Value": [UTF8_TERM]})
            elements.insert(bisect(tags, SPECIFIC_CHARACTER_SET), declared)
        return b"".join(elements)

    def _level(self, dataset: DataSet) -> bytes:
        return b"".join(
            [self._element(tag, dataset[tag]) for tag in sorted(dataset) if tag != SPECIFIC_CHARACTER_SET]
        )

    def _element(self, tag: str, element: Element) -> bytes:
        vr = element["vr"]
        value = self._items(element.get("Value") or ()) if vr == "SQ" else self._value(vr, element)
        head = _head(tag, vr, self._syntax.order, self._syntax.explicit)
        if vr not in self._short_vrs:
            return head + self._long(len(value)) + value
        if len(value) <= _LONGEST_SHORT:
            return head + self._short(len(value)) + value
        return self._too_long((int(tag[:4], 16), int(tag[4:], 16)), vr, element)

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
        start = _item_head(self._syntax.order)
        encoded: list[bytes] = []
        for level in map(self._level, items):
            encoded += (start, self._long(len(level)), level)
        return b"".join(encoded)

    def _binary(self, vr: str, inline: str) -> bytes:
        binary = base64.b64decode(inline, validate=True)
        binary = swapped(binary, vr) if self._syntax.order == ">" else binary
        return binary + b"\0" if len(binary) % 2 else binary

    def _text(self, vr: str, values: list[Any]) -> bytes:
        text = "\\".join([one if type(one) is str else _written(one) for one in values])
        if text.isascii():
            encoded = text.encode("ascii")
        else:
            self._needs_utf8 = True
            encoded = text.encode("utf-8", errors="replace")
        if len(encoded) % 2:
            encoded += b"\0" if vr == "UI" else b" "
        return encoded


@lru_cache(maxsize=4096)
def _head(tag: str, vr: str, order: str, explicit: bool) -> bytes:
    """What stands before the length of an element (PS3.5 §7.1)."""
    numbers = struct.pack(f"{order}HH", int(tag[:4], 16), int(tag[4:], 16))
    if not explicit:
        return numbers
    return numbers + vr.encode("ascii") + (b"" if vr in SHORT_VRS else b"\0\0")


@lru_cache(maxsize=2)
def _item_head(order: str) -> bytes:
    return struct.pack(f"{order}HH", *_ITEM)


def _written(one: Any) -> str:
    if one is None:
        return ""
    if isinstance(one, dict):
        return "=".join(one.get(name) or "" for name in NAME_GROUPS).rstrip("=")
    return str(one)


def _numbers(values: list[Any], code: str, order: str) -> bytes:
    convert = float if code in "fd" else int
    found = [convert(one) for one in values if one is not None]
    return struct.pack(f"{order}{len(found)}{code}", *found)
