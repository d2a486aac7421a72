# SPDX-License-Identifier: AGPL-3.0-or-later
"""Commands run concurrently, one at a time per workitem; a global act runs alone."""

from __future__ import annotations

import asyncio

import pytest

from orthanc_ups.core.statuses import RESOURCE_LIMITATION, UpsError
from orthanc_ups.worklist.locks import CommandLocks


async def _settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def _hold(
    locks: CommandLocks, uid: str | None, log: list[str], name: str, until: asyncio.Event
) -> None:
    async with locks.workitem(uid) if uid else locks.everything():
        log.append(f"+{name}")
        await until.wait()
        log.append(f"-{name}")


def test_one_at_a_time_per_workitem_in_order_of_arrival() -> None:
    async def play() -> list[str]:
        locks, log, go = CommandLocks(), list[str](), asyncio.Event()
        tasks = [asyncio.create_task(_hold(locks, "1", log, name, go)) for name in "abc"]
        tasks.append(asyncio.create_task(_hold(locks, "2", log, "other", go)))
        await _settle()
        assert log == ["+a", "+other"]
        go.set()
        await asyncio.gather(*tasks)
        return [step for step in log if "other" not in step]

    assert asyncio.run(play()) == ["+a", "-a", "+b", "-b", "+c", "-c"]


def test_a_global_act_waits_for_running_commands_and_holds_new_ones_back() -> None:
    async def play() -> list[str]:
        locks, log = CommandLocks(), list[str]()
        first, act, later = asyncio.Event(), asyncio.Event(), asyncio.Event()
        tasks = [asyncio.create_task(_hold(locks, "1", log, "first", first))]
        await _settle()
        tasks.append(asyncio.create_task(_hold(locks, None, log, "act", act)))
        await _settle()
        tasks.append(asyncio.create_task(_hold(locks, "2", log, "later", later)))
        await _settle()
        assert log == ["+first"]
        first.set()
        await _settle()
        assert log[-1] == "+act"
        act.set()
        later.set()
        await asyncio.gather(*tasks)
        return log

    assert asyncio.run(play()) == ["+first", "-first", "+act", "-act", "+later", "-later"]


def test_a_failed_command_leaves_the_gate_open() -> None:
    async def play() -> None:
        locks = CommandLocks()
        try:
            async with locks.workitem("1"):
                raise RuntimeError
        except RuntimeError:
            pass
        async with locks.everything():
            pass
        async with locks.workitem("1"):
            pass

    asyncio.run(asyncio.wait_for(play(), 5))


def test_nobody_waits_for_ever_for_a_workitem() -> None:
    async def play() -> None:
        locks, go = CommandLocks(patience=0.01), asyncio.Event()
        holder = asyncio.create_task(_hold(locks, "1", [], "slow", go))
        await _settle()
        with pytest.raises(UpsError) as caught:
            async with locks.workitem("1"):
                pass
        assert caught.value.status is RESOURCE_LIMITATION
        async with locks.workitem("2"):
            pass
        go.set()
        await holder
        async with locks.workitem("1"):
            pass
        async with locks.everything():
            pass

    asyncio.run(asyncio.wait_for(play(), 5))


def test_a_global_act_that_gives_up_lets_the_others_pass_again() -> None:
    async def play() -> None:
        locks, go = CommandLocks(patience=0.01), asyncio.Event()
        holder = asyncio.create_task(_hold(locks, "1", [], "slow", go))
        await _settle()
        with pytest.raises(UpsError) as caught:
            async with locks.everything():
                pass
        assert caught.value.status is RESOURCE_LIMITATION
        async with locks.workitem("2"):
            pass
        go.set()
        await holder
        async with locks.everything():
            pass

    asyncio.run(asyncio.wait_for(play(), 5))


def test_who_must_pass_alone_waits_as_long_as_it_takes() -> None:
    async def play() -> list[str]:
        locks, go, log = CommandLocks(patience=0.01), asyncio.Event(), list[str]()
        holder = asyncio.create_task(_hold(locks, "1", log, "slow", go))
        await _settle()

        async def alone() -> None:
            async with locks.everything(patiently=True):
                log.append("alone")

        patient = asyncio.create_task(alone())
        await _settle()
        with pytest.raises(UpsError):
            async with locks.workitem("2"):
                pass
        go.set()
        await asyncio.gather(holder, patient)
        return log

    assert asyncio.run(asyncio.wait_for(play(), 5)) == ["+slow", "-slow", "alone"]


def test_those_who_are_cancelled_while_they_wait_leave_nothing_behind() -> None:
    async def play() -> None:
        locks, go = CommandLocks(), asyncio.Event()
        holder = asyncio.create_task(_hold(locks, "1", [], "holder", go))
        await _settle()
        names: list[str | None] = ["1", "1", None, None, "2"]
        waiting = [asyncio.create_task(_hold(locks, name, [], "waits", go)) for name in names]
        await _settle()
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        go.set()
        await holder
        async with locks.everything():
            pass
        async with locks.workitem("1"):
            pass

    asyncio.run(asyncio.wait_for(play(), 5))
