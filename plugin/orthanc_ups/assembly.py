# SPDX-License-Identifier: AGPL-3.0-or-later
"""The UPS service without its network: worklist, delivery and retention, wired up on one asyncio loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from .change_feed import ChangeFeed
from .core.events import Event, scp_status_change
from .core.tags import GLOBAL_SUBSCRIPTION
from .delivery.outbox import Delivery
from .delivery.port import Channel, Clock
from .settings import Settings
from .store.log_document import encode_log
from .store.port import Entry, StoreUnavailable
from .store.projection import Projection
from .store.recovery import RestorableEntries
from .worklist.commits import Commits
from .worklist.counters import Counters
from .worklist.gate import Gate
from .worklist.global_acts import GlobalActs
from .worklist.header import Header
from .worklist.initial_reports import InitialReports
from .worklist.ledger import Ledger
from .worklist.loader import Loader, Stored, bursts, unsettled_events
from .worklist.order import Order
from .worklist.retention import Retention
from .worklist.service import ReceivingAes, Worklist
from .worklist.shadow import Shadow
from .worklist.writer import Writer

_log = logging.getLogger("orthanc_ups")
_RETENTION_EVERY: Final = 60.0
_RETRY_AFTER: Final = 2.0
_FAREWELL: Final = 3.0
_LAST_COMMANDS: Final = 2.0


class UpsService:
    """Everything between the wires and the store.

    Life: ``start`` (reads the worklist in), then the attributes are used by the wires, at last ``stop``.
    Every method must be called on the one asyncio loop.
    """

    def __init__(
        self,
        settings: Settings,
        own_ae: str,
        entries: RestorableEntries,
        projection: Projection,
        channels: Sequence[Channel],
        receiving_aes: ReceivingAes,
        clock: Clock,
    ) -> None:
        self.settings = settings
        self.entries = entries
        self.projection = projection
        self.clock = clock
        self.counters = Counters()
        self.changes = ChangeFeed(int(clock.now() * 1000))
        self.ledger = Ledger()
        self._writer = Writer(entries)
        self._header = Header(self._writer)
        self._order = Order(1, self._release)
        self._gate = Gate()
        self.shadow = Shadow(projection, self._writer, self._rebuild_soon, self.changes.note)
        reports = InitialReports(projection.created, self.ledger)
        self.delivery = Delivery(settings, channels, entries, reports, projection, clock)
        self.commits = self._commits()
        self.worklist = self._worklist(receiving_aes)
        self._retention = Retention(settings, self.worklist, self.shadow, self.ledger, own_ae, self._now)
        self._chores: set[asyncio.Task[None]] = set()

    def _commits(self) -> Commits:
        return Commits(
            self._writer,
            self.shadow,
            self.ledger,
            self._header,
            self._order,
            self.delivery.settled,
            self.settings.history_length,
        )

    def _worklist(self, receiving_aes: ReceivingAes) -> Worklist:
        global_acts = GlobalActs(
            self._writer,
            self.ledger,
            self._order,
            self._header,
            self.shadow,
            self.commits,
            self.delivery,
            self.settings.deletion_locks,
            self.counters,
        )
        return Worklist(
            self.settings,
            self.commits,
            self.shadow,
            self.ledger,
            global_acts,
            self._gate,
            receiving_aes,
            self._now,
            self.counters,
        )

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.clock.now(), UTC).astimezone()

    def _release(self, events: Sequence[Event]) -> None:
        self.shadow.record(events)
        self.delivery.offer(events)

    # --- start ---

    async def start(self) -> None:
        """Read everything in, resume what waits, and tell that the SCP has restarted. Raises StoreUnavailable."""
        stored = await self._loaded()
        await self.delivery.load(stored.delivery)
        await self._header.reserve(self._order.next, self.commits.next_creation)
        waiting = unsettled_events(self.projection.with_events_after(0), stored.overflows)
        self.delivery.resume(waiting, bursts(list(self.ledger.logs())), self._order.next - 1)
        self._announce("RESTARTED")
        self._chore(self._reserve_ahead, 1.0)
        self._chore(self._retention.run_once, _RETENTION_EVERY)
        self._chore(self.look_after_shelves, _RETENTION_EVERY)
        _log.info("Worklist with %d workitems is open", self.shadow.count())

    async def _loaded(self) -> Stored:
        """Read the store; what it lost while we were away is written back from the projection."""
        stored = await Loader(self.entries, self.projection).load()
        self._take_over(stored)
        if await self.entries.missing():
            await self.entries.restore(self._everything())
        return stored

    def _take_over(self, stored: Stored) -> None:
        if stored.header is not None:
            self._header.load(stored.header)
        for log, version in stored.logs:
            self.ledger.keep(log, version)
        for workitem in self.projection.with_acts():
            self.ledger.note(workitem)
        self.shadow.tombstones.update(stored.tombstones)
        self.commits.overflows.update(stored.overflows)
        self._order.start_at(self._header.sequences)
        self.commits.next_creation = max(self.commits.next_creation, self._header.creations)

    # --- chores ---

    def _chore(self, work: Callable[[], Awaitable[None]], every: float) -> None:
        task = asyncio.ensure_future(self._again_and_again(work, every))
        self._chores.add(task)

    async def _again_and_again(self, work: Callable[[], Awaitable[None]], every: float) -> None:
        while True:
            try:
                await work()
            except StoreUnavailable as error:
                _log.warning("Put off, as Orthanc's store is not available: %s", error)
            except Exception:
                _log.exception("A chore failed by an error of ours; it will be tried again")
            await self.clock.sleep(every)

    async def _reserve_ahead(self) -> None:
        await self._header.reserve(self._order.next, self.commits.next_creation)

    async def look_after_shelves(self) -> None:
        """Write back what somebody deleted in Orthanc, if anything. Raises StoreUnavailable."""
        if await self.entries.missing():
            await self.restore()

    async def restore(self) -> None:
        """Somebody deleted the pseudo patient: write everything back. Raises StoreUnavailable."""
        async with self._gate.everything():
            _log.error("The worklist in Orthanc's metadata was deleted; writing it back from the projection")
            written = await self.entries.restore(self._everything())
            _log.warning("Wrote %d entries of the worklist back; nothing is lost", written)
            self.counters.add("restores")

    async def _everything(self) -> AsyncIterator[Entry]:
        for key, document, version in self._header.entries():
            yield Entry(key, document, version)
        for log in self.ledger.logs():
            written = self.ledger.version(log.receiving_ae)
            if written:
                yield Entry(f"subscriber/{log.receiving_ae}", encode_log(log), written)
        for entry in self.shadow.tombstone_entries():
            yield entry
        for overflows in list(self.commits.overflows.values()):
            for one in overflows:
                yield one.entry()
        for key, document, version in self.projection.documents():
            yield Entry(key, document, version)

    def _rebuild_soon(self) -> None:
        task = asyncio.ensure_future(self._rebuild())
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    async def _rebuild(self) -> None:
        """The projection failed: make it anew from the store, with nobody writing meanwhile."""
        async with self._gate.everything():
            while self.shadow.broken:
                try:
                    self.projection.renew()
                    await Loader(self.entries, self.projection).load()
                    self.shadow.broken = False
                    _log.warning("The projection is rebuilt: %d workitems", self.shadow.count())
                except Exception as error:
                    _log.error("The projection cannot be rebuilt yet: %s", error)
                    await self.clock.sleep(_RETRY_AFTER)

    # --- SCP Status Change (PS3.4 CC.2.4.1) ---

    def _status_event(self, status: str, sequence: int) -> Event:
        told = scp_status_change(status)
        receivers = tuple(sorted({*self.settings.status_change_receivers, *self.ledger.everyone()}))
        now = self.clock.now()
        return Event(sequence, told.type, GLOBAL_SUBSCRIPTION, told.information, receivers, now)

    def _announce(self, status: str) -> None:
        ticket = self._order.take(1)
        event = self._status_event(status, ticket.first)
        self._order.settle(ticket, (event,) if event.receivers else ())

    # --- stop ---

    async def stop(self, farewell: float = _FAREWELL) -> None:
        """Let running commands end, say GOING DOWN within some seconds, and store the cursors."""
        for chore in self._chores:
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.worklist.drain(), _LAST_COMMANDS)
        await self.delivery.going_down(self._status_event("GOING DOWN", self._order.next), farewell)
        self.projection.close()
