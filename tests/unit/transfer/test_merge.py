# SPDX-License-Identifier: AGPL-3.0-or-later
"""An export is merged into a worklist that is not empty: new workitems are added, existing ones stay."""

from __future__ import annotations

import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import element
from orthanc_ups.core.workitem import digest
from orthanc_ups.delivery.management import DeliveryManagement
from orthanc_ups.delivery.receivers import KnownReceivers
from orthanc_ups.settings import Settings
from orthanc_ups.store.port import StoreUnavailable
from orthanc_ups.transfer.routes import ImportStopped
from tests.support.service import (
    FILTERED,
    GLOBAL,
    LOCK,
    NO_LOCK,
    NONE,
    OTHER_TRANSACTION,
    TRANSACTION,
    ServiceRig,
    SlowEntries,
    grows,
    on_loop,
)
from tests.support.transfer import changed, exported, imported, kind, moved, of_kind
from tests.support.workitems import full, minimal, progress, uid

HIGH = {tags.PRIORITY: element("CS", "HIGH")}


async def rig(*titles: str, **settings: float | bool | int) -> ServiceRig:
    return await ServiceRig(*titles, settings=Settings(**settings)).start()  # type: ignore[arg-type]


@on_loop
async def test_new_workitems_come_in_with_state_owner_and_history() -> None:
    source, target = await rig(), await rig()
    await target.create(7)
    await source.create(1)
    await source.claim(1)
    await source.create(2)
    await source.complete(2)
    report = await moved(source, target)
    assert report["mode"] == "merge" and report["state"] == "complete"
    assert target.state(1) == "IN PROGRESS" and target.workitem(1).owner == digest(TRANSACTION)
    assert target.workitem(2).ended == source.workitem(2).ended
    assert target.workitem(1).attributes == source.workitem(1).attributes
    assert [entry.what for entry in target.workitem(1).history] == ["created", "claimed", "imported"]
    assert target.workitem(1).history[-1].who == "anna as WORKLIST by import"
    assert [target.workitem(n).created for n in (7, 1, 2)] == [1, 2, 3]


@on_loop
async def test_who_is_subscribed_here_is_told_of_what_comes() -> None:
    source, target = await rig(), await rig("RIS")
    await target.create(7)
    await target.subscribe("RIS")
    await source.create(1)
    await source.claim(1)
    await moved(source, target)
    assert target.heard("RIS") == ["1: IN PROGRESS"]
    await target.update(progress(), 1, TRANSACTION)
    assert target.heard("RIS") == ["1: IN PROGRESS", "1: event 3"]
    assert grows(target.sequences("RIS"))


@on_loop
async def test_who_performs_what_comes_is_told_as_of_what_is_created_here_unless_it_is_over() -> None:
    source, target = await rig(), await rig("RIS")
    await target.create(7)
    await target.subscribe("RIS")
    await source.create(1, full())
    await source.create(2, full())
    await source.complete(2)
    await moved(source, target)
    assert target.heard("RIS") == ["1: SCHEDULED", "1: event 5", "2: COMPLETED"]


@on_loop
async def test_what_waited_there_is_told_here_first() -> None:
    source, target = await rig("AI"), await rig("AI")
    await target.create(7)
    await source.subscribe("AI")
    source.channel.down["AI"] = "it is switched off"
    await source.create(1)
    await source.claim(1)
    await source.update(progress(), 1)
    await moved(source, target)
    assert target.heard("AI")[:3] == ["1: SCHEDULED", "1: IN PROGRESS", "1: event 3"]
    assert grows(target.sequences("AI"))


@on_loop
async def test_what_was_delivered_there_is_not_told_again() -> None:
    source, target = await rig("AI"), await rig("AI")
    await target.create(7)
    await source.create(1)
    await source.subscribe("AI", 1)
    await source.claim(1)
    await source.unsubscribe("AI", 1)
    await moved(source, target)
    assert target.heard("AI") == []


@on_loop
async def test_subscribers_that_have_none_here_keep_theirs() -> None:
    source, target = await rig("RIS", "AI", "DOSE"), await rig("RIS", "AI", "DOSE")
    await target.create(7)
    await source.create(1)
    await source.create(2)
    await source.subscribe("RIS", GLOBAL, lock=True)
    await source.unsubscribe("RIS", 2)
    await source.subscribe("AI", 2, lock=True)
    await source.subscribe("DOSE", FILTERED, keys=HIGH)
    await source.create(3, full())
    await moved(source, target)
    states = {(ae, n): target.subscription(ae, n) for ae in ("RIS", "AI", "DOSE") for n in (1, 2, 3, 7)}
    assert states["RIS", 1] is LOCK and states["RIS", 2] is NONE and states["RIS", 3] is LOCK
    assert states["AI", 2] is LOCK and states["AI", 1] is NONE
    assert states["DOSE", 3] is NO_LOCK and states["DOSE", 1] is NONE
    assert states["RIS", 7] is LOCK, "a global subscription is to every workitem"
    await target.create(8, full())
    assert target.subscription("DOSE", 8) is NO_LOCK and target.subscription("RIS", 8) is LOCK


@on_loop
async def test_a_subscriber_that_has_some_here_keeps_its_own() -> None:
    source, target = await rig("RIS"), await rig("RIS")
    await source.subscribe("RIS", GLOBAL, lock=True)
    await source.create(1)
    await target.create(7)
    await target.subscribe("RIS", FILTERED, keys=HIGH)
    report = await moved(source, target)
    assert report["conflicts"][0]["kind"] == "subscribers" and report["conflicts"][0]["name"] == "RIS"
    await target.create(8)
    assert target.subscription("RIS", 8) is NONE
    assert target.subscription("RIS", 1) is LOCK, "what it had of the imported workitem it keeps"


@on_loop
async def test_a_subscription_that_is_refused_is_named() -> None:
    source, target = await rig("RIS"), await rig("RIS")
    await target.create(7)
    await source.subscribe("RIS", FILTERED, keys=HIGH)
    lines = await exported(source)
    (log,) = of_kind(lines, "subscriber")
    no_keys = {**log["acts"][0], "filter": {}}
    report = await imported(
        target, [changed(line, acts=[no_keys]) if kind(line) == "subscriber" else line for line in lines]
    )
    assert report["conflicts"][0]["name"] == "RIS" and "matching keys" in report["conflicts"][0]["why"]


class NoModalities:
    async def lookup(self, aet: str) -> None:
        return None


@on_loop
async def test_a_subscriber_that_only_opens_web_sockets_comes_too() -> None:
    source, target = await rig("VIEWER"), ServiceRig()
    target.receivers = KnownReceivers(NoModalities(), [], tuple)  # type: ignore[arg-type]
    await target.start()
    await target.create(7)
    await source.subscribe("VIEWER")
    report = await moved(source, target)
    assert report["conflicts"] == [] and report["counts"]["subscribers"]["imported"] == 1
    assert target.subscription("VIEWER", 7) is NO_LOCK


class Failing(SlowEntries):
    """A store whose ``fails_at``-th write of a workitem or a subscriber fails."""

    fails_at = 0

    def on_write(self, key: str) -> None:
        if key.startswith(("workitem/", "subscriber/")):
            self.fails_at -= 1
            if self.fails_at == 0:
                raise StoreUnavailable("disk full, says a test", certain=True)


async def subscribed_in_every_way() -> list[bytes]:
    """The export of a worklist with two filters of one AE, locks and an Unsubscribe of single workitems."""
    source = await rig("RIS", "AI", "DOSE")
    await source.subscribe("DOSE", FILTERED, keys=HIGH)
    await source.subscribe("DOSE", FILTERED, lock=True, keys={tags.PRIORITY: element("CS", "LOW")})
    await source.subscribe("RIS")
    await source.create(1)
    await source.subscribe("AI", 1, lock=True)
    await source.subscribe("RIS", 1, lock=True)
    await source.create(2, full())
    await source.unsubscribe("RIS", 2)
    return await exported(source)


@pytest.mark.parametrize("restarted", [False, True])
@on_loop
async def test_an_import_that_stopped_anywhere_is_completed_by_repeating_it(restarted: bool) -> None:
    lines, stops = await subscribed_in_every_way(), 0
    for fails_at in range(1, 7):
        target = ServiceRig("RIS", "AI", "DOSE")
        entries = target.entries = Failing()
        await target.start()
        await target.create(7, minimal(t00741200=element("CS", "LOW")))
        entries.fails_at = fails_at
        try:
            await imported(target, lines)
        except ImportStopped:
            stops += 1
            if restarted:
                await target.restart()
        report = await imported(target, lines)
        assert report["state"] == "complete" and report["conflicts"] == []
        assert [target.subscription("AI", n) for n in (1, 2, 7)] == [LOCK, NONE, NONE]
        assert [target.subscription("RIS", n) for n in (1, 2, 7)] == [LOCK, NONE, NO_LOCK]
        assert [target.subscription("DOSE", n) for n in (1, 2, 7)] == [NONE, NO_LOCK, LOCK]
        assert len(target.service.subscriptions.log("DOSE").acts) == 2
        await target.crash()
    assert stops == 5, "three subscribes and two workitems"


@on_loop
async def test_a_subscription_to_an_imported_workitem_that_ended_here_does_not_come_back() -> None:
    lines, target = await subscribed_in_every_way(), await rig("RIS", "AI", "DOSE")
    await target.create(7)
    await imported(target, lines)
    await target.unsubscribe("AI", 1)
    await target.release_lock("RIS", 1)
    report = await imported(target, lines)
    assert report["counts"]["workitems"]["unchanged"] == 2
    assert target.subscription("AI", 1) is NONE and target.subscription("RIS", 1) is NO_LOCK


@on_loop
async def test_who_is_subscribed_to_an_imported_workitem_alone_is_told_of_it() -> None:
    source, target = await rig("AI"), await rig("AI")
    await target.create(7)
    await source.create(1)
    await source.subscribe("AI", 1, lock=True)
    await source.claim(1)
    await moved(source, target)
    assert target.heard("AI") == ["1: IN PROGRESS"]
    assert [entry.what for entry in target.workitem(1).history][-2:] == [
        "imported",
        "imported the subscription of AI: lock",
    ]


@on_loop
async def test_locks_are_not_granted_where_they_are_switched_off() -> None:
    source, target = await rig("RIS", "AI"), await rig("RIS", "AI", deletion_locks=False)
    await target.create(7)
    await source.create(1)
    await source.subscribe("RIS", GLOBAL, lock=True)
    await source.subscribe("AI", 1, lock=True)
    await moved(source, target)
    assert target.subscription("RIS", 1) is NO_LOCK and target.subscription("AI", 1) is NO_LOCK


@on_loop
async def test_of_two_workitems_with_one_uid_ours_is_kept_and_the_other_named() -> None:
    source, target = await rig(), await rig()
    await source.create(1)
    await source.create(2)
    await source.claim(2)
    await target.create(1, full())
    await target.create(2)
    await target.claim(2, OTHER_TRANSACTION)
    before = target.stored()
    report = await moved(source, target)
    assert target.stored() == before
    assert report["conflicts_in_all"] == 2
    assert [(conflict["kind"], conflict["name"]) for conflict in report["conflicts"]] == [
        ("workitems", uid(1)),
        ("workitems", uid(2)),
    ]


@on_loop
async def test_what_was_purged_here_does_not_come_back() -> None:
    source, target = await rig(), await rig()
    await source.create(1)
    await source.cancel(1)
    await moved(source, target)
    await target.purge(1)
    report = await moved(source, target)
    assert report["conflicts"][0]["why"] == "was purged here"
    assert target.service.workitems.is_gone(uid(1))


@on_loop
async def test_importing_twice_changes_nothing() -> None:
    source, target = await rig("RIS", "AI", dead_letter_after=60.0), await rig("RIS", "AI")
    await target.create(7)
    await source.create(1)
    await source.subscribe("RIS", GLOBAL, lock=True)
    await source.subscribe("AI")
    source.channel.down["AI"] = "it is switched off"
    await source.create(2)
    await source.pass_by(600)
    await source.create(3)
    lines = await exported(source)
    first = await imported(target, lines)
    assert first["counts"]["dead_letters"]["imported"] == 1
    before, sequences = target.stored(), target.sequences("AI")
    letters = DeliveryManagement(target.service.delivery).dead_letters("AI")
    again = await imported(target, lines)
    assert again["conflicts_in_all"] == 0 and again["counts"]["workitems"]["unchanged"] == 3
    assert target.stored() == before and target.sequences("AI") == sequences
    assert DeliveryManagement(target.service.delivery).dead_letters("AI") == letters


@on_loop
async def test_dead_letters_get_numbers_that_nobody_else_has() -> None:
    source, target = await rig("AI", dead_letter_after=60.0), await rig("AI")
    await target.create(7)
    await source.subscribe("AI")
    source.channel.down["AI"] = "it is switched off"
    await source.create(1)
    await source.pass_by(600)
    await moved(source, target)
    letters = DeliveryManagement(target.service.delivery).dead_letters("AI")
    assert [letter.uid for letter in letters] == [uid(1)]
    assert letters[0].sequence not in target.sequences("AI")
    await target.restart()
    assert [letter.uid for letter in DeliveryManagement(target.service.delivery).dead_letters("AI")] == [
        uid(1)
    ]


@on_loop
async def test_a_second_worklist_comes_in_beside_the_first() -> None:
    first, second, target = await rig(), await rig(), await rig()
    for number in (1, 2):
        await first.create(number)
        await second.create(number + 10)
    await moved(first, target)
    await moved(second, target)
    assert grows([target.workitem(n).created for n in (1, 2, 11, 12)])


@on_loop
async def test_a_full_worklist_stops_the_import_at_that_line() -> None:
    source, target = await rig(), await rig(maximum_workitems=2)
    for number in (1, 2, 3):
        await source.create(number)
    lines = await exported(source)
    with pytest.raises(ImportStopped, match=r"line \d+: the worklist is full") as stopped:
        await imported(target, lines)
    assert kind(lines[stopped.value.number - 1]) == "workitem"
    assert stopped.value.status == 503
    assert target.service.workitems.count() == 2


@on_loop
async def test_a_creation_number_that_is_taken_is_no_obstacle() -> None:
    """Two workitems of one number cannot be, unless somebody wrote the export by hand."""
    source, target = await rig(), await rig()
    await source.create(1)
    await source.create(2)
    lines = [
        changed(line, created=1) if kind(line) == "workitem" else line for line in await exported(source)
    ]
    report = await imported(target, lines)
    assert report["mode"] == "restore" and report["counts"]["workitems"]["imported"] == 2
    assert target.workitem(1).created == 1 < target.workitem(2).created
    assert target.workitem(2).attributes == source.workitem(2).attributes


@on_loop
async def test_what_comes_after_a_gap_in_the_store_comes_again() -> None:
    source, target = await rig(), await rig()
    await target.create(7)
    await source.create(1, minimal())
    lines = await exported(source)
    target.entries.unavailable = True
    with pytest.raises(ImportStopped) as stopped:
        await imported(target, lines)
    assert stopped.value.status == 503
    target.entries.unavailable = False
    report = await imported(target, lines)
    assert report["counts"]["workitems"]["imported"] == 1
