# SPDX-License-Identifier: AGPL-3.0-or-later
"""PS3.4 CC.2.3: Subscribe, Unsubscribe and Suspend as a client sees them, with their reports and statuses."""

from __future__ import annotations

import pytest

from orthanc_ups.core import statuses, tags
from orthanc_ups.core.commands import Subscribe, Suspend, Unsubscribe
from orthanc_ups.core.dataset import DataSet, element
from orthanc_ups.settings import Settings
from tests.support.service import (
    FILTERED,
    GLOBAL,
    LOCK,
    NO_LOCK,
    NONE,
    SCHEDULER,
    ServiceRig,
    grows,
    on_loop,
)
from tests.support.workitems import minimal, uid

URGENT = {tags.PRIORITY: element("CS", "HIGH")}


def urgent() -> DataSet:
    return minimal(t00741200=element("CS", "HIGH"))


# --- Table CC.2.3-2, actions on one UPS ---


@on_loop
async def test_cc_2_3_1_subscribing_to_one_ups_reports_to_the_receiving_ae_and_to_nobody_else() -> None:
    rig = await ServiceRig("A", "B").start()
    await rig.subscribe("B")
    await rig.create(1)
    await rig.subscribe("A", 1)
    assert rig.heard("A") == ["1: SCHEDULED"]
    assert rig.heard("B") == ["1: SCHEDULED"]


@on_loop
async def test_cc_2_3_1_every_specific_subscribe_reports_whatever_the_subscription_was() -> None:
    rig = await ServiceRig("A").start()
    await rig.create(1)
    for lock in (False, False, True, True, False):
        await rig.subscribe("A", 1, lock=lock)
    assert rig.heard("A") == ["1: SCHEDULED"] * 5
    assert grows(rig.sequences("A"))


@on_loop
async def test_cc_2_3_1_a_final_ups_may_be_subscribed_to() -> None:
    rig = await ServiceRig("A").start()
    await rig.create(1)
    await rig.cancel(1)
    assert (await rig.subscribe("A", 1, lock=True)).status is statuses.SUCCESS
    assert rig.heard("A") == ["1: CANCELED"]
    assert rig.subscription("A") is LOCK


@pytest.mark.parametrize("first", [LOCK, NO_LOCK])
@pytest.mark.parametrize("second", [LOCK, NO_LOCK])
def test_cc_2_3_1_a_specific_subscribe_decides_about_the_lock(first: object, second: object) -> None:
    @on_loop
    async def scenario() -> None:
        rig = await ServiceRig("A").start()
        await rig.create(1)
        await rig.subscribe("A", 1, lock=first is LOCK)
        await rig.subscribe("A", 1, lock=second is LOCK)
        assert rig.subscription("A") is second

    scenario()


@on_loop
async def test_cc_2_3_2_unsubscribing_from_one_ups_leaves_the_global_subscription() -> None:
    rig = await ServiceRig("A").start()
    await rig.create(1)
    await rig.subscribe("A", lock=True)
    assert (await rig.unsubscribe("A", 1)).status is statuses.SUCCESS
    await rig.create(2)
    await rig.cancel(1)
    assert (rig.subscription("A", 1), rig.subscription("A", 2)) == (NONE, LOCK)
    assert rig.heard("A") == ["1: SCHEDULED", "2: SCHEDULED"]


@on_loop
async def test_cc_2_3_2_unsubscribing_what_is_not_subscribed_succeeds_and_changes_nothing() -> None:
    rig = await ServiceRig("A", "B").start()
    await rig.create(1)
    await rig.subscribe("B")
    before = rig.stored()
    for outcome in (
        await rig.unsubscribe("A", 1),
        await rig.unsubscribe("A"),
        await rig.unsubscribe("B", FILTERED),
        await rig.suspend("A"),
        await rig.suspend("B", FILTERED),
    ):
        assert outcome.status is statuses.NO_SUCH_SUBSCRIPTION
        assert outcome.status.code == 0x0000
    assert rig.stored() == before
    assert rig.heard("A") == []


# --- Table CC.2.3-2, global actions ---


@on_loop
async def test_cc_2_3_1_a_global_subscribe_with_lock_reports_each_ups_that_was_not_subscribed() -> None:
    rig = await ServiceRig("A").start()
    for number in range(1, 6):
        await rig.create(number)
    await rig.claim(2)
    await rig.subscribe("A", 3)
    await rig.subscribe("A", lock=True)
    expected = ["1: SCHEDULED", "2: IN PROGRESS", "4: SCHEDULED", "5: SCHEDULED"]
    assert rig.heard("A") == ["3: SCHEDULED", *expected]
    states = [rig.subscription("A", number) for number in range(1, 6)]
    assert states == [LOCK, LOCK, NO_LOCK, LOCK, LOCK]


@on_loop
async def test_cc_2_3_1_a_global_subscribe_without_lock_reports_nothing_at_once() -> None:
    rig = await ServiceRig("A").start()
    await rig.create(1)
    await rig.subscribe("A", 1, lock=True)
    await rig.create(2)
    await rig.subscribe("A")
    await rig.create(3)
    assert rig.heard("A") == ["1: SCHEDULED", "3: SCHEDULED"]
    states = [rig.subscription("A", number) for number in (1, 2, 3)]
    assert states == [LOCK, NO_LOCK, NO_LOCK]


@on_loop
async def test_cc_2_3_1_initial_reports_come_in_order_of_creation_and_before_later_events() -> None:
    rig = await ServiceRig("A").start()
    for number in range(1, 61):
        await rig.create(number)
    await rig.subscribe("A", lock=True)
    await rig.claim(30)
    await rig.create(61)
    initial = [f"{number}: SCHEDULED" for number in range(1, 61)]
    assert rig.heard("A") == [*initial, "30: IN PROGRESS", "61: SCHEDULED"]
    assert grows(rig.sequences("A"))


@on_loop
async def test_cc_2_3_1_a_report_that_waits_tells_the_state_of_when_it_is_made() -> None:
    rig = await ServiceRig("A").start()
    for number in range(1, 4):
        await rig.create(number)
    rig.channel.down["A"] = "switched off"
    await rig.subscribe("A", lock=True)
    await rig.claim(3)
    rig.channel.down.clear()
    await rig.pass_by(5)
    heard = rig.heard("A")
    assert heard[0:2] == ["1: SCHEDULED", "2: SCHEDULED"]
    assert heard[-1] == "3: IN PROGRESS"
    assert grows(rig.sequences("A"))


@on_loop
async def test_cc_2_3_2_unsubscribing_globally_ends_every_subscription_of_that_ae_and_its_locks() -> None:
    rig = await ServiceRig("A", "B").start()
    await rig.create(1)
    await rig.subscribe("A", 1, lock=True)
    await rig.subscribe("A", lock=True)
    await rig.subscribe("A", FILTERED, keys=URGENT)
    await rig.subscribe("B", 1, lock=True)
    await rig.create(2, urgent())
    heard = rig.heard("A")
    assert (await rig.unsubscribe("A")).status is statuses.SUCCESS
    await rig.create(3, urgent())
    await rig.cancel(1)
    assert [rig.subscription("A", number) for number in (1, 2, 3)] == [NONE] * 3
    assert rig.subscription("B", 1) is LOCK
    assert rig.heard("A") == heard
    assert (await rig.unsubscribe("A")).status is statuses.NO_SUCH_SUBSCRIPTION


@on_loop
async def test_cc_2_3_2_unsubscribing_globally_leaves_out_initial_reports_that_were_not_made_yet() -> None:
    rig = await ServiceRig("A").start()
    for number in range(1, 4):
        await rig.create(number)
    rig.channel.down["A"] = "switched off"
    await rig.subscribe("A", lock=True)
    await rig.unsubscribe("A")
    rig.channel.down.clear()
    await rig.pass_by(10)
    await rig.create(4)
    assert [report for report in rig.heard("A") if report.startswith("4")] == []


@on_loop
async def test_cc_2_3_3_suspending_keeps_the_subscriptions_that_there_are() -> None:
    rig = await ServiceRig("A").start()
    await rig.create(1)
    await rig.subscribe("A", lock=True)
    assert (await rig.suspend("A")).status is statuses.SUCCESS
    await rig.create(2)
    await rig.claim(1)
    assert (rig.subscription("A", 1), rig.subscription("A", 2)) == (LOCK, NONE)
    assert rig.heard("A") == ["1: SCHEDULED", "1: IN PROGRESS"]
    assert (await rig.suspend("A")).status is statuses.NO_SUCH_SUBSCRIPTION


@on_loop
async def test_cc_2_3_an_unknown_ae_can_only_end_what_it_has() -> None:
    rig = await ServiceRig("A").start()
    await rig.create(1)
    await rig.subscribe("A", 1)
    await rig.subscribe("A")
    rig.channel.ae_titles.clear()
    for action, to in ((Unsubscribe, uid(1)), (Unsubscribe, GLOBAL), (Suspend, GLOBAL)):
        refused = await rig.refused(action(SCHEDULER, to, "NOBODY"))
        assert refused.status is statuses.UNKNOWN_RECEIVING_AE
    assert (await rig.suspend("A")).status is statuses.SUCCESS
    assert (await rig.unsubscribe("A", 1)).status is statuses.SUCCESS
    assert (await rig.refused(Unsubscribe(SCHEDULER, uid(1), "A"))).status is statuses.UNKNOWN_RECEIVING_AE


@on_loop
async def test_cc_2_3_3_one_ups_cannot_be_suspended() -> None:
    rig = await ServiceRig("A").start()
    await rig.create(1)
    await rig.subscribe("A", 1)
    error = await rig.refused(Suspend(SCHEDULER, uid(1), "A"))
    assert error.status.code == 0xC314


# --- filtered ---


@on_loop
async def test_cc_2_3_1_a_filter_takes_matching_ups_of_now_and_later_and_decides_once() -> None:
    rig = await ServiceRig("A").start()
    await rig.create(1)
    await rig.create(2, urgent())
    await rig.subscribe("A", FILTERED, lock=True, keys=URGENT)
    await rig.create(3)
    await rig.create(4, urgent())
    await rig.update(URGENT, 1, None)
    await rig.claim(1)
    await rig.claim(2)
    states = [rig.subscription("A", number) for number in (1, 2, 3, 4)]
    assert states == [NONE, LOCK, NONE, LOCK]
    assert rig.heard("A") == ["2: SCHEDULED", "4: SCHEDULED", "2: IN PROGRESS"]


@on_loop
async def test_cc_2_3_2_unsubscribing_filters_ends_what_they_took() -> None:
    rig = await ServiceRig("A").start()
    await rig.create(1)
    await rig.create(2, urgent())
    await rig.subscribe("A", 1, lock=True)
    await rig.subscribe("A", FILTERED, keys=URGENT)
    await rig.create(3, urgent())
    await rig.unsubscribe("A", FILTERED)
    await rig.create(4, urgent())
    states = [rig.subscription("A", number) for number in (1, 2, 3, 4)]
    assert states == [LOCK, NONE, NONE, NONE]


@pytest.mark.parametrize("keys", [None, {}, {tags.TRANSACTION_UID: element("UI", "1.2.3")}])
def test_cc_2_3_1_a_filter_without_matching_keys_is_refused(keys: DataSet | None) -> None:
    @on_loop
    async def scenario() -> None:
        rig = await ServiceRig("A").start()
        error = await rig.refused(Subscribe(SCHEDULER, FILTERED, "A", False, keys))
        assert error.status.code == 0x0115

    scenario()


@on_loop
async def test_cc_2_3_1_a_malformed_filter_is_refused_and_named() -> None:
    rig = await ServiceRig("A").start()
    keys: DataSet = {tags.START: element("DT", "yesterday")}
    error = await rig.refused(Subscribe(SCHEDULER, FILTERED, "A", False, keys))
    assert (error.status.code, error.tag) == (0x0115, tags.START)


# --- whom, and what is refused ---


@on_loop
async def test_cc_2_3_1_an_ae_may_subscribe_another_one() -> None:
    rig = await ServiceRig("A").start()
    await rig.create(1)
    await rig.do(Subscribe(SCHEDULER, uid(1), "A"))
    await rig.do(Subscribe(SCHEDULER, GLOBAL, "A"))
    await rig.create(2)
    assert rig.heard("A") == ["1: SCHEDULED", "2: SCHEDULED"]
    assert rig.heard("SCHEDULER") == []


@pytest.mark.parametrize("to", [uid(1), GLOBAL, FILTERED])
def test_cc_2_3_1_an_unknown_receiving_ae_is_refused(to: str) -> None:
    @on_loop
    async def scenario() -> None:
        rig = await ServiceRig("A").start()
        await rig.create(1)
        error = await rig.refused(Subscribe(SCHEDULER, to, "NOBODY", True, URGENT))
        assert (error.status.code, error.tag) == (0xC308, tags.RECEIVING_AE)

    scenario()


@pytest.mark.parametrize("receiving_ae", ["", "  ", "A" * 17, "A\nB", "A\\B"])
def test_cc_2_3_1_what_is_no_ae_title_is_refused(receiving_ae: str) -> None:
    @on_loop
    async def scenario() -> None:
        rig = await ServiceRig("A", receiving_ae).start()
        for command in (
            Subscribe(SCHEDULER, GLOBAL, receiving_ae),
            Unsubscribe(SCHEDULER, GLOBAL, receiving_ae),
            Suspend(SCHEDULER, GLOBAL, receiving_ae),
        ):
            assert (await rig.refused(command)).status.code == 0x0115

    scenario()


@on_loop
async def test_cc_2_3_1_an_unknown_ups_is_refused() -> None:
    rig = await ServiceRig("A").start()
    assert (await rig.refused(Subscribe(SCHEDULER, uid(1), "A"))).status.code == 0xC307
    assert (await rig.refused(Unsubscribe(SCHEDULER, uid(1), "A"))).status.code == 0xC307


@on_loop
async def test_cc_2_3_1_without_locks_the_subscription_is_made_with_a_warning() -> None:
    rig = await ServiceRig("A", settings=Settings(deletion_locks=False)).start()
    await rig.create(1)
    assert (await rig.subscribe("A", 1, lock=True)).status.code == 0xB301
    assert (await rig.subscribe("A", lock=True)).status.code == 0xB301
    assert (await rig.subscribe("A", lock=False)).status.code == 0x0000
    await rig.create(2)
    assert (rig.subscription("A", 1), rig.subscription("A", 2)) == (NO_LOCK, NO_LOCK)
    assert rig.heard("A") == ["1: SCHEDULED", "2: SCHEDULED"]


@on_loop
async def test_cc_2_3_2_unsubscribing_from_a_suspended_filter_ends_what_it_left() -> None:
    rig = await ServiceRig("A").start()
    await rig.create(1, urgent())
    await rig.subscribe("A", FILTERED, lock=True, keys=URGENT)
    await rig.create(2, urgent())
    await rig.suspend("A", FILTERED)
    await rig.create(3, urgent())
    assert [rig.subscription("A", number) for number in (1, 2, 3)] == [LOCK, LOCK, NONE]
    assert (await rig.suspend("A", FILTERED)).status is statuses.NO_SUCH_SUBSCRIPTION
    assert (await rig.unsubscribe("A", FILTERED)).status is statuses.SUCCESS
    assert [rig.subscription("A", number) for number in (1, 2, 3)] == [NONE, NONE, NONE]
    assert (await rig.unsubscribe("A", FILTERED)).status is statuses.NO_SUCH_SUBSCRIPTION


@on_loop
async def test_cc_2_3_2_who_unsubscribed_from_all_filters_is_subscribed_to_nothing() -> None:
    rig = await ServiceRig("A", "B").start()
    await rig.subscribe("A", FILTERED, keys=URGENT)
    await rig.subscribe("B", FILTERED, keys=URGENT)
    await rig.unsubscribe("A", FILTERED)
    await rig.suspend("B", FILTERED)
    assert rig.service.subscriptions.subscribed_aes() == {"B"}
    assert (await rig.unsubscribe("A")).status is statuses.NO_SUCH_SUBSCRIPTION
    assert (await rig.unsubscribe("B")).status is statuses.SUCCESS
