# SPDX-License-Identifier: AGPL-3.0-or-later
"""Waiting for tasks that go on even if nobody waits any more."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any


class Patience:
    """Waits for each task for so many seconds at most, with one timer for all. Lives on one loop."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._waiting: deque[tuple[float, asyncio.Future[bool]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def is_done_in_time(self, task: asyncio.Task[Any]) -> bool:
        """Wait for a task. It is not cancelled, neither if the time is over nor if the caller is."""
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[bool] = loop.create_future()

        def done(_: asyncio.Task[Any]) -> None:
            if not waiting.done():
                waiting.set_result(True)

        task.add_done_callback(done)
        while self._waiting and self._waiting[0][1].done():
            self._waiting.popleft()
        self._waiting.append((loop.time() + self.seconds, waiting))
        if self._timer is None:
            self._timer = loop.call_later(self.seconds, self._look)
        return await waiting

    def _look(self) -> None:
        """All wait equally long, so the first one in the queue is the next one whose time is over."""
        loop, self._timer = asyncio.get_running_loop(), None
        while self._waiting:
            until, waiting = self._waiting[0]
            if not waiting.done() and until > loop.time():
                self._timer = loop.call_at(until, self._look)
                return
            self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(False)
