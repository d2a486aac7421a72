# SPDX-License-Identifier: AGPL-3.0-or-later
"""Resending events: to an AE that requests what it missed, or because an operator asked for it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Final, Protocol

from ..core.events import Event
from .dead_letters import DeadLetters
from .port import Burst, BurstSource, Endpoint, EventLog
from .queue import BurstAt, sequence_of

_PAGE: Final = 100


class Repeat(Protocol):
    """Events to be resent to an endpoint."""

    async def next(self) -> Sequence[Event]:
        """The next events to send, the same until ``passed`` is called; none at the end."""
        ...

    async def passed(self, count: int, *, delivered: bool) -> None:
        """Continue after the first ``count`` events of ``next()``, which were delivered or refused."""
        ...


class Run:
    """A Repeat of chunks of events that are produced as needed."""

    def __init__(self, chunks: AsyncIterator[Sequence[Event]]) -> None:
        self._chunks = chunks
        self._now: Sequence[Event] = ()

    async def next(self) -> Sequence[Event]:
        """See Repeat."""
        while not self._now:
            try:
                self._now = await anext(self._chunks)
            except StopAsyncIteration:
                return ()
        return self._now

    async def passed(self, count: int, *, delivered: bool) -> None:
        """See Repeat."""
        self._now = self._now[count:]


class Once(Run):
    """A Repeat of one event."""

    def __init__(self, event: Event) -> None:
        super().__init__(_single(event))


async def _single(event: Event) -> AsyncIterator[Sequence[Event]]:
    yield (event,)


class DeadLetterRun(Run):
    """A Repeat of dead letters; each is removed once it is delivered."""

    def __init__(
        self,
        dead: DeadLetters,
        source: BurstSource,
        endpoint: Endpoint,
        sequences: Collection[int] | None,
    ) -> None:
        super().__init__(self._letters())
        self._dead = dead
        self._source = source
        self._endpoint = endpoint
        self._sequences = sequences

    async def _letters(self) -> AsyncIterator[Sequence[Event]]:
        for batch in self._dead.batches(self._endpoint):
            letters = [
                letter
                for letter in batch.letters
                if self._sequences is None or sequence_of(letter) in self._sequences
            ]
            events = [letter for letter in letters if isinstance(letter, Event)]
            if events:
                yield events
            for at in [letter for letter in letters if isinstance(letter, BurstAt)]:
                async for reports in expanded(self._source, at):
                    yield reports
                await self._dead.remove(self._endpoint, {at.burst.first})

    async def passed(self, count: int, *, delivered: bool) -> None:
        """See Repeat. Raises StoreUnavailable; delivered letters may then still be listed."""
        sequences = {event.sequence for event in self._now[:count]}
        await super().passed(count, delivered=delivered)
        if delivered:
            await self._dead.remove(self._endpoint, sequences)


async def expanded(source: BurstSource, at: BurstAt) -> AsyncIterator[Sequence[Event]]:
    """The remaining reports of a burst, in chunks."""
    after = at.after
    while reports := await next_reports(source, BurstAt(at.burst, after), _PAGE):
        after = reports[-1].sequence
        yield reports


async def next_reports(source: BurstSource, at: BurstAt, limit: int) -> list[Event]:
    """The next reports of a burst, without any that are outside its range of sequences."""
    if at.remaining <= 0:
        return []
    reports = await source.burst(at.burst, at.after, limit)
    return [event for event in reports if at.after < event.sequence <= at.burst.last]


_EVENTS_AT_ONCE = 500
_sequence = attrgetter("sequence")


@dataclass(frozen=True, slots=True)
class Span:
    """A part of the stream of events to an AE.

    Attributes:
        after, through: the sequences greater than ``after`` up to ``through``.
        waiting: events not delivered yet, by sequence; they may be missing from the log.
        bursts: the AE's bursts, by sequence; their reports are made again.
    """

    receiving_ae: str
    after: int
    through: int
    waiting: Sequence[Event] = ()
    bursts: Sequence[Burst] = ()


class Replay:
    """Reads spans. No event has a sequence of a burst, so a burst's reports come between stored events."""

    def __init__(self, log: EventLog, source: BurstSource) -> None:
        self._log = log
        self._source = source

    async def read(self, span: Span) -> AsyncIterator[list[Event]]:
        """The events of a span in chunks, by sequence, each once."""
        position = span.after
        while position < span.through:
            burst = next((candidate for candidate in span.bursts if candidate.last > position), None)
            if burst is not None and burst.first <= position:
                events, position = await self._reports(burst, position, span.through)
            else:
                bound = min(burst.first, span.through) if burst else span.through
                events, position = await self._stored(span, position, bound)
            if events:
                yield events

    async def _reports(self, burst: Burst, position: int, through: int) -> tuple[list[Event], int]:
        reports = await next_reports(self._source, BurstAt(burst, position), _EVENTS_AT_ONCE)
        if not reports:
            return [], burst.last
        return [event for event in reports if event.sequence <= through], reports[-1].sequence

    async def _stored(self, span: Span, position: int, bound: int) -> tuple[list[Event], int]:
        page = await self._log.events(position, _EVENTS_AT_ONCE)
        if len(page) == _EVENTS_AT_ONCE:
            bound = min(bound, page[-1].sequence)
        logged = (event for event in page if event.sequence <= bound and span.receiving_ae in event.receivers)
        first = bisect_right(span.waiting, position, key=_sequence)
        last = bisect_right(span.waiting, bound, key=_sequence)
        by_sequence = {event.sequence: event for event in (*span.waiting[first:last], *logged)}
        return [by_sequence[sequence] for sequence in sorted(by_sequence)], bound
