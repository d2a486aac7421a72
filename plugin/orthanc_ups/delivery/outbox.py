# SPDX-License-Identifier: AGPL-3.0-or-later
"""The outbox: takes committed events in order and makes sure that every receiver gets them."""

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
    """Tell the receivers that are in reach, all side by side, within ``deadline`` seconds.

    An endpoint whose last attempt failed is left out. One that is just being told something may go on with
    what waits for half of the time; the rest is told after the restart.
    """
    reachable = [worker for worker in workers if _in_reach(worker, event)]
    if not reachable:
        return
    telling = [asyncio.ensure_future(_tell(worker, event, high_water, deadline / 2)) for worker in reachable]
    everyone = asyncio.ensure_future(asyncio.wait(telling))
    limit = asyncio.ensure_future(clock.sleep(deadline))
    await asyncio.wait((everyone, limit), return_when=asyncio.FIRST_COMPLETED)
    for unfinished in (limit, everyone, *telling):
        unfinished.cancel()
    done, _ = await asyncio.wait(telling)
    reached = sum(not task.cancelled() and task.result() for task in done)
    _log.info("Told %d of %d endpoints that the SCP is going down", reached, len(reachable))


def _in_reach(worker: Worker, event: Event) -> bool:
    receiving_ae = worker.endpoint.receiving_ae
    is_served = receiving_ae in event.receivers and worker.channel.serves(receiving_ae)
    return is_served and not worker.backoff.failing


async def _tell(worker: Worker, event: Event, high_water: int, patience: float) -> bool:
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
"""How many receivers are given an event, some microseconds each, before the loop serves others."""
_PAST_REMEMBERED: Final = 50_000
_sequence = attrgetter("sequence")


@dataclass(slots=True)
class _Offered:
    """An event or burst that is being put into the queues of its receivers; ``done`` of them have it."""

    item: Event | Burst
    receivers: Sequence[str]
    done: int = 0


class Delivery:
    """Delivers each event to each of its receivers at least once, in order, whatever the others do.

    Lives on one asyncio loop; every method must be called there. Life: ``load``, ``resume``, then ``offer``
    and all the rest, at last ``going_down``. An AE that unsubscribes still gets what was committed while it
    was subscribed; only initial reports that were not made yet are left out (``forget``).
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
        self._handing_out: asyncio.Handle | None = None
        self._past: set[int] = set()
        self._high_water = 0
        self._closed = False

    def observe(self, observer: OnDelivered) -> None:
        """Register a function to be called for each delivered event; it must be quick."""
        self._state.observers.append(observer)

    # --- start ---

    async def load(self, entries: Iterable[Entry]) -> None:
        """Take over stored entries, those of ``delivery/…`` and ``dead/…``; may be called for each chunk."""
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
            _log.error("Entry %s cannot be read, so events may be repeated: %s", entry.key, error)
            return
        subscriber = self._subscriber(receiving_ae)
        subscriber.entry.take(entry.document, entry.version)
        subscriber.load(revision, channels)

    def resume(self, events: Iterable[Event], bursts: Iterable[Burst], last: int | None = None) -> None:
        """Start with everything that is stored; what a cursor has passed is left out.

        The channels must know their addresses by now: an AE that none serves is told by WebSocket instead.

        Args:
            events: of all workitems, in no order; settled ones may be among them.
            bursts: of all acts that still stand, in no order.
            last: the last sequence that may be in use; cursors beyond (changed by hand) are set back to it.
        """
        stored: list[Event | Burst] = [*events, *bursts]
        stored.sort(key=_sequence)
        self._begin(stored, last)
        for item in stored:
            for receiving_ae in item.receivers:
                self._subscribers[receiving_ae].resume(item)
            self._note(item)
        for subscriber in self._subscribers.values():
            self._watch(subscriber)
            subscriber.start()

    def _begin(self, stored: Sequence[Event | Burst], last: int | None) -> None:
        for item in stored:
            for receiving_ae in item.receivers:
                self._subscriber(receiving_ae)
        for subscriber in self._subscribers.values():
            if last is not None:
                subscriber.cursors = {name: min(at, last) for name, at in subscriber.cursors.items()}
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
        """Every entry of delivery as it stands in the store, to be written back if it is deleted under us."""
        for subscriber in self._subscribers.values():
            if subscriber.entry.stored:
                yield subscriber.entry.stored
        yield from self.dead.stored()

    # --- the way of an event ---

    def offer(self, released: Iterable[Event | Burst]) -> None:
        """Take committed events (and bursts) with growing sequences. Returns at once.

        However many receivers an event has, it is put into their queues in slices, the first of them here:
        whoever made the change is answered meanwhile.
        """
        if self._closed:
            return
        self._offered.extend(_Offered(item, item.receivers) for item in released)
        if self._handing_out is None:
            self._hand_out_some()

    def _hand_out_some(self) -> None:
        self._handing_out = None
        self._hand_out(_RECEIVERS_AT_ONCE)
        if self._offered:
            self._handing_out = asyncio.get_running_loop().call_soon(self._hand_out_some)

    def _hand_out_all(self) -> None:
        """Finish putting everything offered into the queues."""
        while self._offered:
            self._hand_out(len(self._offered[0].receivers) + 1)

    def _hand_out(self, limit: int) -> None:
        """Put what was offered first into the queues of up to ``limit`` receivers, counted over all events."""
        while self._offered and limit > 0:
            offered = self._offered[0]
            receivers = offered.receivers[offered.done : offered.done + limit]
            for receiving_ae in receivers:
                self._put(offered.item, receiving_ae)
            offered.done += len(receivers)
            limit -= len(receivers)
            if offered.done == len(offered.receivers):
                self._offered.popleft()
                self._note(offered.item)

    def _put(self, item: Event | Burst, receiving_ae: str) -> None:
        subscriber = self._subscribers.get(receiving_ae) or self._subscriber(receiving_ae)
        self._busy[receiving_ae] = subscriber
        waiting = BurstAt(item, item.first) if isinstance(item, Burst) else item
        for worker in subscriber.route():
            worker.add(waiting)

    def _note(self, item: Event | Burst) -> None:
        if isinstance(item, Event):
            self._high_water = max(self._high_water, item.sequence)
        else:
            self._high_water = max(self._high_water, item.last)
            insort(self._bursts.setdefault(item.receiving_ae, []), item, key=_sequence)

    # --- what another worklist had waiting ---

    def progress(self) -> Iterator[tuple[str, Mapping[str, Progress]]]:
        """The progress of each channel of every AE, by AE title."""
        self._hand_out_all()
        for receiving_ae in sorted(self._subscribers):
            yield receiving_ae, self._subscribers[receiving_ae].progress(self._high_water)

    def held_from(self, receiving_ae: str | None = None) -> int | None:
        """The lowest cursor at which an AE (or any) is held, between ``hold`` and ``take_in``; else None."""
        held = (worker.queue.held for worker in self.workers(receiving_ae))
        return min((sequence for sequence in held if sequence is not None), default=None)

    def hold(self, receiving_ae: str, channels: Mapping[str, Progress]) -> None:
        """An AE is imported; these are the cursors that the other worklist had for it.

        Until ``take_in`` it is told nothing, and no event behind these cursors is settled for it.
        """
        self._hand_out_all()
        self._past.clear()
        subscriber = self._subscriber(receiving_ae)
        subscriber.hold(channels)
        self._busy[receiving_ae] = subscriber

    def take_in(self, events: Iterable[Event], bursts: Iterable[Burst], last: int) -> None:
        """All of the other worklist is stored: what the held AEs did not get joins their queues, in its place.

        ``last`` is the greatest sequence that the other worklist used.
        """
        self._hand_out_all()
        self._high_water = max(self._high_water, last)
        stored: list[Event | Burst] = [*events, *bursts]
        held = [name for name in self._subscribers if self.held_from(name) is not None]
        items: dict[str, list[Event | Burst]] = {name: [] for name in held}
        for item in sorted(stored, key=_sequence):
            for receiving_ae in items.keys() & set(item.receivers):
                items[receiving_ae].append(item)
        for receiving_ae, own in items.items():
            for burst in own:
                if isinstance(burst, Burst) and burst not in self._bursts.get(receiving_ae, ()):
                    self._note(burst)
            self._subscribers[receiving_ae].take_in(own)
            self._watch(self._subscribers[receiving_ae])

    # --- what the worklist asks ---

    def settled(self, event: Event) -> bool:
        """True if no receiver needs the stored event any more (delivered, dead letter, dropped, or replaced)."""
        if event.sequence > self._high_water:
            return False
        if not self._busy or event.sequence in self._past:
            return True
        if not all(self._is_past(receiver, event) for receiver in event.receivers):
            return False
        if len(event.receivers) > _RECEIVERS_AT_ONCE:
            self._remember_as_past(event.sequence)
        return True

    def _remember_as_past(self, sequence: int) -> None:
        """Remember the answer, so that thousands of receivers are asked only once."""
        if len(self._past) >= _PAST_REMEMBERED:
            self._past.clear()
        self._past.add(sequence)

    def _is_past(self, receiving_ae: str, event: Event) -> bool:
        subscriber = self._busy.get(receiving_ae)
        if subscriber is None:
            return True
        if not subscriber.has_passed(event):
            return False
        if not subscriber.waits:
            del self._busy[receiving_ae]
        return True

    def settled_through(self, receiving_ae: str) -> int:
        """The sequence up to which the AE has everything that it needs."""
        subscriber = self._subscribers.get(receiving_ae)
        through = subscriber.settled_through() if subscriber else None
        return self._high_water if through is None else through

    def _watch(self, subscriber: Subscriber) -> None:
        if subscriber.settled_through() is not None:
            self._busy[subscriber.receiving_ae] = subscriber

    def has_burst(self, receiving_ae: str) -> bool:
        """True while initial State Reports for the AE are not all made."""
        self._hand_out_all()
        subscriber = self._subscribers.get(receiving_ae)
        return subscriber is not None and subscriber.has_burst

    def forget(self, receiving_ae: str) -> None:
        """The AE unsubscribed from everything: leave out initial reports that were not made yet."""
        self._hand_out_all()
        self._bursts.pop(receiving_ae, None)
        for worker in self.workers(receiving_ae):
            worker.queue.end_bursts()

    # --- what the interfaces report and ask ---

    def seen(self, receiving_ae: str) -> None:
        """The AE is alive (it opened an association or a socket, or echoed): try at once."""
        for worker in self.workers(receiving_ae):
            worker.hurry()

    async def replay(self, receiving_ae: str, after: int) -> AsyncIterator[list[Event]]:
        """Every event for the AE with a greater sequence, in order, each once, also those that wait.

        Ends when it has caught up: what is offered from then on is not in it. A channel that sends this to
        a new socket and lets the socket in when it ends must expect ``deliver`` to bring the part that was
        waiting once more.
        """
        position = after
        while position < (through := self._caught_up()):
            async for events in self._replay.read(self._span(receiving_ae, position, through)):
                yield events
            position = through

    def _caught_up(self) -> int:
        self._hand_out_all()
        return self._high_water

    def _span(self, receiving_ae: str, after: int, through: int) -> Span:
        queues = [worker.queue for worker in self.workers(receiving_ae)]
        waiting = {item.sequence: item for queue in queues for item in queue if isinstance(item, Event)}
        events = [waiting[sequence] for sequence in sorted(waiting) if after < sequence <= through]
        return Span(receiving_ae, after, through, events, tuple(self._bursts.get(receiving_ae, ())))

    # --- all of it ---

    @property
    def high_water(self) -> int:
        """The greatest sequence that was offered."""
        return self._high_water

    @property
    def clock(self) -> Clock:
        """The clock."""
        return self._state.clock

    def route(self, receiving_ae: str) -> tuple[Worker, ...]:
        """Who tells the AE now; at least one."""
        return self._subscriber(receiving_ae).route()

    def past(self, worker: Worker, first: int, last: int) -> AsyncIterator[list[Event]]:
        """What an endpoint was told already between two sequences (both included), from the log."""
        through = min(last, worker.settled_through(self._high_water))
        bursts = tuple(self._bursts.get(worker.endpoint.receiving_ae, ()))
        return self._replay.read(Span(worker.endpoint.receiving_ae, first - 1, through, (), bursts))

    def resurrection(self, endpoint: Endpoint, sequences: Collection[int] | None) -> Repeat:
        """Dead letters of an endpoint, all or some, to be sent again."""
        return DeadLetterRun(self.dead, self._state.source, endpoint, sequences)

    async def flush(self) -> None:
        """Store cursors and counts that moved."""
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
        """Tell those who can be told quickly, then stop, store the cursors and close the channels.

        Args:
            event: SCP Status Change with GOING DOWN (PS3.4 CC.2.4.1), or None to tell nobody.
            deadline: seconds for the telling, at most.
        """
        self._hand_out_all()
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
    """The WebSocket channel of a worklist without WebSockets, so that events can wait for it."""

    name = WEBSOCKET

    def serves(self, receiving_ae: str) -> bool:
        """Nobody."""
        return False

    async def deliver(self, receiving_ae: str, events: Sequence[Event]) -> int:
        """Never called, as nobody is served."""
        raise NotImplementedError

    async def close(self) -> None:
        """Nothing is open."""


def _with_websocket(channels: Sequence[Channel]) -> tuple[Channel, ...]:
    missing = () if any(channel.name == WEBSOCKET for channel in channels) else (_NoWebSocket(),)
    return (*channels, *missing)
