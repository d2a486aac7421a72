# SPDX-License-Identifier: AGPL-3.0-or-later
"""What cannot be delivered becomes a dead letter: kept, listed, told once, and sent again on demand."""

from __future__ import annotations

import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.events import EventType
from orthanc_ups.delivery.documents import decode_batch
from orthanc_ups.delivery.port import Burst, Endpoint
from orthanc_ups.delivery.worker import in_words
from orthanc_ups.settings import Settings
from tests.support.delivery import NOON, Bench, TwinChannel, event, restarted, run, settle

DAY = 86_400.0


def dimse(*titles: str) -> TwinChannel:
    return TwinChannel("dimse", set(titles))


def names(bench: Bench, receiving_ae: str = "A") -> list[int]:
    return [letter.sequence for letter in bench.management.dead_letters(receiving_ae, 0, 100_000)]


def counted(bench: Bench, what: str, kind: EventType = EventType.STATE_REPORT) -> int:
    return bench.delivery.counts.all().get((what, "dimse", kind), 0)


def test_a_refused_event_is_kept_with_the_reason_and_the_next_is_delivered() -> None:
    async def scenario() -> None:
        channel = dimse("A")
        channel.refuses.add(2)
        bench = Bench(channel)
        await bench.offer(*(event(number, "A") for number in range(1, 5)))
        assert channel.sequences("A") == [1, 3, 4]
        (letter,) = bench.management.dead_letters("A")
        assert (letter.sequence, letter.uid, letter.at, letter.died_at) == (2, "1.2.3", NOON, NOON)
        assert letter.endpoint == Endpoint("A", "dimse") and letter.type is EventType.STATE_REPORT
        assert letter.reason == "refused: 0110 processing failure"
        assert bench.delivery.settled(event(2, "A"))
        assert counted(bench, "dead") == 1

    run(scenario())


def test_events_older_than_the_setting_become_dead_letters_in_batches_and_are_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        channel = dimse("A")
        channel.down["A"] = "connection refused"
        bench = Bench(channel, settings=Settings(dead_letter_after=7 * DAY))
        await bench.offer(*(event(number, "A") for number in range(1, 251)))
        await bench.offer(event(251, "A", at=NOON + 8 * DAY))
        await bench.clock.advance(7 * DAY - 301)
        assert names(bench) == []
        await bench.clock.advance(700.0)
        assert names(bench) == list(range(1, 251))
        dead = [entry for entry in await bench.stored() if entry.key.startswith("dead/")]
        assert [len(decode_batch(entry.document).letters) for entry in dead] == [100, 100, 50]
        assert bench.management.dead_letters("A")[0].reason == "not delivered within 7 days"
        assert caplog.text.count("go to the dead letters") == 1
        assert bench.management.report("A")[0].pending == 1
        channel.down.clear()
        bench.management.retry_now("A")
        await settle()
        assert channel.sequences("A") == [251]

    run(scenario())


def test_too_many_waiting_events_push_the_oldest_out_and_each_is_waiting_or_dead() -> None:
    async def scenario() -> None:
        channel = dimse("A")
        channel.down["A"] = "connection refused"
        bench = Bench(channel, settings=Settings(maximum_pending_per_subscriber=20))
        for number in range(1, 101):
            await bench.offer(event(number, "A"))
        pending = bench.management.report("A")[0].pending
        assert 18 <= pending <= 20
        assert names(bench) == list(range(1, 101 - pending))
        channel.down.clear()
        await bench.clock.advance(600.0)
        assert names(bench) + channel.sequences("A") == list(range(1, 101))

    run(scenario())


def test_the_oldest_dead_letters_are_given_up_beyond_the_limit_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        channel = dimse("A")
        channel.refuses = set(range(1, 51))
        bench = Bench(channel, settings=Settings(maximum_dead_letters=10))
        await bench.offer(*(event(number, "A") for number in range(1, 51)))
        await bench.clock.advance(10.0)
        assert names(bench) == list(range(41, 51))
        assert counted(bench, "dead") == 50 and counted(bench, "lost") == 40
        assert caplog.text.count("the oldest are deleted") == 1
        await bench.restart()
        assert names(bench) == list(range(41, 51))

    run(scenario())


def test_a_dead_letter_is_stored_before_the_cursor_passes_and_not_delivered_after_a_crash() -> None:
    async def scenario() -> None:
        channel = dimse("A")
        channel.refuses.add(1)
        bench = Bench(channel)
        await bench.offer(event(1, "A"))
        channel.refuses.clear()
        await bench.restart([event(1, "A")])
        assert channel.sequences("A") == [] and names(bench) == [1]

    run(scenario())


def test_while_the_store_is_down_nothing_dies_and_the_receiver_is_tried_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        channel = dimse("A")
        channel.down["A"] = "connection refused"
        bench = Bench(channel, settings=Settings(maximum_pending_per_subscriber=5))
        bench.entries.unavailable = True
        await bench.offer(*(event(number, "A") for number in range(1, 21)))
        await bench.clock.advance(60.0)
        assert names(bench) == [] and bench.management.report("A")[0].pending == 20
        assert caplog.text.count("cannot be stored yet and stay in the queue") == 1
        channel.down.clear()
        await bench.clock.advance(600.0)
        assert channel.sequences("A") == list(range(1, 21)) and names(bench) == []

    run(scenario())


def test_a_refused_event_whose_dead_letter_cannot_be_stored_stays() -> None:
    async def scenario() -> None:
        channel = dimse("A")
        channel.refuses.add(1)
        bench = Bench(channel)
        bench.entries.unavailable = True
        await bench.offer(event(1, "A"), event(2, "A"))
        await bench.clock.advance(60.0)
        assert channel.sequences("A") == [] and names(bench) == []
        bench.entries.unavailable = False
        await bench.clock.advance(600.0)
        assert channel.sequences("A") == [2] and names(bench) == [1]

    run(scenario())


@pytest.mark.parametrize("trouble", ["lost_answers", "lost_requests", "conflicts"])
def test_a_lost_answer_makes_no_dead_letter_twice(trouble: str) -> None:
    async def scenario() -> None:
        channel = dimse("A")
        channel.refuses = {1, 2}
        bench = Bench(channel)
        setattr(bench.entries, trouble, 1)
        await bench.offer(event(1, "A"), event(2, "A"))
        await bench.clock.advance(60.0)
        assert names(bench) == [1, 2]
        await bench.restart([event(1, "A"), event(2, "A")])
        assert names(bench) == [1, 2] and channel.sequences("A") == []

    run(scenario())


def test_a_burst_that_is_too_old_becomes_one_dead_letter_and_can_be_sent_later() -> None:
    async def scenario() -> None:
        channel = dimse("A")
        channel.down["A"] = "connection refused"
        bench = Bench(channel, settings=Settings(dead_letter_after=DAY))
        burst = Burst("A", 10, 1_000, 10, at=NOON)
        await bench.offer(event(1, "A"), burst)
        await bench.clock.advance(DAY + 400.0)
        first, second = bench.management.dead_letters("A")
        assert (first.sequence, first.count) == (1, 1)
        assert (second.sequence, second.count, second.uid) == (10, 1_000, tags.GLOBAL_SUBSCRIPTION)
        await bench.restart([event(1, "A")], [burst])
        assert bench.management.report("A")[0].pending == 0
        channel.down.clear()
        assert bench.management.resend_dead("A") == 2
        await bench.clock.advance(10.0)
        assert channel.sequences("A") == [1, *range(11, 1_011)] and names(bench) == []

    run(scenario())


def test_an_old_status_change_is_dropped_and_no_dead_letter() -> None:
    async def scenario() -> None:
        channel = dimse("A")
        channel.down["A"] = "connection refused"
        bench = Bench(channel, settings=Settings(dead_letter_after=DAY))
        await bench.offer(restarted(1, "A"))
        await bench.clock.advance(DAY + 400.0)
        assert names(bench) == [] and bench.management.report("A")[0].pending == 0
        assert counted(bench, "lost", EventType.SCP_STATUS_CHANGE) == 1

    run(scenario())


def test_what_grew_old_while_the_plugin_was_stopped_is_tried_once_more() -> None:
    async def scenario() -> None:
        channel = dimse("A", "B")
        channel.down["B"] = "connection refused"
        bench = Bench(channel, settings=Settings(dead_letter_after=DAY))
        bench.clock.passed += 30 * DAY
        await bench.restart([event(1, "A", "B")])
        await bench.clock.advance(10.0)
        assert channel.sequences("A") == [1] and names(bench, "A") == []
        assert names(bench, "B") == [1]

    run(scenario())


def test_dead_letter_after_nothing_means_never() -> None:
    async def scenario() -> None:
        channel = dimse("A")
        channel.down["A"] = "connection refused"
        bench = Bench(channel, settings=Settings(dead_letter_after=0.0))
        await bench.offer(event(1, "A"))
        await bench.clock.advance(DAY)
        assert names(bench) == []

    run(scenario())


def test_dead_letters_are_listed_page_by_page() -> None:
    async def scenario() -> None:
        channel = dimse("A", "B")
        channel.down = {"A": "no", "B": "no"}
        bench = Bench(channel, settings=Settings(dead_letter_after=DAY))
        await bench.offer(*(event(number, "A") for number in range(1, 231)), event(231, "B"))
        await bench.clock.advance(DAY + 400.0)
        pages = [bench.management.dead_letters("A", offset, 50) for offset in range(0, 300, 50)]
        assert [len(page) for page in pages] == [50, 50, 50, 50, 30, 0]
        assert [letter.sequence for page in pages for letter in page] == list(range(1, 231))
        assert names(bench, "B") == [231] and names(bench, "C") == []

    run(scenario())


def test_dead_letters_that_are_sent_again_go_first_and_leave_the_list_one_by_one() -> None:
    async def scenario() -> None:
        channel = dimse("A")
        channel.refuses = set(range(1, 7))
        bench = Bench(channel)
        await bench.offer(*(event(number, "A") for number in range(1, 7)))
        channel.refuses = {3}
        channel.down["A"] = "connection refused"
        await bench.offer(event(7, "A"))
        assert bench.management.resend_dead("A", [1, 3, 5, 99]) == 3
        await settle()
        assert names(bench) == [1, 2, 3, 4, 5, 6]
        channel.down.clear()
        await bench.clock.advance(10.0)
        assert channel.sequences("A") == [1, 5, 7], "3 is refused again"
        assert names(bench) == [2, 3, 4, 6]
        await bench.restart()
        assert names(bench) == [2, 3, 4, 6]
        assert bench.delivery.counts.all().get(("repeated", "dimse", EventType.STATE_REPORT)) is None

    run(scenario())


def test_a_dead_letter_that_is_sent_again_is_not_lost_by_a_crash() -> None:
    async def scenario() -> None:
        channel = dimse("A")
        channel.refuses.add(1)
        bench = Bench(channel)
        await bench.offer(event(1, "A"))
        channel.refuses.clear()
        channel.down["A"] = "connection refused"
        bench.management.resend_dead("A")
        await settle()
        await bench.restart([event(1, "A")])
        assert names(bench) == [1] and channel.sequences("A") == []

    run(scenario())


def test_dead_letters_of_a_channel_that_is_gone_are_sent_on_what_serves_the_ae_now() -> None:
    async def scenario() -> None:
        hook, address = TwinChannel("webhook:X", {"A"}), dimse("A")
        hook.refuses.add(1)
        bench = Bench(hook, address)
        await bench.offer(event(1, "A"))
        assert address.sequences("A") == [1] and names(bench) == [1]
        bench.channels = (address,)
        await bench.restart()
        bench.management.resend_dead("A")
        await settle()
        assert address.sequences("A") == [1, 1] and names(bench) == []

    run(scenario())


def test_dead_letters_can_be_deleted() -> None:
    async def scenario() -> None:
        channel = dimse("A")
        channel.refuses = {1, 2, 3}
        bench = Bench(channel)
        await bench.offer(*(event(number, "A") for number in (1, 2, 3)))
        assert await bench.management.drop_dead("A", [2, 99]) == 1
        assert names(bench) == [1, 3]
        assert await bench.management.drop_dead("A") == 2
        assert await bench.management.drop_dead("UNKNOWN") == 0
        assert names(bench) == [] and bench.delivery.dead.endpoints() == ()
        assert not [entry for entry in await bench.stored() if entry.key.startswith("dead/")]

    run(scenario())


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(7 * DAY, "7 days"), (5_400.0, "1.5 hours"), (60.0, "1 minutes"), (2.5, "2.5 seconds")],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
