# SPDX-License-Identifier: AGPL-3.0-or-later
"""Reads the stored worklist, and derives the numbers and cursors from which to continue."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from ..core.events import Event
from ..core.subscriptions import ActKind, Log
from ..core.workitem import Workitem
from ..delivery.documents import decode_progress
from ..delivery.port import Burst
from ..projection.projection import Projection
from ..store import keys
from ..store.documents import UnreadableDocument, decode_events, decode_log
from ..store.port import Entry, RestorableEntries, ShelvesLost
from .order import CREATIONS, SEQUENCES
from .overflows import Overflow
from .workitem_store import read_tombstone

_log = logging.getLogger("orthanc_ups.store")
_GREATEST: Final = 2**62
_PAGE: Final = 500


@dataclass(slots=True)
class Stored:
    """Everything in the store except the workitems, which go into the projection.

    Attributes:
        worklist_entry: the worklist's own entry, None on the first start.
        logs: the global acts of each AE, with the stored version.
        tombstones: the purged workitems.
        overflows: the overflow entries.
        delivery: entries that belong to delivery (``delivery/…``, ``dead/…``).
        notes: entries of other parts (``note/…``).
        damaged: entries that cannot be read.
    """

    worklist_entry: Entry | None = None
    logs: list[tuple[Log, str]] = field(default_factory=list)
    tombstones: list[Entry] = field(default_factory=list)
    overflows: list[Overflow] = field(default_factory=list)
    delivery: list[Entry] = field(default_factory=list)
    notes: list[Entry] = field(default_factory=list)
    damaged: list[Entry] = field(default_factory=list)


class Loader:
    """Sorts the entries of the store by their keys."""

    def __init__(self, entries: RestorableEntries, projection: Projection) -> None:
        self._entries = entries
        self._projection = projection

    async def load(self, changed: Collection[str] | None = None) -> Stored:
        """Read every entry. Unreadable ones are reported and left alone.

        Args:
            changed: UIDs of the only workitems that may differ between store and projection; no other workitem is
                read. None to read all.

        Raises:
            StoreUnavailable: the store did not answer.
            ShelvesLost: shelves were deleted meanwhile. The projection is left as it is, because it may hold the last
                copy of their entries.
        """
        stored = Stored()
        if changed is None:
            await self._load_all(stored)
        else:
            await self._load_changed(changed, stored)
        for entry in stored.damaged:
            _log.error("Entry %s of the store is not readable; it is left alone", entry.key)
        return stored

    async def _load_all(self, stored: Stored) -> None:
        with self._projection.rebuilding() as rebuild:
            async for chunk in self._entries.load():
                workitems = [entry for entry in chunk if not self._sort(entry, stored)]
                stored.damaged.extend(rebuild.take(workitems))
            if self._entries.incomplete:
                raise ShelvesLost("shelves of the worklist were deleted while it was read")
        self._projection.keep_tombstones(stored.tombstones)

    async def _load_changed(self, changed: Collection[str], stored: Stored) -> None:
        async for chunk in self._entries.load_others():
            for entry in chunk:
                self._sort(entry, stored)
        workitems: list[Entry] = []
        for uid in changed:
            self._projection.drop_tombstone(uid)
            workitem = await self._entries.read(keys.workitem(uid))
            if workitem is None or self._sort(workitem, stored):
                self._projection.remove(uid)
            else:
                workitems.append(workitem)
        self._projection.keep_tombstones(stored.tombstones)
        stored.damaged.extend(self._projection.align(workitems))
        stored.tombstones = list(self._projection.tombstones())

    def sort(self, entries: Iterable[Entry]) -> Stored:
        """As ``load``, for entries that have been read already; the projection has every workitem."""
        stored = Stored()
        for entry in entries:
            self._sort(entry, stored)
        return stored

    def _sort(self, entry: Entry, stored: Stored) -> bool:
        """Add an entry to the others of its kind; False if it is a workitem."""
        kind = entry.key.partition("/")[0]
        try:
            return self._sorted(kind, entry, stored)
        except UnreadableDocument as error:
            _log.error("Entry %s: %s", entry.key, error)
            stored.damaged.append(entry)
            return True

    def _sorted(self, kind: str, entry: Entry, stored: Stored) -> bool:
        if kind == "workitem":
            tombstone = read_tombstone(entry.document)
            if tombstone is None or entry.key != keys.workitem(tombstone[0]):
                return False
            stored.tombstones.append(entry)
        elif kind == "subscriber":
            stored.logs.append((_log_in(entry), entry.version))
        elif kind == "events":
            events = decode_events(entry.document)
            if events:
                stored.overflows.append(Overflow(entry.key, entry.version, entry.document, events))
        elif kind in ("delivery", "dead"):
            stored.delivery.append(entry)
        elif entry.key.startswith(keys.NOTE):
            stored.notes.append(entry)
        elif entry.key == keys.WORKLIST:
            stored.worklist_entry = entry
        elif entry.key in (keys.NODE, keys.INDEX_MARK):
            pass
        else:
            stored.damaged.append(entry)
        return True


def _log_in(entry: Entry) -> Log:
    log = decode_log(entry.document)
    if entry.key != keys.subscriber(log.receiving_ae):
        raise UnreadableDocument(f"it belongs to {log.receiving_ae}")
    return log


def bursts(logs: Iterable[Log]) -> Iterator[Burst]:
    """The initial reports that global subscribes with lock owe; delivery knows which have been sent."""
    for log in logs:
        for act in log.acts:
            if act.kind is ActKind.LOCK and act.through:
                yield Burst(log.receiving_ae, act.sequence, act.through, act.sequence, act.at)


def unsettled_events(workitems: Iterable[Workitem], overflows: Iterable[Overflow]) -> list[Event]:
    """All events of documents and overflow entries, each once, by sequence."""
    events = {event.sequence: event for workitem in workitems for event in workitem.events}
    events.update((event.sequence, event) for overflow in overflows for event in overflow.events)
    return [events[sequence] for sequence in sorted(events)]


def slowest_cursor(entries: Iterable[Entry], titles: Collection[str]) -> int:
    """The sequence up to which every AE has received everything; 0 if that is unknown for some AE.

    Args:
        entries: the entries of delivery.
        titles: every AE that may have received anything.
    """
    cursors = dict(_cursors(entries))
    if not cursors or not cursors.keys() >= set(titles):
        return 0
    return min(cursors.values())


def _cursors(entries: Iterable[Entry]) -> Iterator[tuple[str, int]]:
    for entry in entries:
        if not entry.key.startswith(keys.PROGRESS):
            continue
        try:
            receiving_ae, _, channels = decode_progress(entry.document)
        except UnreadableDocument:
            continue
        cursors = [progress.cursor for progress in channels.values() if progress.cursor is not None]
        yield receiving_ae, min(cursors, default=0)


def numbers_in_use(projection: Projection, stored: Stored) -> tuple[int, int]:
    """A sequence and a creation number greater than all in use. Slow; needed only if the worklist entry is lost.

    They are a whole block greater, because the last numbers may not be in any entry.
    """
    sequences, creations = {0, *(at for _, at in _cursors(stored.delivery))}, {0}
    for log, _ in stored.logs:
        sequences.update(act.sequence + act.through for act in log.acts)
        creations.update(act.through for act in log.acts)
    sequences.update(event.sequence for overflow in stored.overflows for event in overflow.events)
    for workitem in (*projection.with_acts(), *projection.with_events_after(0)):
        sequences.update(act.sequence for act in workitem.acts.values())
        sequences.update(event.sequence for event in workitem.events)
        creations.add(workitem.created)
    creations.add(_last_created(projection))
    if max(sequences) == max(creations) == 0:
        return 1, 1
    return max(sequences) + SEQUENCES, max(creations) + CREATIONS


def _last_created(projection: Projection) -> int:
    last = 0
    while workitems := projection.created(last, _GREATEST, _PAGE):
        last = workitems[-1].created
    return last
