# SPDX-License-Identifier: AGPL-3.0-or-later
"""Changes from outside to entries, to the shelves that hold them, and to the projection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import orjson
import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.commands import ChangeState, Create, RequestCancel
from orthanc_ups.core.dataset import element, text
from orthanc_ups.core.statuses import UpsError
from orthanc_ups.core.workitem import SpecificAct
from orthanc_ups.store.documents import decode, encode
from tests.support.delivery import settle
from tests.support.populated import populated, prepared
from tests.support.service import (
    FILTERED,
    LOCK,
    NO_LOCK,
    SCHEDULER,
    TRANSACTION,
    ServiceRig,
    grows,
    on_loop,
)
from tests.support.workitems import minimal, uid

HIGH: Final = {tags.PRIORITY: element("CS", "HIGH")}
KEY: Final = f"workitem/{uid(1)}"


def edited(rig: ServiceRig, **changes: object) -> bytes:
    """The entry of workitem 1 as somebody edits it by hand."""
    content = orjson.loads(rig.entries.documents()[KEY])
    return orjson.dumps({**content, **changes})


# --- one entry ---


@on_loop
async def test_an_entry_changed_by_hand_is_taken_over() -> None:
    rig = await prepared()
    workitem = rig.workitem(1)
    label = {**workitem.attributes, tags.LABEL: element("LO", "By hand")}
    rig.entries.tamper(KEY, encode(replace(workitem, attributes=label, acts={"A": SpecificAct(9, LOCK)})))
    await rig.claim(1)
    assert text(rig.workitem(1).attributes, tags.LABEL) == "By hand"
    assert rig.subscription("A") is LOCK
    assert rig.heard("A") == ["1: IN PROGRESS"]
    assert rig.heard("B") == []


def _another_uid(document: bytes) -> bytes:
    return document.replace(uid(1).encode(), uid(2).encode())


def _no_state(document: bytes) -> bytes:
    return document.replace(b'"SCHEDULED"', b'"PENDING"')


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda _: b"[]",
        lambda document: document[: len(document) // 2],
        _another_uid,
        _no_state,
    ],
    ids=["empty", "list", "half", "other uid", "no state"],
)
def test_a_corrupt_entry_is_written_back(damage: Callable[[bytes], bytes]) -> None:
    @on_loop
    async def scenario() -> None:
        rig = await prepared()
        rig.entries.tamper(KEY, damage(rig.entries.documents()[KEY]))
        await rig.claim(1)
        assert rig.heard("A") == ["1: IN PROGRESS"]
        assert rig.heard("B") == ["1: IN PROGRESS"]
        assert decode(rig.entries.documents()[KEY]) == rig.workitem(1)
        await rig.restart()
        assert rig.state(1) == "IN PROGRESS"

    scenario()


@on_loop
async def test_an_entry_that_vanished_is_made_anew() -> None:
    rig = await prepared()
    rig.entries.tamper(KEY, None)
    await rig.claim(1)
    assert rig.heard("A") == ["1: IN PROGRESS"]
    await rig.restart()
    assert rig.state(1) == "IN PROGRESS"
    assert rig.subscription("B") is LOCK


@on_loop
async def test_an_entry_that_vanished_is_purged_all_the_same() -> None:
    rig = await prepared()
    await rig.cancel(1)
    await rig.unsubscribe("B", 1)
    rig.entries.tamper(KEY, None)
    await rig.purge(1)
    assert (await rig.refused(RequestCancel(SCHEDULER, uid(1)))).status.http == 410
    await rig.restart()
    assert (await rig.refused(RequestCancel(SCHEDULER, uid(1)))).status.http == 410


@on_loop
async def test_a_workitem_that_somebody_else_purged_is_gone() -> None:
    rig = await prepared()
    rig.entries.tamper(KEY, orjson.dumps({"format": 1, "uid": uid(1), "gone": 1.0}))
    with pytest.raises(UpsError) as caught:
        await rig.claim(1)
    assert caught.value.status.http == 410


@on_loop
async def test_an_entry_of_somebody_else_where_a_new_one_belongs_is_taken_over_or_left_alone() -> None:
    rig = await prepared()
    there = replace(rig.workitem(1), uid=uid(2), created=50, events=())
    attributes = {**there.attributes, tags.SOP_INSTANCE_UID: element("UI", uid(2))}
    rig.entries.tamper(f"workitem/{uid(2)}", encode(replace(there, attributes=attributes)))
    with pytest.raises(UpsError) as caught:
        await rig.create(2)
    assert caught.value.status.code == 0x0111
    await rig.create(3)
    assert rig.workitem(3).created > 50
    rig.entries.tamper(f"workitem/{uid(4)}", b"\x00")
    error = await rig.refused(Create(SCHEDULER, uid(4), minimal()))
    assert error.status.code == 0x0110
    assert "not readable" in error.detail


@on_loop
async def test_an_entry_that_changes_all_the_time_is_given_up() -> None:
    rig = await prepared()
    rig.entries.conflicts = 1_000
    with pytest.raises(UpsError) as caught:
        await rig.claim(1)
    assert caught.value.status.code == 0x0110
    rig.entries.conflicts = 0
    await rig.claim(1)
    assert rig.heard("A") == ["1: IN PROGRESS"]


_OF_ANOTHER = b'{"format":1,"ae":"B","revision":9,"acts":[]}'


@pytest.mark.parametrize("damage", [b"", b"\xff\x00", _OF_ANOTHER, None])
def test_a_damaged_log_of_subscriptions_is_written_back(damage: bytes | None) -> None:
    @on_loop
    async def scenario() -> None:
        rig = await prepared()
        rig.entries.tamper("subscriber/A", damage)
        await rig.subscribe("A", FILTERED, lock=True, keys=HIGH)
        await rig.restart()
        await rig.create(2)
        assert rig.heard("A") == ["2: SCHEDULED"]
        assert rig.subscription("A", 2) is NO_LOCK

    scenario()


@on_loop
async def test_a_log_that_somebody_changed_is_taken_over() -> None:
    rig = await prepared()
    content = orjson.loads(rig.entries.documents()["subscriber/A"])
    content["acts"][-1]["kind"] = "subscribe with lock"
    rig.entries.tamper("subscriber/A", orjson.dumps(content))
    await rig.suspend("A")
    await rig.create(2)
    assert rig.subscription("A", 1) is LOCK
    assert rig.heard("A") == []


# --- one entry, while we were away ---


@on_loop
async def test_a_corrupt_entry_found_at_the_start_is_written_back_from_the_projection(
    tmp_path: Path,
) -> None:
    rig = await prepared(str(tmp_path / "p.sqlite"))
    await rig.crash()
    rig.entries.tamper(KEY, b"{")
    await rig.start()
    assert rig.subscription("B") is LOCK
    await rig.claim(1)
    assert rig.heard("A") == ["1: IN PROGRESS"]
    assert decode(rig.entries.documents()[KEY]) == rig.workitem(1)


@on_loop
async def test_what_is_corrupt_at_the_start_is_reported_and_stops_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = await prepared()
    await rig.create(2)
    await rig.crash()
    for key in (KEY, "subscriber/B", "delivery/A", "dead/A/dimse/1", f"events/{uid(1)}/7", "what/ever"):
        rig.entries.tamper(key, b"\x00")
    await rig.start()
    for key in (KEY, f"events/{uid(1)}/7", "what/ever"):
        assert key in caplog.text
    assert (await rig.refused(RequestCancel(SCHEDULER, uid(1)))).status.code == 0xC307
    await rig.claim(2)
    assert rig.heard("A")[-1] == "2: IN PROGRESS"


@pytest.mark.parametrize("damage", [b"", b'{"format": 1, "sequences": "many"}', None])
def test_without_header_no_number_is_used_again(damage: bytes | None) -> None:
    @on_loop
    async def scenario() -> None:
        rig = await prepared()
        for _ in range(3):
            await rig.restart()  # so that numbers are large
        await rig.create(2)
        last = rig.workitem(2).events[-1].sequence
        created = rig.workitem(2).created
        await rig.crash()
        rig.entries.tamper("worklist", damage)
        await rig.start()
        await rig.create(3)
        assert rig.workitem(3).events[-1].sequence > last
        assert rig.workitem(3).created > created
        assert grows(rig.sequences("A"))

    scenario()


# --- all shelves ---


@on_loop
async def test_shelves_deleted_under_us_are_written_back_whole() -> None:
    rig = await populated()
    before = rig.entries.documents()
    rig.entries.lose()
    error = await rig.refused_now(ChangeState(SCHEDULER, uid(2), "CANCELED", TRANSACTION))
    assert error.status.code == 0x0213
    await rig.until(lambda: rig.entries.documents().keys() >= before.keys())
    after = rig.entries.documents()
    assert {key: after[key] for key in before} == before
    await rig.restart()
    rig.channel.down.clear()
    await rig.pass_by(600)
    assert rig.heard("C")[:2] == ["1: SCHEDULED", "1: IN PROGRESS"]
    assert len(rig.heard("C")) == 82 - 1  # the first update set what was there
    assert grows(rig.sequences("C"))
    assert (await rig.refused(RequestCancel(SCHEDULER, uid(3)))).status.http == 410
    await rig.create(4, minimal(t00741200=element("CS", "HIGH")))
    assert rig.subscription("B", 4) is LOCK


@on_loop
async def test_shelves_deleted_while_a_write_is_in_doubt_do_not_block_anything() -> None:
    rig = await populated()
    rig.entries.lost_answers = 1
    waiting = asyncio.ensure_future(rig.service.worklist.execute(RequestCancel(SCHEDULER, uid(1))))
    await settle()
    rig.entries.lose()
    await rig.until_done(waiting)
    with pytest.raises(UpsError):
        await waiting
    await rig.until(lambda: KEY in rig.entries.documents())
    await rig.create(4)
    assert rig.heard("A")[-1] == "4: SCHEDULED"


@on_loop
async def test_shelves_deleted_without_any_command_are_written_back_as_soon_as_orthanc_tells() -> None:
    rig = await populated()
    before = rig.entries.documents()
    rig.entries.lose()
    rig.service.shelves_deleted()
    await rig.until(lambda: rig.entries.documents().keys() >= before.keys())


@on_loop
async def test_shelves_that_cannot_be_written_back_now_are_written_back_later() -> None:
    rig = await populated()
    before = rig.entries.documents()
    rig.entries.lose()
    rig.entries.unavailable = True
    looking = asyncio.ensure_future(rig.service.look_after_shelves())
    await rig.pass_by(10)
    assert not looking.done()
    rig.entries.unavailable = False
    await rig.pass_by(10)
    await looking
    assert rig.entries.documents().keys() >= before.keys()


@on_loop
async def test_shelves_deleted_while_we_were_away_are_filled_from_the_projection(tmp_path: Path) -> None:
    rig = await populated(str(tmp_path / "p.sqlite"))
    await rig.crash()
    rig.entries.lose()
    await rig.start()
    assert (rig.state(1), rig.state(2)) == ("IN PROGRESS", "IN PROGRESS")
    last = max(event.sequence for event in rig.workitem(1).events)
    await rig.create(4)
    assert rig.workitem(4).created > 3
    await rig.subscribe("A", 4)
    assert rig.events_for("A")[-1].sequence > last
