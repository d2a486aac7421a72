# SPDX-License-Identifier: AGPL-3.0-or-later
"""The UPS service without its network: worklist, delivery and retention on one asyncio loop."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from datetime import UTC, datetime, tzinfo
from itertools import chain
from typing import Final

from .core.ae_titles import AeTitles
from .core.events import Event, scp_status_change
from .core.statuses import UpsError
from .core.tags import GLOBAL_SUBSCRIPTION
from .delivery.outbox import Delivery
from .delivery.port import Channel, Clock
from .modality.performed_step_store import PerformedSteps
from .projection.projection import Projection, ProjectionBroken
from .settings import Settings
from .store.copy import CopiedEntries, EntriesCopy, path_beside
from .store.journal import IndexJournal
from .store.journal import path_beside as journal_beside
from .store.notes import Notes
from .store.port import Entry, RestorableEntries, StoreUnavailable
from .store.writer import Writer
from .transfer.exporter import Exporter
from .transfer.importer import PATIENCE, ImportSession
from .worklist.ae_title_migration import AeTitleMigration
from .worklist.commits import Commits
from .worklist.initial_reports import InitialReports
from .worklist.loader import Stored, bursts, numbers_in_use, slowest_cursor
from .worklist.locks import CommandLocks
from .worklist.order import Order, WorklistEntry
from .worklist.overflows import Overflows
from .worklist.recovery import Recovery
from .worklist.retention import Retention
from .worklist.state import WorklistState
from .worklist.subscriptions import Subscriptions
from .worklist.workitem_store import ChangeFeed, IndexMark, WorkitemStore
from .worklist.worklist import ReceivingAes, Worklist

_log = logging.getLogger("orthanc_ups")
_RETENTION_EVERY: Final = 60.0
_RESERVATION_EVERY: Final = 1.0
_MARK_EVERY: Final = 10.0
_LAST_EVENT_WITHIN: Final = 3.0
_LAST_COMMANDS_WITHIN: Final = 2.0


class UpsService:
    """Everything between the interfaces and the store.

    ``start`` loads the worklist; only then may the interfaces use the attributes. Call ``stop`` at the end. Every
    method must be called on the same asyncio loop.
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
        zone: tzinfo | None = None,
        titles: AeTitles | None = None,
        copy: EntriesCopy | None = None,
    ) -> None:
        """Args:
        zone: of date-times without offset, as in ``projection``; the zone of the machine by default.
        copy: the copy of the entries; a file beside the projection by default.
        """
        self.settings = settings
        self.copy = copy or EntriesCopy(path_beside(projection.path))
        journal_path = None if entries.exposed else journal_beside(projection.path)
        journal = None if journal_path is None else IndexJournal(journal_path)
        self.entries = entries = CopiedEntries(entries, self.copy, self.shelves_deleted, journal)
        self.projection = projection
        projection.is_copy = entries.exposed
        self.clock = clock
        self.titles = titles or AeTitles()
        for title in (*settings.status_change_receivers, *chain.from_iterable(settings.users.values())):
            self.titles.use(title)
        self._zone = zone or datetime.now().astimezone().tzinfo
        self.counters: Counter[str] = Counter()
        self.changes = ChangeFeed(int(clock.now() * 1000))
        self.subscriptions = Subscriptions(self._zone)
        self._writer = Writer(entries, clock.sleep)
        self._mark = IndexMark(entries, self._writer, projection, journal)
        self._worklist_entry = WorklistEntry(self._writer)
        self.notes = Notes(entries)
        self.order = Order(1, self._release)
        self.locks = CommandLocks()
        self.workitems = WorkitemStore(projection, self._writer, journal, self.changes, self._rebuild_soon)
        reports = InitialReports(self.workitems, self.subscriptions)
        self.delivery = Delivery(settings, channels, entries, reports, self.workitems, clock)
        self._state = state = WorklistState(
            settings,
            self._writer,
            projection,
            self.workitems,
            self.subscriptions,
            Overflows(self._writer, self.delivery),
            self._worklist_entry,
            self.order,
            self.locks,
            self.delivery,
            self.titles,
            self.counters,
            self._now,
            clock.sleep,
        )
        self.commits = Commits(state)
        self.worklist = Worklist(state, self.commits, receiving_aes)
        self._migration = AeTitleMigration(self._writer, projection, self.titles)
        self._recovery = Recovery(state, self.entries, self.commits, self.notes, self._mark)
        self._retention = Retention(
            settings, self.worklist, self.workitems, self.subscriptions, own_ae, self._now
        )
        self.performed_steps = PerformedSteps(self.notes)
        self.exporter = Exporter(state, self.commits, self.performed_steps)
        self.import_session = ImportSession(state, self.commits, self.worklist, self.performed_steps)
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_new = False
        self._started = False
        self._stopping = False

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.clock.now(), UTC).astimezone(self._zone)

    def _release(self, events: Sequence[Event]) -> None:
        self.workitems.record(events)
        self.delivery.offer(events)

    @property
    def identity(self) -> str:
        """Distinguishes this worklist from any other; never changes."""
        return self._worklist_entry.identity

    @property
    def identities(self) -> tuple[str, ...]:
        """The identity of this worklist, then those of worklists whose exports were imported here."""
        return self._worklist_entry.identity, *self._worklist_entry.origins

    @property
    def in_flight(self) -> int:
        """Changes that are being written."""
        return self.order.in_flight

    @property
    def store_is_silent(self) -> bool:
        """True while Orthanc's store does not answer."""
        return self._writer.is_stuck

    @property
    def store_trouble(self) -> str:
        """Why nothing can be stored any more, or why the last write failed; "" if it succeeded."""
        return self._recovery.given_up or self._writer.trouble

    async def prove_store(self) -> None:
        """Write the worklist entry unchanged, to see whether the store accepts writes. Raises StoreUnavailable."""
        await self._worklist_entry.prove()

    # --- start ---

    async def start(self, *, restarted: bool = True, followed: Sequence[Entry] | None = None) -> None:
        """Load the worklist, resume delivery, and send the SCP Status Change RESTARTED.

        Args:
            restarted: False if the worklist has been open on another node until now; then nothing is sent.
            followed: all entries but workitems, if the projection is certain to have those.

        Raises StoreUnavailable; then it may be called again, without ``followed``.
        """
        try:
            stored = await self._loaded(followed)
            if await self._migration.run(stored, self.subscriptions, self._worklist_entry.sequences - 1):
                self.subscriptions.clear()
                stored = await self._loaded()
            await self._resume(stored)
        except ProjectionBroken as error:
            raise StoreUnavailable(f"the projection failed: {error}", certain=True) from error
        self._started = True
        self.shelves_deleted()  # somebody may have deleted shelves since they were read
        if restarted:
            self._announce("RESTARTED")
        self._repeat(self._reserve_ahead, _RESERVATION_EVERY)
        self._repeat(self._renew_mark, _MARK_EVERY)
        self._repeat(self._maintain, _RETENTION_EVERY)
        self._repeat(self._retention.run_once, _RETENTION_EVERY)
        self._repeat(self.import_session.clean_up, PATIENCE)

    async def _loaded(self, followed: Sequence[Entry] | None = None) -> Stored:
        stored = await self._recovery.load() if followed is None else self._recovery.take(followed)
        self._take_over(stored)
        return stored

    async def _resume(self, stored: Stored) -> None:
        await self.delivery.load(stored.delivery)
        await self._worklist_entry.reserve(self.order.next, self.commits.next_creation)
        waiting = self._recovery.stored_events(slowest_cursor(stored.delivery, self.subscriptions.aes()))
        # The last events before a crash may not have reached the log.
        unlogged = (
            waiting if self.projection.renewed else self._recovery.stored_events(self.projection.last_event())
        )
        self._recovery.log_events(unlogged)
        self.delivery.resume(waiting, bursts(self.subscriptions.logs()), self.order.next - 1)

    def _take_over(self, stored: Stored) -> None:
        for log, version in stored.logs:
            self.subscriptions.keep(log, version)
        for workitem in self.projection.with_acts():
            self.subscriptions.note(workitem)
        for entry in stored.tombstones:
            self.workitems.tombstones.take(entry)
        self._state.overflows.load(stored.overflows)
        for entry in stored.notes:
            self.notes.take(entry)
        self.performed_steps.load()
        self._is_new = not (stored.worklist_entry or stored.logs or self.projection.count())
        if not self._worklist_entry.find(stored.worklist_entry):
            self._worklist_entry.at_least(*numbers_in_use(self.projection, stored))
        self.order.start_at(self._worklist_entry.sequences)
        self.commits.next_creation = max(self.commits.next_creation, self._worklist_entry.creations)

    # --- periodic tasks ---

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        if self._stopping:
            work.close()
            return
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _repeat(self, work: Callable[[], Awaitable[None]], every: float) -> None:
        self._begin(self._run_repeatedly(work, every))

    async def _run_repeatedly(self, work: Callable[[], Awaitable[None]], every: float) -> None:
        while True:
            try:
                await work()
            except StoreUnavailable as error:
                _log.warning("Postponed, because Orthanc's store is not available: %s", error)
            except UpsError as error:
                _log.warning("Postponed: %s", error.detail)
            except Exception:
                _log.exception("A periodic task failed: internal error; it will be tried again")
            await self.clock.sleep(every)

    async def _reserve_ahead(self) -> None:
        await self._worklist_entry.reserve(self.order.next, self.commits.next_creation)

    async def _renew_mark(self) -> None:
        with suppress(ProjectionBroken):  # it is being rebuilt
            await self._mark.renew()

    async def _maintain(self) -> None:
        self.workitems.check_file()
        self._recovery.repair_copy()
        await self._state.overflows.sweep()

    async def look_after_shelves(self) -> None:
        """Write back what somebody deleted in Orthanc, if anything; retries until that succeeds, or never can."""
        await self._recovery.look_after_shelves()

    async def restore(self) -> None:
        """Write back what somebody deleted in Orthanc. Raises StoreUnavailable."""
        await self._recovery.restore()

    def shelves_deleted(self) -> None:
        """Somebody may have deleted shelves in Orthanc: check soon, or at the end of the start."""
        if self._started:
            self._begin(self.look_after_shelves())

    def _rebuild_soon(self) -> None:
        self._begin(self._recovery.rebuild())

    # --- SCP Status Change (PS3.4 CC.2.4.1) ---

    def _status_event(self, status: str, sequence: int, *, cold: bool = False) -> Event:
        report = scp_status_change(status, cold=cold)
        always = map(self.titles.spelled, self.settings.status_change_receivers)
        receivers = tuple(sorted({*always, *self.subscriptions.subscribed_aes()}))
        now = self.clock.now()
        return Event(sequence, report.type, GLOBAL_SUBSCRIPTION, report.information, receivers, now)

    def _announce(self, status: str) -> None:
        ticket = self.order.take(1)
        event = self._status_event(status, ticket.first, cold=self._is_new)
        self.order.settle(ticket, (event,) if event.receivers else ())

    # --- stop ---

    async def stop(
        self,
        event_within: float = _LAST_EVENT_WITHIN,
        commands_within: float = _LAST_COMMANDS_WITHIN,
        *,
        goes_down: bool = True,
    ) -> None:
        """Let running commands end, send the SCP Status Change GOING DOWN, and store the cursors.

        Args:
            event_within: how many seconds the event may take.
            commands_within: how many seconds the commands may take.
            goes_down: False if the worklist continues on another node; then nothing is sent.
        """
        self._stopping = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.worklist.close(commands_within)
        event = self._status_event("GOING DOWN", self.order.next) if goes_down else None
        await self.delivery.going_down(event, event_within)
        with suppress(StoreUnavailable):  # then the next start reads more
            await self._renew_mark()
        self._mark.close()
        self.projection.close()
        self.copy.close()
