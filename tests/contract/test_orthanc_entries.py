# SPDX-License-Identifier: AGPL-3.0-or-later
"""What only the store on Orthanc's metadata promises: of its shelves, and of those who touch them."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from orthanc_ups.orthanc.loopback import Loopback
from orthanc_ups.store import shelves
from orthanc_ups.store.metadata import OrthancEntries
from orthanc_ups.store.port import Entry, EntryConflict, EntryExists
from orthanc_ups.store.shelf_set import StoreMisconfigured
from orthanc_ups.store.shelves import Address, Value
from tests.contract.stores import WITHOUT_PLUGINS, OrthancStore, asynchronous, each, loaded, new_key
from tests.support.orthanc import RealOrthanc


@pytest.fixture(scope="module")
def orthanc_overrides() -> dict[str, Any]:
    return WITHOUT_PLUGINS | {"UserMetadata": {"named-by-the-hospital": shelves.address("named", 0).slot}}


@pytest.fixture
def store(orthanc: RealOrthanc) -> OrthancStore:
    return OrthancStore(orthanc)


@asynchronous
async def test_the_patient_of_the_shelves_is_protected(store: OrthancStore) -> None:
    async with store.adapter():
        patient = store.get(f"/patients/{shelves.PATIENT}/protected")
    assert patient.text == "1"


@asynchronous
async def test_opening_again_makes_nothing(store: OrthancStore) -> None:
    async with store.adapter(), store.adapter():
        statistics = store.get("/statistics").json()
    assert statistics["CountInstances"] == shelves.SHELVES
    assert statistics["CountPatients"] == 1


@asynchronous
async def test_a_slot_to_which_the_hospital_gave_a_name_is_as_good_as_any(store: OrthancStore) -> None:
    async with store.adapter() as entries:
        version = await entries.create("named", b"document")
        assert (await loaded(entries))["named"] == Entry("named", b"document", version)


@asynchronous
async def test_keys_that_meet_at_an_address_are_kept_apart(
    store: OrthancStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    meeting = new_key()
    address = shelves.address(meeting, 0)
    real = shelves.address

    def crowded(key: str, probe: int) -> Address:
        return address if probe == 0 and key.startswith("meets/") else real(key, probe)

    monkeypatch.setattr(shelves, "address", crowded)
    keys = ["meets/1", "meets/2", "meets/3"]
    async with store.adapter() as entries:
        versions = {key: await entries.create(key, key.encode()) for key in keys}
        await entries.remove(keys[0], versions[keys[0]])
        with pytest.raises(EntryExists):
            await entries.create(keys[1], b"again")
        assert await entries.read(keys[1]) == Entry(keys[1], keys[1].encode(), versions[keys[1]])
    async with store.adapter() as entries:
        stored = await loaded(entries)
        assert [stored[key].version for key in keys[1:]] == [versions[key] for key in keys[1:]]
        await entries.create(keys[0], b"back")
        for key in keys[1:]:
            await entries.remove(key, stored[key].version)


@asynchronous
async def test_a_foreign_metadata_is_reported_once_and_left_alone(
    store: OrthancStore, caplog: pytest.LogCaptureFixture
) -> None:
    address = shelves.address(new_key(), 0)
    async with store.adapter() as entries:
        await entries.create(new_key(), b"neighbour")
        before = await loaded(entries)
        store.put_by_hand(address, b"a note of the hospital")
        with caplog.at_level(logging.ERROR, "orthanc_ups.store"):
            assert await loaded(entries) == before
            assert await loaded(entries) == before
    assert [record for record in caplog.messages if f"Metadata {address.slot}" in record] == [
        f"Metadata {address.slot} of instance {shelves.INSTANCES[address.shelf]} is not an entry of the worklist; "
        "it is left alone"
    ]
    assert store.get(shelves.path(address)).text == "a note of the hospital"


@asynchronous
async def test_metadata_that_a_hospital_sets_on_every_instance_are_no_matter(store: OrthancStore) -> None:
    async with store.adapter() as entries:
        version = await entries.create("workitem/beside", b"document")
        for slot in (1024, 1030, 1039):
            store.put_by_hand(Address(shelves.address("workitem/beside", 0).shelf, slot), b"by a script")
        assert (await loaded(entries))["workitem/beside"].version == version
        assert await entries.missing() == frozenset()


@asynchronous
async def test_an_entry_on_a_foreign_address_goes_to_its_next_one(store: OrthancStore) -> None:
    key = new_key()
    store.put_by_hand(shelves.address(key, 0), Value("elsewhere", 0, b"").encoded())
    async with store.adapter() as entries:
        version = await entries.create(key, b"document")
        assert (await loaded(entries))[key].version == version


@asynchronous
async def test_an_entry_damaged_by_hand_counts_as_gone_and_is_made_anew_on_its_next_address(
    store: OrthancStore,
) -> None:
    key = new_key()
    async with store.adapter() as entries:
        version = await entries.create(key, b"document")
        store.put_by_hand(shelves.address(key, 0), b"\xff damaged")
        with pytest.raises(EntryConflict):
            await entries.replace(key, b"x", version)
        assert await entries.read(key) is None
        again = await entries.create(key, b"document")
        assert (await loaded(entries))[key].version == again
        await entries.replace(key, b"goes on", again)


@asynchronous
async def test_a_single_deleted_shelf_is_restored_and_the_others_left_as_they_are(
    store: OrthancStore,
) -> None:
    async with store.adapter() as entries:
        keys = [new_key() for _ in range(8)]
        for key in keys:
            await entries.create(key, b"1")
        stored = await loaded(entries)
        shelf = shelves.address(keys[0], 0).shelf
        store.delete_shelf(shelf)
        assert await entries.missing() == {shelf}
        stale = [Entry("workitem/removed long ago", b"", f"0-{'0' * 32}")]
        there = {entry.key for entry in stored.values() if shelves.address(entry.key, 0).shelf == shelf}
        assert shelves.address(stale[0].key, 0).shelf != shelf
        assert await entries.restore(each([*stored.values(), *stale])) == len(there)
        assert await loaded(entries) == stored


@asynchronous
async def test_a_restore_that_was_broken_off_is_finished_by_the_next_start(store: OrthancStore) -> None:
    async def breaking_off(entries: list[Entry]) -> AsyncIterator[Entry]:
        for entry in entries[:1]:
            yield entry
        raise ConnectionResetError

    async with store.adapter() as entries:
        for _ in range(5):
            await entries.create(new_key(), b"1")
        stored = await loaded(entries)
        store.lose()
        with pytest.raises(ConnectionResetError):
            await entries.restore(breaking_off(list(stored.values())))
    async with Loopback(store.url) as loopback:
        entries = OrthancEntries(loopback)
        await entries.open()
        await loaded(entries)
        assert entries.incomplete == frozenset(range(shelves.SHELVES))
        await entries.restore(each(stored.values()))
        assert await loaded(entries) == stored
        assert entries.incomplete == frozenset()


def test_without_check_revisions_opening_names_the_key(suite: str) -> None:
    async def open_entries(url: str) -> None:
        async with Loopback(url) as loopback:
            await OrthancEntries(loopback).open()

    with RealOrthanc(suite, WITHOUT_PLUGINS | {"CheckRevisions": False}) as orthanc:
        with pytest.raises(StoreMisconfigured, match=r'"CheckRevisions" is false or absent .* expected true'):
            asyncio.run(open_entries(orthanc.base_url))
        assert OrthancStore(orthanc).get("/statistics").json()["CountInstances"] == shelves.SHELVES
