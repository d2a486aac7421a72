# SPDX-License-Identifier: AGPL-3.0-or-later
"""Worklists with every kind of entry in the store, for tests of damage."""

from __future__ import annotations

from typing import Final

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import element
from orthanc_ups.settings import Settings
from tests.support.service import (
    FILTERED,
    ServiceRig,
)

HIGH: Final = {tags.PRIORITY: element("CS", "HIGH")}


async def prepared(path: str = ":memory:") -> ServiceRig:
    """Workitem 1 is SCHEDULED; A is subscribed globally, B to this workitem with lock."""
    rig = await ServiceRig("A", "B", path=path).start()
    await rig.subscribe("A")
    await rig.create(1)
    await rig.subscribe("B", 1, lock=True)
    await rig.pass_by(2)
    rig.channel.events.clear()
    return rig


async def populated(path: str = ":memory:") -> ServiceRig:
    """A worklist with every kind of entry: workitems, logs, tombstone, overflow, cursors, dead letters."""
    rig = ServiceRig("A", "B", "C", settings=Settings(dead_letter_after=3_600.0), path=path)
    await rig.start()
    await rig.subscribe("A")
    await rig.subscribe("B", FILTERED, lock=True, keys=HIGH)
    for number in range(1, 4):
        await rig.create(number)
    await rig.subscribe("C", 1)
    rig.channel.refuses = {rig.service.order.next}
    await rig.claim(2)
    rig.channel.down["C"] = "switched off"
    await rig.claim(1)
    for n in range(80):
        readiness = ("READY", "UNAVAILABLE")[n % 2]
        await rig.update({tags.READINESS: element("CS", readiness)}, 1)
    await rig.cancel(3)
    await rig.purge(3)
    await rig.pass_by(3)
    result = {key.partition("/")[0] for key in rig.entries.documents()}
    assert result == {"workitem", "subscriber", "events", "delivery", "dead", "worklist"}
    return rig
