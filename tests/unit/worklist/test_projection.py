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
    ServiceRig,
    on_loop,
    overwrite,
)
from tests.support.workitems import uid

HIGH: Final = {tags.PRIORITY: element("CS", "HIGH")}
KEY: Final = f"workitem/{uid(1)}"


# --- the projection ---


@on_loop
async def test_a_projection_that_fails_on_a_read_is_rebuilt_and_commands_are_refused_until_then() -> None:
    rig = await populated()
    break_projection(rig.service.projection)
    error = await rig.refused_now(ChangeState(SCHEDULER, uid(2), "CANCELED", TRANSACTION))
    assert error.status.code == 0x0213
    await rig.until(lambda: not rig.service.workitems.broken)
    await rig.do(ChangeState(SCHEDULER, uid(2), "CANCELED", TRANSACTION))
    assert rig.heard("A")[-1] == "2: CANCELED"
    assert rig.service.counters["rebuilds"] == 1


@on_loop
async def test_while_the_projection_is_rebuilt_commands_are_refused_at_once() -> None:
    rig = await populated()
    rig.service.locks.patience = 1_000
    break_projection(rig.service.projection)
    rig.entries.unavailable = True
    await rig.refused_now(RequestCancel(SCHEDULER, uid(1)))
    await settle()
    for command in (RequestCancel(SCHEDULER, uid(1)), Subscribe(SCHEDULER, FILTERED, "A", False, HIGH)):
        error = await asyncio.wait_for(rig.refused_now(command), 5)
        assert error.status.code == 0x0213
    with pytest.raises(UpsError):
        await rig.service.worklist.retrieve(uid(1))
    rig.entries.unavailable = False
    await rig.pass_by(5)
    assert rig.state(1) == "IN PROGRESS"


@on_loop
async def test_a_projection_that_fails_on_a_write_fails_no_command_and_forgets_nothing() -> None:
    rig = await populated()
    rig.entries.after[KEY] = asyncio.Event()
    waiting = asyncio.ensure_future(rig.service.worklist.execute(RequestCancel(SCHEDULER, uid(1))))
    await settle()
    break_projection(rig.service.projection)
    rig.entries.after[KEY].set()
    await waiting
    await rig.until(lambda: not rig.service.workitems.broken)
    assert rig.heard("A")[-1] == "1: event 2"
    assert rig.workitem(1).events[-1].sequence == rig.sequences("A")[-1]


@on_loop
async def test_an_error_of_ours_in_the_projection_does_not_undo_what_was_written() -> None:
    rig = await populated()

    def broken(workitem: Workitem, version: str, document: bytes) -> None:
        raise OverflowError("Python int too large")

    rig.service.projection.put = broken  # type: ignore[method-assign]
    await rig.do(RequestCancel(SCHEDULER, uid(1)))
    del rig.service.projection.put
    await rig.until(lambda: not rig.service.workitems.broken)
    assert rig.heard("A")[-1] == "1: event 2"
    assert rig.workitem(1).events[-1].sequence == rig.sequences("A")[-1]


@on_loop
async def test_an_error_of_ours_while_it_is_written_down_is_noticed_without_a_query(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = await populated()
    rig.service.projection.flush()

    def broken(*_: object) -> None:
        raise OverflowError("Python int too large")

    with monkeypatch.context() as patched:
        patched.setattr(pending, "change_of", broken)
        await rig.do(RequestCancel(SCHEDULER, uid(1)))
        await rig.until(lambda: rig.service.counters["rebuilds"] == 1)
    assert rig.workitem(1).events[-1].sequence == rig.sequences("A")[-1]


@on_loop
async def test_a_projection_that_fails_on_a_query_is_rebuilt() -> None:
    rig = await populated()
    break_projection(rig.service.projection)
    with pytest.raises(UpsError) as caught:
        await anext(aiter(rig.service.worklist.find(Query.of(HIGH))))
    assert caught.value.status.code == 0x0213
    await rig.until(lambda: not rig.service.workitems.broken)
    assert (await rig.service.worklist.search(Query.of({}))).total == 2


@on_loop
async def test_initial_reports_wait_for_the_rebuilding() -> None:
    rig = await populated()
    rig.channel.down["B"] = "switched off"
    await rig.subscribe("B", 1)
    await rig.subscribe("B", lock=True)
    break_projection(rig.service.projection)
    rig.entries.unavailable = True
    rig.channel.down.clear()
    await rig.pass_by(20)
    assert rig.heard("B") == ["1: IN PROGRESS"]
    rig.entries.unavailable = False
    await rig.pass_by(20)
    assert rig.heard("B") == ["1: IN PROGRESS", "2: IN PROGRESS"]


@on_loop
async def test_a_projection_whose_file_was_deleted_is_rebuilt_within_a_minute(tmp_path: Path) -> None:
    rig = await populated(str(tmp_path / "p.sqlite"))
    overwrite(rig.path, None)
    await rig.pass_by(61)
    await rig.until(lambda: not rig.service.workitems.broken)
    assert rig.service.counters["rebuilds"] == 1
    assert rig.state(1) == "IN PROGRESS"


@pytest.mark.parametrize("content", [None, b"", b"garbage " * 1_000])
def test_the_file_of_the_projection_may_be_anything_at_the_start(
    tmp_path: Path, content: bytes | None
) -> None:
    @on_loop
    async def scenario() -> None:
        rig = await populated(str(tmp_path / "p.sqlite"))
        await rig.crash()
        overwrite(rig.path, content)
        await rig.start()
        assert (rig.state(1), rig.state(2)) == ("IN PROGRESS", "IN PROGRESS")
        await rig.do(ChangeState(SCHEDULER, uid(2), "CANCELED", TRANSACTION))
        assert rig.heard("A")[-1] == "2: CANCELED"
        assert (await rig.refused(Purge(SCHEDULER, uid(3)))).status.http == 410

    scenario()


@on_loop
async def test_a_change_and_its_event_are_written_down_in_one_piece() -> None:
    rig = await ServiceRig("A").start()
    await rig.subscribe("A")
    await rig.create()
    rig.service.projection.flush()
    statements: list[str] = []
    rig.service.projection.file.writer.set_trace_callback(statements.append)
    await rig.claim()
    rig.service.projection.flush()
    assert any("INTO event" in statement for statement in statements)
    assert statements.count("COMMIT") == 1
    events = await rig.service.projection.events(0, 10)
    assert [event.type for event in events] == [1, 1]


@on_loop
async def test_a_projection_that_fails_within_a_write_fails_no_command_and_is_rebuilt() -> None:
    rig = await ServiceRig("A").start()
    await rig.subscribe("A")
    await rig.create()
    rig.service.projection.flush()
    rig.service.projection.file.writer.execute("DROP TABLE event")
    await rig.claim()
    await rig.until(lambda: rig.service.counters["rebuilds"] == 1)
    assert rig.service.worklist.workitem(uid(1)).state.value == "IN PROGRESS"
    await settle()
    assert rig.heard("A")[-1] == "1: IN PROGRESS"
