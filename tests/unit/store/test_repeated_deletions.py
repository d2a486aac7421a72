# SPDX-License-Identifier: AGPL-3.0-or-later
"""A router that deletes each shelf which was made is recognized; a person who deletes them now and then is not."""

from __future__ import annotations

import pytest

from orthanc_ups.store.shelf_set import RepeatedDeletions, StoreMisconfigured

SHELF_NUMBERS = frozenset({1, 2})
MINUTE = 60.0


class Watched:
    """Deletions under a clock of the test."""

    def __init__(self) -> None:
        self.now = 0.0
        self.deletions = RepeatedDeletions(lambda: self.now)

    def make_and_delete(self, after: float) -> None:
        for shelf in SHELF_NUMBERS:
            self.deletions.note_sent(shelf)
        self.now += after
        self.deletions.absent(SHELF_NUMBERS)


def test_shelves_that_were_never_made_count_as_no_deletion() -> None:
    watched = Watched()
    for _ in range(9):
        watched.deletions.absent(SHELF_NUMBERS)
    assert not watched.deletions.recognized


@pytest.mark.parametrize("pause", [0.1, 2 * MINUTE])
def test_the_third_deletion_within_ten_minutes_names_the_router_and_both_cures(pause: float) -> None:
    watched = Watched()
    watched.make_and_delete(pause)
    watched.make_and_delete(pause)
    with pytest.raises(StoreMisconfigured, match=r"router.*Patient ID.*\"Ups.Store\" to \"key-value\""):
        watched.make_and_delete(pause)
    with pytest.raises(StoreMisconfigured):
        watched.deletions.absent(SHELF_NUMBERS)


def test_deletions_once_in_a_while_are_made_good_for_ever() -> None:
    watched = Watched()
    for _ in range(9):
        watched.make_and_delete(6 * MINUTE)
    assert not watched.deletions.recognized
