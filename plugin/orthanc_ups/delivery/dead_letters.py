# SPDX-License-Identifier: AGPL-3.0-or-later
"""Events that could not be delivered: stored and listed, so that an operator can resend them."""

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
from .queue import Waiting, committed_at, kind_of, sequence_of
from .tally import DeliveryCounts

BATCH: Final = 100

_log = logging.getLogger("orthanc_ups.delivery")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter in a list.

    Attributes:
        sequence: identifies it in ``DeliveryManagement.drop_dead`` and ``resend_dead``.
        uid: the workitem; the Global Subscription for initial State Reports that were never made.
        at: when the event was committed, in seconds since the epoch.
        died_at: when it was given up, in seconds since the epoch.
        reason: why, as text.
        count: 1; for initial State Reports that were never made, their greatest possible number.
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
    """The dead letters of each endpoint, stored in entries of up to 100.

    At most ``maximum`` are kept per endpoint (or a single entry); beyond that the oldest entries are deleted and
    their events counted as lost.
    """

    def __init__(self, entries: Entries, clock: Clock, counts: DeliveryCounts, maximum: int) -> None:
        self._entries = entries
        self._clock = clock
        self._counts = counts
        self._maximum = maximum
        self._batches: dict[Endpoint, dict[int, _StoredBatch]] = {}
        self._writing = asyncio.Lock()
        self._overflowing: set[Endpoint] = set()

    def load(self, entry: Entry) -> None:
        """Load a stored entry. Raises UnreadableDocument."""
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

    # --- numbers and counts, from memory ---

    def sequences(self, endpoint: Endpoint) -> frozenset[int]:
        """The sequences that name the dead letters of an endpoint."""
        batches = self._batches.get(endpoint, {}).values()
        return frozenset(sequence for stored_batch in batches for sequence in stored_batch.kinds)

    def count(self, endpoint: Endpoint) -> int:
        """The number of dead letters of an endpoint."""
        return sum(len(stored_batch.kinds) for stored_batch in self._batches.get(endpoint, {}).values())

    def endpoints(self, receiving_ae: str | None = None) -> tuple[Endpoint, ...]:
        """The endpoints with dead letters, of one AE or all."""
        return tuple(endpoint for endpoint in self._batches if receiving_ae in (None, endpoint.receiving_ae))

    # --- adding ---

    async def add(self, endpoint: Endpoint, letters: Sequence[Waiting], reason: str) -> None:
        """Store dead letters; the endpoint may pass them only afterwards. Raises StoreUnavailable."""
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
            self._count_lost(endpoint, batches.pop(oldest))

    def _count_lost(self, endpoint: Endpoint, stored_batch: _StoredBatch) -> None:
        for kind in stored_batch.kinds.values():
            self._counts.of(endpoint.channel).lost[kind] += 1
        if endpoint not in self._overflowing:
            self._overflowing.add(endpoint)
            _log.error("%s has %d dead letters; the oldest are deleted", endpoint, self._maximum)

    # --- removing ---

    async def remove(self, endpoint: Endpoint, sequences: Collection[int]) -> int:
        """Remove dead letters that were delivered or that an operator drops; return how many there were.

        Raises StoreUnavailable; some may have been removed by then.
        """
        count = 0
        async with self._writing:
            for first, stored_batch in list(self._batches.get(endpoint, {}).items()):
                removed = stored_batch.kinds.keys() & sequences
                if removed:
                    await self._remove_from(endpoint, first, stored_batch, removed)
                    count += len(removed)
            if not self._batches.get(endpoint):
                self._batches.pop(endpoint, None)
        return count

    async def _remove_from(
        self, endpoint: Endpoint, first: int, stored_batch: _StoredBatch, sequences: Collection[int]
    ) -> None:
        if len(sequences) == len(stored_batch.kinds):
            await stored_batch.entry.remove()
            self._batches[endpoint].pop(first, None)
            return
        batch = decode_batch(stored_batch.entry.document)
        remaining = tuple(letter for letter in batch.letters if sequence_of(letter) not in sequences)
        stored_batch.revision += 1
        await stored_batch.entry.write(
            lambda _: encode_batch(replace(batch, letters=remaining), stored_batch.revision)
        )
        stored_batch.kinds = {
            sequence: kind for sequence, kind in stored_batch.kinds.items() if sequence not in sequences
        }

    # --- reading ---

    def stored(self) -> Iterator[Entry]:
        """Every entry of dead letters as stored."""
        for endpoint in self.endpoints():
            yield from (
                stored_batch.entry.stored
                for stored_batch in self._batches[endpoint].values()
                if stored_batch.entry.stored
            )

    def batches(self, endpoint: Endpoint) -> Iterator[Batch]:
        """The dead letters of an endpoint, oldest first, without any removed during the iteration."""
        for stored_batch in list(self._batches.get(endpoint, {}).values()):
            batch = decode_batch(stored_batch.entry.document)
            letters = tuple(letter for letter in batch.letters if sequence_of(letter) in stored_batch.kinds)
            yield replace(batch, letters=letters)

    def listed(self, receiving_ae: str, offset: int, limit: int) -> list[DeadLetter]:
        """A page of an AE's dead letters, by endpoint, oldest first."""
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


def _listed(batch: Batch, letter: Waiting) -> DeadLetter:
    return DeadLetter(
        endpoint=batch.endpoint,
        sequence=sequence_of(letter),
        type=kind_of(letter),
        uid=letter.uid if isinstance(letter, Event) else tags.GLOBAL_SUBSCRIPTION,
        at=committed_at(letter),
        died_at=batch.at,
        reason=batch.reason,
        count=1 if isinstance(letter, Event) else letter.remaining,
    )


def _merged(batch: Batch, stored: bytes | None) -> Batch:
    """A batch merged with an entry of the same key, left by a repeat or by a write whose answer was lost."""
    if stored is None:
        return batch
    try:
        older = decode_batch(stored)
    except UnreadableDocument:
        return batch
    letters = {sequence_of(letter): letter for letter in (*older.letters, *batch.letters)}
    return replace(batch, letters=tuple(letters[name] for name in sorted(letters)))
