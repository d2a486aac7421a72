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
from tests.support.service import FILTERED, LOCK, NO_LOCK, SCHEDULER, ServiceRig, grows, in_short, on_loop
from tests.support.workitems import uid

MINUTE = 60.0
HIGH = {tags.PRIORITY: element("CS", "HIGH")}


async def report(rig: ServiceRig, percent: int) -> None:
    item = {tags.PROGRESS: element("DS", str(percent))}
    await rig.update({tags.PROGRESS_INFORMATION: element("SQ", item)}, 1)


@on_loop
async def test_replaced_progress_reports_are_not_kept() -> None:
    rig = await ServiceRig("A").start()
    await rig.subscribe("A")
    rig.channel.down["A"] = "switched off"
    await rig.create(1)
    await rig.claim(1)
    for number in range(300):
        await report(rig, number % 100 + 1)
    assert rig.entries.documents("events/") == {}
    assert len(rig.workitem(1).events) < 20
    await rig.restart()
    rig.channel.down.clear()
    await rig.pass_by(60)
    assert rig.heard("A") == ["1: SCHEDULED", "1: IN PROGRESS", "1: event 3"]
    (progress,) = [event for event in rig.events_for("A") if event.type is EventType.PROGRESS_REPORT]
    assert progress.information[tags.PROGRESS_INFORMATION]["Value"][0][tags.PROGRESS] == element("DS", "100")


@on_loop
async def test_progress_reports_that_must_not_be_replaced_are_kept_to_the_last() -> None:
    rig = await ServiceRig("A", settings=Settings(replace_waiting_progress=False)).start()
    await rig.subscribe("A")
    rig.channel.down["A"] = "switched off"
    await rig.create(1)
    await rig.claim(1)
    for number in range(100):
        await report(rig, number + 1)
    await rig.restart()
    rig.channel.down.clear()
    await rig.pass_by(60)
    assert len(rig.heard("A")) == 102
    assert grows(rig.sequences("A"))


@on_loop
async def test_events_stand_by_sequence_though_one_receiver_is_ahead_of_another() -> None:
    rig = await ServiceRig("A", "B").start()
    await rig.create(1)
    await rig.subscribe("A", 1)
    rig.channel.down["A"] = "switched off"
    await rig.claim(1)
    await rig.subscribe("B", 1)
    await rig.update({tags.READINESS: element("CS", "UNAVAILABLE")}, 1)
    await rig.update({tags.READINESS: element("CS", "READY")}, 1)
    sequences = [event.sequence for event in rig.workitem(1).events]
    assert len(sequences) >= 4 and grows(sequences)


@on_loop
async def test_a_lock_that_was_taken_again_is_as_old_as_that() -> None:
    rig = await ServiceRig(
        "A", settings=Settings(retain_final=100 * MINUTE, maximum_lock_age=10 * MINUTE)
    ).start()
    await rig.create(1)
    await rig.subscribe("A", lock=True)
    await rig.unsubscribe("A", 1)
    await rig.cancel(1)
    await rig.pass_by(11 * MINUTE)
    await rig.subscribe("A", lock=True)
    await rig.pass_by(9 * MINUTE)
    assert rig.subscription("A", 1) is LOCK
    await rig.pass_by(2 * MINUTE)
    assert rig.subscription("A", 1) is NO_LOCK


@on_loop
async def test_a_filter_that_took_other_workitems_makes_no_lock_older() -> None:
    rig = await ServiceRig(
        "A", settings=Settings(retain_final=100 * MINUTE, maximum_lock_age=10 * MINUTE)
    ).start()
    await rig.create(1)
    await rig.subscribe("A", FILTERED, lock=True, keys=HIGH)
    await rig.cancel(1)
    await rig.pass_by(11 * MINUTE)
    await rig.subscribe("A", 1, lock=False)
    await rig.unsubscribe("A", 1)
    await rig.subscribe("A", lock=True)
    await rig.pass_by(MINUTE)
    assert rig.subscription("A", 1) is LOCK


@on_loop
async def test_what_was_claimed_meanwhile_is_not_canceled_for_being_late() -> None:
    rig = await ServiceRig("A").start()
    await rig.subscribe("A")
    await rig.create(1)
    await rig.claim(1)
    late = await rig.refused(RequestCancel(SCHEDULER, uid(1), only_scheduled=True))
    assert late.status.code == 0x0110
    assert rig.heard("A") == ["1: SCHEDULED", "1: IN PROGRESS"]


@on_loop
async def test_progress_that_is_taken_back_is_no_progress_report() -> None:
    """PS3.4 Table CC.2.4-1: Procedure Step Progress Information Sequence has one item."""
    rig = await ServiceRig("A").start()
    await rig.subscribe("A")
    await rig.create(1)
    await rig.claim(1)
    await report(rig, 50)
    await rig.update({tags.PROGRESS_INFORMATION: element("SQ")}, 1)
    assert rig.heard("A") == ["1: SCHEDULED", "1: IN PROGRESS", "1: event 3"]


@on_loop
async def test_too_many_searches_are_a_resource_limitation_for_a_filter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = await ServiceRig("A").start()

    async def busy(query: Query) -> None:
        raise UpsError(OUT_OF_RESOURCES, "too many searches at once")

    monkeypatch.setattr(rig.service.projection, "numbers", busy)
    refused = await rig.refused(Subscribe(SCHEDULER, FILTERED, "A", True, HIGH))
    assert refused.status.code == 0x0213


SEEDS = [*range(6), *(pytest.param(seed, marks=pytest.mark.torture) for seed in range(6, 40))]


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_happens_all_but_replaced_progress_is_told_in_order(seed: int) -> None:
    """Progress, readiness, crashes and receivers that come and go, with waiting Progress Reports replaced."""
    chance = random.Random(seed)

    @on_loop
    async def history() -> None:
        rig = await ServiceRig("A", "B").start()
        for ae in ("A", "B"):
            await rig.subscribe(ae)
        await rig.create(1)
        await rig.claim(1)
        expected, percent, ready = ["1: SCHEDULED", "1: IN PROGRESS"], 0, True
        for _ in range(60):
            match chance.choice(("progress",) * 6 + ("readiness", "away", "back", "crash", "stop", "later")):
                case "progress":
                    percent += 1
                    await report(rig, percent)
                case "readiness":
                    ready = not ready
                    await rig.update({tags.READINESS: element("CS", "READY" if ready else "UNAVAILABLE")}, 1)
                    expected.append("1: IN PROGRESS")
                case "away":
                    rig.channel.down[chance.choice("AB")] = "switched off"
                case "back":
                    rig.channel.down.pop(chance.choice("AB"), None)
                case "crash":
                    await rig.restart()
                case "stop":
                    await rig.stop()
                    await rig.start()
                case _:
                    await rig.pass_by(chance.choice((1, 30)))
        rig.channel.down.clear()
        await rig.pass_by(600)
        for ae in ("A", "B"):
            events = list({event.sequence: event for event in rig.events_for(ae)}.values())
            assert grows([event.sequence for event in events])
            reports = [event for event in events if event.type is EventType.PROGRESS_REPORT]
            states = [event for event in events if event.type is EventType.STATE_REPORT]
            assert [in_short(event) for event in states] == expected
            if percent:
                (item,) = reports[-1].information[tags.PROGRESS_INFORMATION]["Value"]
                assert item[tags.PROGRESS] == element("DS", str(percent))
        assert rig.entries.documents("events/") == {}

    history()
