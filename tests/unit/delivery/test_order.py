# SPDX-License-Identifier: AGPL-3.0-or-later
"""Delivery: order, isolation, retry, and who is told on which channel."""

from __future__ import annotations

import asyncio

import pytest

from orthanc_ups.core.events import EventType
from orthanc_ups.delivery.port import WEBSOCKET, Burst, Endpoint
from orthanc_ups.settings import Settings
from tests.support.delivery import (
    NOON,
    Bench,
    TwinChannel,
    cursors,
    event,
    progress,
    restarted,
    run,
    settle,
)


def dimse(*titles: str) -> TwinChannel:
    return TwinChannel("dimse", set(titles))


def sockets(*titles: str) -> TwinChannel:
    return TwinChannel(WEBSOCKET, set(titles))


def test_an_event_reaches_its_receivers_and_nobody_else() -> None:
    async def scenario() -> None:
        channel = dimse("A", "B", "C")
        bench = Bench(channel)
        await bench.offer(event(1, "A", "B"), event(2, "B"))
        assert {ae: channel.sequences(ae) for ae in "ABC"} == {"A": [1], "B": [1, 2], "C": []}

    run(scenario())


def test_an_event_is_on_its_way_without_a_timer() -> None:
    async def scenario() -> None:
        channel, socket = dimse("A"), TwinChannel(WEBSOCKET, {"A"})
        bench = Bench(channel, socket)
        bench.delivery.offer([event(1, "A")])
        assert channel.calls == [], "not inside the call: the requester is answered first"
        await asyncio.sleep(0)
        assert channel.sequences("A") == [1] and socket.sequences("A") == [1]
        assert bench.clock.passed == 0.0

    run(scenario())


def test_a_dead_and_a_hanging_receiver_delay_nobody() -> None:
    async def scenario() -> None:
        channel = dimse("DEAD", "SLOW", "A")
        channel.down["DEAD"] = "connection refused"
        channel.holds["SLOW"] = asyncio.Event()
        bench = Bench(channel)
        for number in range(1, 101):
            await bench.offer(event(number, "DEAD", "SLOW", "A"))
        assert channel.sequences("A") == list(range(1, 101))
        channel.holds["SLOW"].set()
        await settle()
        assert channel.sequences("SLOW") == list(range(1, 101))

    run(scenario())


def test_what_waits_is_handed_over_in_batches() -> None:
    async def scenario() -> None:
        channel = dimse("A")
        channel.holds["A"] = asyncio.Event()
        bench = Bench(channel)
        await bench.offer(*(event(number, "A") for number in range(1, 122)))
        channel.holds["A"].set()
        await settle()
        assert [len(batch) for _, batch in channel.calls] == [50, 50, 21]
        assert channel.sequences("A") == list(range(1, 122))

    run(scenario())


def test_a_channel_may_take_only_a_part() -> None:
    async def scenario() -> None:
        channel = dimse("A")
        channel.takes = 3
        bench = Bench(channel)
        await bench.offer(*(event(number, "A") for number in range(1, 11)))
        assert channel.sequences("A") == list(range(1, 11))

    run(scenario())


def test_the_head_stays_until_it_is_delivered_and_is_retried_with_growing_pauses() -> None:
    async def scenario() -> None:
        channel = dimse("A")
        channel.down["A"] = "connection refused"
        bench = Bench(channel, settings=Settings(retry_first=1.0, retry_factor=2.0))
        await bench.offer(event(1, "A"), event(2, "A"))
        for pause in (1.0, 2.0, 4.0, 8.0):
            tries = len(channel.calls)
            await bench.clock.advance(pause * 0.99)
            assert len(channel.calls) == tries
            await bench.clock.advance(pause * 0.01)
            assert len(channel.calls) == tries + 1
        channel.down.clear()
        await bench.clock.advance(16.0)
        assert channel.sequences("A") == [1, 2]

    run(scenario())


def test_events_that_come_during_a_pause_do_not_shorten_it() -> None:
    async def scenario() -> None:
        channel = dimse("A")
        channel.down["A"] = "connection refused"
        bench = Bench(channel)
        for number in range(1, 50):
            await bench.offer(event(number, "A"))
        assert len(channel.calls) == 1

    run(scenario())


def test_an_ae_that_is_seen_is_tried_at_once() -> None:
    async def scenario() -> None:
        channel = dimse("A", "B")
        channel.down = {"A": "connection refused", "B": "connection refused"}
        bench = Bench(channel, settings=Settings(retry_first=3_600.0, retry_maximum=3_600.0))
        await bench.offer(event(1, "A", "B"))
        await bench.clock.advance(60.0)
        channel.down.clear()
        bench.delivery.retry_soon("A")
        bench.delivery.retry_soon("UNKNOWN")
        await settle()
        assert channel.sequences("A") == [1] and channel.sequences("B") == []

    run(scenario())


def test_a_socket_that_is_opened_gets_what_waited_for_an_ae_without_another_channel() -> None:
    async def scenario() -> None:
        channel = sockets()
        bench = Bench(dimse(), channel)
        await bench.offer(*(event(number, "A") for number in range(1, 200)))
        await bench.clock.advance(3_600.0)
        channel.ae_titles.add("A")
        bench.delivery.retry_soon("A")
        await settle()
        assert channel.sequences("A") == list(range(1, 200))

    run(scenario())


def test_an_ae_with_an_address_and_a_socket_is_told_on_both_and_the_socket_starts_now() -> None:
    async def scenario() -> None:
        address, channel = dimse("A"), sockets()
        address.down["A"] = "connection refused"
        bench = Bench(address, channel)
        await bench.offer(event(1, "A"))
        channel.ae_titles.add("A")
        bench.delivery.retry_soon("A")
        await bench.offer(event(2, "A"))
        assert channel.sequences("A") == [2]
        channel.ae_titles.clear()
        await bench.offer(event(3, "A"))
        channel.ae_titles.add("A")
        bench.delivery.retry_soon("A")
        await bench.offer(event(4, "A"))
        assert channel.sequences("A") == [2, 4]
        address.down.clear()
        bench.management.retry_now("A")
        await settle()
        assert address.sequences("A") == [1, 2, 3, 4]

    run(scenario())


def test_a_live_socket_that_closes_leaves_nothing_behind() -> None:
    async def scenario() -> None:
        address, channel = dimse("A"), sockets("A")
        channel.down["A"] = "the socket is full"
        bench = Bench(address, channel)
        await bench.offer(event(1, "A"))
        (live,) = [report for report in bench.management.report() if report.endpoint.channel == WEBSOCKET]
        assert (live.pending, live.durable) == (1, False)
        channel.ae_titles.clear()
        await bench.clock.advance(10.0)
        (live,) = [report for report in bench.management.report() if report.endpoint.channel == WEBSOCKET]
        assert live.pending == 0
        assert bench.delivery.settled(event(1, "A"))

    run(scenario())


def test_an_ae_that_gets_an_address_is_told_there_what_waited_for_a_socket() -> None:
    async def scenario() -> None:
        address, channel = dimse(), sockets()
        bench = Bench(address, channel)
        await bench.offer(event(1, "A"), event(2, "A"))
        address.ae_titles.add("A")
        await bench.offer(event(3, "A"))
        assert address.sequences("A") == [1, 2, 3]
        assert bench.delivery.settled(event(3, "A"))

    run(scenario())


def test_an_ae_that_loses_its_address_is_told_by_socket_what_waited() -> None:
    async def scenario() -> None:
        address, channel = dimse("A"), sockets()
        address.down["A"] = "connection refused"
        bench = Bench(address, channel)
        await bench.offer(event(1, "A"), event(2, "A"))
        address.ae_titles.clear()
        await bench.clock.advance(10.0)
        assert not bench.delivery.settled(event(1, "A"))
        channel.ae_titles.add("A")
        bench.delivery.retry_soon("A")
        await settle()
        assert channel.sequences("A") == [1, 2] and bench.delivery.settled(event(2, "A"))

    run(scenario())


def test_a_channel_that_loses_its_address_keeps_its_events_while_another_channel_serves_the_ae() -> None:
    async def scenario() -> None:
        address, hook = dimse("A"), TwinChannel("webhook:X", {"A"})
        address.down["A"] = "connection refused"
        bench = Bench(address, hook)
        await bench.offer(event(1, "A"))
        address.ae_titles.clear()
        address.down.clear()
        await bench.clock.advance(60.0)
        assert hook.sequences("A") == [1] and not bench.delivery.settled(event(1, "A"))
        address.ae_titles.add("A")
        await bench.clock.advance(600.0)
        assert address.sequences("A") == [1] and bench.delivery.settled(event(1, "A"))

    run(scenario())


def test_an_ae_without_any_channel_and_no_websocket_configured_keeps_its_events() -> None:
    async def scenario() -> None:
        bench = Bench()
        await bench.offer(event(1, "A"))
        (report,) = bench.management.report("A")
        assert report.endpoint == Endpoint("A", WEBSOCKET)
        assert (report.pending, report.serving, report.last_error) == (1, False, "no WebSocket is open")

    run(scenario())


def test_waiting_progress_reports_are_replaced_by_the_newest() -> None:
    async def scenario() -> None:
        channel = dimse("A")
        channel.down["A"] = "connection refused"
        bench = Bench(channel)
        await bench.offer(event(1, "A"), *(progress(number, "A") for number in range(2, 60)))
        channel.down.clear()
        await bench.clock.advance(10.0)
        assert channel.sequences("A") == [1, 59]
        replaced = ("replaced", "dimse", EventType.PROGRESS_REPORT)
        assert bench.delivery.counts.all()[replaced] == 57

    run(scenario())


def test_a_burst_is_made_as_it_goes_between_what_was_before_and_what_came_after() -> None:
    async def scenario() -> None:
        channel = dimse("A")
        channel.holds["A"] = asyncio.Event()
        bench = Bench(channel)
        bench.log.subscribed[5] = set(range(1, 1_001)) - {7}
        await bench.offer(event(4, "A"), Burst("A", 5, 1_000, 5), event(1_006, "A"))
        assert bench.log.asked == [] and bench.delivery.has_burst("A")
        channel.holds["A"].set()
        await bench.clock.advance(1.0)
        expected = [4, *(number for number in range(6, 1_006) if number != 12), 1_006]
        assert channel.sequences("A") == expected
        assert max(limit for _, limit in bench.log.asked) <= 200
        assert not bench.delivery.has_burst("A")

    run(scenario())


def test_initial_reports_of_an_ae_that_unsubscribed_are_left_out_but_its_events_are_not() -> None:
    async def scenario() -> None:
        channel = dimse("A")
        channel.down["A"] = "connection refused"
        bench = Bench(channel)
        await bench.offer(event(1, "A"), Burst("A", 2, 100, 2), event(103, "A"))
        bench.delivery.forget("A")
        bench.delivery.forget("UNKNOWN")
        channel.down.clear()
        await bench.clock.advance(10.0)
        assert channel.sequences("A") == [1, 103]

    run(scenario())


def test_a_source_that_gives_the_same_reports_again_does_not_make_it_run_in_circles() -> None:
    async def scenario() -> None:
        channel = dimse("A")
        bench = Bench(channel)

        async def stuck(burst: Burst, after: int, limit: int) -> list[object]:
            return [event(burst.first + 1, "A"), event(burst.first + 50, "A")]

        bench.log.burst = stuck  # type: ignore[method-assign, assignment]
        await bench.offer(Burst("A", 5, 3, 5), event(9, "A"))
        assert channel.sequences("A") == [6, 9]

    run(scenario())


def test_a_newer_status_change_replaces_the_one_that_waits() -> None:
    async def scenario() -> None:
        channel = sockets()
        bench = Bench(channel)
        await bench.offer(restarted(1, "A"), restarted(2, "A"))
        channel.ae_titles.add("A")
        bench.delivery.retry_soon("A")
        await settle()
        assert channel.sequences("A") == [2]

    run(scenario())


def test_an_error_of_a_channel_costs_the_event_that_causes_it_and_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        channel = dimse("A")
        channel.breaks_on.add(3)
        bench = Bench(channel)
        await bench.offer(*(event(number, "A") for number in range(1, 6)))
        await bench.clock.advance(600.0)
        assert channel.sequences("A") == [1, 2, 4, 5]
        (letter,) = bench.management.dead_letters("A")
        assert letter.sequence == 3 and "no such tag" in letter.reason

    run(scenario())


def test_a_channel_that_claims_to_take_nothing_loses_nothing() -> None:
    async def scenario() -> None:
        channel = dimse("A")
        channel.takes = 0
        bench = Bench(channel)
        await bench.offer(event(1, "A"))
        channel.takes = 1
        await bench.clock.advance(10.0)
        assert channel.sequences("A") == [1]

    run(scenario())


def test_observers_hear_of_each_delivery_with_its_latency_and_may_fail() -> None:
    async def scenario() -> None:
        channel = dimse("A")
        bench = Bench(channel)
        heard: list[tuple[Endpoint, int, float]] = []

        def failing(endpoint: Endpoint, delivered: object, latency: float) -> None:
            raise RuntimeError("an observer's own trouble")

        bench.delivery.observe(failing)
        bench.delivery.observe(lambda to, delivered, after: heard.append((to, delivered.sequence, after)))
        await bench.offer(event(1, "A", at=NOON - 2.5), event(2, "A", at=NOON + 100.0))
        assert heard == [(Endpoint("A", "dimse"), 1, 2.5), (Endpoint("A", "dimse"), 2, 0.0)]

    run(scenario())


def test_settled_means_that_every_receiver_has_it() -> None:
    async def scenario() -> None:
        channel = dimse("A", "B")
        channel.down["B"] = "connection refused"
        bench = Bench(channel)
        assert not bench.delivery.settled(event(1, "A"))
        await bench.offer(event(1, "A"), event(2, "A", "B"), event(3, "A"))
        assert bench.delivery.settled(event(1, "A", "B"))
        assert not bench.delivery.settled(event(2, "A", "B"))
        assert bench.delivery.settled(event(3, "A"))
        assert not bench.delivery.settled(event(3, "A", "B"))
        assert not bench.delivery.settled(event(4, "A")), "not offered yet"
        assert (bench.delivery.settled_through("A"), bench.delivery.settled_through("B")) == (3, 1)
        channel.down.clear()
        await bench.clock.advance(10.0)
        assert bench.delivery.settled(event(2, "A", "B"))
        assert bench.delivery.settled_through("NEVER HEARD OF") == 3

    run(scenario())


def test_an_event_for_thousands_is_offered_in_slices_and_no_cursor_passes_it_before_all_have_it() -> None:
    async def scenario() -> None:
        names = [f"AE{number}" for number in range(1_000)]
        bench = Bench(channel := dimse(*names))
        bench.delivery.offer([event(1, *names)])
        queues = sum(1 for worker in bench.delivery.workers() if worker.queue)
        assert 0 < queues <= 200
        assert bench.delivery.high_water == 0
        assert not bench.delivery.settled(event(1, *names))
        bench.delivery.offer([event(2, names[0])])
        await settle()
        assert bench.delivery.high_water == 2
        assert channel.sequences(names[0]) == [1, 2]
        assert all(channel.sequences(name) == [1] for name in names[1:])
        assert bench.delivery.settled(event(1, *names))
        await bench.clock.advance(10.0)
        assert await cursors(bench, names[0]) == await cursors(bench, names[-1]) == {"dimse": 2}

    run(scenario())


def test_a_replay_that_begins_while_an_event_is_offered_has_it() -> None:
    async def scenario() -> None:
        names = [f"AE{number}" for number in range(1_000)]
        bench = Bench(dimse(*names[:-1]))
        bench.delivery.offer([event(1, *names)])
        sequences = [
            delivered.sequence async for chunk in bench.delivery.replay(names[-1], 0) for delivered in chunk
        ]
        assert sequences == [1]

    run(scenario())
