# SPDX-License-Identifier: AGPL-3.0-or-later
"""What may happen to the projection: it fails, its file is deleted or garbage; nothing is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.commands import ChangeState, Purge, RequestCancel, Subscribe
from orthanc_ups.core.dataset import element
from orthanc_ups.core.matching import Query
from orthanc_ups.core.statuses import UpsError
from orthanc_ups.core.workitem import Workitem
from orthanc_ups.projection import pending
from tests.support.delivery import settle
from tests.support.populated import populated
from tests.support.projections import break_projection
from tests.support.service import (
    FILTERED,
    SCHEDULER,
    TRANSACTION,
    Desk,
    on_loop,
    overwrite,
)
from tests.support.workitems import uid

HIGH: Final = {tags.PRIORITY: element("CS", "HIGH")}
KEY: Final = f"workitem/{uid(1)}"


# --- the projection ---


@on_loop
async def test_a_projection_that_fails_on_a_read_is_rebuilt_and_commands_are_refused_until_then() -> None:
    desk = await populated()
    break_projection(desk.service.projection)
    error = await desk.refused_now(ChangeState(SCHEDULER, uid(2), "CANCELED", TRANSACTION))
    assert error.status.code == 0x0213
    await desk.until(lambda: not desk.service.workitems.broken)
    await desk.do(ChangeState(SCHEDULER, uid(2), "CANCELED", TRANSACTION))
    assert desk.heard("A")[-1] == "2: CANCELED"
    assert desk.service.counters["rebuilds"] == 1


@on_loop
async def test_while_the_projection_is_rebuilt_commands_are_refused_at_once() -> None:
    desk = await populated()
    desk.service.locks.patience = 1_000
    break_projection(desk.service.projection)
    desk.entries.unavailable = True
    await desk.refused_now(RequestCancel(SCHEDULER, uid(1)))
    await settle()
    for command in (RequestCancel(SCHEDULER, uid(1)), Subscribe(SCHEDULER, FILTERED, "A", False, HIGH)):
        error = await asyncio.wait_for(desk.refused_now(command), 5)
        assert error.status.code == 0x0213
    with pytest.raises(UpsError):
        await desk.service.worklist.retrieve(uid(1))
    desk.entries.unavailable = False
    await desk.pass_by(5)
    assert desk.state(1) == "IN PROGRESS"


@on_loop
async def test_a_projection_that_fails_on_a_write_fails_no_command_and_forgets_nothing() -> None:
    desk = await populated()
    desk.entries.after[KEY] = asyncio.Event()
    waiting = asyncio.ensure_future(desk.service.worklist.execute(RequestCancel(SCHEDULER, uid(1))))
    await settle()
    break_projection(desk.service.projection)
    desk.entries.after[KEY].set()
    await waiting
    await desk.until(lambda: not desk.service.workitems.broken)
    assert desk.heard("A")[-1] == "1: event 2"
    assert desk.workitem(1).events[-1].sequence == desk.sequences("A")[-1]


@on_loop
async def test_an_error_of_ours_in_the_projection_does_not_undo_what_was_written() -> None:
    desk = await populated()

    def broken(workitem: Workitem, version: str, document: bytes) -> None:
        raise OverflowError("Python int too large")

    desk.service.projection.put = broken  # type: ignore[method-assign]
    await desk.do(RequestCancel(SCHEDULER, uid(1)))
    del desk.service.projection.put
    await desk.until(lambda: not desk.service.workitems.broken)
    assert desk.heard("A")[-1] == "1: event 2"
    assert desk.workitem(1).events[-1].sequence == desk.sequences("A")[-1]


@on_loop
async def test_an_error_of_ours_while_it_is_written_down_is_noticed_without_a_query(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = await populated()
    desk.service.projection.flush()

    def broken(*_: object) -> None:
        raise OverflowError("Python int too large")

    with monkeypatch.context() as patched:
        patched.setattr(pending, "change_of", broken)
        await desk.do(RequestCancel(SCHEDULER, uid(1)))
        await desk.until(lambda: desk.service.counters["rebuilds"] == 1)
    assert desk.workitem(1).events[-1].sequence == desk.sequences("A")[-1]


@on_loop
async def test_a_projection_that_fails_on_a_query_is_rebuilt() -> None:
    desk = await populated()
    break_projection(desk.service.projection)
    with pytest.raises(UpsError) as caught:
        await anext(aiter(desk.service.worklist.find(Query.of(HIGH))))
    assert caught.value.status.code == 0x0213
    await desk.until(lambda: not desk.service.workitems.broken)
    assert (await desk.service.worklist.search(Query.of({}))).total == 2


@on_loop
async def test_initial_reports_wait_for_the_rebuilding() -> None:
    desk = await populated()
    desk.channel.down["B"] = "switched off"
    await desk.subscribe("B", 1)
    await desk.subscribe("B", lock=True)
    break_projection(desk.service.projection)
    desk.entries.unavailable = True
    desk.channel.down.clear()
    await desk.pass_by(20)
    assert desk.heard("B") == ["1: IN PROGRESS"]
    desk.entries.unavailable = False
    await desk.pass_by(20)
    assert desk.heard("B") == ["1: IN PROGRESS", "2: IN PROGRESS"]


@on_loop
async def test_a_projection_whose_file_was_deleted_is_rebuilt_within_a_minute(tmp_path: Path) -> None:
    desk = await populated(str(tmp_path / "p.sqlite"))
    overwrite(desk.path, None)
    await desk.pass_by(61)
    await desk.until(lambda: not desk.service.workitems.broken)
    assert desk.service.counters["rebuilds"] == 1
    assert desk.state(1) == "IN PROGRESS"


@pytest.mark.parametrize("content", [None, b"", b"garbage " * 1_000])
def test_the_file_of_the_projection_may_be_anything_at_the_start(
    tmp_path: Path, content: bytes | None
) -> None:
    @on_loop
    async def scenario() -> None:
        desk = await populated(str(tmp_path / "p.sqlite"))
        await desk.crash()
        overwrite(desk.path, content)
        await desk.start()
        assert (desk.state(1), desk.state(2)) == ("IN PROGRESS", "IN PROGRESS")
        await desk.do(ChangeState(SCHEDULER, uid(2), "CANCELED", TRANSACTION))
        assert desk.heard("A")[-1] == "2: CANCELED"
        assert (await desk.refused(Purge(SCHEDULER, uid(3)))).status.http == 410

    scenario()


@on_loop
async def test_a_change_and_its_event_are_written_down_in_one_piece() -> None:
    desk = await Desk("A").start()
    await desk.subscribe("A")
    await desk.create()
    desk.service.projection.flush()
    statements: list[str] = []
    desk.service.projection.file.writer.set_trace_callback(statements.append)
    await desk.claim()
    desk.service.projection.flush()
    assert any("INTO event" in statement for statement in statements)
    assert statements.count("COMMIT") == 1
    events = await desk.service.projection.events(0, 10)
    assert [event.type for event in events] == [1, 1]


@on_loop
async def test_a_projection_that_fails_within_a_write_fails_no_command_and_is_rebuilt() -> None:
    desk = await Desk("A").start()
    await desk.subscribe("A")
    await desk.create()
    desk.service.projection.flush()
    desk.service.projection.file.writer.execute("DROP TABLE event")
    await desk.claim()
    await desk.until(lambda: desk.service.counters["rebuilds"] == 1)
    assert desk.service.worklist.workitem(uid(1)).state.value == "IN PROGRESS"
    await settle()
    assert desk.heard("A")[-1] == "1: IN PROGRESS"
