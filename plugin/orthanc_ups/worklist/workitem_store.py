# SPDX-License-Identifier: AGPL-3.0-or-later
"""Workitems as the worklist reads them, without asking Orthanc: projection, tombstones, recent changes, index mark.

A tombstone replaces a purged workitem, so that a client is answered "gone" (410) instead of "not found" (404).
"""

from __future__ import annotations

import logging
import secrets
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, ParamSpec, TypeVar

import orjson

from ..core.dataset import DataSet
from ..core.events import Event
from ..core.matching import Query
from ..core.selection import Selection
from ..core.statuses import PROCESSING_FAILURE, UpsError
from ..core.workitem import HistoryEntry, Workitem
from ..projection.projection import Projection, ProjectionBroken, StoredWorkitem
from ..projection.queries import Column, Ids
from ..store import keys
from ..store.documents import FORMAT, UnreadableDocument, decode, encode, is_tombstone
from ..store.journal import IndexJournal, document_of, mark_in
from ..store.port import Entries, Entry
from ..store.writer import Conflict, Writer

__all__ = ["VANISHED", "StoredWorkitem", "Tombstone", "WorkitemStore", "stored_version", "tombstone_document"]

_P = ParamSpec("_P")
_T = TypeVar("_T")
_log = logging.getLogger("orthanc_ups.store")
_MAXIMUM_CHANGES: Final = 2_000

VANISHED: Final = "vanished"
"""Replaces the version of a workitem whose entry vanished from the store and must be created again."""


# --- purged workitems ---


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What remains of a purged workitem; ``last`` says when it was purged, by whom and why."""

    version: str
    last: HistoryEntry
    document: bytes


class Tombstones(dict[str, Tombstone]):
    """The entries that replace purged workitems, by SOP Instance UID."""

    def __init__(self, writer: Writer, keep: Callable[[Entry], None], drop: Callable[[str], None]) -> None:
        """``keep`` adds an entry to the projection; ``drop`` removes the entry of a workitem from it."""
        super().__init__()
        self._writer = writer
        self._keep = keep
        self._drop = drop

    def take(self, entry: Entry) -> None:
        """Take over a stored entry that is a tombstone."""
        parsed = read_tombstone(entry.document)
        if parsed is not None:
            self[parsed[0]] = Tombstone(entry.version, parsed[1], entry.document)

    async def write(self, uid: str, last: HistoryEntry, version: str | None) -> None:
        """Write a tombstone over a workitem's entry. Raises Conflict or StoreUnavailable."""
        key, document = keys.workitem(uid), tombstone_document(uid, last)
        written = await self._writer.write(key, document, version)
        self[uid] = Tombstone(written, last, document)
        self._keep(Entry(key, document, written))

    async def forget(self, before: float) -> None:
        """Delete the entries of workitems purged before a time (seconds since the epoch).

        Raises StoreUnavailable; then some remain.
        """
        expired = [(uid, tombstone) for uid, tombstone in self.items() if tombstone.last.at < before]
        for uid, tombstone in expired:
            try:
                await self._writer.remove(keys.workitem(uid), tombstone.version)
            except Conflict:
                _log.warning("The tombstone of workitem %s was changed by somebody else; left alone", uid)
            self.pop(uid, None)
            self._drop(uid)

    def entries(self) -> Iterator[Entry]:
        """Every entry, to be written back after a loss."""
        for uid, tombstone in list(self.items()):
            yield Entry(keys.workitem(uid), tombstone.document, tombstone.version)


def tombstone_document(uid: str, last: HistoryEntry) -> bytes:
    """The document that replaces a purged workitem."""
    return orjson.dumps({"format": FORMAT, "uid": uid, "gone": last.at, "by": last.who, "why": last.why})


def read_tombstone(document: bytes) -> tuple[str, HistoryEntry] | None:
    """UID of the workitem, and when, by whom and why it was purged; None if the document is not a tombstone."""
    if not is_tombstone(document):
        return None
    try:
        content = orjson.loads(document)
        who, why = str(content.get("by", "")), str(content.get("why", ""))
        return str(content["uid"]), HistoryEntry(float(content["gone"]), who, "purged", why)
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError):
        return None


# --- workitems ---


class WorkitemStore:
    """The worklist's view of the stored workitems.

    Attributes:
        changes: which workitems were written or removed recently.
        broken: True while the projection is rebuilt.
        tombstones: what remains of purged workitems.
    """

    def __init__(
        self,
        projection: Projection,
        writer: Writer,
        journal: IndexJournal | None,
        changes: ChangeFeed,
        on_broken: Callable[[], None],
    ) -> None:
        """Args:
        journal: lists the writes that the projection may not have yet; None if every start reads the whole store.
        on_broken: called when the projection fails. The worklist then rebuilds it from the store, and refuses
            commands (0213, 503) until that is done.
        """
        self.changes = changes
        self._projection = projection
        self._projection.on_broken = self._broke
        self._on_broken = on_broken
        self._journal = journal
        self.broken = False
        self.tombstones = Tombstones(writer, self._keep_tombstone, self._drop_tombstone)

    # --- single workitems ---

    def get(self, uid: str) -> StoredWorkitem | None:
        """A workitem with its stored version. Raises ProjectionBroken while the projection is rebuilt."""
        return self._query(self._projection.get, uid)

    def document(self, uid: str) -> bytes | None:
        """The stored document of a workitem. Raises ProjectionBroken while the projection is rebuilt."""
        return self._query(self._projection.document, uid)

    def text(self, uid: str) -> bytes | None:
        """The attributes of a workitem as JSON (core/dataset.py). Raises as ``document``."""
        return self._query(self._projection.text, uid)

    def put(self, workitem: Workitem, version: str, document: bytes) -> None:
        """Take over what was written to the store. The command succeeds even if the projection fails."""
        self.changes.note(workitem.uid)
        self._update(self._projection.put, workitem, version, document, uid=workitem.uid)

    def write_copy(self) -> None:
        """If the projection is a copy of the store: write it to its file now, before the change is answered."""
        self._update(self._projection.write_copy)

    def remove(self, uid: str) -> None:
        """Forget a workitem whose entry is gone or is a tombstone."""
        self.changes.note(uid)
        self._update(self._projection.remove, uid, uid=uid)

    def _keep_tombstone(self, entry: Entry) -> None:
        self._update(self._projection.keep_tombstones, (entry,), uid=keys.uid_of(entry.key))

    def _drop_tombstone(self, uid: str) -> None:
        self._update(self._projection.drop_tombstone, uid, uid=uid)

    def is_gone(self, uid: str) -> bool:
        """True if the workitem was purged and its tombstone still exists."""
        return uid in self.tombstones

    def count(self) -> int:
        """Number of workitems."""
        return self._query(self._projection.count)

    async def purge(self, stored: StoredWorkitem, last: HistoryEntry) -> None:
        """Replace a workitem's entry by a tombstone. Raises Conflict or StoreUnavailable."""
        uid = stored.workitem.uid
        await self.tombstones.write(uid, last, stored_version(stored))
        self.remove(uid)
        self.write_copy()

    # --- changes from outside ---

    def adopt(self, uid: str, entry: Entry | None) -> None:
        """Something outside the plugin changed an entry: take it over if it is readable.

        If not, the workitem as it was last written stays, and the next write replaces the entry. Raises UpsError if
        there is no such workitem.
        """
        last = self.get(uid)
        if entry is None:
            _log.error("The entry of workitem %s vanished from the store; writing it back", uid)
            self._keep(last, VANISHED)
        elif (tombstone := read_tombstone(entry.document)) and tombstone[0] == uid:
            _log.warning("The workitem %s was purged by somebody else", uid)
            self.tombstones.take(entry)
            self._keep_tombstone(entry)
            self.remove(uid)
        else:
            self._adopt(uid, last, entry)

    def _adopt(self, uid: str, last: StoredWorkitem | None, entry: Entry) -> None:
        try:
            workitem = _readable(uid, entry)
        except UnreadableDocument as error:
            _log.error("The entry of workitem %s is corrupt (%s)", uid, error)
            if last is None:
                detail = f"the entry of {uid} in the store is not readable, and there is no copy"
                raise UpsError(PROCESSING_FAILURE, detail) from error
            self._keep(last, entry.version)
        else:
            _log.warning("The entry of workitem %s was changed by somebody else; taking it over", uid)
            self.put(workitem, entry.version, entry.document)

    def _keep(self, last: StoredWorkitem | None, version: str) -> None:
        if last is not None:
            self.put(last.workitem, version, encode(last.workitem))

    # --- many workitems, on the loop ---

    def ended(self, after: tuple[float, int], before: float, limit: int) -> Sequence[Workitem]:
        """Final workitems that ended before a time (seconds since the epoch), ordered by their end and creation number.

        ``after`` is the end and the creation number of the last workitem of the previous page.
        """
        return self._query(self._projection.ended, after, before, limit)

    def created(self, after: int, through: int, limit: int) -> Sequence[Workitem]:
        """Workitems with creation numbers above ``after`` up to ``through``, in that order."""
        return self._query(self._projection.created, after, through, limit)

    # --- the log of events ---

    def record(self, events: Sequence[Event]) -> None:
        """Add events to the log."""
        self._update(self._projection.record_events, events)

    def forget_events(self, before: float) -> int:
        """Remove a number of events before a time (seconds since the epoch) from the log; return how many."""
        return self._query(self._projection.forget_events, before)

    async def events(self, after: int, limit: int) -> list[Event]:
        """Logged events of any receiver after a sequence number."""
        return await self._query_later(self._projection.events, after, limit)

    # --- queries, off the loop ---

    async def stream(self, query: Query) -> AsyncIterator[list[DataSet]]:
        """The answers of a C-FIND in chunks, with exactly the requested attributes."""
        async for chunk in self.stream_whole(query):
            yield [query.select(attributes) for attributes in chunk]

    async def stream_whole(self, query: Query) -> AsyncIterator[list[DataSet]]:
        """The attributes of all matches in chunks, in the order of start."""
        self.check()
        try:
            async for chunk in self._projection.stream(query):
                yield chunk
        except ProjectionBroken as error:
            self._broke(error)
            raise

    async def search(
        self,
        query: Query,
        offset: int,
        limit: int | None,
    ) -> tuple[Sequence[DataSet], int]:
        """One page of matches, and the number of all."""
        return await self._query_later(self._projection.search, query, offset, limit)

    async def page(
        self,
        query: Query,
        offset: int,
        limit: int,
        order: str,
        words: Sequence[str],
        also: Sequence[Column | Ids],
    ) -> tuple[Sequence[Workitem], int]:
        """One page of workitems that hold all the words, and the number of all."""
        return await self._query_later(self._projection.workitems, query, offset, limit, order, words, also)

    async def walk(
        self,
        query: Query,
        part: range,
        order: str,
        words: Sequence[str],
        also: Sequence[Column | Ids],
        form: Callable[[Workitem], _T],
    ) -> tuple[AsyncIterator[list[_T]], int]:
        """The results of ``form`` for a part of the matches, called in another thread, and the number of all."""
        return await self._query_later(self._projection.walk, query, order, words, also, form, part)

    async def search_texts(
        self, query: Query, offset: int, limit: int | None, selection: Selection
    ) -> tuple[Sequence[bytes], int]:
        """One page of matches, the selected attributes of each as JSON text, and the number of all."""
        return await self._query_later(self._projection.search_texts, query, offset, limit, selection)

    async def numbers(self, query: Query) -> Sequence[int]:
        """Creation numbers of all matches."""
        return await self._query_later(self._projection.numbers, query)

    # --- when the projection fails ---

    def check(self) -> None:
        """Raise ProjectionBroken (0213, 503) while the projection is rebuilt."""
        if self.broken:
            raise ProjectionBroken("it is being rebuilt")

    def check_file(self) -> None:
        """Notice that somebody deleted the file of the projection."""
        self._update(self._projection.check)

    def _query(self, query: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        self.check()
        try:
            return query(*args, **kwargs)
        except ProjectionBroken as error:
            self._broke(error)
            raise

    async def _query_later(
        self, query: Callable[_P, Awaitable[_T]], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        self.check()
        try:
            return await query(*args, **kwargs)
        except ProjectionBroken as error:
            self._broke(error)
            raise

    def _update(self, update: Callable[..., object], *args: object, uid: str | None = None) -> None:
        """Pass a change to the projection. If that fails, a rebuild finds the change in the store."""
        if self.broken:
            return
        try:
            update(*args)
            if uid is not None and self._journal is not None:
                self._journal.indexed(uid)
        except Exception as error:  # any exception: a write that succeeded must not look as if it had failed
            self._broke(error)

    def _broke(self, error: Exception) -> None:
        if not self.broken:
            self.broken = True
            _log.error("The projection failed (%s); rebuilding it from the store", error)
            self._on_broken()


def stored_version(stored: StoredWorkitem | None) -> str | None:
    """The version that the next write of a workitem replaces; None if its entry must be created."""
    return None if stored is None or stored.version == VANISHED else stored.version


def _readable(uid: str, entry: Entry) -> Workitem:
    """The workitem in an entry that somebody else wrote. Raises UnreadableDocument."""
    workitem = decode(entry.document)
    try:
        _ = workitem.state
    except ValueError as error:
        raise UnreadableDocument(str(error)) from error
    if workitem.uid != uid or workitem.created < 1:
        raise UnreadableDocument(f"it is that of {workitem.uid}")
    return workitem


# --- the mark of the search index ---


class IndexMark:
    """The mark by which a start knows that the search index is complete (``store/journal.py``).

    ``journal`` is None if every start reads the whole store.
    """

    def __init__(
        self, entries: Entries, writer: Writer, projection: Projection, journal: IndexJournal | None
    ) -> None:
        self._entries = entries
        self._writer = writer
        self._projection = projection
        self._journal = journal
        self._is_whole = False

    async def changed(self) -> Collection[str] | None:
        """UIDs of the workitems that may differ between store and index; None if the whole store must be read.

        Raises StoreUnavailable.
        """
        self._is_whole = False
        if self._journal is None:
            return None
        mark = mark_in(await self._entries.read(keys.INDEX_MARK))
        return self._journal.read(mark) if mark and mark in self._projection.marks() else None

    async def begin(self) -> None:
        """Make the first mark, when the index has everything and nobody is writing. Raises as ``renew``."""
        self._is_whole = True
        await self._renewed(whole=True)

    async def renew(self) -> None:
        """Make a new mark if anything was written, so that the next start has less to read.

        Raises:
            StoreUnavailable: the former mark is still valid, or none is; it may be called again.
            ProjectionBroken: the index must be rebuilt first.
        """
        if self._journal is not None and not self._journal.is_empty:
            await self._renewed(whole=False)

    async def _renewed(self, *, whole: bool) -> None:
        if self._journal is None or not self._is_whole:
            return
        mark = secrets.token_hex(16)
        self._journal.begin(mark, whole=whole)
        # Everything that is not open in the journal is handed over in this turn of the loop.
        await self._projection.write_mark(mark)
        await self._writer.overwrite(keys.INDEX_MARK, document_of(mark))
        self._journal.complete()

    def close(self) -> None:
        """Close the journal."""
        if self._journal is not None:
            self._journal.close()


# --- recent changes ---


@dataclass(frozen=True, slots=True)
class Changes:
    """The changes after a number.

    Attributes:
        number: the number for the next request.
        uids: the workitems that changed, each once, the latest last.
        complete: False if there were more changes than are remembered; then anything may have changed.
    """

    number: int
    uids: tuple[str, ...]
    complete: bool


class ChangeFeed:
    """The latest changes of workitems, for pages that poll for changes. Lives on the loop."""

    def __init__(self, first: int = 0) -> None:
        """``first`` must grow from start to start (such as milliseconds since the epoch), so that a page that is open
        during a restart notices it.
        """
        self._number = first
        self._oldest = first
        self._latest: deque[tuple[int, str]] = deque(maxlen=_MAXIMUM_CHANGES)

    @property
    def number(self) -> int:
        """The number of the last change."""
        return self._number

    def note(self, uid: str) -> None:
        """A workitem was written or forgotten."""
        if len(self._latest) == _MAXIMUM_CHANGES:
            self._oldest = self._latest[0][0]
        self._number += 1
        self._latest.append((self._number, uid))

    def since(self, number: int) -> Changes:
        """What changed after an earlier ``number``."""
        if not self._oldest <= number <= self._number:
            return Changes(self._number, (), False)
        uids: dict[str, None] = {}
        for at, uid in reversed(self._latest):
            if at <= number:
                break
            uids.setdefault(uid)
        return Changes(self._number, tuple(reversed(uids)), True)
