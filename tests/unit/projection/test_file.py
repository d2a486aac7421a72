# SPDX-License-Identifier: AGPL-3.0-or-later
"""The projection follows the store, and reports when its file fails."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from pathlib import Path

import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.interned import Interned
from orthanc_ups.core.workitem import Workitem
from orthanc_ups.projection import file as projection_file
from orthanc_ups.projection import projection as projection_module
from orthanc_ups.projection import writer as projection_writer
from orthanc_ups.projection.projection import Projection, ProjectionBroken, StoredWorkitem
from orthanc_ups.store import documents
from orthanc_ups.store.documents import encode
from orthanc_ups.store.port import Entry
from tests.support import workitems
from tests.support.projections import entry, key, matching_numbers, put, stored_workitem

# --- bringing it in step with the store ---


def test_a_rebuilding_takes_over_adds_changes_and_removes(projection: Projection) -> None:
    put(projection, stored_workitem(1), stored_workitem(2), stored_workitem(3))
    changed = stored_workitem(2, "COMPLETED", revision=4)
    with projection.rebuilding() as rebuild:
        assert rebuild.take([entry(stored_workitem(1)), entry(changed, "9")]) == []
        assert rebuild.take([entry(stored_workitem(4))]) == []
    assert sorted(matching_numbers(projection)) == [1, 2, 4]
    assert projection.get(changed.uid) == StoredWorkitem(changed, "9")
    assert projection.count() == 3


def test_unchanged_documents_are_not_read_again(
    projection: Projection, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(projection, stored_workitem(1), stored_workitem(2))
    read: list[bytes] = []

    def counted(document: bytes, interned: Interned) -> Workitem:
        read.append(document)
        return documents.decode_interned(document, interned)

    monkeypatch.setattr(projection_module, "decode_interned", counted)
    changed = stored_workitem(2, revision=1)
    with projection.rebuilding() as rebuild:
        rebuild.take([entry(stored_workitem(1), "new version"), entry(changed)])
    assert read == [encode(changed)]
    monkeypatch.undo()
    assert projection.get(workitems.uid(1)) == StoredWorkitem(stored_workitem(1), "new version")


def test_entries_that_are_no_workitems_are_given_back(projection: Projection) -> None:
    garbage = Entry(f"workitem/{workitems.uid(1)}", b"garbage", "1")
    misplaced = Entry(f"workitem/{workitems.uid(3)}", encode(stored_workitem(2)), "1")
    with projection.rebuilding() as rebuild:
        assert rebuild.take([garbage, entry(stored_workitem(4)), misplaced]) == [garbage, misplaced]
    assert matching_numbers(projection) == [4]


def test_a_large_rebuilding_of_an_empty_projection(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection_writer, "WORKITEMS_PER_COMMIT", 300)
    monkeypatch.setattr(projection_writer, "ROWS_STAGED", 2_000)
    opened = Projection.open(path)
    with opened.rebuilding() as rebuild:
        for first in range(1, 1_001, 500):
            rebuild.take([entry(stored_workitem(number)) for number in range(first, first + 500)])
    assert opened.count() == 1_000
    assert matching_numbers(opened, key(tags.SOP_INSTANCE_UID, "UI", workitems.uid(999))) == [999]
    mode = opened.file.writer.execute("PRAGMA journal_mode").fetchone()
    assert mode == ("wal",)
    opened.close()


def test_what_is_not_read_in_completely_does_not_answer(projection: Projection) -> None:
    put(projection, stored_workitem(1), stored_workitem(2))
    with pytest.raises(OSError, match="store"), projection.rebuilding() as rebuild:
        rebuild.take([entry(stored_workitem(1))])
        with pytest.raises(ProjectionBroken, match="being rebuilt"):
            projection.get(workitems.uid(1))
        raise OSError("store is away")
    with pytest.raises(ProjectionBroken, match="being rebuilt"):
        matching_numbers(projection)
    with projection.rebuilding() as rebuild:
        rebuild.take([entry(stored_workitem(1))])
    assert matching_numbers(projection) == [1]


# --- the file ---


def test_a_closed_projection_is_kept(path: Path) -> None:
    first = Projection.open(path)
    assert first.renewed == "it is new"
    put(first, stored_workitem(1))
    first.close()
    second = Projection.open(path)
    assert second.renewed is None
    assert (matching_numbers(second), second.count()) == ([1], 1)
    second.close()


@pytest.mark.parametrize("content", [b"", b"garbage" * 1_000, b"SQLite format 3\0" + b"\xff" * 5_000])
def test_garbage_is_made_anew_and_reported(
    path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(content)
    with caplog.at_level(logging.INFO, "orthanc_ups.store"):
        opened = Projection.open(path)
    assert opened.renewed
    assert "Rebuilding the projection" in caplog.text
    put(opened, stored_workitem(1))
    assert matching_numbers(opened) == [1]
    opened.close()


def test_another_version_or_zone_is_made_anew(path: Path) -> None:
    first = Projection.open(path)
    put(first, stored_workitem(1))
    first.close()
    second = Projection.open(path, timezone="+0100")
    assert second.renewed == "it was created by another version or for another time zone"
    assert matching_numbers(second) == []
    second.close()


@pytest.mark.parametrize(("boot", "expected"), [("this boot", [1]), ("another boot", [])])
def test_a_file_in_use_survives_us_but_not_the_machine(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, boot: str, expected: list[int]
) -> None:
    monkeypatch.setattr(projection_file, "boot_id", lambda: "this boot")
    running = Projection.open(path)
    put(running, stored_workitem(1))
    running.flush()
    copy = tmp_path / "left.sqlite"
    for ending in ("", "-wal"):
        Path(f"{copy}{ending}").write_bytes(Path(f"{path}{ending}").read_bytes())
    monkeypatch.setattr(projection_file, "boot_id", lambda: boot)
    opened = Projection.open(copy)
    assert matching_numbers(opened) == expected
    assert opened.renewed == (None if expected else "the machine went down while it was in use")
    opened.close()
    running.close()


def test_a_broken_projection_leaves_no_file(path: Path) -> None:
    opened = Projection.open(path)
    put(opened, stored_workitem(1))
    opened.flush()
    opened.file.writer.execute("UPDATE body SET document = x'00'")
    with pytest.raises(ProjectionBroken):
        opened.created(0, 1, 1)
    opened.close()
    assert not path.exists()


def test_two_processes_cannot_share_a_file(path: Path, projection: Projection) -> None:
    with pytest.raises(ProjectionBroken, match="in use by another process"):
        Projection.open(path)
    put(projection, stored_workitem(1))
    assert matching_numbers(projection) == [1]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProjectionBroken, match="nowhere"):
        Projection.open(tmp_path / "nowhere" / "projection.sqlite")


def test_a_malformed_zone_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="not an offset from UTC"):
        Projection.open(path, timezone="CET")


def test_memory_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    opened = Projection.open(":memory:")
    put(opened, stored_workitem(1))
    assert matching_numbers(opened) == [1]
    assert list(tmp_path.iterdir())
    opened.close()
    assert not list(tmp_path.iterdir())


# --- when it breaks ---


def fill_the_disk(projection: Projection) -> None:
    """SQLite itself says that the disk is full once the file may not grow."""
    writer = projection.file.writer
    pages = writer.execute("PRAGMA page_count").fetchone()[0]
    writer.execute(f"PRAGMA max_page_count = {pages}")


def test_a_full_disk_breaks_it_until_it_is_made_anew(projection: Projection) -> None:
    put(projection, stored_workitem(1))
    projection.flush()
    fill_the_disk(projection)
    put(projection, *(stored_workitem(number) for number in range(2, 100)))
    with pytest.raises(ProjectionBroken, match="full"):
        projection.flush()
    for use in (
        lambda: projection.get(workitems.uid(1)),
        lambda: put(projection, stored_workitem(1)),
        lambda: matching_numbers(projection),
    ):
        with pytest.raises(ProjectionBroken, match="full"):
            use()
    assert projection.count() >= 1
    projection.renew()
    with projection.rebuilding() as rebuild:
        rebuild.take([entry(stored_workitem(1)), entry(stored_workitem(2))])
    assert sorted(matching_numbers(projection)) == [1, 2]


def test_a_corrupt_document_breaks_it(projection: Projection) -> None:
    put(projection, stored_workitem(1))
    projection.flush()
    projection.file.writer.execute("UPDATE body SET document = x'00'")
    with pytest.raises(ProjectionBroken, match="not compressed"):
        matching_numbers(projection)
    with pytest.raises(ProjectionBroken, match="not compressed"):
        projection.get(workitems.uid(1))


def test_a_read_that_fails_is_reported_at_once(projection: Projection) -> None:
    """Whoever rebuilds the projection need not wait for the next change or check to hear of it."""
    reports: list[ProjectionBroken] = []
    projection.on_broken = reports.append
    put(projection, stored_workitem(1))
    projection.flush()
    projection.file.writer.execute("UPDATE body SET document = x'00'")
    with pytest.raises(ProjectionBroken, match="not compressed"):
        matching_numbers(projection)
    assert ["not compressed" in str(report) for report in reports] == [True]


def test_a_read_before_which_nothing_can_be_written_down_is_reported_at_once(projection: Projection) -> None:
    reports: list[ProjectionBroken] = []
    projection.on_broken = reports.append
    put(projection, stored_workitem(1))
    projection.flush()
    fill_the_disk(projection)
    put(projection, *(stored_workitem(number) for number in range(2, 60)))
    with pytest.raises(ProjectionBroken, match="full"):
        asyncio.run(projection.events(0, 10))
    assert ["full" in str(report) for report in reports] == [True]


def test_pages_overwritten_by_somebody_break_it_or_do_no_harm(path: Path) -> None:
    opened = Projection.open(path)
    with opened.rebuilding() as rebuild:
        rebuild.take([entry(stored_workitem(number)) for number in range(1, 601)])
    opened.close()
    opened = Projection.open(path)
    with path.open("r+b") as file:
        file.seek(8 * 4_096)
        file.write(b"\xa5" * (path.stat().st_size - 16 * 4_096))
    with pytest.raises(ProjectionBroken):
        for number in range(1, 601):
            opened.get(workitems.uid(number))
    opened.renew()
    put(opened, stored_workitem(1))
    assert matching_numbers(opened) == [1]
    opened.close()


def test_a_deleted_file_is_noticed_and_made_anew(path: Path, projection: Projection) -> None:
    put(projection, stored_workitem(1))
    projection.check()
    path.unlink()
    assert projection.get(workitems.uid(1)), "what is open lives on"
    with pytest.raises(ProjectionBroken, match="deleted"):
        projection.check()
    projection.renew()
    projection.check()
    put(projection, stored_workitem(1))
    assert matching_numbers(projection) == [1]


def test_renewing_fails_as_long_as_the_cause_is_there(path: Path, projection: Projection) -> None:
    put(projection, stored_workitem(1))
    lock = Path(f"{path}.lock")
    lock.unlink()
    lock.mkdir()
    for _ in range(2):
        with pytest.raises(ProjectionBroken):
            projection.renew()
        with pytest.raises(ProjectionBroken):
            projection.get(workitems.uid(1))
    lock.rmdir()
    projection.renew()
    put(projection, stored_workitem(1))
    assert matching_numbers(projection) == [1]


def test_a_closed_projection_says_so(projection: Projection) -> None:
    put(projection, stored_workitem(1))
    projection.close()
    projection.close()
    for use in (
        lambda: projection.get("1"),
        lambda: put(projection, stored_workitem(2)),
        lambda: matching_numbers(projection),
    ):
        with pytest.raises(ProjectionBroken, match="closed"):
            use()


def test_closing_ends_a_running_search(projection: Projection) -> None:
    """Which is no fault of the file, so nobody is asked to rebuild it."""
    reports: list[ProjectionBroken] = []
    projection.on_broken = reports.append
    put(projection, *(stored_workitem(number) for number in range(1, 601)))

    async def interrupted() -> None:
        search = asyncio.ensure_future(projection.search(key("00400400", "LT", "*nothing*")))
        await asyncio.sleep(0)
        projection.close()
        with pytest.raises(ProjectionBroken, match="closed"):
            await search

    asyncio.run(interrupted())
    assert not reports


assert sqlite3.threadsafety == 3, "connections move between the loop and worker threads"
