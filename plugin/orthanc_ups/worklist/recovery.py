# SPDX-License-Identifier: AGPL-3.0-or-later
"""Loads the worklist, and restores the store from the projection, or the projection from the store, after a loss."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from itertools import chain
from typing import Final

from ..core.events import Event
from ..projection.projection import ProjectionBroken
from ..store import keys
from ..store.copy import CopiedEntries
from ..store.documents import encode_log, is_tombstone
from ..store.notes import Notes
from ..store.port import Entry, ShelvesLost, StoreUnavailable
from ..store.shelf_set import StoreMisconfigured
from .commits import Commits
from .loader import Loader, Stored, unsettled_events
from .state import WorklistState
from .workitem_store import IndexMark

_log = logging.getLogger("orthanc_ups.worklist")
_RETRY_AFTER: Final = 2.0
_KINDS: Final = {
    "delivery": "delivery cursor",
    "dead": "batch of dead letters",
    "events": "batch of events",
    "subscriber": "log of global subscriptions",
    "worklist": "header",
    "note": "note",
}


class Recovery:
    """Loads the worklist at a start and after failures, and writes back what somebody deleted.

    Attributes:
        given_up: why deleted entries are no longer written back; "" normally.
    """

    def __init__(
        self, state: WorklistState, entries: CopiedEntries, commits: Commits, notes: Notes, mark: IndexMark
    ) -> None:
        self._state = state
        self._entries = entries
        self._commits = commits
        self._notes = notes
        self._mark = mark
        self._is_restoring = False
        self._check_again = False
        self.given_up = ""

    # --- at the start ---

    def take(self, others: Sequence[Entry]) -> Stored:
        """Take over the worklist that this node followed as a standby.

        ``others`` are all entries but the workitems, which the projection has.
        """
        self._entries.take(others)
        self._state.projection.forget_old()
        return Loader(self._entries, self._state.projection).sort(others)

    async def load(self) -> Stored:
        """Read the store, or the part of it that the projection may lack. There must be no writes meanwhile.

        What was deleted while Orthanc was off is written back first, as far as there is a copy.

        Raises StoreUnavailable, also if no projection can be made.
        """
        try:
            stored = await self._load()
            self._state.projection.forget_old()
        except ProjectionBroken as error:
            _log.error("The projection failed (%s); creating it again", error)
            stored = await self._rebuilt_and_loaded()
        if not stored.damaged:
            await self._mark.begin()
        return stored

    async def _rebuilt_and_loaded(self) -> Stored:
        try:
            self._state.projection.renew()
            return await Loader(self._entries, self._state.projection).load()
        except ProjectionBroken as error:
            raise StoreUnavailable(f"no projection can be made: {error}", certain=True) from error

    async def _load(self) -> Stored:
        changed = await self._mark.changed()
        if changed is None:
            return await self._load_whole()
        _log.info("The search index lacks at most the last changes of %d workitems", len(changed))
        return await Loader(self._entries, self._state.projection).load(changed)

    async def _load_whole(self) -> Stored:
        try:
            return await Loader(self._entries, self._state.projection).load()
        except ShelvesLost:
            await self._fill_missing()
            return await Loader(self._entries, self._state.projection).load()

    async def _fill_missing(self) -> None:
        """Write missing entries back. At the very first start there are none to write."""
        copied: Counter[str] = Counter()
        copies = chain(self._entries.copy.entries(), self._workitems(), self._old_workitems())
        written = await self._entries.restore(_one_by_one(_counted(copies, copied)))
        if written:
            had = ", ".join(f"{count} × {kind}" for kind, count in copied.items())
            _log.error("The worklist in Orthanc's metadata was deleted; wrote %d entries back (the copy has %s)",
                       written, had)  # fmt: skip
        self._log_losses(copied["workitem"])

    def _old_workitems(self) -> Iterator[Entry]:
        for key, version, document in self._state.projection.old_documents():
            yield Entry(key, document, version)

    def _log_losses(self, workitems: int) -> None:
        """Log what was deleted while Orthanc was off and has no copy; nothing at the very first start."""
        renewed, copy = self._state.projection.renewed, self._entries.copy
        if renewed and not copy.is_new and not workitems:
            _log.error("The workitems in what was deleted are lost: the projection is rebuilt (%s)", renewed)
        elif copy.is_new and not renewed:
            _log.error("Subscriptions, delivery cursors, dead letters and tombstones in what was deleted are lost: "
                       "there is no copy of them")  # fmt: skip

    def repair_copy(self) -> None:
        """Write the copy again from memory if its file failed."""
        if self._entries.exposed and self._entries.copy.broken is not None:
            self._entries.copy.fill(self._all_but_workitems())

    def _workitems(self) -> Iterator[Entry]:
        for key, document, version in self._state.projection.documents():
            yield Entry(key, document, version)

    # --- what the store lost ---

    async def look_after_shelves(self) -> None:
        """Write back what somebody deleted in Orthanc, if anything; retries until that succeeds, or never can.

        If it is called while it is running, it checks once more at the end, because it may have missed later deletions.
        """
        self._check_again = True
        if self._is_restoring:
            return
        self._is_restoring = True
        try:
            while self._check_again and not self.given_up:
                self._check_again = False
                while not await self._tried_to_restore():
                    await self._state.sleep(_RETRY_AFTER)
        finally:
            self._is_restoring = False

    async def _tried_to_restore(self) -> bool:
        try:
            if await self._entries.missing():
                await self.restore()
        except StoreUnavailable as error:
            _log.error("What was deleted in Orthanc cannot be written back yet: %s", error)
            return False
        except StoreMisconfigured as error:
            self.given_up = str(error)
            _log.error("Nothing can be stored from now on: %s", error)
        return True

    async def restore(self) -> None:
        """If somebody deleted shelves, write everything back, while all commands wait.

        Raises StoreUnavailable, or ProjectionBroken; then the store is left as it is.
        """
        async with self._state.locks.everything(patiently=True):
            if not await self._entries.missing():
                return
            await self._write_back(self._everything(), "nothing is lost")

    async def _write_back(self, copies: Iterator[Entry], verdict: str) -> None:
        _log.error("The worklist in Orthanc's metadata was deleted; writing it back")
        written = await self._entries.restore(_one_by_one(copies))
        _log.warning("Wrote %d entries of the worklist back; %s", written, verdict)
        self._state.counters["restores"] += 1

    def _everything(self) -> Iterator[Entry]:
        """Every entry, workitems last: after a crash the next start still has those in the projection."""
        yield from self._all_but_workitems()
        yield from self._workitems()

    def _all_but_workitems(self) -> Iterator[Entry]:
        yield from self._state.worklist_entry.entries()
        yield from self._notes.stored()
        for log in self._state.subscriptions.logs():
            written = self._state.subscriptions.version(log.receiving_ae)
            if written:
                yield Entry(keys.subscriber(log.receiving_ae), encode_log(log), written)
        yield from list(self._state.delivery.stored())
        yield from self._state.workitems.tombstones.entries()
        yield from (overflow.entry for overflow in self._state.overflows.all())

    # --- what the projection lost ---

    async def rebuild(self) -> None:
        """The projection failed: rebuild it from the store, while all commands wait."""
        async with self._state.locks.everything(patiently=True):
            while self._state.workitems.broken:
                try:
                    await self._rebuilt()
                except (StoreUnavailable, ProjectionBroken) as error:
                    _log.error("The projection cannot be rebuilt yet: %s", error)
                except Exception:
                    _log.exception("The projection cannot be rebuilt: internal error")
                if self._state.workitems.broken:
                    await self._state.sleep(_RETRY_AFTER)

    async def _rebuilt(self) -> None:
        if await self._entries.missing():
            await self._save()
        self._state.projection.renew()
        stored = await Loader(self._entries, self._state.projection).load()
        if not stored.damaged:
            await self._mark.begin()
        self._state.workitems.broken = False
        self._state.counters["rebuilds"] += 1
        self.log_events(self.stored_events(0))
        _log.warning("The projection is rebuilt: %d workitems", self._state.projection.count())

    async def _save(self) -> None:
        """Store and projection are both damaged: write back what can still be read from the projection."""
        try:
            await self._write_back(self._everything(), "the last changes of some may be lost")
        except ProjectionBroken as error:
            _log.error("The copy of the deleted worklist cannot be read either: %s", error)
            await self._write_back(self._all_but_workitems(), "workitems are lost")

    def stored_events(self, after: int) -> list[Event]:
        """Every stored event after a sequence number, in order; settled ones may be among them."""
        workitems = self._state.projection.with_events_after(after)
        return unsettled_events(workitems, self._state.overflows.all())

    def log_events(self, events: Iterable[Event]) -> None:
        """Fill the event log of a new projection with the events that documents still hold."""
        self._state.workitems.record(list(events))


def _counted(entries: Iterable[Entry], by_kind: Counter[str]) -> Iterator[Entry]:
    """The same entries, counted by kind as they pass."""
    for entry in entries:
        kind = entry.key.partition("/")[0]
        by_kind["purged workitem" if is_tombstone(entry.document) else _KINDS.get(kind, kind)] += 1
        yield entry


async def _one_by_one(entries: Iterator[Entry]) -> AsyncIterator[Entry]:
    for entry in entries:
        yield entry
