# SPDX-License-Identifier: AGPL-3.0-or-later
"""A cache for figures that are requested often and are the more expensive the larger the worklist is."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

_T = TypeVar("_T")
_SHARE: Final = 200
_LONGEST: Final = 600.0


class Sparing(Generic[_T]):
    """Caches a figure for 200 times as long as computing it took, within bounds. For use on the event loop."""

    def __init__(
        self, compute: Callable[[], Awaitable[_T]], least: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        """``least``: seconds for which it is cached at least; the greatest possible time is ten minutes."""
        self._compute = compute
        self._least = least
        self._now = now
        self._figure: list[_T] = []
        self._until = -math.inf
        self._computed_at = -math.inf
        self._lock = asyncio.Lock()

    async def get(self) -> _T:
        """The figure, possibly from the cache. Raises what ``compute`` raises."""
        async with self._lock:
            now = self._now()
            if not self._computed_at <= now < self._until:
                start = time.perf_counter()
                self._figure = [await self._compute()]
                duration = time.perf_counter() - start
                self._computed_at = now
                self._until = now + min(max(self._least, _SHARE * duration), _LONGEST)
        return self._figure[0]
