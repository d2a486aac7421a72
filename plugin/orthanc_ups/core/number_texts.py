# SPDX-License-Identifier: AGPL-3.0-or-later
"""Numbers as clients write them, converted to the form that their VR requires (PS3.5 §6.2).

Readers of data sets use this for what they accept silently, the rules for what they correct and report. Each
function returns None for a text that is not such a number.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Final

_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_DIGITS: Final = re.compile(r"[+-]?[0-9]{1,20}")
_LONGEST_TEXT: Final = 1024
_LONGEST_DECIMAL: Final = 16
_SPECIAL: Final = {
    "nan": "NaN",
    "inf": "Infinity",
    "+inf": "Infinity",
    "-inf": "-Infinity",
    "infinity": "Infinity",
    "+infinity": "Infinity",
    "-infinity": "-Infinity",
}


def integer(text: str) -> int | None:
    """For SL, SS, SV, UL, US and UV: ``512`` and ``512.0`` are the same number."""
    text = text.strip()
    if _DIGITS.fullmatch(text):
        return int(text)
    exact = _exact(text)
    is_whole = exact is not None and abs(exact) < 2**64 and exact == exact.to_integral_value()
    return int(exact) if exact is not None and is_whole else None


def real(text: str) -> float | str | None:
    """For FD and FL: a finite number, or ``NaN``, ``Infinity`` or ``-Infinity``."""
    text = text.strip()
    special = _SPECIAL.get(text.lower())
    if special is not None:
        return special
    exact = _exact(text)
    value = float(exact) if exact is not None else math.inf
    return value if math.isfinite(value) else None


def decimal_string(text: str) -> str | None:
    """For DS: with as many digits as fit into 16 characters."""
    text = text.strip()
    if _exact(text) is None:
        return None
    if len(text) <= _LONGEST_DECIMAL:
        return text
    value = float(text)
    if not math.isfinite(value):
        return None
    rounded = (f"{value:.{digits}g}" for digits in range(_LONGEST_DECIMAL, 0, -1))
    return next(number for number in rounded if len(number) <= _LONGEST_DECIMAL)


def integer_string(text: str) -> str | None:
    """For IS: ``40.0`` is 40; the digits of a whole number stay as they are."""
    if _DIGITS.fullmatch(text.strip()):
        return text.strip()
    value = integer(text)
    return None if value is None else str(value)


def _exact(text: str) -> Decimal | None:
    return Decimal(text) if len(text) <= _LONGEST_TEXT and _NUMBER.fullmatch(text) else None
