# SPDX-License-Identifier: AGPL-3.0-or-later
"""An export with several spellings of an AE title is imported as one subscriber."""

from __future__ import annotations

import pytest

from tests.support.service import GLOBAL, LOCK, ServiceRig, on_loop
from tests.support.transfer import exported, imported
from tests.support.workitems import uid


async def exported_lines() -> list[bytes]:
    rig = ServiceRig("SUB4", "sub4")
    rig.strict = True
    await rig.start()
    await rig.create(1)
    await rig.subscribe("SUB4", GLOBAL)
    await rig.subscribe("sub4", GLOBAL, lock=True)
    await rig.subscribe("SUB4", 1)
    await rig.subscribe("sub4", 1, lock=True)
    rig.channel.down = {"SUB4": "away", "sub4": "away"}
    await rig.claim(1)
    return await exported(rig)


@pytest.mark.parametrize("occupied", [False, True], ids=["restored", "merged"])
@on_loop
async def test_subscriptions_locks_and_waiting_events_are_those_of_one_subscriber(occupied: bool) -> None:
    lines = await exported_lines()
    rig = ServiceRig("Sub4")
    rig.listed = ("Sub4",)
    await rig.start()
    if occupied:
        await rig.create(9)
    await imported(rig, lines)
    assert rig.service.subscriptions.aes() == {"Sub4"}
    assert rig.subscription("Sub4") is LOCK
    await rig.pass_by(60)
    sequences = [event.sequence for event in rig.events_for("Sub4") if event.uid == uid(1)]
    assert sequences == sorted(set(sequences))
    assert "1: IN PROGRESS" in rig.heard("Sub4")
    await rig.create(2)
    assert rig.subscription("Sub4", 2) is LOCK


@on_loop
async def test_importing_such_an_export_twice_changes_nothing() -> None:
    lines = await exported_lines()
    rig = ServiceRig("Sub4")
    rig.listed = ("Sub4",)
    await rig.start()
    await imported(rig, lines)
    before = rig.service.subscriptions.log("Sub4").acts
    await imported(rig, lines)
    assert rig.service.subscriptions.log("Sub4").acts == before
    assert rig.service.subscriptions.aes() == {"Sub4"}
