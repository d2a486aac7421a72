# SPDX-License-Identifier: AGPL-3.0-or-later
"""The worker of an endpoint, which sends waiting events in order."""

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
from .backoff import Backoff
from .dead_letters import BATCH, DeadLetters
from .port import WEBSOCKET, BurstSource, Channel, Clock, Endpoint, OnDelivered, Refused, Unreachable
from .queue import BurstAt, EventQueue, Waiting, is_transient, kind_of
from .replay import Repeat, next_reports
from .tally import DeliveryCounts, Tally

_log = logging.getLogger("orthanc_ups.delivery")
AT_ONCE: Final = 50
"""The greatest number of events passed to a channel in one call."""
_REPORTS_AT_ONCE: Final = 200
_MOST_INTERNAL_ERRORS: Final = 5


@dataclass(slots=True)
class DeliveryState:
    """What all workers share; ``observers`` are called for each delivered event."""

    settings: Settings
    clock: Clock
    source: BurstSource
    dead: DeadLetters
    counts: DeliveryCounts
    observers: list[OnDelivered] = field(default_factory=list)


def in_words(seconds: float) -> str:
    """A duration as text."""
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} seconds"


class Worker:
    """Owns the queue of an endpoint and empties it, by delivering events or by giving them up.

    An event that is given up is stored as a dead letter before it leaves the queue. The worker's task exists only
    while something waits.

    Attributes:
        durable: True if waiting events must be delivered or become dead letters; False for the WebSocket of an AE
            with another channel, whose queue is dropped when the last socket closes.
        dropped: sequences that an operator dropped and that the cursor has not passed yet.
    """

    __slots__ = (
        "_counts",
        "_finishing",
        "_giving_up",
        "_internal_errors",
        "_moved",
        "_offered",
        "_pause",
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
        unserved: Callable[[], object],
    ) -> None:
        """Args:
        moved: called when the cursor or a count moved.
        unserved: called when the channel does not serve the AE any more; may clear the queue.
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
        self._pause: asyncio.Future[None] | None = None
        self._internal_errors = 0
        self._giving_up = False
        self._storing_fails = False
        self._offered = 0
        self._finishing = False

    # --- filling ---

    def add(self, item: Waiting) -> None:
        """Queue an item whose sequence is greater than all before."""
        replaced = self.queue.add(item)
        if replaced is not None:
            self._counts.replaced[replaced.type] += 1
        if isinstance(item, Event):
            self._counts.offered[item.type] += 1
            self._offered = item.sequence
        if self._task is None:
            self.start()
        elif self._pause is not None and self._is_over_limit:
            self.wake()

    def repeat(self, run: Repeat) -> None:
        """Resend events, before those that wait."""
        self._repeats.append(run)
        self.start()

    def adopt(self, items: Iterable[Waiting]) -> None:
        """Merge in items that waited on a channel without an address now, or in an imported worklist."""
        self.queue.merge(items)
        self.start()

    # --- running ---

    @property
    def is_idle(self) -> bool:
        """True if there is nothing to send now."""
        return not self._repeats and (not self.queue or self.queue.held is not None)

    def start(self) -> None:
        """Start the task, unless it is running or there is nothing to send."""
        if self._task is None and not self.is_idle and not self._finishing:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def hurry(self, *, now: bool = False) -> None:
        """Retry soon, or right ``now``, because the AE seems to be reachable again."""
        if not self.is_idle:
            self.backoff.hurry(now=now)
            self.wake()

    def wake(self) -> None:
        """End the pause between two attempts."""
        if self._pause is not None:
            self._pause.cancel()

    async def finish(self, patience: float) -> None:
        """Continue for at most ``patience`` seconds, then end the task after the attempt that is running."""
        if self._task is not None:
            limit = asyncio.ensure_future(self._state.clock.sleep(patience))
            await asyncio.wait((self._task, limit), return_when=asyncio.FIRST_COMPLETED)
            limit.cancel()
        self._finishing = True
        self.wake()
        if self._task is not None:
            await asyncio.wait((self._task,))

    async def stop(self) -> None:
        """Cancel the task; waiting events stay in the queue."""
        self._finishing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    def drop(self, sequences: Collection[int] | None) -> int:
        """Remove waiting events, all or some; return how many."""
        if sequences is None:
            count, events = self.queue.pending, [item for item in self.queue if isinstance(item, Event)]
            self.queue.clear()
        else:
            events = self.queue.remove(sequences)
            self.dropped.update(event.sequence for event in events)
            count = len(events)
        for event in events:
            self._counts.dropped[event.type] += 1
        self._moved()
        self.wake()
        return count

    def settled_through(self, high_water: int) -> int:
        """The sequence up to which this endpoint has received everything.

        If nothing waits, that is ``high_water``, up to which all events have been queued everywhere, or the last
        event queued here, whichever is greater.
        """
        through = self.queue.settled_through()
        return max(high_water, self._offered) if through is None else through

    async def _run(self) -> None:
        try:
            while True:
                await self._step()
                if self.is_idle or self._finishing:
                    return
                await asyncio.sleep(0)  # a channel that never waits must not block the loop
        finally:
            self._task = None
            self.queue.end_attempt()

    async def _step(self) -> None:
        """Give up events that are due for it, then sleep or make an attempt.

        Events that have waited too long, or are over the limit, become dead letters first. During a pause after a
        failure the worker sleeps, until ``hurry`` wakes it because the AE is back. Otherwise it passes up to
        ``AT_ONCE`` events to the channel, requested repeats first, and removes those that were accepted. Every
        failure is handled here and makes the pause longer; it does not affect other workers.

        Example: ten events wait and the AE is switched off. The attempt raises Unreachable, and the next step
        sleeps about a second. Then the AE opens an association, ``hurry`` ends the sleep, and the next step
        delivers all ten.
        """
        try:
            if self.durable and (self.backoff.failing or self._is_over_limit):
                await self._give_up_what_is_due()
            if self.backoff.remaining > 0:
                await self._sleep()
            elif not self.is_idle:
                await self._attempt()
        except Unreachable as error:
            self._failed(str(error))
        except StoreUnavailable as error:
            self._failed(f"dead letters cannot be stored: {error}")
        except Exception as error:  # a faulty channel must not stop the worker or lose events
            trace = error if self._internal_errors <= 1 else None
            _log.error("Notifying %s failed: internal error: %r", self.endpoint, error, exc_info=trace)
            self._failed(f"internal error: {error!r}")
        finally:
            self.queue.end_attempt()

    async def _sleep(self) -> None:
        self._pause = asyncio.ensure_future(self._state.clock.sleep(self.backoff.remaining))
        try:
            await asyncio.wait((self._pause,))
        finally:
            self._pause.cancel()
            self._pause = None

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
            head = self.queue.head
            if isinstance(head, BurstAt):
                self.queue.expand(head, await next_reports(self._state.source, head, _REPORTS_AT_ONCE))
            batch = self.queue.take(limit)
        if batch:
            await self._deliver(repeat, batch)

    async def _deliver(self, repeat: Repeat | None, batch: Sequence[Event]) -> None:
        self.backoff.attempt()
        try:
            count = await self.channel.deliver(self.endpoint.receiving_ae, batch)
            if count < 1:
                raise Unreachable("the channel accepted nothing")
        except Refused as error:
            await self._refused(repeat, batch[0], str(error))
        except Exception as error:
            self._count_failure(batch[0])
            if not isinstance(error, Unreachable):
                await self._internal_error(repeat, batch[0], error)
            raise
        else:
            self._delivered(batch[:count])
            if repeat is not None:
                for event in batch[:count]:
                    self._counts.repeated[event.type] += 1
                await repeat.passed(count, delivered=True)

    def _not_served(self) -> None:
        """Raise Unreachable, unless there is nothing to send any more."""
        self._unserved()
        if not self.durable:
            self._repeats.clear()
        if not self.is_idle:
            is_websocket = self.endpoint.channel == WEBSOCKET
            raise Unreachable("no WebSocket is open" if is_websocket else "it has no address now")

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
        except Exception as error:  # must not hold up the events that wait
            _log.error("Resending events to %s ended early: %r", self.endpoint, error)
            return False

    def _delivered(self, events: Sequence[Event]) -> None:
        now = self._state.clock.now()
        for event in events:
            latency = max(0.0, now - event.at)
            self.tally.add_delivery(now, latency)
            self._counts.delivered[event.type] += 1
            if self._state.observers:
                self._notify_observers(event, latency)
        self.queue.remove_items(events)
        self.queue.end_attempt()
        self._moved()
        if self.backoff.failing:
            _log.info("%s accepts events again; waiting events: %d", self.endpoint, self.queue.pending)
            self.backoff.succeeded()
        self._giving_up = False
        self._internal_errors = 0

    def _notify_observers(self, event: Event, latency: float) -> None:
        for observer in self._state.observers:
            try:
                observer(self.endpoint, event, latency)
            except Exception:
                _log.exception("An observer of deliveries failed")

    # --- failures ---

    def _count_failure(self, event: Event) -> None:
        self.tally.failed += 1
        self._counts.failed[event.type] += 1

    def _failed(self, why: str) -> None:
        first = not self.backoff.failing
        pause = self.backoff.failed()
        self.tally.note_error(self._state.clock.now(), why)
        self._moved()
        level = logging.WARNING if first and self.channel.name != WEBSOCKET else logging.DEBUG
        waiting = self.queue.pending
        _log.log(level, "%s: %s; waiting events: %d, next try in %.1f s", self.endpoint, why, waiting, pause)

    async def _refused(self, repeat: Repeat | None, event: Event, why: str) -> None:
        self._count_failure(event)
        self.tally.note_error(self._state.clock.now(), why)
        await self._skip(repeat, event, f"refused: {why}")
        self.backoff.succeeded()

    async def _internal_error(self, repeat: Repeat | None, event: Event, error: Exception) -> None:
        """Count an internal error; skip an event that fails again and again, so that it does not block the rest.

        Until one succeeds, events are sent singly (``_attempt``), to find the one at fault.
        """
        self._internal_errors += 1
        if self._internal_errors > _MOST_INTERNAL_ERRORS:
            await self._skip(repeat, event, f"it cannot be sent: {error!r}")
            self._internal_errors = 1

    async def _skip(self, repeat: Repeat | None, event: Event, why: str) -> None:
        """Continue after an event: one from the queue becomes a dead letter, one of a repeat stays where it was."""
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
        """Give up events that have waited longer than ``DeadLetterAfter``, and the oldest if too many wait.

        Over the limit, a tenth of the limit is given up at once (at most 100 events), to save writes. If the store
        is down, everything stays in the queue.

        Example: with a limit of 1,000, event 1,001 turns the oldest 100 into dead letters in one write; the next
        write comes 100 events later.
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
        """Turn queued events into dead letters, and just remove SCP Status Changes, which the next one supersedes.

        Raises StoreUnavailable; all then stay in the queue.
        """
        lasting = [item for item in items if not is_transient(item)]
        if lasting:
            await self._state.dead.add(self.endpoint, lasting, reason)
            if not self._giving_up:  # logged once until an event is accepted again
                self._giving_up = True
                _log.error("Events for %s go to the dead letters: %s", self.endpoint, reason)
        self.queue.remove_items(items)
        for item in items:
            (self._counts.lost if is_transient(item) else self._counts.dead)[kind_of(item)] += 1
        self.tally.dead += len(lasting)
        self._moved()
