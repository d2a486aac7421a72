# SPDX-License-Identifier: AGPL-3.0-or-later
"""What every store of entries promises: the in-memory twin and Orthanc's metadata alike."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from orthanc_ups.store.key_value import KeyValueEntries
from orthanc_ups.store.port import Entry, EntryConflict, EntryExists, ShelvesLost, StoreUnavailable
from tests.contract.stores import (
    WITHOUT_PLUGINS,
    KeyValueEntriesStore,
    LosableStore,
    OrthancStore,
    Store,
    TwinStore,
    asynchronous,
    each,
    loaded,
    new_key,
)
from tests.support.key_value import SCRIPT, InMemoryKeyValueStore, RemoteKeyValueStore
from tests.support.memory_store import InMemoryEntries
from tests.support.orthanc import RealOrthanc
from tests.support.plugin_scripts import write_script


@pytest.fixture(scope="module")
def orthanc_overrides() -> dict[str, Any]:
    return WITHOUT_PLUGINS


class EntriesContract:
    concurrent = True  # adapters of several processes may write at the same moment

    @asynchronous
    async def test_what_was_created_is_read_and_loaded(self, store: Store) -> None:
        key = new_key()
        async with store.adapter() as entries:
            version = await entries.create(key, b"document")
            assert await entries.read(key) == Entry(key, b"document", version)
            assert (await loaded(entries))[key] == Entry(key, b"document", version)

    @asynchronous
    async def test_an_unknown_key_reads_as_none(self, store: Store) -> None:
        async with store.adapter() as entries:
            assert await entries.read(new_key()) is None

    @asynchronous
    async def test_an_existing_key_is_not_created_again(self, store: Store) -> None:
        key = new_key()
        async with store.adapter() as entries:
            version = await entries.create(key, b"first")
            with pytest.raises(EntryExists):
                await entries.create(key, b"second")
            assert await entries.read(key) == Entry(key, b"first", version)

    @asynchronous
    async def test_each_replace_needs_the_version_of_the_last_write(self, store: Store) -> None:
        key = new_key()
        async with store.adapter() as entries:
            first = await entries.create(key, b"1")
            second = await entries.replace(key, b"2", first)
            third = await entries.replace(key, b"3", second)
            assert len({first, second, third}) == 3
            for stale in (first, second):
                with pytest.raises(EntryConflict):
                    await entries.replace(key, b"x", stale)
                with pytest.raises(EntryConflict):
                    await entries.remove(key, stale)
            assert await entries.read(key) == Entry(key, b"3", third)

    @asynchronous
    async def test_the_same_content_again_is_another_version(self, store: Store) -> None:
        key = new_key()
        async with store.adapter() as entries:
            first = await entries.create(key, b"same")
            await entries.replace(key, b"same", first)
            with pytest.raises(EntryConflict):
                await entries.replace(key, b"late", first)

    @asynchronous
    async def test_a_removed_entry_is_gone_and_its_key_free(self, store: Store) -> None:
        key = new_key()
        async with store.adapter() as entries:
            version = await entries.create(key, b"old")
            await entries.remove(key, version)
            assert await entries.read(key) is None
            assert key not in await loaded(entries)
            with pytest.raises(EntryConflict):
                await entries.replace(key, b"late", version)
            with pytest.raises(EntryConflict):
                await entries.remove(key, version)
            again = await entries.create(key, b"new")
            assert await entries.read(key) == Entry(key, b"new", again)

    @asynchronous
    async def test_two_adapters_see_each_others_conflicts(self, store: Store) -> None:
        key = new_key()
        async with store.adapter() as adapter, store.adapter() as other:
            first = await adapter.create(key, b"by one")
            with pytest.raises(EntryExists):
                await other.create(key, b"by other")
            entry = await other.read(key)
            assert entry == Entry(key, b"by one", first)
            second = await other.replace(key, b"by other", first)
            with pytest.raises(EntryConflict):
                await adapter.replace(key, b"by one again", first)
            with pytest.raises(EntryConflict):
                await adapter.remove(key, first)
            assert await adapter.read(key) == Entry(key, b"by other", second)

    @asynchronous
    async def test_what_another_adapter_removed_is_a_conflict_and_stays_removed(self, store: Store) -> None:
        key = new_key()
        async with store.adapter() as adapter, store.adapter() as other:
            version = await adapter.create(key, b"document")
            await other.read(key)
            await other.remove(key, version)
            with pytest.raises(EntryConflict):
                await adapter.replace(key, b"resurrected", version)
            assert await adapter.read(key) is None
            assert await other.read(key) is None

    @asynchronous
    async def test_of_many_writers_at_once_one_wins(self, store: Store) -> None:
        key = new_key()
        async with store.adapter() as adapter, store.adapter() as other:
            adapters = [adapter, other if self.concurrent else adapter] * 4
            results = await asyncio.gather(
                *(adapter.create(key, f"by {number}".encode()) for number, adapter in enumerate(adapters)),
                return_exceptions=True,
            )
            version = next(result for result in results if isinstance(result, str))
            assert sum(isinstance(result, EntryExists) for result in results) == 7
            await other.read(key)
            results = await asyncio.gather(
                *(
                    adapter.replace(key, f"{number}".encode(), version)
                    for number, adapter in enumerate(adapters)
                ),
                return_exceptions=True,
            )
            assert sum(isinstance(result, str) for result in results) == 1
            assert sum(isinstance(result, EntryConflict) for result in results) == 7

    @pytest.mark.parametrize(
        "document",
        [
            b"{",
            b"",
            '{"PN": "山田^太郎", "emoji": "🩺", "escapes": "\\u0000\\n\\t\\"", "DEL": "\x7f"}\n'.encode(),
            b"\n\n line \r\n breaks \t\x01\x1f",
            ("ü" * 2_500_000).encode(),
        ],
        ids=["one byte", "empty", "all of Unicode", "control characters", "5 MB"],
    )
    @asynchronous
    async def test_documents_come_back_byte_by_byte(self, store: Store, document: bytes) -> None:
        key = new_key("subscriber") + "/AE TITLE ÄÖ"
        async with store.adapter() as entries:
            version = await entries.create(key, document)
            assert await entries.read(key) == Entry(key, document, version)
        async with store.adapter() as entries:
            entry = (await loaded(entries))[key]
            assert entry == Entry(key, document, version)
            await entries.remove(key, await entries.replace(key, b"small", entry.version))

    @asynchronous
    async def test_others_are_all_entries_but_workitems(self, store: Store) -> None:
        keys = [new_key(), *(new_key(kind) for kind in ("dead", "subscriber", "note", "delivery")), new_key()]
        async with store.adapter() as entries:
            others = {key: await entries.create(key, key.encode()) for key in keys}
            with contextlib.suppress(EntryExists):
                await entries.create("worklist", b"{}")
        async with store.adapter() as entries:
            stored_keys = {entry.key async for chunk in entries.load_others() for entry in chunk}
            assert {"worklist", *keys[1:5]} <= stored_keys
            assert not [key for key in stored_keys if key.startswith("workitem/")]
            for key, version in others.items():
                await entries.remove(key, version)

    @asynchronous
    async def test_a_loaded_version_replaces_and_removes_at_once(self, store: Store) -> None:
        keys = [new_key() for _ in range(3)]
        async with store.adapter() as entries:
            for key in keys:
                await entries.replace(
                    key, b"2", await entries.replace(key, b"1", await entries.create(key, b"0"))
                )
        async with store.adapter() as entries:
            stored = await loaded(entries)
            newer = await entries.replace(keys[0], b"3", stored[keys[0]].version)
            await entries.replace(keys[0], b"4", newer)
            await entries.remove(keys[1], stored[keys[1]].version)
            with pytest.raises(EntryConflict):
                await entries.replace(keys[0], b"x", stored[keys[0]].version)
            assert await entries.read(keys[1]) is None


class RestorableContract(EntriesContract):
    """Of stores whose entries somebody may delete from outside."""

    @asynchronous
    async def test_what_was_deleted_under_us_is_refused_then_restored_with_its_versions(
        self, store: LosableStore
    ) -> None:
        keys = [new_key() for _ in range(40)]
        async with store.adapter() as entries:
            assert await entries.missing() == frozenset()
            for key in keys:
                await entries.replace(key, f"new {key}".encode(), await entries.create(key, b"old"))
            stored = await loaded(entries)
            store.lose()
            with pytest.raises(ShelvesLost) as refusal:
                await entries.replace(keys[0], b"x", stored[keys[0]].version)
            assert refusal.value.certain
            with pytest.raises(ShelvesLost):
                await entries.read(keys[1])
            with pytest.raises(ShelvesLost):
                await entries.create(new_key(), b"x")
            with pytest.raises(ShelvesLost):
                await entries.remove(keys[2], stored[keys[2]].version)
            assert await entries.missing()
            assert await entries.restore(each(stored.values())) == len(stored)
            assert await entries.missing() == frozenset()
            assert await loaded(entries) == stored
            changed = await entries.replace(keys[0], b"later", stored[keys[0]].version)
            await entries.replace(keys[0], b"still later", changed)
            assert await entries.restore(each(stored.values())) == 0


class TestInMemoryTwin(RestorableContract):
    @pytest.fixture
    def store(self) -> LosableStore:
        return TwinStore()

    @asynchronous
    async def test_while_unavailable_nothing_changes(self) -> None:
        entries = InMemoryEntries()
        version = await entries.create("a", b"1")
        entries.unavailable = True
        for attempt in (entries.read("a"), entries.create("b", b""), entries.replace("a", b"2", version)):
            with pytest.raises(StoreUnavailable) as error:
                await attempt
            assert error.value.certain
        entries.unavailable = False
        assert await loaded(entries) == {"a": Entry("a", b"1", version)}

    @asynchronous
    async def test_a_lost_request_was_not_done_and_a_lost_answer_was(self) -> None:
        entries = InMemoryEntries()
        entries.lost_requests, entries.lost_answers = 1, 1
        for _ in range(2):
            with pytest.raises(StoreUnavailable) as error:
                await entries.create("a", b"1")
            assert not error.value.certain
        assert (await loaded(entries))["a"].document == b"1"

    @asynchronous
    async def test_a_switched_on_conflict_changes_the_version(self) -> None:
        entries = InMemoryEntries()
        version = await entries.create("a", b"1")
        entries.conflicts = 1
        with pytest.raises(EntryConflict):
            await entries.replace("a", b"2", version)
        entry = await entries.read("a")
        assert entry is not None and entry.document == b"1"
        assert await entries.replace("a", b"2", entry.version)


class TestOrthancMetadata(RestorableContract):
    @pytest.fixture
    def store(self, orthanc: RealOrthanc) -> LosableStore:
        return OrthancStore(orthanc)


class TestInMemoryKeyValueStore(EntriesContract):
    concurrent = False  # SQLite lets one process in, and that has one writer thread

    @pytest.fixture
    def store(self) -> Store:
        return KeyValueEntriesStore(InMemoryKeyValueStore())

    @asynchronous
    async def test_a_write_that_orthanc_refuses_has_certainly_not_happened(self) -> None:
        orthanc = InMemoryKeyValueStore()
        async with KeyValueEntriesStore(orthanc).adapter() as entries:
            version = await entries.create("a", b"1")
            orthanc.failure = RuntimeError("database is locked")
            with pytest.raises(StoreUnavailable, match="database is locked") as error:
                await entries.replace("a", b"2", version)
            assert error.value.certain
            assert await entries.read("a") == Entry("a", b"1", version)

    @asynchronous
    async def test_what_is_not_an_entry_is_left_alone(self) -> None:
        orthanc = InMemoryKeyValueStore()
        orthanc.StoreKeyValue("orthanc-ups", "workitem/1", b"no revision")
        async with KeyValueEntriesStore(orthanc).adapter() as entries:
            assert await loaded(entries) == {}
            assert await entries.read("workitem/1") is None
        assert orthanc.GetKeyValue("orthanc-ups", "workitem/1") == b"no revision"

    @asynchronous
    async def test_only_small_documents_are_written_as_they_are(self) -> None:
        orthanc = InMemoryKeyValueStore()
        large = b'{"format": 1, "uid": "2.25.71"}' * 100
        async with KeyValueEntriesStore(orthanc).adapter() as entries:
            await entries.create("worklist", b'{"format": 1}')
            await entries.create("workitem/2.25.71", large)
            assert await entries.read("workitem/2.25.71") == (await loaded(entries))["workitem/2.25.71"]
        stored = orthanc.stores["orthanc-ups"]
        assert stored["worklist"].endswith(b'\n{"format": 1}')
        assert len(stored["workitem/2.25.71"]) < len(large) / 4

    @asynchronous
    async def test_what_an_earlier_version_wrote_as_it_is_is_read_and_replaced(self) -> None:
        orthanc = InMemoryKeyValueStore()
        document = b'{"format": 1, "uid": "2.25.71"}' * 100
        orthanc.StoreKeyValue("orthanc-ups", "workitem/2.25.71", b"7\n" + document)
        async with KeyValueEntriesStore(orthanc).adapter() as entries:
            assert await entries.read("workitem/2.25.71") == Entry("workitem/2.25.71", document, "7")
            assert await entries.replace("workitem/2.25.71", document + b" ", "7") == "8"

    @asynchronous
    async def test_a_damaged_value_is_an_entry_whose_document_nobody_can_read(self) -> None:
        orthanc = InMemoryKeyValueStore()
        orthanc.StoreKeyValue("orthanc-ups", "workitem/1", b"7 deflated\n\xff\xff damaged")
        async with KeyValueEntriesStore(orthanc).adapter() as entries:
            assert await entries.read("workitem/1") == Entry("workitem/1", b"\xff\xff damaged", "7")

    @asynchronous
    async def test_a_version_of_a_removed_entry_is_never_that_of_its_successor(self) -> None:
        async with KeyValueEntriesStore(InMemoryKeyValueStore()).adapter() as entries:
            version = await entries.create("a", b"1")
            await entries.remove("a", version)
            await entries.create("a", b"1")
            with pytest.raises(EntryConflict):
                await entries.replace("a", b"late", version)

    @asynchronous
    async def test_after_close_nothing_is_written(self) -> None:
        orthanc = InMemoryKeyValueStore()
        entries = KeyValueEntries(orthanc)
        await entries.open()
        await entries.close()
        with pytest.raises(StoreUnavailable):
            await entries.create("a", b"1")
        assert orthanc.stores == {}


@pytest.fixture(scope="module")
def key_value_url(suite: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if suite == "trixie":
        pytest.skip("Orthanc 1.12.7 has no key-value stores")
    script = write_script(tmp_path_factory.mktemp("key-value"), SCRIPT)
    with RealOrthanc(suite, {"Ups": {"Enable": False}}, script=script) as orthanc:
        yield orthanc.base_url


class TestOrthancKeyValueStore(EntriesContract):
    concurrent = False  # SQLite lets one process in, and that has one writer thread

    @pytest.fixture
    def store(self, key_value_url: str) -> Store:
        return KeyValueEntriesStore(RemoteKeyValueStore(key_value_url))
