# SPDX-License-Identifier: AGPL-3.0-or-later
"""Ways of matching that apply only if SCU and SCP have agreed on them (PS3.4 C.5.1.1, PS3.18 §8.3.4)."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Flag, auto


class Mechanisms(Flag):
    """Extended matching mechanisms; each is off unless it was negotiated or requested."""

    NONE = 0
    FUZZY = auto()
    """Fuzzy semantic matching of person names."""
    EMPTY = auto()
    """Empty Value Matching (PS3.4 C.2.2.2.7): ``""`` matches an attribute that is empty or absent."""
    MULTIPLE = auto()
    """Multiple Value Matching (PS3.4 C.2.2.2.8): a key may have several values."""

    def words(self) -> list[str]:
        """Their names in lower case, for documents."""
        return [str(mechanism.name).lower() for mechanism in self]

    @classmethod
    def of_words(cls, words: Iterable[object]) -> Mechanisms:
        """Read what ``words`` wrote. Raises ValueError for an unknown word."""
        mechanisms = cls.NONE
        for word in words:
            if not isinstance(word, str) or word.upper() not in cls.__members__:
                raise ValueError(f"{word!r} is not an extended matching mechanism")
            mechanisms |= cls[word.upper()]
        return mechanisms
