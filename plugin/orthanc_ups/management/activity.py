# SPDX-License-Identifier: AGPL-3.0-or-later
"""Activity of the last day, minute by minute: changes of workitems, deliveries and their latencies.

Kept in memory only, for the operator's charts.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from ..core.events import Event
from ..delivery.port import Endpoint

_MINUTES_PER_DAY: Final = 24 * 60
_SAMPLE_INTERVAL: Final = 10.0
_CLOCK_TOLERANCE: Final = 5.0

BOUNDS: Final = (
    0.002,
    0.005,
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.5,
    1.0,
    2.0,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
    3600.0,
)
"""Upper bounds of the latency classes in seconds; a further class is for greater latencies."""


@dataclass(slots=True)
class Minute:
    """One minute: counts by name, and latencies of deliveries by class of ``BOUNDS``."""

    at: int
    counts: Counter[str] = field(default_factory=Counter)
    latencies: Counter[int] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class ClockStep:
    """The clock jumped by ``seconds`` (negative: back), noticed ``at`` seconds since the epoch."""

    at: float
    seconds: float


class Activity:
    """Counts per minute. ``counters`` returns numbers that only grow; their growth is recorded."""

    def __init__(
        self,
        counters: Callable[[], Mapping[str, int]],
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._counters = counters
        self._now = now
        self._monotonic = monotonic
        self._minutes: deque[Minute] = deque(maxlen=_MINUTES_PER_DAY)
        self._last_counts: Mapping[str, int] = dict(counters())
        self._offset = now() - monotonic()
        self.started = now()
        self.clock_step: ClockStep | None = None

    def delivered(self, endpoint: Endpoint, event: Event, seconds: float) -> None:
        """Record the latency of an event that reached a receiver; an ``OnDelivered``."""
        minute = self._minute()
        minute.counts["delivered"] += 1
        minute.latencies[bisect_left(BOUNDS, seconds)] += 1

    def sample(self) -> None:
        """Record the growth of the counters, and whether the clock jumped."""
        minute, latest = self._minute(), dict(self._counters())
        for name, count in latest.items():
            growth = count - self._last_counts.get(name, 0)
            if growth > 0:
                minute.counts[name] += growth
        self._last_counts = latest
        self._watch_clock()

    async def run(self) -> None:
        """Sample every few seconds, forever."""
        while True:
            await asyncio.sleep(_SAMPLE_INTERVAL)
            self.sample()

    def _watch_clock(self) -> None:
        offset = self._now() - self._monotonic()
        if abs(offset - self._offset) > _CLOCK_TOLERANCE:
            self.clock_step = ClockStep(self._now(), offset - self._offset)
        self._offset = offset

    def _minute(self) -> Minute:
        at = int(self._now() // 60)
        if not self._minutes or self._minutes[-1].at < at:
            self._minutes.append(Minute(at))
        return self._minutes[-1]

    def series(self, name: str, minutes: int, step: int) -> list[int | None]:
        """Counts of ``name`` in each ``step`` minutes of the last ``minutes``, the current ones last.

        None for the time before the start.
        """
        buckets = [0] * (minutes // step)
        for minute in self._within(minutes):
            buckets[self._bucket(minute.at, step, len(buckets))] += minute.counts[name]
        first = self._bucket(int(self.started // 60), step, len(buckets))
        return [None if at < first else count for at, count in enumerate(buckets)]

    def latency(self, quantile: float, minutes: int, step: int) -> list[float | None]:
        """A quantile (0 to 1) of the latencies in seconds, as the upper bound of its class; None if there are none."""
        buckets: list[Counter[int]] = [Counter() for _ in range(minutes // step)]
        for minute in self._within(minutes):
            buckets[self._bucket(minute.at, step, len(buckets))] += minute.latencies
        return [_quantile(bucket, quantile) for bucket in buckets]

    def _within(self, minutes: int) -> list[Minute]:
        first = int(self._now() // 60) - minutes + 1
        return [minute for minute in self._minutes if minute.at >= first]

    def _bucket(self, minute: int, step: int, count: int) -> int:
        age = max(0, int(self._now() // 60) - minute)
        return count - 1 - min(age // step, count - 1)


def _quantile(classes: Counter[int], quantile: float) -> float | None:
    total, count = classes.total(), 0
    if not total:
        return None
    for at in sorted(classes):
        count += classes[at]
        if count >= quantile * total:
            return BOUNDS[min(at, len(BOUNDS) - 1)]
    return None
