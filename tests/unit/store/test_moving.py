# SPDX-License-Identifier: AGPL-3.0-or-later
"""A worklist moves between stores, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthanc_ups.store.choice import TwoWorklists, move_worklist
from orthanc_ups.store.port import Entry, EntryConflict, EntryExists

DOCUMENTS = {f"workitem/{n}": f"document {n}".encode() for n in range(4)} | {"subscriber/A": b"log"}


class Killed(Exception):
    """The process ended here."""


class Power:
    """Lets so many more calls through, then the process is killed."""

    def __init__(self) -> None:
        self.calls = 10_000

    def use(self) -> None:
        if not self.calls:
            raise Killed
        self.calls -= 1


class Shelf:
    """A store that can be killed before and after each call that changes something."""

    def __init__(self, power: Power, documents: dict[str, bytes]) -> None:
        self.documents = dict(documents)
        self._power = power
        self._writes = 0

    async def load(self) -> AsyncIterator[list[Entry]]:
        for key, document in list(self.documents.items()):
            self._power.use()
            yield [Entry(key, document, "1")]

    async def read(self, key: str) -> Entry | None:
        self._power.use()
        document = self.documents.get(key)
        return None if document is None else Entry(key, document, "1")

    async def create(self, key: str, document: bytes) -> str:
        self._power.use()
        if key in self.documents:
            raise EntryExists(key)
        self.documents[key] = document
        self._power.use()
        return "1"

    async def replace(self, key: str, document: bytes, version: str) -> str:
        self._power.use()
        if key not in self.documents:
            raise EntryConflict(key)
        self.documents[key] = document
        self._power.use()
        return "1"

    async def remove(self, key: str, version: str) -> None:
        self._power.use()
        del self.documents[key]
        self._power.use()

    async def exists(self) -> bool:
        return bool(self.documents)

    async def discard(self) -> None:
        for key in list(self.documents):
            await self.remove(key, "1")


def test_everything_moves_and_nothing_stays_behind() -> None:
    power = Power()
    source, target = Shelf(power, DOCUMENTS), Shelf(power, {})
    assert asyncio.run(move_worklist(source, target)) == len(DOCUMENTS)
    assert (source.documents, target.documents) == ({}, DOCUMENTS)
    assert asyncio.run(move_worklist(source, target)) == 0
    assert target.documents == DOCUMENTS


def test_two_worklists_are_both_left_alone() -> None:
    power = Power()
    source, target = Shelf(power, DOCUMENTS), Shelf(power, {"workitem/9": b"another"})
    with pytest.raises(TwoWorklists):
        asyncio.run(move_worklist(source, target))
    assert (source.documents, target.documents) == (DOCUMENTS, {"workitem/9": b"another"})


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 60)), max_size=6), st.booleans())
def test_killed_at_any_moment_and_with_any_changes_of_mind_nothing_is_lost(
    attempts: list[tuple[bool, int]], last: bool
) -> None:
    power = Power()
    stores = Shelf(power, DOCUMENTS), Shelf(power, {})
    for forth, calls in attempts:
        power.calls = calls
        source, target = stores if forth else reversed(stores)
        try:
            asyncio.run(move_worklist(source, target))
        except Killed:
            continue
        assert (source.documents, target.documents) == ({}, DOCUMENTS)
    power.calls = 10_000
    source, target = stores if last else reversed(stores)
    asyncio.run(move_worklist(source, target))
    assert (source.documents, target.documents) == ({}, DOCUMENTS)
