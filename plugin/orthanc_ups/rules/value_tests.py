# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tests of single values by VR, for ``If`` of a rule. A test that no value can pass raises InvalidRuleValue."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final, TypeAlias

from ..core.date_times import DATED_VRS, key_interval, moment
from ..core.person_names import fold
from ..core.wildcards import is_wild, wildcard_test
from .faults import InvalidRuleValue

Accepts: TypeAlias = Callable[[Any], bool]
"""Whether a value of the attribute, in its JSON form, fits."""

UNREADABLE_VRS: Final = frozenset({"NONE", "OB", "OD", "OF", "OL", "OV", "OW", "UN"})
"""VRs whose values are not read from images."""

_NUMBERS: Final = frozenset({"DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"})
_DIGITS: Final = {"FL": 6, "FD": 15}
"""Significant digits to which binary floats are compared (PS3.5 Table 6.2-1)."""

_NUMBER: Final = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)"
_NUMBER_RANGE: Final = re.compile(rf"({_NUMBER})?\s*-\s*({_NUMBER})?")
_AGE: Final = re.compile(r"(\d{1,3}) ?([DWMY]?)", re.IGNORECASE)
_DAYS_OF: Final = {"D": 1, "W": 7, "M": 30.4375, "Y": 365.25, "": 365.25}
_AN_AGE: Final = 'an age such as "065Y", or a range such as "018Y-065Y"'
_UID: Final = re.compile(r"[0-9.*?]{1,64}")
_NO_CODE: Final = re.compile(r"[!,;|&<>=]")
_TAG: Final = re.compile(r"[0-9A-F]{8}")
_NOT_HEX: Final = re.compile(r"[^0-9A-F]")
_REVERSED: Final = "a range that ends after it begins"


def value_test(vr: str, expected: object) -> Accepts:
    """A test for a value, a value with wildcards, or a range as text. Raises InvalidRuleValue."""
    if isinstance(expected, bool) or not isinstance(expected, (str, int, float)):
        raise InvalidRuleValue("a text, a number, null, or a list of these", value=expected)
    text = str(expected).strip()
    if text == "*":
        return lambda _: True
    if vr in _NUMBERS:
        return _number(vr, text)
    if vr in DATED_VRS:
        return _dated(vr, text)
    if "\\" in text:
        raise InvalidRuleValue('a list such as ["CT", "MR"] for one of several', value=text)
    return _TESTS.get(vr, _text)(text)


def range_test(vr: str, expected: Mapping[str, Any]) -> Accepts:
    """A test for ``{"From": …, "To": …}``, either of which may be absent. Raises InvalidRuleValue."""
    bounds = {name: expected.get(name, "") for name in ("From", "To")}
    for name, bound in bounds.items():
        if isinstance(bound, bool) or not isinstance(bound, (str, int, float)):
            raise InvalidRuleValue("a value", name, bound)
    low, high = (str(bound).strip() for bound in bounds.values())
    if not low and not high:
        raise InvalidRuleValue("a value for From or To")
    if vr in _NUMBERS:
        return _between_numbers(vr, low, high)
    if vr == "AS":
        return _between_ages(low, high)
    if vr in DATED_VRS:
        return _dated(vr, f"{low}-{high}")
    raise InvalidRuleValue("a value, a list, or null: only dates, times, numbers and ages have ranges")


# --- numbers ---


def _number(vr: str, text: str) -> Accepts:
    expected = _decimal(vr, text)
    if expected is not None:
        return lambda value: _decimal(vr, value) == expected
    bounds = _NUMBER_RANGE.fullmatch(text)
    if bounds is None or not any(bounds.groups()):
        raise InvalidRuleValue('a number, or a range such as "10-20"', value=text)
    return _between_numbers(vr, bounds[1] or "", bounds[2] or "")


def _between_numbers(vr: str, low: str, high: str) -> Accepts:
    bottom, top = (_decimal(vr, bound) if bound else None for bound in (low, high))
    if (low and bottom is None) or (high and top is None):
        raise InvalidRuleValue("a number", value=low if low and bottom is None else high)
    if bottom is not None and top is not None and bottom > top:
        raise InvalidRuleValue(_REVERSED)

    def accept(value: Any) -> bool:
        number = _decimal(vr, value)
        return number is not None and (bottom is None or number >= bottom) and (top is None or number <= top)

    return accept


def _decimal(vr: str, text: object) -> Decimal | None:
    try:
        number = Decimal(str(text).strip(" \0"))
        if number.is_finite() and vr in _DIGITS:
            number = Decimal(f"{float(number):.{_DIGITS[vr]}g}")
    except (InvalidOperation, OverflowError):
        return None
    return number if number.is_finite() else None


# --- ages, dates and times ---


def _age_or_range(text: str) -> Accepts:
    if is_wild(text):
        return _folded(text)
    if "-" in text:
        low, _, high = text.partition("-")
        return _between_ages(low.strip(), high.strip())
    expected = _age(text)
    if expected is None:
        raise InvalidRuleValue(_AN_AGE, value=text)
    return lambda value: _age(value) == expected


def _between_ages(low: str, high: str) -> Accepts:
    bottom, top = (_age(bound) if bound else None for bound in (low, high))
    if (low and bottom is None) or (high and top is None) or not (low or high):
        raise InvalidRuleValue(_AN_AGE, value=low if low and bottom is None else high)
    lowest, highest = bottom or 0.0, math.inf if top is None else top
    if lowest > highest:
        raise InvalidRuleValue(_REVERSED)

    def accept(value: Any) -> bool:
        age = _age(value)
        return age is not None and lowest <= age <= highest

    return accept


def _age(text: object) -> float | None:
    """An age in days; a number without a unit is in years. None if the text is not an age."""
    parsed = _AGE.fullmatch(str(text).strip(" \0"))
    return int(parsed[1]) * _DAYS_OF[parsed[2].upper()] if parsed else None


def _dated(vr: str, text: str) -> Accepts:
    try:
        interval = key_interval(vr, text)
    except ValueError as error:
        raise InvalidRuleValue(str(error).removeprefix("expected "), value=text) from None

    def accept(value: Any) -> bool:
        at = moment(vr, value)
        return at is not None and interval.low <= at <= interval.high

    return accept


# --- texts ---


def _text(text: str) -> Accepts:
    fits = wildcard_test(text)
    return lambda value: fits(str(value).strip(" \0"))


def _folded(text: str) -> Accepts:
    """A test that ignores case, for VRs whose letters are upper case (PS3.5 §6.2)."""
    fits = wildcard_test(text.upper())
    return lambda value: fits(str(value).strip(" \0").upper())


def _code(text: str) -> Accepts:
    if _NO_CODE.search(text):
        raise InvalidRuleValue('a code such as "CT", or a list such as ["CT", "MR"]', value=text)
    return _folded(text)


def _uid(text: str) -> Accepts:
    if _UID.fullmatch(text) is None:
        raise InvalidRuleValue('a UID such as "1.2.840.10008.5.1.4.1.1.2"', value=text)
    return _text(text)


def _tag(text: str) -> Accepts:
    expected = _NOT_HEX.sub("", text.upper())
    if _TAG.fullmatch(expected) is None:
        raise InvalidRuleValue('a tag such as "0020,000D"', value=text)
    return lambda value: _NOT_HEX.sub("", str(value).upper()) == expected


def _name(text: str) -> Accepts:
    """A test of a whole name or one of its groups, that ignores case, accents and empty trailing components."""
    fits = wildcard_test(fold(text))
    return lambda value: any(fits(fold(group)) for group in (str(value), *str(value).split("=")))


_TESTS: Final[Mapping[str, Callable[[str], Accepts]]] = {
    "AE": _folded,
    "AS": _age_or_range,
    "AT": _tag,
    "CS": _code,
    "PN": _name,
    "UI": _uid,
}
