# SPDX-License-Identifier: AGPL-3.0-or-later
"""Pauses between attempts double up to the longest."""

from itertools import islice

from orthanc_ups.core.pauses import growing


def test_each_pause_is_twice_the_one_before_up_to_the_longest() -> None:
    assert list(islice(growing(0.2, 1.0), 5)) == [0.2, 0.4, 0.8, 1.0, 1.0]
