# SPDX-License-Identifier: AGPL-3.0-or-later
"""Reads the stored worklist in: at the start, and again if the projection fails."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..core.events import Event
from ..core.subscriptions import Kind, Log
from ..core.workitem import Workitem
from ..delivery.port import Burst
from ..projection.projection import Projection
from ..store.document import UnreadableDocument, decode_events
from ..store.log_document import decode_log
from ..store.node import KEY as NODE_KEY
from ..store.port import Entry
from ..store.recovery import RestorableEntries, ShelvesLost
from .commits import Overflow, workitem_key
from .tombstones import read_tombstone
from .worklist_entry import KEY as WORKLIST_KEY

_log = logging.getLogger("orthanc_ups.store")


@dataclass(slots=True)
class Stored:
    """Everything found in the store except the workitems, which went into the projection.

    Attributes:
        worklist_entry: the worklist's own entry, None on the first start.
        logs: per AE its global acts, with the stored version.
        tombstones: the purged workitems.
        overflows: per workitem its overflow entries.
        delivery: entries that belong to delivery (``delivery/…``, ``dead/…``).
        damaged: entries that nobody can read.
    """

    worklist_entry: Entry | None = None
    logs: list[tuple[Log, str]] = field(default_factory=list)
    tombstones: list[Entry] = field(default_factory=list)
    overflows: dict[str, list[Overflow]] = field(default_factory=dict)
    delivery: list[Entry] = field(default_factory=list)
    damaged: list[Entry] = field(default_factory=list)


class Loader:
    """Sorts the entries of the store by their keys."""

    def __init__(self, entries: RestorableEntries, projection: Projection) -> None:
        self._entries = entries
        self._projection = projection

    async def load(self) -> Stored:
        """Read every entry. Unreadable ones are reported and left alone.

        Raises StoreUnavailable; ShelvesLost if some were deleted meanwhile: then the projection, which may hold the
        last copy of what stood there, keeps it.
        """
        stored = Stored()
        with self._projection.rebuilding() as rebuild:
            async for chunk in self._entries.load():
                workitems = [entry for entry in chunk if not self._sort(entry, stored)]
                stored.damaged.extend(rebuild.take(workitems))
            if self._entries.incomplete:
                raise ShelvesLost("shelves of the worklist were deleted while it was read")
        for entry in stored.damaged:
            _log.error("Entry %s of Orthanc's metadata is not readable; it is left alone", entry.key)
        return stored

    def _sort(self, entry: Entry, stored: Stored) -> bool:
        """Put an entry where it belongs; False if it is a workitem."""
        kind = entry.key.partition("/")[0]
        try:
            return self._sorted(kind, entry, stored)
        except UnreadableDocument as error:
            _log.error("Entry %s: %s", entry.key, error)
            stored.damaged.append(entry)
            return True

    def _sorted(self, kind: str, entry: Entry, stored: Stored) -> bool:
        if kind == "workitem":
            gone = read_tombstone(entry.document)
            if gone is None or entry.key != workitem_key(gone[0]):
                return False
            stored.tombstones.append(entry)
        elif kind == "subscriber":
            stored.logs.append((_log_in(entry), entry.version))
        elif kind == "events":
            events = decode_events(entry.document)
            if events:
                overflow = Overflow(entry.key, entry.version, entry.document, events)
                stored.overflows.setdefault(events[0].uid, []).append(overflow)
        elif kind in ("delivery", "dead"):
            stored.delivery.append(entry)
        elif entry.key == WORKLIST_KEY:
            stored.worklist_entry = entry
        elif entry.key == NODE_KEY:
            pass
        else:
            stored.damaged.append(entry)
        return True


def _log_in(entry: Entry) -> Log:
    log = decode_log(entry.document)
    if entry.key != f"subscriber/{log.receiving_ae}":
        raise UnreadableDocument(f"it is that of {log.receiving_ae}")
    return log


def bursts(logs: Iterable[Log]) -> Iterator[Burst]:
    """The initial reports that global subscribes with lock owe; delivery knows which are done."""
    for log in logs:
        for act in log.acts:
            if act.kind is Kind.LOCK and act.through:
                yield Burst(log.receiving_ae, act.sequence, act.through, act.sequence, act.at)


def unsettled_events(
    workitems: Iterable[Workitem], overflows: Mapping[str, Sequence[Overflow]]
) -> list[Event]:
    """All events of documents and overflow entries, each once, by sequence."""
    events = {event.sequence: event for workitem in workitems for event in workitem.events}
    for entries in overflows.values():
        events.update((event.sequence, event) for overflow in entries for event in overflow.events)
    return [events[sequence] for sequence in sorted(events)]
