# SPDX-License-Identifier: AGPL-3.0-or-later
"""Imports an export, record by record, and keeps a report on it.

Into an empty worklist the export is restored (``Restore``), into any other it is merged (``Merge``). Records that were
imported before are recognized, so an import may be repeated, or restarted after a crash.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from ..core.commands import Requester
from ..core.events import Event
from ..core.statuses import RESOURCE_LIMITATION, UpsError
from ..core.subscriptions import Log, joined, strongest
from ..core.workitem import SpecificAct, Workitem
from ..delivery.documents import Batch, Progress
from ..delivery.queue import Waiting
from ..modality.performed_step_store import PerformedSteps
from ..modality.performed_steps import PerformedStep
from ..worklist.commits import Commits
from ..worklist.state import WorklistState
from ..worklist.worklist import Worklist
from .merge import Merge
from .records import (
    IMPORTED,
    UNCHANGED,
    AeCursors,
    Head,
    ImportOutcome,
    ImportResult,
    Purged,
    Record,
    Tail,
    conflict,
)
from .restore import Restore

_log = logging.getLogger("orthanc_ups.worklist")
IMPORT: Final = "import"
PATIENCE: Final = 60.0
"""Seconds without a record after which an import is abandoned."""
MAXIMUM_LISTED: Final = 100
KINDS: Final = ("subscribers", "deliveries", "workitems", "purged", "performed_steps", "dead_letters")


class ImportNotStarted(Exception):
    """A record arrived before the head of its export, or after the import was abandoned."""


@dataclass(frozen=True, slots=True)
class RecordConflict:
    """A record that was not imported because it differs from the record here."""

    kind: str
    name: str
    why: str


@dataclass(slots=True)
class ImportReport:
    """The progress and the results of an import.

    Attributes:
        state: ``none``, ``running``, ``complete`` or ``abandoned``.
        mode: ``restore`` or ``merge``, empty before the head.
        identity: of the exported worklist.
        expected: number of records by kind, as announced by the head.
        counts: number of records by kind and outcome; each dead letter counts.
        conflicts: the first ``MAXIMUM_LISTED`` of them.
    """

    state: str = "none"
    mode: str = ""
    identity: str = ""
    expected: Mapping[str, int] = field(default_factory=dict)
    counts: Counter[tuple[str, ImportOutcome]] = field(default_factory=Counter)
    conflicts: list[RecordConflict] = field(default_factory=list)

    def note(self, record: Record, result: ImportResult) -> None:
        """Count a record, and list it if it is a conflict."""
        kind, name, number = _named(record)
        self.counts[kind, result.outcome] += number
        if result.outcome is ImportOutcome.CONFLICT and len(self.conflicts) < MAXIMUM_LISTED:
            self.conflicts.append(RecordConflict(kind, name, result.why))


class ImportSession:
    """Runs one import at a time, on the loop. Callers must send the records one after the other."""

    def __init__(
        self, state: WorklistState, commits: Commits, worklist: Worklist, steps: PerformedSteps
    ) -> None:
        self._state = state
        self._steps = steps
        self._commits = commits
        self._worklist = worklist
        self._restore = Restore(state, commits)
        self._merge: Merge | None = None
        self._respelling = Respelling(state.titles.use)
        self._last_at = 0.0
        self._lock = asyncio.Lock()  # held while a record is imported, or an abandoned import is ended
        self.report = ImportReport()

    async def import_record(self, record: Record, requester: Requester) -> None:
        """Import one record.

        Raises:
            ImportNotStarted: the head must come first.
            UpsError: it cannot be imported now, or a filter is wrong.
            StoreUnavailable: Orthanc cannot store it now. In this case and after an UpsError, nothing of the record
                was imported, and it may be sent again.
        """
        self._last_at = self._state.now().timestamp()
        async with self._lock:
            await (self._start(record, requester) if isinstance(record, Head) else self._continue(record))

    async def _start(self, head: Head, requester: Requester) -> None:
        requester = replace(requester, via=IMPORT)
        async with self._state.locks.everything():
            restoring = self._restore.is_possible(head)
            if restoring:
                await self._restore.begin(head)
            await self._state.worklist_entry.note_origins((head.identity, *head.origins))
        if not restoring and self._state.delivery.held_from() is not None:
            await self._restore.end(None)
        self._respelling = Respelling(self._state.titles.use)
        self._merge = Merge(self._state, self._commits, self._worklist, requester)
        mode = "restore" if restoring else "merge"
        self.report = ImportReport("running", mode, head.identity, head.counts)
        _log.warning("%s: an import from worklist %s starts (%s)", requester, head.identity, mode)

    async def _continue(self, record: Record) -> None:
        if self._merge is None:
            raise ImportNotStarted("an import must start with the header line of its export")
        if isinstance(record, Tail):
            await self._end(record)
            return
        record = self._respelling.respelled(record)
        restoring = self.report.mode == "restore"
        result = await (
            self._restore_record(record, self._merge)
            if restoring
            else self._merge_record(record, self._merge)
        )
        self.report.note(record, result)

    async def _restore_record(self, record: Record, merge: Merge) -> ImportResult:
        if isinstance(record, Workitem):
            self._check_capacity(record)
            return await self._restore.workitem(record) or await merge.workitem(record)
        if isinstance(record, Log):
            merge.note(record)
            return await self._restore.log(record)
        if isinstance(record, AeCursors):
            merge.note(record)
            return await self._restore.cursors(record)
        if isinstance(record, Batch):
            return await self._restore.dead_letters(record)
        return await self._import_step_or_purged(record)

    async def _merge_record(self, record: Record, merge: Merge) -> ImportResult:
        if isinstance(record, Workitem):
            self._check_capacity(record)
            return await merge.workitem(record)
        if isinstance(record, Log):
            return await merge.log(record)
        if isinstance(record, AeCursors):
            merge.note(record)
            return ImportResult(ImportOutcome.LEFT_OUT)
        if isinstance(record, Batch):
            return await merge.dead_letters(record)
        return await self._import_step_or_purged(record)

    async def _import_step_or_purged(self, record: Record) -> ImportResult:
        if isinstance(record, PerformedStep):
            return await self._import_step(record)
        assert isinstance(record, Purged)
        return await self._restore.purged(record)

    async def _import_step(self, step: PerformedStep) -> ImportResult:
        """Import a performed procedure step; its workitems have been imported before it."""
        stored = self._steps.get(step.uid)
        if stored is not None:
            is_equal = stored.attributes == step.attributes and stored.workitems == step.workitems
            return UNCHANGED if is_equal else conflict("exists here with different content, which is kept")
        identity = self._state.worklist_entry.identity
        await self._steps.write(replace(step, worklist="" if step.worklist == identity else step.worklist))
        return IMPORTED

    def _check_capacity(self, workitem: Workitem) -> None:
        full = self._state.workitems.count() >= self._state.settings.maximum_workitems
        if full and self._state.workitems.get(workitem.uid) is None:
            raise UpsError(RESOURCE_LIMITATION, "the worklist is full (Ups.MaximumWorkitems)")

    async def _end(self, tail: Tail) -> None:
        if self.report.mode == "restore":
            await self._restore.end(tail)
        self.report.state = "complete"
        self._merge = None
        _log.warning("The import is complete: %s", self._summary())

    def _summary(self) -> str:
        counts = self.report.counts
        return ", ".join(f"{counts[kind, outcome]} {kind} {outcome.value}" for kind, outcome in counts)

    async def clean_up(self) -> None:
        """Abandon an import whose client has gone away, and release the held queues. Called every minute.

        Raises UpsError or ProjectionBroken if queues are still held; the next call tries again.
        """
        async with self._lock:
            if self.report.state == "running":
                if self._state.now().timestamp() - self._last_at < PATIENCE:
                    return
                _log.warning(
                    "No line of the import has arrived for %g s; it is abandoned, and what was imported is kept",
                    PATIENCE,
                )
                self.report.state, self._merge = "abandoned", None
            if self._state.delivery.held_from() is not None:
                await self._restore.end(None)


def _named(record: Record) -> tuple[str, str, int]:
    """The kind and name of a record, and the number that it counts as."""
    if isinstance(record, Log):
        return "subscribers", record.receiving_ae, 1
    if isinstance(record, AeCursors):
        return "deliveries", record.receiving_ae, 1
    if isinstance(record, Batch):
        return "dead_letters", str(record.endpoint), len(record.letters)
    assert isinstance(record, (Workitem, Purged, PerformedStep))
    return _KINDS_WITH_UID[type(record)], record.uid, 1


_KINDS_WITH_UID: Final[Mapping[type, str]] = {
    Workitem: "workitems",
    Purged: "purged",
    PerformedStep: "performed_steps",
}


class Respelling:
    """Changes the AE titles in the records of one export, in order, to the spellings used here."""

    def __init__(self, spelled: Callable[[str], str]) -> None:
        """``spelled`` returns the spelling of an AE title that is used here."""
        self._spelled = spelled
        self._logs: dict[str, Log] = {}
        self._cursors: dict[str, AeCursors] = {}

    def respelled(self, record: Record) -> Record:
        """The record with the spellings used here, joined with earlier records of other spellings of the AE title."""
        if isinstance(record, Log):
            return self._log(record)
        if isinstance(record, AeCursors):
            return self._respelled_cursors(record)
        if isinstance(record, Workitem):
            return self._workitem(record)
        if isinstance(record, PerformedStep):
            return replace(record, ae=self._spelled(record.ae))
        return self._batch(record) if isinstance(record, Batch) else record

    def _log(self, log: Log) -> Log:
        title = self._spelled(log.receiving_ae)
        self._logs[log.receiving_ae] = log
        logs = [earlier for name, earlier in self._logs.items() if self._spelled(name) == title]
        return joined(title, logs) if len(logs) > 1 else replace(log, receiving_ae=title)

    def _respelled_cursors(self, cursors: AeCursors) -> AeCursors:
        title = self._spelled(cursors.receiving_ae)
        earlier = self._cursors.get(title)
        channels = (
            cursors.channels if earlier is None else _joined_channels(earlier.channels, cursors.channels)
        )
        self._cursors[title] = AeCursors(title, channels)
        return self._cursors[title]

    def _workitem(self, workitem: Workitem) -> Workitem:
        names: dict[str, list[str]] = {}
        for name in (*workitem.acts, *self._logs):
            names.setdefault(self._spelled(name), []).append(name)
        acts = {
            title: self._act(list(dict.fromkeys(own)), workitem)
            for title, own in names.items()
            if not workitem.acts.keys().isdisjoint(own)
        }
        return replace(workitem, acts=acts, events=tuple(map(self._event, workitem.events)))

    def _act(self, names: list[str], workitem: Workitem) -> SpecificAct:
        acts = [workitem.acts[name] for name in names if name in workitem.acts]
        if len(names) == 1:
            return acts[0]
        return replace(strongest(names, self._logs, workitem), sequence=max(act.sequence for act in acts))

    def _event(self, event: Event) -> Event:
        return replace(event, receivers=tuple(sorted({self._spelled(name) for name in event.receivers})))

    def _batch(self, batch: Batch) -> Batch:
        title = self._spelled(batch.endpoint.receiving_ae)
        letters = tuple(self._letter(letter, title) for letter in batch.letters)
        return replace(batch, endpoint=replace(batch.endpoint, receiving_ae=title), letters=letters)

    def _letter(self, letter: Waiting, title: str) -> Waiting:
        if isinstance(letter, Event):
            return replace(letter, receivers=(title,))
        return replace(letter, burst=replace(letter.burst, receiving_ae=title))


def _joined_channels(first: Mapping[str, Progress], second: Mapping[str, Progress]) -> dict[str, Progress]:
    """The lower cursor of each channel, so no event is missed; only events dropped in both are dropped."""
    return {name: _joined_progress(first.get(name), second.get(name)) for name in {**first, **second}}


def _joined_progress(first: Progress | None, second: Progress | None) -> Progress:
    if first is None or second is None:
        present = first or second
        assert present is not None
        return present
    cursors = [progress.cursor for progress in (first, second) if progress.cursor is not None]
    dropped = tuple(sorted({*first.dropped} & {*second.dropped}))
    return Progress(min(cursors, default=None), dropped, first.tally)
