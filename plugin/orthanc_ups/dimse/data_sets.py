# SPDX-License-Identifier: AGPL-3.0-or-later
"""Converts encoded data sets to the inner form and back (PS3.5 §6, §7 and Annex A).

Decoding is one strict pass over untrusted bytes: what is truncated, nested too deeply, too long or undecodable is
refused, never guessed. The core checks whether the values make sense. Encoding writes UTF-8 where ASCII does not
suffice, with every length defined.
"""

from __future__ import annotations

import asyncio
import base64
import struct
import zlib
from bisect import bisect
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from pydicom.datadict import private_dictionary_VR
from pydicom.valuerep import EXPLICIT_VR_LENGTH_16, EXPLICIT_VR_LENGTH_32

from ..codecs.attribute_names import public_vr
from ..codecs.corrections import Corrections
from ..codecs.encoded_values import (
    NUMBER_CODES,
    TEXTUAL_VRS,
    UTF8_TERM,
    Encodings,
    declared,
    undeclared,
    unknown_in_utf_8,
    values_of,
)
from ..core.dataset import BINARY_VRS, NAME_GROUPS, DataSet, Element
from ..core.interned import LONGEST, Interned
from ..core.refusals import refusal
from ..core.statuses import INVALID_VALUE, PROCESSING_FAILURE, RESOURCE_LIMITATION, Status, UpsError
from ..core.tags import SPECIFIC_CHARACTER_SET, is_private
from ..core.value_rules import DEEPEST
from ..settings import OrthancSettings, Settings

# --- transfer syntaxes ---


@dataclass(frozen=True, slots=True)
class Syntax:
    """One transfer syntax.

    Attributes:
        uid: Transfer Syntax UID.
        explicit: True if each element names its VR.
        order: ``<`` for little, ``>`` for big endian, as module struct spells it.
        deflated: True if the data set is compressed (PS3.5 §A.5).
    """

    uid: str
    explicit: bool
    order: str = "<"
    deflated: bool = False


IMPLICIT: Final = Syntax("1.2.840.10008.1.2", explicit=False)
EXPLICIT: Final = Syntax("1.2.840.10008.1.2.1", explicit=True)
DEFLATED: Final = Syntax("1.2.840.10008.1.2.1.99", explicit=True, deflated=True)
BIG_ENDIAN: Final = Syntax("1.2.840.10008.1.2.2", explicit=True, order=">")

SYNTAXES: Final[Mapping[str, Syntax]] = MappingProxyType(
    {syntax.uid: syntax for syntax in (EXPLICIT, IMPLICIT, DEFLATED, BIG_ENDIAN)}
)
"""By UID, in order of preference."""

UNDEFINED: Final = 0xFFFFFFFF
"""Length of a sequence or item that ends with a delimiter."""

SHORT_VRS: Final = frozenset(vr.value for vr in EXPLICIT_VR_LENGTH_16)
"""VRs whose length has 16 bits in explicit syntaxes (PS3.5 Table 7.1-2)."""

LONG_VRS: Final = frozenset(vr.value for vr in EXPLICIT_VR_LENGTH_32)
"""VRs whose length has 32 bits in explicit syntaxes (PS3.5 Table 7.1-1)."""

WORD_SIZES: Final[Mapping[str, int]] = MappingProxyType({"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8})
"""Bytes per word of the binary VRs whose words have a byte order."""


def swapped(binary: bytes, vr: str) -> bytes:
    """Binary words in the other byte order; the inner form has them little endian (PS3.18 §F.2.7)."""
    size = WORD_SIZES.get(vr, 1)
    if size == 1:
        return binary
    return b"".join(binary[offset : offset + size][::-1] for offset in range(0, len(binary), size))


# --- decoding ---

_ITEM: Final = "FFFEE000"
_ITEM_IN_UN: Final = b"\xfe\xff\x00\xe0"  # little endian, as all of UN
_ITEM_END: Final = "FFFEE00D"
_SEQUENCE_END: Final = "FFFEE0DD"
_DELIMITERS: Final = (b"\xfe\xff", b"\xff\xfe")  # the group of items and delimiters, which have no VR
_PADDING: Final = "FFFCFFFC"
_PIXEL_REPRESENTATION: Final = "00280103"
_NO_VR: Final = "none"
_VR_BYTES: Final = {vr.encode(): vr for vr in SHORT_VRS | LONG_VRS}
_AMBIGUOUS: Final = MappingProxyType(
    {"US or SS": "US", "OB or OW": "OW", "US or OW": "OW", "US or SS or OW": "OW"}
)

_PREAMBLE: Final = 128  # bytes of a DICOM file before "DICM"

_Level = tuple[DataSet, int]


_Header = tuple[str, str, int, int]
_UNPACKERS: Final = {
    order: (struct.Struct(f"{order}H").unpack_from, struct.Struct(f"{order}L").unpack_from) for order in "<>"
}


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits on the cost of decoding a data set.

    Attributes:
        nesting: greatest depth of sequences within sequences.
        parts: greatest number of elements, items and values, all counted together.
    """

    nesting: int = DEEPEST
    parts: int = 100_000


def decode(
    encoded: bytes,
    syntax: Syntax,
    bounds: Bounds,
    max_size: int,
    otherwise: Encodings,
    corrections: Corrections | None = None,
    interned: Interned | None = None,
) -> DataSet:
    """Decode a whole data set.

    Args:
        encoded: the bytes as received.
        syntax: transfer syntax of the presentation context.
        bounds: greatest nesting and number of elements.
        max_size: greatest size in bytes, after inflation.
        otherwise: encodings of non-ASCII text for which no character set is declared.
        corrections: records what is read differently from what was sent; None to correct nothing.
        interned: sequences that have been decoded before.

    Raises:
        UpsError: 0110 if the structure is broken, 0106 if an element is, 0213 if the data set is too large.
    """
    if syntax.deflated:
        encoded = _inflated(encoded, max_size)
    if len(encoded) > max_size:
        raise too_large(max_size)
    lenient = corrections if corrections and corrections.lenient else None
    if lenient and encoded[_PREAMBLE : _PREAMBLE + 4] == b"DICM":
        encoded, syntax = _without_head(encoded, syntax, lenient)
    try:
        return _Decoder(encoded, syntax, bounds, otherwise, lenient, interned).whole()
    except UpsError as error:
        if lenient is None or error.status is not PROCESSING_FAILURE:
            raise
        return _in_other_syntax(encoded, syntax, bounds, otherwise, lenient, error)


def _without_head(encoded: bytes, syntax: Syntax, corrections: Corrections) -> tuple[bytes, Syntax]:
    """The data set and syntax of a whole DICOM file, which some peers send unchanged (PS3.10 §7.1)."""
    offset, uid = _PREAMBLE + 4, ""
    while encoded[offset : offset + 2] == b"\x02\x00" and len(encoded) >= offset + 12:
        is_long = encoded[offset + 4 : offset + 6].decode("latin_1") in LONG_VRS
        start = offset + (12 if is_long else 8)
        (length,) = struct.unpack_from("<L" if is_long else "<H", encoded, start - (4 if is_long else 2))
        if encoded[offset + 2 : offset + 4] == b"\x10\x00":
            uid = encoded[start : start + length].decode("latin_1").strip(" \0")
        offset = start + length
    corrections.say("the data set came with the head of a DICOM file, which was left out")
    own_syntax = SYNTAXES.get(uid, syntax)
    return encoded[offset:], syntax if own_syntax.deflated else own_syntax


def _in_other_syntax(
    encoded: bytes,
    syntax: Syntax,
    bounds: Bounds,
    otherwise: Encodings,
    corrections: Corrections,
    error: UpsError,
) -> DataSet:
    """Decode a data set in Implicit VR although Explicit VR was negotiated, or the other way round."""
    actual = IMPLICIT if syntax.explicit else EXPLICIT
    try:
        dataset = _Decoder(encoded, actual, bounds, otherwise, corrections).whole()
    except UpsError:
        raise error from None
    if not any(public_vr(tag) for tag in dataset):
        raise error
    name = "Explicit VR" if actual.explicit else "Implicit VR"
    corrections.say(f"the data set came in {name} Little Endian, which is not what was negotiated")
    return dataset


def _inflated(encoded: bytes, max_size: int) -> bytes:
    """PS3.5 §A.5 requires the bare stream of RFC 1951; some peers add the header of RFC 1950."""
    try:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        plain = inflater.decompress(encoded, max_size + 1)
    except zlib.error as error:
        try:
            inflater = zlib.decompressobj()
            plain = inflater.decompress(encoded, max_size + 1)
        except zlib.error:
            raise UpsError(PROCESSING_FAILURE, "the data set is not deflated as negotiated") from error
    if len(plain) > max_size:
        raise too_large(max_size)
    if not inflater.eof:
        raise UpsError(PROCESSING_FAILURE, "the deflated data set is truncated")
    return plain


def too_large(max_size: int) -> UpsError:
    """The refusal of a data set of more than ``max_size`` bytes."""
    return UpsError(RESOURCE_LIMITATION, f"no room for the data set (at most {max_size} bytes)")


class _Decoder:
    """One pass over one data set.

    Each method takes the offset at which it starts, and returns the one at which it ended. ``_level`` reads the
    elements of the data set or of an item, ``_items`` the items of a sequence, and they call each other: for
    (0040,4018) with one item, ``_level`` reads its header, ``_items`` the header of the item, and a second ``_level``
    the elements in it.
    ``_trail`` has the sequences that contain the current element, for refusals such as "(0040,4018)>(0008,0100)".
    """

    def __init__(
        self,
        encoded: bytes,
        syntax: Syntax,
        bounds: Bounds,
        otherwise: Encodings,
        corrections: Corrections | None,
        interned: Interned | None = None,
    ) -> None:
        self._bytes = encoded
        self._interned = interned
        self._corrections = corrections
        self._read_as(syntax)
        self._bounds = bounds
        self._otherwise = otherwise
        self._budget = bounds.parts
        self._trail: list[tuple[str, int]] = []

    def _read_as(self, syntax: Syntax) -> None:
        self._syntax = syntax
        self._short, self._long = _UNPACKERS[syntax.order]

    def whole(self) -> DataSet:
        dataset, _ = self._level(0, len(self._bytes), self._otherwise, delimited=False)
        return dataset

    # elements and items

    def _level(self, offset: int, end: int, encodings: Encodings, *, delimited: bool) -> _Level:
        """The elements up to ``end``, or up to an Item Delimitation Item."""
        dataset: DataSet = {}
        last, is_sorted, is_ended = "", True, not delimited
        while offset < end:
            tag, written_vr, length, start = self._header(offset, end)
            if tag == _ITEM_END and delimited:
                offset, is_ended = start, True
                break
            element, offset = self._element(tag, written_vr, length, start, end, encodings, dataset)
            if tag == SPECIFIC_CHARACTER_SET:
                encodings = self._declared(element)
            elif tag[4:] != "0000" and tag != _PADDING:
                if tag in dataset:
                    raise self._fault(tag, "occurs twice", PROCESSING_FAILURE)
                dataset[tag] = element
                is_sorted = is_sorted and tag > last
                last = tag
        if not is_ended:
            raise UpsError(PROCESSING_FAILURE, "the data set ends within an item")
        return dataset if is_sorted else dict(sorted(dataset.items())), offset

    def _header(self, offset: int, end: int) -> _Header:
        """Tag, VR as written, length, and the offset of the value."""
        if end - offset < 8:
            raise UpsError(PROCESSING_FAILURE, "the data set ends within the header of an element")
        encoded, order, explicit = self._bytes, self._syntax.order, self._syntax.explicit
        tag, vr, is_short = _named(encoded[offset : offset + 6 if explicit else offset + 4], order)
        if is_short:
            return tag, vr, self._short(encoded, offset + 6)[0], offset + 8
        if not vr:
            return tag, vr, self._long(encoded, offset + 4)[0], offset + 8
        if vr == _NO_VR and offset and not any(encoded[offset:end]):
            return _PADDING, "OB", end - offset - 8, offset + 8  # padding with zeros to a block size
        if vr == _NO_VR:
            raise self._fault(tag, "has no VR, expected an explicit one", PROCESSING_FAILURE)
        if end - offset < 12:
            raise UpsError(PROCESSING_FAILURE, "the data set ends within the header of an element")
        return tag, vr, self._long(encoded, offset + 8)[0], offset + 12

    def _element(
        self,
        tag: str,
        written_vr: str,
        length: int,
        start: int,
        end: int,
        encodings: Encodings,
        before: DataSet,
    ) -> tuple[Element, int]:
        if tag >= "FFFE0000":  # the core checks what is below group 0008
            raise self._fault(tag, "is not allowed in a data set", PROCESSING_FAILURE)
        self._spend(tag, 1)
        vr = written_vr if written_vr not in ("", "UN") else _vr_of(tag, before)
        above = self._syntax
        if written_vr == "UN" and (vr != "UN" or length == UNDEFINED):
            self._read_as(IMPLICIT)  # PS3.5 §6.2.2
        if vr == "SQ" and self._interned and not self._trail and length <= LONGEST:
            element, offset = self._interned_items(self._interned, tag, start, end, length, encodings)
        elif vr == "SQ" or length == UNDEFINED:
            if vr not in ("SQ", "UN"):
                raise self._fault(tag, "has undefined length, which only a sequence has", PROCESSING_FAILURE)
            element, offset = self._items(tag, start, end, length, encodings)
        else:
            offset = self._ended(tag, start, end, length)
            element = (vr == "UN" and self._unknown_sequence(tag, start, offset, encodings)) or self._value(
                tag, vr, start, offset, encodings
            )
        if above is not self._syntax:
            self._read_as(above)
        return element, offset

    def _unknown_sequence(self, tag: str, start: int, end: int, encodings: Encodings) -> Element | None:
        """Try to decode an element of VR UN as a sequence, with the character set of the data set."""
        if self._corrections is None or not self._bytes.startswith(_ITEM_IN_UN, start, end):
            return None
        above, trail, budget = self._syntax, list(self._trail), self._budget
        self._read_as(IMPLICIT)
        try:
            element, _ = self._items(tag, start, end, end - start, encodings)
        except UpsError:
            self._trail, self._budget = trail, budget
            return None
        finally:
            self._read_as(above)
        self._corrections.note(self._path(tag), "holds items, so its VR is SQ now")
        return element

    def _spend(self, tag: str, parts: int) -> None:
        self._budget -= parts
        if self._budget < 0:
            what = f"is one of too many elements and values: at most {self._bounds.parts}"
            raise self._fault(tag, what, RESOURCE_LIMITATION)

    def _ended(self, tag: str, start: int, end: int, length: int) -> int:
        if length > end - start:
            raise self._fault(tag, "is longer than what holds it", PROCESSING_FAILURE)
        return start + length

    def _interned_items(
        self, interned: Interned, tag: str, start: int, end: int, length: int, encodings: Encodings
    ) -> tuple[Element, int]:
        """A short top-level sequence, from ``interned`` if it was decoded before without a correction."""
        offset = self._ended(tag, start, end, length)
        corrections = self._corrections
        key = tag, self._bytes[start:offset], self._syntax, encodings, corrections is None
        equal_element = interned.get(key)
        if equal_element is not None and equal_element[1] <= self._budget:
            self._budget -= equal_element[1]
            return equal_element[0], offset
        budget, count = self._budget, corrections.count if corrections else 0
        element, offset = self._items(tag, start, end, length, encodings)
        if corrections is None or corrections.count == count:
            interned.add(key, element, budget - self._budget)
        return element, offset

    def _items(
        self, tag: str, offset: int, end: int, length: int, encodings: Encodings
    ) -> tuple[Element, int]:
        items: list[DataSet] = []
        delimited = length == UNDEFINED
        until = end if delimited else self._ended(tag, offset, end, length)
        while offset < until:
            inner, _, size, start = self._header(offset, until)
            if inner == _SEQUENCE_END and delimited:
                return _sequence(items), start
            if inner != _ITEM:
                raise self._fault(tag, "holds something else than items", PROCESSING_FAILURE)
            open_item = size == UNDEFINED
            item_end = until if open_item else self._ended(tag, start, until, size)
            self._descend(tag, len(items) + 1)
            item, offset = self._level(start, item_end, encodings, delimited=open_item)
            self._trail.pop()
            items.append(item)
        if delimited:
            raise self._fault(tag, "is not ended", PROCESSING_FAILURE)
        return _sequence(items), offset

    def _descend(self, tag: str, number: int) -> None:
        if len(self._trail) >= self._bounds.nesting:
            what = f"is nested too deeply: at most {self._bounds.nesting} sequences within one another"
            raise refusal(INVALID_VALUE, tuple(self._trail[:1]), tag, what)
        self._spend(tag, 1)
        self._trail.append((tag, number))

    # values

    def _value(self, tag: str, vr: str, start: int, end: int, encodings: Encodings) -> Element:
        raw = self._bytes[start:end]
        if not raw:
            return {"vr": vr}
        order = self._syntax.order
        if vr in BINARY_VRS:
            if vr == "UN" and self._corrections and not raw.isascii() and is_private(tag):
                text = unknown_in_utf_8(raw, encodings)
                if text is not None:
                    # otherwise mislabelled, because data sets are always sent in UTF-8
                    self._corrections.note(self._path(tag), "holds text, which is UTF-8 now")
                    raw = text
            binary = swapped(raw, vr) if order == ">" else raw
            return {"vr": vr, "InlineBinary": base64.b64encode(binary).decode("ascii")}
        more = len(raw) // 8 if vr in NUMBER_CODES else raw.count(b"\\")
        if more:
            self._spend(tag, more)
        try:
            values = values_of(raw, vr, order, encodings)
        except (ValueError, struct.error) as error:
            raise self._fault(tag, _expected(vr, error)) from error
        if self._corrections and not raw.isascii() and encodings is self._otherwise and vr in TEXTUAL_VRS:
            self._corrections.say(
                f"text without Specific Character Set (0008,0005) was read as {encodings[0]} (DefaultEncoding)"
            )
        return {"vr": vr, "Value": values} if values != [None] else {"vr": vr}

    def _path(self, tag: str) -> str:
        return ".".join((*(above for above, _ in self._trail), tag))

    def _declared(self, element: Element) -> Encodings:
        terms = "\\".join(str(term or "") for term in element.get("Value", ()))
        try:
            return declared(terms, self._otherwise)
        except LookupError as error:
            raise self._fault(SPECIFIC_CHARACTER_SET, f"is not valid: {error.args[0]}") from error

    def _fault(self, tag: str, what: str, status: Status = INVALID_VALUE) -> UpsError:
        return refusal(status, tuple(self._trail), tag, what)


def _sequence(items: list[DataSet]) -> Element:
    return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}


def _expected(vr: str, error: Exception) -> str:
    if isinstance(error, UnicodeError):
        return "is not text in the declared character set"
    return f"is not valid for VR {vr}"


# tags and VRs


@lru_cache(maxsize=4096)
def _named(head: bytes, order: str) -> tuple[str, str, bool]:
    """The tag of an element, its VR ("" if none is written), and whether its length has 16 bits.

    A VR of a later edition counts as UN (PS3.5 §6.2.2); anything else is not a VR.
    """
    tag = "{:04X}{:04X}".format(*struct.unpack_from(f"{order}HH", head))
    code = head[4:]
    if not code or head[:2] in _DELIMITERS:
        return tag, "", False
    otherwise = "UN" if code.isalpha() and code.isupper() else _NO_VR
    vr = _VR_BYTES.get(code, otherwise)
    return tag, vr, vr in SHORT_VRS


# VRs that are not written


def _vr_of(tag: str, before: DataSet) -> str:
    if is_private(tag):
        return _private_vr(tag, before)
    vr = public_vr(tag) or "UN"
    if vr == "US or SS" and before.get(_PIXEL_REPRESENTATION, {}).get("Value") == [1]:
        return "SS"
    return _AMBIGUOUS.get(vr, vr)


def _private_vr(tag: str, before: DataSet) -> str:
    if "0010" <= tag[4:] <= "00FF":
        return "LO"
    creator = before.get(f"{tag[:4]}00{tag[4:6]}", {}).get("Value", [None])[0]
    if not isinstance(creator, str):
        return "UN"
    try:
        vr = private_dictionary_VR(int(tag, 16), creator)
    except KeyError:
        return "UN"
    return _AMBIGUOUS.get(vr, vr)


# --- encoding ---

_ITEM_TAG: Final = (0xFFFE, 0xE000)
_LONGEST_SHORT: Final = 0xFFFE
_NONE: Final[frozenset[str]] = frozenset()
_PACKERS: Final = {
    order: (struct.Struct(f"{order}H").pack, struct.Struct(f"{order}L").pack) for order in "<>"
}


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
    """Encodes one data set, and notes whether it needs UTF-8."""

    def __init__(self, syntax: Syntax) -> None:
        self._syntax = syntax
        self._needs_utf8 = False
        self._short_vrs = SHORT_VRS if syntax.explicit else _NONE
        self._short, self._long = _PACKERS[syntax.order]

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
        """A value too long for a 16-bit length is written as UN, always little endian (PS3.5 §6.2.2)."""
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
            halves = [int(half, 16) for tag in values if tag for half in (tag[:4], tag[4:])]
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
        text = "\\".join([value if type(value) is str else _written(value) for value in values])
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
    """Tag and VR, which precede the length of an element (PS3.5 §7.1)."""
    numbers = struct.pack(f"{order}HH", int(tag[:4], 16), int(tag[4:], 16))
    if not explicit:
        return numbers
    return numbers + vr.encode("ascii") + (b"" if vr in SHORT_VRS else b"\0\0")


@lru_cache(maxsize=2)
def _item_head(order: str) -> bytes:
    return struct.pack(f"{order}HH", *_ITEM_TAG)


def _written(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return "=".join(value.get(name) or "" for name in NAME_GROUPS).rstrip("=")
    return str(value)


def _numbers(values: list[Any], code: str, order: str) -> bytes:
    convert = float if code in "fd" else int
    numbers = [convert(value) for value in values if value is not None]
    return struct.pack(f"{order}{len(numbers)}{code}", *numbers)


# --- both, within the limits of the settings ---

_LARGE: Final = 64 * 1024  # bytes; below, decoding takes a few milliseconds at most
_FIRST_OF_CONTENT: Final = "00080000"  # below are command sets, file meta information and directories


class Codec:
    """Decodes and encodes within the limits of the settings."""

    def __init__(self, settings: Settings, orthanc_settings: OrthancSettings) -> None:
        self._bounds = Bounds(settings.maximum_nesting)
        self._max_size = settings.maximum_data_set_size
        self._strict = settings.strict
        self._otherwise = undeclared(orthanc_settings.default_encoding)
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="UPS-DECODE")
        self._interned = Interned()

    def corrections(self) -> Corrections:
        """An empty record of corrections, for a request whose answer can report them."""
        return Corrections(lenient=not self._strict)

    async def decoded(
        self, encoded: bytes, syntax: Syntax, corrections: Corrections | None = None
    ) -> DataSet:
        """Decode a data set. Raises UpsError (0106, 0110, 0213).

        ``corrections`` records what is read differently from what was sent. Without it nothing is corrected, but
        elements below group 0008 are dropped unless ``Ups.Strict`` is set.
        """
        limits = self._bounds, self._max_size, self._otherwise
        if len(encoded) <= _LARGE and not syntax.deflated:
            dataset = decode(encoded, syntax, *limits, corrections, self._interned)
        else:
            loop = asyncio.get_running_loop()
            dataset = await loop.run_in_executor(self._threads, decode, encoded, syntax, *limits, corrections)
        if corrections or self._strict or not dataset or next(iter(dataset)) >= _FIRST_OF_CONTENT:
            return dataset
        return {tag: element for tag, element in dataset.items() if tag >= _FIRST_OF_CONTENT}

    def too_large(self) -> UpsError:
        """The refusal of a data set that was discarded on arrival."""
        return too_large(self._max_size)

    def encoded(self, dataset: DataSet, syntax: Syntax) -> bytes:
        """Encode a data set."""
        return encode(dataset, syntax)

    def close(self) -> None:
        """Stop the decoding threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)
