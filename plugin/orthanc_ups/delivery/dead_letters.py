# SPDX-License-Identifier: AGPL-3.0-or-later
"""Events that could not be delivered in time: stored, listed, and ready to be sent again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ..core import tags
from ..core.events import Event, EventType
from ..store import keys
from ..store.documents import UnreadableDocument
from ..store.port import Entries, Entry
from ..store.writer import StoredEntry
from .documents import Batch, decode_batch, encode_batch
from .port import Clock, Endpoint
from .queue import Waiting, kind_of, made_at
from .tally import DeliveryCounts

BATCH: Final = 100

_log = logging.getLogger("orthanc_ups.delivery")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter as it is listed.

    Attributes:
        sequence: its name in ``drop`` and ``resend``.
        uid: the workitem; the Global Subscription for initial reports that were never made.
        at: when it was committed, ``died_at`` when it was given up: seconds since the epoch.
        reason: why, in words.
        count: 1; for initial State Reports that were never made, how many at most.
    """

    endpoint: Endpoint
    sequence: int
    type: EventType
    uid: str
    at: float
    died_at: float
    reason: str
    count: int = 1


@dataclass(slots=True)
class _StoredBatch:
    entry: StoredEntry
    kinds: dict[int, EventType]
    revision: int = 1


class DeadLetters:
    """Dead letters by endpoint, in entries of up to 100; the contents stay in the store.

    At most ``maximum`` are kept per endpoint; beyond, the oldest batches are given up and counted as lost.
    """

    def __init__(self, entries: Entries, clock: Clock, counts: DeliveryCounts, maximum: int) -> None:
        self._entries = entries
        self._clock = clock
        self._counts = counts
        self._maximum = maximum
        self._batches: dict[Endpoint, dict[int, _StoredBatch]] = {}
        self._writing = asyncio.Lock()
        self._losing: set[Endpoint] = set()

    def load(self, entry: Entry) -> None:
        """Take over a stored entry. Raises UnreadableDocument."""
        batch = decode_batch(entry.document)
        if batch.letters:
            stored = StoredEntry(self._entries, entry.key)
            stored.take(entry.document, entry.version)
            self._add_batch(batch, stored)

    def _add_batch(self, batch: Batch, entry: StoredEntry) -> _StoredBatch:
        kinds = {sequence_of(letter): kind_of(letter) for letter in batch.letters}
        stored_batch = _StoredBatch(entry, kinds)
        batches = self._batches.setdefault(batch.endpoint, {})
        batches[min(kinds)] = stored_batch
        self._batches[batch.endpoint] = dict(sorted(batches.items()))
        return stored_batch

    # --- what is known without the store ---

    def sequences(self, endpoint: Endpoint) -> frozenset[int]:
        """The sequences that name the dead letters of an endpoint."""
        batches = self._batches.get(endpoint, {}).values()
        return frozenset(sequence for stored_batch in batches for sequence in stored_batch.kinds)

    def count(self, endpoint: Endpoint) -> int:
        """The number of dead letters of an endpoint."""
        return sum(len(stored_batch.kinds) for stored_batch in self._batches.get(endpoint, {}).values())

    def endpoints(self, receiving_ae: str | None = None) -> tuple[Endpoint, ...]:
        """The endpoints with dead letters: of one AE, or all."""
        return tuple(endpoint for endpoint in self._batches if receiving_ae in (None, endpoint.receiving_ae))

    # --- adding ---

    async def add(self, endpoint: Endpoint, letters: Sequence[Waiting], reason: str) -> None:
        """Store dead letters; only after that may the endpoint continue behind them. Raises StoreUnavailable."""
        batch = Batch(endpoint, tuple(letters), reason, self._clock.now())
        key = keys.dead_letters(endpoint.receiving_ae, endpoint.channel, sequence_of(letters[0]))
        async with self._writing:
            entry = StoredEntry(self._entries, key)
            await entry.write(lambda stored: encode_batch(_merged(batch, stored), 1))
            self._add_batch(batch, entry)
            await self._keep_within_limit(endpoint)

    async def _keep_within_limit(self, endpoint: Endpoint) -> None:
        batches = self._batches[endpoint]
        while self.count(endpoint) > self._maximum and len(batches) > 1:
            oldest = next(iter(batches))
            await batches[oldest].entry.remove()
            self._lose(endpoint, batches.pop(oldest))

    def _lose(self, endpoint: Endpoint, stored_batch: _StoredBatch) -> None:
        for kind in stored_batch.kinds.values():
            self._counts.of(endpoint.channel).lost[kind] += 1
        if endpoint not in self._losing:
            self._losing.add(endpoint)
            _log.error("%s has %d dead letters; the oldest are given up", endpoint, self._maximum)

    # --- striking out ---

    async def strike(self, endpoint: Endpoint, sequences: Collection[int]) -> int:
        """Remove dead letters (they were sent, or an operator drops them); return how many there were.

        Raises StoreUnavailable; then some may be left.
        """
        struck = 0
        async with self._writing:
            for first, stored_batch in list(self._batches.get(endpoint, {}).items()):
                gone = stored_batch.kinds.keys() & sequences
                if gone:
                    await self._strike_from(endpoint, first, stored_batch, gone)
                    struck += len(gone)
            if not self._batches.get(endpoint):
                self._batches.pop(endpoint, None)
        return struck

    async def _strike_from(
        self, endpoint: Endpoint, first: int, stored_batch: _StoredBatch, gone: Collection[int]
    ) -> None:
        if len(gone) == len(stored_batch.kinds):
            await stored_batch.entry.remove()
            self._batches[endpoint].pop(first, None)
            return
        batch = decode_batch(stored_batch.entry.document)
        left = tuple(letter for letter in batch.letters if sequence_of(letter) not in gone)
        stored_batch.revision += 1
        await stored_batch.entry.write(
            lambda _: encode_batch(replace(batch, letters=left), stored_batch.revision)
        )
        stored_batch.kinds = {
            sequence: kind for sequence, kind in stored_batch.kinds.items() if sequence not in gone
        }

    # --- reading ---

    def stored(self) -> Iterator[Entry]:
        """Every entry of dead letters as it stands in the store."""
        for endpoint in self.endpoints():
            yield from (
                stored_batch.entry.stored
                for stored_batch in self._batches[endpoint].values()
                if stored_batch.entry.stored
            )

    def batches(self, endpoint: Endpoint) -> Iterator[Batch]:
        """The dead letters of an endpoint, oldest first, without those removed meanwhile."""
        for stored_batch in list(self._batches.get(endpoint, {}).values()):
            batch = decode_batch(stored_batch.entry.document)
            letters = tuple(letter for letter in batch.letters if sequence_of(letter) in stored_batch.kinds)
            yield replace(batch, letters=letters)

    def listed(self, receiving_ae: str, offset: int, limit: int) -> list[DeadLetter]:
        """One page of an AE's dead letters, by endpoint and age."""
        page: list[DeadLetter] = []
        for stored_batch in self._batches_of(receiving_ae):
            if offset >= len(stored_batch.kinds):
                offset -= len(stored_batch.kinds)
                continue
            batch = decode_batch(stored_batch.entry.document)
            page += [_listed(batch, letter) for letter in batch.letters[offset:]]
            offset = 0
            if len(page) >= limit:
                break
        return page[:limit]

    def _batches_of(self, receiving_ae: str) -> Iterator[_StoredBatch]:
        for endpoint in self.endpoints(receiving_ae):
            yield from list(self._batches.get(endpoint, {}).values())


def sequence_of(letter: Waiting) -> int:
    """The name of a dead letter."""
    return letter.sequence if isinstance(letter, Event) else letter.burst.first


def _listed(batch: Batch, letter: Waiting) -> DeadLetter:
    return DeadLetter(
        endpoint=batch.endpoint,
        sequence=sequence_of(letter),
        type=kind_of(letter),
        uid=letter.uid if isinstance(letter, Event) else tags.GLOBAL_SUBSCRIPTION,
        at=made_at(letter),
        died_at=batch.at,
        reason=batch.reason,
        count=1 if isinstance(letter, Event) else letter.remaining,
    )


def _merged(batch: Batch, stored: bytes | None) -> Batch:
    """A batch merged with an existing entry of its name (left by a write whose answer was lost, or by a repeat)."""
    if stored is None:
        return batch
    try:
        older = decode_batch(stored)
    except UnreadableDocument:
        return batch
    letters = {sequence_of(letter): letter for letter in (*older.letters, *batch.letters)}
    return replace(batch, letters=tuple(letters[name] for name in sorted(letters)))
