# SPDX-License-Identifier: AGPL-3.0-or-later
"""``If`` of a rule: tests of attributes, of the sender, of labels and of the time of day.

Each test is compiled while the script loads, so that a mistake stops the start. ``Faulty`` says what is expected.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Final, TypeAlias

from ..core.date_times import DATED_VRS, key_interval, moment
from ..core.wildcards import is_wild, wildcard_test
from ..management.keyword_form import tag_of, vr_of
from .causes import Cause, values_of

Accepts: TypeAlias = Callable[[str], bool]

ORIGINS: Final = ("DicomProtocol", "RestApi", "Plugins", "Lua", "WebDav", "Unknown")
"""How an instance came, as Orthanc's metadata ``Origin`` says it; STOW counts as Plugins."""

SPECIAL: Final = ("CallingAet", "Origin", "Labels", "Schedule")
"""Keys of ``If`` that are no attributes."""

_NUMBERS: Final = frozenset({"DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"})
_NUMBER: Final = r"[+-]?\d+(?:\.\d+)?"
_NUMBER_RANGE: Final = re.compile(rf"({_NUMBER})?\s*-\s*({_NUMBER})?")
_AGE: Final = re.compile(r"(\d{3})([DWMY])")
_AGE_RANGE: Final = re.compile(r"(\d{3}[DWMY])?\s*-\s*(\d{3}[DWMY])?")
_DAYS_OF: Final = {"D": 1, "W": 7, "M": 30.4375, "Y": 365.25}
_WEEKDAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_CLOCK: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)|24:00")


class Faulty(Exception):
    """A value in a rule cannot be used: ``expected`` in words, ``key`` below the value that was read."""

    def __init__(self, expected: str, key: str = "", value: object = ...) -> None:
        super().__init__(expected)
        self.expected, self.key, self.value = expected, key, value


@dataclass(frozen=True, slots=True)
class RuleCondition:
    """One key of ``If``.

    Attributes:
        key: as it is written.
        path: keywords down to the attribute; () for what is no attribute.
        expected: what it asks for, in words.
        fits: whether the values of the attribute fit; () if it is absent or empty.
        of_cause: reads what is no attribute from the cause, as it is shown.
    """

    key: str
    path: tuple[str, ...]
    expected: str
    fits: Callable[[Sequence[Any]], bool]
    of_cause: Callable[[Cause], Sequence[Any]] | None = None

    def values(self, cause: Cause) -> Sequence[Any]:
        """What the cause has for the key."""
        return values_of(cause.content, self.path) if self.of_cause is None else self.of_cause(cause)

    def objection(self, cause: Cause) -> str:
        """Why the cause does not fit, in words; empty if it does."""
        values = self.values(cause)
        if self.fits(values):
            return ""
        texts = ", ".join(f'"{_shown(value)}"' for value in values) or "absent"
        return f"{self.key} is {texts}, expected {self.expected}"


def _shown(value: Any) -> str:
    if isinstance(value, datetime):
        return f"{value:%a %H:%M}"
    text = str(value)
    return text if len(text) <= 64 else text[:61] + "..."


def read_condition(key: str, expected: object) -> RuleCondition:
    """Compile one key of ``If``. Raises Faulty, or LookupError with a name that is no keyword."""
    if key == "Schedule":
        windows = _windows(expected)
        return RuleCondition(
            key,
            (),
            _windows_in_words(expected),
            lambda values: any(window(at) for at in values for window in windows),
            lambda cause: (cause.at,),
        )
    if key == "CallingAet":
        test = _any_text(expected, str.upper)
        return RuleCondition(
            key, (), _in_words(expected), test, lambda cause: (cause.calling_ae,) if cause.calling_ae else ()
        )
    if key == "Origin":
        for name in expected if isinstance(expected, list) else [expected]:
            if name not in ORIGINS:
                raise Faulty(f"one of {', '.join(ORIGINS)}", value=name)
        return RuleCondition(
            key,
            (),
            _in_words(expected),
            _any_text(expected, str),
            lambda cause: (cause.origin,) if cause.origin else (),
        )
    if key == "Labels":
        return RuleCondition(
            key, (), _in_words(expected), _any_text(expected, str), lambda cause: cause.labels
        )
    path = attribute_path(key)
    return RuleCondition(key, path, _in_words(expected), _test(path[-1], expected))


def attribute_path(key: str) -> tuple[str, ...]:
    """The keywords of ``Sequence.Keyword``.

    Raises LookupError with a name that is no keyword, Faulty if there is no sequence before a dot.
    """
    path = tuple(key.split("."))
    for depth, name in enumerate(path):
        tag = tag_of(name)
        if tag is None:
            raise LookupError(name)
        if depth < len(path) - 1 and vr_of(tag) != "SQ":
            raise Faulty(f"a sequence before the dot, but {name} is none")
    return path


# --- tests of attributes ---


def _test(keyword: str, expected: object) -> Callable[[Sequence[Any]], bool]:
    vr = vr_of(tag_of(keyword) or "")
    if isinstance(expected, Mapping):
        return _object(keyword, expected)
    alternatives = expected if isinstance(expected, list) else [expected]
    if not alternatives:
        raise Faulty("at least one value")
    absent_fits = any(value is None or value == "" for value in alternatives)
    if vr == "SQ":
        if any(value not in (None, "", "*") for value in alternatives):
            raise Faulty(f'null or "*", or an attribute in it such as "{keyword}.CodeValue"')
        accept: list[Callable[[Any], bool]] = [lambda _: True for value in alternatives if value == "*"]
    else:
        accept = [_accepts(vr, value) for value in alternatives if value is not None and value != ""]

    def fits(values: Sequence[Any]) -> bool:
        if not values:
            return absent_fits
        return any(test(value) for value in values for test in accept)

    return fits


def _object(keyword: str, expected: Mapping[str, Any]) -> Callable[[Sequence[Any]], bool]:
    if set(expected) == {"Not"}:
        inner = _test(keyword, expected["Not"])
        return lambda values: not inner(values)
    if expected and set(expected) <= {"From", "To"}:
        low, high = (expected.get(name, "") for name in ("From", "To"))
        for bound in (low, high):
            if isinstance(bound, bool) or not isinstance(bound, (str, int, float)):
                raise Faulty("a value at From and To", value=bound)
        return _range(keyword, str(low), str(high))
    raise Faulty('a value, a list, null, {"Not": …} or {"From": …, "To": …}')


def _range(keyword: str, low: str, high: str) -> Callable[[Sequence[Any]], bool]:
    vr = vr_of(tag_of(keyword) or "")
    if vr in _NUMBERS:
        accept = _between_numbers(low, high)
    elif vr == "AS":
        accept = _between_ages(low, high)
    elif vr in DATED_VRS:
        accept = _dated(vr, f"{low}-{high}")
    else:
        accept = lambda text: (not low or text >= low) and (not high or text <= high)  # noqa: E731
    return lambda values: any(accept(str(value)) for value in values)


def _accepts(vr: str, value: object) -> Callable[[Any], bool]:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise Faulty("a text, a number, null, or a list of these", value=value)
    text = str(value).strip()
    if text == "*":
        return lambda _: True
    if vr in _NUMBERS:
        return _number(text)
    if vr in DATED_VRS:
        return _dated(vr, text)
    if vr == "AS" and _AGE_RANGE.fullmatch(text) and "-" in text:
        low, high = (part or "" for part in _AGE_RANGE.fullmatch(text).groups())  # type: ignore[union-attr]
        return _between_ages(low, high)
    if vr == "PN":
        return _name(text)
    compare = wildcard_test(text) if is_wild(text) else text.__eq__
    return lambda value: compare(str(value).strip(" \0")) is True


def _number(text: str) -> Accepts:
    try:
        expected = Decimal(text)
    except InvalidOperation:
        bounds = _NUMBER_RANGE.fullmatch(text)
        if bounds is None or not any(bounds.groups()):
            raise Faulty('a number, or a range such as "10-20"', value=text) from None
        return _between_numbers(bounds[1] or "", bounds[2] or "")
    return lambda value: _decimal(value) == expected


def _between_numbers(low: str, high: str) -> Accepts:
    bottom, top = (_decimal(bound) if bound else None for bound in (low, high))
    if (low and bottom is None) or (high and top is None):
        raise Faulty("a number", value=low if bottom is None else high)

    def accept(value: str) -> bool:
        number = _decimal(value)
        return number is not None and (bottom is None or number >= bottom) and (top is None or number <= top)

    return accept


def _decimal(text: object) -> Decimal | None:
    try:
        number = Decimal(str(text).strip())
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _between_ages(low: str, high: str) -> Accepts:
    bottom, top = (_age(bound) if bound else None for bound in (low, high))
    if (low and bottom is None) or (high and top is None):
        raise Faulty('an age such as "065Y"', value=low if low and bottom is None else high)

    def accept(value: str) -> bool:
        age = _age(value)
        return age is not None and (bottom is None or age >= bottom) and (top is None or age <= top)

    return accept


def _age(text: object) -> float | None:
    parsed = _AGE.fullmatch(str(text).strip())
    return int(parsed[1]) * _DAYS_OF[parsed[2]] if parsed else None


def _dated(vr: str, text: str) -> Accepts:
    try:
        interval = key_interval(vr, text)
    except ValueError as error:
        raise Faulty(str(error).removeprefix("expected "), value=text) from None

    def accept(value: str) -> bool:
        at = moment(vr, value)
        return at is not None and interval.low <= at <= interval.high

    return accept


def _name(text: str) -> Accepts:
    expected = text.casefold()
    compare = wildcard_test(expected) if is_wild(expected) else expected.__eq__
    return lambda value: any(
        compare(group.strip().rstrip("^")) is True for group in str(value).casefold().split("=")
    )


def _any_text(expected: object, form: Callable[[str], str]) -> Callable[[Sequence[Any]], bool]:
    """A test of what is no attribute: texts with wildcards; null for nothing."""
    if isinstance(expected, Mapping):
        if set(expected) != {"Not"}:
            raise Faulty('a text, a list, null or {"Not": …}')
        inner = _any_text(expected["Not"], form)
        return lambda values: not inner(values)
    alternatives = expected if isinstance(expected, list) else [expected]
    if not alternatives or any(value is not None and not isinstance(value, str) for value in alternatives):
        raise Faulty("a text, a list of texts, or null")
    absent_fits = any(value is None or value == "" for value in alternatives)
    tests = [wildcard_test(form(value)) for value in alternatives if isinstance(value, str) and value]
    return lambda values: absent_fits if not values else any(t(form(str(v))) for v in values for t in tests)


def _in_words(expected: object) -> str:
    if isinstance(expected, Mapping):
        if "Not" in expected:
            return f"anything but {_in_words(expected['Not'])}"
        return " and ".join(
            f'{word} "{expected[name]}"'
            for name, word in (("From", "from"), ("To", "up to"))
            if name in expected
        )
    if isinstance(expected, list):
        return " or ".join(map(_in_words, expected))
    if expected is None or expected == "":
        return "no value"
    return "any value" if expected == "*" else f'"{expected}"'


# --- weekdays and hours ---


def _windows(expected: object) -> list[Callable[[datetime], bool]]:
    listed = expected if isinstance(expected, list) else [expected]
    if not listed:
        raise Faulty("at least one window of time")
    return [_window(window) for window in listed]


def _window(window: object) -> Callable[[datetime], bool]:
    if not isinstance(window, Mapping) or not window or not set(window) <= {"Days", "From", "To"}:
        raise Faulty('an object with "Days", "From" and "To", or a list of these')
    days = _days(window.get("Days", list(_WEEKDAYS)))
    begin, end = _minutes(window.get("From", "00:00"), "From"), _minutes(window.get("To", "24:00"), "To")

    def inside(at: datetime) -> bool:
        minute = at.hour * 60 + at.minute
        if begin < end:
            return at.weekday() in days and begin <= minute < end
        # Over midnight: the hours behind it belong to the day on which the window opened.
        if minute >= begin:
            return at.weekday() in days
        return minute < end and (at - timedelta(days=1)).weekday() in days

    return inside


def _days(names: object) -> frozenset[int]:
    numbers = {name: number for number, name in enumerate(_WEEKDAYS)}
    days = set()
    for name in names if isinstance(names, list) else [names]:
        if not isinstance(name, str) or name.title()[:3] not in numbers:
            raise Faulty(f"weekdays: {', '.join(_WEEKDAYS)}", "Days", name)
        days.add(numbers[name.title()[:3]])
    return frozenset(days)


def _minutes(text: object, key: str) -> int:
    parsed = _CLOCK.fullmatch(text) if isinstance(text, str) else None
    if parsed is None:
        raise Faulty('a time such as "18:30"', key, text)
    if parsed[1] is None:
        return 24 * 60
    at = time(int(parsed[1]), int(parsed[2]))
    return at.hour * 60 + at.minute


def _windows_in_words(expected: object) -> str:
    listed = expected if isinstance(expected, list) else [expected]
    return " or ".join(
        f"{', '.join(_as_list(window.get('Days', ['every day'])))} "
        f"{window.get('From', '00:00')}–{window.get('To', '24:00')}"
        for window in listed
        if isinstance(window, Mapping)
    )


def _as_list(value: object) -> list[str]:
    return [str(member) for member in value] if isinstance(value, list) else [str(value)]
