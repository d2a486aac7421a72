# SPDX-License-Identifier: AGPL-3.0-or-later
"""A sample of a product in which any two values of two factors meet at least once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
Pair = tuple[tuple[int, int], tuple[int, int]]


def pairwise(factors: Sequence[Sequence[T]]) -> list[tuple[T, ...]]:
    """Rows of one value for each factor; every call with the same factors gives the same rows.

    Each row is the one of the whole product that has the most pairs which no earlier row has.
    """
    candidates = list(itertools.product(*(range(len(factor)) for factor in factors)))
    missing = {pair for row in candidates for pair in _pairs(row)}
    rows = []
    while missing:
        best = max(candidates, key=lambda row: len(missing & _pairs(row)))
        missing -= _pairs(best)
        rows.append(tuple(factor[index] for factor, index in zip(factors, best, strict=True)))
    return rows


def _pairs(row: Sequence[int]) -> set[Pair]:
    """Each two factors of a row with their values, as ``((factor, value), (factor, value))``."""
    return set(itertools.combinations(enumerate(row), 2))
