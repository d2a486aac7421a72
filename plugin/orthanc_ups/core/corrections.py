# SPDX-License-Identifier: AGPL-3.0-or-later
"""Values that are not what the dictionary asks for, but whose meaning is clear.

Clients write text with a VR that is a neighbour of the right one, dates as ISO 8601 has them, decimals with all the
digits of a float, several values in one text. Nothing is guessed and nothing is lost but digits beyond the sixteenth
character of a DS.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final

from .dataset import Element, element
from .representations import REPRESENTATIONS

_INTEGERS: Final = frozenset({"SL", "SS", "SV", "UL", "US", "UV"})
_FLOATS: Final = frozenset({"FD", "FL"})
_UNSPLIT: Final = frozenset({"LT", "ST", "UR", "UT"})
_TEXTS: Final = frozenset(
    {"AE", "AS", "AT", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}
)
_NAME_GROUPS: Final = ("Alphabetic", "Ideographic", "Phonetic")
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_LONGEST_NUMBER: Final = 64
_LONGEST_DECIMAL: Final = 16
_ISO_DAY: Final = r"([0-9]{4})([-./])([0-9]{2})\2([0-9]{2})"
_ISO_CLOCK: Final = r"([0-9]{2}):?([0-9]{2})(?::?([0-9]{2})(?:[.,]([0-9]{1,9}))?)?"
_DAY: Final = re.compile(_ISO_DAY)
_CLOCK: Final = re.compile(_ISO_CLOCK)
_MOMENT: Final = re.compile(rf"{_ISO_DAY}(?:[T ]{_ISO_CLOCK} ?(Z|[+-][0-9]{{2}}:?[0-9]{{2}})?)?")


def corrected(found: Any, vr: str) -> tuple[Element, str] | None:
    """An element as the VR of the dictionary has it, with a participle that says what was done to it.

    None if its meaning is not clear. The result may still be invalid for its row of the table: values that are not
    allowed there, too many of them.
    """
    if not isinstance(found, dict) or found.get("vr") not in REPRESENTATIONS:
        return None
    source, given = found["vr"], _given(found)
    if given is None:
        return None
    what = f"taken as {vr} instead of {source}" if source != vr else ""
    if not given:
        return element(vr), what or _REWRITTEN.get(vr, f"rewritten as {vr}")
    if vr not in _UNSPLIT:
        given = [part for one in given for part in (one.split("\\") if isinstance(one, str) else [one])]
    converted = [_converted(one, source, vr) for one in given]
    valid = REPRESENTATIONS[vr].valid
    if not all(one is None or valid(one) for one in converted):
        return None
    trimmed = given != converted and [str(one).strip() for one in given] == converted
    return element(vr, *converted), what or (
        _TRIMMED if trimmed else _REWRITTEN.get(vr, f"rewritten as {vr}")
    )


_TRIMMED: Final = "cleared of blanks and line ends around it"
_REWRITTEN: Final[Mapping[str, str]] = MappingProxyType(
    {
        "AS": "rewritten as three digits and D, W, M or Y",
        "AT": "rewritten as 8 hexadecimal digits",
        "CS": "set in upper case",
        "DA": "rewritten as YYYYMMDD",
        "DS": "rounded to 16 characters",
        "DT": "rewritten as YYYYMMDDHHMMSS",
        "LO": "rewritten as one line",
        "SH": "rewritten as one line",
        "TM": "rewritten as HHMMSS",
        "UC": "rewritten as one line",
        "UI": "cleared of what is not part of the UID",
    }
)


def _given(found: Mapping[str, Any]) -> list[Any] | None:
    """The values of an element, those of UN as text; None if they are not to be read."""
    if found.get("InlineBinary"):
        return _text_of_unknown(found)
    given = found.get("Value", [])
    return given if isinstance(given, list) else None


def _text_of_unknown(found: Mapping[str, Any]) -> list[Any] | None:
    if found["vr"] != "UN":
        return None
    try:
        text = binascii.a2b_base64(found["InlineBinary"], strict_mode=True).decode("utf-8")
    except (binascii.Error, TypeError, ValueError):
        return None
    return [text.rstrip(" \0")] if text.rstrip(" \0") else []


def _converted(one: Any, source: str, vr: str) -> Any:
    """A value as a value of the VR, valid or not; what cannot be converted comes back as it is."""
    if one is None or one == "":
        return None
    if source == "PN" and isinstance(one, dict) and vr in _TEXTS:
        return "=".join(str(one.get(name, "")) for name in _NAME_GROUPS).rstrip("=")
    if vr == "PN" and isinstance(one, str):
        return _name(one)
    if vr in _INTEGERS:
        return _integer(one)
    if vr in _FLOATS:
        return _real(one)
    if vr in ("DS", "IS") and isinstance(one, (int, float)) and not isinstance(one, bool):
        one = repr(one)
    return _REWRITERS.get(vr, _same)(one) if isinstance(one, str) else one


def _same(one: str) -> str:
    return one


def _name(one: str) -> Any:
    groups = one.split("=")
    if len(groups) > len(_NAME_GROUPS):
        return one
    return {
        name: group.strip(" ") for name, group in zip(_NAME_GROUPS, groups, strict=False) if group.strip(" ")
    }


def _integer(one: Any) -> Any:
    if isinstance(one, float):
        return int(one) if one.is_integer() else one
    text = one.strip() if isinstance(one, str) else ""
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,20}", text) else one


def _real(one: Any) -> Any:
    text = one.strip() if isinstance(one, str) else ""
    return float(text) if len(text) <= _LONGEST_NUMBER and _NUMBER.fullmatch(text) else one


def _whole_number(one: str) -> str:
    found = re.fullmatch(r" *([+-]?[0-9]{1,11})\.0* *", one)
    return found[1] if found else one


def _decimal(one: str) -> str:
    """A decimal string with as many digits as fit into 16 characters (PS3.5 §6.2)."""
    text = one.strip()
    if len(text) <= _LONGEST_DECIMAL or len(text) > _LONGEST_NUMBER or not _NUMBER.fullmatch(text):
        return one
    exact = Decimal(text)
    rounded = (f"{exact:.{digits}g}" for digits in range(_LONGEST_DECIMAL, 0, -1))
    return next((text for text in rounded if len(text) <= _LONGEST_DECIMAL), one)


def _day(one: str) -> str:
    found = _DAY.fullmatch(one.strip())
    return found[1] + found[3] + found[4] if found else one


def _clock(one: str) -> str:
    found = _CLOCK.fullmatch(one.strip())
    return _digits_of_clock(*found.groups()) if found else one


def _moment(one: str) -> str:
    found = _MOMENT.fullmatch(one.strip())
    if not found:
        return re.sub(r"(?<=\.[0-9]{6})[0-9]{1,3}", "", one)  # digits beyond microseconds
    day, zone = found[1] + found[3] + found[4], found[9] or ""
    offset = "+0000" if zone == "Z" else zone.replace(":", "").replace("-0000", "+0000")
    return day + (_digits_of_clock(*found.group(5, 6, 7, 8)) if found[5] else "") + offset


def _age(one: str) -> str:
    found = re.fullmatch(r" *([0-9]{1,3}) ?([DWMYdwmy]) *", one)
    return f"{int(found[1]):03}{found[2].upper()}" if found else one


def _attribute_tag(one: str) -> str:
    found = re.fullmatch(r" *\(?(?:0x)?([0-9A-Fa-f]{4}),?([0-9A-Fa-f]{4})\)? *", one)
    return (found[1] + found[2]).upper() if found else one


def _line(one: str) -> str:
    """A text of one line; what ends its lines are blanks."""
    return re.sub(r"[\t\r\n\f]+", " ", one.strip("\0\t\r\n\f"))


def _uid(one: str) -> str:
    bare = one.strip(" \0")
    return bare[len("urn:oid:") :] if bare.lower().startswith("urn:oid:") else bare


def _digits_of_clock(hour: str, minute: str, second: str | None, fraction: str | None) -> str:
    return hour + minute + (second or "") + (f".{fraction[:6]}" if fraction else "")


_REWRITERS: Final[Mapping[str, Callable[[str], str]]] = MappingProxyType(
    {
        "AE": str.strip,
        "AS": _age,
        "AT": _attribute_tag,
        "CS": lambda one: one.strip().upper(),
        "DA": _day,
        "DS": _decimal,
        "DT": _moment,
        "IS": _whole_number,
        "LO": _line,
        "SH": _line,
        "TM": _clock,
        "UC": _line,
        "UI": _uid,
    }
)
