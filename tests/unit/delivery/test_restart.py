# SPDX-License-Identifier: AGPL-3.0-or-later
"""Delivery across crashes: cursors, resumed events and bursts, and what others do to the stored entries."""

from __future__ import annotations

import asyncio
import logging

import orjson
import pytest

from orthanc_ups.delivery.port import WEBSOCKET, Burst
from orthanc_ups.delivery.subscriber import Subscriber
from tests.support.delivery import Bench, TwinChannel, cursors, event, progress, restarted, run, settle


def dimse(*titles: str) -> TwinChannel:
    return TwinChannel("dimse", set(titles))


def test_a_cursor_is_stored_within_a_second_and_not_for_every_event() -> None:
    async def scenario() -> None:
        bench = Bench(dimse("A"))
        for number in range(1, 201):
            await bench.offer(event(number, "A"))
            await bench.clock.advance(0.01)
        await bench.clock.advance(1.0)
        assert await cursors(bench, "A") == {"dimse": 200}
        assert sum(bench.entries.calls.get(name, 0) for name in ("create", "replace")) <= 6

    run(scenario())


def test_after_a_crash_nothing_is_missing_and_only_the_last_moment_is_repeated() -> None:
    async def scenario() -> None:
        channel = dimse("A", "B")
        channel.down["B"] = "connection refused"
        bench = Bench(channel)
        stored = [event(number, "A", "B") for number in range(1, 6)]
        await bench.offer(*stored[:3])
        await bench.clock.advance(1.0)
        await bench.offer(*stored[3:])
        channel.down.clear()
        await bench.restart(stored)
        assert channel.sequences("A") == [1, 2, 3, 4, 5, 4, 5]
        assert channel.sequences("B") == [1, 2, 3, 4, 5]

    run(scenario())


def test_after_a_clean_stop_nothing_is_repeated() -> None:
    async def scenario() -> None:
        channel = dimse("A")
        bench = Bench(channel)
        stored = [event(number, "A") for number in range(1, 6)]
        await bench.offer(*stored)
        await bench.delivery.going_down(None)
        await bench.restart(stored)
        assert channel.sequences("A") == [1, 2, 3, 4, 5]
        assert channel.closed

    run(scenario())


def test_stored_events_are_resumed_in_order_and_the_newest_progress_report_is_enough() -> None:
    async def scenario() -> None:
        channel = dimse("A")
        bench = Bench(channel)
        await bench.restart([progress(7, "A"), event(9, "A"), progress(3, "A"), event(1, "A")])
        assert channel.sequences("A") == [1, 7, 9]
        assert bench.delivery.settled(progress(3, "A"))

    run(scenario())


def test_a_progress_report_that_made_way_for_a_dead_letter_does_not_come_back() -> None:
    async def scenario() -> None:
        channel = dimse("A")
        channel.refuses.add(2)
        bench = Bench(channel)
        stored = [progress(1, "A"), progress(2, "A"), event(3, "A")]
        await bench.offer(*stored)
        await bench.restart(stored)
        assert channel.sequences("A") == [3, 3]

    run(scenario())


def test_a_burst_goes_on_from_the_cursor() -> None:
    async def scenario() -> None:
        channel = dimse("A")
        channel.takes = 50
        bench = Bench(channel)
        burst = Burst("A", 10, 300, 10)
        await bench.offer(burst)
        channel.down["A"] = "connection refused"
        await bench.delivery.going_down(None)
        count = len(channel.sequences("A"))
        assert 50 <= count <= 300
        channel.down.clear()
        await bench.restart([event(311, "A")], [burst])
        await bench.clock.advance(10.0)
        assert channel.sequences("A") == [*range(11, 312)]

    run(scenario())


def test_a_burst_that_is_done_is_not_made_again() -> None:
    async def scenario() -> None:
        channel = dimse("A")
        bench = Bench(channel)
        burst = Burst("A", 10, 30, 10)
        await bench.offer(burst)
        await bench.clock.advance(1.0)
        bench.log.asked.clear()
        await bench.restart([], [burst])
        assert bench.log.asked == [] and not bench.delivery.has_burst("A")

    run(scenario())


def test_an_scp_status_change_is_not_stored() -> None:
    async def scenario() -> None:
        channel = dimse("A")
        channel.down["A"] = "connection refused"
        bench = Bench(channel)
        await bench.offer(restarted(1, "A"))
        assert bench.delivery.settled_through("A") == 0
        channel.down.clear()
        await bench.restart()
        await bench.clock.advance(10.0)
        assert channel.sequences("A") == []

    run(scenario())


def test_counts_and_the_last_error_survive() -> None:
    async def scenario() -> None:
        channel = dimse("A")
        bench = Bench(channel)
        await bench.offer(event(1, "A"))
        channel.down["A"] = "connection refused"
        await bench.offer(event(2, "A"))
        await bench.clock.advance(0.6)
        before = bench.management.report("A")[0]
        await bench.restart()
        after = bench.management.report("A")[0]
        assert (after.delivered, after.failed, after.last_error) == (1, 1, "connection refused")
        assert after.last_success_at == before.last_success_at

    run(scenario())


def test_a_channel_without_a_cursor_starts_at_the_slowest_of_the_ae() -> None:
    async def scenario() -> None:
        address, hook = dimse("A"), TwinChannel("webhook:X", {"A"})
        hook.down["A"] = "HTTP 503"
        bench = Bench(address, hook)
        stored = [event(number, "A") for number in range(1, 4)]
        await bench.offer(stored[0])
        hook.down.clear()
        await bench.clock.advance(10.0)
        hook.down["A"] = "HTTP 503"
        await bench.offer(*stored[1:])
        await bench.clock.advance(10.0)
        assert await cursors(bench, "A") == {"dimse": 3, "webhook:X": 1}
        renamed = TwinChannel("webhook:Y", {"A"})
        bench.channels = (address, renamed)
        await bench.restart(stored)
        assert renamed.sequences("A") == [2, 3] and address.sequences("A") == [1, 2, 3]
        await bench.clock.advance(10.0)
        assert await cursors(bench, "A") == {"dimse": 3, "webhook:Y": 3}

    run(scenario())


def test_an_address_that_went_away_while_stopped_hands_over_to_the_websocket() -> None:
    async def scenario() -> None:
        address, channel = dimse("A"), TwinChannel(WEBSOCKET)
        bench = Bench(address, channel)
        stored = [event(1, "A"), event(2, "A")]
        await bench.offer(stored[0])
        await bench.clock.advance(1.0)
        address.ae_titles.clear()
        await bench.restart(stored)
        assert not bench.delivery.settled(event(2, "A")) and bench.delivery.settled(event(1, "A"))
        channel.ae_titles.add("A")
        bench.delivery.retry_soon("A")
        await settle()
        assert channel.sequences("A") == [2]

    run(scenario())


def test_dropped_events_stay_dropped() -> None:
    async def scenario() -> None:
        channel = dimse("A")
        channel.down["A"] = "connection refused"
        bench = Bench(channel)
        stored = [event(number, "A") for number in range(1, 6)]
        await bench.offer(*stored)
        assert await bench.management.drop("A", [2, 4, 77]) == 2
        await bench.restart(stored)
        assert await bench.management.drop("A") == 3
        channel.down.clear()
        await bench.restart([*stored, event(6, "A")])
        assert channel.sequences("A") == [6]

    run(scenario())


def test_a_cursor_beyond_every_sequence_in_use_is_set_back() -> None:
    async def scenario() -> None:
        channel = dimse("A")
        bench = Bench(channel)
        await bench.offer(event(1, "A"))
        await bench.clock.advance(1.0)
        (entry,) = await bench.stored()
        document = orjson.loads(entry.document)
        document["channels"]["dimse"]["cursor"] = 10**15
        await bench.entries.replace(entry.key, orjson.dumps(document), entry.version)
        await bench.delivery.cursor_writer.close()
        bench.delivery = bench.new_delivery()
        await bench.delivery.load(await bench.stored())
        bench.delivery.resume([event(1, "A")], [], last=1)
        await bench.offer(event(2, "A"))
        assert channel.sequences("A") == [1, 2]
        assert not bench.delivery.settled(event(3, "A"))

    run(scenario())


def test_a_cursor_that_is_being_written_as_the_stop_comes_is_written_by_the_stop() -> None:
    async def scenario() -> None:
        bench = Bench(dimse("A"))
        store, reached = bench.delivery.cursor_writer.store, asyncio.Event()

        async def never(subscriber: Subscriber) -> None:
            reached.set()
            await asyncio.Event().wait()

        bench.delivery.cursor_writer.store = never
        await bench.offer(event(1, "A"))
        await bench.clock.advance(1.0)
        await asyncio.wait_for(reached.wait(), 5)
        await bench.delivery.cursor_writer.close()
        bench.delivery.cursor_writer.store = store
        await bench.delivery.cursor_writer.flush()
        (entry,) = await bench.stored()
        assert orjson.loads(entry.document)["channels"]["dimse"]["cursor"] == 1

    run(scenario())


def test_an_entry_that_somebody_changed_is_overwritten_and_no_count_goes_back() -> None:
    async def scenario() -> None:
        bench = Bench(dimse("A"))
        await bench.offer(event(1, "A"))
        await bench.clock.advance(1.0)
        (entry,) = await bench.stored()
        document = orjson.loads(entry.document)
        document["channels"]["dimse"] |= {"cursor": 99, "delivered": 50}
        await bench.entries.replace(entry.key, orjson.dumps(document), entry.version)
        await bench.offer(event(2, "A"))
        await bench.clock.advance(1.0)
        assert await cursors(bench, "A") == {"dimse": 2}
        assert bench.management.report("A")[0].delivered == 50

    run(scenario())


@pytest.mark.parametrize("garbage", [b"", b"{}", b'{"format":1}', b'{"format":99}', b"\xff\xfe"])
def test_a_damaged_entry_is_reported_and_costs_repeats_but_no_event(
    garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        channel = dimse("A")
        bench = Bench(channel)
        await bench.entries.create("delivery/A", garbage)
        await bench.entries.create("dead/A/dimse/7", garbage)
        await bench.restart([event(1, "A")])
        assert "delivery/A" in caplog.text and "dead/A/dimse/7" in caplog.text
        await bench.clock.advance(1.0)
        assert channel.sequences("A") == [1] and await cursors(bench, "A") == {"dimse": 1}

    run(scenario())


def test_a_store_that_is_down_is_reported_once_and_catches_up(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def scenario() -> None:
        channel = dimse("A", "B")
        bench = Bench(channel)
        bench.entries.unavailable = True
        for number in range(1, 20):
            await bench.offer(event(number, "A", "B"))
            await bench.clock.advance(1.0)
        assert channel.sequences("A") == list(range(1, 20))
        assert bench.entries.calls["create"] < 10
        bench.entries.unavailable = False
        await bench.clock.advance(16.0)
        assert await cursors(bench, "B") == {"dimse": 19}
        assert caplog.text.count("cannot be stored now") == 1
        assert caplog.text.count("can be stored again") == 1

    run(scenario())


def test_a_lost_answer_of_the_store_is_sorted_out(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        bench = Bench(dimse("A"))
        bench.entries.lost_answers = 1
        await bench.offer(event(1, "A"))
        await bench.clock.advance(2.0)
        bench.entries.lost_requests = 1
        await bench.offer(event(2, "A"))
        await bench.clock.advance(2.0)
        assert "somebody else" not in caplog.text
        bench.entries.conflicts = 3
        await bench.offer(event(3, "A"))
        await bench.clock.advance(2.0)
        assert await cursors(bench, "A") == {"dimse": 3}

    run(scenario())


def test_every_entry_can_be_written_back_if_it_is_deleted_under_us() -> None:
    async def scenario() -> None:
        channel = dimse("A")
        channel.refuses.add(2)
        bench = Bench(channel)
        await bench.offer(event(1, "A"), event(2, "A"))
        await bench.clock.advance(1.0)
        assert sorted(bench.delivery.stored(), key=repr) == sorted(await bench.stored(), key=repr)
        await bench.restart()
        assert sorted(bench.delivery.stored(), key=repr) == sorted(await bench.stored(), key=repr)

    run(scenario())


def test_cursors_are_written_seconds_after_an_outage_however_long_a_write_hung_in_it() -> None:
    async def scenario() -> None:
        bench = Bench(dimse("A", "B"))
        store = bench.delivery.cursor_writer.store

        async def hung(subscriber: Subscriber) -> None:
            await bench.clock.sleep(120.0)
            bench.delivery.cursor_writer.store = store
            await store(subscriber)

        bench.delivery.cursor_writer.store = hung
        await bench.offer(event(1, "A", "B"))
        await bench.clock.advance(121.0)
        await bench.clock.advance(4.0)
        assert await cursors(bench, "A") == await cursors(bench, "B") == {"dimse": 1}

    run(scenario())
