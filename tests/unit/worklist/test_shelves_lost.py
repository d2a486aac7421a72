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
from tests.support.service import SCHEDULER, ServiceRig, SlowEntries, on_loop
from tests.support.workitems import uid


class LostWhileRead(SlowEntries):
    """Somebody deletes the shelves as their entries are asked for; they give what a shelf without marks gives."""

    def load(self) -> AsyncIterator[list[Entry]]:
        self.lose()
        return super().load()


def is_back(rig: ServiceRig) -> bool:
    return rig.entries.documents("workitem/").keys() >= {f"workitem/{uid(number)}" for number in (1, 2)}


@on_loop
async def test_shelves_deleted_while_they_are_read_at_the_start_cost_nothing(tmp_path: Path) -> None:
    rig = await populated(str(tmp_path / "p.sqlite"))
    await rig.crash()
    entries = rig.entries
    rig.entries = LostWhileRead(entries)
    with pytest.raises(StoreUnavailable):
        await rig.make().start()
    await rig.service.stop()
    rig.entries = entries.another()
    await rig.start()
    assert (rig.state(1), rig.state(2)) == ("IN PROGRESS", "IN PROGRESS")
    assert is_back(rig)


@on_loop
async def test_what_was_deleted_while_it_was_read_is_written_back_by_the_same_start(tmp_path: Path) -> None:
    rig = await populated(str(tmp_path / "p.sqlite"))
    await rig.crash()
    loads = rig.entries.load

    def lost_once() -> AsyncIterator[list[Entry]]:
        rig.entries.load = loads  # type: ignore[method-assign]
        rig.entries.lose()
        return loads()

    rig.entries.load = lost_once  # type: ignore[method-assign]
    await rig.make().start()
    await settle()
    assert (rig.state(1), rig.state(2)) == ("IN PROGRESS", "IN PROGRESS")
    assert is_back(rig)


@on_loop
async def test_a_deletion_that_orthanc_tells_of_while_a_look_is_under_way_is_not_missed() -> None:
    rig = await populated()
    missing, has_looked, may_answer = rig.entries.missing, asyncio.Event(), asyncio.Event()

    async def slow() -> frozenset[int]:
        rig.entries.missing = missing  # type: ignore[method-assign]
        seen = await missing()
        has_looked.set()
        await may_answer.wait()
        return seen

    rig.entries.missing = slow  # type: ignore[method-assign]
    rig.service.shelves_deleted()
    await has_looked.wait()
    rig.entries.lose()
    rig.service.shelves_deleted()
    may_answer.set()
    await rig.until(lambda: is_back(rig))


@on_loop
async def test_a_deletion_between_reading_and_the_end_of_the_start_is_not_missed(tmp_path: Path) -> None:
    rig = await populated(str(tmp_path / "p.sqlite"))
    await rig.crash()
    service = rig.make()
    resume = service.delivery.resume

    def delete_and_resume(*arguments: Any) -> None:
        rig.entries.lose()
        service.shelves_deleted()  # nobody is there yet to write it back
        resume(*arguments)

    service.delivery.resume = delete_and_resume  # type: ignore[method-assign, assignment]
    await service.start()
    await rig.until(lambda: is_back(rig))


@on_loop
async def test_shelves_are_not_read_to_see_whether_they_are_there() -> None:
    rig = await populated()
    await settle()
    looks = rig.entries.calls["missing"]
    await rig.pass_by(3600)
    assert rig.entries.calls["missing"] == looks


@on_loop
async def test_whoever_writes_next_notices_a_deletion_of_which_nobody_told() -> None:
    rig = await populated()
    await settle()
    rig.entries.lose()
    with pytest.raises(StoreUnavailable):
        await rig.service.prove_store()
    await rig.until(lambda: is_back(rig))


@on_loop
async def test_shelves_deleted_while_the_projection_is_broken_are_filled_from_what_can_be_read_of_it(
    tmp_path: Path,
) -> None:
    rig = await populated(str(tmp_path / "p.sqlite"))
    projection, before = rig.service.projection, rig.entries.documents()
    rig.entries.lose()
    break_projection(projection)
    rig.service.workitems.check_file()
    await rig.until(lambda: not rig.service.workitems.broken)
    after = rig.entries.documents()
    assert {key: after[key] for key in before} == before
    assert (rig.state(1), rig.state(2)) == ("IN PROGRESS", "IN PROGRESS")


@on_loop
async def test_if_nothing_can_be_read_of_it_that_is_said_and_the_rest_written_back(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    rig = await populated(str(tmp_path / "p.sqlite"))
    rig.entries.lose()
    rig.service.projection.file.close(keep=False)
    rig.service.workitems.check_file()
    await rig.until(lambda: not rig.service.workitems.broken)
    assert "workitems are lost" in caplog.text
    assert "nothing is lost" not in caplog.text
    assert rig.entries.documents("subscriber/")
    await rig.create(9)
    assert rig.heard("A")[-1] == "9: SCHEDULED"


@on_loop
async def test_an_entry_that_had_vanished_by_itself_does_not_stop_the_others_from_coming_back() -> None:
    rig = await populated()
    stored = rig.service.projection.get(uid(1))
    assert stored is not None
    rig.service.projection.put(stored.workitem, VANISHED, stored.document)
    rig.entries.lose()
    rig.service.shelves_deleted()
    await rig.until(lambda: is_back(rig))
    await rig.do(RequestCancel(SCHEDULER, uid(1)))
    await rig.restart()
    assert rig.state(1) == "IN PROGRESS"


@on_loop
@pytest.mark.parametrize("ending", ["killed", "stopped"])
async def test_everything_comes_back_that_was_deleted_while_the_plugin_was_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, ending: str
) -> None:
    rig = await populated(str(tmp_path / "p.sqlite"))
    if ending == "killed":
        before = rig.entries.documents()
        await rig.crash()
    else:
        await rig.stop()
        before = rig.entries.documents()
        rig.entries = rig.entries.another()
    rig.entries.lose()
    await rig.start()
    after = rig.entries.documents()
    assert after.keys() >= before.keys()
    for kind in ("workitem/", "subscriber/", "dead/", "events/"):
        assert {k: d for k, d in after.items() if k.startswith(kind)} == {
            k: d for k, d in before.items() if k.startswith(kind)
        }
    assert "1 × purged workitem" in caplog.text and "× delivery cursor" in caplog.text
    assert "are lost" not in caplog.text
    count = len(rig.events_for("A"))
    await rig.pass_by(5)
    assert len(rig.events_for("A")) == count, "the cursors came back: nothing is told twice"
    await rig.create(9)
    assert rig.heard("A")[-1] == "9: SCHEDULED"


@on_loop
async def test_what_cannot_be_made_good_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rig = await populated(str(tmp_path / "p.sqlite"))
    await rig.stop()
    for ending in ("", "-wal", "-shm"):
        (tmp_path / f"p.sqlite.entries{ending}").unlink(missing_ok=True)
    rig.entries.lose()
    await rig.start()
    assert "Subscriptions, delivery cursors, dead letters" in caplog.text and "are lost" in caplog.text
    await rig.stop()
    (tmp_path / "p.sqlite").unlink()
    rig.entries.lose()
    await rig.start()
    assert "The workitems in what was deleted are lost" in caplog.text


@on_loop
async def test_at_the_start_the_store_wins_over_the_copy(tmp_path: Path) -> None:
    rig = await populated(str(tmp_path / "p.sqlite"))
    await rig.stop()
    removed = next(key for key in rig.entries.documents("dead/"))
    rig.entries.tamper(removed, None)
    await rig.start()
    assert removed not in rig.service.copy.versions()
    await rig.stop()
    rig.entries.lose()
    await rig.start()
    assert removed not in rig.entries.documents()


@on_loop
async def test_a_copy_that_cannot_be_written_is_said_once_and_made_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rig = await populated(str(tmp_path / "p.sqlite"))
    copy = rig.service.copy
    with contextlib.closing(sqlite3.connect(path_beside(rig.path))) as outside:
        outside.execute("DROP TABLE entry")
    await rig.subscribe("C")
    await rig.unsubscribe("C")
    assert caplog.text.count("cannot be written") == 1
    await rig.pass_by(61)
    assert copy.broken is None
    stored = rig.entries.documents()
    kinds = ("subscriber/", "dead/", "events/", "delivery/", "worklist")
    assert copy.versions().keys() >= {key for key in stored if key.startswith(kinds)}


@on_loop
async def test_a_copy_that_is_garbage_does_not_stop_the_start(tmp_path: Path) -> None:
    (tmp_path / "p.sqlite.entries").write_bytes(b"garbage " * 2_000)
    rig = await populated(str(tmp_path / "p.sqlite"))
    assert rig.service.copy.broken is None
    assert rig.service.copy.versions()


@on_loop
async def test_no_copy_is_kept_of_a_store_from_which_nobody_can_take_entries_away(tmp_path: Path) -> None:
    rig = await populated(str(tmp_path / "p.sqlite"))
    assert rig.service.copy.versions()
    await rig.stop()

    class Hidden(SlowEntries):
        exposed = False

    rig.entries = Hidden(rig.entries)
    await rig.start()
    await rig.subscribe("C")
    assert rig.service.copy.versions() == {}


@on_loop
@pytest.mark.parametrize("fault", ["another version", "the machine went down"])
async def test_a_projection_that_is_of_no_use_for_queries_still_gives_its_workitems_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    rig = await populated(str(tmp_path / "p.sqlite"))
    before = rig.entries.documents("workitem/")
    await rig.stop()
    meta = (
        ("fingerprint", "an older one")
        if fault == "another version"
        else ("used_since_boot", "an earlier one")
    )
    with sqlite3.connect(tmp_path / "p.sqlite") as connection:
        connection.execute("UPDATE meta SET value = ? WHERE name = ?", meta[::-1])
    connection.close()
    rig.entries.lose()
    await rig.start()
    assert rig.service.projection.renewed
    assert rig.entries.documents("workitem/") == before
    assert (rig.state(1), rig.state(2)) == ("IN PROGRESS", "IN PROGRESS")
    assert "are lost" not in caplog.text
    assert not (tmp_path / "p.sqlite.old").exists()
