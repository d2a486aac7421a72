# SPDX-License-Identifier: AGPL-3.0-or-later
"""Shelves that are deleted at the worst moment: the projection then holds the last copy, and it is kept."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from orthanc_ups.core.commands import RequestCancel
from orthanc_ups.store.copy import path_beside
from orthanc_ups.store.port import Entry, StoreUnavailable
from orthanc_ups.worklist.workitem_store import VANISHED
from tests.support.delivery import settle
from tests.support.populated import populated
from tests.support.projections import break_projection
from tests.support.service import SCHEDULER, Desk, SlowEntries, on_loop
from tests.support.workitems import uid


class LostWhileRead(SlowEntries):
    """Somebody deletes the shelves as their entries are asked for; they give what a shelf without marks gives."""

    def load(self) -> AsyncIterator[list[Entry]]:
        self.lose()
        return super().load()


def is_back(desk: Desk) -> bool:
    return desk.entries.documents("workitem/").keys() >= {f"workitem/{uid(number)}" for number in (1, 2)}


@on_loop
async def test_shelves_deleted_while_they_are_read_at_the_start_cost_nothing(tmp_path: Path) -> None:
    desk = await populated(str(tmp_path / "p.sqlite"))
    await desk.crash()
    entries = desk.entries
    desk.entries = LostWhileRead(entries)
    with pytest.raises(StoreUnavailable):
        await desk.make().start()
    await desk.service.stop()
    desk.entries = entries.another()
    await desk.start()
    assert (desk.state(1), desk.state(2)) == ("IN PROGRESS", "IN PROGRESS")
    assert is_back(desk)


@on_loop
async def test_what_was_deleted_while_it_was_read_is_written_back_by_the_same_start(tmp_path: Path) -> None:
    desk = await populated(str(tmp_path / "p.sqlite"))
    await desk.crash()
    loads = desk.entries.load

    def lost_once() -> AsyncIterator[list[Entry]]:
        desk.entries.load = loads  # type: ignore[method-assign]
        desk.entries.lose()
        return loads()

    desk.entries.load = lost_once  # type: ignore[method-assign]
    await desk.make().start()
    await settle()
    assert (desk.state(1), desk.state(2)) == ("IN PROGRESS", "IN PROGRESS")
    assert is_back(desk)


@on_loop
async def test_a_deletion_that_orthanc_tells_of_while_a_look_is_under_way_is_not_missed() -> None:
    desk = await populated()
    missing, has_looked, may_answer = desk.entries.missing, asyncio.Event(), asyncio.Event()

    async def slow() -> frozenset[int]:
        desk.entries.missing = missing  # type: ignore[method-assign]
        seen = await missing()
        has_looked.set()
        await may_answer.wait()
        return seen

    desk.entries.missing = slow  # type: ignore[method-assign]
    desk.service.shelves_deleted()
    await has_looked.wait()
    desk.entries.lose()
    desk.service.shelves_deleted()
    may_answer.set()
    await desk.until(lambda: is_back(desk))


@on_loop
async def test_a_deletion_between_reading_and_the_end_of_the_start_is_not_missed(tmp_path: Path) -> None:
    desk = await populated(str(tmp_path / "p.sqlite"))
    await desk.crash()
    service = desk.make()
    resume = service.delivery.resume

    def delete_and_resume(*arguments: Any) -> None:
        desk.entries.lose()
        service.shelves_deleted()  # nobody is there yet to write it back
        resume(*arguments)

    service.delivery.resume = delete_and_resume  # type: ignore[method-assign, assignment]
    await service.start()
    await desk.until(lambda: is_back(desk))


@on_loop
async def test_shelves_are_not_read_to_see_whether_they_are_there() -> None:
    desk = await populated()
    await settle()
    looks = desk.entries.calls["missing"]
    await desk.pass_by(3600)
    assert desk.entries.calls["missing"] == looks


@on_loop
async def test_whoever_writes_next_notices_a_deletion_of_which_nobody_told() -> None:
    desk = await populated()
    await settle()
    desk.entries.lose()
    with pytest.raises(StoreUnavailable):
        await desk.service.prove_store()
    await desk.until(lambda: is_back(desk))


@on_loop
async def test_shelves_deleted_while_the_projection_is_broken_are_filled_from_what_can_be_read_of_it(
    tmp_path: Path,
) -> None:
    desk = await populated(str(tmp_path / "p.sqlite"))
    projection, before = desk.service.projection, desk.entries.documents()
    desk.entries.lose()
    break_projection(projection)
    desk.service.workitems.check_file()
    await desk.until(lambda: not desk.service.workitems.broken)
    after = desk.entries.documents()
    assert {key: after[key] for key in before} == before
    assert (desk.state(1), desk.state(2)) == ("IN PROGRESS", "IN PROGRESS")


@on_loop
async def test_if_nothing_can_be_read_of_it_that_is_said_and_the_rest_written_back(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    desk = await populated(str(tmp_path / "p.sqlite"))
    desk.entries.lose()
    desk.service.projection.file.close(keep=False)
    desk.service.workitems.check_file()
    await desk.until(lambda: not desk.service.workitems.broken)
    assert "workitems are lost" in caplog.text
    assert "nothing is lost" not in caplog.text
    assert desk.entries.documents("subscriber/")
    await desk.create(9)
    assert desk.heard("A")[-1] == "9: SCHEDULED"


@on_loop
async def test_an_entry_that_had_vanished_by_itself_does_not_stop_the_others_from_coming_back() -> None:
    desk = await populated()
    stored = desk.service.projection.get(uid(1))
    assert stored is not None
    desk.service.projection.put(stored.workitem, VANISHED, stored.document)
    desk.entries.lose()
    desk.service.shelves_deleted()
    await desk.until(lambda: is_back(desk))
    await desk.do(RequestCancel(SCHEDULER, uid(1)))
    await desk.restart()
    assert desk.state(1) == "IN PROGRESS"


@on_loop
@pytest.mark.parametrize("ending", ["killed", "stopped"])
async def test_everything_comes_back_that_was_deleted_while_the_plugin_was_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, ending: str
) -> None:
    desk = await populated(str(tmp_path / "p.sqlite"))
    if ending == "killed":
        before = desk.entries.documents()
        await desk.crash()
    else:
        await desk.stop()
        before = desk.entries.documents()
        desk.entries = desk.entries.another()
    desk.entries.lose()
    await desk.start()
    after = desk.entries.documents()
    assert after.keys() >= before.keys()
    for kind in ("workitem/", "subscriber/", "dead/", "events/"):
        assert {k: d for k, d in after.items() if k.startswith(kind)} == {
            k: d for k, d in before.items() if k.startswith(kind)
        }
    assert "1 × purged workitem" in caplog.text and "× delivery cursor" in caplog.text
    assert "are lost" not in caplog.text
    count = len(desk.events_for("A"))
    await desk.pass_by(5)
    assert len(desk.events_for("A")) == count, "the cursors came back: nothing is told twice"
    await desk.create(9)
    assert desk.heard("A")[-1] == "9: SCHEDULED"


@on_loop
async def test_what_cannot_be_made_good_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    desk = await populated(str(tmp_path / "p.sqlite"))
    await desk.stop()
    for ending in ("", "-wal", "-shm"):
        (tmp_path / f"p.sqlite.entries{ending}").unlink(missing_ok=True)
    desk.entries.lose()
    await desk.start()
    assert "Subscriptions, delivery cursors, dead letters" in caplog.text and "are lost" in caplog.text
    await desk.stop()
    (tmp_path / "p.sqlite").unlink()
    desk.entries.lose()
    await desk.start()
    assert "The workitems in what was deleted are lost" in caplog.text


@on_loop
async def test_at_the_start_the_store_wins_over_the_copy(tmp_path: Path) -> None:
    desk = await populated(str(tmp_path / "p.sqlite"))
    await desk.stop()
    removed = next(key for key in desk.entries.documents("dead/"))
    desk.entries.tamper(removed, None)
    await desk.start()
    assert removed not in desk.service.copy.versions()
    await desk.stop()
    desk.entries.lose()
    await desk.start()
    assert removed not in desk.entries.documents()


@on_loop
async def test_a_copy_that_cannot_be_written_is_said_once_and_made_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    desk = await populated(str(tmp_path / "p.sqlite"))
    copy = desk.service.copy
    with contextlib.closing(sqlite3.connect(path_beside(desk.path))) as outside:
        outside.execute("DROP TABLE entry")
    await desk.subscribe("C")
    await desk.unsubscribe("C")
    assert caplog.text.count("cannot be written") == 1
    await desk.pass_by(61)
    assert copy.broken is None
    stored = desk.entries.documents()
    kinds = ("subscriber/", "dead/", "events/", "delivery/", "worklist")
    assert copy.versions().keys() >= {key for key in stored if key.startswith(kinds)}


@on_loop
async def test_a_copy_that_is_garbage_does_not_stop_the_start(tmp_path: Path) -> None:
    (tmp_path / "p.sqlite.entries").write_bytes(b"garbage " * 2_000)
    desk = await populated(str(tmp_path / "p.sqlite"))
    assert desk.service.copy.broken is None
    assert desk.service.copy.versions()


@on_loop
async def test_no_copy_is_kept_of_a_store_from_which_nobody_can_take_entries_away(tmp_path: Path) -> None:
    desk = await populated(str(tmp_path / "p.sqlite"))
    assert desk.service.copy.versions()
    await desk.stop()

    class Hidden(SlowEntries):
        exposed = False

    desk.entries = Hidden(desk.entries)
    await desk.start()
    await desk.subscribe("C")
    assert desk.service.copy.versions() == {}


@on_loop
@pytest.mark.parametrize("fault", ["another version", "the machine went down"])
async def test_a_projection_that_is_of_no_use_for_queries_still_gives_its_workitems_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    desk = await populated(str(tmp_path / "p.sqlite"))
    before = desk.entries.documents("workitem/")
    await desk.stop()
    meta = (
        ("fingerprint", "an older one")
        if fault == "another version"
        else ("used_since_boot", "an earlier one")
    )
    with sqlite3.connect(tmp_path / "p.sqlite") as connection:
        connection.execute("UPDATE meta SET value = ? WHERE name = ?", meta[::-1])
    connection.close()
    desk.entries.lose()
    await desk.start()
    assert desk.service.projection.renewed
    assert desk.entries.documents("workitem/") == before
    assert (desk.state(1), desk.state(2)) == ("IN PROGRESS", "IN PROGRESS")
    assert "are lost" not in caplog.text
    assert not (tmp_path / "p.sqlite.old").exists()
