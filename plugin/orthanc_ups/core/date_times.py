# SPDX-License-Identifier: AGPL-3.0-or-later
"""Dates, times and date-times as whole microseconds, and matching keys as intervals of them.

A key covers everything that its precision leaves open: ``2026`` is from the first to the last microsecond of
that year; a range is from the first microsecond of its low end to the last of its high end (PS3.4 C.2.2.2.5). A
stored value is the moment at which it begins.

Scales: DT counts from 0001-01-01 in UTC, DA from the same day without zones, TM from midnight.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from functools import lru_cache
from types import MappingProxyType
from typing import Final, TypeAlias

Zone: TypeAlias = int | tzinfo
"""The zone of date-times without offset: microseconds east of UTC, or a ``tzinfo``, such as one with DST."""

UTC: Final = 0
DATED_VRS: Final = frozenset({"DA", "DT", "TM"})

_SECOND: Final = 1_000_000
_MINUTE: Final = 60 * _SECOND
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR

EPOCH: Final = 62_135_596_800 * _SECOND
"""1970-01-01 in UTC on the scale of DT."""

BEGINNING: Final = -(2**61)
END: Final = 2**61

_OFFSET: Final = r"[+-](?:0[0-9]|1[0-4])[0-5][0-9]"
_CLOCK: Final = r"[0-9]{2}(?:[0-9]{2}(?:[0-9]{2}(?:\.[0-9]{1,6})?)?)?"
_FORMS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "DA": r"[0-9]{8}",
        "TM": _CLOCK,
        "DT": rf"[0-9]{{4}}(?:[0-9]{{2}}(?:[0-9]{{2}}(?:{_CLOCK})?)?)?(?:{_OFFSET})?",
    }
)
_KEYS: Final = {vr: re.compile(rf"({form})|({form})?-({form})?") for vr, form in _FORMS.items()}
_PARTS: Final = re.compile(
    rf"([0-9]{{4}})([0-9]{{2}})?([0-9]{{2}})?([0-9]{{2}})?([0-9]{{2}})?([0-9]{{2}})?(?:\.([0-9]+))?({_OFFSET})?"
)
_CLOCK_PARTS: Final = re.compile(r"([0-9]{2})([0-9]{2})?([0-9]{2})?(?:\.([0-9]+))?")
_AROUND_HYPHEN: Final = re.compile(r" *- *")
_EXPECTED: Final = MappingProxyType(
    {
        "DA": "a date such as 20260131, or a range such as 20260101-20260131",
        "TM": "a time such as 1430, or a range within one day such as 0800-1430",
        "DT": "a date-time such as 202601311430+0100, or a range such as 20260101-20260131",
    }
)


@dataclass(frozen=True, slots=True)
class Interval:
    """Microseconds from ``low`` to ``high``, both inclusive."""

    low: int
    high: int


def zone(text: str) -> int | None:
    """Timezone Offset From UTC (0008,0201) as microseconds east of UTC, or None if it is not valid."""
    offset = text.strip(" ")
    if not re.fullmatch(_OFFSET, offset):
        return None
    size = int(offset[1:3]) * _HOUR + int(offset[3:]) * _MINUTE
    return -size if offset[0] == "-" else size


def key_interval(vr: str, text: str, local: Zone = UTC) -> Interval:
    """What a DA, TM or DT key covers: a single value, ``a-b``, ``a-`` or ``-b`` (PS3.4 C.2.2.2.1, C.2.2.2.5).

    A hyphen that can be the sign of an offset from UTC is taken as such: ``20260101-0500`` is a day in a zone.
    ``local`` is the zone of DT values without offset. Raises ValueError, which says what is expected.
    """
    match = _KEYS[vr].fullmatch(_AROUND_HYPHEN.sub("-", text.strip(" ")))
    if match is None or not any(match.groups()):
        raise ValueError(f"expected {_EXPECTED[vr]}")
    if match[1]:
        return _interval(vr, match[1], local)
    low = _interval(vr, match[2], local).low if match[2] else BEGINNING
    high = _interval(vr, match[3], local).high if match[3] else END
    if low > high:
        raise ValueError("expected a range that ends after it begins")
    return Interval(low, high)


def since_epoch(at: int) -> float:
    """A moment on the scale of DT in seconds since 1970."""
    return (at - EPOCH) / _SECOND


def moment(vr: str, text: object, local: Zone = UTC) -> int | None:
    """When a stored DA, TM or DT value begins, or None if it is not valid."""
    if not isinstance(text, str):
        return None
    try:
        return _interval(vr, text.strip(" "), local).low
    except ValueError:
        return None


@lru_cache(maxsize=16_384)
def _interval(vr: str, text: str, local: Zone) -> Interval:
    if vr == "TM":
        low, span = _clock(text)
        return Interval(low, low + span - 1)
    low, span, offset = _calendar(text)
    if vr == "DA":
        return Interval(low, low + span - 1)
    high = low + span - 1
    return Interval(low - _shift(offset, local, low), high - _shift(offset, local, high))


def _calendar(text: str) -> tuple[int, int, str | None]:
    """Begin and length of a DA or DT value, and its offset. Raises ValueError."""
    match = _PARTS.fullmatch(text)
    if match is None:
        raise ValueError(f"expected {_EXPECTED['DT']}")
    year, month, day, hour, minute, second, fraction, offset = match.groups()
    first = date(int(year), int(month or 1), int(day or 1))
    start = (first.toordinal() - 1) * _DAY
    if hour is not None:
        past, span = _time_of_day(hour, minute, second, fraction)
        return start + past, span, offset
    return start, _days(first, month, day) * _DAY, offset


def _days(first: date, month: str | None, day: str | None) -> int:
    if day is not None:
        return 1
    if month is not None:
        return monthrange(first.year, first.month)[1]
    return date(first.year, 12, 31).toordinal() - first.toordinal() + 1


def _clock(text: str) -> tuple[int, int]:
    match = _CLOCK_PARTS.fullmatch(text)
    if match is None:
        raise ValueError(f"expected {_EXPECTED['TM']}")
    hour, minute, second, fraction = match.groups()
    return _time_of_day(hour, minute, second, fraction)


def _time_of_day(hour: str, minute: str | None, second: str | None, fraction: str | None) -> tuple[int, int]:
    """Begin and length within the day; second 60 is a leap second."""
    if int(hour) > 23 or int(minute or 0) > 59 or int(second or 0) > 60 or (fraction and not second):
        raise ValueError(f"expected {_EXPECTED['TM']}")
    past = int(hour) * _HOUR + int(minute or 0) * _MINUTE + int(second or 0) * _SECOND
    if fraction is not None:
        return past + int(fraction.ljust(6, "0")), 10 ** (6 - len(fraction))
    return past, _SECOND if second else _MINUTE if minute else _HOUR


def _shift(offset: str | None, local: Zone, naive: int) -> int:
    """Microseconds to subtract from a local time to get UTC."""
    if offset is not None:
        return zone(offset) or 0
    if isinstance(local, int):
        return local
    try:
        east = (datetime.min.replace(tzinfo=local) + timedelta(microseconds=naive)).utcoffset()
    except OverflowError:
        return 0
    return east // timedelta(microseconds=1) if east else 0
