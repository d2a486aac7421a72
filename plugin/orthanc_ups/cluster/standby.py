# SPDX-License-Identifier: AGPL-3.0-or-later
"""A node that stands by keeps its search index in step with the store, and proves that when it takes over.

It reads everything once, then what the leader's notices name (``notices.py``). Of each row it remembers which version
it read: revision and ``xmin``, the transaction that wrote it. Whoever has taken the lease over compares these, shelf by
shelf, by one digest that PostgreSQL works out of the same: where it differs, rows are read. As nobody else writes any
more by then, the index is complete after that, whatever notices were lost.

Transaction numbers start over if somebody goes back to a backup. PostgreSQL has to be restarted for that; then, as
whenever anything is not as expected, everything is read again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import psycopg

from ..core.unavailable import StoreUnavailable
from ..orthanc.loopback import Loopback
from ..projection.projection import Projection, ProjectionBroken
from ..store import shelves
from ..store.documents import UnreadableDocument, decode, is_tombstone
from ..store.metadata import OrthancEntries
from ..store.port import Entry
from ..store.shelves import Address, Uploads
from ..worklist.commits import workitem_key
from ..worklist.loader import Loader, unsettled_events
from .database import MANY_ROWS_WITHIN, Database, Sessions
from .lease import clock
from .notices import CHANNEL, SHELF_NUMBERS, Notice

_log = logging.getLogger("orthanc_ups.cluster")
_SILENCE: Final = 30.0  # seconds; the mark of the leading node is written each 10
_PAUSE: Final = 1.0
_ROWS_AT_ONCE: Final = 200
_ENTRIES_AT_ONCE: Final = 20
_WORKITEM: Final = "workitem/"
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
FROM unnest(%s::text[], %s::int[]) AS wanted (shelf, slot)
JOIN resources ON publicid = wanted.shelf AND resourcetype = {_INSTANCE}
JOIN metadata ON metadata.id = resources.internalid AND type = wanted.slot
"""  # noqa: S608
_WHOLE_SHELF: Final = f"SELECT type, value, {_VERSION} {_FROM}"
_STARTED: Final = "SELECT pg_postmaster_start_time()::text"


class _Lost(Exception):
    """Something is not as expected: everything must be read again. The text says what."""


class StoredRow(NamedTuple):
    """What stands at an address, and which version of the row that is."""

    content: bytes
    version: str


class RowVersions:
    """The versions of the rows that were read, by shelf and slot."""

    def __init__(self) -> None:
        self._shelves: dict[int, dict[int, str]] = {}
        self._digests: dict[int, str] = {}

    def put(self, address: Address, version: str | None) -> None:
        """Note which version was read; None: there is no row."""
        shelf = self._shelves.setdefault(address.shelf, {})
        if version is None:
            shelf.pop(address.slot, None)
        else:
            shelf[address.slot] = version
        self._digests.pop(address.shelf, None)

    def replace(self, shelf: int, versions: Mapping[int, str]) -> None:
        """A whole shelf was read."""
        self._shelves[shelf] = dict(versions)
        self._digests.pop(shelf, None)

    def of(self, shelf: int) -> Mapping[int, str]:
        """The versions on a shelf, by slot."""
        return self._shelves.get(shelf, {})

    def shelves(self) -> set[int]:
        """The shelves on which anything stands."""
        return {shelf for shelf, rows in self._shelves.items() if rows}

    def digest(self, shelf: int) -> str:
        """As PostgreSQL works it out."""
        if shelf not in self._digests:
            text = " ".join(f"{slot}:{version}" for slot, version in sorted(self.of(shelf).items()))
            self._digests[shelf] = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
        return self._digests[shelf]


class FollowedEntries(OrthancEntries):
    """Entries on shelves that another node writes; once this node leads, the store like any other.

    Attributes:
        others: every entry but workitems, by key.
    """

    def __init__(self, loopback: Loopback, uploads: Uploads, sessions: Sessions) -> None:
        super().__init__(loopback, uploads)
        self._sessions = sessions
        self.versions = RowVersions()
        self.others: dict[str, Entry] = {}
        self._keys: dict[Address, str] = {}
        self._follows = True

    async def load(self) -> AsyncIterator[list[Entry]]:
        """As OrthancEntries. Raises StoreUnavailable."""
        if self._follows:
            self.versions, self.others, self._keys = RowVersions(), {}, {}
            self._candidates.clear()
        async for chunk in super().load():
            if self._follows:
                self.others.update((entry.key, entry) for entry in chunk if not is_workitem(entry))
            for first in range(0, len(chunk), _ENTRIES_AT_ONCE):
                yield chunk[first : first + _ENTRIES_AT_ONCE]
                await asyncio.sleep(0)  # the lease, and requests that are passed on, have their turn
        if self._follows:
            self._keys = {shelves.address(key, at): key for key, at in self._candidates.items()}

    async def _stored_on(self, shelf: int) -> dict[int, bytes]:
        rows = await self._sessions.rows(_WHOLE_SHELF, ([shelves.INSTANCES[shelf]],), MANY_ROWS_WITHIN)
        if self._follows:
            self.versions.replace(shelf, {slot: version for slot, _, version in rows})
        return {slot: value.encode() for slot, value, _ in rows}

    def take(self, address: Address, row: StoredRow | None) -> tuple[str | None, Entry | None]:
        """Another node wrote what stands there, or deleted it: the key of the entry that is gone, and the new entry."""
        self.versions.put(address, row.version if row else None)
        before = self._keys.pop(address, None)
        found: dict[str, int] = {}
        entry = self._entry_at(address, row.content, found) if row else None
        gone = before if before is not None and (entry is None or entry.key != before) else None
        if gone is not None and self._candidates.get(gone) != shelves.candidate_of(gone, address):
            gone = None  # it has moved to another address meanwhile
        if gone is not None:
            del self._candidates[gone]
            self.others.pop(gone, None)
        if entry is not None:
            self._candidates.update(found)
            self._keys[address] = entry.key
            self.others.pop(entry.key, None)
            if not is_workitem(entry):
                self.others[entry.key] = entry
        return gone, entry

    def lead(self) -> list[Entry]:
        """Follow no more, as this node writes from now on; returns every entry but workitems."""
        self._follows, others = False, list(self.others.values())
        self.versions, self.others, self._keys = RowVersions(), {}, {}
        return others


def is_workitem(entry: Entry) -> bool:
    """Whether this is a workitem, and none that was purged."""
    return entry.key.startswith(_WORKITEM) and not is_tombstone(entry.document)


class StandbyIndex:
    """Begins with ``run``; once that is canceled, ``prove`` and ``hand_over``, or ``close``.

    Attributes:
        projection: the search index; None while it is not read in.
    """

    def __init__(
        self,
        database: Database,
        sessions: Sessions,
        entries: FollowedEntries,
        opened: Callable[[], Projection],
    ) -> None:
        """``opened`` opens the search index; it may raise ProjectionBroken."""
        self.entries = entries
        self._database = database
        self._sessions = sessions
        self._opened = opened
        self.projection: Projection | None = None
        self._started = ""
        self._last = (0, 0)
        self._behind_since: float | None = clock()

    @property
    def lag(self) -> float:
        """Seconds by which the search index is behind the store, as far as is known. In any thread."""
        since = self._behind_since
        return 0.0 if since is None else clock() - since

    async def run(self) -> None:
        """Follow for ever, whatever happens to PostgreSQL or the index."""
        trouble = ""
        while True:
            before, trouble = trouble, ""
            try:
                await self._follow()
            except (StoreUnavailable, psycopg.Error, OSError) as error:
                _log.debug("The search index does not follow the store now: %s", error)
            except (_Lost, ProjectionBroken) as error:
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
            while True:
                notices = [
                    Notice.parse(notification.payload)
                    async for notification in session.notifies(timeout=_SILENCE, stop_after=1)
                ]
                self._behind()
                if not notices:
                    raise StoreUnavailable("PostgreSQL sent no notice for a long time", certain=True)
                await self._take_notices(notices)
                self._behind_since = None

    async def _take_notices(self, notices: Sequence[Notice]) -> None:
        is_gap = False
        for notice in notices:
            is_gap = is_gap or (notice.epoch, notice.number - 1) != self._last
            self._last = notice.epoch, notice.number
        if is_gap:
            await self._compare()
        else:
            await self._read({address for notice in notices for address in notice.addresses})

    def _behind(self) -> None:
        if self._behind_since is None:
            self._behind_since = clock()

    # --- everything ---

    async def _catch_up(self) -> None:
        if self.projection is not None and self.projection.broken is not None:
            self._drop()
        if self.projection is None:
            await self._read_all()
        await self._compare()
        self._behind_since = None

    async def _read_all(self) -> None:
        started = await self._start_of_postgresql()
        projection = self._opened()
        try:
            logged = projection.last_event()
            stored = await Loader(self.entries, projection).load()
            projection.record_events(unsettled_events(projection.with_events_after(logged), stored.overflows))
            if stored.damaged:
                raise _Lost("an entry is not readable")
        except BaseException:
            projection.close()
            raise
        self.projection, self._started = projection, started

    async def _start_of_postgresql(self) -> str:
        return str((await self._sessions.rows(_STARTED, ()))[0][0])

    async def _compare(self) -> None:
        """Find what was written since it was read, and read that."""
        if await self._start_of_postgresql() != self._started:
            raise _Lost("PostgreSQL was restarted")
        rows = await self._sessions.rows(_DIGESTS, (list(shelves.INSTANCES),))
        digests = {SHELF_NUMBERS[name]: digest for name, digest in rows}
        versions = self.entries.versions
        if versions.shelves() - digests.keys():
            raise _Lost("shelves of the worklist were deleted")
        addresses: set[Address] = set()
        for shelf, digest in digests.items():
            if digest != versions.digest(shelf):
                addresses |= await self._changed_on(shelf)
        if addresses:
            _log.debug("%d entries were written without a notice, or after it", len(addresses))
        await self._read(addresses)

    async def _changed_on(self, shelf: int) -> set[Address]:
        rows = await self._sessions.rows(_VERSIONS, ([shelves.INSTANCES[shelf]],))
        stored: dict[int, str] = dict(rows)
        ours = self.entries.versions.of(shelf)
        return {Address(shelf, slot) for slot, _ in stored.items() ^ ours.items()}

    # --- some entries ---

    async def _read(self, addresses: Iterable[Address]) -> None:
        wanted = sorted(addresses)
        for first in range(0, len(wanted), _ROWS_AT_ONCE):
            part = wanted[first : first + _ROWS_AT_ONCE]
            names = [shelves.INSTANCES[address.shelf] for address in part]
            slots = [address.slot for address in part]
            rows = await self._sessions.rows(_ROWS, (names, slots), MANY_ROWS_WITHIN)
            read = {
                Address(SHELF_NUMBERS[name], slot): StoredRow(value.encode(), version)
                for name, slot, value, version in rows
            }
            for address in part:
                self._take(address, read.get(address))

    def _take(self, address: Address, row: StoredRow | None) -> None:
        if address.slot not in shelves.SLOTS:
            self.entries.versions.put(address, row.version if row else None)
            if address.slot == shelves.MARK_SLOT and row is None:
                raise _Lost("a shelf of the worklist was deleted")
            return
        gone, entry = self.entries.take(address, row)
        projection = self.projection
        assert projection is not None
        if gone is not None and gone.startswith(_WORKITEM):
            projection.remove(gone.removeprefix(_WORKITEM))
        if entry is None or not entry.key.startswith(_WORKITEM):
            return
        uid = entry.key.removeprefix(_WORKITEM)
        if is_workitem(entry):
            _put(projection, uid, entry)
        else:
            projection.remove(uid)

    # --- the end ---

    async def prove(self) -> bool:
        """When nobody else writes any more: read what is still missing. False if everything has to be read again."""
        if self.projection is None or self.projection.broken is not None:
            return False
        try:
            await self._compare()
        except (StoreUnavailable, ProjectionBroken, _Lost) as error:
            _log.info("The search index of this node is being rebuilt: %s", error)
            return False
        return True

    def hand_over(self) -> tuple[Projection, list[Entry]]:
        """The search index and every entry that is not there, once it is proven."""
        projection, self.projection = self.projection, None
        self._behind_since = None
        assert projection is not None
        return projection, self.entries.lead()

    async def close(self) -> None:
        """Close the search index, unless it was handed over; the entries are a store like any other now."""
        self.entries.lead()
        self._behind_since = None
        self._drop()

    def _drop(self) -> None:
        projection, self.projection = self.projection, None
        if projection is not None:
            with contextlib.suppress(ProjectionBroken):
                projection.close()


def _put(projection: Projection, uid: str, entry: Entry) -> None:
    try:
        workitem = decode(entry.document)
    except UnreadableDocument as error:
        raise _Lost(str(error)) from error
    if entry.key != workitem_key(workitem.uid):
        raise _Lost(f"the entry of {uid} is that of {workitem.uid}")
    before = projection.get(uid)
    known = max((event.sequence for event in before.workitem.events), default=0) if before else 0
    projection.put(workitem, entry.version, entry.document)
    projection.record_events([event for event in workitem.events if event.sequence > known])
