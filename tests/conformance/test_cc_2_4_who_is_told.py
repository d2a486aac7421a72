# SPDX-License-Identifier: AGPL-3.0-or-later
"""PS3.4 CC.2.4, CC.2.5, CC.2.6, CC.2.1, CC.2.2: which events follow from a command, and who receives them."""

from __future__ import annotations

import pytest

from orthanc_ups.core import statuses, tags
from orthanc_ups.core.commands import ChangeState, Close, Create, Purge, RequestCancel, Update
from orthanc_ups.core.dataset import DataSet, element, text, value
from orthanc_ups.core.events import EventType
from orthanc_ups.settings import Settings
from tests.support.delivery import settle
from tests.support.service import (
    FILTERED,
    GLOBAL,
    OTHER_TRANSACTION,
    SCHEDULER,
    TRANSACTION,
    ServiceRig,
    grows,
    on_loop,
)
from tests.support.workitems import full, minimal, performed, progress, station, uid

OPERATOR = SCHEDULER


# --- creation ---


@on_loop
async def test_cc_2_5_3_a_new_ups_is_reported_and_its_assignment_too() -> None:
    rig = await ServiceRig("A", "B", "C").start()
    await rig.subscribe("A")
    await rig.subscribe("B", FILTERED, keys={tags.PRIORITY: element("CS", "HIGH")})
    await rig.create(1, full())
    await rig.create(2, minimal())
    assert rig.heard("A") == ["1: SCHEDULED", "1: event 5", "2: SCHEDULED"]
    assert rig.heard("B") == ["1: SCHEDULED", "1: event 5"]
    assert rig.heard("C") == []


@on_loop
async def test_cc_2_5_3_an_earlier_attempt_to_create_it_does_not_say_who_is_told() -> None:
    rig = await ServiceRig("A").start()
    await rig.subscribe("A", FILTERED, keys={tags.PRIORITY: element("CS", "HIGH")})
    rig.entries.unavailable = True
    await rig.refused(Create(SCHEDULER, uid(1), full()))
    rig.entries.unavailable = False
    await rig.create(1, minimal())
    assert rig.heard("A") == []


@on_loop
async def test_cc_2_5_a_second_ups_of_that_uid_is_refused_and_nobody_is_told() -> None:
    rig = await ServiceRig("A").start()
    await rig.subscribe("A")
    await rig.create(1)
    error = await rig.refused(Create(SCHEDULER, uid(1), minimal()))
    assert error.status is statuses.DUPLICATE_INSTANCE
    assert rig.heard("A") == ["1: SCHEDULED"]


@pytest.mark.parametrize("well_known", [GLOBAL, FILTERED])
def test_cc_2_5_the_well_known_uids_are_no_ups(well_known: str) -> None:
    @on_loop
    async def scenario() -> None:
        rig = await ServiceRig("A").start()
        created = await rig.refused(Create(SCHEDULER, well_known, minimal()))
        assert created.status is statuses.DUPLICATE_INSTANCE
        for command in (
            Update(SCHEDULER, well_known, performed()),
            ChangeState(SCHEDULER, well_known, "IN PROGRESS", TRANSACTION),
            RequestCancel(SCHEDULER, well_known),
            Purge(SCHEDULER, well_known),
        ):
            assert (await rig.refused(command)).status.code == 0xC307

    scenario()


@on_loop
async def test_cc_2_5_a_full_worklist_takes_no_more() -> None:
    rig = await ServiceRig(settings=Settings(maximum_workitems=2)).start()
    await rig.create(1)
    await rig.create(2)
    assert (await rig.refused(Create(SCHEDULER, uid(3), minimal()))).status.code == 0x0213


# --- states ---


@on_loop
async def test_cc_2_1_each_change_of_state_is_reported_once() -> None:
    rig = await ServiceRig("A").start()
    await rig.subscribe("A")
    await rig.create(1)
    await rig.complete(1)
    again = await rig.do(ChangeState(SCHEDULER, uid(1), "COMPLETED", TRANSACTION))
    assert again.status.code == 0xB306
    assert rig.heard("A") == ["1: SCHEDULED", "1: IN PROGRESS", "1: COMPLETED"]
    assert grows(rig.sequences("A"))


@pytest.mark.parametrize(
    ("state", "transaction", "code"),
    [
        ("IN PROGRESS", OTHER_TRANSACTION, 0xC301),
        ("IN PROGRESS", TRANSACTION, 0xC302),
        ("SCHEDULED", TRANSACTION, 0xC303),
        ("COMPLETED", TRANSACTION, 0xC304),
        ("COMPLETED", None, 0xC301),
    ],
)
def test_cc_2_1_a_refused_change_of_state_tells_nobody(
    state: str, transaction: str | None, code: int
) -> None:
    @on_loop
    async def scenario() -> None:
        rig = await ServiceRig("A").start()
        await rig.subscribe("A")
        await rig.create(1)
        await rig.claim(1)
        heard = rig.heard("A")
        error = await rig.refused(ChangeState(SCHEDULER, uid(1), state, transaction))
        assert error.status.code == code
        assert rig.heard("A") == heard

    scenario()


@on_loop
async def test_cc_2_1_3_the_transaction_uid_is_nowhere_in_the_store_nor_in_what_is_told() -> None:
    rig = await ServiceRig("A").start()
    await rig.subscribe("A")
    await rig.create(1)
    await rig.complete(1)
    assert not [key for key, document in rig.entries.documents().items() if TRANSACTION.encode() in document]
    assert tags.TRANSACTION_UID not in await rig.service.worklist.retrieve(uid(1))
    assert not [event for event in rig.events_for("A") if tags.TRANSACTION_UID in event.information]


@on_loop
async def test_cc_2_1_an_operator_closes_for_a_lost_performer() -> None:
    rig = await ServiceRig("A").start()
    await rig.subscribe("A")
    await rig.create(1)
    await rig.claim(1)
    await rig.do(Close(OPERATOR, uid(1), "COMPLETED", performed()))
    assert rig.heard("A") == ["1: SCHEDULED", "1: IN PROGRESS", "1: COMPLETED"]


# --- cancellation ---


@on_loop
async def test_cc_2_2_a_scheduled_ups_is_walked_to_canceled_in_two_reports() -> None:
    rig = await ServiceRig("A").start()
    await rig.subscribe("A")
    await rig.create(1)
    assert (await rig.cancel(1)).status.code == 0x0000
    assert rig.heard("A") == ["1: SCHEDULED", "1: IN PROGRESS", "1: CANCELED"]
    assert (await rig.cancel(1)).status.code == 0xB304
    assert len(rig.heard("A")) == 3


@on_loop
async def test_cc_2_6_3_a_contact_that_comes_with_the_cancellation_is_a_change_of_the_communications_uris() -> (
    None
):
    rig = await ServiceRig("A").start()
    await rig.subscribe("A")
    await rig.create(1)
    contact: DataSet = {tags.CONTACT_URI: element("UR", "tel:+49-40-0000000")}
    await rig.do(RequestCancel(SCHEDULER, uid(1), contact))
    assert rig.heard("A") == ["1: SCHEDULED", "1: IN PROGRESS", "1: event 3", "1: CANCELED"]


@on_loop
async def test_cc_2_2_the_performer_is_asked_by_an_event_to_every_subscriber() -> None:
    rig = await ServiceRig("A", "B").start()
    await rig.create(1)
    await rig.claim(1)
    assert (await rig.refused(RequestCancel(SCHEDULER, uid(1)))).status.code == 0xC312
    await rig.subscribe("A", 1)
    await rig.subscribe("B", 1)
    await rig.cancel(1)
    for ae in ("A", "B"):
        request = rig.events_for(ae)[-1]
        assert request.type is EventType.CANCEL_REQUESTED
        assert text(request.information, tags.REQUESTING_AE) == "SCHEDULER"
    assert rig.state(1) == "IN PROGRESS"


# --- updates ---


@on_loop
async def test_cc_2_6_3_readiness_progress_and_assignment_are_reported_and_nothing_else() -> None:
    rig = await ServiceRig("A").start()
    await rig.create(1)
    await rig.subscribe("A")
    await rig.update({tags.LABEL: element("LO", "Third reading")}, 1, None)
    await rig.update({tags.READINESS: element("CS", "UNAVAILABLE")}, 1, None)
    await rig.update({tags.STATION_NAME: element("SQ", station())}, 1, None)
    await rig.claim(1)
    await rig.update(progress("40"))
    await rig.update(progress("40"))
    assert rig.heard("A") == ["1: SCHEDULED", "1: event 5", "1: IN PROGRESS", "1: event 3"]
    readiness = [value(event.information, tags.READINESS) for event in rig.events_for("A")[:1]]
    assert readiness == ["UNAVAILABLE"]


@on_loop
async def test_cc_2_4_3_an_assignment_that_is_taken_away_is_reported_with_what_is_left() -> None:
    rig = await ServiceRig("A").start()
    await rig.create(1, full())
    await rig.subscribe("A")
    for tag in (tags.HUMAN_PERFORMERS, tags.STATION_NAME):
        await rig.update({tag: element("SQ")}, 1, None)
    await rig.update({tags.STATION_NAME: element("SQ")}, 1, None)
    assert rig.heard("A") == ["1: event 5", "1: event 5"]
    assert [list(event.information) for event in rig.events_for("A")] == [[tags.STATION_NAME], []]


# --- SCP Status Change ---


def statuses_told(rig: ServiceRig, ae: str) -> list[str]:
    events = rig.channel.events.get(ae, [])
    return [
        text(event.information, tags.SCP_STATUS)
        for event in events
        if event.type is EventType.SCP_STATUS_CHANGE
    ]


@on_loop
async def test_cc_2_4_1_whoever_is_subscribed_hears_of_the_end_and_of_the_new_start() -> None:
    ae_titles = ("GLOBAL", "FILTER", "ONE", "SUSPENDED", "GONE", "FALLBACK", "STRANGER")
    rig = await ServiceRig(*ae_titles, settings=Settings(status_change_receivers=("FALLBACK",))).start()
    await rig.create(1)
    await rig.subscribe("GLOBAL")
    await rig.subscribe("FILTER", FILTERED, keys={tags.PRIORITY: element("CS", "LOW")})
    await rig.subscribe("ONE", 1)
    await rig.subscribe("SUSPENDED")
    await rig.suspend("SUSPENDED")
    await rig.subscribe("GONE", 1)
    await rig.subscribe("GONE")
    await rig.unsubscribe("GONE")
    rig.channel.events.clear()
    await rig.stop()
    rig.entries = rig.entries.another()
    await rig.start()
    await settle()
    for ae in ("GLOBAL", "FILTER", "ONE", "SUSPENDED", "FALLBACK"):
        assert statuses_told(rig, ae) == ["GOING DOWN", "RESTARTED"], ae
    for ae in ("GONE", "STRANGER"):
        assert statuses_told(rig, ae) == [], ae


@on_loop
async def test_cc_2_4_1_a_start_with_nothing_is_cold_and_with_anything_warm() -> None:
    rig = await ServiceRig("FALLBACK", settings=Settings(status_change_receivers=("FALLBACK",))).start()
    for _ in range(2):
        await settle()
        await rig.stop()
        rig.entries = rig.entries.another()
        await rig.start()
    await settle()
    notices = [event.information for event in rig.channel.events["FALLBACK"]]
    assert [
        (text(notice, tags.SCP_STATUS), text(notice, tags.SUBSCRIPTION_LIST_STATUS)) for notice in notices
    ] == [
        ("RESTARTED", "COLD START"),
        ("GOING DOWN", "WARM START"),
        ("RESTARTED", "WARM START"),
        ("GOING DOWN", "WARM START"),
        ("RESTARTED", "WARM START"),
    ]
    assert all(
        notice[tags.SUBSCRIPTION_LIST_STATUS] == notice[tags.WORKITEM_LIST_STATUS] for notice in notices
    )
