# SPDX-License-Identifier: AGPL-3.0-or-later
"""``Schedule`` of a rule: weekdays and hours, in the time zone of the server."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final, TypeAlias

from .faults import InvalidRuleValue

Window: TypeAlias = Callable[[datetime], bool]
"""Whether a time is inside the window."""

_WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_NUMBERS: Final = {
    name: number for number, day in enumerate(_WEEKDAYS) for name in (day.lower(), day[:3].lower())
}
_CLOCK: Final = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)|24:00")
_MIDNIGHT: Final = 24 * 60


def read_windows(expected: object) -> list[Window]:
    """Compile the windows of ``Schedule``. Raises InvalidRuleValue."""
    listed = expected if isinstance(expected, list) else [expected]
    if not listed:
        raise InvalidRuleValue("at least one time window")
    return [_window(window) for window in listed]


def _window(entry: object) -> Window:
    if not isinstance(entry, Mapping) or not entry or not set(entry) <= {"Days", "From", "To"}:
        raise InvalidRuleValue('an object with "Days", "From" and "To", or a list of these')
    days = _days(entry.get("Days", list(_WEEKDAYS)))
    begin, end = _minutes(entry.get("From", "00:00"), "From"), _minutes(entry.get("To", "24:00"), "To")

    def inside(at: datetime) -> bool:
        minute = at.hour * 60 + at.minute
        if begin < end:
            return at.weekday() in days and begin <= minute < end
        # Across midnight: the hours after it belong to the day on which the window began.
        if minute >= begin:
            return at.weekday() in days
        return minute < end and (at - timedelta(days=1)).weekday() in days

    return inside


def _days(names: object) -> frozenset[int]:
    listed = names if isinstance(names, list) else [names]
    if not listed:
        raise InvalidRuleValue("at least one weekday", "Days")
    days = set()
    for name in listed:
        number = _NUMBERS.get(name.strip().lower()) if isinstance(name, str) else None
        if number is None:
            raise InvalidRuleValue(f"weekdays: {', '.join(day[:3] for day in _WEEKDAYS)}", "Days", name)
        days.add(number)
    return frozenset(days)


def _minutes(text: object, key: str) -> int:
    parsed = _CLOCK.fullmatch(text.strip()) if isinstance(text, str) else None
    if parsed is None:
        raise InvalidRuleValue('a time such as "18:30"', key, text)
    return _MIDNIGHT if parsed[1] is None else int(parsed[1]) * 60 + int(parsed[2])


def windows_in_words(expected: object) -> str:
    """The windows as text: ``Mon, Tue 18:00–07:00``."""
    listed = expected if isinstance(expected, list) else [expected]
    return " or ".join(
        f"{', '.join(_texts(window.get('Days', ['every day'])))} "
        f"{window.get('From', '00:00')}–{window.get('To', '24:00')}"
        for window in listed
        if isinstance(window, Mapping)
    )


def _texts(value: object) -> list[str]:
    return [str(member) for member in value] if isinstance(value, list) else [str(value)]
