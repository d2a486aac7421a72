# SPDX-License-Identifier: AGPL-3.0-or-later
"""What an AE was, or should have been, told: the event log, what waits, and bursts, as one ordered stream."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from operator import attrgetter

from ..core.events import Event
from .line import BurstAt
from .port import Burst, BurstSource, EventLog
from .repeats import next_reports

_PAGE = 500
_sequence = attrgetter("sequence")


@dataclass(frozen=True, slots=True)
class Span:
    """A part of an AE's stream.

    Attributes:
        after, through: sequences behind ``after`` up to ``through``.
        waiting: events not delivered yet, by sequence; the log may have lost them.
        bursts: the AE's bursts, by sequence; their reports are made anew.
    """

    receiving_ae: str
    after: int
    through: int
    waiting: Sequence[Event] = ()
    bursts: Sequence[Burst] = ()


class Replay:
    """Reads spans. Sequences of a burst are its own, so its reports stand between stored events."""

    def __init__(self, log: EventLog, source: BurstSource) -> None:
        self._log = log
        self._source = source

    async def read(self, span: Span) -> AsyncIterator[list[Event]]:
        """The events of a span in chunks, in order, each once."""
        position = span.after
        while position < span.through:
            burst = next((candidate for candidate in span.bursts if candidate.last > position), None)
            if burst is not None and burst.first <= position:
                events, position = await self._made(burst, position, span.through)
            else:
                bound = min(burst.first, span.through) if burst else span.through
                events, position = await self._stored(span, position, bound)
            if events:
                yield events

    async def _made(self, burst: Burst, position: int, through: int) -> tuple[list[Event], int]:
        reports = await next_reports(self._source, BurstAt(burst, position), _PAGE)
        if not reports:
            return [], burst.last
        return [event for event in reports if event.sequence <= through], reports[-1].sequence

    async def _stored(self, span: Span, position: int, bound: int) -> tuple[list[Event], int]:
        page = await self._log.events(position, _PAGE)
        if len(page) == _PAGE:
            bound = min(bound, page[-1].sequence)
        logged = (event for event in page if event.sequence <= bound and span.receiving_ae in event.receivers)
        first = bisect_right(span.waiting, position, key=_sequence)
        last = bisect_right(span.waiting, bound, key=_sequence)
        by_sequence = {event.sequence: event for event in (*span.waiting[first:last], *logged)}
        return [by_sequence[sequence] for sequence in sorted(by_sequence)], bound
