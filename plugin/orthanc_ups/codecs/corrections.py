# SPDX-License-Identifier: AGPL-3.0-or-later
"""The corrections that a reader made in a data set, to be reported with the answer.

Every reader (JSON, XML, DIMSE) accepts many deviations from the standard, if the answer to the request can report them.
Readers correct the notation: how elements, tags and VRs are written. Values are left to ``core/value_corrections.py``,
which corrects or refuses them. Matching keys and arguments are never corrected.
"""

from __future__ import annotations

from typing import Final

from ..core.refusals import spelled
from .attribute_names import keyword_of

_MAX_SENTENCES: Final = 50


class Corrections:
    """Collects the corrections made while one data set is read, one sentence for each.

    Attributes:
        lenient: False if ``Ups.Strict`` is true: then only rounding is noted, and nothing else is corrected.
        count: the number of corrections so far, repeated sentences included.
    """

    def __init__(self, *, lenient: bool = True) -> None:
        self.lenient = lenient
        self.count = 0
        self._sentences: dict[str, None] = {}

    @property
    def sentences(self) -> tuple[str, ...]:
        """At most 51 sentences; each names the attribute, none contains its value."""
        sentences = tuple(self._sentences)
        if len(sentences) <= _MAX_SENTENCES:
            return sentences
        return (*sentences[:_MAX_SENTENCES], f"{len(sentences) - _MAX_SENTENCES} more corrections")

    def note(self, path: str, what: str) -> None:
        """Note a correction of an attribute: ``path`` is its tags joined by dots, ``what`` is the predicate."""
        *above, tag = path.split(".")
        inside = "".join(f", in {_spelled(outer)}" for outer in reversed(above))
        self.say(f"{_spelled(tag)} {what}{inside}")

    def say(self, sentence: str) -> None:
        """Note a correction that does not concern a single attribute."""
        self.count += 1
        self._sentences[sentence] = None


def _spelled(tag: str) -> str:
    """Keyword and tag; the core knows only the keywords of UPS."""
    name = keyword_of(tag)
    return f"{name} ({tag[:4]},{tag[4:]})" if name else spelled(tag)
