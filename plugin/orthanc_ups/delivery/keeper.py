# SPDX-License-Identifier: AGPL-3.0-or-later
"""Writes cursors down while things move: soon, but not for every event."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from ..store.port import StoreUnavailable
from .port import Clock
from .subscriber import Subscriber

PAUSE: Final = 0.5
"""Seconds that changes are gathered before they are written."""
_REST: Final = 4.0
_SIDE_BY_SIDE: Final = 8

_log = logging.getLogger("orthanc_ups.delivery")


class Keeper:
    """Stores the progress of subscribers that moved.

    With a thousand subscribers that is a thousand writes per round; after each write it rests four times
    as long as the write took, so that it never takes more than a fifth of the store's time.
    """

    def __init__(self, clock: Clock, store: Callable[[Subscriber], Awaitable[None]]) -> None:
        self._clock = clock
        self._store = store
        self._moved: dict[str, Subscriber] = {}
        self._task: asyncio.Task[None] | None = None
        self._failing = False
        self._closed = False

    def touch(self, subscriber: Subscriber) -> None:
        """A subscriber has something new to store."""
        self._moved[subscriber.receiving_ae] = subscriber
        if self._task is None and not self._closed:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._moved:
                await self._clock.sleep(PAUSE)
                for subscriber in self._taken():
                    began = self._clock.monotonic()
                    await self._write(subscriber)
                    await self._clock.sleep(_REST * (self._clock.monotonic() - began))
        finally:
            self._task = None

    def _taken(self) -> list[Subscriber]:
        taken = list(self._moved.values())
        self._moved.clear()
        return taken

    async def _write(self, subscriber: Subscriber) -> None:
        try:
            await self._store(subscriber)
        except StoreUnavailable as error:
            self._moved.setdefault(subscriber.receiving_ae, subscriber)
            self._tell(f"Delivery cursors cannot be stored now, a crash would repeat events: {error}")
        except Exception:
            _log.exception("Storing the delivery cursor of %s failed", subscriber.receiving_ae)
        else:
            self._recovered()

    def _tell(self, text: str) -> None:
        if not self._failing:
            _log.warning(text)
        self._failing = True

    def _recovered(self) -> None:
        if self._failing:
            _log.info("Delivery cursors can be stored again")
        self._failing = False

    async def flush(self) -> None:
        """Write everything now, once, several side by side."""
        left = iter(self._taken())

        async def some() -> None:
            for subscriber in left:
                await self._write(subscriber)

        await asyncio.gather(*(some() for _ in range(_SIDE_BY_SIDE)))

    async def close(self) -> None:
        """Stop writing by itself; ``flush`` writes the rest."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
