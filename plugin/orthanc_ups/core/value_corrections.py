# SPDX-License-Identifier: AGPL-3.0-or-later
"""Corrections of values that do not fit their VR, but whose meaning is clear.

Clients send text with a VR similar to the right one, dates in ISO 8601 format, decimals with all digits of a float,
several values in one text. Nothing is guessed, and nothing is lost except the digits that a DS has no space for, and
fractions of a microsecond.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from . import number_texts
from .dataset import FLOAT_VRS, INTEGER_VRS, NAME_GROUPS, SINGLE_TEXT_VRS, Element, element
from .representations import REPRESENTATIONS

_TEXTS: Final = frozenset(
    {"AE", "AS", "AT", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}
)
_ISO_DAY: Final = r"([0-9]{4})([-./])([0-9]{2})\2([0-9]{2})"
_ISO_CLOCK: Final = r"([0-9]{2}):?([0-9]{2})(?::?([0-9]{2})(?:[.,]([0-9]{1,9}))?)?"
_DAY: Final = re.compile(_ISO_DAY)
_CLOCK: Final = re.compile(_ISO_CLOCK)
_MOMENT: Final = re.compile(rf"{_ISO_DAY}(?:[T ]{_ISO_CLOCK} ?(Z|[+-][0-9]{{2}}:?[0-9]{{2}})?)?")


def corrected(attribute: Any, vr: str) -> tuple[Element, str] | None:
    """An element in the VR of the dictionary, with a participle that says what was done to it.

    None if its meaning is not clear. The result may still be invalid for its row of the table: a value that is not
    allowed there, or too many of them.
    """
    if not isinstance(attribute, dict) or attribute.get("vr") not in REPRESENTATIONS:
        return None
    source, values = attribute["vr"], _present_values(attribute)
    if values is None:
        return None
    what = f"taken as {vr} instead of {source}" if source != vr else ""
    if not values:
        return element(vr), what or _REWRITTEN.get(vr, f"rewritten as {vr}")
    if vr not in SINGLE_TEXT_VRS:
        values = [
            part for value in values for part in (value.split("\\") if isinstance(value, str) else [value])
        ]
    converted = [_converted(value, source, vr) for value in values]
    valid = REPRESENTATIONS[vr].valid
    if not all(value is None or valid(value) for value in converted):
        return None
    trimmed = values != converted and [str(value).strip() for value in values] == converted
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


def _present_values(attribute: Mapping[str, Any]) -> list[Any] | None:
    """The values of an element, those of UN as text; None if they cannot be read."""
    if attribute.get("InlineBinary"):
        return _text_of_unknown(attribute)
    values = attribute.get("Value", [])
    return values if isinstance(values, list) else None


def _text_of_unknown(attribute: Mapping[str, Any]) -> list[Any] | None:
    if attribute["vr"] != "UN":
        return None
    try:
        text = binascii.a2b_base64(attribute["InlineBinary"], strict_mode=True).decode("utf-8")
    except (binascii.Error, TypeError, ValueError):
        return None
    return [text.rstrip(" \0")] if text.rstrip(" \0") else []


def _converted(value: Any, source: str, vr: str) -> Any:
    """A value as a value of the VR, valid or not; unchanged if it cannot be converted."""
    if value is None or value == "":
        return None
    if source == "PN" and isinstance(value, dict) and vr in _TEXTS:
        return "=".join(str(value.get(name, "")) for name in NAME_GROUPS).rstrip("=")
    if vr == "PN" and isinstance(value, str):
        return _name(value)
    if vr in INTEGER_VRS:
        return _integer(value)
    if vr in FLOAT_VRS:
        return _real(value)
    if vr in ("DS", "IS") and isinstance(value, (int, float)) and not isinstance(value, bool):
        value = repr(value)
    return _REWRITERS.get(vr, _same)(value) if isinstance(value, str) else value


def _same(value: str) -> str:
    return value


def _name(value: str) -> Any:
    groups = value.split("=")
    if len(groups) > len(NAME_GROUPS):
        return value
    return {
        name: group.strip(" ") for name, group in zip(NAME_GROUPS, groups, strict=False) if group.strip(" ")
    }


def _integer(value: Any) -> Any:
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    number = number_texts.integer(value) if isinstance(value, str) else None
    return value if number is None else number


def _real(value: Any) -> Any:
    number = number_texts.real(value) if isinstance(value, str) else None
    return value if number is None else number


def _whole_number(value: str) -> str:
    return number_texts.integer_string(value) or value


def _decimal(value: str) -> str:
    return number_texts.decimal_string(value) or value


def _day(value: str) -> str:
    match = _DAY.fullmatch(value.strip())
    return match[1] + match[3] + match[4] if match else value


def _clock(value: str) -> str:
    match = _CLOCK.fullmatch(value.strip())
    return _digits_of_clock(*match.groups()) if match else value


def _moment(value: str) -> str:
    match = _MOMENT.fullmatch(value.strip())
    if not match:
        compact = re.sub(r"([+-][0-9]{2}):([0-9]{2})\Z", r"\1\2", value.strip())
        return re.sub(r"(?<=\.[0-9]{6})[0-9]{1,3}", "", compact)  # digits beyond microseconds
    day, zone = match[1] + match[3] + match[4], match[9] or ""
    offset = "+0000" if zone == "Z" else zone.replace(":", "").replace("-0000", "+0000")
    return day + (_digits_of_clock(*match.group(5, 6, 7, 8)) if match[5] else "") + offset


def _age(value: str) -> str:
    match = re.fullmatch(r" *([0-9]{1,3}) ?([DWMYdwmy]) *", value)
    return f"{int(match[1]):03}{match[2].upper()}" if match else value


def _attribute_tag(value: str) -> str:
    match = re.fullmatch(r" *\(?(?:0x)?([0-9A-Fa-f]{4}),?([0-9A-Fa-f]{4})\)? *", value)
    return (match[1] + match[2]).upper() if match else value


def _line(value: str) -> str:
    """The text on one line: each sequence of tabs and line ends becomes a blank."""
    return re.sub(r"[\t\r\n\f]+", " ", value.strip("\0\t\r\n\f"))


def _uid(value: str) -> str:
    bare = value.strip(" \0")
    return bare[len("urn:oid:") :] if bare.lower().startswith("urn:oid:") else bare


def _digits_of_clock(hour: str, minute: str, second: str | None, fraction: str | None) -> str:
    return hour + minute + (second or "") + (f".{fraction[:6]}" if fraction else "")


_REWRITERS: Final[Mapping[str, Callable[[str], str]]] = MappingProxyType(
    {
        "AE": str.strip,
        "AS": _age,
        "AT": _attribute_tag,
        "CS": lambda text: text.strip().upper(),
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
