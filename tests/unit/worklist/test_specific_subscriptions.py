# SPDX-License-Identifier: AGPL-3.0-or-later
"""How many single workitems an AE subscribed to is known without reading them (PS3.4 Table CC.2.3-2)."""

from __future__ import annotations

import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import DataSet, element
from orthanc_ups.core.workitem import Subscription
from orthanc_ups.management.inspection import ServiceInspection
from orthanc_ups.worklist.workitem_store import WorkitemStore
from tests.support.management_rig import ManagementRig as PageRig
from tests.support.service import FILTERED, LOCK, NO_LOCK, NONE, ServiceRig, late_watch, on_loop
from tests.support.workitems import minimal, uid

URGENT: DataSet = {tags.PRIORITY: element("CS", "HIGH")}


async def three(*lock: int) -> ServiceRig:
    """Three workitems, the second one urgent, to each of which A subscribed, some with a lock."""
    rig = await ServiceRig("A", "B").start()
    for number in (1, 2, 3):
        urgent = {tags.PRIORITY: element("CS", "HIGH" if number == 2 else "LOW")}
        await rig.create(number, {**minimal(), **urgent})
        await rig.subscribe("A", number, lock=number in lock)
    return rig


def counted(rig: ServiceRig, ae: str = "A") -> tuple[int, int]:
    subscriber = ServiceInspection(rig.service, late_watch(rig.service)).subscriber(ae)
    return subscriber.specific, subscriber.locks


def listed(rig: ServiceRig, offset: int = 0, limit: int = 10) -> list[tuple[str, Subscription]]:
    return list(ServiceInspection(rig.service, late_watch(rig.service)).specific("A", offset, limit))


async def again(rig: ServiceRig) -> tuple[int, int]:
    """The same after a crash: it is worked out anew from what is stored."""
    await rig.crash()
    await rig.restart()
    return counted(rig)


@on_loop
async def test_acts_on_single_workitems_are_counted_and_the_latest_workitems_stand_first() -> None:
    rig = await three(1, 3)
    assert counted(rig) == (3, 2)
    assert counted(rig, "B") == counted(rig, "NOBODY") == (0, 0)
    assert listed(rig) == [(uid(3), LOCK), (uid(2), NO_LOCK), (uid(1), LOCK)]
    assert listed(rig, 1, 1) == [(uid(2), NO_LOCK)]
    await rig.release_lock("A", 3)
    await rig.unsubscribe("A", 2)
    assert counted(rig) == await again(rig) == (2, 1)
    assert listed(rig) == [(uid(3), NO_LOCK), (uid(1), LOCK)]


@on_loop
async def test_unsubscribing_from_everything_ends_them_and_later_ones_count() -> None:
    rig = await three(1)
    await rig.unsubscribe("A")
    assert counted(rig) == (0, 0) and listed(rig) == []
    await rig.subscribe("A", 2, lock=True)
    assert counted(rig) == await again(rig) == (1, 1)


@on_loop
async def test_unsubscribing_from_filters_ends_those_that_a_filter_took() -> None:
    rig = await three(1, 2)
    await rig.subscribe("A", FILTERED, keys=URGENT)
    assert counted(rig) == (3, 2)
    await rig.unsubscribe("A", FILTERED)
    assert rig.subscription("A", 2) is NONE
    assert counted(rig) == await again(rig) == (2, 1)
    assert listed(rig) == [(uid(3), NO_LOCK), (uid(1), LOCK)]


@on_loop
async def test_suspending_and_subscribing_globally_leave_them_as_they_are() -> None:
    rig = await three(1)
    await rig.subscribe("A", lock=True)
    await rig.suspend("A")
    assert counted(rig) == await again(rig) == (3, 1)


@on_loop
async def test_a_purged_workitem_counts_no_more() -> None:
    rig = await three()
    await rig.cancel(1)
    await rig.purge(1)
    assert counted(rig) == await again(rig) == (2, 0)
    assert listed(rig) == [(uid(3), NO_LOCK), (uid(2), NO_LOCK)]


@on_loop
async def test_counting_reads_no_workitem(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = await three(1)

    def read(*_: object) -> None:
        raise AssertionError("a workitem was read")

    with monkeypatch.context() as without:
        without.setattr(WorkitemStore, "get", read)
        assert counted(rig) == (3, 1)
        assert len(listed(rig)) == 3


def test_the_list_of_one_subscriber_comes_in_pages_with_what_the_workitems_are_about() -> None:
    rig = PageRig()
    for number in (1, 2, 3):
        rig.ask("PUT", f"/workitems/{rig.have(number)}/subscribers/AI", {"lock": number == 3})
    page = rig.ask("GET", "/subscribers/AI/workitems", query="limit=2")
    assert page["total"] == 3
    assert [(row["uid"], row["lock"], row["state"]) for row in page["workitems"]] == [
        (uid(3), True, "SCHEDULED"),
        (uid(2), False, "SCHEDULED"),
    ]
    assert all(row["label"] for row in page["workitems"])
    rest = rig.ask("GET", "/subscribers/AI/workitems", query="limit=2&offset=2")
    assert [row["uid"] for row in rest["workitems"]] == [uid(1)]
    assert [row["uid"] for row in rig.ask("GET", "/subscribers/AI", query="limit=1")["workitems"]] == [uid(3)]
    assert rig.ask("GET", "/subscribers/NOBODY/workitems") == {"total": 0, "workitems": []}
    rig.refused(400, "GET", "/subscribers/AI/workitems", query="limit=501")
