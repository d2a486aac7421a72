# SPDX-License-Identifier: AGPL-3.0-or-later
"""Wild card matching: ``*`` is any number of characters, ``?`` exactly one (PS3.4 C.2.2.2.4)."""

from __future__ import annotations

import re
from collections.abc import Callable

_WILD = re.compile(r"[*?]")


def is_wild(pattern: str) -> bool:
    """True if the pattern has a wildcard."""
    return _WILD.search(pattern) is not None


def is_universal(pattern: str) -> bool:
    """True if the pattern is nothing but ``*``, which is Universal Matching."""
    return not pattern.strip("*")


def literal_start(pattern: str) -> str:
    """The text that every match begins with."""
    return _WILD.split(pattern, maxsplit=1)[0]


def wildcard_test(pattern: str) -> Callable[[str], bool]:
    """A test for whole texts. Its time is linear in the text for each ``*``, even for a hostile pattern."""
    first, *later = (_literal(part) for part in re.split(r"\*+", pattern))
    middle = "".join(f"(?>.*?{part})" for part in later[:-1])
    last = f".*{later[-1]}" if later else ""
    whole = re.compile(first + middle + last, re.DOTALL).fullmatch
    return lambda text: whole(text) is not None


def _literal(part: str) -> str:
    return "".join("." if letter == "?" else re.escape(letter) for letter in part)
