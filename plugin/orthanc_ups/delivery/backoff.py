# SPDX-License-Identifier: AGPL-3.0-or-later
"""When to try again."""

from __future__ import annotations

from typing import Final

from ..settings import Settings
from .port import Clock

SOONEST: Final = 0.2
"""Seconds between two attempts, however often the AE is seen."""


class Backoff:
    """Exponential pauses between failed attempts, each shortened by up to a half at random (jitter)."""

    __slots__ = ("_attempted", "_clock", "_pause", "_seen", "_settings", "_until")

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._pause = 0.0
        self._until = 0.0
        self._attempted = float("-inf")
        self._seen = False

    @property
    def failing(self) -> bool:
        """True since an attempt failed, until one succeeds."""
        return self._pause > 0

    @property
    def left(self) -> float:
        """Seconds until the next attempt; 0 if it may be made now."""
        return max(0.0, self._until - self._clock.monotonic()) if self._pause else 0.0

    def attempt(self) -> None:
        """An attempt begins."""
        self._attempted = self._clock.monotonic()
        self._seen = False

    def failed(self) -> float:
        """The attempt failed; return the seconds until the next (few if the receiver was seen meanwhile)."""
        settings = self._settings
        longer = self._pause * settings.retry_factor if self._pause else settings.retry_first
        self._pause = max(min(longer, settings.retry_maximum), 0.001)
        wait = self._pause * (1 - self._clock.random() / 2)
        if self._seen:
            wait = min(wait, SOONEST)
        self._seen = False
        self._until = self._clock.monotonic() + wait
        return wait

    def succeeded(self) -> None:
        """The receiver is there again."""
        self._pause = 0.0

    def hurry(self, *, now: bool = False) -> None:
        """The receiver was seen: try at once, but (unless ``now``) not more often than every 0.2 s."""
        self._seen = True
        self._until = self._clock.monotonic() if now else min(self._until, self._attempted + SOONEST)
