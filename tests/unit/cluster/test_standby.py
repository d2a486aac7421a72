# SPDX-License-Identifier: AGPL-3.0-or-later
"""A standby keeps its search index in step, and proves that when it takes over: over a real PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from orthanc_ups.cluster import standby as standby_module
from orthanc_ups.cluster.database import Database, Sessions
from orthanc_ups.cluster.envelopes import of_events, to_events
from orthanc_ups.cluster.notices import Notice, Notices
from orthanc_ups.cluster.rows import FencedLoopback
from orthanc_ups.cluster.standby import FollowedEntries, StandbyIndex
from orthanc_ups.core import tags
from orthanc_ups.core.dataset import text
from orthanc_ups.core.events import Event, EventType
from orthanc_ups.core.workitem import HistoryEntry
from orthanc_ups.orthanc.loopback import Reply
from orthanc_ups.projection.projection import Projection
from orthanc_ups.store import shelves
from orthanc_ups.store.documents import encode
from orthanc_ups.store.metadata import OrthancEntries
from orthanc_ups.store.port import Entry
from orthanc_ups.store.shelves import Address, Uploads
from orthanc_ups.worklist.workitem_store import tombstone_document
from tests.support import index_tables
from tests.support.postgresql import PostgreSql
from tests.support.projections import stored_workitem
from tests.support.workitems import uid

EVENT = Event(7, EventType.STATE_REPORT, uid(1), {}, ("WARD",), 0.0)


class OrthancWithOneShelf(FencedLoopback):
    """What the store asks of Orthanc beside rows."""

    async def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        if path == f"/series/{shelves.SERIES}":
            return Reply(200, b'{"Instances": ["%b"]}' % shelves.INSTANCES[0].encode())
        if "/metadata" not in path:
            return Reply(200, b"")
        return await super().request(method, path, body, headers)


class WatchedSessions(Sessions):
    """Counts the entries that come out of the database.

    Attributes:
        entries_read: so many so far.
    """

    entries_read = 0

    async def rows(
        self, statement: str, parameters: tuple[Any, ...], within: float = 10.0
    ) -> list[tuple[Any, ...]]:
        rows = await super().rows(statement, parameters, within)
        self.entries_read += sum(any(str(value).startswith("UPS1 ") for value in row) for row in rows)
        return rows


class Stage:
    """A leader's store, and a node that follows it."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.sessions = WatchedSessions(database)
        self.openings = 0
        self.leader_log: list[Event] | None = []
        self.standby: OrthancWithOneShelf
        self._file = folder / "index.sqlite"
        self._database = database
        self._numbers = iter(range(1, 100))

    async def leader(self, *, tells: bool = True) -> OrthancEntries:
        """A store that writes; unless it ``tells``, its notices are lost."""
        loopback = OrthancWithOneShelf("http://127.0.0.1:1")
        wrote = Notices(self.sessions, next(self._numbers)).wrote if tells else lambda _: None
        loopback.under(self.sessions, 0, lambda: True, lambda: None, wrote)
        entries = OrthancEntries(loopback)
        async for _ in entries.load():
            pass
        if entries.incomplete:
            await entries.restore(_nothing())
        return entries

    async def _logged_after(self, sequence: int) -> list[Event] | None:
        if self.leader_log is None:
            return None
        return [event for event in self.leader_log if event.sequence > sequence][:2]

    def _opened(self) -> Projection:
        self.openings += 1
        return Projection.open(self._file)

    def idle_follower(self) -> StandbyIndex:
        """One that has read nothing yet."""
        self.standby = OrthancWithOneShelf("http://127.0.0.1:1")
        self.standby.under(self.sessions, 0, lambda: False, lambda: None)
        entries = FollowedEntries(self.standby, Uploads(), self.sessions)
        return StandbyIndex(self._database, self.sessions, entries, self._opened, self._logged_after)

    @contextlib.asynccontextmanager
    async def follower(self) -> AsyncIterator[tuple[StandbyIndex, Callable[[], Awaitable[None]]]]:
        """One that is in step, and what ends its following."""
        follower = self.idle_follower()
        running = asyncio.ensure_future(follower.run())

        async def end() -> None:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

        try:
            await until(lambda: follower.lag == 0)
            yield follower, end
        finally:
            await end()
            await follower.close()


async def _nothing() -> AsyncIterator[Entry]:
    nothing: tuple[Entry, ...] = ()
    for entry in nothing:
        yield entry


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.fixture
def stage(
    server: PostgreSql, tmp_path: Path
) -> Iterator[Callable[[Callable[[Stage], Awaitable[None]]], None]]:
    """Runs a scenario on a stage."""
    index_tables.make(server)
    database = Database(index_tables.address(server), "orthanc-ups tests")

    async def performed(scenario: Callable[[Stage], Awaitable[None]]) -> None:
        await database.prepare()
        stage = Stage(database, tmp_path)
        try:
            async with asyncio.timeout(120):
                await scenario(stage)
        finally:
            await stage.sessions.close()

    yield lambda scenario: asyncio.run(performed(scenario))
    with psycopg.connect(index_tables.address(server), autocommit=True) as session:
        session.execute("DROP TABLE IF EXISTS metadata, resources, orthanc_ups_cluster")


Run = Callable[[Callable[[Stage], Awaitable[None]]], None]


async def write(entries: OrthancEntries, number: int, state: str = "SCHEDULED", version: str = "") -> str:
    document = encode(stored_workitem(number, state, events=(EVENT,) if state != "SCHEDULED" else ()))
    key = f"workitem/{uid(number)}"
    return await (entries.replace(key, document, version) if version else entries.create(key, document))


def state_of(projection: Projection, number: int) -> str:
    stored = projection.get(uid(number))
    return text(stored.workitem.attributes, tags.STATE) if stored else ""


async def after(follower: StandbyIndex, leader: OrthancEntries, number: int) -> None:
    """Wait until something was taken over that is written last."""
    await write(leader, number)
    projection = follower.projection
    assert projection is not None
    await until(lambda: state_of(projection, number) != "")


def test_what_the_leader_writes_is_in_the_index_of_a_standby_soon_with_its_events(stage: Run) -> None:
    async def scenario(stage: Stage) -> None:
        leader = await stage.leader()
        first, second = await write(leader, 1), await write(leader, 2)
        async with stage.follower() as (follower, end):
            await write(leader, 1, "IN PROGRESS", first)
            gone = tombstone_document(uid(2), HistoryEntry(1.0, "RIS", "purged", ""))
            await leader.replace(f"workitem/{uid(2)}", gone, second)
            cursor = await leader.create("delivery/WARD", b"1")
            await leader.create("subscriber/WARD", b"{}")
            await leader.remove("delivery/WARD", cursor)
            await after(follower, leader, 3)
            await end()
            assert await follower.prove()
            projection, others = follower.hand_over()
            assert [state_of(projection, number) for number in (1, 2, 3)] == ["IN PROGRESS", "", "SCHEDULED"]
            assert sorted(entry.key for entry in others) == ["subscriber/WARD", f"workitem/{uid(2)}"]
            assert [event.sequence for event in await projection.events(0, 10)] == [7]
            assert stage.openings == 1
            projection.close()

    stage(scenario)


def test_whoever_takes_over_finds_what_no_notice_named(stage: Run) -> None:
    async def scenario(stage: Stage) -> None:
        leader = await stage.leader(tells=False)
        first, second = await write(leader, 1), await write(leader, 2)
        async with stage.follower() as (follower, end):
            await end()
            await write(leader, 1, "IN PROGRESS", first)
            await leader.remove(f"workitem/{uid(2)}", second)
            again = await write(leader, 2, "COMPLETED")  # revision 0 once more
            assert again.partition("-")[0] == second.partition("-")[0]
            await write(leader, 3)
            assert await follower.prove()
            projection, _ = follower.hand_over()
            states = [state_of(projection, number) for number in (1, 2, 3)]
            assert states == ["IN PROGRESS", "COMPLETED", "SCHEDULED"]
            assert stage.openings == 1
            projection.close()

    stage(scenario)


def test_who_took_over_writes_on_with_what_it_followed(stage: Run) -> None:
    async def scenario(stage: Stage) -> None:
        leader = await stage.leader()
        first = await write(leader, 1)
        async with stage.follower() as (follower, end):
            await write(leader, 2)
            await after(follower, leader, 3)
            await end()
            assert await follower.prove()
            projection, _ = follower.hand_over()
            stage.standby.under(stage.sessions, 0, lambda: True, lambda: None)
            entries = follower.entries
            await entries.open()
            assert await write(entries, 1, "IN PROGRESS", first)
            stored = projection.get(uid(2))
            assert stored is not None
            await write(entries, 2, "IN PROGRESS", stored.version)
            projection.close()

    stage(scenario)


def test_a_lost_notice_is_missed_at_the_next_one(stage: Run) -> None:
    async def scenario(stage: Stage) -> None:
        leader, silent = await stage.leader(), await stage.leader(tells=False)
        async with stage.follower() as (follower, _):
            await after(follower, leader, 1)
            await write(silent, 2)
            other = await stage.leader()
            await after(follower, other, 3)
            projection = follower.projection
            assert projection is not None and state_of(projection, 2) == "SCHEDULED"

    stage(scenario)


def test_a_deleted_shelf_is_no_complete_index(stage: Run, server: PostgreSql) -> None:
    async def scenario(stage: Stage) -> None:
        leader = await stage.leader()
        await write(leader, 1)
        async with stage.follower() as (follower, end):
            await end()
            with psycopg.connect(index_tables.address(server), autocommit=True) as session:
                session.execute("DELETE FROM metadata")
            assert not await follower.prove()

    stage(scenario)


async def purge(leader: OrthancEntries, number: int, version: str) -> None:
    gone = tombstone_document(uid(number), HistoryEntry(1.0, "RIS", "purged", ""))
    await leader.replace(f"workitem/{uid(number)}", gone, version)


def test_a_node_that_comes_back_reads_only_what_differs_from_its_file(stage: Run) -> None:
    async def scenario(stage: Stage) -> None:
        leader = await stage.leader()
        versions = [await write(leader, number) for number in range(6)]
        await purge(leader, 5, versions[5])
        await leader.create("delivery/WARD", b"1")
        async with stage.follower():
            pass
        await write(leader, 1, "IN PROGRESS", versions[1])
        await leader.remove(f"workitem/{uid(2)}", versions[2])
        await purge(leader, 3, versions[3])
        await write(leader, 6)
        before = stage.sessions.entries_read
        async with stage.follower() as (follower, end):
            await end()
            # 1, 3, 6 and the cursor are read, and the workitem that was purged before
            assert stage.sessions.entries_read - before <= 5
            assert await follower.prove()
            projection, others = follower.hand_over()
            states = [state_of(projection, number) for number in range(7)]
            assert states == ["SCHEDULED", "IN PROGRESS", "", "", "SCHEDULED", "", "SCHEDULED"]
            assert projection.count() == 4
            tombs = [f"workitem/{uid(number)}" for number in (3, 5)]
            assert sorted(entry.key for entry in others) == sorted(["delivery/WARD", *tombs])
            assert [event.sequence for event in await projection.events(0, 10)] == [7]
            projection.close()
        before = stage.sessions.entries_read
        async with stage.follower() as (follower, _):
            assert stage.sessions.entries_read - before == 1  # the cursor

    stage(scenario)


def test_a_node_that_comes_back_has_the_leaders_log_of_events(stage: Run) -> None:
    """Events leave the store once everybody was told: ``?since=`` reaches back behind the time of its absence."""

    async def scenario(stage: Stage) -> None:
        leader = await stage.leader()
        await write(leader, 1)
        stage.leader_log = None
        async with stage.follower() as (follower, _):
            assert follower.projection is not None
            assert not await follower.projection.events(0, 10)
        stage.leader_log = [replace(EVENT, sequence=number) for number in range(3, 9)]
        async with stage.follower() as (follower, _):
            projection = follower.projection
            assert projection is not None
            await until(lambda: projection.last_event() == 8)
            assert [event.sequence for event in await projection.events(0, 10)] == list(range(3, 9))

    stage(scenario)


def test_events_come_from_the_leader_as_they_are_in_its_log() -> None:
    events = [EVENT, replace(EVENT, sequence=8, uid=uid(2)), replace(EVENT, sequence=9, receivers=())]
    assert to_events(of_events(events)) == events
    assert to_events(of_events([])) == []


def test_who_is_elected_before_it_has_read_anything_proves_what_its_file_holds(stage: Run) -> None:
    async def scenario(stage: Stage) -> None:
        leader = await stage.leader()
        version = await write(leader, 1)
        await write(leader, 2)
        assert not await stage.idle_follower().prove()  # it has no file: whoever leads reads everything
        async with stage.follower():
            pass
        await write(leader, 1, "IN PROGRESS", version)
        before = stage.sessions.entries_read
        elected = stage.idle_follower()
        assert await elected.prove()
        assert stage.sessions.entries_read - before == 1
        projection, others = elected.hand_over()
        assert [state_of(projection, number) for number in (1, 2)] == ["IN PROGRESS", "SCHEDULED"]
        assert others == []
        projection.close()

    stage(scenario)


def test_a_file_that_lacks_most_of_the_store_is_filled_like_an_empty_file(
    stage: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that is elected while it reads a large worklist in leaves such a file; comparing takes memory for all."""
    monkeypatch.setattr(standby_module, "FEW_ENTRIES", 1)

    async def scenario(stage: Stage) -> None:
        leader = await stage.leader()
        await write(leader, 1)
        async with stage.follower():
            pass
        for number in (2, 3, 4):
            await write(leader, number)
        elected = stage.idle_follower()
        assert not await elected.prove()
        await elected.close()
        before = stage.sessions.entries_read
        async with stage.follower() as (follower, _):
            assert stage.sessions.entries_read - before == 4
            projection = follower.projection
            assert projection is not None and projection.count() == 4

    stage(scenario)


def test_who_found_no_worklist_before_it_was_elected_may_begin_one(stage: Run) -> None:
    async def scenario(stage: Stage) -> None:
        elected = stage.idle_follower()
        async for _ in elected.entries.load():
            pass
        assert elected.entries.incomplete == {0}
        assert not await elected.prove()
        await elected.close()
        stage.standby.under(stage.sessions, 0, lambda: True, lambda: None)
        await elected.entries.open()
        assert await elected.entries.create("node", b"{}")

    stage(scenario)


def test_an_entry_that_nobody_can_read_is_left_alone_and_the_others_are_followed(stage: Run) -> None:
    async def scenario(stage: Stage) -> None:
        leader = await stage.leader()
        await leader.create(f"workitem/{uid(1)}", b"no document")
        await leader.create("subscriber/WARD", b"{}")
        async with stage.follower() as (follower, _):
            await leader.create(f"workitem/{uid(2)}", b"no document")
            await after(follower, leader, 3)
        async with stage.follower() as (follower, end):
            await after(follower, leader, 4)
            await end()
            assert await follower.prove()
        assert stage.openings == 2

    stage(scenario)


def test_after_a_restart_of_postgresql_no_entry_is_read_again(stage: Run, server: PostgreSql) -> None:
    """Whether the rows still are what they were is proven by their contents."""

    async def scenario(stage: Stage) -> None:
        leader = await stage.leader()
        for number in range(5):
            await write(leader, number)
        async with stage.follower() as (follower, _):
            before = stage.sessions.entries_read
            server.stop()
            await until(lambda: follower.lag > 0)
            server.start()
            await until(lambda: follower.lag == 0)
            assert stage.sessions.entries_read == before
            assert stage.openings == 2
            await after(follower, await stage.leader(), 6)

    stage(scenario)


def test_what_an_older_backup_holds_is_what_the_index_holds_then(stage: Run, server: PostgreSql) -> None:
    """Revisions and transactions say nothing after that: contents are compared."""

    async def scenario(stage: Stage) -> None:
        leader = await stage.leader()
        version = await write(leader, 1)
        with psycopg.connect(index_tables.address(server), autocommit=True) as session:
            session.execute("CREATE TABLE backup AS SELECT * FROM metadata")
            try:
                await write(leader, 1, "IN PROGRESS", version)
                await write(leader, 2)
                async with stage.follower():
                    pass
                session.execute("DELETE FROM metadata")
                session.execute("INSERT INTO metadata SELECT * FROM backup")
            finally:
                session.execute("DROP TABLE backup")
        async with stage.follower() as (follower, _):
            projection = follower.projection
            assert projection is not None
            assert [state_of(projection, number) for number in (1, 2)] == ["SCHEDULED", ""]

    stage(scenario)


def test_a_notice_is_read_as_it_was_written() -> None:
    notice = Notice(3, 17, (Address(0, 1040), Address(255, 65519)))
    assert Notice.parse(str(notice)) == notice
    assert len(str(Notice(10**6, 10**9, tuple(Address(255, 65519) for _ in range(600))))) < 8000
