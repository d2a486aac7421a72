# SPDX-License-Identifier: AGPL-3.0-or-later
"""Expensive figures are computed seldom, so that an idle worklist of any size costs very little."""

from __future__ import annotations

import asyncio

import pytest

from orthanc_ups.projection import sparing
from orthanc_ups.projection.sparing import Sparing


class Clock:
    """``now`` is what callers live by, ``spent`` what asking costs."""

    def __init__(self) -> None:
        self.now = 100.0
        self.spent = 0.0

    def perf_counter(self) -> float:
        return self.spent

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize(("cost", "fresh_for"), [(0.001, 5.0), (0.1, 20.0), (9.0, 600.0)])
def test_a_figure_is_remembered_for_two_hundred_times_its_cost(
    monkeypatch: pytest.MonkeyPatch, cost: float, fresh_for: float
) -> None:
    clock, times = Clock(), []
    monkeypatch.setattr(sparing, "time", clock)

    async def ask() -> int:
        clock.spent += cost
        times.append(clock.now)
        return len(times)

    async def scenario() -> None:
        figure = Sparing(ask, 5.0, clock.monotonic)
        assert await figure.get() == 1
        clock.now += fresh_for - 0.1
        assert await figure.get() == 1
        clock.now += 0.2
        assert await figure.get() == 2
        clock.now -= 1_000.0  # a clock that was set back
        assert await figure.get() == 3

    asyncio.run(scenario())
