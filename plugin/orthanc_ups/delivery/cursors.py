# SPDX-License-Identifier: AGPL-3.0-or-later
"""Stores cursors soon after they move, but not for every event."""

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
"""Seconds that changes are gathered before they are written."""
_LONGEST_PAUSE: Final = 4.0
_REST: Final = 4.0
_LONGEST_REST: Final = 1.0
_SIDE_BY_SIDE: Final = 8

_log = logging.getLogger("orthanc_ups.delivery")


class CursorWriter:
    """Stores the progress of subscribers that moved.

    With a thousand subscribers that is a thousand writes per round; after each write it rests four times
    as long as the write took, so that it never takes more than a fifth of the store's time. A write that hung
    in an outage says nothing of what the next will take: no rest and no pause is longer than seconds.
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
        """Store everyone marked before; a failure ends the round, as the next write would fail, too."""
        for name in list(self._moved):
            began = self._clock.monotonic()
            subscriber = self._moved.pop(name, None)
            if subscriber is not None and not await self._write(subscriber):
                return
            took = self._clock.monotonic() - began
            await self._clock.sleep(min(_REST * took, _LONGEST_REST))

    async def _write(self, subscriber: Subscriber) -> bool:
        try:
            await self.store(subscriber)
        except asyncio.CancelledError:
            self._moved.setdefault(subscriber.receiving_ae, subscriber)  # for the flush of an orderly stop
            raise
        except StoreUnavailable as error:
            self._moved.setdefault(subscriber.receiving_ae, subscriber)
            self._failed(str(error))
            return False
        except Exception:
            _log.exception("Storing the delivery cursor of %s failed", subscriber.receiving_ae)
        self._recovered()
        return True

    def _failed(self, why: str) -> None:
        if not self._failing:
            _log.warning("Delivery cursors cannot be stored now, a crash would repeat events: %s", why)
        self._failing = True
        self._pause = next(self._pauses)

    def _recovered(self) -> None:
        if self._failing:
            _log.info("Delivery cursors can be stored again")
            self._failing = False
            self._pauses = growing(PAUSE, _LONGEST_PAUSE)
            self._pause = next(self._pauses)

    async def flush(self) -> None:
        """Store everything now, once, several entries at a time."""
        left = list(self._moved)

        async def some() -> None:
            while left:
                subscriber = self._moved.pop(left.pop(), None)
                if subscriber is not None and not await self._write(subscriber):
                    return

        await asyncio.gather(*(some() for _ in range(_SIDE_BY_SIDE)))

    async def close(self) -> None:
        """Stop storing periodically; ``flush`` stores the rest."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
