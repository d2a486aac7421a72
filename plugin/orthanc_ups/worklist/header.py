# SPDX-License-Identifier: AGPL-3.0-or-later
"""The worklist's own entry: how far numbers are reserved, so that none is used twice after a crash."""

from __future__ import annotations

import asyncio
from typing import Final

import orjson

from ..store.document import FORMAT, UnreadableDocument, read
from ..store.port import Entry
from .writer import Writer

KEY: Final = "worklist"
_SEQUENCES: Final = 1_000_000
_CREATIONS: Final = 1_000


class Header:
    """Reserves sequence and creation numbers in blocks, ahead of use.

    Numbers start behind the last reserved block, so a restart leaves a gap but never repeats one,
    whatever the clock does and whichever documents are purged.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._version: str | None = None
        self._document = b""
        self._revision = 0
        self._reserving = asyncio.Lock()
        self.sequences = 1
        self.creations = 1

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

    def at_least(self, sequences: int, creations: int) -> None:
        """Numbers below these were seen in use."""
        self.sequences = max(self.sequences, sequences)
        self.creations = max(self.creations, creations)

    async def reserve(self, next_sequence: int, next_creation: int) -> None:
        """Make sure that the next numbers are reserved, with half a block to spare."""
        async with self._reserving:
            enough = (
                next_sequence + _SEQUENCES // 2 <= self.sequences
                and next_creation + _CREATIONS // 2 <= self.creations
            )
            if enough and self._version is not None:
                return
            sequences = max(self.sequences, next_sequence + _SEQUENCES)
            creations = max(self.creations, next_creation + _CREATIONS)
            await self._write(sequences, creations)
            self.sequences, self.creations = sequences, creations

    async def _write(self, sequences: int, creations: int) -> None:
        self._revision += 1
        content = {
            "format": FORMAT,
            "revision": self._revision,
            "sequences": sequences,
            "creations": creations,
        }
        document = orjson.dumps(content)
        self._version = await self._writer.overwrite(KEY, document)
        self._document = document

    def short_of(self, next_sequence: int, next_creation: int) -> bool:
        """True if a command must wait for a reservation before it may use these numbers."""
        return next_sequence >= self.sequences or next_creation >= self.creations

    def wants_more(self, next_sequence: int, next_creation: int) -> bool:
        """True if it is time to reserve ahead."""
        return (
            next_sequence + _SEQUENCES // 2 > self.sequences
            or next_creation + _CREATIONS // 2 > self.creations
        )

    def entries(self) -> list[tuple[str, bytes, str]]:
        """Key, document and version of what stands in the store, to write back after a loss."""
        return [(KEY, self._document, self._version)] if self._version else []
