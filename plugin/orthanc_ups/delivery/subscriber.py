# SPDX-License-Identifier: AGPL-3.0-or-later
"""A Receiving AE: the channels that send it events, and the progress of each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from ..core.events import Event, EventType
from ..store.documents import UnreadableDocument
from ..store.writer import StoredEntry
from .documents import Progress, decode_progress, encode_progress
from .port import WEBSOCKET, Burst, Channel, Endpoint
from .queue import BurstAt, EventQueue
from .worker import DeliveryState, Worker

_log = logging.getLogger("orthanc_ups.delivery")


class Subscriber:
    """The endpoints of an AE.

    An endpoint is durable if its channel (other than the WebSocket) has an address for the AE. If no channel has,
    the WebSocket's is durable, and events wait until a WebSocket is opened. A WebSocket of an AE with another
    channel gets only the events of the time when it is open. When a new channel becomes durable, it takes over what
    waits on channels that lost their address; if another durable channel is left, these keep their queue instead.

    Attributes:
        entry: the stored entry of its progress.
        cursors: the stored cursors by channel, used until ``start``.
    """

    __slots__ = (
        "_channels",
        "_moved",
        "_passed",
        "_revision",
        "_serving",
        "_state",
        "_targets",
        "cursors",
        "entry",
        "receiving_ae",
        "workers",
    )

    def __init__(
        self,
        receiving_ae: str,
        channels: Sequence[Channel],
        state: DeliveryState,
        entry: StoredEntry,
        moved: Callable[[Subscriber], None],
    ) -> None:
        """Args:
        channels: all channels of the plugin; one must be named ``websocket``.
        moved: called when progress has to be stored.
        """
        self.receiving_ae = receiving_ae
        self.entry = entry
        self.workers: dict[str, Worker] = {}
        self.cursors: dict[str, int] = {}
        self._channels = channels
        self._state = state
        self._moved = moved
        self._revision = 0
        self._passed: dict[str, frozenset[int]] = {}
        self._serving: tuple[Channel, ...] | None = None
        self._targets: tuple[Worker, ...] = ()

    # --- routes ---

    def route(self) -> tuple[Worker, ...]:
        """The endpoints that get an event now."""
        name = self.receiving_ae
        serving = tuple([channel for channel in self._channels if channel.serves(name)])
        if serving != self._serving:
            self._reroute(serving)
        return self._targets

    def _reroute(self, serving: tuple[Channel, ...]) -> None:
        self._serving = serving
        durable = [channel.name for channel in serving if channel.name != WEBSOCKET] or [WEBSOCKET]
        names = dict.fromkeys([*durable, *(channel.name for channel in serving)])
        self._targets = tuple(self._worker(name) for name in names)
        new = [self.workers[name] for name in durable if not self.workers[name].durable]
        orphans = [worker for name, worker in self.workers.items() if worker.durable and name not in durable]
        for worker in new:
            self._make_durable(worker, orphans)
        if new:
            self._retire(orphans)
        for worker in self.workers.values():
            if not worker.durable and worker not in self._targets:
                worker.queue.clear()

    def _make_durable(self, worker: Worker, orphans: Sequence[Worker]) -> None:
        worker.durable = True
        held = [orphan.queue.held for orphan in orphans if orphan.queue.held is not None]
        worker.queue.held = min(held, default=worker.queue.held)
        waiting = [item for orphan in orphans for item in orphan.queue]
        if waiting:
            worker.adopt(waiting)
        self._moved(self)

    def _retire(self, orphans: Sequence[Worker]) -> None:
        for orphan in orphans:
            orphan.durable = False
            if orphan.queue:
                _log.info("%s has no address any more; another channel takes over", orphan.endpoint)

    def _worker(self, name: str) -> Worker:
        worker = self.workers.get(name)
        if worker is None:
            channel = next(candidate for candidate in self._channels if candidate.name == name)
            endpoint = Endpoint(self.receiving_ae, name)
            worker = Worker(endpoint, channel, self._state, partial(self._moved, self), self.route)
            self.workers[name] = worker
        return worker

    # --- what waits ---

    def settled_through(self) -> int | None:
        """The sequence up to which every durable endpoint has received everything; None if nothing waits."""
        heads = [
            worker.queue.settled_through()
            for worker in self.workers.values()
            if worker.durable and worker.queue
        ]
        return min((head for head in heads if head is not None), default=None)

    @property
    def waits(self) -> bool:
        """True if anything waits for a durable endpoint."""
        return any(worker.durable and worker.queue for worker in self.workers.values())

    def has_passed(self, event: Event) -> bool:
        """True if no durable endpoint needs an event (which has been offered) any more.

        A Progress Report may have been replaced in a queue by a newer one; that one is stored, so this need not be.
        """
        for worker in self.workers.values():
            queue = worker.queue
            if not worker.durable:
                continue
            if event.sequence in queue:
                return False
            through = queue.settled_through()
            if through is None or event.sequence <= through:
                continue
            if queue.held is not None or event.type is not EventType.PROGRESS_REPORT:
                return False
        return True

    @property
    def has_burst(self) -> bool:
        """True while initial State Reports are still to be made."""
        return any(worker.queue.bursts for worker in self.workers.values())

    # --- start ---

    def load(self, revision: int, channels: Mapping[str, Progress]) -> None:
        """Load the contents of a stored entry."""
        self._revision = revision
        names = {channel.name for channel in self._channels}
        for name, progress in channels.items():
            if progress.cursor is not None:
                self.cursors[name] = progress.cursor
            if name in names:
                worker = self._worker(name)
                worker.tally.restore(progress.tally)
                worker.dropped = set(progress.dropped)

    def begin(self) -> None:
        """Create endpoints for the stored cursors, before ``resume`` is called for the stored events.

        A channel without a cursor starts at the AE's lowest one: it may repeat what another channel delivered,
        but misses nothing.
        """
        names = {channel.name for channel in self._channels}
        for name in self.cursors.keys() - names:
            _log.warning("%s: channel %s is no longer configured", self.receiving_ae, name)
        for name in self.cursors.keys() & names:
            self._worker(name).durable = True
        self.route()
        slowest = min(self.cursors.values(), default=0)
        for name, worker in self.workers.items():
            self.cursors.setdefault(name, slowest)
            self._passed[name] = self._state.dead.sequences(worker.endpoint) | worker.dropped

    def resume(self, item: Event | Burst) -> None:
        """Queue a stored event or burst for the durable endpoints that have not received it yet."""
        for name, worker in self.workers.items():
            if worker.durable:
                _enqueue(worker.queue, item, self.cursors[name], self._passed[name])

    def start(self) -> None:
        """Start the workers, once everything stored is in the queues."""
        self._passed.clear()
        for worker in self.workers.values():
            worker.start()

    # --- import of another worklist ---

    def hold(self, channels: Mapping[str, Progress]) -> None:
        """Go back to the cursors of another worklist, and send nothing until ``take_in``."""
        cursors = {
            name: progress.cursor for name, progress in channels.items() if progress.cursor is not None
        }
        slowest = min(cursors.values(), default=0)
        for worker in self.route():
            progress = channels.get(worker.endpoint.channel, Progress(None))
            worker.tally.restore(progress.tally)
            worker.dropped.update(progress.dropped)
            if worker.durable:
                worker.queue.held = cursors.get(worker.endpoint.channel, slowest)
        self._moved(self)

    def take_in(self, items: Sequence[Event | Burst]) -> None:
        """Merge what waited in the other worklist into the queues, and continue sending."""
        for worker in self.workers.values():
            held, worker.queue.held = worker.queue.held, None
            if held is not None:
                passed = self._state.dead.sequences(worker.endpoint) | worker.dropped
                due = EventQueue(self._state.settings.replace_waiting_progress)
                for item in items:
                    _enqueue(due, item, held, passed)
                worker.queue.remove(item.sequence for item in items if isinstance(item, Event))
                worker.adopt(due)
        self._moved(self)

    # --- storing ---

    def progress(self, high_water: int) -> dict[str, Progress]:
        """The progress of each channel."""
        return {name: _progress(worker, high_water) for name, worker in self.workers.items()}

    async def store(self, high_water: Callable[[], int]) -> None:
        """Write the cursors and counts. Raises StoreUnavailable."""

        def make(document: bytes | None) -> bytes:
            if document is not None:
                self._merge(document)
            self._revision += 1
            return encode_progress(self.receiving_ae, self._revision, self.progress(high_water()))

        await self.entry.write(make)

    def _merge(self, document: bytes) -> None:
        """Merge the counts of an entry that something else wrote; the cursors in memory win."""
        _log.warning("%s was changed by somebody else; overwriting it", self.entry.key)
        try:
            _, revision, channels = decode_progress(document)
        except UnreadableDocument:
            return
        self._revision = max(self._revision, revision)
        for name, progress in channels.items():
            if name in self.workers:
                self.workers[name].tally.restore(progress.tally)


def _enqueue(queue: EventQueue, item: Event | Burst, cursor: int, passed: Collection[int]) -> None:
    """Queue a stored event, or the rest of a burst, for an endpoint that has everything up to ``cursor``.

    ``passed`` are the sequences of dead letters and dropped events. Such an event is added and removed again, so
    that an older Progress Report that it replaced does not come back.
    """
    if isinstance(item, Event):
        if item.sequence > cursor:
            queue.add(item)
        if item.sequence in passed:
            queue.remove([item.sequence])
    elif item.last > cursor and item.first not in passed:
        queue.add(BurstAt(item, max(item.first, cursor)))


def _progress(worker: Worker, high_water: int) -> Progress:
    cursor = worker.settled_through(high_water)
    worker.dropped = {sequence for sequence in worker.dropped if sequence > cursor}
    dropped = tuple(sorted(worker.dropped))
    return Progress(cursor if worker.durable else None, dropped, worker.tally.document())
