# SPDX-License-Identifier: AGPL-3.0-or-later
"""Encoded data sets to the inner form, without loss and without trust (PS3.5 §6 and §7).

One strict pass over the bytes: what is truncated, too deep, too long or not decodable is refused, never guessed.
Whether the values make sense is the core's business.
"""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from pydicom.datadict import private_dictionary_VR

from ..codecs.attribute_names import public_vr
from ..core.dataset import BINARY_VRS, DataSet, Element
from ..core.refusals import refusal
from ..core.statuses import INVALID_VALUE, PROCESSING_FAILURE, RESOURCE_LIMITATION, Status, UpsError
from ..core.tags import SPECIFIC_CHARACTER_SET
from ..core.value_rules import DEEPEST
from .charset import IN_NAMES, IN_TEXT, IN_VALUES, Encodings, declared, decoded
from .syntax import IMPLICIT, LONG_VRS, NUMBER_CODES, SHORT_VRS, SINGLE_TEXT_VRS, UNDEFINED, Syntax, swapped

_ITEM: Final = "FFFEE000"
_ITEM_END: Final = "FFFEE00D"
_SEQUENCE_END: Final = "FFFEE0DD"
_DELIMITERS: Final = (b"\xfe\xff", b"\xff\xfe")  # the group of items and delimiters, which have no VR
_PADDING: Final = "FFFCFFFC"
_PIXEL_REPRESENTATION: Final = "00280103"
_NO_VR: Final = "none"
_VR_BYTES: Final = {vr.encode(): vr for vr in SHORT_VRS | LONG_VRS}
_NAME_GROUPS: Final = ("Alphabetic", "Ideographic", "Phonetic")
_AMBIGUOUS: Final = MappingProxyType(
    {"US or SS": "US", "OB or OW": "OW", "US or OW": "OW", "US or SS or OW": "OW"}
)

_Values = list[Any]
_Level = tuple[DataSet, int]


_Header = tuple[str, str, int, int]
_LENGTHS: Final = {
    f"{order}{form}": struct.Struct(f"{order}{form}").unpack_from for order in "<>" for form in "HL"
}


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a data set may ask of us.

    Attributes:
        nesting: greatest depth of sequences within sequences.
        parts: greatest number of elements, items and values, all counted together.
    """

    nesting: int = DEEPEST
    parts: int = 100_000


def decode(encoded: bytes, syntax: Syntax, bounds: Bounds, most: int, otherwise: Encodings) -> DataSet:
    """Decode a whole data set.

    Args:
        encoded: the bytes as they came.
        syntax: transfer syntax of the presentation context.
        bounds: greatest nesting and number of elements.
        most: greatest size in bytes, after inflation.
        otherwise: encodings of non-ASCII text for which no character set is declared.

    Raises:
        UpsError: 0110 if the structure is broken, 0106 if an element is, 0213 if it is too large.
    """
    if syntax.deflated:
        encoded = _inflated(encoded, most)
    if len(encoded) > most:
        raise too_large(most)
    return _Decoder(encoded, syntax, bounds, otherwise).whole()


def _inflated(encoded: bytes, most: int) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        plain = inflater.decompress(encoded, most + 1)
    except zlib.error as error:
        raise UpsError(PROCESSING_FAILURE, "the data set is not deflated as negotiated") from error
    if len(plain) > most:
        raise too_large(most)
    if not inflater.eof:
        raise UpsError(PROCESSING_FAILURE, "the deflated data set is truncated")
    return plain


def too_large(most: int) -> UpsError:
    """The refusal of a data set that we have no room for; ``most`` bytes it may have at best."""
    return UpsError(RESOURCE_LIMITATION, f"no room for the data set (at most {most} bytes)")


class _Decoder:
    """One pass over one data set."""

    def __init__(self, encoded: bytes, syntax: Syntax, bounds: Bounds, otherwise: Encodings) -> None:
        self._bytes = encoded
        self._read_as(syntax)
        self._bounds = bounds
        self._otherwise = otherwise
        self._left = bounds.parts
        self._trail: list[tuple[str, int]] = []

    def _read_as(self, syntax: Syntax) -> None:
        self._syntax = syntax
        self._short, self._long = (_LENGTHS[f"{syntax.order}{form}"] for form in "HL")

    def whole(self) -> DataSet:
        found, _ = self._level(0, len(self._bytes), self._otherwise, delimited=False)
        return found

    # --- elements and items ---

    def _level(self, place: int, end: int, encodings: Encodings, *, delimited: bool) -> _Level:
        """The elements up to ``end``, or up to an Item Delimitation Item."""
        found: DataSet = {}
        last = ""
        while place < end:
            tag, given, length, start = self._header(place, end)
            if tag == _ITEM_END and delimited:
                return self._sorted(found, last), start
            element, place = self._element(tag, given, length, start, end, encodings, found)
            if tag == SPECIFIC_CHARACTER_SET:
                encodings = self._declared(element)
            elif tag[4:] != "0000" and tag != _PADDING:
                if tag in found:
                    raise self._fault(tag, "stands twice", PROCESSING_FAILURE)
                found[tag] = element
                last = tag if tag > last else "G"  # no tag is greater: out of order
        if delimited:
            raise UpsError(PROCESSING_FAILURE, "the data set ends within an item")
        return self._sorted(found, last), place

    def _sorted(self, found: DataSet, last: str) -> DataSet:
        return dict(sorted(found.items())) if last == "G" else found

    def _header(self, place: int, end: int) -> _Header:
        """Tag, VR as it is written, length, and where the value starts."""
        if end - place < 8:
            raise UpsError(PROCESSING_FAILURE, "the data set ends within the header of an element")
        encoded, order, explicit = self._bytes, self._syntax.order, self._syntax.explicit
        tag, vr, is_short = _named(encoded[place : place + 6 if explicit else place + 4], order)
        if is_short:
            return tag, vr, self._short(encoded, place + 6)[0], place + 8
        if not vr:
            return tag, vr, self._long(encoded, place + 4)[0], place + 8
        if vr == _NO_VR:
            raise self._fault(tag, "has no VR, expected an explicit one", PROCESSING_FAILURE)
        if end - place < 12:
            raise UpsError(PROCESSING_FAILURE, "the data set ends within the header of an element")
        return tag, vr, self._long(encoded, place + 8)[0], place + 12

    def _element(
        self, tag: str, given: str, length: int, start: int, end: int, encodings: Encodings, before: DataSet
    ) -> tuple[Element, int]:
        self._check(tag)
        vr = given if given not in ("", "UN") else _vr_of(tag, before)
        above = self._syntax
        if given == "UN" and (vr != "UN" or length == UNDEFINED):
            self._read_as(IMPLICIT)  # PS3.5 §6.2.2
        if vr == "SQ" or length == UNDEFINED:
            if vr not in ("SQ", "UN"):
                raise self._fault(tag, "has undefined length, which only a sequence has", PROCESSING_FAILURE)
            element, place = self._items(tag, start, end, length, encodings)
        else:
            place = self._ended(tag, start, end, length)
            element = self._value(tag, vr, start, place, encodings)
        if above is not self._syntax:
            self._read_as(above)
        return element, place

    def _check(self, tag: str) -> None:
        if not "00080000" <= tag < "FFFE0000":
            raise self._fault(tag, "cannot stand in a data set", PROCESSING_FAILURE)
        self._spend(tag, 1)

    def _spend(self, tag: str, parts: int) -> None:
        self._left -= parts
        if self._left < 0:
            most = f"is one of too many elements and values: at most {self._bounds.parts}"
            raise self._fault(tag, most, RESOURCE_LIMITATION)

    def _ended(self, tag: str, start: int, end: int, length: int) -> int:
        if length > end - start:
            raise self._fault(tag, "is longer than what holds it", PROCESSING_FAILURE)
        return start + length

    def _items(
        self, tag: str, place: int, end: int, length: int, encodings: Encodings
    ) -> tuple[Element, int]:
        items: list[DataSet] = []
        delimited = length == UNDEFINED
        until = end if delimited else self._ended(tag, place, end, length)
        while place < until:
            inner, _, size, start = self._header(place, until)
            if inner == _SEQUENCE_END and delimited:
                return _sequence(items), start
            if inner != _ITEM:
                raise self._fault(tag, "holds something else than items", PROCESSING_FAILURE)
            open_item = size == UNDEFINED
            item_end = until if open_item else self._ended(tag, start, until, size)
            self._descend(tag, len(items) + 1)
            item, place = self._level(start, item_end, encodings, delimited=open_item)
            self._trail.pop()
            items.append(item)
        if delimited:
            raise self._fault(tag, "is not ended", PROCESSING_FAILURE)
        return _sequence(items), place

    def _descend(self, tag: str, number: int) -> None:
        if len(self._trail) >= self._bounds.nesting:
            most = f"is nested too deeply: at most {self._bounds.nesting} sequences within one another"
            raise refusal(INVALID_VALUE, tuple(self._trail[:1]), tag, most)
        self._spend(tag, 1)
        self._trail.append((tag, number))

    # --- values ---

    def _value(self, tag: str, vr: str, start: int, end: int, encodings: Encodings) -> Element:
        raw = self._bytes[start:end]
        if not raw:
            return {"vr": vr}
        order = self._syntax.order
        if vr in BINARY_VRS:
            binary = swapped(raw, vr) if order == ">" else raw
            return {"vr": vr, "InlineBinary": base64.b64encode(binary).decode("ascii")}
        more = len(raw) // 8 if vr in NUMBER_CODES else raw.count(b"\\")
        if more:
            self._spend(tag, more)
        try:
            values = _values(raw, vr, order, encodings)
        except (ValueError, struct.error) as error:
            raise self._fault(tag, _expected(vr, error)) from error
        return {"vr": vr, "Value": values} if values != [None] else {"vr": vr}

    def _declared(self, element: Element) -> Encodings:
        terms = "\\".join(str(one or "") for one in element.get("Value", ()))
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


# --- tags and VRs ---


@lru_cache(maxsize=4096)
def _named(head: bytes, order: str) -> tuple[str, str, bool]:
    """The tag at the head of an element, the VR behind it, "" if none is written, and whether its length has 16 bits.

    A VR of a later edition is unknown (PS3.5 §6.2.2); anything else is no VR.
    """
    tag = "{:04X}{:04X}".format(*struct.unpack_from(f"{order}HH", head))
    code = head[4:]
    if not code or head[:2] in _DELIMITERS:
        return tag, "", False
    otherwise = "UN" if code.isalpha() and code.isupper() else _NO_VR
    vr = _VR_BYTES.get(code, otherwise)
    return tag, vr, vr in SHORT_VRS


# --- VRs that are not written ---


def _vr_of(tag: str, before: DataSet) -> str:
    if int(tag[3], 16) % 2:
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


# --- values of each VR ---


def _values(raw: bytes, vr: str, order: str, encodings: Encodings) -> _Values:
    code = NUMBER_CODES.get(vr)
    if code:
        return _numbers(raw, code, order)
    return _READERS[vr](raw, order, encodings)


def _numbers(raw: bytes, code: str, order: str) -> _Values:
    count, rest = divmod(len(raw), struct.calcsize(f"<{code}"))
    if rest:
        raise ValueError("not a whole number of values")
    found = struct.unpack(f"{order}{count}{code}", raw)
    return [_float(one) for one in found] if code in "fd" else list(found)


def _float(one: float) -> float | str:
    if math.isfinite(one):
        return one
    return "NaN" if math.isnan(one) else "Infinity" if one > 0 else "-Infinity"


def _attribute_tags(raw: bytes, order: str, encodings: Encodings) -> _Values:
    found = _numbers(raw, "H", order)
    if len(found) % 2:
        raise ValueError("half a tag")
    return [f"{group:04X}{number:04X}" for group, number in zip(found[::2], found[1::2], strict=True)]


def _plain(raw: bytes, order: str, encodings: Encodings) -> _Values:
    return [one.strip(" \0") or None for one in raw.decode("ascii").split("\\")]


def _dates(raw: bytes, order: str, encodings: Encodings) -> _Values:
    return [one.rstrip(" \0") or None for one in raw.decode("ascii").split("\\")]


def _uri(raw: bytes, order: str, encodings: Encodings) -> _Values:
    return [raw.decode("ascii").rstrip(" \0") or None]


def _texts(raw: bytes, order: str, encodings: Encodings) -> _Values:
    return [one.rstrip(" \0") or None for one in decoded(raw, encodings, IN_VALUES).split("\\")]


def _text(raw: bytes, order: str, encodings: Encodings) -> _Values:
    return [decoded(raw, encodings, IN_TEXT).rstrip(" \0") or None]


def _names(raw: bytes, order: str, encodings: Encodings) -> _Values:
    return [_name(one) for one in decoded(raw, encodings, IN_NAMES).split("\\")]


def _name(one: str) -> dict[str, str] | None:
    groups = [group.rstrip(" \0") for group in one.split("=")]
    if len(groups) > len(_NAME_GROUPS):
        raise ValueError("more than three groups")
    return {name: group for name, group in zip(_NAME_GROUPS, groups, strict=False) if group} or None


_READERS: Final[Mapping[str, Callable[[bytes, str, Encodings], _Values]]] = MappingProxyType(
    {
        **dict.fromkeys(("AE", "AS", "CS", "DS", "IS", "UI"), _plain),
        **dict.fromkeys(("DA", "DT", "TM"), _dates),
        **dict.fromkeys(("LO", "SH", "UC"), _texts),
        **dict.fromkeys(SINGLE_TEXT_VRS, _text),
        "AT": _attribute_tags,
        "PN": _names,
        "UR": _uri,
    }
)
