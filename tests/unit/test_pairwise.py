# SPDX-License-Identifier: AGPL-3.0-or-later
"""The sample of a product contains every pair of values."""

from __future__ import annotations

import itertools

from tests.support.pairwise import pairwise


def test_any_two_values_of_two_factors_meet() -> None:
    factors = ["abc", "defg", "hi", "jklmno"]
    rows = pairwise(factors)
    for first, second in itertools.combinations(range(4), 2):
        assert {(row[first], row[second]) for row in rows} == {
            *itertools.product(factors[first], factors[second])
        }
    assert len(rows) < 36
