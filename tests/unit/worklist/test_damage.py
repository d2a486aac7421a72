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
    Desk,
    grows,
    on_loop,
)
from tests.support.workitems import minimal, uid

HIGH: Final = {tags.PRIORITY: element("CS", "HIGH")}
KEY: Final = f"workitem/{uid(1)}"


def edited(desk: Desk, **changes: object) -> bytes:
    """The entry of workitem 1 as somebody edits it by hand."""
    content = orjson.loads(desk.entries.documents()[KEY])
    return orjson.dumps({**content, **changes})


# --- one entry ---


@on_loop
async def test_an_entry_changed_by_hand_is_taken_over() -> None:
    desk = await prepared()
    workitem = desk.workitem(1)
    label = {**workitem.attributes, tags.LABEL: element("LO", "By hand")}
    desk.entries.tamper(KEY, encode(replace(workitem, attributes=label, acts={"A": SpecificAct(9, LOCK)})))
    await desk.claim(1)
    assert text(desk.workitem(1).attributes, tags.LABEL) == "By hand"
    assert desk.subscription("A") is LOCK
    assert desk.heard("A") == ["1: IN PROGRESS"]
    assert desk.heard("B") == []


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
        desk = await prepared()
        desk.entries.tamper(KEY, damage(desk.entries.documents()[KEY]))
        await desk.claim(1)
        assert desk.heard("A") == ["1: IN PROGRESS"]
        assert desk.heard("B") == ["1: IN PROGRESS"]
        assert decode(desk.entries.documents()[KEY]) == desk.workitem(1)
        await desk.restart()
        assert desk.state(1) == "IN PROGRESS"

    scenario()


@on_loop
async def test_an_entry_that_vanished_is_made_anew() -> None:
    desk = await prepared()
    desk.entries.tamper(KEY, None)
    await desk.claim(1)
    assert desk.heard("A") == ["1: IN PROGRESS"]
    await desk.restart()
    assert desk.state(1) == "IN PROGRESS"
    assert desk.subscription("B") is LOCK


@on_loop
async def test_an_entry_that_vanished_is_purged_all_the_same() -> None:
    desk = await prepared()
    await desk.cancel(1)
    await desk.unsubscribe("B", 1)
    desk.entries.tamper(KEY, None)
    await desk.purge(1)
    assert (await desk.refused(RequestCancel(SCHEDULER, uid(1)))).status.http == 410
    await desk.restart()
    assert (await desk.refused(RequestCancel(SCHEDULER, uid(1)))).status.http == 410


@on_loop
async def test_a_workitem_that_somebody_else_purged_is_gone() -> None:
    desk = await prepared()
    desk.entries.tamper(KEY, orjson.dumps({"format": 1, "uid": uid(1), "gone": 1.0}))
    with pytest.raises(UpsError) as caught:
        await desk.claim(1)
    assert caught.value.status.http == 410


@on_loop
async def test_an_entry_of_somebody_else_where_a_new_one_belongs_is_taken_over_or_left_alone() -> None:
    desk = await prepared()
    there = replace(desk.workitem(1), uid=uid(2), created=50, events=())
    attributes = {**there.attributes, tags.SOP_INSTANCE_UID: element("UI", uid(2))}
    desk.entries.tamper(f"workitem/{uid(2)}", encode(replace(there, attributes=attributes)))
    with pytest.raises(UpsError) as caught:
        await desk.create(2)
    assert caught.value.status.code == 0x0111
    await desk.create(3)
    assert desk.workitem(3).created > 50
    desk.entries.tamper(f"workitem/{uid(4)}", b"\x00")
    error = await desk.refused(Create(SCHEDULER, uid(4), minimal()))
    assert error.status.code == 0x0110
    assert "not readable" in error.detail


@on_loop
async def test_an_entry_that_changes_all_the_time_is_given_up() -> None:
    desk = await prepared()
    desk.entries.conflicts = 1_000
    with pytest.raises(UpsError) as caught:
        await desk.claim(1)
    assert caught.value.status.code == 0x0110
    desk.entries.conflicts = 0
    await desk.claim(1)
    assert desk.heard("A") == ["1: IN PROGRESS"]


_OF_ANOTHER = b'{"format":1,"ae":"B","revision":9,"acts":[]}'


@pytest.mark.parametrize("damage", [b"", b"\xff\x00", _OF_ANOTHER, None])
def test_a_damaged_log_of_subscriptions_is_written_back(damage: bytes | None) -> None:
    @on_loop
    async def scenario() -> None:
        desk = await prepared()
        desk.entries.tamper("subscriber/A", damage)
        await desk.subscribe("A", FILTERED, lock=True, keys=HIGH)
        await desk.restart()
        await desk.create(2)
        assert desk.heard("A") == ["2: SCHEDULED"]
        assert desk.subscription("A", 2) is NO_LOCK

    scenario()


@on_loop
async def test_a_log_that_somebody_changed_is_taken_over() -> None:
    desk = await prepared()
    content = orjson.loads(desk.entries.documents()["subscriber/A"])
    content["acts"][-1]["kind"] = "subscribe with lock"
    desk.entries.tamper("subscriber/A", orjson.dumps(content))
    await desk.suspend("A")
    await desk.create(2)
    assert desk.subscription("A", 1) is LOCK
    assert desk.heard("A") == []


# --- one entry, while we were away ---


@on_loop
async def test_a_corrupt_entry_found_at_the_start_is_written_back_from_the_projection(
    tmp_path: Path,
) -> None:
    desk = await prepared(str(tmp_path / "p.sqlite"))
    await desk.crash()
    desk.entries.tamper(KEY, b"{")
    await desk.start()
    assert desk.subscription("B") is LOCK
    await desk.claim(1)
    assert desk.heard("A") == ["1: IN PROGRESS"]
    assert decode(desk.entries.documents()[KEY]) == desk.workitem(1)


@on_loop
async def test_what_is_corrupt_at_the_start_is_reported_and_stops_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    desk = await prepared()
    await desk.create(2)
    await desk.crash()
    for key in (KEY, "subscriber/B", "delivery/A", "dead/A/dimse/1", f"events/{uid(1)}/7", "what/ever"):
        desk.entries.tamper(key, b"\x00")
    await desk.start()
    for key in (KEY, f"events/{uid(1)}/7", "what/ever"):
        assert key in caplog.text
    assert (await desk.refused(RequestCancel(SCHEDULER, uid(1)))).status.code == 0xC307
    await desk.claim(2)
    assert desk.heard("A")[-1] == "2: IN PROGRESS"


@pytest.mark.parametrize("damage", [b"", b'{"format": 1, "sequences": "many"}', None])
def test_without_header_no_number_is_used_again(damage: bytes | None) -> None:
    @on_loop
    async def scenario() -> None:
        desk = await prepared()
        for _ in range(3):
            await desk.restart()  # so that numbers are large
        await desk.create(2)
        last = desk.workitem(2).events[-1].sequence
        created = desk.workitem(2).created
        await desk.crash()
        desk.entries.tamper("worklist", damage)
        await desk.start()
        await desk.create(3)
        assert desk.workitem(3).events[-1].sequence > last
        assert desk.workitem(3).created > created
        assert grows(desk.sequences("A"))

    scenario()


# --- all shelves ---


@on_loop
async def test_shelves_deleted_under_us_are_written_back_whole() -> None:
    desk = await populated()
    before = desk.entries.documents()
    desk.entries.lose()
    error = await desk.refused_now(ChangeState(SCHEDULER, uid(2), "CANCELED", TRANSACTION))
    assert error.status.code == 0x0213
    await desk.until(lambda: desk.entries.documents().keys() >= before.keys())
    after = desk.entries.documents()
    assert {key: after[key] for key in before} == before
    await desk.restart()
    desk.channel.down.clear()
    await desk.pass_by(600)
    assert desk.heard("C")[:2] == ["1: SCHEDULED", "1: IN PROGRESS"]
    assert len(desk.heard("C")) == 82 - 1  # the first update set what was there
    assert grows(desk.sequences("C"))
    assert (await desk.refused(RequestCancel(SCHEDULER, uid(3)))).status.http == 410
    await desk.create(4, minimal(t00741200=element("CS", "HIGH")))
    assert desk.subscription("B", 4) is LOCK


@on_loop
async def test_shelves_deleted_while_a_write_is_in_doubt_do_not_block_anything() -> None:
    desk = await populated()
    desk.entries.lost_answers = 1
    waiting = asyncio.ensure_future(desk.service.worklist.execute(RequestCancel(SCHEDULER, uid(1))))
    await settle()
    desk.entries.lose()
    await desk.until_done(waiting)
    with pytest.raises(UpsError):
        await waiting
    await desk.until(lambda: KEY in desk.entries.documents())
    await desk.create(4)
    assert desk.heard("A")[-1] == "4: SCHEDULED"


@on_loop
async def test_shelves_deleted_without_any_command_are_written_back_as_soon_as_orthanc_tells() -> None:
    desk = await populated()
    before = desk.entries.documents()
    desk.entries.lose()
    desk.service.shelves_deleted()
    await desk.until(lambda: desk.entries.documents().keys() >= before.keys())


@on_loop
async def test_shelves_that_cannot_be_written_back_now_are_written_back_later() -> None:
    desk = await populated()
    before = desk.entries.documents()
    desk.entries.lose()
    desk.entries.unavailable = True
    looking = asyncio.ensure_future(desk.service.look_after_shelves())
    await desk.pass_by(10)
    assert not looking.done()
    desk.entries.unavailable = False
    await desk.pass_by(10)
    await looking
    assert desk.entries.documents().keys() >= before.keys()


@on_loop
async def test_shelves_deleted_while_we_were_away_are_filled_from_the_projection(tmp_path: Path) -> None:
    desk = await populated(str(tmp_path / "p.sqlite"))
    await desk.crash()
    desk.entries.lose()
    await desk.start()
    assert (desk.state(1), desk.state(2)) == ("IN PROGRESS", "IN PROGRESS")
    last = max(event.sequence for event in desk.workitem(1).events)
    await desk.create(4)
    assert desk.workitem(4).created > 3
    await desk.subscribe("A", 4)
    assert desk.events_for("A")[-1].sequence > last
