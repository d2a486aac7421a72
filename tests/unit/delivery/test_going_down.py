# SPDX-License-Identifier: AGPL-3.0-or-later
"""The end of delivery: SCP Status Change with GOING DOWN (PS3.4 CC.2.4), and a clean stop."""

from __future__ import annotations

import asyncio

import pytest

from orthanc_ups.core.events import EventType
from tests.support.delivery import Bench, TwinChannel, cursors, event, restarted, run, settle


def dimse(*titles: str) -> TwinChannel:
    return TwinChannel("dimse", set(titles))


def test_going_down_tells_whom_it_can_and_waits_for_nobody_longer_than_its_deadline() -> None:
    async def scenario() -> None:
        channel = dimse("A", "DEAD", "SLOW", "UNTOLD")
        channel.down["DEAD"] = "connection refused"
        channel.holds["SLOW"] = asyncio.Event()
        bench = Bench(channel)
        await bench.offer(event(1, "A", "DEAD"))
        stopping = asyncio.ensure_future(
            bench.delivery.going_down(restarted(2, "A", "DEAD", "SLOW", "NO ADDRESS"), 3.0)
        )
        await bench.clock.advance(2.9)
        assert not stopping.done()
        await bench.clock.advance(0.2)
        assert stopping.done() and stopping.result() is None
        assert [delivered.type for delivered in channel.events["A"]] == [1, EventType.SCP_STATUS_CHANGE]
        assert ("DEAD", [1]) in channel.calls and ("DEAD", [0]) not in channel.calls
        assert channel.sequences("UNTOLD") == [] and channel.closed
        assert await cursors(bench, "DEAD") == {"dimse": 0}

    run(scenario())


def test_going_down_lets_a_delivery_in_flight_land_first() -> None:
    async def scenario() -> None:
        channel = dimse("A")
        channel.holds["A"] = asyncio.Event()
        bench = Bench(channel)
        await bench.offer(event(1, "A"), event(2, "A"))
        stopping = asyncio.ensure_future(bench.delivery.going_down(restarted(3, "A"), 3.0))
        await bench.clock.advance(1.0)
        channel.holds["A"].set()
        await settle()
        assert stopping.done()
        assert [delivered.type for delivered in channel.events["A"]] == [1, 1, EventType.SCP_STATUS_CHANGE]
        assert await cursors(bench, "A") == {"dimse": 2}

    run(scenario())


def test_going_down_claims_no_sequence_that_the_receiver_has_not_reached() -> None:
    async def scenario() -> None:
        channel = dimse("A", "B")
        channel.takes = 1
        channel.holds["A"] = asyncio.Event()
        bench = Bench(channel)
        await bench.offer(*(event(number, "A", "B") for number in (5, 6, 7)))
        stopping = asyncio.ensure_future(bench.delivery.going_down(restarted(8, "A", "B"), 4.0))
        await bench.clock.advance(2.0)
        channel.holds["A"].set()
        await settle()
        assert stopping.done()
        assert channel.sequences("A") == [5, 5], "6 and 7 wait; a client that resumes must get them"
        assert channel.sequences("B") == [5, 6, 7, 7]

    run(scenario())


def test_what_is_offered_after_the_end_is_left_to_the_next_start() -> None:
    async def scenario() -> None:
        channel = dimse("A")
        bench = Bench(channel)
        await bench.delivery.going_down(None)
        await bench.offer(event(1, "A"))
        assert channel.sequences("A") == [] and not bench.delivery.settled(event(1, "A"))
        await bench.restart([event(1, "A")])
        assert channel.sequences("A") == [1]

    run(scenario())


def test_a_channel_that_fails_to_close_does_not_keep_the_others_open(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Stuck(TwinChannel):
        async def close(self) -> None:
            raise RuntimeError("no")

    async def scenario() -> None:
        second = TwinChannel("dimse")
        bench = Bench(Stuck("webhook:X"), second)
        await bench.delivery.going_down(None)
        assert second.closed

    run(scenario())
    assert "Closing a channel failed" in caplog.text
