# SPDX-License-Identifier: AGPL-3.0-or-later
"""Single values, from their form in JSON and XML to the inner form (``core/dataset.py``).

A value that does not fit its VR is passed on unchanged; the rules of the core refuse it and name the attribute.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from ..core import number_texts
from ..core.dataset import FLOAT_VRS, INTEGER_VRS
from ..core.statuses import INVALID_VALUE, UpsError
from .corrections import Corrections

_NUMERIC_VRS: Final = INTEGER_VRS | FLOAT_VRS | {"DS", "IS"}
_DECIMAL_STRING_LENGTH: Final = 16


class Number(str):
    """The digits of a JSON number, to tell it from a JSON string."""

    __slots__ = ()


def inner_values(vr: str, listed: Sequence[Any], path: str, corrections: Corrections | None) -> list[Any]:
    """Values of any VR except SQ and PN; what is changed is noted in ``corrections``."""
    if corrections is None:
        return [inner_value(vr, value) for value in listed]
    if any(type(value) is Number for value in listed):
        listed = _noted_numbers(vr, listed, path, corrections)
    return [inner_value(vr, value) for value in listed]


def _noted_numbers(vr: str, listed: Sequence[Any], path: str, corrections: Corrections) -> Sequence[Any]:
    """The same values, with numbers as text if values of the VR are text; rounding is noted."""
    if corrections.lenient and vr not in _NUMERIC_VRS:
        corrections.note(path, "was a JSON number and is now text")
        return [str(value) if type(value) is Number else value for value in listed]
    numbers = [value for value in listed if type(value) is Number]
    if vr == "DS" and any(len(value) > _DECIMAL_STRING_LENGTH for value in numbers):
        corrections.note(path, "was rounded to the 16 characters of VR DS")
    if vr == "FD" and not all(map(_is_exact, numbers)):
        corrections.note(path, "was rounded to the 64 bits of VR FD")
    return listed


def _is_exact(number: Number) -> bool:
    value = float(number)
    return not math.isfinite(value) or Decimal(number) == Decimal(repr(value))


def inner_value(vr: str, raw: Any) -> Any:
    """A value of any VR except SQ and PN.

    An empty text becomes None. Integers and floats may be written as text. A Number for DS or IS keeps its
    digits, unless they exceed the 16 characters of a DS: then it is rounded.
    """
    if raw is None or raw == "":
        return None
    if vr in INTEGER_VRS:
        return _integer(raw)
    if vr in FLOAT_VRS:
        return _float(raw)
    if type(raw) is Number:
        return _number_as_text(vr, raw)
    if not isinstance(raw, str):
        return raw
    return raw.strip().upper() if vr == "AT" else raw.rstrip("\0") or None


def _integer(raw: Any) -> Any:
    value = number_texts.integer(raw) if isinstance(raw, str) else None
    return _plain(raw) if value is None else value


def _float(raw: Any) -> Any:
    if not isinstance(raw, str):
        return raw
    value = number_texts.real(raw)
    return str(raw) if value is None else value


def _number_as_text(vr: str, number: Number) -> Any:
    if vr == "DS":
        return number_texts.decimal_string(number) or str(number)
    if vr == "IS":
        return number_texts.integer_string(number) or str(number)
    return _plain(number)


def _plain(raw: Any) -> Any:
    """A Number in a VR without numbers becomes a float, which the rules refuse."""
    return float(raw) if type(raw) is Number else raw


def refused(path: str, what: str) -> UpsError:
    """The error (0106) for an attribute that cannot be read: ``path`` is its tags, ``what`` the predicate."""
    tag = path[-8:]
    return UpsError(INVALID_VALUE, f"({tag[:4]},{tag[4:]}) {what}", path)
