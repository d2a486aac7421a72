# SPDX-License-Identifier: AGPL-3.0-or-later
"""Stores cursors soon after they move, many events at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from ..core.pauses import growing
from ..store.port import StoreUnavailable
from .port import Clock
from .subscriber import Subscriber

PAUSE: Final = 0.5
"""Seconds for which changes are collected before they are written."""
_LONGEST_PAUSE: Final = 4.0
_REST_PER_WRITE: Final = 4.0  # times the duration of the write
_LONGEST_REST: Final = 1.0
_CONCURRENT_WRITES: Final = 8

_log = logging.getLogger("orthanc_ups.delivery")


class CursorWriter:
    """Stores the progress of the subscribers whose cursors moved.

    A thousand subscribers need a thousand writes per round. After each write it rests four times as long as the
    write took (at most a second), so that it takes no more than a fifth of the store's time. The limit is there
    because a write that hung in an outage does not predict how long the next takes.
    """

    def __init__(self, clock: Clock, store: Callable[[Subscriber], Awaitable[None]]) -> None:
        self._clock = clock
        self.store = store
        self._moved: dict[str, Subscriber] = {}
        self._task: asyncio.Task[None] | None = None
        self._failing = False
        self._pauses = growing(PAUSE, _LONGEST_PAUSE)
        self._pause = next(self._pauses)
        self._closed = False

    def touch(self, subscriber: Subscriber) -> None:
        """Mark a subscriber whose progress has changed."""
        self._moved[subscriber.receiving_ae] = subscriber
        if self._task is None and not self._closed:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._moved:
                await self._clock.sleep(self._pause)
                await self._round()
        finally:
            self._task = None

    async def _round(self) -> None:
        """Store every subscriber marked so far; end at the first failure, because the next write would fail too."""
        for name in list(self._moved):
            start = self._clock.monotonic()
            subscriber = self._moved.pop(name, None)
            if subscriber is not None and not await self._write(subscriber):
                return
            duration = self._clock.monotonic() - start
            await self._clock.sleep(min(_REST_PER_WRITE * duration, _LONGEST_REST))

    async def _write(self, subscriber: Subscriber) -> bool:
        try:
            await self.store(subscriber)
        except asyncio.CancelledError:
            self._moved.setdefault(subscriber.receiving_ae, subscriber)  # for the flush of a clean stop
            raise
        except StoreUnavailable as error:
            self._moved.setdefault(subscriber.receiving_ae, subscriber)
            self._failed(str(error))
            return False
        except Exception:
            _log.exception("Cannot store the delivery cursor of %s", subscriber.receiving_ae)
        self._recovered()
        return True

    def _failed(self, why: str) -> None:
        if not self._failing:
            _log.warning("Delivery cursors cannot be stored now; a crash would repeat events: %s", why)
        self._failing = True
        self._pause = next(self._pauses)

    def _recovered(self) -> None:
        if self._failing:
            _log.info("Delivery cursors can be stored again")
            self._failing = False
            self._pauses = growing(PAUSE, _LONGEST_PAUSE)
            self._pause = next(self._pauses)

    async def flush(self) -> None:
        """Try once to store everything now, several entries at a time."""
        names = list(self._moved)

        async def write_remaining() -> None:
            while names:
                subscriber = self._moved.pop(names.pop(), None)
                if subscriber is not None and not await self._write(subscriber):
                    return

        await asyncio.gather(*(write_remaining() for _ in range(_CONCURRENT_WRITES)))

    async def close(self) -> None:
        """Stop storing periodically; ``flush`` stores the rest."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
