# SPDX-License-Identifier: AGPL-3.0-or-later
"""The entries in Orthanc's database: their number and size by kind, and single entries."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol

import orjson

from ..dicomweb.response import HttpProblem
from ..store.documents import is_tombstone
from ..store.port import Entry
from . import answers, bodies
from .routing import Call, Route

_MAXIMUM_AGE: Final = 10.0  # seconds
_KINDS: Final = {
    "workitem": "workitems",
    "purged": "tombstones of deleted workitems",
    "events": "older waiting events of workitems",
    "subscriber": "global subscriptions, one entry per AE",
    "delivery": "delivery cursors and counters, one entry per AE",
    "dead": "events that were given up together (dead letters)",
    "note": "state of rules, and performed procedure steps (MPPS)",
    "worklist": "identity of the worklist, and its reserved numbers",
    "node": "the node that keeps the worklist",
    "index": "the search index that is complete",
    "move": "state of a move between the stores",
    "aside": "mark of a worklist that is not in use",
}


class StoredEntries(Protocol):
    """The parts of the store that can be inspected."""

    @property
    def name(self) -> str:
        """``key-value`` or ``metadata``."""

    @property
    def location(self) -> str:
        """Its location in Orthanc, in words."""

    def scan(self) -> AsyncGenerator[list[Entry], None]:
        """Every entry. Raises StoreUnavailable."""

    async def read(self, key: str) -> Entry | None:
        """One entry. Raises StoreUnavailable."""


def kind_of(entry: Entry) -> str:
    """The kind of an entry: the part of its key before the slash; ``purged`` for a tombstone."""
    kind = entry.key.partition("/")[0]
    return "purged" if kind == "workitem" and is_tombstone(entry.document) else kind


@dataclass(frozen=True, slots=True)
class _Tally:
    """Entries and bytes by kind, and when they were counted."""

    at: datetime
    entries: Counter[str] = field(default_factory=Counter)
    size: Counter[str] = field(default_factory=Counter)

    def add(self, entry: Entry) -> None:
        kind = kind_of(entry)
        self.entries[kind] += 1
        self.size[kind] += len(entry.document)


class Storage:
    """Handlers of ``/ups/api/storage``. Counting reads everything; the result is shared for ten seconds."""

    def __init__(self, entries: StoredEntries, now: Callable[[], datetime]) -> None:
        """``now`` returns the aware time."""
        self._entries = entries
        self._now = now
        self._counting: asyncio.Task[_Tally] | None = None

    def routes(self) -> tuple[Route, ...]:
        """Routes of the stored entries."""
        return (
            Route("GET", "/storage", self.storage),
            Route("GET", "/storage/entries", self.entries),
            Route("GET", "/storage/entry", self.entry),
        )

    async def storage(self, call: Call) -> answers.StorageJson:
        """Which store is used, and the number and size of its entries by kind."""
        tally = await self._tally()
        return {
            "store": self._entries.name,
            "location": self._entries.location,
            "entries": tally.entries.total(),
            "bytes": tally.size.total(),
            "kinds": [
                {"kind": kind, "meaning": _KINDS.get(kind, ""), "entries": count, "bytes": tally.size[kind]}
                for kind, count in sorted(tally.entries.items(), key=lambda item: _position(item[0]))
            ],
            "counted_at": tally.at.isoformat(),
        }

    async def _tally(self) -> _Tally:
        counting = self._counting
        if counting is None or (counting.done() and not self._is_fresh(counting)):
            self._counting = counting = asyncio.ensure_future(self._count())
        return await asyncio.shield(counting)

    def _is_fresh(self, counting: asyncio.Task[_Tally]) -> bool:
        if counting.cancelled() or counting.exception() is not None:
            return False
        return abs((self._now() - counting.result().at).total_seconds()) < _MAXIMUM_AGE

    async def _count(self) -> _Tally:
        tally = _Tally(self._now())
        async for chunk in self._entries.scan():
            for entry in chunk:
                tally.add(entry)
            await asyncio.sleep(0)
        return tally

    async def entries(self, call: Call, query: bodies.EntriesQuery) -> answers.StoredEntriesJson:
        """Keys of stored entries, of one kind or of all, in no particular order."""
        keys: list[answers.StoredEntryJson] = []
        async with aclosing(self._entries.scan()) as chunks:
            async for chunk in chunks:
                keys.extend(_summary(entry) for entry in chunk if query.kind in ("", kind_of(entry)))
                if len(keys) > query.limit:
                    break
        return {"entries": keys[: query.limit], "more": len(keys) > query.limit}

    async def entry(self, call: Call, query: bodies.EntryQuery) -> answers.StoredDocument:
        """One stored entry; ARCHITECTURE.md explains the documents of each kind."""
        entry = await self._entries.read(query.key)
        if entry is None:
            raise HttpProblem(404, f'there is no entry "{query.key[:120]}" in the store')
        return {**_summary(entry), "document": _readable(entry.document)}


def _position(kind: str) -> tuple[int, str]:
    kinds = list(_KINDS)
    return (kinds.index(kind) if kind in kinds else len(kinds), kind)


def _summary(entry: Entry) -> answers.StoredEntryJson:
    return {
        "key": entry.key,
        "kind": kind_of(entry),
        "version": entry.version,
        "bytes": len(entry.document),
    }


def _readable(document: bytes) -> Any:
    """The document as JSON, or as text if it is not JSON."""
    try:
        return orjson.loads(document)
    except orjson.JSONDecodeError:
        return document.decode("utf-8", "replace")
