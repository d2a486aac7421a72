# SPDX-License-Identifier: AGPL-3.0-or-later
"""PS3.4 CC.2.3: an AE that subscribes and unsubscribes for years is served as on the first day."""

from __future__ import annotations

import pytest

from orthanc_ups.core import statuses, tags
from orthanc_ups.core.commands import Subscribe
from orthanc_ups.core.dataset import DataSet, element
from orthanc_ups.worklist import global_acts
from tests.support.service import FILTERED, NONE, SCHEDULER, ServiceRig, on_loop
from tests.support.workitems import minimal

URGENT = {tags.PRIORITY: element("CS", "HIGH")}


def urgent() -> DataSet:
    return minimal(t00741200=element("CS", "HIGH"))


@on_loop
async def test_cc_2_3_coming_and_going_with_a_filter_is_never_used_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(global_acts, "MAXIMUM_ACTS", 6)
    rig = await ServiceRig("A").start()
    await rig.create(1, urgent())
    for number in range(2, 14):
        await rig.subscribe("A", FILTERED, lock=number % 2 == 0, keys=URGENT)
        await rig.create(number, urgent())
        assert rig.subscription("A", 1) is rig.subscription("A", number) is not NONE
        await rig.suspend("A", FILTERED)
        await rig.subscribe("A", 1)
        await rig.unsubscribe("A", FILTERED)
        await rig.unsubscribe("A", 1)
        assert {rig.subscription("A", workitem) for workitem in range(1, number + 1)} == {NONE}
    await rig.restart()
    assert {rig.subscription("A", workitem) for workitem in range(1, 14)} == {NONE}


@on_loop
async def test_cc_2_3_who_has_too_many_filters_can_always_unsubscribe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(global_acts, "MAXIMUM_ACTS", 6)
    rig = await ServiceRig("A").start()
    for _ in range(6):
        await rig.subscribe("A", FILTERED, keys=URGENT)
    refused = await rig.refused(Subscribe(SCHEDULER, FILTERED, "A", False, URGENT))
    assert refused.status is statuses.RESOURCE_LIMITATION
    assert (await rig.suspend("A", FILTERED)).status is statuses.SUCCESS
    assert (await rig.unsubscribe("A", FILTERED)).status is statuses.SUCCESS
    assert (await rig.subscribe("A", FILTERED, keys=URGENT)).status is statuses.SUCCESS
