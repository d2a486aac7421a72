# SPDX-License-Identifier: AGPL-3.0-or-later
"""What well-meaning senders write otherwise than the notation of a data set has it, and how it is read all the same.

Every reader of a data set (JSON, XML, DIMSE) uses this for the requests whose answer can tell of it. What is wrong
with the value of an element is left to the rules of the core, which correct or refuse it by name. Matching keys and
arguments are never corrected.
"""

from __future__ import annotations

import re
from base64 import b64decode
from functools import lru_cache
from typing import Any, Final

from ..core.dataset import BINARY_VRS, Element
from ..core.dictionary import VR_OF
from ..core.refusals import spelled
from ..core.representations import REPRESENTATIONS
from .attribute_names import UnknownAttribute, keyword_of, tag_in_any_case, vr_of
from .encoded_values import NUMBER_CODES, values_of

_UTF_8: Final = ("utf_8",)
_MAX_SENTENCES: Final = 50
_TAG: Final = re.compile(r"\(?(?:0x)?([0-9A-Fa-f]{4})[,x]?([0-9A-Fa-f]{4})\)?")


class Corrections:
    """Notes what was corrected while one data set was read, a sentence each.

    Attributes:
        lenient: False where ``Ups.Strict`` holds: then only rounding is noted, and nothing else is corrected.
        count: how often something was noted.
    """

    def __init__(self, *, lenient: bool = True) -> None:
        self.lenient = lenient
        self.count = 0
        self._sentences: dict[str, None] = {}

    @property
    def sentences(self) -> tuple[str, ...]:
        """One per correction; each names the attribute, none contains its value."""
        said = tuple(self._sentences)
        if len(said) <= _MAX_SENTENCES:
            return said
        return (*said[:_MAX_SENTENCES], f"{len(said) - _MAX_SENTENCES} more corrections")

    def note(self, path: str, what: str) -> None:
        """Note a correction of an attribute: ``path`` is its tags joined by dots, ``what`` follows its name."""
        *above, tag = path.split(".")
        inside = "".join(f", in {_spelled(outer)}" for outer in reversed(above))
        self.say(f"{_spelled(tag)} {what}{inside}")

    def say(self, sentence: str) -> None:
        """Note a correction that does not concern a single attribute."""
        self.count += 1
        self._sentences[sentence] = None


def _spelled(tag: str) -> str:
    """As the core spells an attribute, and by its keyword if it has one that the core does not know."""
    name = keyword_of(tag)
    return f"{name} ({tag[:4]},{tag[4:]})" if name else spelled(tag)


# --- names and VRs ----------------------------------------------------------------------------------


def tag_of_name(name: str) -> str | None:
    """The tag that a keyword in any case, ``(0010,0020)``, ``0010,0020`` or ``0x00100020`` means, or None."""
    digits = _TAG.fullmatch(name.strip())
    if digits:
        return (digits[1] + digits[2]).upper()
    try:
        return tag_in_any_case(name.strip())
    except UnknownAttribute:
        return None


@lru_cache(4096)
def right_vr(tag: str, vr: str) -> str:
    """The VR by which to read an element that came with ``vr``: that of the dictionary if ``vr`` is UN or not a VR."""
    if vr.upper() in REPRESENTATIONS and vr != "UN":
        return vr.upper()
    dictionary_vr = VR_OF.get(tag) or vr_of(tag)
    return dictionary_vr or vr


# --- values ----------------------------------------------------------------------------------------


def is_usual(vr: str, value: Any) -> bool:
    """True for an empty value and for one that is valid in the inner form."""
    return value is None or value == "" or (vr in REPRESENTATIONS and REPRESENTATIONS[vr].valid(value))


def unpacked(vr: str, inline: str) -> Element | None:
    """The values in an InlineBinary whose VR is one of text or numbers, otherwise None."""
    if vr == "SQ" or vr in BINARY_VRS or vr not in REPRESENTATIONS:
        return None
    try:
        values = values_of(b64decode(inline, validate=True), vr, "<", _UTF_8)
    except (ValueError, KeyError):
        return None
    if vr in NUMBER_CODES or all(is_usual(vr, value) for value in values):
        return {"vr": vr, "Value": values} if values and values != [None] else {"vr": vr}
    return None
