# SPDX-License-Identifier: AGPL-3.0-or-later
"""The worklist's own entry: how far numbers are reserved, so that none is used twice after a crash."""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import Final

import orjson

from ..store.documents import FORMAT, UnreadableDocument, read
from ..store.port import Entry
from ..store.writer import Writer

_log = logging.getLogger("orthanc_ups.store")
KEY: Final = "worklist"
SEQUENCES: Final = 1_000_000
CREATIONS: Final = 1_000


class WorklistEntry:
    """Reserves sequence and creation numbers in blocks, ahead of use.

    Numbers start behind the last reserved block, so a restart leaves a gap but never repeats one,
    whatever the clock does and whichever documents are purged.

    Attributes:
        sequences, creations: the first numbers that are not reserved.
        identity: tells this worklist from any other, for ever.
        restoring: identity of the worklist whose export is being restored here, empty if none is.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._version: str | None = None
        self._document = b""
        self._revision = 0
        self._reserving = asyncio.Lock()
        self.sequences = 1
        self.creations = 1
        self.identity = uuid.uuid4().hex
        self.restoring = ""

    def load(self, entry: Entry) -> None:
        """Take over the stored entry. Raises UnreadableDocument."""
        content = read(entry.document)
        try:
            sequences, creations = int(content["sequences"]), int(content["creations"])
        except (KeyError, TypeError, ValueError) as error:
            raise UnreadableDocument(f"not a worklist document: {error!r}") from error
        self.at_least(sequences, creations)
        self._version, self._document = entry.version, entry.document
        self._revision = int(content.get("revision", 0))
        self.identity = str(content.get("identity", self.identity))
        self.restoring = str(content.get("restoring", ""))

    def find(self, entry: Entry | None) -> bool:
        """Take over the stored entry, if there is one that can be read; False if not."""
        if entry is None:
            return False
        try:
            self.load(entry)
        except UnreadableDocument as error:
            _log.error("The entry %s is corrupt (%s); deriving it from the stored workitems", KEY, error)
            return False
        return True

    def at_least(self, sequences: int, creations: int) -> None:
        """Numbers below these were seen in use."""
        self.sequences = max(self.sequences, sequences)
        self.creations = max(self.creations, creations)

    async def reserve(self, next_sequence: int, next_creation: int) -> None:
        """Make sure that the next numbers are reserved, with half a block to spare."""
        async with self._reserving:
            enough = (
                next_sequence + SEQUENCES // 2 <= self.sequences
                and next_creation + CREATIONS // 2 <= self.creations
            )
            if not enough or self._version is None:
                await self._extend(next_sequence, next_creation)

    async def restore(self, identity: str, next_sequence: int, next_creation: int) -> None:
        """Note whose export is being restored (empty: it is done), and reserve behind its numbers."""
        async with self._reserving:
            self.restoring = identity
            await self._extend(next_sequence, next_creation)

    async def prove(self) -> None:
        """Write the entry as it is, to see whether anything can be written. Raises StoreUnavailable."""
        async with self._reserving:
            await self._write(self.sequences, self.creations)

    async def _extend(self, next_sequence: int, next_creation: int) -> None:
        sequences = max(self.sequences, next_sequence + SEQUENCES)
        creations = max(self.creations, next_creation + CREATIONS)
        await self._write(sequences, creations)
        self.sequences, self.creations = sequences, creations

    async def _write(self, sequences: int, creations: int) -> None:
        self._revision += 1
        content = {
            "format": FORMAT,
            "revision": self._revision,
            "sequences": sequences,
            "creations": creations,
            "identity": self.identity,
            "restoring": self.restoring,
        }
        document = orjson.dumps(content)
        self._version = await self._writer.overwrite(KEY, document)
        self._document = document

    def short_of(self, next_sequence: int, next_creation: int) -> bool:
        """True if a command must wait for a reservation before it may use these numbers."""
        return next_sequence >= self.sequences or next_creation >= self.creations

    def entries(self) -> list[Entry]:
        """What stands in the store, to write back after a loss."""
        return [Entry(KEY, self._document, self._version)] if self._version else []
