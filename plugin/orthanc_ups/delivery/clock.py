# SPDX-License-Identifier: AGPL-3.0-or-later
"""Real time and chance."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Final

_CHANCE: Final = (
    random.SystemRandom()
)  # Python's shared generator belongs to whoever seeds it, such as a test


class SystemClock:
    """The ``Clock`` of a running plugin."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since some moment; never set back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    def random(self) -> float:
        """A number in [0, 1)."""
        return _CHANCE.random()
