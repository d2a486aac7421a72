# SPDX-License-Identifier: AGPL-3.0-or-later
"""The worker of one endpoint: sends one AE, on one channel, the events that wait for it, in order.

Beside it ``Backoff``: the pauses between its attempts.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from ..core.events import Event
from ..settings import Settings
from ..store.port import StoreUnavailable
from .dead_letters import BATCH, DeadLetters
from .port import WEBSOCKET, BurstSource, Channel, Clock, Endpoint, OnDelivered, Refused, Unreachable
from .queue import BurstAt, EventQueue, Waiting, is_transient, kind_of
from .replay import Repeat, next_reports
from .tally import DeliveryCounts, Tally


@dataclass(slots=True)
class DeliveryState:
    """What the workers of all endpoints share; ``observers`` are called for each delivered event."""

    settings: Settings
    clock: Clock
    source: BurstSource
    dead: DeadLetters
    counts: DeliveryCounts
    observers: list[OnDelivered] = field(default_factory=list)


SOONEST: Final = 0.2
"""Seconds between two attempts, however often the AE is seen."""


class Backoff:
    """Exponential pauses between failed attempts, each shortened by up to a half at random (jitter)."""

    __slots__ = ("_attempted", "_clock", "_pause", "_seen", "_settings", "_until")

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._pause = 0.0
        self._until = 0.0
        self._attempted = float("-inf")
        self._seen = False

    @property
    def failing(self) -> bool:
        """True since an attempt failed, until one succeeds."""
        return self._pause > 0

    @property
    def left(self) -> float:
        """Seconds until the next attempt; 0 if it may be made now."""
        return max(0.0, self._until - self._clock.monotonic()) if self._pause else 0.0

    def attempt(self) -> None:
        """Note that an attempt begins."""
        self._attempted = self._clock.monotonic()
        self._seen = False

    def failed(self) -> float:
        """The attempt failed; return the seconds until the next (few if the receiver was seen meanwhile)."""
        settings = self._settings
        longer = self._pause * settings.retry_factor if self._pause else settings.retry_first
        self._pause = max(min(longer, settings.retry_maximum), 0.001)
        wait = self._pause * (1 - self._clock.random() / 2)
        if self._seen:
            wait = min(wait, SOONEST)
        self._seen = False
        self._until = self._clock.monotonic() + wait
        return wait

    def succeeded(self) -> None:
        """Note that an attempt succeeded."""
        self._pause = 0.0

    def hurry(self, *, now: bool = False) -> None:
        """The receiver was seen: try at once, but (unless ``now``) not more often than every 0.2 s."""
        self._seen = True
        self._until = self._clock.monotonic() if now else min(self._until, self._attempted + SOONEST)


_log = logging.getLogger("orthanc_ups.delivery")


def in_words(seconds: float) -> str:
    """A duration in words."""
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} seconds"


AT_ONCE: Final = 50
"""Events handed to a channel in one call."""
_REPORTS: Final = 200
_ERRORS: Final = 5


class Worker:
    """Owns the queue of an endpoint and empties it: by delivery, or by giving events up.

    An event that is given up is stored as a dead letter before the queue lets go of it. The worker's task lives only
    while something waits.

    Attributes:
        durable: True if what waits here must reach the AE here, or become a dead letter; False for an
            additional WebSocket, whose queue is dropped when the last socket closes.
        dropped: sequences that an operator dropped and that the cursor has not passed.
    """

    __slots__ = (
        "_counts",
        "_finishing",
        "_internal_errors",
        "_losing",
        "_moved",
        "_nap",
        "_offered",
        "_repeats",
        "_state",
        "_storing_fails",
        "_task",
        "_unserved",
        "backoff",
        "channel",
        "dropped",
        "durable",
        "endpoint",
        "queue",
        "tally",
    )

    def __init__(
        self,
        endpoint: Endpoint,
        channel: Channel,
        state: DeliveryState,
        moved: Callable[[], None],
        unserved: Callable[[], None],
    ) -> None:
        """Args:
        moved: called when the cursor or a count moved.
        unserved: called when the channel turns out not to serve the AE; may clear the queue.
        """
        self.endpoint = endpoint
        self.channel = channel
        self.queue = EventQueue(state.settings.replace_waiting_progress)
        self.tally = Tally()
        self.backoff = Backoff(state.settings, state.clock)
        self.durable = False
        self.dropped: set[int] = set()
        self._state = state
        self._counts = state.counts.of(endpoint.channel)
        self._moved = moved
        self._unserved = unserved
        self._repeats: deque[Repeat] = deque()
        self._task: asyncio.Task[None] | None = None
        self._nap: asyncio.Future[None] | None = None
        self._internal_errors = 0
        self._losing = False
        self._storing_fails = False
        self._offered = 0
        self._finishing = False

    # --- filling ---

    def add(self, item: Waiting) -> None:
        """Something new, with a greater sequence than all before."""
        replaced = self.queue.add(item)
        if replaced is not None:
            self._counts.replaced[replaced.type] += 1
        if isinstance(item, Event):
            self._counts.offered[item.type] += 1
            self._offered = item.sequence
        if self._task is None:
            self.start()
        elif self._nap is not None and self._is_over_limit:
            self.wake()

    def repeat(self, run: Repeat) -> None:
        """Send something again, ahead of what is waiting."""
        self._repeats.append(run)
        self.start()

    def adopt(self, items: Iterable[Waiting]) -> None:
        """Take over what waited on a channel that no longer serves the AE."""
        self.queue.merge(items)
        self.start()

    # --- running ---

    @property
    def is_idle(self) -> bool:
        """True if there is nothing to do."""
        return not self._repeats and (not self.queue or self.queue.held is not None)

    def start(self) -> None:
        """Start the task, if there is anything to do and none runs."""
        if self._task is None and not self.is_idle and not self._finishing:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def hurry(self, *, now: bool = False) -> None:
        """The AE was seen: try at once."""
        if not self.is_idle:
            self.backoff.hurry(now=now)
            self.wake()

    def wake(self) -> None:
        """End the pause."""
        if self._nap is not None:
            self._nap.cancel()

    async def finish(self, patience: float) -> None:
        """Go on for at most ``patience`` seconds; then end the task once what is in flight has landed."""
        if self._task is not None:
            limit = asyncio.ensure_future(self._state.clock.sleep(patience))
            await asyncio.wait((self._task, limit), return_when=asyncio.FIRST_COMPLETED)
            limit.cancel()
        self._finishing = True
        self.wake()
        if self._task is not None:
            await asyncio.wait((self._task,))

    async def stop(self) -> None:
        """End the task now; waiting events stay in the queue."""
        self._finishing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    def drop(self, sequences: Collection[int] | None) -> int:
        """Remove waiting events, all or some; return how many."""
        if sequences is None:
            dropped, gone = self.queue.pending, [item for item in self.queue if isinstance(item, Event)]
            self.queue.clear()
        else:
            gone = self.queue.remove(sequences)
            self.dropped.update(event.sequence for event in gone)
            dropped = len(gone)
        for event in gone:
            self._counts.dropped[event.type] += 1
        self._moved()
        self.wake()
        return dropped

    def settled_through(self, high_water: int) -> int:
        """The sequence up to which this endpoint has everything.

        If nothing waits, that is ``high_water``, up to which everybody was offered everything, or what this
        endpoint was offered beyond.
        """
        through = self.queue.settled_through()
        return max(high_water, self._offered) if through is None else through

    async def _run(self) -> None:
        try:
            while True:
                await self._step()
                if self.is_idle or self._finishing:
                    return
                await asyncio.sleep(0)  # a channel that never waits must not hold up the loop
        finally:
            self._task = None
            self.queue.landed()

    async def _step(self) -> None:
        """Do one thing: give up what is due, wait, or make one attempt.

        What waited too long, or is too much, becomes dead letters first. While a pause after a failure lasts,
        the worker sleeps; it is woken if the AE shows itself (``hurry``). Else it hands up to ``AT_ONCE``
        events to the channel, repeats that an operator asked for first, and strikes out what was taken. Every
        failure ends here and makes the pause longer; nothing of it reaches another worker.

        Example: ten events wait and the AE is switched off. The attempt raises Unreachable, the next step
        sleeps a second; then the AE opens an association, ``hurry`` ends the sleep, and the next step delivers
        all ten.
        """
        try:
            if self.durable and (self.backoff.failing or self._is_over_limit):
                await self._give_up_what_is_due()
            if self.backoff.left > 0:
                await self._take_a_nap()
            elif not self.is_idle:
                await self._attempt()
        except Unreachable as error:
            self._failed(str(error))
        except StoreUnavailable as error:
            self._failed(f"dead letters cannot be stored: {error}")
        except Exception as error:  # whatever a channel does wrong, the others and the events live on
            trace = error if self._internal_errors <= 1 else None
            _log.error("Notifying %s failed: internal error: %r", self.endpoint, error, exc_info=trace)
            self._failed(f"internal error: {error!r}")
        finally:
            self.queue.landed()

    async def _take_a_nap(self) -> None:
        self._nap = asyncio.ensure_future(self._state.clock.sleep(self.backoff.left))
        try:
            await asyncio.wait((self._nap,))
        finally:
            self._nap.cancel()
            self._nap = None

    # --- attempts ---

    async def _attempt(self) -> None:
        if not self.channel.serves(self.endpoint.receiving_ae):
            self._not_served()
            return
        repeat = await self._next_repeat() if self._repeats else None
        limit = 1 if self._internal_errors else AT_ONCE
        if repeat is not None:
            batch = (await repeat.next())[:limit]
        else:
            if self.queue.bursts:
                await self._expand()
            batch = self.queue.take(limit)
        if batch:
            await self._tell(repeat, batch)

    async def _tell(self, repeat: Repeat | None, batch: Sequence[Event]) -> None:
        self.backoff.attempt()
        try:
            taken = await self.channel.deliver(self.endpoint.receiving_ae, batch)
            if taken < 1:
                raise Unreachable("the channel took nothing")
        except Refused as error:
            await self._refused(repeat, batch[0], str(error))
        except Exception as error:
            self._failed_attempt(batch[0])
            if not isinstance(error, Unreachable):
                await self._broke(repeat, batch[0], error)
            raise
        else:
            self._took(batch[:taken])
            if repeat is not None:
                await self._repeated(repeat, batch[:taken])

    def _not_served(self) -> None:
        """Raises Unreachable, unless there is nothing to do any more."""
        self._unserved()
        if not self.durable:
            self._repeats.clear()
        if not self.is_idle:
            where = "no WebSocket is open" if self.endpoint.channel == WEBSOCKET else "it has no address now"
            raise Unreachable(where)

    async def _next_repeat(self) -> Repeat | None:
        """The first repeat that still has events."""
        while self._repeats:
            repeat = self._repeats[0]
            if await self._has_more(repeat):
                return repeat
            if self._repeats and self._repeats[0] is repeat:
                self._repeats.popleft()
        return None

    async def _has_more(self, repeat: Repeat) -> bool:
        try:
            return bool(await repeat.next())
        except Exception as error:  # what cannot be read cannot be sent again, but holds up nothing
            _log.error("Resending events to %s ended early: %r", self.endpoint, error)
            return False

    async def _expand(self) -> None:
        head = self.queue.head
        if isinstance(head, BurstAt):
            self.queue.expand(head, await next_reports(self._state.source, head, _REPORTS))

    async def _repeated(self, repeat: Repeat, events: Sequence[Event]) -> None:
        for event in events:
            self._counts.repeated[event.type] += 1
        await repeat.passed(len(events), delivered=True)

    def _took(self, events: Sequence[Event]) -> None:
        now = self._state.clock.now()
        for event in events:
            latency = max(0.0, now - event.at)
            self.tally.took(now, latency)
            self._counts.delivered[event.type] += 1
            if self._state.observers:
                self._observed(event, latency)
        self.queue.strike(events)
        self.queue.landed()
        self._moved()
        if self.backoff.failing:
            _log.info("%s is told again; waiting events: %d", self.endpoint, self.queue.pending)
            self.backoff.succeeded()
        self._losing = False
        self._internal_errors = 0

    def _observed(self, event: Event, latency: float) -> None:
        for observer in self._state.observers:
            try:
                observer(self.endpoint, event, latency)
            except Exception:
                _log.exception("An observer of deliveries failed")

    # --- failures ---

    def _failed_attempt(self, event: Event) -> None:
        self.tally.failed += 1
        self._counts.failed[event.type] += 1

    def _failed(self, why: str) -> None:
        first = not self.backoff.failing
        pause = self.backoff.failed()
        self.tally.failed_at(self._state.clock.now(), why)
        self._moved()
        level = logging.WARNING if first and self.channel.name != WEBSOCKET else logging.DEBUG
        waiting = self.queue.pending
        _log.log(level, "%s: %s; waiting events: %d, next try in %.1f s", self.endpoint, why, waiting, pause)

    async def _refused(self, repeat: Repeat | None, event: Event, why: str) -> None:
        self._failed_attempt(event)
        self.tally.failed_at(self._state.clock.now(), why)
        await self._skip(repeat, event, f"refused: {why}")
        self.backoff.succeeded()

    async def _broke(self, repeat: Repeat | None, event: Event, error: Exception) -> None:
        """An internal error: send events one at a time; an event that fails again and again must not block the rest."""
        self._internal_errors += 1
        if self._internal_errors > _ERRORS:
            await self._skip(repeat, event, f"it cannot be sent: {error!r}")
            self._internal_errors = 1

    async def _skip(self, repeat: Repeat | None, event: Event, why: str) -> None:
        """Go on behind an event: of a repeat it is left where it was, of the queue it becomes a dead letter."""
        if repeat is not None:
            await repeat.passed(1, delivered=False)
        else:
            await self._give_up([event], why)

    # --- giving up ---

    @property
    def _is_over_limit(self) -> bool:
        """True if more events wait than ``MaximumPendingPerSubscriber``."""
        return len(self.queue) > self._state.settings.maximum_pending_per_subscriber

    async def _give_up_what_is_due(self) -> None:
        """Give up what waited longer than ``DeadLetterAfter``, and the oldest of what is over the limit.

        Over the limit, a tenth of the limit goes at once (at most 100 events), to spare writes. While the store takes
        nothing, everything stays in the queue.

        Example: with a limit of 1,000 the 1,001st event makes the oldest 100 dead letters in one write; the next write
        comes 100 events later.
        """
        settings = self._state.settings
        moment = self._state.clock.now() - settings.dead_letter_after
        maximum = settings.maximum_pending_per_subscriber
        try:
            while settings.dead_letter_after and (old := self.queue.older_than(moment, BATCH)):
                await self._give_up(old, f"not delivered within {in_words(settings.dead_letter_after)}")
            while self._is_over_limit:
                oldest = self.queue.oldest(min(BATCH, max(1, maximum // 10)))
                await self._give_up(oldest, f"more than {maximum} events waited")
        except StoreUnavailable as error:
            if not self._storing_fails:
                _log.error(
                    "Dead letters of %s cannot be stored yet and stay in the queue: %s", self.endpoint, error
                )
            self._storing_fails = True
        else:
            self._storing_fails = False

    async def _give_up(self, items: Sequence[Waiting], reason: str) -> None:
        """Turn events of the queue into dead letters, except SCP Status Changes, which a later one makes worthless.

        Raises StoreUnavailable; then they stay in the queue.
        """
        lasting = [item for item in items if not is_transient(item)]
        if lasting:
            await self._state.dead.add(self.endpoint, lasting, reason)
            if not self._losing:  # once until it takes events again
                self._losing = True
                _log.error("Events for %s go to the dead letters: %s", self.endpoint, reason)
        self.queue.strike(items)
        for item in items:
            (self._counts.lost if is_transient(item) else self._counts.dead)[kind_of(item)] += 1
        self.tally.dead += len(lasting)
        self._moved()
