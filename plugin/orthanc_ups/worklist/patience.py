# SPDX-License-Identifier: AGPL-3.0-or-later
"""Waiting for work that goes on even if nobody waits any more."""

from __future__ import annotations

import asyncio
from collections import deque


class Patience:
    """Waits for a number of seconds at most, with one timer for all who wait. Lives on one loop."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._waiting: deque[tuple[float, asyncio.Future[bool]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> asyncio.Future[bool]:
        """What to wait for: whoever does the work makes it True, and when the time is over it is False."""
        loop = asyncio.get_running_loop()
        ending: asyncio.Future[bool] = loop.create_future()
        while self._waiting and self._waiting[0][1].done():
            self._waiting.popleft()
        self._waiting.append((loop.time() + self.seconds, ending))
        if self._timer is None:
            self._timer = loop.call_later(self.seconds, self._look)
        return ending

    def _look(self) -> None:
        """All wait equally long, so the first one in the queue is the next one whose time is over."""
        loop, self._timer = asyncio.get_running_loop(), None
        while self._waiting:
            until, ending = self._waiting[0]
            if not ending.done() and until > loop.time():
                self._timer = loop.call_at(until, self._look)
                return
            self._waiting.popleft()
            if not ending.done():
                ending.set_result(False)
