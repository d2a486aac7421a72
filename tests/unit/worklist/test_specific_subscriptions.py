# SPDX-License-Identifier: AGPL-3.0-or-later
"""How many single workitems an AE subscribed to is known without reading them (PS3.4 Table CC.2.3-2)."""

from __future__ import annotations

import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import DataSet, element
from orthanc_ups.core.workitem import Subscription
from orthanc_ups.management.inspection import ServiceInspection
from orthanc_ups.worklist.workitem_store import WorkitemStore
from tests.support.management_desk import Desk as PageDesk
from tests.support.service import FILTERED, LOCK, NO_LOCK, NONE, Desk, late_watch, on_loop
from tests.support.workitems import minimal, uid

URGENT: DataSet = {tags.PRIORITY: element("CS", "HIGH")}


async def three(*lock: int) -> Desk:
    """Three workitems, the second one urgent, to each of which A subscribed, some with a lock."""
    desk = await Desk("A", "B").start()
    for number in (1, 2, 3):
        urgent = {tags.PRIORITY: element("CS", "HIGH" if number == 2 else "LOW")}
        await desk.create(number, {**minimal(), **urgent})
        await desk.subscribe("A", number, lock=number in lock)
    return desk


def counted(desk: Desk, ae: str = "A") -> tuple[int, int]:
    subscriber = ServiceInspection(desk.service, late_watch(desk.service)).subscriber(ae)
    return subscriber.specific, subscriber.locks


def listed(desk: Desk, offset: int = 0, limit: int = 10) -> list[tuple[str, Subscription]]:
    return list(ServiceInspection(desk.service, late_watch(desk.service)).specific("A", offset, limit))


async def again(desk: Desk) -> tuple[int, int]:
    """The same after a crash: it is worked out anew from what is stored."""
    await desk.crash()
    await desk.restart()
    return counted(desk)


@on_loop
async def test_acts_on_single_workitems_are_counted_and_the_latest_workitems_stand_first() -> None:
    desk = await three(1, 3)
    assert counted(desk) == (3, 2)
    assert counted(desk, "B") == counted(desk, "NOBODY") == (0, 0)
    assert listed(desk) == [(uid(3), LOCK), (uid(2), NO_LOCK), (uid(1), LOCK)]
    assert listed(desk, 1, 1) == [(uid(2), NO_LOCK)]
    await desk.release_lock("A", 3)
    await desk.unsubscribe("A", 2)
    assert counted(desk) == await again(desk) == (2, 1)
    assert listed(desk) == [(uid(3), NO_LOCK), (uid(1), LOCK)]


@on_loop
async def test_unsubscribing_from_everything_ends_them_and_later_ones_count() -> None:
    desk = await three(1)
    await desk.unsubscribe("A")
    assert counted(desk) == (0, 0) and listed(desk) == []
    await desk.subscribe("A", 2, lock=True)
    assert counted(desk) == await again(desk) == (1, 1)


@on_loop
async def test_unsubscribing_from_filters_ends_those_that_a_filter_took() -> None:
    desk = await three(1, 2)
    await desk.subscribe("A", FILTERED, keys=URGENT)
    assert counted(desk) == (3, 2)
    await desk.unsubscribe("A", FILTERED)
    assert desk.subscription("A", 2) is NONE
    assert counted(desk) == await again(desk) == (2, 1)
    assert listed(desk) == [(uid(3), NO_LOCK), (uid(1), LOCK)]


@on_loop
async def test_suspending_and_subscribing_globally_leave_them_as_they_are() -> None:
    desk = await three(1)
    await desk.subscribe("A", lock=True)
    await desk.suspend("A")
    assert counted(desk) == await again(desk) == (3, 1)


@on_loop
async def test_a_purged_workitem_counts_no_more() -> None:
    desk = await three()
    await desk.cancel(1)
    await desk.purge(1)
    assert counted(desk) == await again(desk) == (2, 0)
    assert listed(desk) == [(uid(3), NO_LOCK), (uid(2), NO_LOCK)]


@on_loop
async def test_counting_reads_no_workitem(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = await three(1)

    def read(*_: object) -> None:
        raise AssertionError("a workitem was read")

    with monkeypatch.context() as without:
        without.setattr(WorkitemStore, "get", read)
        assert counted(desk) == (3, 1)
        assert len(listed(desk)) == 3


def test_the_list_of_one_subscriber_comes_in_pages_with_what_the_workitems_are_about() -> None:
    desk = PageDesk()
    for number in (1, 2, 3):
        desk.ask("PUT", f"/workitems/{desk.have(number)}/subscribers/AI", {"lock": number == 3})
    page = desk.ask("GET", "/subscribers/AI/workitems", query="limit=2")
    assert page["total"] == 3
    assert [(row["uid"], row["lock"], row["state"]) for row in page["workitems"]] == [
        (uid(3), True, "SCHEDULED"),
        (uid(2), False, "SCHEDULED"),
    ]
    assert all(row["label"] for row in page["workitems"])
    rest = desk.ask("GET", "/subscribers/AI/workitems", query="limit=2&offset=2")
    assert [row["uid"] for row in rest["workitems"]] == [uid(1)]
    assert [row["uid"] for row in desk.ask("GET", "/subscribers/AI", query="limit=1")["workitems"]] == [
        uid(3)
    ]
    assert desk.ask("GET", "/subscribers/NOBODY/workitems") == {"total": 0, "workitems": []}
    desk.refused(400, "GET", "/subscribers/AI/workitems", query="limit=501")
