# SPDX-License-Identifier: AGPL-3.0-or-later
"""A worklist moves between stores, whatever interrupts it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthanc_ups.store.choice import TwoWorklists, last_used, move_worklist, settle
from orthanc_ups.store.copy import Copies, EntriesCopy
from orthanc_ups.store.port import Entry, EntryConflict, EntryExists
from orthanc_ups.store.shelf_set import StoreMisconfigured

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

    def __init__(self, power: Power, documents: dict[str, bytes], name: str = "") -> None:
        self.name = name
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


# --- two worklists ---

OTHERS = {"workitem/9": b"another"}


def both(search_index_of: str = "") -> tuple[Shelf, Shelf, Copies]:
    """A worklist in metadata, another one in key-value, and what the search index has."""
    version = {"metadata": "3-0123", "key-value": "1790000000000001", "": "vanished"}[search_index_of]
    power = Power()
    copies = Copies(EntriesCopy(":memory:"), lambda: [("workitem/0", b"", version)])
    return Shelf(power, DOCUMENTS, "metadata"), Shelf(power, OTHERS, "key-value"), copies


def worklist_in(store: Shelf) -> dict[str, bytes]:
    return {key: document for key, document in store.documents.items() if key != "aside"}


@pytest.mark.parametrize("name", ["metadata", "key-value"])
def test_of_two_worklists_auto_goes_on_with_the_one_that_was_used_last(name: str) -> None:
    metadata, key_value, copies = both(search_index_of=name)
    used = asyncio.run(settle(metadata, key_value, copies, last_used))
    assert used.name == name
    assert ("aside" in metadata.documents, "aside" in key_value.documents) == (
        used is key_value,
        used is metadata,
    )
    assert (worklist_in(metadata), worklist_in(key_value)) == (DOCUMENTS, OTHERS)


def test_what_was_chosen_once_auto_remembers_and_says_no_more(caplog: pytest.LogCaptureFixture) -> None:
    metadata, key_value, copies = both(search_index_of="key-value")
    assert asyncio.run(settle(key_value, metadata, copies)) is metadata
    assert caplog.text.count("Orthanc holds two worklists") == 1
    assert 'set "Ups.Store" to "key-value" for a while' in caplog.text
    for _ in range(2):
        assert asyncio.run(settle(metadata, key_value, copies, last_used)) is metadata
    assert caplog.text.count("Orthanc holds two worklists") == 1
    assert asyncio.run(settle(metadata, key_value, copies)) is key_value, "chosen"
    assert asyncio.run(settle(metadata, key_value, copies, last_used)) is key_value
    assert (worklist_in(metadata), worklist_in(key_value)) == (DOCUMENTS, OTHERS)


def test_auto_asks_if_nothing_tells_which_worklist_was_used_last() -> None:
    metadata, key_value, copies = both()
    with pytest.raises(StoreMisconfigured, match=r'set "Ups.Store" to "key-value" or "metadata"'):
        asyncio.run(settle(metadata, key_value, copies, last_used))


def test_a_worklist_that_was_set_aside_moves_as_soon_as_it_is_the_only_one() -> None:
    metadata, key_value, copies = both(search_index_of="key-value")
    asyncio.run(settle(metadata, key_value, copies, last_used))
    key_value.documents.clear()
    assert asyncio.run(settle(metadata, key_value, copies, last_used)) is key_value
    assert (metadata.documents, key_value.documents) == ({}, DOCUMENTS)


def test_what_is_set_aside_is_not_written_back_when_somebody_deletes_it() -> None:
    metadata, key_value, copies = both(search_index_of="key-value")
    copies.copy.put(Entry("subscriber/A", b"log", "1"))
    asyncio.run(settle(metadata, key_value, copies, last_used))
    assert list(copies.entries()) == []
