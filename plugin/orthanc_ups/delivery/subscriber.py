# SPDX-License-Identifier: AGPL-3.0-or-later
"""One Receiving AE: which channels send it events, and the progress of each."""

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

    Durable are the channels (other than the WebSocket) that have an address for it; if there is none, the
    WebSocket is, and events wait until one is opened. A WebSocket of an AE that has another channel gets
    what comes while it is open. When the last durable channel loses its address, the one that becomes
    durable takes over what waits; as long as another durable channel is left, it keeps it.

    Attributes:
        entry: where its progress is stored.
        cursors: the stored cursors by channel, until ``begin``.
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
        channels: every channel there is; one must be named ``websocket``.
        moved: called when there is something new to store.
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
        fresh = [self.workers[name] for name in durable if not self.workers[name].durable]
        orphans = [worker for name, worker in self.workers.items() if worker.durable and name not in durable]
        for worker in fresh:
            self._make_durable(worker, orphans)
        if fresh:
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
                _log.info("%s has no address now; another channel takes over", orphan.endpoint)

    def _worker(self, name: str) -> Worker:
        worker = self.workers.get(name)
        if worker is None:
            channel = next(candidate for candidate in self._channels if candidate.name == name)
            endpoint = Endpoint(self.receiving_ae, name)
            state, moved, unserved = self._state, partial(self._moved, self), self._on_unserved
            worker = Worker(endpoint, channel, state, moved, unserved)
            self.workers[name] = worker
        return worker

    def _on_unserved(self) -> None:
        self.route()

    # --- what waits ---

    def settled_through(self) -> int | None:
        """Up to which sequence every durable endpoint is done; None if nothing waits."""
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
        """True if no durable endpoint needs an event any more, which was offered.

        A newer report may have taken its place in a queue; that one is stored, so this one need not be.
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
        """True while initial State Reports are not all made."""
        return any(worker.queue.bursts for worker in self.workers.values())

    # --- start ---

    def load(self, revision: int, channels: Mapping[str, Progress]) -> None:
        """Take over a stored entry."""
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
        """Turn the stored cursors into endpoints, before the stored events come.

        A channel without a cursor of its own starts where the AE's slowest one was: it may repeat what
        another channel delivered, but misses nothing.
        """
        names = {channel.name for channel in self._channels}
        for name in self.cursors.keys() - names:
            _log.warning("%s: channel %s is not configured any more", self.receiving_ae, name)
        for name in self.cursors.keys() & names:
            self._worker(name).durable = True
        self.route()
        slowest = min(self.cursors.values(), default=0)
        for name, worker in self.workers.items():
            self.cursors.setdefault(name, slowest)
            self._passed[name] = self._state.dead.sequences(worker.endpoint) | worker.dropped

    def resume(self, item: Event | Burst) -> None:
        """Put a stored event or burst back into the queues of the endpoints that do not have it yet."""
        for name, worker in self.workers.items():
            if worker.durable:
                _put(worker.queue, item, self.cursors[name], self._passed[name])

    def start(self) -> None:
        """Start the workers: everything stored is in the queues."""
        self._passed.clear()
        for worker in self.workers.values():
            worker.start()

    # --- what another worklist had waiting ---

    def hold(self, channels: Mapping[str, Progress]) -> None:
        """Go back to where another worklist was with this AE, and tell it nothing until ``take_in``."""
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
        """What waited in the other worklist takes its place in the queues, and the queues go on."""
        for worker in self.workers.values():
            held, worker.queue.held = worker.queue.held, None
            if held is not None:
                passed = self._state.dead.sequences(worker.endpoint) | worker.dropped
                due = EventQueue(self._state.settings.replace_waiting_progress)
                for item in items:
                    _put(due, item, held, passed)
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
        """Merge an entry that somebody else wrote: counts never go back, and the cursors in memory are right."""
        _log.warning("%s was changed by somebody else; overwriting it", self.entry.key)
        try:
            _, revision, channels = decode_progress(document)
        except UnreadableDocument:
            return
        self._revision = max(self._revision, revision)
        for name, progress in channels.items():
            if name in self.workers:
                self.workers[name].tally.restore(progress.tally)


def _put(queue: EventQueue, item: Event | Burst, cursor: int, passed: Collection[int]) -> None:
    """Queue what is left of a stored event or burst for an endpoint that has everything up to ``cursor``.

    What is ``passed`` (dead, dropped) does not wait, but a Progress Report that it replaced must not come back.
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
