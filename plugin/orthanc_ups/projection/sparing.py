# SPDX-License-Identifier: AGPL-3.0-or-later
"""Figures that cost more the larger the worklist is, for those who request them over and over."""

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
    """Remembers a figure for 200 times as long as asking for it took, within bounds. Called on the loop."""

    def __init__(
        self, ask: Callable[[], Awaitable[_T]], least: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        """``least``: seconds for which it is remembered in any case. At most ten minutes."""
        self._ask = ask
        self._least = least
        self._now = now
        self._figure: list[_T] = []
        self._until = -math.inf
        self._asked_at = -math.inf
        self._lock = asyncio.Lock()

    async def get(self) -> _T:
        """The figure, as of not long ago. Raises what ``ask`` raises."""
        async with self._lock:
            now = self._now()
            if not self._asked_at <= now < self._until:
                begun = time.perf_counter()
                self._figure = [await self._ask()]
                took = time.perf_counter() - begun
                self._asked_at = now
                self._until = now + min(max(self._least, _SHARE * took), _LONGEST)
        return self._figure[0]
