# SPDX-License-Identifier: AGPL-3.0-or-later
"""The purged workitems that are still remembered, so that a client hears "gone" and not "never heard of" (410)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import orjson

from ..core.workitem import HistoryEntry
from ..store.document import FORMAT, is_tombstone
from ..store.port import Entry
from .writer import Conflict, Writer

_log = logging.getLogger("orthanc_ups.store")
_PREFIX: Final = "workitem/"


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A purged workitem that is remembered, with the last entry of its history: when, by whom and why."""

    version: str
    last: HistoryEntry
    document: bytes


class Tombstones(dict[str, Tombstone]):
    """The entries that stand where purged workitems stood, by SOP Instance UID."""

    def __init__(self, writer: Writer) -> None:
        super().__init__()
        self._writer = writer

    def take(self, entry: Entry) -> None:
        """Take over a stored entry that is a tombtombstone."""
        parsed = read_tombstone(entry.document)
        if parsed is not None:
            self[parsed[0]] = Tombstone(entry.version, parsed[1], entry.document)

    async def write(self, uid: str, last: HistoryEntry, version: str | None) -> None:
        """Write a tombstone over a workitem's entry. Raises Conflict or StoreUnavailable."""
        document = tombstone_document(uid, last)
        self[uid] = Tombstone(await self._writer.write(f"{_PREFIX}{uid}", document, version), last, document)

    async def forget(self, before: float) -> None:
        """Delete the entries of workitems purged before a time (seconds since the epoch).

        Raises StoreUnavailable; then some are left.
        """
        for uid, tombstone in [
            (uid, tombstone) for uid, tombstone in self.items() if tombstone.last.at < before
        ]:
            try:
                await self._writer.remove(f"{_PREFIX}{uid}", tombstone.version)
            except Conflict:
                _log.warning("The tombstone of workitem %s was changed by somebody else; left alone", uid)
            self.pop(uid, None)

    def entries(self) -> Iterator[Entry]:
        """Every entry, to write back after a loss."""
        for uid, tombstone in list(self.items()):
            yield Entry(f"{_PREFIX}{uid}", tombstone.document, tombstone.version)


def tombstone_document(uid: str, last: HistoryEntry) -> bytes:
    """What stands in the entry of a purged workitem."""
    return orjson.dumps({"format": FORMAT, "uid": uid, "gone": last.at, "by": last.who, "why": last.why})


def read_tombstone(document: bytes) -> tuple[str, HistoryEntry] | None:
    """UID, and when, by whom and why it was purged; None if the document is no tombtombstone."""
    if not is_tombstone(document):
        return None
    try:
        content = orjson.loads(document)
        who, why = str(content.get("by", "")), str(content.get("why", ""))
        return str(content["uid"]), HistoryEntry(float(content["gone"]), who, "purged", why)
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError):
        return None
