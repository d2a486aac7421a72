# SPDX-License-Identifier: AGPL-3.0-or-later
"""An export with several spellings of an AE title is imported as one subscriber."""

from __future__ import annotations

import pytest

from tests.support.service import GLOBAL, LOCK, Desk, on_loop
from tests.support.transfer import exported, imported
from tests.support.workitems import uid


async def exported_lines() -> list[bytes]:
    desk = Desk("SUB4", "sub4")
    desk.strict = True
    await desk.start()
    await desk.create(1)
    await desk.subscribe("SUB4", GLOBAL)
    await desk.subscribe("sub4", GLOBAL, lock=True)
    await desk.subscribe("SUB4", 1)
    await desk.subscribe("sub4", 1, lock=True)
    desk.channel.down = {"SUB4": "away", "sub4": "away"}
    await desk.claim(1)
    return await exported(desk)


@pytest.mark.parametrize("occupied", [False, True], ids=["restored", "merged"])
@on_loop
async def test_subscriptions_locks_and_waiting_events_are_those_of_one_subscriber(occupied: bool) -> None:
    lines = await exported_lines()
    desk = Desk("Sub4")
    desk.listed = ("Sub4",)
    await desk.start()
    if occupied:
        await desk.create(9)
    await imported(desk, lines)
    assert desk.service.subscriptions.aes() == {"Sub4"}
    assert desk.subscription("Sub4") is LOCK
    await desk.pass_by(60)
    sequences = [event.sequence for event in desk.events_for("Sub4") if event.uid == uid(1)]
    assert sequences == sorted(set(sequences))
    assert "1: IN PROGRESS" in desk.heard("Sub4")
    await desk.create(2)
    assert desk.subscription("Sub4", 2) is LOCK


@on_loop
async def test_importing_such_an_export_twice_changes_nothing() -> None:
    lines = await exported_lines()
    desk = Desk("Sub4")
    desk.listed = ("Sub4",)
    await desk.start()
    await imported(desk, lines)
    before = desk.service.subscriptions.log("Sub4").acts
    await imported(desk, lines)
    assert desk.service.subscriptions.log("Sub4").acts == before
    assert desk.service.subscriptions.aes() == {"Sub4"}
