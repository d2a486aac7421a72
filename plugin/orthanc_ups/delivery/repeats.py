# SPDX-License-Identifier: AGPL-3.0-or-later
"""Events that are sent again, or once, on demand: outside the order, and forgotten by a crash."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Final, Protocol

from ..core.events import Event
from .dead_letters import DeadLetters, sequence_of
from .line import BurstAt
from .port import BurstSource, Endpoint

_PAGE: Final = 100


class Repeat(Protocol):
    """A run of events for one endpoint."""

    async def next(self) -> Sequence[Event]:
        """What is to be sent now, the same until it is passed; nothing at the end."""
        ...

    async def passed(self, count: int, *, delivered: bool) -> None:
        """The first ``count`` of ``next()`` are done with: delivered, or refused for good."""
        ...


class Run:
    """A Repeat over chunks of events that are made as they are needed."""

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


class Resurrection(Run):
    """Dead letters that are sent again; each is struck out once it is delivered."""

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
        self._wanted = sequences

    async def _letters(self) -> AsyncIterator[Sequence[Event]]:
        for batch in self._dead.batches(self._endpoint):
            letters = [
                letter
                for letter in batch.letters
                if self._wanted is None or sequence_of(letter) in self._wanted
            ]
            events = [letter for letter in letters if isinstance(letter, Event)]
            if events:
                yield events
            for at in [letter for letter in letters if isinstance(letter, BurstAt)]:
                async for reports in expanded(self._source, at):
                    yield reports
                await self._dead.strike(self._endpoint, {at.burst.first})

    async def passed(self, count: int, *, delivered: bool) -> None:
        """See Repeat. May raise StoreUnavailable: then a delivered letter is still listed."""
        done = {event.sequence for event in self._now[:count]}
        await super().passed(count, delivered=delivered)
        if delivered:
            await self._dead.strike(self._endpoint, done)


async def expanded(source: BurstSource, at: BurstAt) -> AsyncIterator[Sequence[Event]]:
    """The reports of a burst from where it is."""
    after = at.after
    while reports := await next_reports(source, BurstAt(at.burst, after), _PAGE):
        after = reports[-1].sequence
        yield reports


async def next_reports(source: BurstSource, at: BurstAt, limit: int) -> list[Event]:
    """The next reports of a burst; what the source should not have given is left out."""
    if at.remaining <= 0:
        return []
    reports = await source.burst(at.burst, at.after, limit)
    return [event for event in reports if at.after < event.sequence <= at.burst.last]
