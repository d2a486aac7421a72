# SPDX-License-Identifier: AGPL-3.0-or-later
"""A worklist moves: its export into an empty one restores everything, and delivery goes on where it stopped."""

from __future__ import annotations

from dataclasses import replace

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import element
from orthanc_ups.core.events import Event, EventType
from orthanc_ups.delivery.management import DeliveryManagement
from orthanc_ups.settings import Settings
from orthanc_ups.store.documents import decode, encode
from tests.support.service import (
    FILTERED,
    GLOBAL,
    LOCK,
    NO_LOCK,
    NONE,
    TRANSACTION,
    ServiceRig,
    grows,
    on_loop,
)
from tests.support.transfer import exported, imported, kind, moved, of_kind
from tests.support.workitems import full, minimal, progress, uid

AES = ("RIS", "AI", "DOSE")
HIGH = {tags.PRIORITY: element("CS", "HIGH")}


async def busy_rig() -> ServiceRig:
    """Two global subscribers, one of them away; a filter; locks; claimed, completed and purged workitems."""
    rig = await ServiceRig(*AES).start()
    await rig.create(1)
    await rig.subscribe("RIS", GLOBAL, lock=True)
    await rig.subscribe("DOSE", FILTERED, keys=HIGH)
    await rig.create(2, full("japanese"))
    rig.channel.down["AI"] = "it is switched off"
    await rig.subscribe("AI", GLOBAL)
    await rig.claim(1)
    await rig.create(3)
    await rig.subscribe("AI", 3, lock=True)
    await rig.unsubscribe("RIS", 3)
    await rig.complete(2)
    await rig.update(progress("40"), 1)
    await rig.update(progress("70"), 1)
    await rig.create(4)
    await rig.cancel(4)
    await rig.release_lock("RIS", 4)
    return rig


def waiting_for(rig: ServiceRig, ae: str) -> list[Event]:
    """What the AE has not been told yet."""
    workers = rig.service.delivery.workers(ae)
    return [item for worker in workers for item in worker.queue if isinstance(item, Event)]


async def empty_rig(*titles: str) -> ServiceRig:
    return await ServiceRig(*(titles or AES)).start()


@on_loop
async def test_every_entry_of_a_workitem_is_as_it_was() -> None:
    source, target = await busy_rig(), await empty_rig()
    await moved(source, target)
    ours, theirs = source.stored(), target.stored()
    assert ours.keys() == theirs.keys()
    for key in (key_ for key_ in ours if key_.startswith("workitem/")):
        assert decode(theirs[key]) == decode(ours[key])
    for key in (key_ for key_ in ours if key_.startswith("subscriber/")):
        assert theirs[key] == ours[key]


@on_loop
async def test_subscriptions_and_locks_mean_the_same() -> None:
    source, target = await busy_rig(), await empty_rig()
    await moved(source, target)
    states = {(ae, n): source.subscription(ae, n) for ae in AES for n in (1, 2, 3, 4)}
    assert {(ae, n): target.subscription(ae, n) for ae, n in states} == states
    assert states["RIS", 1] is LOCK and states["RIS", 3] is NONE and states["AI", 3] is LOCK
    assert states["RIS", 4] is NO_LOCK and states["DOSE", 2] is NO_LOCK


@on_loop
async def test_what_waits_is_delivered_there_in_order_and_nothing_is_repeated() -> None:
    source, target = await busy_rig(), await empty_rig()
    waiting = [event.sequence for event in waiting_for(source, "AI")]
    assert len(waiting) > 5 and not source.events_for("AI")
    await moved(source, target)
    assert target.sequences("AI") == waiting
    assert not target.events_for("RIS") and not target.events_for("DOSE")


@on_loop
async def test_a_client_that_knows_its_sequence_goes_on_with_it() -> None:
    """A WebSocket client resumes at the new server by the number of the last event that it has."""
    source, target = await busy_rig(), await empty_rig()
    last = max(source.sequences("RIS"))
    await moved(source, target)
    await target.create(9)
    replayed = [event async for chunk in target.service.delivery.replay("RIS", last) for event in chunk]
    assert [event.uid for event in replayed] == [uid(9)]
    assert grows([last, *(event.sequence for event in replayed)])


@on_loop
async def test_work_goes_on_behind_the_numbers_of_the_export() -> None:
    source, target = await busy_rig(), await empty_rig()
    await moved(source, target)
    before = target.sequences("AI")
    await target.update(progress("90"), 1, TRANSACTION)
    await target.create(5, full(t00741200=element("CS", "HIGH")))
    assert target.workitem(5).created > source.workitem(4).created
    assert target.events_for("RIS") and target.events_for("DOSE")
    assert grows([*before, *(sequence for sequence in target.sequences("AI") if sequence not in before)])
    assert min(event.sequence for event in target.events_for("RIS")) > max(source.sequences("RIS"))


@on_loop
async def test_the_owner_of_a_claim_can_complete_it_there() -> None:
    source, target = await busy_rig(), await empty_rig()
    await moved(source, target)
    assert "Transaction" not in b"".join(await exported(source)).decode()
    assert TRANSACTION not in b"".join(await exported(source)).decode()
    await target.update(progress("99"), 1, TRANSACTION)


@on_loop
async def test_it_is_still_so_after_a_restart() -> None:
    source, target = await busy_rig(), await empty_rig()
    target.channel.down["AI"] = "it is switched off"
    await moved(source, target)
    await target.pass_by(2)
    await target.restart()
    del target.channel.down["AI"]
    await target.pass_by(600)
    waiting = [event.sequence for event in waiting_for(source, "AI")]
    assert target.sequences("AI") == waiting
    assert not target.events_for("RIS")
    assert target.subscription("AI", 3) is LOCK


@on_loop
async def test_a_crash_in_the_middle_loses_nothing_and_the_import_is_finished_later() -> None:
    source = await busy_rig()
    lines = await exported(source)
    waiting = [event.sequence for event in waiting_for(source, "AI")]
    for count in range(1, len(lines)):
        target = await empty_rig()
        await imported(target, lines[:count])
        await target.restart()
        report = await imported(target, lines)
        assert report["state"] == "complete" and report["mode"] == "restore" and not report["conflicts"]
        assert sorted(target.sequences("AI")) == waiting
        assert not target.events_for("RIS") and not target.events_for("DOSE")
        assert target.stored().keys() == source.stored().keys()
        await target.crash()


@on_loop
async def test_waiting_events_that_stand_out_of_order_in_the_store_move_too() -> None:
    source, target = await busy_rig(), await empty_rig()
    waiting = [event.sequence for event in waiting_for(source, "AI")]
    await source.crash()
    for key, document in source.entries.documents("workitem/").items():
        workitem = decode(document)
        source.entries.tamper(key, encode(replace(workitem, events=workitem.events[::-1])))
    source.channel.down["AI"] = "it is still switched off"
    await source.start()
    lines = await exported(source)
    for line in of_kind(lines, "workitem"):
        assert grows([event["sequence"] for event in line["events"]])
    await imported(target, lines)
    assert set(waiting) <= set(target.sequences("AI")) and grows(target.sequences("AI"))


@on_loop
async def test_who_changes_a_workitem_meanwhile_loses_none_of_its_waiting_events() -> None:
    source, target = await busy_rig(), await empty_rig()
    lines = await exported(source)
    reports = [event.sequence for event in waiting_for(source, "AI") if event.type is EventType.STATE_REPORT]
    await imported(target, lines[:-1])
    for percent in range(71, 90):
        await target.update(progress(str(percent)), 1, TRANSACTION)
    assert not target.events_for("AI")
    await imported(target, lines[-1:])
    assert target.sequences("AI")[:-1] == reports
    assert target.events_for("AI")[-1].type is EventType.PROGRESS_REPORT
    assert grows(target.sequences("AI"))


@on_loop
async def test_who_is_subscribed_there_already_is_no_obstacle() -> None:
    """The AE titles of webhooks are subscribed by settings before anybody can import anything."""
    source, target = await busy_rig(), ServiceRig(*AES, "HOOK")
    await target.start()
    for ae, keys in (("HOOK", None), ("DOSE", HIGH)):
        await target.subscribe(ae, FILTERED if keys else GLOBAL, keys=keys)
    await target.restart()
    report = await moved(source, target)
    assert report["mode"] == "restore" and report["conflicts_in_all"] == 0
    states = {(ae, n): source.subscription(ae, n) for ae in AES for n in (1, 2, 3, 4)}
    for _ in range(2):
        assert {(ae, n): target.subscription(ae, n) for ae, n in states} == states
        assert [target.subscription("HOOK", n) for n in (1, 2, 3, 4)] == [NO_LOCK] * 4
        assert not target.events_for("DOSE") and not target.events_for("HOOK")
        await target.restart()
    await target.create(5)
    assert target.heard("HOOK") == ["5: SCHEDULED"] and not target.events_for("DOSE")


@on_loop
async def test_filters_of_both_sides_are_not_taken_for_each_other() -> None:
    """Both worklists gave their first filter the same number."""
    source, target = await ServiceRig("DOSE").start(), await ServiceRig("DOSE", "HOOK").start()
    await source.subscribe("DOSE", FILTERED, keys=HIGH)
    await target.subscribe("HOOK", FILTERED, keys={tags.PRIORITY: element("CS", "LOW")})
    await source.create(1, full())
    await moved(source, target)
    assert target.subscription("DOSE", 1) is NO_LOCK and target.subscription("HOOK", 1) is NONE
    await target.create(2, full())
    await target.create(3, minimal(t00741200=element("CS", "LOW")))
    assert target.heard("DOSE")[0] == "2: SCHEDULED" and target.heard("HOOK") == ["3: SCHEDULED"]


@on_loop
async def test_a_subscriber_that_wants_something_else_there_keeps_it() -> None:
    source, target = await ServiceRig("RIS").start(), await ServiceRig("RIS").start()
    await source.subscribe("RIS", GLOBAL, lock=True)
    await source.create(1)
    await target.subscribe("RIS", FILTERED, keys=HIGH)
    report = await moved(source, target)
    assert report["mode"] == "restore" and report["conflicts"][0]["name"] == "RIS"
    assert target.subscription("RIS", 1) is NONE


@on_loop
async def test_initial_reports_that_were_not_made_are_made_there() -> None:
    source, target = await ServiceRig("AI").start(), await empty_rig("AI")
    for number in range(1, 8):
        await source.create(number)
    source.channel.down["AI"] = "it is switched off"
    await source.subscribe("AI", GLOBAL, lock=True)
    await moved(source, target)
    assert target.heard("AI") == [f"{number}: SCHEDULED" for number in range(1, 8)]
    assert grows(target.sequences("AI"))


@on_loop
async def test_what_an_operator_dropped_does_not_come_back() -> None:
    source, target = await ServiceRig("AI").start(), await empty_rig("AI")
    await source.subscribe("AI")
    source.channel.down["AI"] = "it is switched off"
    for number in (1, 2, 3):
        await source.create(number)
    (second,) = [event.sequence for event in waiting_for(source, "AI") if event.uid == uid(2)]
    assert await DeliveryManagement(source.service.delivery).drop("AI", [second]) == 1
    await moved(source, target)
    assert target.heard("AI") == ["1: SCHEDULED", "3: SCHEDULED"]
    await target.restart()
    assert target.heard("AI") == ["1: SCHEDULED", "3: SCHEDULED"]


@on_loop
async def test_what_was_delivered_after_the_move_can_be_asked_for_again() -> None:
    source, target = await busy_rig(), await empty_rig()
    await moved(source, target)
    sequences = target.sequences("AI")
    replay = target.service.delivery.replay("AI", sequences[0])
    replayed = [event.sequence async for chunk in replay for event in chunk]
    assert set(sequences[1:]) <= set(replayed) and grows(replayed)


@on_loop
async def test_dead_letters_move_and_can_be_sent_there() -> None:
    settings = Settings(dead_letter_after=60.0)
    source, target = ServiceRig("AI", settings=settings), await empty_rig("AI")
    await source.start()
    await source.subscribe("AI")
    source.channel.down["AI"] = "it is switched off"
    await source.create(1)
    await source.create(2)
    await source.pass_by(600)
    report = await moved(source, target)
    letters = DeliveryManagement(target.service.delivery).dead_letters("AI")
    assert [letter.uid for letter in letters] == [uid(1), uid(2)]
    assert report["counts"]["dead_letters"]["imported"] == 2
    assert not target.events_for("AI")
    DeliveryManagement(target.service.delivery).resend_dead("AI")
    await target.pass_by(1)
    assert target.heard("AI") == ["1: SCHEDULED", "2: SCHEDULED"]


@on_loop
async def test_purged_workitems_stay_gone() -> None:
    source, target = await ServiceRig("AI").start(), await empty_rig("AI")
    await source.create(1)
    await source.cancel(1)
    await source.purge(1)
    await moved(source, target)
    assert target.service.workitems.is_gone(uid(1))
    await target.restart()
    assert target.service.workitems.is_gone(uid(1))


@on_loop
async def test_many_waiting_events_of_one_workitem_spill_there_too() -> None:
    settings = Settings(replace_waiting_progress=False)
    source, target = ServiceRig("AI", settings=settings), ServiceRig("AI", settings=settings)
    await source.start()
    await target.start()
    await source.subscribe("AI")
    source.channel.down["AI"] = target.channel.down["AI"] = "it is switched off"
    await source.create(1)
    await source.claim(1)
    for percent in range(150):
        await source.update(progress(str(percent % 100)), 1)
    lines = await exported(source)
    assert len(of_kind(lines, "workitem")[0]["events"]) >= 152
    await imported(target, lines)
    assert len(target.workitem(1).events) <= 64
    await target.restart()
    del target.channel.down["AI"]
    await target.pass_by(600)
    assert target.sequences("AI") == [event["sequence"] for event in of_kind(lines, "workitem")[0]["events"]]


@on_loop
async def test_importing_twice_changes_nothing() -> None:
    source, target = await busy_rig(), await empty_rig()
    lines = await exported(source)
    await imported(target, lines)
    before, calls = target.stored(), len(target.channel.calls)
    again = await imported(target, lines)
    assert again["mode"] == "merge", "once it is complete, both worklists go their own ways"
    assert target.stored() == before
    assert len(target.channel.calls) == calls
    assert again["conflicts_in_all"] == 0
    assert again["counts"]["workitems"]["unchanged"] == 4
    assert again["counts"]["subscribers"]["unchanged"] == 3


@on_loop
async def test_every_page_size_gives_the_same_lines() -> None:
    source = await busy_rig()
    whole = await exported(source)
    kinds = [kind(line) for line in whole]
    assert kinds[0] == "header" and kinds[-1] == "end"
    assert kinds.count("workitem") == 4 and kinds.count("subscriber") == 3 and kinds.count("delivery") == 3
    for limit in (1, 2, 3, 7):
        assert (await exported(source, limit))[1:] == whole[1:]


@on_loop
async def test_progress_tells_what_is_expected_and_what_came() -> None:
    source, target = await busy_rig(), await empty_rig()
    lines = await exported(source)
    half = await imported(target, lines[:8])
    assert half["state"] == "running" and half["mode"] == "restore"
    assert half["counts"]["workitems"]["expected"] == 4
    whole = await imported(target, lines[8:])
    assert whole["state"] == "complete"
    assert whole["counts"]["workitems"]["imported"] == 4


@on_loop
async def test_nothing_of_a_patient_is_rounded_or_lost() -> None:
    source, target = await empty_rig(), await empty_rig()
    for number, who in enumerate(("plain", "japanese", "cyrillic", "greek", "latin-1"), 1):
        await source.create(number, full(who))
    await source.create(6, minimal(t00091001=element("OB"), t00090010=element("LO", "PRIVATE ÄÖ")))
    await moved(source, target)
    for number in range(1, 7):
        assert target.workitem(number).attributes == source.workitem(number).attributes
