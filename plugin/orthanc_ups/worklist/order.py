# SPDX-License-Identifier: AGPL-3.0-or-later
"""The order of acts and events: sequence numbers are reserved and handed out here, events released in order."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from ..core.events import Event
from ..store import keys
from ..store.documents import FORMAT, UnreadableDocument, read
from ..store.port import Entry
from ..store.writer import Writer

_log = logging.getLogger("orthanc_ups.store")
SEQUENCES: Final = 1_000_000
CREATIONS: Final = 1_000


# --- sequence numbers ---


@dataclass(eq=False, slots=True)
class Ticket:
    """The sequence numbers of one command: ``first``, ``first + 1``, … ``first + count - 1``."""

    first: int
    count: int
    events: Sequence[Event] | None = None


class Order:
    """Hands out sequence numbers, and releases events in their order.

    An event is released once every smaller number is settled: committed or given up. So a receiver
    that has event N has every earlier event addressed to it, which cursors and ``since`` rely on.

    Example: two commands take 120 and 121. The one with 121 is written first and settled; its event waits. When 120
    is settled, both events are released, 120 first.

    Attributes:
        next: the next sequence number that will be handed out.
    """

    def __init__(self, first: int, release: Callable[[Sequence[Event]], None]) -> None:
        self.next = first
        self._release = release
        self._waiting: deque[Ticket] = deque()

    def start_at(self, first: int) -> None:
        """Use no number below ``first`` from now on."""
        self.next = max(self.next, first)

    @property
    def in_flight(self) -> int:
        """Commands that hold numbers and are not settled yet."""
        return len(self._waiting)

    def take(self, count: int) -> Ticket:
        """Reserve ``count`` numbers; the ticket must be settled or given up."""
        ticket = Ticket(self.next, count)
        self.next += count
        self._waiting.append(ticket)
        return ticket

    def settle(self, ticket: Ticket, events: Sequence[Event]) -> None:
        """The command is committed: release its events as soon as every smaller number is settled."""
        ticket.events = events
        ready: list[Event] = []
        while self._waiting and self._waiting[0].events is not None:
            ready.extend(self._waiting.popleft().events or ())
        if ready:
            self._release(ready)

    def give_up(self, ticket: Ticket) -> None:
        """The command was not carried out; its numbers stay unused. Does nothing if the ticket is settled already."""
        if ticket.events is None:
            self.settle(ticket, ())


# --- reservations ---


class WorklistEntry:
    """The entry ``worklist``, which reserves sequence and creation numbers in blocks, before they are used.

    A start begins after the last reserved block. So a restart leaves a gap but never uses a number twice, whatever
    the clock does and whichever documents are purged.

    Attributes:
        sequences, creations: the first numbers that are not reserved.
        identity: distinguishes this worklist from any other; never changes.
        restoring: the identity of the worklist whose export is being restored here; empty if none is.
        origins: identities of the worklists whose exports were imported here.
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
        self.origins: tuple[str, ...] = ()

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
        self.origins = tuple(map(str, content.get("origins", ())))

    def find(self, entry: Entry | None) -> bool:
        """Take over the stored entry. False if there is none that can be read."""
        if entry is None:
            return False
        try:
            self.load(entry)
        except UnreadableDocument as error:
            _log.error(
                "The entry %s is corrupt (%s); deriving it from the stored workitems", keys.WORKLIST, error
            )
            return False
        return True

    def at_least(self, sequences: int, creations: int) -> None:
        """Hand out no numbers below these."""
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
        """Note whose export is being restored (empty: the restore is complete), and reserve numbers behind its own."""
        async with self._reserving:
            self.restoring = identity
            await self._extend(next_sequence, next_creation)

    async def note_origins(self, identities: Iterable[str]) -> None:
        """Note the worklists that an import comes from. Raises StoreUnavailable; then it may be called again."""
        async with self._reserving:
            origins = tuple(dict.fromkeys((*self.origins, *identities)))
            origins = tuple(identity for identity in origins if identity and identity != self.identity)
            if origins != self.origins:
                await self._write(self.sequences, self.creations, origins)
                self.origins = origins

    async def prove(self) -> None:
        """Write the entry unchanged, to see whether the store accepts writes. Raises StoreUnavailable."""
        async with self._reserving:
            await self._write(self.sequences, self.creations)

    async def _extend(self, next_sequence: int, next_creation: int) -> None:
        sequences = max(self.sequences, next_sequence + SEQUENCES)
        creations = max(self.creations, next_creation + CREATIONS)
        await self._write(sequences, creations)
        self.sequences, self.creations = sequences, creations

    async def _write(self, sequences: int, creations: int, origins: tuple[str, ...] | None = None) -> None:
        self._revision += 1
        content = {
            "format": FORMAT,
            "revision": self._revision,
            "sequences": sequences,
            "creations": creations,
            "identity": self.identity,
            "restoring": self.restoring,
            "origins": self.origins if origins is None else origins,
        }
        document = orjson.dumps(content)
        self._version = await self._writer.overwrite(keys.WORKLIST, document)
        self._document = document

    def entries(self) -> list[Entry]:
        """The stored entry, to be written back after a loss."""
        return [Entry(keys.WORKLIST, self._document, self._version)] if self._version else []
