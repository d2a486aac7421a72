# SPDX-License-Identifier: AGPL-3.0-or-later
"""The callback for changes in Orthanc. It wakes the follower and notes identifiers; all work is done on the loop.

The notes only save requests: ``/changes`` also has what happened while the callback was not registered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from ..orthanc.sdk import Orthanc

_NOTED_AT_ONCE: Final = 50_000


class ChangeListener:
    """An instance is called on Orthanc's threads; its methods are called on the loop."""

    def __init__(self, orthanc: Orthanc, soon: Callable[[Callable[[], None]], object]) -> None:
        """``soon`` runs a function on the loop, from any thread, and never raises."""
        changes, levels = orthanc.ChangeType, orthanc.ResourceType
        self._new_instance = changes.NEW_INSTANCE
        self._new_child = changes.NEW_CHILD_INSTANCE
        self._deleted = changes.DELETED
        self._series, self._study = levels.SERIES, levels.STUDY
        self._soon = soon
        self._last_instance = ""
        self._series_of_instances: dict[str, str] = {}
        self._deleted_studies: deque[str] = deque()
        self._is_waking = False
        self._wake: Callable[[], None] | None = None

    def __call__(self, change: int, level: int, resource: str) -> None:
        """Take note of a change: its kind, the level of the resource, and its Orthanc identifier."""
        if change == self._new_instance:
            self._last_instance = resource
            self._wake_follower()
        elif change == self._new_child and level == self._series:
            if len(self._series_of_instances) >= _NOTED_AT_ONCE:
                self._series_of_instances.clear()  # left over: deleted at once, or no rule is about images
            self._series_of_instances[self._last_instance] = resource
        elif change == self._deleted and level == self._study:
            self._deleted_studies.append(resource)
            self._wake_follower()

    def _wake_follower(self) -> None:
        if not self._is_waking and self._wake is not None:
            self._is_waking = True
            self._soon(self._wake)

    def on_change(self, function: Callable[[], None] | None) -> None:
        """Call a function on the loop when something happens; None to call nothing any more."""
        self._wake = function
        self._is_waking = False

    def begin_round(self) -> None:
        """A round of the follower begins: changes from now on wake it again."""
        self._is_waking = False

    def series_of(self, instance: str) -> str | None:
        """The series of an instance that has just arrived, if it was noted. The note is then dropped."""
        return self._series_of_instances.pop(instance, None)

    def deleted_studies(self) -> list[str]:
        """The studies that were deleted since the last call."""
        return [self._deleted_studies.popleft() for _ in range(len(self._deleted_studies))]
