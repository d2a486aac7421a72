# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whatever the store does to a write: refused with nothing changed, or done exactly once with its events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.commands import (
    ChangeState,
    Command,
    Create,
    Purge,
    ReleaseLock,
    RequestCancel,
    Subscribe,
    Suspend,
    Unsubscribe,
    Update,
)
from orthanc_ups.core.dataset import element
from orthanc_ups.core.statuses import UpsError
from orthanc_ups.worklist.worklist import Patience
from tests.support.delivery import settle
from tests.support.service import FILTERED, GLOBAL, SCHEDULER, TRANSACTION, ServiceRig, grows, on_loop
from tests.support.workitems import minimal, progress, uid

HIGH: Final = {tags.PRIORITY: element("CS", "HIGH")}
COMMANDS: Final[dict[str, tuple[Command, list[str]]]] = {
    # a command, and what A hears of it
    "create": (Create(SCHEDULER, uid(9), minimal()), ["9: SCHEDULED"]),
    "update": (Update(SCHEDULER, uid(2), progress(), TRANSACTION), ["2: event 3"]),
    "claim": (ChangeState(SCHEDULER, uid(1), "IN PROGRESS", TRANSACTION), ["1: IN PROGRESS"]),
    "cancel": (RequestCancel(SCHEDULER, uid(1)), ["1: IN PROGRESS", "1: CANCELED"]),
    "subscribe one": (Subscribe(SCHEDULER, uid(3), "A", True), ["3: CANCELED"]),
    "unsubscribe one": (Unsubscribe(SCHEDULER, uid(1), "A"), []),
    "release": (ReleaseLock(SCHEDULER, uid(1), "A"), []),
    "subscribe all": (Subscribe(SCHEDULER, GLOBAL, "B", True), []),
    "subscribe some": (Subscribe(SCHEDULER, FILTERED, "B", False, HIGH), []),
    "suspend": (Suspend(SCHEDULER, GLOBAL, "A"), []),
    "unsubscribe all": (Unsubscribe(SCHEDULER, GLOBAL, "A"), []),
    "purge": (Purge(SCHEDULER, uid(4)), []),
}
each_command = pytest.mark.parametrize("name", COMMANDS)


async def prepared() -> ServiceRig:
    """Workitem 1 SCHEDULED, 2 IN PROGRESS, 3 and 4 CANCELED; A subscribed with lock to all but 4."""
    rig = ServiceRig("A", "B")
    await rig.start()
    await rig.subscribe("A", lock=True)
    for number in range(1, 5):
        await rig.create(number)
    await rig.claim(2)
    await rig.unsubscribe("A", 4)
    await rig.cancel(3)
    await rig.cancel(4)
    await rig.pass_by(2)  # now the cursors are stored
    rig.channel.events.clear()
    return rig


async def check_done_once(rig: ServiceRig, name: str) -> None:
    """The command was carried out once, and a restart finds it so."""
    command, expected = COMMANDS[name]
    assert [event.sequence for event in rig.events_for("A")] == rig.sequences("A")
    assert rig.heard("A") == expected
    before = rig.stored()
    await rig.restart()
    assert rig.stored() == before
    assert rig.heard("A") == expected
    if isinstance(command, (Create, ChangeState)):
        with pytest.raises(UpsError):
            await rig.do(command)


@each_command
def test_an_unavailable_store_refuses_and_nothing_has_happened(name: str) -> None:
    @on_loop
    async def scenario() -> None:
        rig = await prepared()
        command, _ = COMMANDS[name]
        rig.entries.unavailable = True
        error = await rig.refused(command)
        assert error.status.code == 0x0213
        assert rig.heard("A") == []
        rig.entries.unavailable = False
        await rig.do(command)
        await check_done_once(rig, name)

    scenario()


def _lose_request(rig: ServiceRig) -> None:
    rig.entries.lost_requests = 1


def _lose_answer(rig: ServiceRig) -> None:
    rig.entries.lost_answers = 1


def _lose_both(rig: ServiceRig) -> None:
    rig.entries.lost_requests = 2
    rig.entries.lost_answers = 1


def _be_second(rig: ServiceRig) -> None:
    rig.entries.conflicts = 1


@pytest.mark.parametrize("hurt", [_lose_request, _lose_answer, _lose_both, _be_second])
@each_command
def test_lost_messages_and_conflicts_change_nothing_about_the_outcome(
    name: str, hurt: Callable[[ServiceRig], None]
) -> None:
    @on_loop
    async def scenario() -> None:
        rig = await prepared()
        hurt(rig)
        await rig.do(COMMANDS[name][0])
        await check_done_once(rig, name)

    scenario()


@each_command
def test_a_crash_before_the_answer_leaves_it_done_or_not_and_never_half(name: str) -> None:
    @on_loop
    async def scenario() -> None:
        command, expected = COMMANDS[name]
        for written in (True, False):
            rig = await prepared()
            before = rig.stored()
            rig.entries.lost_answers = int(written)
            rig.entries.lost_requests = int(not written)
            waiting = asyncio.ensure_future(rig.service.worklist.execute(command))
            entries = rig.entries
            await rig.until(lambda: not entries.lost_answers and not entries.lost_requests)  # noqa: B023
            assert not waiting.done()
            await rig.restart()
            await settle()
            assert (rig.stored() != before) is written
            assert rig.heard("A") == (expected if written else [])
            assert grows(rig.sequences("A"))

    scenario()


@on_loop
async def test_an_error_of_ours_in_the_store_is_a_refusal_and_not_the_end() -> None:
    rig = await prepared()

    async def broken(key: str, document: bytes, version: str) -> str:
        raise ValueError("no such thing")

    rig.entries.replace = broken  # type: ignore[method-assign]
    error = await rig.refused(COMMANDS["claim"][0])
    assert error.status.code == 0x0213
    del rig.entries.replace
    await rig.do(COMMANDS["claim"][0])
    await check_done_once(rig, "claim")


@on_loop
async def test_an_error_of_ours_behind_a_write_that_was_done_does_not_undo_it() -> None:
    rig = await prepared()
    replace = type(rig.entries).replace

    async def broken(key: str, document: bytes, version: str) -> str:
        await replace(rig.entries, key, document, version)
        raise ValueError("no such thing")

    rig.entries.replace = broken  # type: ignore[method-assign]
    await rig.do(COMMANDS["claim"][0])
    del rig.entries.replace
    await check_done_once(rig, "claim")


# --- a silent store ---


@on_loop
async def test_while_the_store_is_silent_others_are_refused_clearly_and_at_once() -> None:
    rig = await prepared()
    rig.entries.lost_requests = 1_000
    waiting = asyncio.ensure_future(rig.service.worklist.execute(COMMANDS["claim"][0]))
    await settle()
    await rig.pass_by(5)
    error = await rig.refused(COMMANDS["create"][0])
    assert error.status.code == 0x0213
    assert rig.state(1) == "SCHEDULED"
    rig.entries.lost_requests = 0
    await rig.until_done(waiting)
    await settle()
    await check_done_once(rig, "claim")
    await rig.create(9)


@on_loop
async def test_the_number_of_commands_on_their_way_is_bounded() -> None:
    rig = await prepared()
    rig.service.worklist.maximum_running = 3
    rig.entries.before[""] = asyncio.Event()
    waiting = [
        asyncio.ensure_future(rig.service.worklist.execute(Create(SCHEDULER, uid(n), minimal())))
        for n in range(10, 13)
    ]
    await settle()
    assert (await rig.refused(COMMANDS["create"][0])).status.code == 0x0213
    rig.entries.before[""].set()
    await asyncio.gather(*waiting)
    rig.entries.before.clear()
    await rig.create(9)


@on_loop
async def test_a_caller_is_told_if_the_outcome_is_not_known_for_long() -> None:
    rig = await prepared()
    rig.service.worklist.patience = Patience(0.01)
    key = f"workitem/{uid(1)}"
    rig.entries.after[key] = asyncio.Event()
    with pytest.raises(UpsError) as caught:
        await rig.service.worklist.execute(COMMANDS["claim"][0])
    assert caught.value.status.code == 0x0110
    assert "not known" in caught.value.detail
    rig.entries.after[key].set()
    await settle()
    await check_done_once(rig, "claim")


@on_loop
async def test_who_waits_too_long_behind_a_slow_write_is_refused_with_nothing_changed() -> None:
    rig = await prepared()
    rig.service.locks.patience = 0.01
    key = f"workitem/{uid(1)}"
    rig.entries.after[key] = asyncio.Event()
    slow = asyncio.ensure_future(rig.service.worklist.execute(COMMANDS["claim"][0]))
    await settle()
    second = COMMANDS["cancel"][0]
    with pytest.raises(UpsError) as caught:
        await rig.service.worklist.execute(second)
    assert caught.value.status.code == 0x0213
    with pytest.raises(UpsError):
        await rig.service.worklist.execute(COMMANDS["subscribe all"][0])
    rig.entries.after[key].set()
    await slow
    await settle()
    await check_done_once(rig, "claim")


# --- the end ---


@on_loop
async def test_a_write_that_is_not_answered_when_the_service_stops_is_told_after_the_start() -> None:
    rig = await prepared()
    key = f"workitem/{uid(1)}"
    rig.entries.after[key] = asyncio.Event()
    slow = asyncio.ensure_future(rig.service.worklist.execute(COMMANDS["claim"][0]))
    await settle()
    later = asyncio.ensure_future(rig.service.worklist.execute(COMMANDS["update"][0]))
    await settle()
    assert later.done()
    await rig.stop()
    await rig.crash()
    assert slow.cancelled()
    assert rig.heard("A") == []
    await rig.start()
    assert rig.heard("A") == ["1: IN PROGRESS", "2: event 3"]


@pytest.mark.parametrize("name", ["claim", "subscribe all"])
def test_a_cancelled_write_keeps_its_place_so_that_no_cursor_passes_its_events(name: str) -> None:
    @on_loop
    async def scenario() -> None:
        rig = await prepared()
        rig.entries.after[f"workitem/{uid(1)}"] = rig.entries.after["subscriber/B"] = asyncio.Event()
        others = asyncio.all_tasks()
        slow = asyncio.ensure_future(rig.service.worklist.execute(COMMANDS[name][0]))
        await settle()
        (running,) = asyncio.all_tasks() - others - {slow}
        running.cancel()
        await asyncio.wait({slow})
        await rig.update(progress(), 2)
        await rig.pass_by(2)
        assert rig.heard("A") == rig.heard("B") == []
        await rig.restart()
        if name == "claim":
            assert rig.heard("A") == ["1: IN PROGRESS", "2: event 3"]
        else:
            assert rig.heard("A") == ["2: event 3"]
            initial = ["1: SCHEDULED", "2: IN PROGRESS", "3: CANCELED", "4: CANCELED"]
            assert rig.heard("B") == initial

    scenario()


@on_loop
async def test_no_command_is_taken_once_the_service_stops() -> None:
    rig = await prepared()
    await rig.stop()
    with pytest.raises(UpsError) as caught:
        await rig.service.worklist.execute(COMMANDS["create"][0])
    assert caught.value.status.code == 0x0213
