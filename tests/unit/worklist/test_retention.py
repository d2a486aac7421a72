# SPDX-License-Identifier: AGPL-3.0-or-later
"""Purging, Deletion Locks that are forgotten, and what has expired (PS3.4 CC.1.1, CC.2.3.3)."""

from __future__ import annotations

from datetime import timedelta, timezone

import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.commands import Create, Purge, RequestCancel, Requester
from orthanc_ups.core.dataset import DataSet, element, items, text
from orthanc_ups.core.statuses import UpsError
from orthanc_ups.settings import Settings
from orthanc_ups.worklist import retention
from tests.support.service import FILTERED, LOCK, NO_LOCK, NONE, SCHEDULER, ServiceRig, on_loop
from tests.support.workitems import minimal, uid

HOUR = 3_600.0
HIGH = {tags.PRIORITY: element("CS", "HIGH")}


def http(error: UpsError) -> int:
    return error.status.http


# --- by command ---


@on_loop
async def test_a_purged_workitem_is_gone_and_its_uid_is_not_used_again() -> None:
    rig = await ServiceRig("A").start()
    await rig.create(1)
    await rig.cancel(1)
    assert (await rig.purge(1)).status.code == 0x0000
    for command in (RequestCancel(SCHEDULER, uid(1)), Purge(SCHEDULER, uid(1))):
        error = await rig.refused(command)
        assert (error.status.code, error.status.http) == (0xC307, 410)
    assert (await rig.refused(Create(SCHEDULER, uid(1), minimal()))).status.code == 0x0111
    assert rig.service.workitems.count() == 0
    await rig.restart()
    assert http(await rig.refused(RequestCancel(SCHEDULER, uid(1)))) == 410


@pytest.mark.parametrize("claimed", [True, False])
def test_what_is_not_final_is_not_purged(claimed: bool) -> None:
    @on_loop
    async def scenario() -> None:
        rig = await ServiceRig("A").start()
        await rig.create(1)
        if claimed:
            await rig.claim(1)
        assert (await rig.refused(Purge(SCHEDULER, uid(1)))).status.code == 0xC300

    scenario()


@pytest.mark.parametrize("how", ["one", "global", "filter"])
def test_cc_2_3_a_deletion_lock_keeps_a_final_workitem_until_it_is_given_up(how: str) -> None:
    @on_loop
    async def scenario() -> None:
        rig = await ServiceRig("A", "B").start()
        kinds: dict[str, int | str] = {"one": 1, "global": tags.GLOBAL_SUBSCRIPTION, "filter": FILTERED}
        to = kinds[how]
        await rig.create(1, minimal(t00741200=element("CS", "HIGH")))
        await rig.subscribe("A", to, lock=True, keys=HIGH)
        await rig.subscribe("B", 1)
        await rig.cancel(1)
        error = await rig.refused(Purge(SCHEDULER, uid(1)))
        assert error.status.code == 0xC300
        assert "A" in error.detail
        assert "B" not in error.detail.replace("Deletion Lock", "").replace("by", "")
        await rig.subscribe("A", 1, lock=False)
        await rig.purge(1)

    scenario()


@on_loop
async def test_an_operator_releases_a_lock_and_the_subscription_stays() -> None:
    rig = await ServiceRig("A").start()
    await rig.create(1)
    await rig.subscribe("A", lock=True)
    assert (await rig.release_lock("A")).status.code == 0x0000
    assert rig.subscription("A") is NO_LOCK
    events = rig.heard("A")
    assert (await rig.release_lock("A")).status.name == "NO_SUCH_SUBSCRIPTION"
    await rig.cancel(1)
    assert rig.heard("A") == [*events, "1: IN PROGRESS", "1: CANCELED"]
    await rig.purge(1)


@on_loop
async def test_waiting_events_keep_a_workitem() -> None:
    rig = await ServiceRig("A").start()
    await rig.subscribe("A")
    await rig.create(1)
    rig.channel.down["A"] = "switched off"
    await rig.cancel(1)
    error = await rig.refused(Purge(SCHEDULER, uid(1)))
    assert "not delivered" in error.detail
    rig.channel.down.clear()
    await rig.pass_by(5)
    await rig.purge(1)
    assert rig.heard("A")[-1] == "1: CANCELED"


@on_loop
async def test_an_initial_report_that_was_not_made_yet_keeps_a_workitem() -> None:
    rig = await ServiceRig("A").start()
    await rig.create(1)
    await rig.create(2)
    await rig.cancel(2)
    rig.channel.down["A"] = "switched off"
    await rig.subscribe("A", 1)
    await rig.subscribe("A", lock=True)
    await rig.release_lock("A", 2)
    error = await rig.refused(Purge(SCHEDULER, uid(2)))
    assert "not delivered" in error.detail
    rig.channel.down.clear()
    await rig.pass_by(5)
    assert rig.heard("A") == ["1: SCHEDULED", "2: CANCELED"]
    await rig.purge(2)


# --- by time ---


@on_loop
async def test_final_workitems_are_purged_after_their_time_and_forgotten_after_theirs() -> None:
    rig = await ServiceRig("A", settings=Settings(retain_final=HOUR, remember_purged=2 * HOUR)).start()
    await rig.create(1)
    await rig.create(2)
    await rig.cancel(1)
    await rig.pass_by(HOUR - 61)
    assert rig.state(1) == "CANCELED"
    await rig.pass_by(200)
    assert http(await rig.refused(RequestCancel(SCHEDULER, uid(1)))) == 410
    assert rig.state(2) == "SCHEDULED"
    await rig.pass_by(2 * HOUR + 120)
    assert http(await rig.refused(RequestCancel(SCHEDULER, uid(1)))) == 404
    assert not [key for key in rig.entries.documents("workitem/") if key.endswith(".1")]
    await rig.create(1)
    assert rig.state(1) == "SCHEDULED"


@on_loop
async def test_a_locked_workitem_outlives_its_time_and_hides_none_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retention, "PAGE", 2)
    monkeypatch.setattr(retention, "PAGES", 1)
    rig = await ServiceRig("A", settings=Settings(retain_final=HOUR)).start()
    for number in range(1, 8):
        await rig.create(number)
        if number <= 5:
            await rig.subscribe("A", number, lock=True)
        await rig.cancel(number)
    await rig.pass_by(HOUR + 600)
    remaining = [n for n in range(1, 8) if uid(n) not in rig.service.workitems.tombstones]
    assert remaining == [1, 2, 3, 4, 5]
    await rig.unsubscribe("A")
    await rig.pass_by(600)
    assert rig.service.workitems.count() == 0


@on_loop
async def test_forgotten_locks_are_released_and_younger_ones_are_not() -> None:
    limits = Settings(retain_final=10 * HOUR, maximum_lock_age=HOUR)
    rig = await ServiceRig("A", "B", settings=limits).start()
    for number in (1, 2, 3):
        await rig.create(number)
    await rig.subscribe("A", lock=True)
    await rig.cancel(1)
    await rig.pass_by(HOUR - 120)
    await rig.cancel(2)
    await rig.subscribe("B", 1, lock=True)
    await rig.pass_by(300)
    states = [rig.subscription("A", number) for number in (1, 2, 3)]
    assert states == [NO_LOCK, LOCK, LOCK]
    assert rig.subscription("B", 1) is LOCK
    await rig.pass_by(HOUR)
    assert rig.subscription("A", 2) is NO_LOCK
    assert rig.subscription("B", 1) is NO_LOCK
    assert rig.subscription("A", 3) is LOCK
    assert rig.subscription("B", 2) is NONE


@on_loop
async def test_locks_are_never_released_by_themselves_unless_that_is_asked_for() -> None:
    rig = await ServiceRig("A", settings=Settings(retain_final=HOUR)).start()
    await rig.create(1)
    await rig.subscribe("A", 1, lock=True)
    await rig.cancel(1)
    await rig.pass_by(5 * HOUR)
    assert rig.subscription("A") is LOCK
    assert rig.state(1) == "CANCELED"


# --- expired ---


def expiring(at: str) -> DataSet:
    return minimal(t00404008=element("DT", at))


@pytest.mark.parametrize("enabled", [True, False])
def test_what_has_expired_is_canceled_if_that_is_asked_for(enabled: bool) -> None:
    @on_loop
    async def scenario() -> None:
        rig = ServiceRig("A", settings=Settings(cancel_expired=enabled))
        await rig.start()
        await rig.subscribe("A")
        await rig.create(1, expiring("20200101"))
        await rig.create(2, expiring("20990101"))
        await rig.create(3)
        await rig.create(4, expiring("20200101120000+0100"))
        await rig.claim(4)
        await rig.pass_by(61)
        await rig.until(lambda: rig.state(1) == ("CANCELED" if enabled else "SCHEDULED"))
        assert [rig.state(n) for n in (2, 3, 4)] == ["SCHEDULED", "SCHEDULED", "IN PROGRESS"]
        assert ("1: CANCELED" in rig.heard("A")) is enabled
        if enabled:
            last = rig.workitem(1).history[-1]
            assert str(Requester("WORKLIST", "retention")) == last.who
            (report,) = items(rig.workitem(1).attributes, tags.PROGRESS_INFORMATION)
            assert "expiration" in text(report, tags.REASON_FOR_CANCELLATION)

    scenario()


@on_loop
async def test_an_expiration_without_offset_is_one_in_the_zone_of_the_worklist() -> None:
    rig = ServiceRig("A", settings=Settings(cancel_expired=True))
    rig.zone = timezone(timedelta(hours=-12))
    await rig.start()
    # noon in the test's clock is 11:06:40 UTC of that day
    await rig.create(1, expiring("20261118000000"))
    await rig.create(2, expiring("20261118000000+0000"))
    await rig.pass_by(61)
    await rig.until(lambda: rig.state(2) == "CANCELED")
    assert rig.state(1) == "SCHEDULED"


# --- the log of events ---


@on_loop
async def test_events_that_cannot_be_asked_for_again_are_forgotten() -> None:
    rig = await ServiceRig("A", settings=Settings(replay_window=HOUR)).start()
    await rig.subscribe("A")
    await rig.create(1)
    await rig.pass_by(HOUR / 2)
    await rig.create(2)
    await rig.pass_by(HOUR / 2 + 70)
    events = await rig.service.workitems.events(0, 100)
    assert [event.uid for event in events] == [uid(2)]
