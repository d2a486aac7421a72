# SPDX-License-Identifier: AGPL-3.0-or-later
"""Closes what was opened in reverse order, and retries what cannot be opened yet."""

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


class Opened:
    """What was opened or started, to be closed in reverse order."""

    def __init__(self) -> None:
        self._closers: list[Callable[[], Awaitable[None]]] = []
        self._tasks: list[asyncio.Future[None]] = []

    def add(self, close: Callable[[], Awaitable[None]]) -> None:
        """Register the function that closes something."""
        self._closers.append(close)

    def add_task(self, task: asyncio.Future[None]) -> None:
        """Register a task that is to be cancelled."""
        self._tasks.append(task)

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Start a task."""
        self.add_task(asyncio.ensure_future(work))

    def keep(self, work: Callable[[], Awaitable[None]]) -> None:
        """Start a task that never ends; if it does end, it is restarted."""
        self.begin(_for_ever(work))

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


async def _for_ever(work: Callable[[], Awaitable[None]]) -> None:
    """Run what never ends, and restart it if it does end."""
    for pause in growing(_FIRST_PAUSE, _LONGEST_PAUSE):
        try:
            await work()
            _log.error("A part of the UPS service ended; restarting it in %g s", pause)
        except Exception:
            _log.exception("A part of the UPS service failed; restarting it in %g s", pause)
        await asyncio.sleep(pause)


async def patiently(health: Health, what: str, step: Callable[[], Awaitable[T]]) -> T:
    """Retry a step until Orthanc, its store or the network lets it succeed, and return its result."""
    pauses = growing(_FIRST_PAUSE, _LONGEST_PAUSE)
    while True:
        try:
            return await step()
        except (StoreUnavailable, OSError) as error:
            reason, pause = f"cannot open {what}: {_in_words(error)}", next(pauses)
            health.waits_for(reason)
            _log.error("%s; trying again in %g s", reason, pause)
            await asyncio.sleep(pause)


def _in_words(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
