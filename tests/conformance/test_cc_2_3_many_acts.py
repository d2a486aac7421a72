# SPDX-License-Identifier: AGPL-3.0-or-later
"""PS3.4 CC.2.3: an AE that subscribes and unsubscribes for years is served as on the first day."""

from __future__ import annotations

import pytest

from orthanc_ups.core import statuses, tags
from orthanc_ups.core.commands import Subscribe
from orthanc_ups.core.dataset import DataSet, element
from orthanc_ups.worklist import global_acts
from tests.support.service import FILTERED, NONE, SCHEDULER, Desk, on_loop
from tests.support.workitems import minimal

URGENT = {tags.PRIORITY: element("CS", "HIGH")}


def urgent() -> DataSet:
    return minimal(t00741200=element("CS", "HIGH"))


@on_loop
async def test_cc_2_3_coming_and_going_with_a_filter_is_never_used_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(global_acts, "MAXIMUM_ACTS", 6)
    desk = await Desk("A").start()
    await desk.create(1, urgent())
    for number in range(2, 14):
        await desk.subscribe("A", FILTERED, lock=number % 2 == 0, keys=URGENT)
        await desk.create(number, urgent())
        assert desk.subscription("A", 1) is desk.subscription("A", number) is not NONE
        await desk.suspend("A", FILTERED)
        await desk.subscribe("A", 1)
        await desk.unsubscribe("A", FILTERED)
        await desk.unsubscribe("A", 1)
        assert {desk.subscription("A", workitem) for workitem in range(1, number + 1)} == {NONE}
    await desk.restart()
    assert {desk.subscription("A", workitem) for workitem in range(1, 14)} == {NONE}


@on_loop
async def test_cc_2_3_who_has_too_many_filters_can_always_unsubscribe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(global_acts, "MAXIMUM_ACTS", 6)
    desk = await Desk("A").start()
    for _ in range(6):
        await desk.subscribe("A", FILTERED, keys=URGENT)
    refused = await desk.refused(Subscribe(SCHEDULER, FILTERED, "A", False, URGENT))
    assert refused.status is statuses.RESOURCE_LIMITATION
    assert (await desk.suspend("A", FILTERED)).status is statuses.SUCCESS
    assert (await desk.unsubscribe("A", FILTERED)).status is statuses.SUCCESS
    assert (await desk.subscribe("A", FILTERED, keys=URGENT)).status is statuses.SUCCESS
