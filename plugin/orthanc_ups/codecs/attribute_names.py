# SPDX-License-Identifier: AGPL-3.0-or-later
"""Attributes by name: keyword or tag to VR and back (PS3.6)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

_HEX: Final = re.compile(r"[0-9A-Fa-f]{8}")
_REMEMBERED: Final = 4096


class UnknownAttribute(LookupError):
    """The name is neither a keyword of the data dictionary nor 8 hexadecimal digits."""


@lru_cache(_REMEMBERED)
def tag_of(name: str) -> str:
    """The tag (8 upper-case hex digits) of a keyword or of 8 hex digits. Raises UnknownAttribute."""
    if _HEX.fullmatch(name):
        return name.upper()
    found = tag_for_keyword(name) if name.isascii() and name.isalnum() else None
    if found is None:
        raise UnknownAttribute(name)
    return f"{found:08X}"


@lru_cache(_REMEMBERED)
def vr_of(tag: str) -> str | None:
    """The VR of a tag, the first where PS3.6 leaves a choice, or None if the dictionary does not know it."""
    if is_private(tag):
        return "LO" if is_private_creator(tag) else None
    try:
        return dictionary_VR(int(tag, 16)).split(" ")[0]
    except KeyError:
        return None


@lru_cache(_REMEMBERED)
def keyword_of(tag: str) -> str:
    """The keyword of a tag, or the empty string."""
    return "" if is_private(tag) else keyword_for_tag(int(tag, 16))


def is_private(tag: str) -> bool:
    """True for an odd group (PS3.5 §7.8)."""
    return int(tag[3], 16) % 2 == 1


def is_private_creator(tag: str) -> bool:
    """True for (gggg,0010) to (gggg,00FF) with gggg odd: it reserves a block (PS3.5 §7.8.1)."""
    return is_private(tag) and "0010" <= tag[4:] <= "00FF"
