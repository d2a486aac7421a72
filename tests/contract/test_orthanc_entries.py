# SPDX-License-Identifier: AGPL-3.0-or-later
"""What only the store in Orthanc's metadata promises: its shelves, and changes of them from outside."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from orthanc_ups.orthanc.loopback import Loopback
from orthanc_ups.store import shelves
from orthanc_ups.store.metadata import OrthancEntries
from orthanc_ups.store.port import Entry, EntryConflict, EntryExists, StoreUnavailable
from orthanc_ups.store.shelf_set import StoreMisconfigured
from orthanc_ups.store.shelves import Address, Value
from tests.contract.stores import WITHOUT_PLUGINS, OrthancStore, asynchronous, each, loaded, new_key
from tests.support.orthanc import RealOrthanc
from tests.support.watched_loopback import WatchedLoopback


@pytest.fixture(scope="module")
def orthanc_overrides() -> dict[str, Any]:
    return WITHOUT_PLUGINS | {"UserMetadata": {"named-by-the-hospital": shelves.hashed("named", 0).slot}}


@pytest.fixture
def store(orthanc: RealOrthanc) -> OrthancStore:
    return OrthancStore(orthanc)


@asynchronous
async def test_the_patient_of_the_shelves_is_protected(store: OrthancStore) -> None:
    async with store.adapter():
        patient = store.get(f"/patients/{shelves.PATIENT}/protected")
    assert patient.text == "1"


@asynchronous
async def test_an_empty_worklist_is_one_instance_of_one_patient_and_opening_again_makes_nothing(
    store: OrthancStore,
) -> None:
    store.lose()
    async with store.adapter(), store.adapter():
        statistics = store.get("/statistics").json()
    assert statistics["CountInstances"] == 1
    assert statistics["CountPatients"] == 1


@asynchronous
async def test_the_pseudo_patient_says_what_it_is_and_bears_a_label(store: OrthancStore) -> None:
    async with store.adapter():
        study = store.get(f"/studies/{shelves.STUDY}").json()
        labels = [store.get(f"/patients/{shelves.PATIENT}/labels").json(), study["Labels"]]
    assert labels == [["orthanc-ups"], ["orthanc-ups"]]
    tags = study["MainDicomTags"]
    assert tags["StudyDescription"] == "Storage of the UPS worklist (plugin orthanc-ups), no images"
    assert re.fullmatch(r"\d{8}", tags["StudyDate"]) and re.fullmatch(r"\d{6}", tags["StudyTime"])


# --- shelves on demand ---


@asynchronous
async def test_another_shelf_is_made_when_the_present_ones_are_full_and_every_entry_is_found(
    store: OrthancStore,
) -> None:
    store.lose()
    keys = [new_key() for _ in range(32)]
    async with store.adapter(full=8) as entries:
        versions = {}
        for number, key in enumerate(keys):
            versions[key] = await entries.create(key, b"1")
            assert store.shelves_in_orthanc() == max(1, 1 + number // 8)
        for key in keys:
            versions[key] = await entries.replace(key, b"2", versions[key])
        assert await entries.missing() == frozenset()
        dates = {
            store.get(f"/instances/{shelves.INSTANCES[shelf]}/tags?simplify").json()["StudyTime"]
            for shelf in range(4)
        }
    assert len(dates) == 1, "one study has one time"
    used = {store.shelf_of(key) for key in keys}
    assert len(used) > 1, "the last shelf may have none of the few keys that came after it was made"
    assert used <= {0, 1, 2, 3}
    async with store.adapter() as entries:
        stored = await loaded(entries)
        assert {key: stored[key].version for key in keys} == versions
        assert entries.incomplete == frozenset()
    async with Loopback(store.url) as loopback:
        cold = OrthancEntries(loopback)
        await cold.open()
        assert await cold.read(keys[0]) == Entry(keys[0], b"2", versions[keys[0]]), "without having loaded"


@asynchronous
async def test_a_shelf_that_cannot_be_made_stops_nobody(
    store: OrthancStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.lose()
    loopback = WatchedLoopback(store.url)
    async with store.adapter(full=10, loopback=loopback) as entries:
        loopback.is_full = True
        for _ in range(13):
            await entries.create(new_key(), b"1")
    assert store.shelves_in_orthanc() == 1
    assert caplog.text.count("Cannot add a shelf") == 3, "at the 11th entry and each further one of a tenth"


@asynchronous
async def test_a_create_whose_answer_was_lost_is_found_although_a_shelf_was_added_meanwhile(
    store: OrthancStore,
) -> None:
    store.lose()
    key = next(key for key in iter(new_key, "") if shelves.new_address(key, 0, 2).shelf == 1)
    loopback = WatchedLoopback(store.url)
    async with store.adapter(full=2, loopback=loopback) as entries:
        loopback.lost_answers = 1
        with pytest.raises(StoreUnavailable):
            await entries.create(key, b"document")
        while store.shelves_in_orthanc() < 2:
            await entries.create(new_key(), b"another document")
        with pytest.raises(EntryExists):
            await entries.create(key, b"document")
        assert store.shelf_of(key) == 0


@asynchronous
async def test_the_256_shelves_of_version_1_0_0_dev0_are_opened_without_loss(store: OrthancStore) -> None:
    store.lose()
    documents = {new_key(): b"%d" % number for number in range(40)} | {"worklist": b"{}"}
    store.make_by_version_1_0_0_dev0(documents)
    async with store.adapter(full=1) as entries:
        stored = await loaded(entries)
        assert {key: entry.document for key, entry in stored.items()} == documents
        assert entries.incomplete == frozenset()
        for key, entry in stored.items():
            await entries.replace(key, b"again", entry.version)
        with pytest.raises(EntryExists):
            await entries.create("worklist", b"a second one")
        await entries.create(new_key(), b"new")
        assert store.shelves_in_orthanc() == shelves.SHELVES
        store.delete_shelf(7)
        assert await entries.missing() == {7}
    store.lose()


@asynchronous
async def test_a_shelf_deleted_while_the_plugin_was_off_is_missed_though_it_was_the_last(
    store: OrthancStore,
) -> None:
    store.lose()
    async with store.adapter(full=2) as entries:
        for _ in range(9):
            await entries.create(new_key(), b"1")
        stored = await loaded(entries)
    last = store.shelves_in_orthanc() - 1
    store.delete_shelf(last)
    async with Loopback(store.url) as loopback:
        entries = OrthancEntries(loopback)
        await entries.open()
        await loaded(entries)
        assert entries.incomplete == {last}
        await entries.restore(each(stored.values()))
        assert await loaded(entries) == stored


@asynchronous
async def test_a_worklist_of_many_shelves_of_which_nothing_is_left_comes_back_whole(
    store: OrthancStore,
) -> None:
    store.lose()
    async with store.adapter(full=4) as entries:
        for _ in range(30):
            await entries.create(new_key(), b"1")
        stored = await loaded(entries)
    store.lose()
    async with Loopback(store.url) as loopback:
        entries = OrthancEntries(loopback)
        entries.full = 4
        await entries.open()
        await loaded(entries)
        assert await entries.restore(each(stored.values())) == 30
        assert await loaded(entries) == stored
        assert entries.incomplete == await entries.missing() == frozenset()


@asynchronous
async def test_a_look_whether_shelves_are_there_reads_none_of_them(
    store: OrthancStore,
) -> None:
    loopback = WatchedLoopback(store.url)
    async with store.adapter(loopback=loopback) as entries:
        loopback.paths.clear()
        assert await entries.missing() == frozenset()
        assert loopback.paths == [f"/series/{shelves.SERIES}"]


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
    address = shelves.hashed(meeting, 0)
    real = shelves.hashed

    def crowded(key: str, probe: int) -> Address:
        return address if probe == 0 and key.startswith("meets/") else real(key, probe)

    monkeypatch.setattr(shelves, "hashed", crowded)
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
    address = shelves.new_address(new_key(), 0, 1)
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
            store.put_by_hand(Address(0, slot), b"by a script")
        assert (await loaded(entries))["workitem/beside"].version == version
        assert await entries.missing() == frozenset()


@asynchronous
async def test_an_entry_on_a_foreign_address_goes_to_its_next_one(store: OrthancStore) -> None:
    key = new_key()
    store.put_by_hand(shelves.new_address(key, 0, 1), Value("elsewhere", 0, b"").encoded())
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
        store.put_by_hand(shelves.new_address(key, 0, 1), b"damaged")
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
    store.lose()
    async with store.adapter(full=2) as entries:
        keys = [new_key() for _ in range(12)]
        for key in keys:
            await entries.create(key, b"1")
        stored = await loaded(entries)
        shelf = next(shelf for shelf in map(store.shelf_of, keys) if shelf)
        there = {key for key in stored if store.shelf_of(key) == shelf}
        store.delete_shelf(shelf)
        assert await entries.missing() == {shelf}
        elsewhere = (
            key
            for key in iter(new_key, "")
            if shelf not in {address.shelf for address in shelves.addresses(key, 0, shelves.SHELVES)}
        )
        stale = [Entry(next(elsewhere), b"removed long ago", f"0-{'0' * 32}")]
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
        assert 0 in entries.incomplete
        await entries.restore(each(stored.values()))
        assert await loaded(entries) == stored
        assert entries.incomplete == frozenset()


def test_without_check_revisions_opening_names_the_key(suite: str) -> None:
    async def open_entries(url: str) -> None:
        async with Loopback(url) as loopback:
            await OrthancEntries(loopback).open()

    with RealOrthanc(suite, WITHOUT_PLUGINS | {"CheckRevisions": False}) as orthanc:
        with pytest.raises(StoreMisconfigured, match=r'"CheckRevisions" is false or absent, expected true'):
            asyncio.run(open_entries(orthanc.base_url))
        assert OrthancStore(orthanc).shelves_in_orthanc() == 1
