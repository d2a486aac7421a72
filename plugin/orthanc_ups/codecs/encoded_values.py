# SPDX-License-Identifier: AGPL-3.0-or-later
"""The bytes of a value field to values of the inner form, for each VR (PS3.5 §6.2)."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from .charset import IN_NAMES, IN_TEXT, IN_VALUES, Encodings, decoded

NUMBER_CODES: Final[Mapping[str, str]] = MappingProxyType(
    {"US": "H", "SS": "h", "UL": "L", "SL": "l", "UV": "Q", "SV": "q", "FL": "f", "FD": "d"}
)
"""How module struct calls the VRs that hold numbers."""

SINGLE_TEXT_VRS: Final = frozenset({"LT", "ST", "UR", "UT"})
"""VRs with one value only, in which a backslash is a character like others."""

NAME_GROUPS: Final = ("Alphabetic", "Ideographic", "Phonetic")

_Values = list[Any]


def values_of(raw: bytes, vr: str, order: str, encodings: Encodings) -> _Values:
    """The values of any VR but SQ and those that stay bytes; ``order`` is ``<`` or ``>``.

    Raises:
        ValueError, struct.error: the bytes are no values of that VR; UnicodeError if they are no text of the
            character set.
    """
    code = NUMBER_CODES.get(vr)
    if code:
        return _numbers(raw, code, order)
    return _READERS[vr](raw, order, encodings)


def name_of_text(one: str) -> dict[str, str] | None:
    """A person name as ``Alphabetic=Ideographic=Phonetic``. Raises ValueError for more groups."""
    groups = [group.rstrip(" \0") for group in one.split("=")]
    if len(groups) > len(NAME_GROUPS):
        raise ValueError("more than three groups")
    return {name: group for name, group in zip(NAME_GROUPS, groups, strict=False) if group} or None


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
    return [name_of_text(one) for one in decoded(raw, encodings, IN_NAMES).split("\\")]


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

TEXTUAL_VRS: Final = frozenset(_READERS) - {"AT"}
"""VRs whose values are characters."""
