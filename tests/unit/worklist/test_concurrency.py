# SPDX-License-Identifier: AGPL-3.0-or-later
"""Commands at the same time, on a store whose writes let others run in between."""

from __future__ import annotations

import asyncio

from orthanc_ups.core.commands import ChangeState, Command, Create, Subscribe, Unsubscribe
from orthanc_ups.core.outcome import Outcome
from orthanc_ups.core.statuses import UpsError
from tests.support.delivery import settle
from tests.support.service import GLOBAL, LOCK, NONE, SCHEDULER, ServiceRig, grows, on_loop
from tests.support.workitems import minimal, uid

WORKITEM = f"workitem/{uid(1)}"


def begin(rig: ServiceRig, command: Command) -> asyncio.Task[Outcome]:
    return asyncio.ensure_future(rig.service.worklist.execute(command))


@on_loop
async def test_of_many_simultaneous_claims_exactly_one_wins() -> None:
    rig = await ServiceRig("A").start()
    await rig.subscribe("A")
    await rig.create(1)
    claims = [begin(rig, ChangeState(SCHEDULER, uid(1), "IN PROGRESS", f"1.2.{n}")) for n in range(50)]
    results = await asyncio.gather(*claims, return_exceptions=True)
    await settle()
    won = [result for result in results if isinstance(result, Outcome)]
    lost = [result for result in results if isinstance(result, UpsError)]
    assert len(won) == 1
    assert {result.status.code for result in lost} == {0xC301}
    assert len(lost) == 49
    assert rig.heard("A") == ["1: SCHEDULED", "1: IN PROGRESS"]


@on_loop
async def test_of_many_simultaneous_creations_of_one_uid_exactly_one_wins() -> None:
    rig = await ServiceRig("A").start()
    await rig.subscribe("A")
    creations = [begin(rig, Create(SCHEDULER, uid(1), minimal())) for _ in range(20)]
    results = await asyncio.gather(*creations, return_exceptions=True)
    await settle()
    assert len([result for result in results if isinstance(result, Outcome)]) == 1
    assert {result.status.code for result in results if isinstance(result, UpsError)} == {0x0111}
    assert rig.heard("A") == ["1: SCHEDULED"]


@on_loop
async def test_events_wait_for_an_earlier_write_that_is_still_on_its_way() -> None:
    rig = await ServiceRig("A").start()
    await rig.subscribe("A")
    await rig.create(1)
    await rig.create(2)
    rig.entries.after[WORKITEM] = asyncio.Event()
    slow = begin(rig, ChangeState(SCHEDULER, uid(1), "IN PROGRESS", "1.2.1"))
    await settle()
    await rig.claim(2)
    assert rig.heard("A")[2:] == []
    rig.entries.after[WORKITEM].set()
    await slow
    await settle()
    assert rig.heard("A")[2:] == ["1: IN PROGRESS", "2: IN PROGRESS"]
    assert grows(rig.sequences("A"))


@on_loop
async def test_a_global_act_is_clearly_before_or_behind_each_command() -> None:
    rig = await ServiceRig("A").start()
    await rig.create(1)
    await rig.create(2)
    rig.entries.before[WORKITEM] = asyncio.Event()
    claim = begin(rig, ChangeState(SCHEDULER, uid(1), "IN PROGRESS", "1.2.1"))
    await settle()
    act = begin(rig, Subscribe(SCHEDULER, GLOBAL, "A", True))
    await settle()
    second_claim = begin(rig, ChangeState(SCHEDULER, uid(2), "IN PROGRESS", "1.2.2"))
    await settle()
    assert not act.done()
    assert not second_claim.done()
    rig.entries.before[WORKITEM].set()
    await asyncio.gather(claim, act, second_claim)
    await settle()
    initial = ["1: IN PROGRESS", rig.heard("A")[1]]  # made with the state of when it is sent
    assert initial[1] in ("2: SCHEDULED", "2: IN PROGRESS")
    assert rig.heard("A") == [*initial, "2: IN PROGRESS"]
    assert grows(rig.sequences("A"))


@on_loop
async def test_a_specific_act_and_a_change_at_the_same_time_leave_no_gap() -> None:
    rig = await ServiceRig("A").start()
    await rig.create(1)
    rig.entries.before[WORKITEM] = asyncio.Event()
    acts: list[asyncio.Task[Outcome]] = []
    for command in (
        Subscribe(SCHEDULER, uid(1), "A"),
        ChangeState(SCHEDULER, uid(1), "IN PROGRESS", "1.2.1"),
        Unsubscribe(SCHEDULER, uid(1), "A"),
        ChangeState(SCHEDULER, uid(1), "CANCELED", "1.2.1"),
    ):
        acts.append(begin(rig, command))
        await settle()
    rig.entries.before[WORKITEM].set()
    await asyncio.gather(*acts)
    await settle()
    assert rig.heard("A") == ["1: SCHEDULED", "1: IN PROGRESS"]
    assert rig.subscription("A") is NONE


@on_loop
async def test_many_commands_of_all_kinds_at_once_are_told_in_growing_order_to_everybody() -> None:
    rig = await ServiceRig("A", "B").start()
    await rig.subscribe("A")
    commands: list[Command] = [Create(SCHEDULER, uid(n), minimal()) for n in range(1, 21)]
    commands.insert(10, Subscribe(SCHEDULER, GLOBAL, "B", True))
    commands += [ChangeState(SCHEDULER, uid(n), "IN PROGRESS", f"1.2.{n}") for n in range(1, 21)]
    commands.append(Subscribe(SCHEDULER, GLOBAL, "A", True))
    await asyncio.gather(*(begin(rig, command) for command in commands))
    await settle()
    for ae in ("A", "B"):
        assert grows([event.sequence for event in rig.events_for(ae)])
        for number in range(1, 21):
            mine = [sentence for sentence in rig.heard(ae) if sentence.startswith(f"{number}: ")]
            assert mine[-1] == f"{number}: IN PROGRESS"
            assert len(mine) in (1, 2)
    assert all(rig.subscription("B", number) is LOCK for number in range(1, 21))


@on_loop
async def test_a_caller_who_goes_away_stops_nothing() -> None:
    rig = await ServiceRig("A").start()
    await rig.subscribe("A")
    rig.entries.before[WORKITEM] = asyncio.Event()
    caller = begin(rig, Create(SCHEDULER, uid(1), minimal()))
    await settle()
    caller.cancel()
    await settle()
    assert caller.cancelled()
    rig.entries.before[WORKITEM].set()
    await settle()
    assert rig.heard("A") == ["1: SCHEDULED"]
    await rig.claim(1)
    assert rig.heard("A") == ["1: SCHEDULED", "1: IN PROGRESS"]
