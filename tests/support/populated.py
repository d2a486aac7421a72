# SPDX-License-Identifier: AGPL-3.0-or-later
"""Worklists with every kind of entry in the store, for tests of damage."""

from __future__ import annotations

from typing import Final

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import element
from orthanc_ups.settings import Settings
from tests.support.service import (
    FILTERED,
    Desk,
)

HIGH: Final = {tags.PRIORITY: element("CS", "HIGH")}


async def prepared(path: str = ":memory:") -> Desk:
    """Workitem 1 is SCHEDULED; A is subscribed globally, B to this workitem with lock."""
    desk = await Desk("A", "B", path=path).start()
    await desk.subscribe("A")
    await desk.create(1)
    await desk.subscribe("B", 1, lock=True)
    await desk.pass_by(2)
    desk.channel.events.clear()
    return desk


async def populated(path: str = ":memory:") -> Desk:
    """A worklist with every kind of entry: workitems, logs, tombstone, overflow, cursors, dead letters."""
    desk = Desk("A", "B", "C", settings=Settings(dead_letter_after=3_600.0), path=path)
    await desk.start()
    await desk.subscribe("A")
    await desk.subscribe("B", FILTERED, lock=True, keys=HIGH)
    for number in range(1, 4):
        await desk.create(number)
    await desk.subscribe("C", 1)
    desk.channel.refuses = {desk.service.order.next}
    await desk.claim(2)
    desk.channel.down["C"] = "switched off"
    await desk.claim(1)
    for n in range(80):
        readiness = ("READY", "UNAVAILABLE")[n % 2]
        await desk.update({tags.READINESS: element("CS", readiness)}, 1)
    await desk.cancel(3)
    await desk.purge(3)
    await desk.pass_by(3)
    result = {key.partition("/")[0] for key in desk.entries.documents()}
    assert result == {"workitem", "subscriber", "events", "delivery", "dead", "worklist"}
    return desk
