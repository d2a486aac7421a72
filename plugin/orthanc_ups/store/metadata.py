# SPDX-License-Identifier: AGPL-3.0-or-later
"""Entries in Orthanc's metadata: compare-and-set by ETag, over the loopback."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Set
from contextlib import aclosing
from typing import Final, NamedTuple

from ..orthanc.loopback import Loopback, Reply, refused
from . import keys, shelves
from .port import Entry, EntryConflict, EntryExists, ShelvesLost, StoreUnavailable, chunks
from .shelf_set import DELETED_AGAIN, ShelfSet, in_flight
from .shelves import Address, Uploads, Value, Version

_log = logging.getLogger("orthanc_ups.store")
_READ_AHEAD: Final = 3  # shelves of some megabytes each
_FIRST_REVISION: Final = 0


class _StoredValue(NamedTuple):
    """The content of an address: ``etag`` is Orthanc's own version; ``value`` is None if it is foreign."""

    stored: bytes
    etag: Version
    value: Value | None

    def holds(self, key: str) -> bool:
        """True if it is the entry of this key."""
        return self.value is not None and self.value.key == key


class OrthancEntries:
    """Entries on shelves. Call ``open`` first, then ``load``.

    The address of each entry is kept by key, as its number among the possible ones (``candidate_of``), a small integer.

    Attributes:
        refused_because: why nothing is written any more; empty normally.
        full: mean number of entries per shelf from which another shelf is added.
    """

    name: Final = "metadata"
    exposed: Final = True

    @property
    def location(self) -> str:
        """Where in Orthanc the entries are, in words."""
        count = self._shelf_set.count
        instances = "one instance" if count == 1 else f"{count} instances"
        return f'the metadata of {instances} of the patient "{shelves.PATIENT_ID}"'

    def __init__(self, loopback: Loopback, uploads: Uploads | None = None) -> None:
        """Prepare, without sending anything. ``uploads`` are admitted by the upload guard."""
        self._loopback = loopback
        self._shelf_set = ShelfSet(loopback, uploads or Uploads())
        self._candidates: dict[str, int] = {}
        self._counts: dict[str, int] = {}
        self._adding = False
        self._add_from = 0
        self._counts_revisions = True
        self._incomplete: frozenset[int] = frozenset()
        self._complete: set[int] = set()
        self._reported: set[Address] = set()
        self.refused_because = ""
        self.full = shelves.FULL

    async def open(self) -> None:
        """Create the shelves if they are absent, protect them, and find out how this Orthanc compares versions.

        Raises:
            StoreMisconfigured: ``CheckRevisions`` is off, or the shelves are deleted each time they are created.
            StoreUnavailable: try again later.
        """
        self._complete -= await self._shelf_set.make_missing()
        self._counts_revisions = await self._shelf_set.counts_revisions()

    async def exists(self) -> bool:
        """True if Orthanc has the pseudo patient, or any part of it."""
        return bool(await self._shelf_set.present())

    async def discard(self) -> None:
        """Delete the pseudo patient with every entry. ``open`` creates it again."""
        reply = await self._loopback.request("DELETE", f"/patients/{shelves.PATIENT}")
        if reply.status not in (200, 404):
            raise refused(reply, "cannot delete the pseudo patient of the worklist")
        self._shelf_set.start_over()
        self._candidates.clear()
        self._complete.clear()

    # --- reading ----------------------------------------------------------------------------------

    async def load(self) -> AsyncIterator[list[Entry]]:
        """Every entry, one shelf at a time. Afterwards ``incomplete`` is known.

        Raises:
            StoreUnavailable: a shelf could not be read; call it again.
        """
        await self._shelf_set.recount(await self._shelf_set.present())
        candidates: dict[str, int] = {}
        incomplete = set()
        async for shelf, stored in self._each_shelf():
            if stored.get(shelves.MARK_SLOT) != shelves.MARK:
                incomplete.add(shelf)
            if entries := self._entries_of(shelf, stored, candidates):
                yield entries
        self._candidates.update(candidates)
        self._incomplete = frozenset(incomplete)
        self._complete = set(range(self._shelf_set.count)) - incomplete

    async def load_others(self) -> AsyncIterator[list[Entry]]:
        """See ``RestorableEntries``; reads everything."""
        async for chunk in self.load():
            yield [entry for entry in chunk if not keys.is_of_workitem(entry.key)]

    async def scan(self) -> AsyncGenerator[list[Entry], None]:
        """Every entry, one shelf at a time, without remembering anything. Raises StoreUnavailable."""
        candidates: dict[str, int] = {}
        async with aclosing(self._each_shelf()) as shelves_read:
            async for shelf, stored in shelves_read:
                yield self._entries_of(shelf, stored, candidates)

    @property
    def incomplete(self) -> frozenset[int]:
        """Shelves that lack some of their entries. At the very first start this is the first shelf."""
        return self._incomplete

    async def _each_shelf(self) -> AsyncGenerator[tuple[int, dict[int, bytes]], None]:
        """The content of each shelf; Orthanc reads the next ones in parallel."""
        reads: deque[asyncio.Task[dict[int, bytes]]] = deque()
        try:
            count = self._shelf_set.count
            for shelf in range(count + _READ_AHEAD):
                if shelf < count:
                    reads.append(asyncio.create_task(self._stored_on(shelf)))
                if shelf >= _READ_AHEAD:
                    yield shelf - _READ_AHEAD, await reads.popleft()
        finally:
            for task in reads:
                task.cancel()
            await asyncio.gather(*reads, return_exceptions=True)

    async def _stored_on(self, shelf: int) -> dict[int, bytes]:
        reply = await self._loopback.request(
            "GET", f"/instances/{shelves.INSTANCES[shelf]}/metadata?expand&numeric"
        )
        if reply.status == 404:
            return {}
        if reply.status != 200:
            raise refused(reply, f"cannot read shelf {shelf} of the worklist")
        stored: dict[str, str] = reply.json()
        return {
            int(slot): text.encode() for slot, text in stored.items() if int(slot) >= shelves.FIRST_USER_SLOT
        }

    def _entries_of(self, shelf: int, stored: dict[int, bytes], candidates: dict[str, int]) -> list[Entry]:
        entries = []
        for slot, content in stored.items():
            if slot in shelves.SLOTS:
                entry = self._entry_at(Address(shelf, slot), content, candidates)
                if entry is not None:
                    entries.append(entry)
        return entries

    def _entry_at(self, address: Address, content: bytes, candidates: dict[str, int]) -> Entry | None:
        value = shelves.decoded(content)
        candidate = shelves.candidate_of(value.key, address) if value else None
        if value is None or candidate is None:
            self._report(address, "is not an entry of the worklist")
            return None
        if value.key in candidates:
            self._report(address, f"is a second entry {value.key}")
            return None
        candidates[value.key] = candidate
        return _entry(value, content)

    def _report(self, address: Address, what: str) -> None:
        if address not in self._reported:
            self._reported.add(address)
            _log.error("Metadata %d of instance %s %s; it is left alone", address.slot,
                       shelves.INSTANCES[address.shelf], what)  # fmt: skip

    async def read(self, key: str) -> Entry | None:
        """One entry as it is stored now; takes some milliseconds, because Orthanc reads a whole shelf.

        Raises:
            ShelvesLost: its shelf is gone, so nothing is known about it.
            StoreUnavailable: no answer.
        """
        entry = await self._find(key)
        if entry is None:
            for address in shelves.addresses(key, 0, self._shelf_set.count):
                await self._require(address.shelf)
        return entry

    async def _find(self, key: str) -> Entry | None:
        """One entry; None proves nothing if a shelf is gone."""
        candidate = self._candidates.get(key)
        if candidate is not None:
            address = shelves.address(key, candidate)
            stored = await self._look(address)
            if stored is not None and stored.holds(key):
                return self._learned(address, stored)
            self._candidates.pop(key, None)
        for probe in range(shelves.PROBES):
            is_free = True
            for address in shelves.addresses(key, probe, self._shelf_set.count):
                stored = await self._look(address)
                if stored is not None and stored.holds(key):
                    return self._learned(address, stored)
                is_free = is_free and stored is None
            if is_free:
                return None
        return None

    def _learned(self, address: Address, stored: _StoredValue) -> Entry:
        assert stored.value is not None
        self._learn(stored.value.key, address)
        return _entry(stored.value, stored.stored)

    def _learn(self, key: str, address: Address) -> None:
        candidate = shelves.candidate_of(key, address)
        assert candidate is not None, "an address of this key"
        self._candidates[key] = candidate

    async def _look(self, address: Address) -> _StoredValue | None:
        reply = await self._loopback.request("GET", shelves.path(address))
        if reply.status == 404:
            return None
        if reply.status != 200:
            raise refused(reply, "cannot read an entry")
        value = shelves.decoded(reply.body)
        if value is None or shelves.candidate_of(value.key, address) is None:
            self._report(address, "is not an entry of the worklist")
            value = None
        return _StoredValue(reply.body, Version.parse(reply.etag), value)

    async def _require(self, shelf: int) -> None:
        if shelf in self._complete and shelf in await self._shelf_set.present():
            return
        if not await self._shelf_set.is_complete(shelf):
            self._lose(shelf)
            raise _lost(shelf)

    def _lose(self, shelf: int) -> None:
        self._incomplete |= {shelf}
        self._complete.discard(shelf)

    # --- writing ----------------------------------------------------------------------------------

    async def create(self, key: str, document: bytes) -> str:
        """Write a new entry and return its version.

        Raises:
            EntryExists: an entry with this key exists.
            ShelvesLost, StoreUnavailable: see ``RestorableEntries``.
        """
        if key in self._candidates and await self.read(key) is not None:
            raise EntryExists(key)
        if shelves.is_single(key) and await self._find(key) is not None:
            raise EntryExists(key)
        await self._add_shelf_if_full()
        count = self._counts.setdefault(key, self._shelf_set.count)
        try:
            version = await self._created(key, Value(key, _FIRST_REVISION, document).encoded(), count)
        except StoreUnavailable as error:
            if error.certain:
                self._counts.pop(key, None)
            raise
        except EntryExists:
            self._counts.pop(key, None)
            raise
        self._counts.pop(key, None)
        return version

    async def _created(self, key: str, content: bytes, count: int) -> str:
        """Write at the first free address among ``count`` shelves, the same as before if an answer was lost."""
        for probe in range(shelves.PROBES):
            address = shelves.new_address(key, probe, count)
            if await self._put_new(address, content):
                self._learn(key, address)
                return str(Version(_FIRST_REVISION, shelves.md5(content)))
            stored = await self._look(address)
            if stored is not None and stored.holds(key):
                self._learn(key, address)
                raise EntryExists(key)
        raise StoreUnavailable(f"no free address for the entry {key}", certain=True)

    async def _add_shelf_if_full(self) -> None:
        """Add another shelf once the present ones are full. If it cannot be created, use these for a while."""
        count, entries = self._shelf_set.count, len(self._candidates)
        is_full = entries >= max(self.full * count, self._add_from)
        if not is_full or count == shelves.SHELVES or self._adding or self.refused_because:
            return
        self._adding = True
        try:
            self._complete.add(await self._shelf_set.add())
        except StoreUnavailable as error:
            self._add_from = entries + self.full // 10
            _log.warning("Cannot add a shelf for the worklist, which makes it slower: %s", error)
        finally:
            self._adding = False

    async def _put_new(self, address: Address, content: bytes) -> bool:
        reply = await self._put(address, content, None)
        if reply.status not in (200, 409):
            raise refused(reply, "cannot write an entry")
        return reply.status == 200

    async def replace(self, key: str, document: bytes, version: str) -> str:
        """Overwrite an entry that still has this version and return its new one.

        Raises:
            EntryConflict: it has another one, or is gone.
            ShelvesLost, StoreUnavailable: as in the port.
        """
        address, expected = self._address(key), Version.parse(version)
        reply, written = await self._swap(address, Value(key, expected.revision + 1, document), expected)
        if reply.status == 409:
            actual = await self._unchanged(key, address, expected)
            reply, written = await self._swap(address, Value(key, actual.revision + 1, document), actual)
        if reply.status == 409:
            raise EntryConflict(key)
        if reply.status != 200:
            raise refused(reply, "cannot write an entry")
        await self._refuse_if_recreated(key, address, Version.parse(reply.etag))
        return str(written)

    async def _swap(self, address: Address, value: Value, expected: Version) -> tuple[Reply, Version]:
        content = value.encoded()
        reply = await self._put(address, content, self._etag(expected))
        return reply, Version(value.revision, shelves.md5(content))

    def _address(self, key: str) -> Address:
        candidate = self._candidates.get(key)
        if candidate is None:
            raise EntryConflict(key)
        return shelves.address(key, candidate)

    def _etag(self, version: Version) -> Version:
        return version if self._counts_revisions else version._replace(revision=0)

    async def _unchanged(self, key: str, address: Address, expected: Version) -> Version:
        """Orthanc's version of an entry whose content is still the expected one.

        Its revision may differ from the predicted one: after a restore, an upgrade of Orthanc, or a database that began
        to count.
        """
        stored = await self._look(address)
        if stored is None:
            del self._candidates[key]
            await self._require(address.shelf)
            raise EntryConflict(key)
        if stored.value is None:  # overwritten with something else: the entry moves to its next address
            del self._candidates[key]
            raise EntryConflict(key)
        if stored.etag.digest != expected.digest:
            raise EntryConflict(key)
        return stored.etag

    async def _refuse_if_recreated(self, key: str, address: Address, written: Version) -> None:
        # Orthanc ignores If-Match for absent metadata, and starts counting revisions again.
        if written.revision > 0:
            return
        self._candidates.pop(key, None)
        await self._delete(address, written)
        await self._require(address.shelf)
        raise EntryConflict(key)

    async def remove(self, key: str, version: str) -> None:
        """Delete an entry that still has this version.

        Raises:
            EntryConflict: it has another one, or is gone.
            ShelvesLost, StoreUnavailable: as in the port.
        """
        address, expected = self._address(key), Version.parse(version)
        self._refuse_if_incomplete(address.shelf)
        reply = await self._delete(address, self._etag(expected))
        if reply.status == 409:
            reply = await self._delete(address, await self._unchanged(key, address, expected))
        if reply.status == 409:
            raise EntryConflict(key)
        if reply.status not in (200, 404):
            raise refused(reply, "cannot delete an entry")
        self._candidates.pop(key, None)
        if reply.status == 404:
            await self._require(address.shelf)
            raise EntryConflict(key)

    async def _put(self, address: Address, content: bytes, etag: Version | None) -> Reply:
        self._refuse_if_incomplete(address.shelf)
        self._refuse_if_closed()
        headers = {"If-Match": f'"{etag}"'} if etag else None
        reply = await self._loopback.request("PUT", shelves.path(address), content, headers)
        if reply.status == 404:
            self._lose(address.shelf)
            raise _lost(address.shelf)
        if reply.status >= 500:
            await self._settle(address, content, reply)
        return reply

    async def _settle(self, address: Address, content: bytes, reply: Reply) -> None:
        """Find out by reading whether a write was done that a server error answered. Raises StoreUnavailable."""
        stored = await self._look(address)
        arrived = stored is not None and stored.stored == content
        raise StoreUnavailable(f"cannot write an entry: Orthanc answered {reply}", certain=not arrived)

    async def _delete(self, address: Address, etag: Version) -> Reply:
        self._refuse_if_closed()
        return await self._loopback.request(
            "DELETE", shelves.path(address), headers={"If-Match": f'"{etag}"'}
        )

    def _refuse_if_closed(self) -> None:
        if self.refused_because:
            raise StoreUnavailable(self.refused_because, certain=True)

    def _refuse_if_incomplete(self, shelf: int) -> None:
        if shelf in self._incomplete and self._shelf_set.deletions.recognized:
            raise ShelvesLost(DELETED_AGAIN)
        if shelf in self._incomplete:
            raise _lost(shelf)

    # --- when somebody deletes the shelves --------------------------------------------------------

    async def missing(self) -> frozenset[int]:
        """See ``RestorableEntries``. Shelves that were complete and still exist are not read again."""
        self._incomplete = await self._shelf_set.incomplete(self._complete)
        self._complete = set(range(self._shelf_set.count)) - self._incomplete
        return self._incomplete

    async def restore(self, entries: AsyncIterator[Entry]) -> int:
        """Create the missing shelves again, write their entries back, and return how many those are.

        The addresses of an entry that was not loaded say whether it can have been on a missing shelf. Nothing is
        overwritten.

        Raises:
            StoreMisconfigured: the shelves are deleted each time they are created.
            StoreUnavailable: not finished; call it again.
        """
        missing = await self.missing()
        if not missing:
            return 0
        created = await self._shelf_set.make_missing()
        missing |= created
        self._incomplete |= created
        self._complete -= created
        occupied = {shelves.address(key, candidate) for key, candidate in self._candidates.items()}
        written = 0

        async def put_back(entry: Entry) -> None:
            nonlocal written
            if await self._put_back(entry, missing, occupied):
                written += 1

        async for chunk in chunks(entries):
            await self._add_shelf_if_full()
            await in_flight(put_back, chunk)
        await self._shelf_set.mark_complete(sorted(missing))
        self._complete |= missing
        self._incomplete -= missing
        return written

    async def _put_back(self, entry: Entry, missing: Set[int], occupied: set[Address]) -> bool:
        candidate = self._candidates.get(entry.key)
        if candidate is not None:
            address = shelves.address(entry.key, candidate)
            return address.shelf in missing and await self._put_old(entry, address)
        for probe in range(shelves.PROBES):
            possible = shelves.addresses(entry.key, probe, self._shelf_set.count)
            if any(address.shelf in missing for address in possible):
                return await self._put_anywhere(entry)
            if not occupied.intersection(possible):
                return False  # if it existed, it would be here
        return False

    async def _put_anywhere(self, entry: Entry) -> bool:
        for probe in range(shelves.PROBES):
            address = shelves.new_address(entry.key, probe, self._shelf_set.count)
            written = await self._put_old(entry, address)
            if written or await self._holds(address, entry.key):
                self._learn(entry.key, address)
                return written
        return False

    async def _holds(self, address: Address, key: str) -> bool:
        stored = await self._look(address)
        return stored is not None and stored.holds(key)

    async def _put_old(self, entry: Entry, address: Address) -> bool:
        """Write an entry with the bytes of its version, unless there is something at its address.

        If its version is not of this store, the next writer gets a conflict and learns the new version.
        """
        value = Value(entry.key, _revision(entry.version), entry.document)
        reply = await self._loopback.request("PUT", shelves.path(address), value.encoded())
        if reply.status not in (200, 409):
            raise refused(reply, "cannot write an entry back")
        return reply.status == 200


def _entry(value: Value, stored: bytes) -> Entry:
    return Entry(value.key, value.document, str(Version(value.revision, shelves.md5(stored))))


def _revision(version: str) -> int:
    try:
        return Version.parse(version).revision
    except ValueError:
        return 0


def _lost(shelf: int) -> ShelvesLost:
    return ShelvesLost(f'shelf {shelf} of the worklist (patient "{shelves.PATIENT_ID}") was deleted')
