# SPDX-License-Identifier: AGPL-3.0-or-later
"""Closes what was opened, in reverse order, and retries what cannot be opened yet."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

from ..core.pauses import growing
from ..health import Health
from ..store.port import StoreUnavailable

T = TypeVar("T")
_log = logging.getLogger("orthanc_ups")
_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 10.0


class Lifetime:
    """What was opened or started, to be closed in reverse order."""

    def __init__(self) -> None:
        self._closers: list[Callable[[], Awaitable[None]]] = []
        self._tasks: list[asyncio.Future[None]] = []

    def add(self, close: Callable[[], Awaitable[None]]) -> None:
        """Register a function that ``close`` calls."""
        self._closers.append(close)

    def add_task(self, task: asyncio.Future[None]) -> None:
        """Register a task that ``close`` cancels."""
        self._tasks.append(task)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Start a task, which ``close`` cancels."""
        self.add_task(asyncio.ensure_future(work))

    def supervise(self, work: Callable[[], Awaitable[None]]) -> None:
        """Start a task, and restart it whenever it ends."""
        self.start(_supervised(work))

    async def close(self) -> None:
        """Cancel the tasks and close everything, even if some of it fails."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        while self._closers:
            close = self._closers.pop()
            try:
                await close()
            except Exception:
                _log.exception("Closing a part of the UPS service failed")
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)


async def _supervised(work: Callable[[], Awaitable[None]]) -> None:
    for pause in growing(_FIRST_PAUSE, _LONGEST_PAUSE):
        try:
            await work()
            _log.error("A part of the UPS service ended; restarting it in %g s", pause)
        except Exception:
            _log.exception("A part of the UPS service failed; restarting it in %g s", pause)
        await asyncio.sleep(pause)


async def retry(health: Health, part: str, step: Callable[[], Awaitable[T]]) -> T:
    """Retry a step until it succeeds, and return its result. ``part`` is what the step opens, for log and health."""
    pauses = growing(_FIRST_PAUSE, _LONGEST_PAUSE)
    while True:
        try:
            return await step()
        except (StoreUnavailable, OSError) as error:
            reason, pause = f"cannot open {part}: {_reason(error)}", next(pauses)
            health.waits_for(reason)
            _log.error("%s; trying again in %g s", reason, pause)
            await asyncio.sleep(pause)


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
