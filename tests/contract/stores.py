# SPDX-License-Identifier: AGPL-3.0-or-later
"""Stores to check against their contract, and helpers of these tests."""

import asyncio
import functools
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import requests

from orthanc_ups.orthanc.loopback import Loopback
from orthanc_ups.orthanc.sdk import KeyValueStore
from orthanc_ups.store import shelves
from orthanc_ups.store.key_value import KeyValueEntries
from orthanc_ups.store.metadata import OrthancEntries
from orthanc_ups.store.port import Entry, RestorableEntries
from orthanc_ups.store.shelves import Address, Value
from tests.support.memory_store import InMemoryEntries
from tests.support.orthanc import RealOrthanc

WITHOUT_PLUGINS: dict[str, Any] = {"Plugins": [], "Ups": {"Enable": False}}


class Store(Protocol):
    """One store, and ways to look at it."""

    def adapter(self) -> AbstractAsyncContextManager[RestorableEntries]:
        """A fresh adapter that has loaded what is there."""
        ...


class LosableStore(Store, Protocol):
    """A store whose entries somebody may delete from outside."""

    def lose(self) -> None:
        """Somebody deletes everything."""
        ...


def asynchronous(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(test(*arguments, **named))  # type: ignore[arg-type]

    return run


async def loaded(entries: RestorableEntries) -> dict[str, Entry]:
    return {entry.key: entry async for chunk in entries.load() for entry in chunk}


async def each(entries: Iterable[Entry]) -> AsyncIterator[Entry]:
    for entry in entries:
        yield entry


def new_key(kind: str = "workitem") -> str:
    return f"{kind}/2.25.{uuid.uuid4().int}"


class TwinStore:
    def __init__(self) -> None:
        self._twin = InMemoryEntries()

    @asynccontextmanager
    async def adapter(self) -> AsyncIterator[RestorableEntries]:
        yield self._twin.another()

    def lose(self) -> None:
        self._twin.lose()


class OrthancStore:
    def __init__(self, orthanc: RealOrthanc) -> None:
        self.url = orthanc.base_url

    @asynccontextmanager
    async def adapter(
        self, full: int = shelves.FULL, loopback: Loopback | None = None
    ) -> AsyncIterator[OrthancEntries]:
        """``full``: entries per shelf from which another one is added."""
        async with loopback or Loopback(self.url) as loopback:
            entries = OrthancEntries(loopback)
            entries.full = full
            await entries.open()
            await loaded(entries)
            if entries.incomplete:
                await entries.restore(each(()))
            yield entries

    def lose(self) -> None:
        answer = requests.delete(f"{self.url}/patients/{shelves.PATIENT}", timeout=60)
        assert answer.status_code in (200, 404)

    def get(self, path: str) -> requests.Response:
        return requests.get(self.url + path, timeout=60)

    def shelves_in_orthanc(self) -> int:
        return int(self.get("/statistics").json()["CountInstances"])

    def shelf_of(self, key: str) -> int:
        """The shelf on which an entry stands now."""
        for address in shelves.addresses(key, 0, shelves.SHELVES):
            answer = self.get(shelves.path(address))
            value = shelves.decoded(answer.content) if answer.ok else None
            if value is not None and value.key == key:
                return address.shelf
        raise AssertionError(f"{key} is nowhere")

    def make_by_version_1_0_0_dev0(self, documents: Mapping[str, bytes]) -> None:
        """The layout of the first version: 256 shelves, and nothing that says how many there are."""
        created = shelves.StudyMoment("", "")
        for shelf in range(shelves.SHELVES):
            file = shelves.dicom_file(shelf, created)
            requests.post(f"{self.url}/instances", file, timeout=60).raise_for_status()
            self.put_by_hand(Address(shelf, shelves.MARK_SLOT), shelves.MARK)
        for key, document in documents.items():
            self.put_by_hand(shelves.hashed(key, 0), Value(key, 0, document).encoded())

    def delete_shelf(self, shelf: int) -> None:
        requests.delete(f"{self.url}/instances/{shelves.INSTANCES[shelf]}", timeout=60).raise_for_status()

    def put_by_hand(self, address: Address, content: bytes) -> None:
        stored = self.get(shelves.path(address))
        headers = {"If-Match": stored.headers["ETag"]} if stored.ok else {}
        requests.put(
            self.url + shelves.path(address), content, headers=headers, timeout=60
        ).raise_for_status()


class KeyValueEntriesStore:
    def __init__(self, orthanc: KeyValueStore) -> None:
        self._orthanc = orthanc

    @asynccontextmanager
    async def adapter(self) -> AsyncIterator[KeyValueEntries]:
        entries = KeyValueEntries(self._orthanc)
        await entries.open()
        try:
            yield entries
        finally:
            await entries.close()
