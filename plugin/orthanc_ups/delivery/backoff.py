# SPDX-License-Identifier: AGPL-3.0-or-later
"""The pauses between attempts at an endpoint that fails."""

from __future__ import annotations

from typing import Final

from ..settings import Settings
from .port import Clock

SOONEST: Final = 0.2
"""Seconds between two attempts at least, however often ``hurry`` is called."""


class Backoff:
    """Exponential pauses between failed attempts, each shortened by up to a half at random (jitter)."""

    __slots__ = ("_attempted", "_clock", "_hurried", "_pause", "_settings", "_until")

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._pause = 0.0
        self._until = 0.0
        self._attempted = float("-inf")
        self._hurried = False

    @property
    def failing(self) -> bool:
        """True from a failed attempt to the next that succeeds."""
        return self._pause > 0

    @property
    def remaining(self) -> float:
        """Seconds until the next attempt; 0 if it is due."""
        return max(0.0, self._until - self._clock.monotonic()) if self._pause else 0.0

    def attempt(self) -> None:
        """Note that an attempt begins."""
        self._attempted = self._clock.monotonic()
        self._hurried = False

    def failed(self) -> float:
        """Note that the attempt failed; return the seconds until the next, at most 0.2 if ``hurry`` was called."""
        settings = self._settings
        longer = self._pause * settings.retry_factor if self._pause else settings.retry_first
        self._pause = max(min(longer, settings.retry_maximum), 0.001)
        wait = self._pause * (1 - self._clock.random() / 2)
        if self._hurried:
            wait = min(wait, SOONEST)
        self._hurried = False
        self._until = self._clock.monotonic() + wait
        return wait

    def succeeded(self) -> None:
        """Note that an attempt succeeded."""
        self._pause = 0.0

    def hurry(self, *, now: bool = False) -> None:
        """Make the next attempt due: right ``now``, or at most every 0.2 s."""
        self._hurried = True
        self._until = self._clock.monotonic() if now else min(self._until, self._attempted + SOONEST)
