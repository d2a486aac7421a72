# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the worklist knows of the stored workitems without asking Orthanc: the projection, and the purged ones."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from ..core.dataset import DataSet
from ..core.events import Event
from ..core.matching import Query
from ..core.statuses import RESOURCE_LIMITATION, UpsError
from ..core.workitem import Workitem
from ..store.document import FORMAT, UnreadableDocument, decode, encode
from ..store.port import Entry
from ..store.projection import Kept, Projection, ProjectionBroken
from .writer import Conflict, Writer

__all__ = ["VANISHED", "Kept", "Shadow", "Tombstone", "read_tombstone", "tombstone_document"]

_log = logging.getLogger("orthanc_ups.store")


VANISHED: Final = "vanished"
"""Stands for the version of a workitem whose entry is gone from the store and must be made anew."""


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A purged workitem that is remembered: ``at`` in seconds since the epoch."""

    version: str
    at: float
    document: bytes


class Shadow:
    """The worklist's view of the stored workitems.

    ``on_broken`` is called when the projection fails; the worklist then rebuilds it from the store and
    refuses commands (0213, 503) until that is done.
    """

    def __init__(
        self,
        projection: Projection,
        writer: Writer,
        on_broken: Callable[[], None],
        on_change: Callable[[str], None],
    ) -> None:
        self._projection = projection
        self._writer = writer
        self._on_broken = on_broken
        self._on_change = on_change
        self.broken = False
        self.tombstones: dict[str, Tombstone] = {}

    def get(self, uid: str) -> Kept | None:
        """A workitem with its stored version. Raises UpsError while the projection is rebuilt."""
        self._check()
        try:
            return self._projection.get(uid)
        except ProjectionBroken as error:
            self._broke(error)
            raise self._busy() from error

    def put(self, workitem: Workitem, version: str, document: bytes) -> None:
        """Take over what was written. A failing projection fails no command: it is rebuilt."""
        self._on_change(workitem.uid)
        if self.broken:
            return
        try:
            self._projection.put(workitem, version, document)
        except ProjectionBroken as error:
            self._broke(error)

    def adopt(self, uid: str, entry: Entry | None) -> None:
        """Somebody else changed an entry: take over what is readable, else keep ours and overwrite."""
        kept = self.get(uid)
        if entry is None:
            _log.error("The entry of workitem %s vanished from Orthanc's metadata; writing it back", uid)
            if kept:
                self.put(kept.workitem, VANISHED, encode(kept.workitem))
            return
        try:
            workitem = decode(entry.document)
        except UnreadableDocument as error:
            _log.error("The entry of workitem %s is corrupt (%s); writing it back", uid, error)
            if kept:
                self.put(kept.workitem, entry.version, encode(kept.workitem))
            return
        _log.warning("The entry of workitem %s was changed by somebody else; taking it over", uid)
        self.put(workitem, entry.version, entry.document)

    def is_gone(self, uid: str) -> bool:
        """True if the workitem existed and was purged, and that is still remembered."""
        return uid in self.tombstones

    def count(self) -> int:
        """Number of workitems."""
        self._check()
        return self._projection.count()

    async def bury(self, kept: Kept, at: float) -> None:
        """Replace a workitem's entry by a tombstone. Raises Conflict or StoreUnavailable."""
        uid = kept.workitem.uid
        document = tombstone_document(uid, at)
        version = await self._writer.write(f"workitem/{uid}", document, kept.version)
        self.tombstones[uid] = Tombstone(version, at, document)
        self.remove(uid)

    def remove(self, uid: str) -> None:
        """Forget a workitem here (its entry is gone or a tombstone)."""
        self._on_change(uid)
        try:
            self._projection.remove(uid)
        except ProjectionBroken as error:
            self._broke(error)

    async def forget_tombstones(self, before: float) -> None:
        """Delete the entries of workitems purged before a time (seconds since the epoch)."""
        for uid, stone in [(u, s) for u, s in self.tombstones.items() if s.at < before]:
            try:
                await self._writer.remove(f"workitem/{uid}", stone.version)
            except Conflict:
                _log.warning("The tombstone of workitem %s was changed by somebody else; left alone", uid)
            self.tombstones.pop(uid, None)

    def tombstone_entries(self) -> Iterator[Entry]:
        """The entries of purged workitems, to write back after a loss."""
        for uid, stone in list(self.tombstones.items()):
            yield Entry(f"workitem/{uid}", stone.document, stone.version)

    def record(self, events: Sequence[Event]) -> None:
        """Add events to the log."""
        if self.broken:
            return
        try:
            self._projection.record_events(events)
        except ProjectionBroken as error:
            self._broke(error)

    def ended_before(self, at: float, limit: int) -> Sequence[Workitem]:
        """Final workitems that ended before a time (seconds since the epoch), oldest first."""
        self._check()
        return self._projection.ended_before(at, limit)

    # --- queries, off the loop ---

    async def stream(self, query: Query) -> AsyncIterator[list[DataSet]]:
        """Answers of a C-FIND in chunks."""
        self._check()
        try:
            async for chunk in self._projection.stream(query):
                yield [query.select(one) for one in chunk]
        except ProjectionBroken as error:
            self._broke(error)
            raise self._busy() from error

    async def search(
        self, query: Query, offset: int, limit: int | None, order: str | None = None
    ) -> tuple[Sequence[DataSet], int]:
        """One page of matches and the number of all."""
        self._check()
        try:
            return await self._projection.search(query, offset, limit, order=order)
        except ProjectionBroken as error:
            self._broke(error)
            raise self._busy() from error

    async def numbers(self, query: Query) -> Sequence[int]:
        """Creation numbers of all matches."""
        self._check()
        try:
            return await self._projection.numbers(query)
        except ProjectionBroken as error:
            self._broke(error)
            raise self._busy() from error

    def _check(self) -> None:
        if self.broken:
            raise self._busy()

    @staticmethod
    def _busy() -> UpsError:
        return UpsError(RESOURCE_LIMITATION, "the worklist is reading itself in again; try in some seconds")

    def _broke(self, error: ProjectionBroken) -> None:
        if not self.broken:
            self.broken = True
            _log.error("The projection failed (%s); rebuilding it from Orthanc's metadata", error)
            self._on_broken()


def tombstone_document(uid: str, at: float) -> bytes:
    """What stands in the entry of a purged workitem."""
    return orjson.dumps({"format": FORMAT, "uid": uid, "gone": at})


def read_tombstone(document: bytes) -> tuple[str, float] | None:
    """UID and time of purging, or None if the document is no tombstone."""
    if b'"gone":' not in document[:200]:
        return None
    try:
        content = orjson.loads(document)
        return str(content["uid"]), float(content["gone"])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return None
