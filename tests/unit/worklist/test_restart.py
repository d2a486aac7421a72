# SPDX-License-Identifier: AGPL-3.0-or-later
"""After a crash or a clean stop everything is there, and no number is used again."""

from __future__ import annotations

import logging
from pathlib import Path

import orjson
import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import DataSet, element
from orthanc_ups.core.events import EventType
from orthanc_ups.core.matching import Query
from orthanc_ups.core.statuses import UpsError
from orthanc_ups.store.port import StoreUnavailable
from orthanc_ups.worklist import order as worklist_entry
from orthanc_ups.worklist.overflows import SPILL_ABOVE
from tests.support.delivery import settle
from tests.support.service import FILTERED, LOCK, NO_LOCK, NONE, Desk, grows, on_loop, overwrite
from tests.support.workitems import minimal, progress, uid

HIGH = {tags.PRIORITY: element("CS", "HIGH")}


def urgent(number: int) -> DataSet:
    return minimal(t00741200=element("CS", "HIGH")) if number % 2 else minimal()


async def populated(path: str = ":memory:") -> Desk:
    """Four workitems, every kind of subscription, and events that wait for B."""
    desk = await Desk("A", "B", "C", "D", path=path).start()
    for number in range(1, 4):
        await desk.create(number, urgent(number))
    await desk.subscribe("A", lock=True)
    await desk.subscribe("B", FILTERED, lock=True, keys=HIGH)
    await desk.subscribe("C", 2)
    await desk.subscribe("D")
    await desk.suspend("D")
    await desk.pass_by(2)
    desk.channel.down["B"] = "switched off"
    await desk.create(4, urgent(4))
    await desk.create(5, urgent(5))
    await desk.claim(1)
    return desk


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("index_there", [True, False])
def test_a_restart_keeps_everything(tmp_path: Path, in_order: bool, index_there: bool) -> None:
    @on_loop
    async def scenario() -> None:
        desk = await populated(str(tmp_path / "p.sqlite"))
        numbers = range(1, 6)
        states = [[desk.subscription(ae, n) for n in numbers] for ae in "ABCD"]
        workitems = [desk.workitem(n) for n in numbers]
        before = desk.stored()
        if in_order:
            await desk.stop()
        await desk.crash()
        if not index_there:
            overwrite(desk.path, None)
        await desk.start()
        assert [[desk.subscription(ae, n) for n in numbers] for ae in "ABCD"] == states
        assert [desk.workitem(n) for n in numbers] == workitems
        assert desk.stored() == before
        desk.channel.down.clear()
        await desk.pass_by(10)
        assert desk.heard("B") == ["1: SCHEDULED", "3: SCHEDULED", "5: SCHEDULED", "1: IN PROGRESS"]
        for ae in "ABCD":
            assert grows(desk.sequences(ae))
        if in_order:
            assert [event.sequence for event in desk.events_for("A")] == desk.sequences("A")

    scenario()


@on_loop
async def test_what_a_restart_keeps_goes_on_to_count() -> None:
    desk = await populated()
    await desk.restart()
    await desk.create(6, urgent(6))
    await desk.create(7, urgent(7))
    assert [desk.subscription("A", n) for n in (6, 7)] == [LOCK, LOCK]
    assert [desk.subscription("B", n) for n in (6, 7)] == [NONE, LOCK]
    assert [desk.subscription("D", n) for n in (5, 6)] == [NONE, NONE]
    await desk.unsubscribe("A")
    assert desk.subscription("A", 6) is NONE
    await desk.cancel(2)
    assert desk.heard("C")[-1] == "2: CANCELED"
    assert desk.subscription("C", 2) is NO_LOCK


@on_loop
async def test_waiting_events_survive_several_crashes_and_come_once_each() -> None:
    desk = await populated()
    for n in range(3):
        await desk.restart()
        await desk.update(progress(f"1{n}"), 1)
        await desk.update({tags.READINESS: element("CS", "UNAVAILABLE")}, 1)
        await desk.update({tags.READINESS: element("CS", "READY")}, 1)
    desk.channel.down.clear()
    await desk.pass_by(10)
    assert [sentence for sentence in desk.heard("B") if sentence.startswith("1: ")] == [
        "1: SCHEDULED",
        "1: IN PROGRESS",
        *["1: IN PROGRESS"] * 2,
        *["1: IN PROGRESS"] * 2,
        "1: event 3",
        *["1: IN PROGRESS"] * 2,
    ]
    assert [event.sequence for event in desk.events_for("B")] == desk.sequences("B")


# --- numbers ---


@on_loop
async def test_numbers_never_come_again_whatever_was_lost_before_the_crash() -> None:
    desk = await Desk("A").start()
    await desk.subscribe("A")
    used: set[int] = set()
    created: list[int] = []
    for number in range(1, 6):
        desk.entries.lost_requests = number % 2
        await desk.create(number)
        await desk.cancel(number)
        await desk.unsubscribe("A", number)
        await desk.subscribe("A", number)
        created.append(desk.workitem(number).created)
        now = {event.sequence for event in desk.workitem(number).events}
        assert not used & now
        used |= now
        await desk.restart()
    assert grows(created)
    assert grows(desk.sequences("A"))


@on_loop
async def test_numbers_are_reserved_before_they_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worklist_entry, "SEQUENCES", 8)
    monkeypatch.setattr(worklist_entry, "CREATIONS", 4)
    desk = await Desk("A").start()

    async def check() -> None:
        reserved = orjson.loads(desk.entries.documents()["worklist"])
        assert desk.service.order.next <= reserved["sequences"]
        assert desk.service.commits.next_creation <= reserved["creations"]

    await desk.subscribe("A", lock=True)
    for number in range(1, 31):
        await desk.create(number)
        await check()
        await desk.cancel(number)
        await check()
        await desk.subscribe("A", lock=True)
        await check()
    await desk.unsubscribe("A")
    await desk.subscribe("A", lock=True)
    await check()
    assert grows(desk.sequences("A"))


@on_loop
async def test_without_a_reservation_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worklist_entry, "SEQUENCES", 8)
    monkeypatch.setattr(worklist_entry, "CREATIONS", 100)
    desk = await Desk("A").start()
    await desk.subscribe("A")
    await desk.create(1)
    desk.entries.broken_keys.add("worklist")
    refusals = 0
    for number in range(2, 12):
        before = desk.stored()
        try:
            await desk.create(number)
        except UpsError as error:
            refusals += 1
            assert error.status.code == 0x0213
            assert desk.stored() == before
    assert 0 < refusals < 10
    desk.entries.broken_keys.clear()
    await desk.create(20)
    assert desk.heard("A")[-1] == "20: SCHEDULED"
    assert grows(desk.sequences("A"))


# --- starts that fail ---


@on_loop
async def test_a_start_that_fails_can_be_tried_again() -> None:
    desk = await populated()
    await desk.crash()
    service = desk.make()
    desk.entries.unavailable = True
    with pytest.raises(StoreUnavailable):
        await service.start()
    desk.entries.unavailable = False
    desk.entries.broken_keys.add("worklist")
    with pytest.raises(StoreUnavailable):
        await service.start()
    desk.entries.broken_keys.clear()
    await service.start()
    desk.channel.down.clear()
    await desk.pass_by(10)
    assert desk.heard("B") == ["1: SCHEDULED", "3: SCHEDULED", "5: SCHEDULED", "1: IN PROGRESS"]
    assert desk.heard("C") == ["2: SCHEDULED"]


@on_loop
async def test_the_first_start_finds_shelves_without_mark_and_nothing_to_write_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    desk = Desk("A")
    desk.entries.lose()
    with caplog.at_level(logging.WARNING):
        await desk.start()
    assert not caplog.records
    await desk.create(1)
    assert desk.workitem(1).created == 1


# --- too many waiting events for one document ---


@on_loop
async def test_events_beyond_a_document_spill_and_each_is_told_once() -> None:
    desk = await Desk("A", "B").start()
    await desk.subscribe("A")
    await desk.subscribe("B")
    await desk.create(1)
    await desk.claim(1)
    desk.channel.down["B"] = "switched off"
    for n in range(200):
        await desk.update({tags.READINESS: element("CS", ("UNAVAILABLE", "READY")[n % 2])}, 1)
    assert len(desk.workitem(1).events) <= SPILL_ABOVE
    assert len(desk.entries.documents("events/")) >= 2
    assert len(desk.workitem(1).spilled) == len(desk.entries.documents("events/"))
    await desk.restart()
    desk.channel.down.clear()
    await desk.pass_by(10)
    assert len(desk.heard("B")) == 202
    assert [event.sequence for event in desk.events_for("B")][2:] == desk.sequences("B")[2:]
    assert grows(desk.sequences("B"))
    await desk.update({tags.READINESS: element("CS", "UNAVAILABLE")}, 1)
    await settle()
    assert desk.entries.documents("events/") == {}
    await desk.update({tags.READINESS: element("CS", "READY")}, 1)
    assert desk.workitem(1).spilled == ()


@on_loop
async def test_overflow_entries_of_a_workitem_that_does_not_change_any_more_are_removed_in_time() -> None:
    desk = await Desk("A").start()
    await desk.subscribe("A")
    await desk.create(1)
    desk.channel.down["A"] = "switched off"
    for n in range(80):
        await desk.update({tags.READINESS: element("CS", ("UNAVAILABLE", "READY")[n % 2])}, 1, None)
    assert desk.entries.documents("events/")
    desk.channel.down.clear()
    await desk.pass_by(130)
    assert desk.entries.documents("events/") == {}


@on_loop
async def test_a_crash_between_spill_and_document_tells_each_event_once() -> None:
    desk = await Desk("A").start()
    await desk.subscribe("A")
    await desk.create(1)
    await desk.pass_by(2)
    desk.channel.down["A"] = "switched off"
    for n in range(SPILL_ABOVE - 1):
        await desk.update({tags.READINESS: element("CS", ("UNAVAILABLE", "READY")[n % 2])}, 1, None)
    assert not desk.entries.documents("events/")
    desk.entries.broken_keys.add(f"workitem/{uid(1)}")
    for _ in range(2):
        with pytest.raises(UpsError):
            await desk.cancel(1)
    assert len(desk.entries.documents("events/")) == 1
    await desk.restart()
    await desk.cancel(1)
    desk.channel.down.clear()
    await desk.pass_by(10)
    assert len(desk.events_for("A")) == len(desk.sequences("A")) == SPILL_ABOVE + 2
    assert grows(desk.sequences("A"))
    await desk.pass_by(61)
    assert desk.entries.documents("events/") == {}
    await desk.purge(1)


@on_loop
async def test_the_log_of_events_is_filled_again_when_the_projection_is_new() -> None:
    desk = await populated()
    await desk.restart()
    replayed = [event async for chunk in desk.service.delivery.replay("A", 0) for event in chunk]
    sequences = [event.sequence for event in replayed if event.type is not EventType.SCP_STATUS_CHANGE]
    assert sequences == desk.sequences("A")


@on_loop
async def test_queries_find_everything_after_a_restart() -> None:
    desk = await populated()
    await desk.restart()
    page = await desk.service.worklist.search(Query.of(HIGH))
    assert page.total == 3
