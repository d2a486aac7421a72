# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a reader of a data set corrected, to be reported with the answer.

Every reader (JSON, XML, DIMSE) takes much that is not written as the standard has it, if the answer to the request can
report it. It corrects the notation: how elements, tags and VRs are written. What is wrong with a value is left to
``core/value_corrections.py``, which corrects or refuses it by name. Matching keys and arguments are never corrected.
"""

from __future__ import annotations

from typing import Final

from ..core.refusals import spelled
from .attribute_names import keyword_of

_MAX_SENTENCES: Final = 50


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
        sentences = tuple(self._sentences)
        if len(sentences) <= _MAX_SENTENCES:
            return sentences
        return (*sentences[:_MAX_SENTENCES], f"{len(sentences) - _MAX_SENTENCES} more corrections")

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
