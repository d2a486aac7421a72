# SPDX-License-Identifier: AGPL-3.0-or-later
"""A store that fails is noticed without a request, and so is its recovery."""

from __future__ import annotations

import asyncio
import logging

import pytest

from orthanc_ups.monitoring import store_watch
from orthanc_ups.monitoring.store_watch import StoreWatch
from orthanc_ups.store.port import StoreUnavailable


class Store:
    """A service and its store, in one."""

    def __init__(self) -> None:
        self.store_trouble = ""
        self.readable = True
        self.writable = True
        self.writes = 0

    async def read(self) -> None:
        if not self.readable:
            raise StoreUnavailable("Orthanc answered 500", certain=True)

    async def prove_store(self) -> None:
        self.writes += 1
        if not self.writable:
            raise StoreUnavailable("Orthanc answered 507 Full storage", certain=True)
        self.store_trouble = ""


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def watch(store: Store) -> StoreWatch:
    return StoreWatch(store, store.read)


def test_a_store_that_works_is_not_written_to(store: Store, watch: StoreWatch) -> None:
    asyncio.run(watch.check())
    assert (watch.trouble, store.writes) == ("", 0)


def test_a_database_that_is_away_is_noticed_before_anybody_writes(
    store: Store, watch: StoreWatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        store.readable = False
        asyncio.run(watch.check())
        asyncio.run(watch.check())
        assert watch.trouble == "Orthanc answered 500"
        store.readable = True
        asyncio.run(watch.check())
        assert watch.trouble == ""
    assert caplog.messages == [
        "Nothing can be stored now: Orthanc answered 500",
        "Orthanc's store works again",
    ]


def test_after_a_write_that_failed_writing_is_tried_until_it_works(store: Store, watch: StoreWatch) -> None:
    store.store_trouble, store.writable = "Orthanc answered 507 Full storage", False
    asyncio.run(watch.check())
    assert watch.trouble == "Orthanc answered 507 Full storage"
    store.writable = True
    asyncio.run(watch.check())
    assert (watch.trouble, store.writes) == ("", 2)


def test_a_database_that_hangs_is_noticed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(store_watch, "PATIENCE", 0.001)
    watch = StoreWatch(store, hang)
    asyncio.run(watch.check())
    assert "does not answer" in watch.trouble
