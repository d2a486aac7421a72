# SPDX-License-Identifier: AGPL-3.0-or-later
"""The projection keeps what it is given, forgets what is gone, and is honest when its file fails."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import DataSet, element, text
from orthanc_ups.core.events import Event, EventType
from orthanc_ups.core.matching import Query
from orthanc_ups.core.statuses import OUT_OF_RESOURCES, UpsError
from orthanc_ups.core.workitem import SpecificAct, Subscription, Workitem
from orthanc_ups.store import document as documents
from orthanc_ups.store import projection as projection_module
from orthanc_ups.store import projection_file, projection_searches, projection_writes
from orthanc_ups.store.document import encode
from orthanc_ups.store.port import Entry
from orthanc_ups.store.projection import Kept, Projection, ProjectionBroken
from tests.support import workitems

EVERYTHING = Query.of({tags.SOP_INSTANCE_UID: element("UI")})


FULL = workitems.stored(base=workitems.full())


def made(number: int, state: str = "SCHEDULED", **more: object) -> Workitem:
    attributes = FULL | {
        tags.SOP_INSTANCE_UID: element("UI", workitems.uid(number)),
        tags.STATE: element("CS", state),
    }
    return dataclasses.replace(Workitem(workitems.uid(number), number, attributes), **more)  # type: ignore[arg-type]


def entry(workitem: Workitem, version: str = "1") -> Entry:
    return Entry(f"workitem/{workitem.uid}", encode(workitem), version)


def put(projection: Projection, *given: Workitem, version: str = "1") -> None:
    for one in given:
        projection.put(one, version, encode(one))


def found(projection: Projection, query: Query = EVERYTHING) -> list[int]:
    rows, total = asyncio.run(projection.search(query))
    assert len(rows) == total
    return [int(text(one, tags.SOP_INSTANCE_UID).rpartition(".")[2]) for one in rows]


def key(tag: str, vr: str, value: object) -> Query:
    return Query.of({tag: element(vr, value)})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "projection.sqlite"


@pytest.fixture
def projection(path: Path) -> Iterator[Projection]:
    opened = Projection.open(path)
    yield opened
    opened.close()


# --- single workitems ---


def test_what_was_put_is_got_again(projection: Projection) -> None:
    assert projection.get(workitems.uid(1)) is None
    put(projection, made(1), version="a")
    assert projection.get(workitems.uid(1)) == Kept(made(1), "a")
    assert projection.version_of(workitems.uid(1)) == "a"
    assert projection.count() == 1


def test_a_later_put_replaces_what_is_kept_and_indexed(projection: Projection) -> None:
    put(projection, made(1), made(2))
    changed = made(1, "IN PROGRESS", revision=1)
    changed.attributes[tags.STATION_NAME] = element("SQ", workitems.station("READING9"))
    changed.attributes[tags.PATIENT_ID] = element("LO", "OTHER")
    put(projection, changed, version="2")
    assert projection.get(changed.uid) == Kept(changed, "2")
    assert projection.count() == 2
    assert found(projection, key(tags.STATE, "CS", "IN PROGRESS")) == [1]
    assert found(projection, key(tags.PATIENT_ID, "LO", "OTHER")) == [1]
    assert found(projection, key(tags.PATIENT_ID, "LO", "HC-000815")) == [2]
    for station, expected in (("READING7", [2]), ("READING9", [1])):
        item = {tags.CODE_VALUE: element("SH", station)}
        assert found(projection, Query.of({tags.STATION_NAME: element("SQ", item)})) == expected


def test_a_put_after_a_get_indexes_what_changed(projection: Projection) -> None:
    """The quick way of a write that leaves most elements as they were."""
    put(projection, made(1))
    for turn, (state, patient) in enumerate([("IN PROGRESS", "HC-000815"), ("COMPLETED", "OTHER")]):
        kept = projection.get(workitems.uid(1))
        assert kept
        attributes = {**kept.workitem.attributes, tags.STATE: element("CS", state)}
        if patient == "OTHER":
            attributes[tags.PATIENT_ID] = element("LO", patient)
        put(projection, dataclasses.replace(kept.workitem, attributes=attributes, revision=turn))
        station = {tags.STATION_NAME: element("SQ", {tags.CODE_VALUE: element("SH", "READING7")})}
        asked = {tags.STATE: element("CS", state), tags.PATIENT_ID: element("LO", patient)}
        assert found(projection, Query.of(asked)) == [1]
        assert found(projection, Query.of({tags.STATE: element("CS", state), **station})) == [1]
        assert found(projection, Query.of({tags.STATE: element("CS", "SCHEDULED"), **station})) == []


def test_a_removed_workitem_is_found_nowhere(projection: Projection) -> None:
    put(projection, made(1), made(2))
    projection.remove(workitems.uid(1))
    projection.remove(workitems.uid(1))
    assert projection.get(workitems.uid(1)) is None
    assert found(projection) == [2]
    assert projection.count() == 1
    rows = [
        projection._file.writer.execute(f"SELECT COUNT(*) FROM {table}") for table in ("code", "key", "body")
    ]
    put(projection, made(1))
    projection.remove(workitems.uid(1))
    again = [
        projection._file.writer.execute(f"SELECT COUNT(*) FROM {table}") for table in ("code", "key", "body")
    ]
    assert [one.fetchall() for one in rows] == [one.fetchall() for one in again]


def test_a_search_sees_every_write_before_it(projection: Projection) -> None:
    for number in range(1, 20):
        put(projection, made(number))
        assert found(projection) == list(range(1, number + 1))


# --- many workitems ---


def test_created_goes_through_in_the_order_of_creation(projection: Projection) -> None:
    put(projection, *(made(number) for number in (5, 2, 9, 3)))
    assert [one.created for one in projection.created(0, 100, 10)] == [2, 3, 5, 9]
    assert [one.created for one in projection.created(2, 5, 10)] == [3, 5]
    assert [one.created for one in projection.created(2, 100, 2)] == [3, 5]


def test_ended_before_gives_the_oldest_first(projection: Projection) -> None:
    put(projection, made(1), made(2, "COMPLETED", ended=20.0), made(3, "CANCELED", ended=10.0))
    put(projection, made(4, "COMPLETED", ended=30.0))
    assert [one.created for one in projection.ended_before(30.0, 10)] == [3, 2]
    assert [one.created for one in projection.ended_before(99.0, 1)] == [3]


def test_workitems_with_events_or_acts_are_found_without_reading_the_others(projection: Projection) -> None:
    event = Event(7, EventType.STATE_REPORT, workitems.uid(2), {}, ("AI",), 1.0)
    put(projection, made(1), made(2, events=(event,)), made(4, spilled=(3,)))
    put(projection, *(made(number) for number in range(10, 300)))
    put(projection, made(300, acts={"AI": SpecificAct(3, Subscription.LOCK)}))
    assert [one.created for one in projection.with_events_after(6)] == [2]
    assert [one.created for one in projection.with_events_after(7)] == []
    assert [one.created for one in projection.with_acts()] == [4, 300]


def test_documents_are_what_was_put(projection: Projection) -> None:
    put(projection, *(made(number) for number in range(1, 451)), version="v")
    given = {(f"workitem/{workitems.uid(n)}", encode(made(n)), "v") for n in range(1, 451)}
    assert set(projection.documents()) == given


def test_counts_per_worklist_and_state(projection: Projection) -> None:
    put(projection, made(1), made(2), made(3, "COMPLETED"))
    other = made(4)
    other.attributes[tags.WORKLIST_LABEL] = element("LO", "MR")
    put(projection, other)
    counts = asyncio.run(projection.counts())
    assert counts.by_worklist == {"SECOND READS": {"SCHEDULED": 2, "COMPLETED": 1}, "MR": {"SCHEDULED": 1}}
    assert counts.by_state == {"SCHEDULED": 3, "COMPLETED": 1}
    assert counts.total == 4


# --- searches ---


def test_an_unknown_order_is_an_error_that_names_the_known_ones(projection: Projection) -> None:
    with pytest.raises(ValueError, match="expected one of start, created"):
        asyncio.run(projection.search(EVERYTHING, order="age"))


def test_a_stream_can_be_abandoned(projection: Projection) -> None:
    put(projection, *(made(number) for number in range(1, 31)))

    async def first() -> int:
        async for chunk in projection.stream(EVERYTHING, 10):
            return len(chunk)
        return 0

    assert asyncio.run(first()) == 10
    assert found(projection) == list(range(1, 31))


def test_a_workitem_that_moves_ahead_during_a_stream_is_told_once(projection: Projection) -> None:
    put(projection, *(made(number) for number in range(1, 31)))

    async def told() -> list[str]:
        seen = []
        async for chunk in projection.stream(EVERYTHING, 10):
            seen += [text(one, tags.SOP_INSTANCE_UID) for one in chunk]
            moved = made(1)
            moved.attributes[tags.START] = element("DT", "2030")
            put(projection, moved)
        return seen

    seen = asyncio.run(told())
    assert sorted(seen) == sorted(workitems.uid(number) for number in range(1, 31))


def test_too_many_waiting_searches_are_refused(
    projection: Projection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection_searches, "_WAITING", 3)
    put(projection, made(1))

    async def many() -> list[object]:
        asked = [projection.search(EVERYTHING) for _ in range(5)]
        return list(await asyncio.gather(*asked, return_exceptions=True))

    outcomes = asyncio.run(many())
    refused = [one for one in outcomes if isinstance(one, UpsError)]
    assert [one.status for one in refused] == [OUT_OF_RESOURCES] * 2
    assert found(projection) == [1]


def test_paging_counts_once_as_long_as_nothing_changes(projection: Projection) -> None:
    put(projection, *(made(number) for number in range(1, 31)))
    query = key("00400400", "LT", "*last year*")

    async def pages() -> None:
        seen = [await projection.search(query, offset, 10) for offset in (0, 10, 20)]
        assert [total for _, total in seen] == [30, 30, 30]
        uids = [text(one, tags.SOP_INSTANCE_UID) for rows, _ in seen for one in rows]
        assert uids == [workitems.uid(number) for number in range(1, 31)]
        put(projection, made(31))
        assert (await projection.search(query, 30, 10))[1] == 31

    asyncio.run(pages())


def test_queries_of_another_zone_find_what_matches_there(path: Path) -> None:
    opened = Projection.open(path, timezone="+0100")
    put(opened, made(1))
    for zone, hour in (("+0100", "18"), ("+0900", "18"), (None, "18")):
        query = Query.of({tags.START: element("DT", f"20261122{hour}")}, timezone=zone)
        assert found(opened, query) == [1]
    assert found(opened, Query.of({tags.START: element("DT", "2026112217+0000")}, timezone="+0100")) == [1]
    assert found(opened, Query.of({tags.START: element("DT", "2026112217+0000")}, timezone="+0000")) == []
    opened.close()


# --- bringing it in step with the store ---


def test_a_rebuilding_takes_over_adds_changes_and_removes(projection: Projection) -> None:
    put(projection, made(1), made(2), made(3))
    changed = made(2, "COMPLETED", revision=4)
    with projection.rebuilding() as rebuild:
        assert rebuild.take([entry(made(1)), entry(changed, "9")]) == []
        assert rebuild.take([entry(made(4))]) == []
    assert sorted(found(projection)) == [1, 2, 4]
    assert projection.get(changed.uid) == Kept(changed, "9")
    assert projection.count() == 3


def test_unchanged_documents_are_not_read_again(
    projection: Projection, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(projection, made(1), made(2))
    read: list[bytes] = []

    def counted(document: bytes) -> Workitem:
        read.append(document)
        return documents.decode(document)

    monkeypatch.setattr(projection_module, "decode", counted)
    changed = made(2, revision=1)
    with projection.rebuilding() as rebuild:
        rebuild.take([entry(made(1), "new version"), entry(changed)])
    assert read == [encode(changed)]
    assert projection.version_of(workitems.uid(1)) == "new version"


def test_entries_that_are_no_workitems_are_given_back(projection: Projection) -> None:
    garbage = Entry(f"workitem/{workitems.uid(1)}", b"garbage", "1")
    misplaced = Entry(f"workitem/{workitems.uid(3)}", encode(made(2)), "1")
    with projection.rebuilding() as rebuild:
        assert rebuild.take([garbage, entry(made(4)), misplaced]) == [garbage, misplaced]
    assert found(projection) == [4]


def test_a_large_rebuilding_of_an_empty_projection(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection_writes, "_WORKITEMS_PER_COMMIT", 300)
    monkeypatch.setattr(projection_writes, "_ROWS_STAGED", 2_000)
    opened = Projection.open(path)
    with opened.rebuilding() as rebuild:
        for first in range(1, 1_001, 500):
            rebuild.take([entry(made(number)) for number in range(first, first + 500)])
    assert opened.count() == 1_000
    assert found(opened, key(tags.SOP_INSTANCE_UID, "UI", workitems.uid(999))) == [999]
    mode = opened._file.writer.execute("PRAGMA journal_mode").fetchone()
    assert mode == ("wal",)
    opened.close()


def test_what_is_not_read_in_completely_does_not_answer(projection: Projection) -> None:
    put(projection, made(1), made(2))
    with pytest.raises(OSError, match="store"), projection.rebuilding() as rebuild:
        rebuild.take([entry(made(1))])
        with pytest.raises(ProjectionBroken, match="being read in"):
            projection.get(workitems.uid(1))
        raise OSError("store is away")
    with pytest.raises(ProjectionBroken, match="being read in"):
        found(projection)
    with projection.rebuilding() as rebuild:
        rebuild.take([entry(made(1))])
    assert found(projection) == [1]


# --- the file ---


def test_a_closed_projection_is_kept(path: Path) -> None:
    first = Projection.open(path)
    assert first.renewed == "it is new"
    put(first, made(1))
    first.close()
    second = Projection.open(path)
    assert second.renewed is None
    assert (found(second), second.count()) == ([1], 1)
    second.close()


@pytest.mark.parametrize("content", [b"", b"garbage" * 1_000, b"SQLite format 3\0" + b"\xff" * 5_000])
def test_garbage_is_made_anew_and_reported(
    path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(content)
    with caplog.at_level(logging.INFO, "orthanc_ups.store"):
        opened = Projection.open(path)
    assert opened.renewed
    assert "is made anew" in caplog.text
    put(opened, made(1))
    assert found(opened) == [1]
    opened.close()


def test_another_version_or_zone_is_made_anew(path: Path) -> None:
    first = Projection.open(path)
    put(first, made(1))
    first.close()
    second = Projection.open(path, timezone="+0100")
    assert second.renewed == "it was made by another version or for another time zone"
    assert found(second) == []
    second.close()


@pytest.mark.parametrize(("boot", "expected"), [("this boot", [1]), ("another boot", [])])
def test_a_file_in_use_survives_us_but_not_the_machine(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, boot: str, expected: list[int]
) -> None:
    monkeypatch.setattr(projection_file, "_boot_id", lambda: "this boot")
    running = Projection.open(path)
    put(running, made(1))
    left = tmp_path / "left.sqlite"
    for ending in ("", "-wal"):
        Path(f"{left}{ending}").write_bytes(Path(f"{path}{ending}").read_bytes())
    monkeypatch.setattr(projection_file, "_boot_id", lambda: boot)
    opened = Projection.open(left)
    assert found(opened) == expected
    assert opened.renewed == (None if expected else "the machine went down while it was in use")
    opened.close()
    running.close()


def test_a_broken_projection_leaves_no_file(path: Path) -> None:
    opened = Projection.open(path)
    put(opened, made(1))
    opened._file.writer.execute("UPDATE body SET document = x'00'")
    with pytest.raises(ProjectionBroken):
        opened.get(workitems.uid(1))
    opened.close()
    assert not path.exists()


def test_two_processes_cannot_share_a_file(path: Path, projection: Projection) -> None:
    with pytest.raises(ProjectionBroken, match="in use by another process"):
        Projection.open(path)
    put(projection, made(1))
    assert found(projection) == [1]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProjectionBroken, match="nowhere"):
        Projection.open(tmp_path / "nowhere" / "projection.sqlite")


def test_a_malformed_zone_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="no offset from UTC"):
        Projection.open(path, timezone="CET")


def test_memory_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    opened = Projection.open(":memory:")
    put(opened, made(1))
    assert found(opened) == [1]
    assert list(tmp_path.iterdir())
    opened.close()
    assert not list(tmp_path.iterdir())


# --- when it breaks ---


def fill_the_disk(projection: Projection) -> None:
    """SQLite itself says that the disk is full once the file may not grow."""
    writer = projection._file.writer
    pages = writer.execute("PRAGMA page_count").fetchone()[0]
    writer.execute(f"PRAGMA max_page_count = {pages}")


def test_a_full_disk_breaks_it_until_it_is_made_anew(projection: Projection) -> None:
    put(projection, made(1))
    fill_the_disk(projection)
    with pytest.raises(ProjectionBroken, match="full"):
        put(projection, *(made(number) for number in range(2, 100)))
    for use in (
        lambda: projection.get(workitems.uid(1)),
        lambda: put(projection, made(1)),
        lambda: found(projection),
    ):
        with pytest.raises(ProjectionBroken, match="full"):
            use()
    assert projection.count() >= 1
    projection.renew()
    with projection.rebuilding() as rebuild:
        rebuild.take([entry(made(1)), entry(made(2))])
    assert sorted(found(projection)) == [1, 2]


def test_a_corrupt_document_breaks_it(projection: Projection) -> None:
    put(projection, made(1))
    projection._file.writer.execute("UPDATE body SET document = x'00'")
    with pytest.raises(ProjectionBroken, match="not JSON"):
        found(projection)
    with pytest.raises(ProjectionBroken, match="not JSON"):
        projection.get(workitems.uid(1))


def test_pages_overwritten_by_somebody_break_it_or_do_no_harm(path: Path) -> None:
    opened = Projection.open(path)
    with opened.rebuilding() as rebuild:
        rebuild.take([entry(made(number)) for number in range(1, 601)])
    opened.close()
    opened = Projection.open(path)
    with path.open("r+b") as file:
        file.seek(8 * 4_096)
        file.write(b"\xa5" * (path.stat().st_size - 16 * 4_096))
    with pytest.raises(ProjectionBroken):
        for number in range(1, 601):
            opened.get(workitems.uid(number))
    opened.renew()
    put(opened, made(1))
    assert found(opened) == [1]
    opened.close()


def test_a_deleted_file_is_noticed_and_made_anew(path: Path, projection: Projection) -> None:
    put(projection, made(1))
    projection.check()
    path.unlink()
    assert projection.get(workitems.uid(1)), "what is open lives on"
    with pytest.raises(ProjectionBroken, match="deleted"):
        projection.check()
    projection.renew()
    projection.check()
    put(projection, made(1))
    assert found(projection) == [1]


def test_renewing_fails_as_long_as_the_cause_is_there(path: Path, projection: Projection) -> None:
    put(projection, made(1))
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
    put(projection, made(1))
    assert found(projection) == [1]


def test_a_closed_projection_says_so(projection: Projection) -> None:
    put(projection, made(1))
    projection.close()
    projection.close()
    for use in (lambda: projection.get("1"), lambda: put(projection, made(2)), lambda: found(projection)):
        with pytest.raises(ProjectionBroken, match="closed"):
            use()


def test_closing_ends_a_running_search(projection: Projection) -> None:
    put(projection, *(made(number) for number in range(1, 601)))

    async def interrupted() -> None:
        search = asyncio.ensure_future(projection.search(key("00400400", "LT", "*nothing*")))
        await asyncio.sleep(0)
        projection.close()
        with pytest.raises(ProjectionBroken, match="closed"):
            await search

    asyncio.run(interrupted())


# --- the log of events ---


def event(sequence: int, *receivers: str, at: float = 0.0) -> Event:
    information: DataSet = {tags.STATE: element("CS", "SCHEDULED")}
    return Event(sequence, EventType.STATE_REPORT, workitems.uid(sequence), information, receivers, at)


def test_events_are_replayed_in_order(projection: Projection) -> None:
    projection.record_events([event(5, "AI"), event(3, "AI", "PACS")])
    projection.record_events([event(9)])
    assert asyncio.run(projection.events(0, 10)) == [event(3, "AI", "PACS"), event(5, "AI"), event(9)]
    assert asyncio.run(projection.events(3, 1)) == [event(5, "AI")]
    assert asyncio.run(projection.events(0, 10, "PACS")) == [event(3, "AI", "PACS")]
    assert asyncio.run(projection.events(0, 10, "A")) == []


def test_an_event_told_twice_is_kept_once(projection: Projection) -> None:
    projection.record_events([event(5, "AI")])
    projection.record_events([event(5, "AI", "PACS")])
    assert asyncio.run(projection.events(0, 10)) == [event(5, "AI", "PACS")]


def test_old_events_are_forgotten_some_at_a_time(projection: Projection) -> None:
    projection.record_events([event(number, at=float(number)) for number in range(1, 11)])
    assert projection.forget_events(8.0, limit=5) == 5
    assert projection.forget_events(8.0, limit=5) == 2
    assert projection.forget_events(8.0) == 0
    assert [one.sequence for one in asyncio.run(projection.events(0, 100))] == [8, 9, 10]


def test_the_log_survives_a_rebuilding(projection: Projection) -> None:
    projection.record_events([event(1, "AI")])
    with projection.rebuilding() as rebuild:
        rebuild.take([entry(made(1))])
    assert asyncio.run(projection.events(0, 10)) == [event(1, "AI")]


assert sqlite3.threadsafety == 3, "connections move between the loop and worker threads"
