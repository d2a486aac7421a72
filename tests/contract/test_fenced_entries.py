# SPDX-License-Identifier: AGPL-3.0-or-later
"""The store of a leader on PostgreSQL keeps the contract of all stores, on the index of a real Orthanc."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import requests

from orthanc_ups.cluster.database import Database, Sessions
from orthanc_ups.cluster.rows import FencedLoopback
from orthanc_ups.store import shelves
from orthanc_ups.store.metadata import OrthancEntries
from tests.contract.stores import LosableStore, each, loaded
from tests.contract.test_entries import RestorableContract
from tests.support.orthanc import RealOrthanc
from tests.support.postgresql import INDEX_PLUGIN, PostgreSql


class FencedStore:
    """Entries by SQL, everything else over Orthanc's REST API."""

    def __init__(self, orthanc: RealOrthanc, server: PostgreSql) -> None:
        self.url = orthanc.base_url
        self._database = Database(server.address(), "orthanc-ups tests")

    @asynccontextmanager
    async def adapter(self) -> AsyncIterator[OrthancEntries]:
        await self._database.prepare()
        sessions = Sessions(self._database)
        async with FencedLoopback(self.url) as loopback:
            loopback.under(sessions, 0, lambda: True, lambda: None)
            entries = OrthancEntries(loopback)
            await entries.open()
            await loaded(entries)
            if entries.incomplete:
                await entries.restore(each(()))
            yield entries
        await sessions.close()

    def lose(self) -> None:
        answer = requests.delete(f"{self.url}/patients/{shelves.PATIENT}", timeout=60)
        assert answer.status_code in (200, 404)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSql]:
    with PostgreSql() as running:
        yield running


@pytest.fixture(scope="module")
def orthanc(suite: str, server: PostgreSql) -> Iterator[RealOrthanc]:
    settings = {"Plugins": [INDEX_PLUGIN], "Ups": {"Enable": False}, "PostgreSQL": server.section()}
    with RealOrthanc(suite, settings, environment=server.environment()) as running:
        yield running


class TestFencedMetadata(RestorableContract):
    @pytest.fixture
    def store(self, orthanc: RealOrthanc, server: PostgreSql) -> LosableStore:
        return FencedStore(orthanc, server)
