# SPDX-License-Identifier: AGPL-3.0-or-later
"""The outbox: takes committed events in order and delivers them to every receiver."""

from __future__ import annotations

import asyncio
import logging
from bisect import insort
from collections import deque
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Final

from ..core.events import Event
from ..settings import Settings
from ..store import keys
from ..store.documents import UnreadableDocument
from ..store.port import Entries, Entry
from ..store.writer import StoredEntry
from .cursors import CursorWriter
from .dead_letters import DeadLetters
from .documents import Progress, decode_progress
from .port import (
    WEBSOCKET,
    Burst,
    BurstSource,
    Channel,
    Clock,
    Endpoint,
    EventLog,
    OnDelivered,
    Refused,
    Unreachable,
)
from .queue import BurstAt
from .replay import DeadLetterRun, Repeat, Replay, Span
from .subscriber import Subscriber
from .tally import DeliveryCounts
from .worker import DeliveryState, Worker

_log = logging.getLogger("orthanc_ups.delivery")


async def announce_going_down(
    event: Event, workers: Iterable[Worker], clock: Clock, deadline: float, high_water: int
) -> None:
    """Send GOING DOWN to all reachable receivers concurrently, within ``deadline`` seconds.

    Endpoints whose last attempt failed are skipped. An endpoint that is sending may continue for half of that time;
    the rest of its queue is sent after the restart.
    """
    reachable = [worker for worker in workers if _is_reachable(worker, event)]
    if not reachable:
        return
    sends = [
        asyncio.ensure_future(_send_going_down(worker, event, high_water, deadline / 2))
        for worker in reachable
    ]
    all_sent = asyncio.ensure_future(asyncio.wait(sends))
    limit = asyncio.ensure_future(clock.sleep(deadline))
    await asyncio.wait((all_sent, limit), return_when=asyncio.FIRST_COMPLETED)
    for unfinished in (limit, all_sent, *sends):
        unfinished.cancel()
    done, _ = await asyncio.wait(sends)
    reached = sum(not task.cancelled() and task.result() for task in done)
    _log.info("Notified %d of %d endpoints that the SCP is going down", reached, len(reachable))


def _is_reachable(worker: Worker, event: Event) -> bool:
    receiving_ae = worker.endpoint.receiving_ae
    is_served = receiving_ae in event.receivers and worker.channel.serves(receiving_ae)
    return is_served and not worker.backoff.failing


async def _send_going_down(worker: Worker, event: Event, high_water: int, patience: float) -> bool:
    await worker.finish(patience)
    if worker.backoff.failing:
        return False
    report = replace(event, sequence=worker.settled_through(high_water))
    try:
        await worker.channel.deliver(worker.endpoint.receiving_ae, [report])
    except (Unreachable, Refused):
        return False
    except Exception:
        _log.exception("Notifying %s failed: internal error", worker.endpoint)
        return False
    return True


_RECEIVERS_AT_ONCE: Final = 100
"""Receivers whose queues are filled, some microseconds each, before the loop serves other tasks."""
_SETTLED_REMEMBERED: Final = 50_000
_sequence = attrgetter("sequence")


@dataclass(slots=True)
class _Offered:
    """An event or burst that is being put into the queues of its receivers; the first ``queued`` have it."""

    item: Event | Burst
    receivers: Sequence[str]
    queued: int = 0


class Delivery:
    """Delivers each event to each of its receivers at least once, in order, independently of the other receivers.

    Every method must be called on the same asyncio loop. Call ``load`` and ``resume`` first, then ``offer`` and any
    of the others, and ``going_down`` last. An AE that unsubscribes still gets what was committed while it was
    subscribed, except for initial State Reports that were not made yet (``forget``).
    """

    def __init__(
        self,
        settings: Settings,
        channels: Sequence[Channel],
        entries: Entries,
        source: BurstSource,
        log: EventLog,
        clock: Clock,
    ) -> None:
        self.counts = DeliveryCounts()
        self.dead = DeadLetters(entries, clock, self.counts, settings.maximum_dead_letters)
        self._state = DeliveryState(settings, clock, source, self.dead, self.counts)
        self._channels = _with_websocket(channels)
        self._entries = entries
        self._replay = Replay(log, source)
        self.cursor_writer = CursorWriter(clock, self._store)
        self._subscribers: dict[str, Subscriber] = {}
        self._bursts: dict[str, list[Burst]] = {}
        self._busy: dict[str, Subscriber] = {}
        self._offered: deque[_Offered] = deque()
        self._filling: asyncio.Handle | None = None
        self._settled: set[int] = set()
        self._high_water = 0
        self._closed = False

    def observe(self, observer: OnDelivered) -> None:
        """Register a function that is called for each delivered event; it must be fast."""
        self._state.observers.append(observer)

    # --- start ---

    async def load(self, entries: Iterable[Entry]) -> None:
        """Load the stored entries ``delivery/…`` and ``dead/…`` and ignore others; may be called repeatedly."""
        for entry in entries:
            if entry.key.startswith((keys.PROGRESS, keys.DEAD_LETTERS)):
                self._load(entry)

    def _load(self, entry: Entry) -> None:
        try:
            if entry.key.startswith(keys.DEAD_LETTERS):
                self.dead.load(entry)
                return
            receiving_ae, revision, channels = decode_progress(entry.document)
        except UnreadableDocument as error:
            _log.error("Entry %s cannot be read; events may be repeated: %s", entry.key, error)
            return
        subscriber = self._subscriber(receiving_ae)
        subscriber.entry.take(entry.document, entry.version)
        subscriber.load(revision, channels)

    def resume(self, events: Iterable[Event], bursts: Iterable[Burst], last: int | None = None) -> None:
        """Queue everything stored that the cursors have not passed, and start sending.

        The channels must know their addresses by now: events for an AE that none serves wait for a WebSocket.

        Args:
            events: those of all workitems, in any order; settled ones may be among them.
            bursts: those of all acts in force, in any order.
            last: the greatest sequence that may be in use; cursors beyond it (edited by hand) are set back to it.
        """
        stored: list[Event | Burst] = [*events, *bursts]
        stored.sort(key=_sequence)
        self._begin(stored, last)
        for item in stored:
            for receiving_ae in item.receivers:
                self._subscribers[receiving_ae].resume(item)
            self._note_queued(item)
        for subscriber in self._subscribers.values():
            self._mark_busy(subscriber)
            subscriber.start()

    def _begin(self, stored: Sequence[Event | Burst], last: int | None) -> None:
        for item in stored:
            for receiving_ae in item.receivers:
                self._subscriber(receiving_ae)
        for subscriber in self._subscribers.values():
            if last is not None:
                subscriber.cursors = {name: min(cursor, last) for name, cursor in subscriber.cursors.items()}
            self._high_water = max(self._high_water, *subscriber.cursors.values(), 0)
            subscriber.begin()

    def _subscriber(self, receiving_ae: str) -> Subscriber:
        subscriber = self._subscribers.get(receiving_ae)
        if subscriber is None:
            entry = StoredEntry(self._entries, keys.progress(receiving_ae))
            subscriber = Subscriber(
                receiving_ae, self._channels, self._state, entry, self.cursor_writer.touch
            )
            self._subscribers[receiving_ae] = subscriber
        return subscriber

    async def _store(self, subscriber: Subscriber) -> None:
        await subscriber.store(lambda: self._high_water)

    def stored(self) -> Iterator[Entry]:
        """Every entry of delivery as stored, to be restored if it is deleted from outside."""
        for subscriber in self._subscribers.values():
            if subscriber.entry.stored:
                yield subscriber.entry.stored
        yield from self.dead.stored()

    # --- the path of an event ---

    def offer(self, released: Iterable[Event | Burst]) -> None:
        """Take committed events and bursts in ascending sequence. Returns at once.

        Queues are filled for up to 100 receivers here and for the rest in later turns of the loop, so that the
        requester is answered no matter how many receivers an event has.
        """
        if self._closed:
            return
        self._offered.extend(_Offered(item, item.receivers) for item in released)
        if self._filling is None:
            self._fill_some_queues()

    def _fill_some_queues(self) -> None:
        self._filling = None
        self._fill_queues(_RECEIVERS_AT_ONCE)
        if self._offered:
            self._filling = asyncio.get_running_loop().call_soon(self._fill_some_queues)

    def _fill_all_queues(self) -> None:
        """Put everything that was offered into the queues."""
        while self._offered:
            self._fill_queues(len(self._offered[0].receivers) + 1)

    def _fill_queues(self, limit: int) -> None:
        """Put offered items, oldest first, into up to ``limit`` queues in total."""
        while self._offered and limit > 0:
            offered = self._offered[0]
            receivers = offered.receivers[offered.queued : offered.queued + limit]
            for receiving_ae in receivers:
                self._enqueue(offered.item, receiving_ae)
            offered.queued += len(receivers)
            limit -= len(receivers)
            if offered.queued == len(offered.receivers):
                self._offered.popleft()
                self._note_queued(offered.item)

    def _enqueue(self, item: Event | Burst, receiving_ae: str) -> None:
        subscriber = self._subscribers.get(receiving_ae) or self._subscriber(receiving_ae)
        self._busy[receiving_ae] = subscriber
        waiting = BurstAt(item, item.first) if isinstance(item, Burst) else item
        for worker in subscriber.route():
            worker.add(waiting)

    def _note_queued(self, item: Event | Burst) -> None:
        """Note that an item is in all its queues."""
        if isinstance(item, Event):
            self._high_water = max(self._high_water, item.sequence)
        else:
            self._high_water = max(self._high_water, item.last)
            insort(self._bursts.setdefault(item.receiving_ae, []), item, key=_sequence)

    # --- export and import ---

    def progress(self) -> Iterator[tuple[str, Mapping[str, Progress]]]:
        """The progress of each channel of every AE, by AE title."""
        self._fill_all_queues()
        for receiving_ae in sorted(self._subscribers):
            yield receiving_ae, self._subscribers[receiving_ae].progress(self._high_water)

    def held_from(self, receiving_ae: str | None = None) -> int | None:
        """The lowest cursor at which an AE (or any) is held, between ``hold`` and ``take_in``; otherwise None."""
        held = (worker.queue.held for worker in self.workers(receiving_ae))
        return min((sequence for sequence in held if sequence is not None), default=None)

    def hold(self, receiving_ae: str, channels: Mapping[str, Progress]) -> None:
        """Set an imported AE to the cursors that it had in the other worklist.

        Until ``take_in`` nothing is sent to it, and no event after these cursors counts as settled for it.
        """
        self._fill_all_queues()
        self._settled.clear()
        subscriber = self._subscriber(receiving_ae)
        subscriber.hold(channels)
        self._busy[receiving_ae] = subscriber

    def take_in(self, events: Iterable[Event], bursts: Iterable[Burst], last: int) -> None:
        """Merge what the held AEs have not received into their queues: the other worklist is stored completely.

        ``last`` is the greatest sequence that the other worklist used.
        """
        self._fill_all_queues()
        self._high_water = max(self._high_water, last)
        stored: list[Event | Burst] = [*events, *bursts]
        held = [name for name in self._subscribers if self.held_from(name) is not None]
        items: dict[str, list[Event | Burst]] = {name: [] for name in held}
        for item in sorted(stored, key=_sequence):
            for receiving_ae in items.keys() & set(item.receivers):
                items[receiving_ae].append(item)
        for receiving_ae, missing in items.items():
            for burst in missing:
                if isinstance(burst, Burst) and burst not in self._bursts.get(receiving_ae, ()):
                    self._note_queued(burst)
            self._subscribers[receiving_ae].take_in(missing)
            self._mark_busy(self._subscribers[receiving_ae])

    # --- queries of the worklist ---

    def settled(self, event: Event) -> bool:
        """True if no receiver needs the stored event any more: delivered, dead, dropped or replaced everywhere."""
        if event.sequence > self._high_water:
            return False
        if not self._busy or event.sequence in self._settled:
            return True
        if not all(self._is_settled_for(receiver, event) for receiver in event.receivers):
            return False
        if len(event.receivers) > _RECEIVERS_AT_ONCE:
            self._remember_settled(event.sequence)
        return True

    def _remember_settled(self, sequence: int) -> None:
        """Remember that an event is settled, so that thousands of receivers are checked only once."""
        if len(self._settled) >= _SETTLED_REMEMBERED:
            self._settled.clear()
        self._settled.add(sequence)

    def _is_settled_for(self, receiving_ae: str, event: Event) -> bool:
        subscriber = self._busy.get(receiving_ae)
        if subscriber is None:
            return True
        if not subscriber.has_passed(event):
            return False
        if not subscriber.waits:
            del self._busy[receiving_ae]
        return True

    def settled_through(self, receiving_ae: str) -> int:
        """The sequence up to which the AE has received everything."""
        subscriber = self._subscribers.get(receiving_ae)
        through = subscriber.settled_through() if subscriber else None
        return self._high_water if through is None else through

    def _mark_busy(self, subscriber: Subscriber) -> None:
        if subscriber.settled_through() is not None:
            self._busy[subscriber.receiving_ae] = subscriber

    def has_burst(self, receiving_ae: str) -> bool:
        """True while initial State Reports for the AE are still to be made."""
        self._fill_all_queues()
        subscriber = self._subscribers.get(receiving_ae)
        return subscriber is not None and subscriber.has_burst

    def forget(self, receiving_ae: str) -> None:
        """Discard initial State Reports not made yet, because the AE unsubscribed from everything."""
        self._fill_all_queues()
        self._bursts.pop(receiving_ae, None)
        for worker in self.workers(receiving_ae):
            worker.queue.end_bursts()

    # --- calls of the interfaces ---

    def retry_soon(self, receiving_ae: str) -> None:
        """End back-off for an AE that seems to be alive, such as one that opened an association or a WebSocket."""
        for worker in self.workers(receiving_ae):
            worker.hurry()

    async def replay(self, receiving_ae: str, after: int) -> AsyncIterator[list[Event]]:
        """Every event for the AE with a sequence greater than ``after``, in order, each once, including waiting ones.

        Ends at the last event offered by then. A channel that replays to a new WebSocket and then opens it for live
        events gets the events that were waiting a second time, by ``deliver``.
        """
        position = after
        while position < (through := self._caught_up()):
            async for events in self._replay.read(self._span(receiving_ae, position, through)):
                yield events
            position = through

    def _caught_up(self) -> int:
        self._fill_all_queues()
        return self._high_water

    def _span(self, receiving_ae: str, after: int, through: int) -> Span:
        queues = [worker.queue for worker in self.workers(receiving_ae)]
        waiting = {item.sequence: item for queue in queues for item in queue if isinstance(item, Event)}
        events = [waiting[sequence] for sequence in sorted(waiting) if after < sequence <= through]
        return Span(receiving_ae, after, through, events, tuple(self._bursts.get(receiving_ae, ())))

    # --- for management and metrics ---

    @property
    def high_water(self) -> int:
        """The sequence up to which every offered event is in its queues."""
        return self._high_water

    @property
    def clock(self) -> Clock:
        """The clock that all workers use."""
        return self._state.clock

    def route(self, receiving_ae: str) -> tuple[Worker, ...]:
        """The workers that serve the AE now; at least one."""
        return self._subscriber(receiving_ae).route()

    def sent_events(self, worker: Worker, first: int, last: int) -> AsyncIterator[list[Event]]:
        """The events already sent to an endpoint between two sequences (inclusive), from the log."""
        through = min(last, worker.settled_through(self._high_water))
        bursts = tuple(self._bursts.get(worker.endpoint.receiving_ae, ()))
        return self._replay.read(Span(worker.endpoint.receiving_ae, first - 1, through, (), bursts))

    def dead_letter_run(self, endpoint: Endpoint, sequences: Collection[int] | None) -> Repeat:
        """Dead letters of an endpoint, all or some, to be resent."""
        return DeadLetterRun(self.dead, self._state.source, endpoint, sequences)

    async def flush(self) -> None:
        """Store all changed cursors and counts."""
        await self.cursor_writer.flush()

    def workers(self, receiving_ae: str | None = None) -> Iterator[Worker]:
        """The workers of one AE, or all."""
        if receiving_ae is None:
            for subscriber in self._subscribers.values():
                yield from subscriber.workers.values()
        elif receiving_ae in self._subscribers:
            yield from self._subscribers[receiving_ae].workers.values()

    # --- stop ---

    async def going_down(self, event: Event | None, deadline: float = 3.0) -> None:
        """Announce the stop to reachable receivers, then stop, store the cursors and close the channels.

        Args:
            event: SCP Status Change with GOING DOWN (PS3.4 CC.2.4.1), or None for no announcement.
            deadline: the greatest number of seconds for the announcement.
        """
        self._fill_all_queues()
        self._closed = True
        await self.cursor_writer.close()
        for receiving_ae in event.receivers if event else ():
            self.route(receiving_ae)
        workers = list(self.workers())
        if event is not None:
            await announce_going_down(event, workers, self._state.clock, deadline, self._high_water)
        await asyncio.gather(*(worker.stop() for worker in workers))
        await self.cursor_writer.flush()
        closing = (channel.close() for channel in self._channels)
        for result in await asyncio.gather(*closing, return_exceptions=True):
            if isinstance(result, Exception):
                _log.error("Closing a channel failed: %r", result)


class _NoWebSocket:
    """A stand-in for the WebSocket channel where there is none, so that events of unserved AEs can wait."""

    name = WEBSOCKET

    def serves(self, receiving_ae: str) -> bool:
        """No AE is served."""
        return False

    async def deliver(self, receiving_ae: str, events: Sequence[Event]) -> int:
        """Never called, because no AE is served."""
        raise NotImplementedError

    async def close(self) -> None:
        """Nothing is open."""


def _with_websocket(channels: Sequence[Channel]) -> tuple[Channel, ...]:
    missing = () if any(channel.name == WEBSOCKET for channel in channels) else (_NoWebSocket(),)
    return (*channels, *missing)
