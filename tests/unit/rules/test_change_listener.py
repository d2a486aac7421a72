# SPDX-License-Identifier: AGPL-3.0-or-later
"""The callback for Orthanc's changes wakes the follower once a round, and notes what saves requests."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final, cast

from orthanc_ups.rules.change_listener import ChangeListener

NEW_INSTANCE, NEW_CHILD, DELETED, OTHER = range(4)
STUDY, SERIES = range(2)
ORTHANC: Final = SimpleNamespace(
    ChangeType=SimpleNamespace(
        NEW_INSTANCE=NEW_INSTANCE, NEW_CHILD_INSTANCE=NEW_CHILD, DELETED=DELETED, UPDATED_METADATA=OTHER
    ),
    ResourceType=SimpleNamespace(SERIES=SERIES, STUDY=STUDY),
)


class Follower:
    """Counts how often it is woken."""

    def __init__(self) -> None:
        self.count = 0
        self.listener = ChangeListener(cast("Any", ORTHANC), self._soon)
        self.listener.on_change(self._woken)

    def _soon(self, function: Callable[[], None]) -> None:
        function()

    def _woken(self) -> None:
        self.count += 1

    def arrive(self, instance: str, series: str) -> None:
        self.listener(NEW_INSTANCE, SERIES, instance)
        self.listener(NEW_CHILD, STUDY, "study")
        self.listener(NEW_CHILD, SERIES, series)


def test_many_changes_wake_the_follower_once_a_round() -> None:
    follower = Follower()
    for number in range(3):
        follower.arrive(f"instance{number}", "series")
    assert follower.count == 1
    follower.listener.begin_round()
    follower.arrive("instance3", "series")
    assert follower.count == 2
    follower.listener.on_change(None)
    follower.arrive("instance4", "series")
    assert follower.count == 2


def test_the_series_of_an_instance_is_noted_until_it_is_asked_for() -> None:
    follower = Follower()
    follower.arrive("instance1", "series1")
    follower.arrive("instance2", "series2")
    assert follower.listener.series_of("instance1") == "series1"
    assert follower.listener.series_of("instance1") is None
    assert follower.listener.series_of("instance2") == "series2"


def test_deleted_studies_are_noted_and_other_changes_are_not() -> None:
    follower = Follower()
    follower.listener(OTHER, STUDY, "study1")
    follower.listener(DELETED, SERIES, "series1")
    assert follower.count == 0
    follower.listener(DELETED, STUDY, "study1")
    assert follower.count == 1
    assert follower.listener.deleted_studies() == ["study1"]
    assert follower.listener.deleted_studies() == []
