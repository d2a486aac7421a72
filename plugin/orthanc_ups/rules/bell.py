# SPDX-License-Identifier: AGPL-3.0-or-later
"""What Orthanc calls for every change: it rings, and notes identifiers; everything else happens on the loop.

What it notes saves questions, and nothing more: ``/changes`` is the truth, also of what came while nobody listened.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from ..orthanc.sdk import Orthanc

_MOST_HINTS: Final = 50_000


class Bell:
    """Called on Orthanc's threads; the other methods on the loop."""

    def __init__(self, orthanc: Orthanc, soon: Callable[[Callable[[], None]], object]) -> None:
        """``soon`` runs a function on the loop, from any thread, and never raises."""
        changes, levels = orthanc.ChangeType, orthanc.ResourceType
        self._new, self._child, self._deleted = (
            changes.NEW_INSTANCE,
            changes.NEW_CHILD_INSTANCE,
            changes.DELETED,
        )
        self._series, self._study = levels.SERIES, levels.STUDY
        self._soon = soon
        self._last = ""
        self._hints: dict[str, str] = {}
        self._gone: deque[str] = deque()
        self._rung = False
        self._listener: Callable[[], None] | None = None

    def __call__(self, change: int, level: int, resource: str) -> None:
        """A change of this kind, of a resource of this level, by its Orthanc identifier."""
        if change == self._new:
            self._last = resource
            self._ring()
        elif change == self._child and level == self._series:
            if len(self._hints) >= _MOST_HINTS:
                self._hints.clear()  # of instances that were deleted at once, or that nobody asks for
            self._hints[self._last] = resource
        elif change == self._deleted and level == self._study:
            self._gone.append(resource)
            self._ring()

    def _ring(self) -> None:
        if not self._rung and self._listener is not None:
            self._rung = True
            self._soon(self._listener)

    def listen(self, listener: Callable[[], None] | None) -> None:
        """``listener`` is called on the loop when something happened; None to be left alone."""
        self._listener = listener
        self._rung = False

    def answered(self) -> None:
        """The listener goes to look: what happens from now on rings again."""
        self._rung = False

    def series_of(self, instance: str) -> str | None:
        """The series of an instance that has just arrived, if it was noted; asked once."""
        return self._hints.pop(instance, None)

    def deleted_studies(self) -> list[str]:
        """The studies that were deleted since the last call."""
        return [self._gone.popleft() for _ in range(len(self._gone))]
