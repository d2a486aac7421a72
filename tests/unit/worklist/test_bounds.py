# SPDX-License-Identifier: AGPL-3.0-or-later
"""Stored events stay bounded and in order, whichever AE is away and however much is reported."""

from __future__ import annotations

import random

import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.commands import RequestCancel, Subscribe
from orthanc_ups.core.dataset import element
from orthanc_ups.core.events import EventType
from orthanc_ups.core.matching import Query
from orthanc_ups.core.statuses import OUT_OF_RESOURCES, UpsError
from orthanc_ups.settings import Settings
from tests.support.service import FILTERED, LOCK, NO_LOCK, SCHEDULER, Desk, grows, in_short, on_loop
from tests.support.workitems import uid

MINUTE = 60.0
HIGH = {tags.PRIORITY: element("CS", "HIGH")}


async def report(desk: Desk, percent: int) -> None:
    item = {tags.PROGRESS: element("DS", str(percent))}
    await desk.update({tags.PROGRESS_INFORMATION: element("SQ", item)}, 1)


@on_loop
async def test_replaced_progress_reports_are_not_kept() -> None:
    desk = await Desk("A").start()
    await desk.subscribe("A")
    desk.channel.down["A"] = "switched off"
    await desk.create(1)
    await desk.claim(1)
    for number in range(300):
        await report(desk, number % 100 + 1)
    assert desk.entries.documents("events/") == {}
    assert len(desk.workitem(1).events) < 20
    await desk.restart()
    desk.channel.down.clear()
    await desk.pass_by(60)
    assert desk.heard("A") == ["1: SCHEDULED", "1: IN PROGRESS", "1: event 3"]
    (progress,) = [event for event in desk.events_for("A") if event.type is EventType.PROGRESS_REPORT]
    assert progress.information[tags.PROGRESS_INFORMATION]["Value"][0][tags.PROGRESS] == element("DS", "100")


@on_loop
async def test_progress_reports_that_must_not_be_replaced_are_kept_to_the_last() -> None:
    desk = await Desk("A", settings=Settings(replace_waiting_progress=False)).start()
    await desk.subscribe("A")
    desk.channel.down["A"] = "switched off"
    await desk.create(1)
    await desk.claim(1)
    for number in range(100):
        await report(desk, number + 1)
    await desk.restart()
    desk.channel.down.clear()
    await desk.pass_by(60)
    assert len(desk.heard("A")) == 102
    assert grows(desk.sequences("A"))


@on_loop
async def test_events_stand_by_sequence_though_one_receiver_is_ahead_of_another() -> None:
    desk = await Desk("A", "B").start()
    await desk.create(1)
    await desk.subscribe("A", 1)
    desk.channel.down["A"] = "switched off"
    await desk.claim(1)
    await desk.subscribe("B", 1)
    await desk.update({tags.READINESS: element("CS", "UNAVAILABLE")}, 1)
    await desk.update({tags.READINESS: element("CS", "READY")}, 1)
    sequences = [event.sequence for event in desk.workitem(1).events]
    assert len(sequences) >= 4 and grows(sequences)


@on_loop
async def test_a_lock_that_was_taken_again_is_as_old_as_that() -> None:
    desk = await Desk("A", settings=Settings(retain_final=100 * MINUTE, maximum_lock_age=10 * MINUTE)).start()
    await desk.create(1)
    await desk.subscribe("A", lock=True)
    await desk.unsubscribe("A", 1)
    await desk.cancel(1)
    await desk.pass_by(11 * MINUTE)
    await desk.subscribe("A", lock=True)
    await desk.pass_by(9 * MINUTE)
    assert desk.subscription("A", 1) is LOCK
    await desk.pass_by(2 * MINUTE)
    assert desk.subscription("A", 1) is NO_LOCK


@on_loop
async def test_a_filter_that_took_other_workitems_makes_no_lock_older() -> None:
    desk = await Desk("A", settings=Settings(retain_final=100 * MINUTE, maximum_lock_age=10 * MINUTE)).start()
    await desk.create(1)
    await desk.subscribe("A", FILTERED, lock=True, keys=HIGH)
    await desk.cancel(1)
    await desk.pass_by(11 * MINUTE)
    await desk.subscribe("A", 1, lock=False)
    await desk.unsubscribe("A", 1)
    await desk.subscribe("A", lock=True)
    await desk.pass_by(MINUTE)
    assert desk.subscription("A", 1) is LOCK


@on_loop
async def test_what_was_claimed_meanwhile_is_not_canceled_for_being_late() -> None:
    desk = await Desk("A").start()
    await desk.subscribe("A")
    await desk.create(1)
    await desk.claim(1)
    late = await desk.refused(RequestCancel(SCHEDULER, uid(1), only_scheduled=True))
    assert late.status.code == 0x0110
    assert desk.heard("A") == ["1: SCHEDULED", "1: IN PROGRESS"]


@on_loop
async def test_progress_that_is_taken_back_is_no_progress_report() -> None:
    """PS3.4 Table CC.2.4-1: Procedure Step Progress Information Sequence has one item."""
    desk = await Desk("A").start()
    await desk.subscribe("A")
    await desk.create(1)
    await desk.claim(1)
    await report(desk, 50)
    await desk.update({tags.PROGRESS_INFORMATION: element("SQ")}, 1)
    assert desk.heard("A") == ["1: SCHEDULED", "1: IN PROGRESS", "1: event 3"]


@on_loop
async def test_too_many_searches_are_a_resource_limitation_for_a_filter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = await Desk("A").start()

    async def busy(query: Query) -> None:
        raise UpsError(OUT_OF_RESOURCES, "too many searches at once")

    monkeypatch.setattr(desk.service.projection, "numbers", busy)
    refused = await desk.refused(Subscribe(SCHEDULER, FILTERED, "A", True, HIGH))
    assert refused.status.code == 0x0213


SEEDS = [*range(6), *(pytest.param(seed, marks=pytest.mark.torture) for seed in range(6, 40))]


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_happens_all_but_replaced_progress_is_told_in_order(seed: int) -> None:
    """Progress, readiness, crashes and receivers that come and go, with waiting Progress Reports replaced."""
    chance = random.Random(seed)

    @on_loop
    async def history() -> None:
        desk = await Desk("A", "B").start()
        for ae in ("A", "B"):
            await desk.subscribe(ae)
        await desk.create(1)
        await desk.claim(1)
        expected, percent, ready = ["1: SCHEDULED", "1: IN PROGRESS"], 0, True
        for _ in range(60):
            match chance.choice(("progress",) * 6 + ("readiness", "away", "back", "crash", "stop", "later")):
                case "progress":
                    percent += 1
                    await report(desk, percent)
                case "readiness":
                    ready = not ready
                    await desk.update({tags.READINESS: element("CS", "READY" if ready else "UNAVAILABLE")}, 1)
                    expected.append("1: IN PROGRESS")
                case "away":
                    desk.channel.down[chance.choice("AB")] = "switched off"
                case "back":
                    desk.channel.down.pop(chance.choice("AB"), None)
                case "crash":
                    await desk.restart()
                case "stop":
                    await desk.stop()
                    await desk.start()
                case _:
                    await desk.pass_by(chance.choice((1, 30)))
        desk.channel.down.clear()
        await desk.pass_by(600)
        for ae in ("A", "B"):
            events = list({event.sequence: event for event in desk.events_for(ae)}.values())
            assert grows([event.sequence for event in events])
            reports = [event for event in events if event.type is EventType.PROGRESS_REPORT]
            states = [event for event in events if event.type is EventType.STATE_REPORT]
            assert [in_short(event) for event in states] == expected
            if percent:
                (item,) = reports[-1].information[tags.PROGRESS_INFORMATION]["Value"]
                assert item[tags.PROGRESS] == element("DS", str(percent))
        assert desk.entries.documents("events/") == {}

    history()
