# SPDX-License-Identifier: AGPL-3.0-or-later
"""One node leads: over a real PostgreSQL, with several keepers in this process."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import psycopg
import pytest

from orthanc_ups.cluster import lease as lease_module
from orthanc_ups.cluster.database import CannotShare, Database, Sessions
from orthanc_ups.cluster.lease import Leadership, LeaseKeeper
from orthanc_ups.cluster.rows import FencedLoopback, NotLeading
from orthanc_ups.core.unavailable import StoreUnavailable
from orthanc_ups.orthanc.loop_thread import LoopThread
from orthanc_ups.store import shelves
from orthanc_ups.store.shelves import Address
from tests.support import index_tables
from tests.support.postgresql import PostgreSql
from tests.support.waiting import wait_until

ENTRY = shelves.path(Address(0, 2000))


@pytest.fixture
def database(server: PostgreSql) -> Iterator[Database]:
    index_tables.make(server)
    database = Database(index_tables.address(server), "orthanc-ups tests")
    asyncio.run(database.prepare())
    yield database
    with psycopg.connect(index_tables.address(server), autocommit=True) as session:
        session.execute("DROP TABLE IF EXISTS metadata, resources, orthanc_ups_cluster")


class Member:
    """A keeper that notes what it was told."""

    def __init__(self, database: Database, *, stands: bool = True) -> None:
        self.taken: list[Leadership] = []
        self.lost: list[str] = []
        self._thread = LoopThread("ups-lease")
        self._go_on = threading.Event()
        self.keeper = LeaseKeeper(
            database,
            {"name": "test"},
            self.taken.append,
            self.lost.append,
            self._thread,
        )
        if stands:
            self.keeper.stand({"address": "127.0.0.1"})
        self.keeper.start()

    def leads(self) -> None:
        wait_until(lambda: self.keeper.leads, lambda: f"it leads; {self.keeper.trouble}")

    def sees(self, leader: Member) -> None:
        """Wait until it has seen that the other lives."""
        keeper = self.keeper
        wait_until(lambda: keeper.holder.run == leader.keeper.run, lambda: "it sees the leader")
        beat = keeper.holder.beat
        wait_until(lambda: keeper.holder.beat > beat, lambda: "it sees that the leader lives")

    def stop_the_thread(self) -> None:
        """As SIGSTOP would."""
        self._thread.call_soon(self._go_on.wait, 60)

    def go_on(self) -> None:
        self._go_on.set()


@contextlib.contextmanager
def members(database: Database, count: int) -> Iterator[list[Member]]:
    everyone = [Member(database) for _ in range(count)]
    try:
        yield everyone
    finally:
        for member in everyone:
            asyncio.run(member.keeper.close())


def leader_of(everyone: list[Member]) -> Member:
    wait_until(lambda: any(member.keeper.leads for member in everyone), lambda: "somebody leads")
    leaders = [member for member in everyone if member.keeper.leads]
    assert len(leaders) == 1
    return leaders[0]


def test_of_several_that_start_at_once_one_leads(database: Database) -> None:
    with members(database, 4) as everyone:
        leader = leader_of(everyone)
        wait_until(lambda: all(len(m.keeper.nodes) == 4 for m in everyone), lambda: "all see all")
        assert sum(len(member.taken) for member in everyone) == 1
        assert leader.taken == [Leadership(1, continues=False)]


def test_a_leader_that_resigns_is_followed_at_once_and_the_worklist_goes_on(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with members(database, 2) as everyone:
        leader = leader_of(everyone)
        (standby,) = (member for member in everyone if member is not leader)
        standby.sees(leader)
        with monkeypatch.context() as patch:
            patch.setattr(lease_module, "LEASE", 3600.0)  # who waits for the end of the lease does not follow
            asyncio.run(leader.keeper.resign())
            standby.leads()
        assert standby.taken == [Leadership(2, continues=True)]
        assert not leader.keeper.leads


def test_a_leader_that_is_paused_is_followed_and_never_leads_under_its_epoch_again(
    database: Database,
) -> None:
    with members(database, 2) as everyone:
        leader = leader_of(everyone)
        (standby,) = (member for member in everyone if member is not leader)
        standby.sees(leader)
        leader.stop_the_thread()
        standby.leads()
        assert not leader.keeper.leads
        assert standby.taken == [Leadership(2, continues=True)]
        leader.go_on()
        wait_until(lambda: bool(leader.lost), lambda: "it hears that it no longer leads")
        assert standby.keeper.leads and not leader.keeper.leads


def test_a_worklist_whose_thread_hangs_leads_no_longer(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orthanc_ups.cluster.lease.STUCK_AFTER", 0.0)
    with members(database, 1) as (member,):
        member.leads()
        assert not member.lost
        member.keeper.opened()
        wait_until(lambda: bool(member.lost), lambda: "it ends")


def test_who_does_not_stand_does_not_lead(database: Database) -> None:
    member = Member(database, stands=False)
    try:
        wait_until(lambda: bool(member.keeper.nodes), lambda: "it looks")
        assert not member.keeper.leads and not member.taken
    finally:
        asyncio.run(member.keeper.close())


def run_rows(
    database: Database, epoch: int, work: Callable[[FencedLoopback], Coroutine[Any, Any, None]]
) -> list[str]:
    """What a node under this epoch does; returns a word for each time that it was fenced off."""
    fenced: list[str] = []

    async def run() -> None:
        sessions = Sessions(database)
        loopback = FencedLoopback("http://127.0.0.1:1")
        loopback.under(sessions, epoch, lambda: True, lambda: fenced.append("fenced"))
        try:
            await work(loopback)
        finally:
            await sessions.close()

    asyncio.run(run())
    return fenced


def test_entries_are_compared_and_set_as_by_orthanc(database: Database) -> None:
    async def work(loopback: FencedLoopback) -> None:
        first = await loopback.request("PUT", ENTRY, b"one")
        assert (first.status, first.etag) == (200, f"0-{shelves.md5(b'one')}")
        assert (await loopback.request("PUT", ENTRY, b"two")).status == 409
        second = await loopback.request("PUT", ENTRY, "zwö".encode(), {"If-Match": f'"{first.etag}"'})
        assert second.status == 200
        assert (await loopback.request("PUT", ENTRY, b"x", {"If-Match": f'"{first.etag}"'})).status == 409
        read = await loopback.request("GET", ENTRY)
        assert (read.body, read.etag) == ("zwö".encode(), second.etag)
        shelf = await loopback.request("GET", f"/instances/{shelves.INSTANCES[0]}/metadata?expand&numeric")
        assert shelf.json() == {"2000": "zwö"}
        assert (
            await loopback.request("DELETE", ENTRY, headers={"If-Match": f'"{first.etag}"'})
        ).status == 409
        assert (
            await loopback.request("DELETE", ENTRY, headers={"If-Match": f'"{second.etag}"'})
        ).status == 200
        assert (await loopback.request("GET", ENTRY)).status == 404
        missing = shelves.path(Address(1, 2000))
        assert (await loopback.request("PUT", missing, b"one")).status == 404

    assert run_rows(database, 0, work) == []


def test_a_write_under_an_old_epoch_is_not_done(database: Database) -> None:
    async def old(loopback: FencedLoopback) -> None:
        for headers in ({}, {"If-Match": f'"0-{shelves.md5(b"one")}"'}):
            with pytest.raises(NotLeading):
                await loopback.request("PUT", ENTRY, b"late", headers)
        with pytest.raises(NotLeading):
            await loopback.request("DELETE", ENTRY, headers={"If-Match": f'"0-{shelves.md5(b"one")}"'})
        assert (await loopback.request("GET", ENTRY)).body == b"one"

    async def write(loopback: FencedLoopback) -> None:
        assert (await loopback.request("PUT", ENTRY, b"one")).status == 200

    run_rows(database, 0, write)
    with members(database, 1) as (member,):
        member.leads()
        assert run_rows(database, 0, old) == ["fenced"] * 3
        assert run_rows(database, member.keeper.epoch, lambda _: asyncio.sleep(0)) == []


def test_a_write_that_waits_while_another_takes_over_is_not_done(
    database: Database, server: PostgreSql
) -> None:
    """It waits for the row that it changes, and finds the fence changed before it has its lock."""
    with psycopg.connect(index_tables.address(server)) as taking:
        taking.execute("UPDATE orthanc_ups_cluster SET epoch = 5 WHERE name = 'fence'")

        async def late(loopback: FencedLoopback) -> None:
            writing = asyncio.ensure_future(loopback.request("PUT", ENTRY, b"late"))
            await asyncio.to_thread(wait_until, lambda: _is_waiting(server), lambda: "it waits")
            taking.commit()
            with pytest.raises(NotLeading):
                await writing

        assert run_rows(database, 0, late) == ["fenced"]


def _is_waiting(server: PostgreSql) -> bool:
    with psycopg.connect(index_tables.address(server), autocommit=True) as session:
        row = session.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        ).fetchone()
    return row is not None and row[0] > 0


def test_nodes_that_create_the_table_at_once_can_all_share(server: PostgreSql, database: Database) -> None:
    """IF NOT EXISTS looks before it locks, so that PostgreSQL reports a duplicate in several ways."""

    async def prepared_together() -> None:
        await asyncio.gather(*(database.prepare() for _ in range(6)))

    for _ in range(30):
        with psycopg.connect(index_tables.address(server), autocommit=True) as session:
            session.execute("DROP TABLE orthanc_ups_cluster")
        asyncio.run(prepared_together())


def test_a_user_without_the_right_is_told_what_to_grant(server: PostgreSql, database: Database) -> None:
    with psycopg.connect(index_tables.address(server), autocommit=True) as session:
        session.execute("DROP TABLE orthanc_ups_cluster; DROP ROLE IF EXISTS poor; CREATE ROLE poor LOGIN")
    poor = Database(index_tables.address(server, "poor"), "orthanc-ups tests")
    with pytest.raises(CannotShare, match="GRANT CREATE ON SCHEMA public TO poor"):
        asyncio.run(poor.prepare())


def test_an_index_with_other_tables_is_not_written_to(server: PostgreSql, database: Database) -> None:
    with psycopg.connect(index_tables.address(server), autocommit=True) as session:
        session.execute("ALTER TABLE metadata DROP COLUMN revision")
    with pytest.raises(CannotShare, match=r"no metadata\.revision"):
        asyncio.run(database.prepare())


def test_a_database_that_is_away_is_not_an_error_of_configuration() -> None:
    away = Database("host=127.0.0.1 port=1 dbname=postgres user=orthanc", "orthanc-ups tests")
    with pytest.raises(StoreUnavailable, match="cannot reach PostgreSQL"):
        asyncio.run(away.prepare())
