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
from tests.support.service import FILTERED, LOCK, NO_LOCK, NONE, ServiceRig, grows, on_loop, overwrite
from tests.support.workitems import minimal, progress, uid

HIGH = {tags.PRIORITY: element("CS", "HIGH")}


def urgent(number: int) -> DataSet:
    return minimal(t00741200=element("CS", "HIGH")) if number % 2 else minimal()


async def populated(path: str = ":memory:") -> ServiceRig:
    """Four workitems, every kind of subscription, and events that wait for B."""
    rig = await ServiceRig("A", "B", "C", "D", path=path).start()
    for number in range(1, 4):
        await rig.create(number, urgent(number))
    await rig.subscribe("A", lock=True)
    await rig.subscribe("B", FILTERED, lock=True, keys=HIGH)
    await rig.subscribe("C", 2)
    await rig.subscribe("D")
    await rig.suspend("D")
    await rig.pass_by(2)
    rig.channel.down["B"] = "switched off"
    await rig.create(4, urgent(4))
    await rig.create(5, urgent(5))
    await rig.claim(1)
    return rig


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("index_there", [True, False])
def test_a_restart_keeps_everything(tmp_path: Path, in_order: bool, index_there: bool) -> None:
    @on_loop
    async def scenario() -> None:
        rig = await populated(str(tmp_path / "p.sqlite"))
        numbers = range(1, 6)
        states = [[rig.subscription(ae, n) for n in numbers] for ae in "ABCD"]
        workitems = [rig.workitem(n) for n in numbers]
        before = rig.stored()
        if in_order:
            await rig.stop()
        await rig.crash()
        if not index_there:
            overwrite(rig.path, None)
        await rig.start()
        assert [[rig.subscription(ae, n) for n in numbers] for ae in "ABCD"] == states
        assert [rig.workitem(n) for n in numbers] == workitems
        assert rig.stored() == before
        rig.channel.down.clear()
        await rig.pass_by(10)
        assert rig.heard("B") == ["1: SCHEDULED", "3: SCHEDULED", "5: SCHEDULED", "1: IN PROGRESS"]
        for ae in "ABCD":
            assert grows(rig.sequences(ae))
        if in_order:
            assert [event.sequence for event in rig.events_for("A")] == rig.sequences("A")

    scenario()


@on_loop
async def test_what_a_restart_keeps_goes_on_to_count() -> None:
    rig = await populated()
    await rig.restart()
    await rig.create(6, urgent(6))
    await rig.create(7, urgent(7))
    assert [rig.subscription("A", n) for n in (6, 7)] == [LOCK, LOCK]
    assert [rig.subscription("B", n) for n in (6, 7)] == [NONE, LOCK]
    assert [rig.subscription("D", n) for n in (5, 6)] == [NONE, NONE]
    await rig.unsubscribe("A")
    assert rig.subscription("A", 6) is NONE
    await rig.cancel(2)
    assert rig.heard("C")[-1] == "2: CANCELED"
    assert rig.subscription("C", 2) is NO_LOCK


@on_loop
async def test_waiting_events_survive_several_crashes_and_come_once_each() -> None:
    rig = await populated()
    for n in range(3):
        await rig.restart()
        await rig.update(progress(f"1{n}"), 1)
        await rig.update({tags.READINESS: element("CS", "UNAVAILABLE")}, 1)
        await rig.update({tags.READINESS: element("CS", "READY")}, 1)
    rig.channel.down.clear()
    await rig.pass_by(10)
    assert [sentence for sentence in rig.heard("B") if sentence.startswith("1: ")] == [
        "1: SCHEDULED",
        "1: IN PROGRESS",
        *["1: IN PROGRESS"] * 2,
        *["1: IN PROGRESS"] * 2,
        "1: event 3",
        *["1: IN PROGRESS"] * 2,
    ]
    assert [event.sequence for event in rig.events_for("B")] == rig.sequences("B")


# --- numbers ---


@on_loop
async def test_numbers_never_come_again_whatever_was_lost_before_the_crash() -> None:
    rig = await ServiceRig("A").start()
    await rig.subscribe("A")
    used: set[int] = set()
    created: list[int] = []
    for number in range(1, 6):
        rig.entries.lost_requests = number % 2
        await rig.create(number)
        await rig.cancel(number)
        await rig.unsubscribe("A", number)
        await rig.subscribe("A", number)
        created.append(rig.workitem(number).created)
        now = {event.sequence for event in rig.workitem(number).events}
        assert not used & now
        used |= now
        await rig.restart()
    assert grows(created)
    assert grows(rig.sequences("A"))


@on_loop
async def test_numbers_are_reserved_before_they_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worklist_entry, "SEQUENCES", 8)
    monkeypatch.setattr(worklist_entry, "CREATIONS", 4)
    rig = await ServiceRig("A").start()

    async def check() -> None:
        reserved = orjson.loads(rig.entries.documents()["worklist"])
        assert rig.service.order.next <= reserved["sequences"]
        assert rig.service.commits.next_creation <= reserved["creations"]

    await rig.subscribe("A", lock=True)
    for number in range(1, 31):
        await rig.create(number)
        await check()
        await rig.cancel(number)
        await check()
        await rig.subscribe("A", lock=True)
        await check()
    await rig.unsubscribe("A")
    await rig.subscribe("A", lock=True)
    await check()
    assert grows(rig.sequences("A"))


@on_loop
async def test_without_a_reservation_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worklist_entry, "SEQUENCES", 8)
    monkeypatch.setattr(worklist_entry, "CREATIONS", 100)
    rig = await ServiceRig("A").start()
    await rig.subscribe("A")
    await rig.create(1)
    rig.entries.broken_keys.add("worklist")
    refusals = 0
    for number in range(2, 12):
        before = rig.stored()
        try:
            await rig.create(number)
        except UpsError as error:
            refusals += 1
            assert error.status.code == 0x0213
            assert rig.stored() == before
    assert 0 < refusals < 10
    rig.entries.broken_keys.clear()
    await rig.create(20)
    assert rig.heard("A")[-1] == "20: SCHEDULED"
    assert grows(rig.sequences("A"))


# --- starts that fail ---


@on_loop
async def test_a_start_that_fails_can_be_tried_again() -> None:
    rig = await populated()
    await rig.crash()
    service = rig.make()
    rig.entries.unavailable = True
    with pytest.raises(StoreUnavailable):
        await service.start()
    rig.entries.unavailable = False
    rig.entries.broken_keys.add("worklist")
    with pytest.raises(StoreUnavailable):
        await service.start()
    rig.entries.broken_keys.clear()
    await service.start()
    rig.channel.down.clear()
    await rig.pass_by(10)
    assert rig.heard("B") == ["1: SCHEDULED", "3: SCHEDULED", "5: SCHEDULED", "1: IN PROGRESS"]
    assert rig.heard("C") == ["2: SCHEDULED"]


@on_loop
async def test_the_first_start_finds_shelves_without_mark_and_nothing_to_write_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = ServiceRig("A")
    rig.entries.lose()
    with caplog.at_level(logging.WARNING):
        await rig.start()
    assert not caplog.records
    await rig.create(1)
    assert rig.workitem(1).created == 1


# --- too many waiting events for one document ---


@on_loop
async def test_events_beyond_a_document_spill_and_each_is_told_once() -> None:
    rig = await ServiceRig("A", "B").start()
    await rig.subscribe("A")
    await rig.subscribe("B")
    await rig.create(1)
    await rig.claim(1)
    rig.channel.down["B"] = "switched off"
    for n in range(200):
        await rig.update({tags.READINESS: element("CS", ("UNAVAILABLE", "READY")[n % 2])}, 1)
    assert len(rig.workitem(1).events) <= SPILL_ABOVE
    assert len(rig.entries.documents("events/")) >= 2
    assert len(rig.workitem(1).spilled) == len(rig.entries.documents("events/"))
    await rig.restart()
    rig.channel.down.clear()
    await rig.pass_by(10)
    assert len(rig.heard("B")) == 202
    assert [event.sequence for event in rig.events_for("B")][2:] == rig.sequences("B")[2:]
    assert grows(rig.sequences("B"))
    await rig.update({tags.READINESS: element("CS", "UNAVAILABLE")}, 1)
    await settle()
    assert rig.entries.documents("events/") == {}
    await rig.update({tags.READINESS: element("CS", "READY")}, 1)
    assert rig.workitem(1).spilled == ()


@on_loop
async def test_overflow_entries_of_a_workitem_that_does_not_change_any_more_are_removed_in_time() -> None:
    rig = await ServiceRig("A").start()
    await rig.subscribe("A")
    await rig.create(1)
    rig.channel.down["A"] = "switched off"
    for n in range(80):
        await rig.update({tags.READINESS: element("CS", ("UNAVAILABLE", "READY")[n % 2])}, 1, None)
    assert rig.entries.documents("events/")
    rig.channel.down.clear()
    await rig.pass_by(130)
    assert rig.entries.documents("events/") == {}


@on_loop
async def test_a_crash_between_spill_and_document_tells_each_event_once() -> None:
    rig = await ServiceRig("A").start()
    await rig.subscribe("A")
    await rig.create(1)
    await rig.pass_by(2)
    rig.channel.down["A"] = "switched off"
    for n in range(SPILL_ABOVE - 1):
        await rig.update({tags.READINESS: element("CS", ("UNAVAILABLE", "READY")[n % 2])}, 1, None)
    assert not rig.entries.documents("events/")
    rig.entries.broken_keys.add(f"workitem/{uid(1)}")
    for _ in range(2):
        with pytest.raises(UpsError):
            await rig.cancel(1)
    assert len(rig.entries.documents("events/")) == 1
    await rig.restart()
    await rig.cancel(1)
    rig.channel.down.clear()
    await rig.pass_by(10)
    assert len(rig.events_for("A")) == len(rig.sequences("A")) == SPILL_ABOVE + 2
    assert grows(rig.sequences("A"))
    await rig.pass_by(61)
    assert rig.entries.documents("events/") == {}
    await rig.purge(1)


@on_loop
async def test_the_log_of_events_is_filled_again_when_the_projection_is_new() -> None:
    rig = await populated()
    await rig.restart()
    replayed = [event async for chunk in rig.service.delivery.replay("A", 0) for event in chunk]
    sequences = [event.sequence for event in replayed if event.type is not EventType.SCP_STATUS_CHANGE]
    assert sequences == rig.sequences("A")


@on_loop
async def test_queries_find_everything_after_a_restart() -> None:
    rig = await populated()
    await rig.restart()
    page = await rig.service.worklist.search(Query.of(HIGH))
    assert page.total == 3
