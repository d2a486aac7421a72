# SPDX-License-Identifier: AGPL-3.0-or-later
"""What an operator sees and does, and replays for sockets that come back."""

from __future__ import annotations

import asyncio

from orthanc_ups.core import tags
from orthanc_ups.core.events import Event, EventType
from orthanc_ups.delivery.port import WEBSOCKET, Burst, Endpoint
from orthanc_ups.settings import Settings
from tests.support.delivery import NOON, Bench, TwinChannel, event, progress, run, settle


def dimse(*titles: str) -> TwinChannel:
    return TwinChannel("dimse", set(titles))


async def replayed(bench: Bench, receiving_ae: str, after: int) -> list[int]:
    chunks = [chunk async for chunk in bench.delivery.replay(receiving_ae, after)]
    assert all(chunks), "no empty chunk"
    return [delivered.sequence for chunk in chunks for delivered in chunk]


# --- report ---


def test_the_report_says_why_a_subscriber_was_not_told() -> None:
    async def scenario() -> None:
        channel = dimse("A", "B")
        bench = Bench(channel, settings=Settings(retry_first=60.0))
        await bench.offer(event(1, "A", "B", at=NOON - 0.5))
        channel.down["B"] = "connection refused"
        await bench.offer(event(2, "A", "B", at=NOON + 1.0), event(3, "B"))
        await bench.clock.advance(10.0)
        good, bad = bench.management.report()
        assert (good.endpoint, bad.endpoint) == (Endpoint("A", "dimse"), Endpoint("B", "dimse"))
        assert (good.pending, good.oldest_at, good.retry_at, good.last_error) == (0, None, None, "")
        assert (good.delivered, good.per_minute[-2:], good.last_success_at) == (2, (0, 2), NOON)
        assert (good.latency_median, good.latency_p95) == (0.5, 0.5)
        assert (bad.pending, bad.oldest_at, bad.last_error) == (2, NOON + 1.0, "connection refused")
        assert (bad.last_error_at, bad.retry_at) == (NOON, NOON + 60.0)
        assert (bad.delivered, bad.failed, bad.dead, bad.dead_letters) == (1, 1, 0, 0)
        assert bad.durable and bad.serving
        assert (good.failing, bad.failing) == (False, True)
        assert bench.management.report("B") == [bad] and bench.management.report("C") == []

    run(scenario())


def test_events_offered_delivered_and_failed_are_counted_by_channel_and_type() -> None:
    async def scenario() -> None:
        channel = dimse("A", "B")
        channel.down["B"] = "connection refused"
        bench = Bench(channel)
        await bench.offer(event(1, "A", "B"), event(2, "A", kind=EventType.ASSIGNED))
        assert bench.delivery.counts.all() == {
            ("offered", "dimse", EventType.STATE_REPORT): 2,
            ("offered", "dimse", EventType.ASSIGNED): 1,
            ("delivered", "dimse", EventType.STATE_REPORT): 1,
            ("delivered", "dimse", EventType.ASSIGNED): 1,
            ("failed", "dimse", EventType.STATE_REPORT): 1,
        }

    run(scenario())


# --- actions ---


def test_retry_now() -> None:
    async def scenario() -> None:
        channel = dimse("A")
        channel.down["A"] = "connection refused"
        bench = Bench(channel, settings=Settings(retry_first=3_600.0))
        await bench.offer(event(1, "A"))
        channel.down.clear()
        bench.management.retry_now("A")
        bench.management.retry_now("UNKNOWN")
        await settle()
        assert channel.sequences("A") == [1]

    run(scenario())


def test_dropping_everything_ends_the_wait_even_of_what_is_in_flight() -> None:
    async def scenario() -> None:
        channel = dimse("A")
        channel.holds["A"] = asyncio.Event()
        bench = Bench(channel)
        await bench.offer(event(1, "A"), Burst("A", 2, 50, 2), event(53, "A"))
        assert await bench.management.drop("A") == 52
        assert bench.delivery.settled(event(53, "A"))
        channel.holds["A"].set()
        await bench.offer(event(54, "A"))
        assert channel.sequences("A") == [1, 54], "1 was on the way already"

    run(scenario())


def test_a_range_is_sent_again_from_the_log_before_what_waits() -> None:
    async def scenario() -> None:
        channel = dimse("A")
        bench = Bench(channel)
        bench.log.logged = [event(number, "A" if number % 2 else "B") for number in range(1, 21)]
        await bench.offer(*bench.log.logged[:10])
        channel.down["A"] = "connection refused"
        await bench.offer(*bench.log.logged[10:])
        bench.management.resend("A", 3, 13)
        channel.down.clear()
        await bench.clock.advance(10.0)
        assert channel.sequences("A") == [1, 3, 5, 7, 9, 3, 5, 7, 9, 11, 13, 15, 17, 19]
        assert bench.delivery.counts.all()["repeated", "dimse", EventType.STATE_REPORT] == 4

    run(scenario())


def test_a_log_that_fails_ends_the_resend_and_nothing_else() -> None:
    async def scenario() -> None:
        channel = dimse("A")
        bench = Bench(channel)
        await bench.offer(event(1, "A"))

        async def broken(after: int, limit: int) -> list[Event]:
            raise OSError("disk I/O error")

        bench.log.events = broken  # type: ignore[method-assign]
        bench.management.resend("A", 1, 1)
        await bench.offer(event(2, "A"))
        assert channel.sequences("A") == [1, 2]

    run(scenario())


def test_a_refused_event_of_a_resend_is_passed_over_and_makes_no_dead_letter() -> None:
    async def scenario() -> None:
        channel = dimse("A")
        bench = Bench(channel)
        bench.log.logged = [event(number, "A") for number in (1, 2, 3)]
        await bench.offer(*bench.log.logged)
        channel.refuses.add(2)
        bench.management.resend("A", 1, 3)
        await settle()
        assert channel.sequences("A") == [1, 2, 3, 1, 3]
        assert bench.management.dead_letters("A") == []

    run(scenario())


def test_a_test_event_goes_to_every_channel_and_claims_no_new_sequence() -> None:
    async def scenario() -> None:
        address, channel = dimse("A"), TwinChannel(WEBSOCKET, {"A"})
        channel.down["A"] = "the socket is slow"
        bench = Bench(address, channel)
        await bench.offer(event(5, "A"), event(6, "A"))
        assert bench.management.send_test_event("A") == 2
        channel.down.clear()
        await bench.clock.advance(10.0)
        for where, sequences in ((address, [5, 6, 6]), (channel, [4, 5, 6])):
            assert where.sequences("A") == sequences
            (test,) = [
                delivered for delivered in where.events["A"] if delivered.type is EventType.SCP_STATUS_CHANGE
            ]
            assert test.uid == tags.GLOBAL_SUBSCRIPTION
            assert test.information[tags.SCP_STATUS]["Value"] == ["RESTARTED"]
        assert bench.delivery.settled_through("A") == 6

    run(scenario())


# --- replay (WebSocket resume) ---


def test_a_replay_gives_what_was_and_what_waits_in_order_and_each_once() -> None:
    async def scenario() -> None:
        channel = TwinChannel(WEBSOCKET, {"A"})
        bench = Bench(channel)
        bench.log.logged = [event(number, "A") for number in range(1, 1_201)] + [event(1_201, "B")]
        await bench.offer(*bench.log.logged[:600])
        channel.ae_titles.clear()
        await bench.offer(*bench.log.logged[600:])
        assert await replayed(bench, "A", 0) == list(range(1, 1_201))
        assert await replayed(bench, "A", 599) == list(range(600, 1_201))
        assert await replayed(bench, "A", 5_000) == []
        assert await replayed(bench, "NOBODY", 0) == []

    run(scenario())


def test_a_replay_has_what_the_log_lost_as_long_as_it_waits() -> None:
    async def scenario() -> None:
        bench = Bench(TwinChannel(WEBSOCKET))
        await bench.offer(event(1, "A"), progress(2, "A"), progress(4, "A"), event(5, "A"))
        bench.log.logged = [event(5, "A"), event(6, "A")]
        assert await replayed(bench, "A", 0) == [1, 4, 5], "6 is not released yet"

    run(scenario())


def test_a_replay_has_the_initial_reports_at_their_place() -> None:
    async def scenario() -> None:
        channel = TwinChannel(WEBSOCKET, {"A"})
        bench = Bench(channel)
        first, second = Burst("A", 5, 700, 5), Burst("A", 800, 3, 800)
        bench.log.logged = [event(number, "A") for number in (1, 5_000, 5_001)]
        bench.log.subscribed[5] = set(range(1, 701, 2))
        await bench.offer(bench.log.logged[0], first, second, *bench.log.logged[1:])
        await bench.clock.advance(5.0)
        expected = [1, *(5 + creation for creation in range(1, 701, 2)), 801, 802, 803, 5_000, 5_001]
        assert channel.sequences("A") == expected
        assert await replayed(bench, "A", 0) == expected
        assert await replayed(bench, "A", 801) == [802, 803, 5_000, 5_001]
        bench.delivery.forget("A")
        assert await replayed(bench, "A", 0) == [1, 5_000, 5_001]

    run(scenario())


def test_a_replay_ends_when_it_has_caught_up_with_what_came_meanwhile() -> None:
    async def scenario() -> None:
        bench = Bench(TwinChannel(WEBSOCKET))
        sequences: list[int] = []
        bench.log.logged = [event(number, "A") for number in range(1, 6)]
        await bench.offer(*bench.log.logged)
        async for chunk in bench.delivery.replay("A", 0):
            sequences += [delivered.sequence for delivered in chunk]
            if len(sequences) < 8:
                more = event(len(sequences) + 1, "A")
                bench.log.logged.append(more)
                bench.delivery.offer([more])
        assert sequences == list(range(1, 9))

    run(scenario())
