# SPDX-License-Identifier: AGPL-3.0-or-later
"""A standby keeps its search index up to date with the store, and proves that it is when it takes over.

It starts from the file that it wrote before: PostgreSQL computes the digest of each row's content, and rows whose
digest is in the file are not read. A node reads everything only if it has no such file. From then on it reads the rows
that the leader's notices name (``notices.py``), and remembers the version of each row that it read: its revision and
``xmin``, the transaction that wrote it. A node that has taken the lease over compares these versions shelf by shelf,
by a digest that PostgreSQL computes from the same columns, and reads the rows that differ. Because no other node can
write by then, the index is complete afterwards, even if notices were lost.

Events leave the store once all receivers have got them. A node that was away requests the ones it lacks from the
leader.

Transaction numbers start over when a backup is restored, for which PostgreSQL must be restarted. After a restart, and
whenever anything else is unexpected, the contents are compared again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import psycopg

from ..core.events import Event
from ..core.unavailable import StoreUnavailable
from ..orthanc.loopback import Loopback
from ..projection.projection import Projection, ProjectionBroken
from ..store import keys, shelves
from ..store.documents import UnreadableDocument, decode, is_tombstone
from ..store.metadata import OrthancEntries
from ..store.port import Entry, ShelvesLost
from ..store.shelves import Address, Uploads, Version
from ..worklist.loader import Loader, Stored, unsettled_events
from .database import MANY_ROWS_WITHIN, Database, Sessions
from .lease import clock
from .notices import CHANNEL, SHELF_NUMBERS, Notice

_log = logging.getLogger("orthanc_ups.cluster")
_SILENCE: Final = 30.0  # seconds; the mark of the leading node is written each 10
_PAUSE: Final = 1.0
_SHORT_PAUSE: Final = 0.2
_ATTEMPTS: Final = 10
_LOG_PAUSE: Final = 10.0
_ROWS_AT_ONCE: Final = 200
_ENTRIES_AT_ONCE: Final = 20
FEW_ENTRIES: Final = 1_000
"""Up to this many missing entries are read by comparing, whatever their share of the store."""
_INSTANCE: Final = 3  # resource type in Orthanc's tables

_VERSION: Final = "coalesce(metadata.revision, 0) || ':' || metadata.xmin::text"
_FROM: Final = f"""
FROM resources JOIN metadata ON metadata.id = resources.internalid
WHERE resourcetype = {_INSTANCE} AND type >= {shelves.FIRST_USER_SLOT} AND publicid = ANY (%s)
"""
_DIGESTS: Final = f"""
SELECT publicid, md5(string_agg(type || ':' || {_VERSION}, ' ' ORDER BY type)) {_FROM} GROUP BY publicid
"""
_VERSIONS: Final = f"SELECT type, {_VERSION} {_FROM}"
_ROWS: Final = f"""
SELECT publicid, type, value, {_VERSION}
FROM unnest(%s::text[], %s::int[]) AS address (shelf, slot)
JOIN resources ON publicid = address.shelf AND resourcetype = {_INSTANCE}
JOIN metadata ON metadata.id = resources.internalid AND type = address.slot
"""  # noqa: S608
_CONTENTS: Final = f"SELECT type, {_VERSION}, md5(value) {_FROM}"
_WHOLE_SHELF: Final = f"SELECT type, value, {_VERSION} {_FROM}"
_COUNT: Final = f"SELECT count(*) {_FROM} AND type <> {shelves.MARK_SLOT}"
_STARTED: Final = "SELECT pg_postmaster_start_time()::text"


class _OutOfStep(Exception):
    """The contents must be compared again; the text says why."""


class StoredRow(NamedTuple):
    """The content of a row, and its version: revision and ``xmin``."""

    content: bytes
    version: str


LoggedAfter = Callable[[int], Awaitable[Sequence[Event] | None]]
"""Takes a sequence; returns some of the leader's events after it, in order, or None if the leader cannot be reached."""


class Survey(NamedTuple):
    """How the store differs from a search index.

    Attributes:
        entries: those that differ from the index or are not in it, and all entries that are not workitems.
        absent: keys that are in the index but not in the store.
    """

    entries: Sequence[Entry]
    absent: frozenset[str]


class RowVersions:
    """The versions of the rows that have been read, by shelf and slot."""

    def __init__(self) -> None:
        self._shelves: dict[int, dict[int, str]] = {}
        self._digests: dict[int, str] = {}

    def put(self, address: Address, version: str | None) -> None:
        """Set the version read at an address; None: there is no row."""
        shelf = self._shelves.setdefault(address.shelf, {})
        if version is None:
            shelf.pop(address.slot, None)
        else:
            shelf[address.slot] = version
        self._digests.pop(address.shelf, None)

    def replace(self, shelf: int, versions: Mapping[int, str]) -> None:
        """Set the versions on a whole shelf, by slot."""
        self._shelves[shelf] = dict(versions)
        self._digests.pop(shelf, None)

    def of(self, shelf: int) -> Mapping[int, str]:
        """The versions on a shelf, by slot."""
        return self._shelves.get(shelf, {})

    def shelves(self) -> set[int]:
        """The shelves that have rows."""
        return {shelf for shelf, rows in self._shelves.items() if rows}

    def digest(self, shelf: int) -> str:
        """The digest of a shelf's versions, as ``_DIGESTS`` computes it."""
        if shelf not in self._digests:
            text = " ".join(f"{slot}:{version}" for slot, version in sorted(self.of(shelf).items()))
            self._digests[shelf] = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
        return self._digests[shelf]


class FollowedEntries(OrthancEntries):
    """Entries on shelves to which another node writes. After ``lead`` it is a store like any other.

    Attributes:
        others: all entries that are not workitems, by key.
    """

    def __init__(self, loopback: Loopback, uploads: Uploads, sessions: Sessions) -> None:
        super().__init__(loopback, uploads)
        self._sessions = sessions
        self.versions = RowVersions()
        self.others: dict[str, Entry] = {}
        self._keys: dict[Address, str] = {}
        self._follows = True

    async def load(self) -> AsyncIterator[list[Entry]]:
        """As OrthancEntries.load. Raises StoreUnavailable."""
        if self._follows:
            self.versions, self.others, self._keys = RowVersions(), {}, {}
            self._candidates.clear()
        async for chunk in super().load():
            if self._follows:
                self.others.update((entry.key, entry) for entry in chunk if not is_workitem(entry))
            for first in range(0, len(chunk), _ENTRIES_AT_ONCE):
                yield chunk[first : first + _ENTRIES_AT_ONCE]
                await asyncio.sleep(0)  # let relayed requests run
        if self._follows:
            self._keys = {shelves.address(key, at): key for key, at in self._candidates.items()}

    async def survey(self, indexed: Mapping[str, Entry]) -> Survey:
        """Compare the store with a search index, without reading the entries that the index has.

        Args:
            indexed: entries of the index, by the MD5 of their content in the store; workitems without documents.

        Raises:
            ShelvesLost: shelves are missing or incomplete.
            StoreUnavailable: PostgreSQL does not answer.
        """
        self.versions, self.others, self._keys = RowVersions(), {}, {}
        self._candidates.clear()
        await self._shelf_set.recount(await self._shelf_set.present())
        entries: list[Entry] = []
        for shelf in range(self._shelf_set.count):
            entries += await self._surveyed(shelf, indexed)
        self._complete, self._incomplete = set(range(self._shelf_set.count)), frozenset()
        self.others.update((entry.key, entry) for entry in entries if not is_workitem(entry))
        absent = {entry.key for entry in indexed.values()} - self._candidates.keys()
        return Survey(entries, frozenset(absent))

    async def _surveyed(self, shelf: int, indexed: Mapping[str, Entry]) -> list[Entry]:
        rows = await self._sessions.rows(_CONTENTS, ([shelves.INSTANCES[shelf]],), MANY_ROWS_WITHIN)
        self.versions.replace(shelf, {slot: version for slot, version, _ in rows})
        digests: dict[int, str] = {slot: digest for slot, _, digest in rows}
        if digests.get(shelves.MARK_SLOT) != shelves.md5(shelves.MARK):
            raise ShelvesLost(f"shelf {shelf} of the worklist is not complete")
        unread: list[Address] = []
        entries: list[Entry] = []
        for slot in digests.keys() & shelves.SLOTS:
            address, entry = Address(shelf, slot), indexed.get(digests[slot])
            candidate = shelves.candidate_of(entry.key, address) if entry is not None else None
            if entry is None or candidate is None or entry.key in self._candidates:
                unread.append(address)
                continue
            self._candidates[entry.key], self._keys[address] = candidate, entry.key
            if entry.document:
                entries.append(entry)
        for address, row in (await self.rows(unread)).items():
            self.versions.put(address, row.version)
            read = self._entry_at(address, row.content, self._candidates)
            if read is not None:
                self._keys[address] = read.key
                entries.append(read)
        return entries

    async def rows(self, addresses: Iterable[Address]) -> dict[Address, StoredRow]:
        """Read the rows at these addresses; an address without a row is left out. Raises StoreUnavailable."""
        in_order, rows = sorted(addresses), {}
        for first in range(0, len(in_order), _ROWS_AT_ONCE):
            part = in_order[first : first + _ROWS_AT_ONCE]
            names = [shelves.INSTANCES[address.shelf] for address in part]
            slots = [address.slot for address in part]
            for name, slot, value, version in await self._sessions.rows(
                _ROWS, (names, slots), MANY_ROWS_WITHIN
            ):
                rows[Address(SHELF_NUMBERS[name], slot)] = StoredRow(value.encode(), version)
        return rows

    async def _stored_on(self, shelf: int) -> dict[int, bytes]:
        rows = await self._sessions.rows(_WHOLE_SHELF, ([shelves.INSTANCES[shelf]],), MANY_ROWS_WITHIN)
        if self._follows:
            self.versions.replace(shelf, {slot: version for slot, _, version in rows})
        return {slot: value.encode() for slot, value, _ in rows}

    def take(self, address: Address, row: StoredRow | None) -> tuple[str | None, Entry | None]:
        """Apply another node's write or deletion. Returns the key of the entry that is gone, and the new entry."""
        self.versions.put(address, row.version if row else None)
        before = self._keys.pop(address, None)
        candidates: dict[str, int] = {}
        entry = self._entry_at(address, row.content, candidates) if row else None
        gone = before if before is not None and (entry is None or entry.key != before) else None
        if gone is not None and self._candidates.get(gone) != shelves.candidate_of(gone, address):
            gone = None  # it has moved to another address
        if gone is not None:
            del self._candidates[gone]
            self.others.pop(gone, None)
        if entry is not None:
            self._candidates.update(candidates)
            self._keys[address] = entry.key
            self.others.pop(entry.key, None)
            if not is_workitem(entry):
                self.others[entry.key] = entry
        return gone, entry

    def lead(self) -> list[Entry]:
        """Stop following, because this node writes from now on. Returns all entries that are not workitems.

        Shelves found missing so far are no longer treated as incomplete: ``open`` creates them, and ``load`` checks
        them as at any start. Otherwise the first node of a new worklist, which looked for the shelves before its
        election, could not write to them.
        """
        self._follows, others = False, list(self.others.values())
        self._incomplete = frozenset()
        self.versions, self.others, self._keys = RowVersions(), {}, {}
        return others


def is_workitem(entry: Entry) -> bool:
    """Whether this is a workitem that has not been purged."""
    return keys.is_of_workitem(entry.key) and not is_tombstone(entry.document)


class StandbyIndex:
    """Keeps the search index up to date. Call ``run``; after canceling it, ``prove`` and ``hand_over``, or ``close``.

    Attributes:
        projection: the search index; None until it has been read.
    """

    def __init__(
        self,
        database: Database,
        sessions: Sessions,
        entries: FollowedEntries,
        open_projection: Callable[[], Projection],
        logged_after: LoggedAfter,
    ) -> None:
        """``open_projection`` opens the search index; it may raise ProjectionBroken."""
        self.entries = entries
        self._database = database
        self._sessions = sessions
        self._open_projection = open_projection
        self._logged_after = logged_after
        self._log_ends_at: int | None = None
        self._next_look_at_log = 0.0
        self.projection: Projection | None = None
        self._started = ""
        self._last = (0, 0)
        self._behind_since: float | None = clock()

    @property
    def lag(self) -> float:
        """Seconds for which the search index has been behind the store; 0 if it is not. On any thread."""
        since = self._behind_since
        return 0.0 if since is None else clock() - since

    async def run(self) -> None:
        """Follow the store until canceled, whatever happens to PostgreSQL or the index."""
        trouble = ""
        while True:
            before, trouble = trouble, ""
            try:
                await self._follow()
            except (StoreUnavailable, psycopg.Error, OSError) as error:
                _log.debug("The search index cannot follow the store now: %s", error)
            except (_OutOfStep, ProjectionBroken) as error:
                trouble = str(error)
                if trouble != before:
                    _log.info("The search index of this node is being rebuilt: %s", trouble)
                self._drop()
            except Exception:
                _log.exception("The search index cannot follow the store: internal error")
                self._drop()
            self._behind()
            await asyncio.sleep(_PAUSE)

    async def _follow(self) -> None:
        async with await self._database.connect() as session:
            await session.execute(f"LISTEN {CHANNEL}")
            await self._catch_up()
            await self._complete_log()
            while True:
                notices = [
                    Notice.parse(notification.payload)
                    async for notification in session.notifies(timeout=_SILENCE, stop_after=1)
                ]
                self._behind()
                if not notices:
                    raise StoreUnavailable(f"PostgreSQL has sent no notice for {_SILENCE:g} s", certain=True)
                await self._take_notices(notices)
                self._behind_since = None
                await self._complete_log()

    async def _take_notices(self, notices: Sequence[Notice]) -> None:
        is_gap = False
        for notice in notices:
            is_gap = is_gap or (notice.epoch, notice.number - 1) != self._last
            self._last = notice.epoch, notice.number
        if is_gap:
            await self._compare()
        else:
            await self._take_changes({address for notice in notices for address in notice.addresses})

    def _behind(self) -> None:
        if self._behind_since is None:
            self._behind_since = clock()

    # --- all entries ---

    async def _catch_up(self) -> None:
        self._drop_if_broken()
        if self.projection is None:
            await self._read()
        await self._compare()
        self._behind_since = None

    async def _read(self, *, from_nothing: bool = True) -> bool:
        """Open the search index and bring it up to date with the store.

        Returns False if the index lacks most of the store and ``from_nothing`` is False. A node that takes over while
        it is still reading has such a file: comparing would read the rest entry by entry, and keep it all in memory.
        """
        started = await self._start_of_postgresql()
        projection = self._open_projection()
        try:
            indexed = _indexed(projection)
            lacking = await self._stored_count() - len(indexed)
            lacks_most = not indexed or lacking > max(len(indexed), FEW_ENTRIES)
            if lacks_most and not from_nothing:
                projection.close()
                return False
            logged = projection.last_event()
            stored = await (
                self._read_all(projection) if lacks_most else self._read_changes(projection, indexed)
            )
            projection.record_events(unsettled_events(projection.with_events_after(logged), stored.overflows))
        except BaseException:
            projection.close()
            raise
        self.projection, self._started = projection, started
        self._log_ends_at, self._next_look_at_log = logged, 0.0
        return True

    async def _read_all(self, projection: Projection) -> Stored:
        return await Loader(self.entries, projection).load()

    async def _stored_count(self) -> int:
        return int((await self._sessions.rows(_COUNT, (list(shelves.INSTANCES),), MANY_ROWS_WITHIN))[0][0])

    async def _read_changes(self, projection: Projection, indexed: Mapping[str, Entry]) -> Stored:
        """Read only the entries that differ between the file and the store."""
        survey = await self.entries.survey(indexed)
        for key in survey.absent:
            uid = keys.uid_of(key)
            projection.remove(uid)
            projection.drop_tombstone(uid)
        for entry in survey.entries:
            self._put(projection, entry)
            await asyncio.sleep(0)
        stored = Loader(self.entries, projection).sort(self.entries.others.values())
        projection.keep_tombstones(stored.tombstones)
        _log.info("The search index of this node is up to date: %d entries were read", len(survey.entries))
        return stored

    async def _start_of_postgresql(self) -> str:
        return str((await self._sessions.rows(_STARTED, ()))[0][0])

    async def _compare(self) -> None:
        """Read the rows that were written after they were last read."""
        if await self._start_of_postgresql() != self._started:
            raise _OutOfStep("PostgreSQL was restarted")
        rows = await self._sessions.rows(_DIGESTS, (list(shelves.INSTANCES),))
        digests = {SHELF_NUMBERS[name]: digest for name, digest in rows}
        versions = self.entries.versions
        if versions.shelves() - digests.keys():
            raise _OutOfStep("shelves of the worklist were deleted")
        addresses: set[Address] = set()
        for shelf, digest in digests.items():
            if digest != versions.digest(shelf):
                addresses |= await self._changed_on(shelf)
        if addresses:
            _log.debug("%d entries were written without a notice, or again after it", len(addresses))
        await self._take_changes(addresses)

    async def _changed_on(self, shelf: int) -> set[Address]:
        rows = await self._sessions.rows(_VERSIONS, ([shelves.INSTANCES[shelf]],))
        stored: dict[int, str] = dict(rows)
        read = self.entries.versions.of(shelf)
        return {Address(shelf, slot) for slot, _ in stored.items() ^ read.items()}

    async def _complete_log(self) -> None:
        """Get from the leader the events that were delivered while this node was away: the store no longer has them."""
        projection = self.projection
        assert projection is not None
        while self._log_ends_at is not None and clock() >= self._next_look_at_log:
            events = await self._logged_after(self._log_ends_at)
            if events is None:
                self._next_look_at_log = clock() + _LOG_PAUSE
            elif not events:
                self._log_ends_at = None
            else:
                projection.record_events(events)
                self._log_ends_at = events[-1].sequence

    # --- some entries ---

    async def _take_changes(self, addresses: set[Address]) -> None:
        rows = await self.entries.rows(addresses)
        for address in addresses:
            self._take(address, rows.get(address))

    def _take(self, address: Address, row: StoredRow | None) -> None:
        if address.slot not in shelves.SLOTS:
            self.entries.versions.put(address, row.version if row else None)
            if address.slot == shelves.MARK_SLOT and row is None:
                raise _OutOfStep("a shelf of the worklist was deleted")
            return
        gone, entry = self.entries.take(address, row)
        projection = self.projection
        assert projection is not None
        if gone is not None and keys.is_of_workitem(gone):
            projection.remove(keys.uid_of(gone))
        if entry is not None:
            self._put(projection, entry)

    def _put(self, projection: Projection, entry: Entry) -> None:
        if not keys.is_of_workitem(entry.key):
            return
        uid = keys.uid_of(entry.key)
        if is_workitem(entry):
            _put_workitem(projection, uid, entry)
        else:
            projection.remove(uid)

    # --- taking over ---

    async def prove(self) -> bool:
        """Read what is still missing, once no other node can write. Returns False if everything has to be read."""
        for _ in range(_ATTEMPTS):
            try:
                self._drop_if_broken()
                if self.projection is None and not await self._read(from_nothing=False):
                    return False
                await self._compare()
                return True
            except (_OutOfStep, ProjectionBroken) as error:
                _log.info("The search index of this node is being compared again: %s", error)
                self._drop()
            except ShelvesLost:
                return False
            except StoreUnavailable as error:
                _log.info("The search index of this node cannot be compared now: %s", error)
                await asyncio.sleep(_SHORT_PAUSE)
            except Exception:
                _log.exception("The search index cannot be compared with the store: internal error")
                return False
        return False

    def hand_over(self) -> tuple[Projection, list[Entry]]:
        """Give away the proven search index, with all entries that are not workitems."""
        projection, self.projection = self.projection, None
        self._behind_since = None
        assert projection is not None
        return projection, self.entries.lead()

    async def close(self) -> None:
        """Close the search index, unless it was handed over. ``entries`` is a store like any other from now on."""
        self.entries.lead()
        self._behind_since = None
        self._drop()

    def _drop_if_broken(self) -> None:
        if self.projection is not None and self.projection.broken is not None:
            self._drop()

    def _drop(self) -> None:
        projection, self.projection = self.projection, None
        if projection is not None:
            with contextlib.suppress(ProjectionBroken):
                projection.close()


def _indexed(projection: Projection) -> dict[str, Entry]:
    """The entries of the search index, by the MD5 of their content in the store; only tombstones have documents."""
    workitems = (Entry(keys.workitem(uid), b"", version) for uid, version in projection.versions())
    entries: dict[str, Entry] = {}
    for entry in itertools.chain(projection.tombstones(), workitems):
        with contextlib.suppress(ValueError):  # a version that no row can have
            entries[Version.parse(entry.version).digest] = entry
    return entries


def _put_workitem(projection: Projection, uid: str, entry: Entry) -> None:
    """Index a workitem that another node wrote. Leave an unreadable one alone, as the leader does."""
    try:
        workitem = decode(entry.document)
    except UnreadableDocument as error:
        _log.error("Entry %s of the store is unreadable and left alone: %s", entry.key, error)
        return
    if entry.key != keys.workitem(workitem.uid):
        _log.error("Entry %s of the store has workitem %s and is left alone", entry.key, workitem.uid)
        return
    before = projection.get(uid)
    last = max((event.sequence for event in before.workitem.events), default=0) if before else 0
    projection.put(workitem, entry.version, entry.document)
    projection.record_events([event for event in workitem.events if event.sequence > last])
