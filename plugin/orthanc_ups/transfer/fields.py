# SPDX-License-Identifier: AGPL-3.0-or-later
"""Takes the fields of a JSON object apart, and says in words which one is wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

from ..codecs import dicom_json
from ..codecs.element_values import Number
from ..core.dataset import DataSet
from ..core.decide import is_uid
from ..core.representations import REPRESENTATIONS
from ..core.value_rules import check_values

_GREATEST: Final = 2**53
_T = TypeVar("_T")


class WrongField(ValueError):
    """A field is absent or not what it must be; the text names it."""


class Fields:
    """An object as ``dicom_json.parsed`` gives it. Every method raises WrongField."""

    def __init__(self, value: object, path: str = "") -> None:
        if not isinstance(value, dict):
            raise WrongField(f"{path or 'the line'} is no JSON object")
        self._found: Mapping[str, Any] = value
        self._path = path

    def _name(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name

    def _get(self, name: str) -> Any:
        if name not in self._found:
            raise WrongField(f"{self._name(name)} is missing")
        return self._found[name]

    def _wrong(self, name: str, expected: str) -> WrongField:
        return WrongField(f"{self._name(name)} is {_shown(self._found[name])}, expected {expected}")

    def text(self, name: str) -> str:
        """A text."""
        value = self._get(name)
        if type(value) is not str:
            raise self._wrong(name, "a text")
        return value

    def maybe_text(self, name: str) -> str | None:
        """A text or null."""
        return None if self._get(name) is None else self.text(name)

    def number(self, name: str, low: int = 0) -> int:
        """A whole number."""
        value = _whole(self._get(name))
        if value is None or not low <= value <= _GREATEST:
            raise self._wrong(name, f"a whole number from {low}")
        return value

    def maybe_number(self, name: str) -> int | None:
        """A whole number or null."""
        return None if self._get(name) is None else self.number(name)

    def time(self, name: str) -> float:
        """Seconds since the epoch."""
        value = _real(self._get(name))
        if value is None or value < 0:
            raise self._wrong(name, "seconds since the epoch")
        return value

    def maybe_time(self, name: str) -> float | None:
        """Seconds since the epoch, or null."""
        return None if self._get(name) is None else self.time(name)

    def numbers(self, name: str) -> tuple[int, ...]:
        """A list of whole numbers."""
        numbers = [_whole(number) for number in self._list(name)]
        if any(number is None or not 0 <= number <= _GREATEST for number in numbers):
            raise self._wrong(name, "a list of whole numbers")
        return tuple(number for number in numbers if number is not None)

    def _list(self, name: str) -> list[Any]:
        values = self._get(name)
        if not isinstance(values, list):
            raise self._wrong(name, "a list")
        return values

    def uid(self, name: str) -> str:
        """A UID."""
        value = self.text(name)
        if not is_uid(value):
            raise self._wrong(name, "a UID")
        return value

    def ae(self, name: str) -> str:
        """An AE title."""
        return _ae(self.text(name), self._name(name))

    def aes(self, name: str) -> tuple[str, ...]:
        """A list of AE titles."""
        return tuple(_ae(title, self._name(name)) for title in self._list(name))

    def choice(self, name: str, make: Callable[[Any], _T]) -> _T:
        """One of the values of an enumeration, given as text or number."""
        value = self._get(name)
        whole = _whole(value)
        try:
            return make(value if whole is None else whole)
        except (ValueError, KeyError, TypeError):
            raise self._wrong(name, "one of the values that an export writes") from None

    def objects(self, name: str) -> Iterator[Fields]:
        """A list of objects."""
        for index, value in enumerate(self._list(name)):
            yield Fields(value, f"{self._name(name)}[{index}]")

    def object(self, name: str) -> Fields:
        """An object."""
        return Fields(self._get(name), self._name(name))

    def counts(self, name: str) -> dict[str, int]:
        """An object of whole numbers."""
        own = self.object(name)
        return {key: own.number(key) for key in own._found}

    def flag(self, name: str) -> bool:
        """A truth value."""
        value = self._get(name)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false")
        return value

    def by_name(self, name: str) -> Iterator[tuple[str, Fields]]:
        """The values of an object, which are objects."""
        members = self._get(name)
        if not isinstance(members, dict):
            raise self._wrong(name, "an object")
        for key, value in members.items():
            yield key, Fields(value, f"{self._name(name)}.{key}")

    def by_ae(self, name: str) -> Iterator[tuple[str, Fields]]:
        """The same, with AE titles as names."""
        for key, fields in self.by_name(name):
            yield _ae(key, self._name(name)), fields

    def data_set(self, name: str, *, is_filter: bool = False) -> DataSet:
        """A data set in DICOM JSON, whose values are checked. Raises UpsError or MalformedJson too."""
        value = dicom_json.data_set(self._get(name))
        if not is_filter:
            check_values(value)
        return value

    def has(self, name: str) -> bool:
        """True if there is such a field and it is not null."""
        return self._found.get(name) is not None


def _whole(value: object) -> int | None:
    return (
        int(value)
        if type(value) is Number and value.removeprefix("-").isdigit() and len(value) < 20
        else None
    )


def _real(value: object) -> float | None:
    value = float(value) if type(value) is Number else math.nan
    return value if math.isfinite(value) else None


def _ae(value: object, name: str) -> str:
    if type(value) is not str or not REPRESENTATIONS["AE"].valid(value) or not value.strip():
        raise WrongField(f"{name} is {_shown(value)}, expected an AE title")
    return value


def _shown(value: object) -> str:
    text = str(value) if type(value) is Number else repr(value)
    return text if len(text) <= 40 else text[:37] + "…"
