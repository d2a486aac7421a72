# SPDX-License-Identifier: AGPL-3.0-or-later
"""A write whose answer was lost is settled by the next one: nothing is written twice or mistaken for foreign."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import product

import pytest

from orthanc_ups.store.port import Entry, StoreUnavailable
from orthanc_ups.store.writer import CompareAndSet, Conflict, StoredEntry, Writer
from tests.support.delivery import run
from tests.support.memory_store import InMemoryEntries

KEY = "note/test"
TROUBLES = ("", "lost_requests", "lost_answers", "unavailable")


async def stored(entries: InMemoryEntries) -> Entry | None:
    return await entries.another().read(KEY)


async def documents_written(entries: InMemoryEntries, mark: CompareAndSet, troubles: Sequence[str]) -> None:
    """Write a document of its own under each trouble in turn."""
    for number, trouble in enumerate(troubles):
        if trouble:
            setattr(entries, trouble, 1)
        with suppress(StoreUnavailable):
            await mark.write(b"document %d" % number)
        entries.unavailable = False


def histories() -> Iterator[tuple[str, ...]]:
    yield from product(TROUBLES, repeat=4)


@pytest.mark.parametrize("begins_empty", [True, False])
def test_after_any_troubles_the_next_write_replaces_our_own_document(begins_empty: bool) -> None:
    async def scenario() -> None:
        for troubles in histories():
            entries = InMemoryEntries()
            version = None if begins_empty else await entries.create(KEY, b"before")
            mark = CompareAndSet(entries, KEY, version)
            await documents_written(entries, mark, troubles)
            version = await mark.write(b"last")
            assert await stored(entries) == Entry(KEY, b"last", version), troubles
            assert not mark.is_in_doubt and mark.version == version

    run(scenario())


def test_after_any_troubles_what_somebody_else_wrote_is_a_conflict_and_stays() -> None:
    async def scenario() -> None:
        for troubles in histories():
            entries = InMemoryEntries()
            mark = CompareAndSet(entries, KEY, await entries.create(KEY, b"before"))
            await documents_written(entries, mark, troubles)
            before = await stored(entries)
            assert before is not None
            theirs = await entries.another().replace(KEY, b"theirs", before.version)
            with pytest.raises(Conflict) as conflict:
                await mark.write(b"last")
            assert conflict.value.entry == await stored(entries) == Entry(KEY, b"theirs", theirs), troubles
            assert mark.version == theirs

    run(scenario())


def test_a_write_is_in_doubt_exactly_while_nobody_knows_whether_it_was_done() -> None:
    async def scenario() -> None:
        entries = InMemoryEntries()
        mark = CompareAndSet(entries, KEY)
        entries.unavailable = True
        with pytest.raises(StoreUnavailable):
            await mark.write(b"first")
        doubts = [mark.is_in_doubt]
        entries.unavailable, entries.lost_answers = False, 1
        with pytest.raises(StoreUnavailable):
            await mark.write(b"first")
        doubts.append(mark.is_in_doubt)
        written = await mark.write(b"first")
        assert [*doubts, mark.is_in_doubt] == [False, True, False]
        assert await stored(entries) == Entry(KEY, b"first", written)
        assert entries.calls == {"create": 3, "read": 1}

    run(scenario())


class BrokenEntries(InMemoryEntries):
    """Has an internal error after, or before, a write is done."""

    def __init__(self, *, after: bool) -> None:
        super().__init__()
        self._after = after

    async def create(self, key: str, document: bytes) -> str:
        if self._after:
            await super().create(key, document)
        raise ValueError("broken by a test")


def test_an_internal_error_is_settled_by_reading() -> None:
    async def scenario() -> None:
        done = BrokenEntries(after=True)
        assert await Writer(done).write(KEY, b"document", None) == "1"
        with pytest.raises(StoreUnavailable, match="internal error") as error:
            await Writer(BrokenEntries(after=False)).write(KEY, b"document", None)
        assert error.value.certain

    run(scenario())


@pytest.mark.parametrize("troubles", [("lost_answers",), ("lost_requests", "lost_requests", "lost_answers")])
def test_a_writer_repeats_until_the_outcome_is_certain(troubles: Sequence[str]) -> None:
    async def scenario() -> None:
        entries, pauses = InMemoryEntries(), list[float]()
        remaining = list(troubles)

        async def sleep(seconds: float) -> None:
            pauses.append(seconds)
            if remaining:
                setattr(entries, remaining.pop(0), 1)

        setattr(entries, remaining.pop(0), 1)
        version = await Writer(entries, sleep).write(KEY, b"document", None)
        assert await stored(entries) == Entry(KEY, b"document", version)
        assert len(pauses) == len(troubles)

    run(scenario())


def test_an_entry_that_somebody_deletes_is_created_again() -> None:
    async def scenario() -> None:
        entries = InMemoryEntries()
        entry = StoredEntry(entries, KEY)
        await entry.write(lambda _: b"first")
        before = await stored(entries)
        assert before is not None
        await entries.another().remove(KEY, before.version)
        await entry.write(lambda _: b"second")
        assert await stored(entries) == entry.stored

    run(scenario())


def test_a_deletion_whose_answer_was_lost_may_be_repeated() -> None:
    async def scenario() -> None:
        entries = InMemoryEntries()
        entry = StoredEntry(entries, KEY)
        await entry.write(lambda _: b"first")
        entries.lost_answers = 1
        with pytest.raises(StoreUnavailable):
            await entry.remove()
        await entry.remove()
        assert entry.stored is None and await stored(entries) is None

    run(scenario())
