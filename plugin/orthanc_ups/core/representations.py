# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a single value of each VR looks like in the internal form (PS3.5 §6.2, Table 6.2-1).

Padding with blanks is accepted everywhere. Text is Unicode, so ESC is a control character like any other. Characters
that XML 1.0 or UTF-8 cannot encode are not allowed: lone surrogates, U+FFFE, U+FFFF.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, time
from types import MappingProxyType
from typing import Any, Final

from .dataset import NAME_GROUPS

Check = Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class Representation:
    """How the values of a VR are checked, and in words what is expected."""

    valid: Check
    form: str


_NEVER: Final = "\x7f\ud800-\udfff\ufffe\uffff"
_LINE: Final = rf"[^\x00-\x1f{_NEVER}\\]"
_TEXT: Final = rf"[^\x00-\x08\x0b\x0e-\x1f{_NEVER}]"
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,11}")
_DATE: Final = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})")
_TIME: Final = re.compile(r"([0-9]{2})(?:([0-9]{2})(?:([0-9]{2})(?:\.[0-9]{1,6})?)?)?")
_OFFSET: Final = re.compile(
    r"\+(?:(?:0[0-9]|1[0-3])[0-5][0-9]|1400)|-(?!0000)(?:(?:0[0-9]|1[01])[0-5][0-9]|1200)"
)
_DATE_TIME: Final = re.compile(
    rf"([0-9]{{4}})(?:([0-9]{{2}})(?:([0-9]{{2}})({_TIME.pattern})?)?)?({_OFFSET.pattern})?"
)
_NAME_GROUP: Final = re.compile(rf"{_LINE.replace('[^', '[^=')}{{0,64}}")
_TOO_LARGE_FOR_SINGLE: Final = 2.0**128 - 2.0**103  # rounds up to infinity (IEEE 754)
_SPECIAL_NUMBERS: Final = frozenset({"NaN", "Infinity", "-Infinity"})


def _matching(pattern: str) -> Check:
    whole = re.compile(pattern).fullmatch
    return lambda value: isinstance(value, str) and whole(value.strip(" ")) is not None


def _in_range(low: int, high: int) -> Check:
    return lambda value: type(value) is int and low <= value <= high


def _of_size(width: int) -> Check:
    """InlineBinary: base64 of whole words."""

    def valid(value: Any) -> bool:
        try:
            return isinstance(value, str) and len(binascii.a2b_base64(value, strict_mode=True)) % width == 0
        except (binascii.Error, ValueError):
            return False

    return valid


def is_date(value: Any) -> bool:
    """A day of the calendar as YYYYMMDD."""
    match = _DATE.fullmatch(value.strip(" ")) if isinstance(value, str) else None
    return match is not None and _real_date(*match.groups())


def is_time(value: Any) -> bool:
    """HH, HHMM, HHMMSS or HHMMSS.F to HHMMSS.FFFFFF; second 60 is a leap second."""
    match = _TIME.fullmatch(value.strip(" ")) if isinstance(value, str) else None
    return match is not None and _real_time(*match.groups())


def is_date_time(value: Any) -> bool:
    """YYYY to YYYYMMDDHHMMSS.FFFFFF, each with or without an offset from UTC."""
    match = _DATE_TIME.fullmatch(value.strip(" ")) if isinstance(value, str) else None
    if match is None:
        return False
    year, month, day, clock, hour, minute, second, _ = match.groups()
    return _real_date(year, month or "01", day or "01") and (
        clock is None or _real_time(hour, minute, second)
    )


def is_offset(value: Any) -> bool:
    """An offset from UTC between -1200 and +1400; -0000 is not valid (PS3.3 §C.12.1.1.8)."""
    return isinstance(value, str) and _OFFSET.fullmatch(value.strip(" ")) is not None


def is_percentage(value: Any) -> bool:
    """A decimal string from 0 to 100."""
    return is_decimal(value) and 0 <= float(value) <= 100


def _real_date(year: str, month: str, day: str) -> bool:
    try:
        date(int(year), int(month), int(day))
    except ValueError:
        return False
    return True


def _real_time(hour: str, minute: str | None, second: str | None) -> bool:
    try:
        time(int(hour), int(minute or 0), min(int(second or 0), 59))
    except ValueError:
        return False
    return second is None or int(second) <= 60


def _is_integer_string(value: Any) -> bool:
    if not isinstance(value, str) or len(value.strip(" ")) > 12 or not _INTEGER.fullmatch(value.strip(" ")):
        return False
    return -(2**31) <= int(value) < 2**31


is_decimal: Final = _matching(r"(?=.{1,16}\Z)[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
"""A decimal string of at most 16 characters."""


def _is_float(value: Any) -> bool:
    return type(value) in (int, float) or (isinstance(value, str) and value in _SPECIAL_NUMBERS)


def _is_single(value: Any) -> bool:
    """A number that can be rounded to 32 bits (IEEE 754)."""
    return _is_float(value) and (isinstance(value, str) or abs(value) < _TOO_LARGE_FOR_SINGLE)


def _is_name(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() <= set(NAME_GROUPS)
        and all(map(_is_name_group, value.values()))
    )


def _is_name_group(value: Any) -> bool:
    return (
        isinstance(value, str)
        and value.count("^") <= 4
        and _NAME_GROUP.fullmatch(value.strip(" ")) is not None
    )


def _line(maximum: int) -> Representation:
    words = f"at most {maximum} characters without control characters and backslash"
    return Representation(_matching(f"{_LINE}{{0,{maximum}}}"), words)


def _text(maximum: int | None) -> Representation:
    size = f"{{0,{maximum}}}" if maximum else "*"
    words = (
        f"at most {maximum} characters " if maximum else "text "
    ) + "without control characters but line ends"
    return Representation(_matching(f"{_TEXT}{size}"), words)


def _number(low: int, high: int) -> Representation:
    return Representation(_in_range(low, high), f"a whole number from {low} to {high}")


REPRESENTATIONS: Final[Mapping[str, Representation]] = MappingProxyType(
    {
        "AE": Representation(_matching(r"[\x20-\x5b\x5d-\x7e]{1,16}"), "1 to 16 ASCII characters"),
        "AS": Representation(_matching(r"[0-9]{3}[DWMY]"), "an age such as 042Y"),
        "AT": Representation(_matching(r"[0-9A-Fa-f]{8}"), "a tag of 8 hexadecimal digits"),
        "CS": Representation(
            _matching(r"[A-Z0-9_ ]{0,16}"), "at most 16 upper-case letters, digits, blanks or underscores"
        ),
        "DA": Representation(is_date, "a date YYYYMMDD"),
        "DS": Representation(is_decimal, "a decimal number of at most 16 characters"),
        "DT": Representation(is_date_time, "a date-time YYYYMMDDHHMMSS.FFFFFF&ZZXX"),
        "FD": Representation(_is_float, "a number"),
        "FL": Representation(_is_single, "a number of at most 3.4E38"),
        "IS": Representation(_is_integer_string, "a whole number of at most 12 characters"),
        "LO": _line(64),
        "LT": _text(10240),
        "PN": Representation(
            _is_name,
            "a person name: Alphabetic, Ideographic, Phonetic, each at most 5 components, 64 characters",
        ),
        "SH": _line(16),
        "SL": _number(-(2**31), 2**31 - 1),
        "SQ": Representation(lambda item: isinstance(item, dict), "items"),
        "SS": _number(-(2**15), 2**15 - 1),
        "ST": _text(1024),
        "SV": _number(-(2**63), 2**63 - 1),
        "TM": Representation(is_time, "a time HHMMSS.FFFFFF"),
        "UC": Representation(_matching(f"{_LINE}*"), "text without control characters and backslash"),
        "UI": Representation(
            _matching(r"(?=.{1,64}\Z)(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))*"),
            "a UID of at most 64 digits and dots",
        ),
        "UL": _number(0, 2**32 - 1),
        "UR": Representation(_matching(r"[\x21-\x5b\x5d-\x7e]*"), "a URI without blanks"),
        "US": _number(0, 2**16 - 1),
        "UT": _text(None),
        "UV": _number(0, 2**64 - 1),
        "OB": Representation(_of_size(1), "base64"),
        "OD": Representation(_of_size(8), "base64 of 64-bit words"),
        "OF": Representation(_of_size(4), "base64 of 32-bit words"),
        "OL": Representation(_of_size(4), "base64 of 32-bit words"),
        "OV": Representation(_of_size(8), "base64 of 64-bit words"),
        "OW": Representation(_of_size(2), "base64 of 16-bit words"),
        "UN": Representation(_of_size(1), "base64"),
    }
)
"""Every VR of PS3.5."""

FORMS: Final[Mapping[str, Representation]] = MappingProxyType(
    {
        "percent": Representation(is_percentage, "a percentage from 0 to 100"),
        "offset": Representation(is_offset, "an offset from UTC such as +0100"),
    }
)
"""Forms that some attributes require beyond their VR, by their name in ``attributes.csv``."""
