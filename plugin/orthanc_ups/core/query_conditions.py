# SPDX-License-Identifier: AGPL-3.0-or-later
"""The conditions of a query. An index uses them to narrow the search down, or to decide it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any


class Operator(Enum):
    """What the values of a condition mean; it holds if any of them fits."""

    EQUALS = "the stored text is one of them"
    LIKE = "the stored text fits one of these wildcard patterns"
    WITHIN = "the stored moment lies in one of these pairs of microseconds, both ends included"
    EMPTY = "the attribute has no value in some item, or there is no item; there are no values to compare"
    SOUNDS = "some word of the stored name begins with the word of a pair or has its sound"


@dataclass(frozen=True, slots=True)
class Condition:
    """One test of one attribute.

    Attributes:
        path: tags joined by dots; for person names followed by ``.Alphabetic``, ``.Ideographic`` or
            ``.Phonetic`` if only that group is meant.
        operator: what the values mean.
        values: alternatives. Texts are in the form of ``dataset.plain``, person names in that of
            ``person_names.fold``.
    """

    path: str
    operator: Operator
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Clause:
    """The conditions of a top-level key: all must hold, and those within a sequence on the same item.

    Attributes:
        conditions: each is necessary; there may be none.
        complete: True if they alone decide.
    """

    conditions: tuple[Condition, ...]
    complete: bool
