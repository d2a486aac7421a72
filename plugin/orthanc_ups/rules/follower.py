# SPDX-License-Identifier: AGPL-3.0-or-later
"""Follows Orthanc's changes and the ends of workitems, and fires rules. Nothing is lost in a crash or while stopped.

``/changes`` is read from a stored cursor on. Whether a series, study or patient is stable is decided here, because a
crash loses the change by which Orthanc would report it. The cursor is stored after the effects, so a crash repeats some
of them, which is harmless (``effects.py``).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, tzinfo
from functools import partial
from typing import Final, Protocol

from ..core import tags
from ..core.commands import ChangeState, Close, Command, Create, RequestCancel, Update
from ..core.dataset import DataSet, element, items, text, values
from ..core.matching import Query
from ..core.outcome import Outcome
from ..core.pauses import growing
from ..core.states import State
from ..core.statuses import UpsError
from ..core.workitem import Workitem
from ..delivery.port import Clock
from ..management.keyword_form import to_keywords
from ..orthanc.identifiers import identifier_of
from ..store.documents import UnreadableDocument
from ..store.port import StoreUnavailable
from ..store.writer import StoredEntry
from .archive import Archive, Change, ChangesPage, SeriesFacts
from .causes import STABLE, Cause, When
from .definitions import SiteRule
from .effects import INPUT, is_of_images
from .engine import Engine
from .memory import Memory, decode_memory, save
from .worklist_access import WorklistAccess

_log = logging.getLogger("orthanc_ups.rules")
_GATHER: Final = 0.25
_GATHER_UNDER_LOAD: Final = 1.0
_SAVE_EVERY: Final = 2.0
_BYTES_PER_SECOND: Final = 50_000
_LOOK_EVERY: Final = 5.0
_LOOK_EVERY_WHERE_SHARED: Final = 1.0
_OVERLAP: Final = 60.0
_PAGE: Final = 200
_ROWS_WITHOUT_SAVE: Final = 5_000
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 10.0
_OPEN_AT_ONCE: Final = 10_000
_ATTEMPTS: Final = 5
_FIRED_AT_ONCE: Final = 50
_SERIES_AT_ONCE: Final = 200
_LONGEST_REST: Final = 0.5
_ENDS: Final = {State.COMPLETED: When.COMPLETED, State.CANCELED: When.CANCELED}
_DICOM_RETRIEVAL: Final = "0040E021"
_RETRIEVE_AE: Final = "00080054"
_STUDY: Final = "0020000D"


class ChangeNotes(Protocol):
    """The notes of Orthanc's callback (``ChangeListener``)."""

    def on_change(self, function: Callable[[], None] | None) -> None:
        """Call a function when something happens; None to call nothing any more."""
        ...

    def begin_round(self) -> None:
        """A round begins: changes from now on wake the follower again."""
        ...

    def series_of(self, instance: str) -> str | None:
        """The series of an instance that has just arrived."""
        ...

    def deleted_studies(self) -> list[str]:
        """The studies that were deleted since the last call."""
        ...


class Follower:
    """Reads what is new, fires rules and stores how far it is. All methods are called on the asyncio loop."""

    def __init__(
        self,
        engine: Engine,
        archive: Archive,
        worklist: WorklistAccess,
        memory: Memory,
        note: StoredEntry,
        change_notes: ChangeNotes,
        clock: Clock,
        *,
        stable_age: float,
        is_own: Callable[[str], bool],
        shares_database: bool = False,
    ) -> None:
        """``stable_age`` is Orthanc's ``StableAge``, in seconds.

        ``is_own``: whether an identifier of Orthanc is that of a resource in which the worklist is stored.
        """
        self._engine, self._archive, self._worklist = engine, archive, worklist
        self._memory, self._note = memory, note
        self._change_notes, self._clock = change_notes, clock
        self._stable_age, self._is_own = stable_age, is_own
        self._look_every = _LOOK_EVERY_WHERE_SHARED if shares_database else _LOOK_EVERY
        kinds = {rule.when for rule in engine.rules}
        self._levels = tuple(level for level, when in STABLE.items() if when in kinds)
        self._of_instances = tuple(engine.of(When.STORED_INSTANCE))
        self._with_labels = engine.needs_labels
        self._follows_images = bool(self._levels or self._of_instances)
        self._follows_ends = bool(kinds & {When.COMPLETED, When.CANCELED})
        self._follows_deletions = When.DELETED in kinds
        self._wakeup = asyncio.Event()
        self._uploads_continue = False
        self._ended_uids: dict[str, None] = {}
        self._deleted: dict[str, None] = {}
        self._changed_workitems: dict[str, None] = {}
        self._dirty = False
        self._saved_at = 0.0
        self._saved_cursor = 0
        self._save_every = _SAVE_EVERY
        self._gather = _GATHER
        self._failures: dict[str, int] = {}
        self._possible_rules: dict[str, tuple[SeriesFacts, Sequence[SiteRule]]] = {}
        self.behind = 0

    # --- opening ---

    async def open(self) -> None:
        """Read the stored state, and find what happened since. May raise StoreUnavailable."""
        self._read_memory()
        memory, now = self._memory, self._clock.now()
        if not self._follows_images:
            memory.cursor, memory.unstable = None, {}
        else:
            last = await self._archive.last_change()
            if memory.cursor is None:
                memory.cursor = last
            elif memory.cursor > last:
                # Changes of deleted resources are gone, or Orthanc's index was restored from a backup.
                _log.info("Rules continue after change %d, the latest that Orthanc has", last)
                memory.cursor = last
            self._saved_cursor = memory.cursor
        memory.ended_at = (memory.ended_at or now) if self._follows_ends else None
        if not self._follows_deletions:
            memory.studies = {}
        await self._save()
        self._find_ends()
        if self._follows_deletions:
            await self._find_deletions()
        self._change_notes.on_change(self._changed)

    def _changed(self) -> None:
        """An instance arrived or a study was deleted since the last round began."""
        self._uploads_continue = True
        self._wakeup.set()

    def _read_memory(self) -> None:
        if not self._note.document:
            return
        try:
            stored = decode_memory(self._note.document)
        except UnreadableDocument as error:
            _log.error("Cannot read the stored state of the rules (%s); starting over", error)
            return
        for name in ("cursor", "unstable", "ended_at", "studies", "records", "revision"):
            setattr(self._memory, name, getattr(stored, name))
        levels = tuple(f"{level}/" for level in self._levels)
        self._memory.unstable = {
            resource: at for resource, at in self._memory.unstable.items() if resource.startswith(levels)
        }

    def _find_ends(self) -> None:
        """Note workitems that ended since the state was stored, and within the minute before."""
        if self._memory.ended_at is None:
            return
        after, before = (self._memory.ended_at - _OVERLAP, 0), self._clock.now() + 1.0
        while page := self._worklist.ended(after, before, _PAGE):
            self._ended_uids.update(dict.fromkeys(workitem.uid for workitem in page))
            after = (page[-1].ended or 0.0, page[-1].created)

    async def run(self) -> None:
        """Follow until canceled."""
        pauses = growing(_FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            self._wakeup.clear()
            self._uploads_continue = False
            self._change_notes.begin_round()
            try:
                await self.round()
            except (StoreUnavailable, UpsError) as error:
                pause = next(pauses)
                _log.warning("Rules are waiting: %s; trying again in %g s", error, pause)
                await self._clock.sleep(pause)
            else:
                pauses = growing(_FIRST_PAUSE, _LONGEST_PAUSE)
                await self._wait()

    async def close(self) -> None:
        """Store the state. May raise StoreUnavailable."""
        self._change_notes.on_change(None)
        if self._dirty:
            await self._save()

    async def _wait(self) -> None:
        """Wait until something happens, becomes stable or is due to be stored; longer while uploads continue."""
        began = self._clock.now()
        try:
            async with asyncio.timeout(self._timeout()):
                await self._wakeup.wait()
        except TimeoutError:
            self._gather = _GATHER
            return
        is_busy = self._clock.now() - began < _GATHER
        self._gather = min(2 * self._gather, _GATHER_UNDER_LOAD) if is_busy else _GATHER
        await self._clock.sleep(self._gather)

    def _timeout(self) -> float:
        now = self._clock.now()
        due = [self._look_every]
        if self._memory.unstable:
            due.append(min(self._memory.unstable.values()) + self._stable_age - now)
        if self._dirty:
            due.append(self._saved_at + self._save_every - now)
        return max(0.05, min(due))

    # --- one round ---

    async def round(self) -> None:
        """Read what is new and fire the rules that are due. May raise StoreUnavailable or UpsError (0213)."""
        if self._follows_images:
            await self._follow_changes()
        await self._fire_ends()
        await self._fire_deletions()
        await self._fire_stable()
        await self._save_in_time()

    async def _save_in_time(self) -> None:
        if self._dirty and self._clock.now() - self._saved_at >= self._save_every:
            await self._save()

    async def _save(self) -> None:
        self._dirty = False
        try:
            size = await save(self._memory, self._note)
        except BaseException:
            self._dirty = True
            raise
        self._save_every = max(_SAVE_EVERY, size / _BYTES_PER_SECOND)
        self._saved_at = self._clock.now()
        self._saved_cursor = self._memory.cursor or 0

    # --- images ---

    async def _follow_changes(self) -> None:
        while True:
            page = await self._archive.changes(self._memory.cursor or 0)
            await self._process(page)
            self._memory.cursor = page.last
            if page.last - self._saved_cursor > _ROWS_WITHOUT_SAVE:
                self._dirty = True
            self.behind = 0 if page.done else 1
            if page.done or not page.rows:
                return
            await self._save_in_time()

    async def _process(self, page: ChangesPage) -> None:
        arrived = [row for row in page.rows if row.kind == "NewInstance" and not self._is_own(row.identifier)]
        if self._follows_deletions:
            await self._note_studies(row for row in page.rows if row.kind == "NewStudy")
        for row in page.rows:
            if row.kind == "NewSeries":  # perhaps deleted before, now with other attributes
                self._archive.forget_series(row.identifier)
        if not arrived:
            return
        self._dirty = True
        series = await self._series(arrived)
        for instance, parent in series.items():
            self._archive.stored(instance, parent)
        now = self._clock.now()
        for row in arrived:
            identifier = series.get(row.identifier)
            if identifier is None:
                continue
            at = min(now, row.at + 1.0 if row.at is not None else now)
            await self._attempt(
                f"instance/{row.identifier}", partial(self._arrived, row.identifier, identifier, at)
            )

    async def _arrived(self, instance: str, series: str, at: float) -> None:
        await self._touch(instance, series, at)
        if self._of_instances:
            await self._fire_instance(instance, series, at)

    async def _attempt(self, key: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do some work, which is given up if it fails repeatedly although Orthanc answers, so that others continue."""
        try:
            await work()
        except UpsError:
            raise
        except Exception as error:
            self._failures[key] = self._failures.get(key, 0) + 1
            await self._archive.last_change()
            if self._failures[key] < _ATTEMPTS:
                raise
            _log.error("Rules gave up %s after %d attempts: %s", key, _ATTEMPTS, str(error) or repr(error))
        self._failures.pop(key, None)

    async def _series(self, arrived: Iterable[Change]) -> Mapping[str, str]:
        """The series of each instance that still exists, by instance."""
        series = {row.identifier: self._change_notes.series_of(row.identifier) for row in arrived}
        noted = {instance: parent for instance, parent in series.items() if parent is not None}
        unknown = [identifier for identifier in series if identifier not in noted]
        return {**noted, **await self._archive.series_of(unknown)}

    async def _touch(self, instance: str, series: str, at: float) -> None:
        if not self._levels:
            return
        resources = {"series": series}
        if len(self._levels) > 1 or "series" not in self._levels:
            facts = await self._archive.series_facts(series, instance)
            if facts is None:
                return
            resources |= {"study": facts.study, "patient": facts.patient}
        for level in self._levels:
            self._memory.touch(f"{level}/{resources[level]}", at)

    async def _fire_instance(self, instance: str, series: str, at: float) -> None:
        facts = await self._archive.series_facts(series, instance)
        rules = self._possible(facts) if facts is not None else ()
        if not rules:
            return
        cause = await self._archive.cause(When.STORED_INSTANCE, instance, labels=self._with_labels)
        if cause is not None:
            await self._engine.react(replace(cause, at=self._time(at)), rules)

    def _possible(self, facts: SeriesFacts) -> Sequence[SiteRule]:
        """The rules that can fire for an instance of a series, from a cache by series."""
        cached_facts, rules = self._possible_rules.get(facts.identifier, (None, ()))
        if cached_facts is facts:
            return rules
        if len(self._possible_rules) >= _SERIES_AT_ONCE:
            self._possible_rules.clear()
        cause = Cause(When.STORED_INSTANCE, "", "", facts.content, self._worklist.now())
        rules = tuple(self._engine.possible(self._of_instances, cause))
        self._possible_rules[facts.identifier] = facts, rules
        return rules

    def _time(self, at: float) -> datetime:
        return datetime.fromtimestamp(at, self._zone)

    @property
    def _zone(self) -> tzinfo | None:
        return self._worklist.now().tzinfo

    async def _fire_stable(self) -> None:
        """Fire rules for resources that have received nothing for ``StableAge``."""
        latest = self._clock.now() - self._stable_age
        due = [(at, resource) for resource, at in self._memory.unstable.items() if at <= latest]
        for at, resource in sorted(due)[:_FIRED_AT_ONCE]:
            began = time.monotonic()
            await self._attempt(resource, partial(self._fire_stable_resource, resource, at))
            del self._memory.unstable[resource]
            self._dirty = True
            await self._save_in_time()
            if (
                self._uploads_continue
            ):  # at most half of the time: Orthanc's index serves one caller at a time
                await self._clock.sleep(min(time.monotonic() - began, _LONGEST_REST))

    async def _fire_stable_resource(self, resource: str, at: float) -> None:
        level, _, identifier = resource.partition("/")
        cause = await self._archive.cause(STABLE[level], identifier, labels=self._with_labels)
        if cause is not None:
            await self._engine.react(replace(cause, at=self._time(at + self._stable_age)))
        if level == "series":
            self._archive.forget_series(identifier)

    # --- ends of workitems ---

    def accepted(self, command: Command, outcome: Outcome) -> None:
        """Note a command that was carried out; called by the worklist."""
        if self._follows_ends and isinstance(command, (ChangeState, Close, RequestCancel)):
            self._ended_uids[outcome.uid] = None
            self._wakeup.set()
        if self._follows_deletions and isinstance(command, (Create, Update)):
            self._changed_workitems[outcome.uid] = None
            self._wakeup.set()

    async def _fire_ends(self) -> None:
        for uid in list(self._ended_uids):
            workitem = self._worklist.workitem(uid)
            if workitem is not None and workitem.state.is_final:
                end = end_of(workitem, self._zone)
                await self._attempt(end.key, partial(self._react, end))
                self._memory.ended_at = max(self._memory.ended_at or 0.0, workitem.ended or 0.0)
                self._dirty = True
            self._ended_uids.pop(uid, None)

    async def _react(self, cause: Cause) -> None:
        await self._engine.react(cause)

    # --- inputs that were deleted ---

    async def _note_studies(self, rows: Iterable[Change]) -> None:
        """Watch those studies that arrived and are inputs of open workitems."""
        for row in rows:
            study = await self._archive.resource("study", row.identifier)
            uid = str(study["MainDicomTags"].get("StudyInstanceUID", "")) if study else ""
            if uid and await self._having_input(uid):
                self._watch(row.identifier, uid)

    async def _find_deletions(self) -> None:
        """Note watched studies that no longer exist, and open workitems, whose inputs will be watched."""
        existing = await self._archive.existing("study", list(self._memory.studies))
        self._deleted.update(
            dict.fromkeys(identifier for identifier in self._memory.studies if identifier not in existing)
        )
        for state in (State.SCHEDULED, State.IN_PROGRESS):
            query = Query.of({tags.SOP_INSTANCE_UID: element("UI"), tags.STATE: element("CS", state.value)})
            self._changed_workitems.update(
                dict.fromkeys(
                    workitem.uid for workitem in await self._worklist.matching(query, _OPEN_AT_ONCE)
                )
            )

    async def _note_inputs(self) -> None:
        """Watch the inputs of workitems that were created or updated, as far as they exist."""
        watched = set(self._memory.studies.values())
        for uid in list(self._changed_workitems):
            workitem = self._worklist.workitem(uid)
            named = own_studies(workitem, self._archive.own_ae) if workitem is not None else set()
            for study in named - watched:
                identifier = (await self._archive.lookup(study)).get("study")
                if identifier:
                    self._watch(identifier, study)
                elif workitem is not None:
                    self._note_absence(workitem, study)
            self._changed_workitems.pop(uid, None)

    def _note_absence(self, workitem: Workitem, study: str) -> None:
        """Note an input that does not exist, if it did: a rule created the workitem, or a deletion was reported."""
        identifier = identifier_of(text(workitem.attributes, tags.PATIENT_ID).strip(), study)
        if identifier in self._deleted or is_of_images(workitem):
            self._watch(identifier, study)
            self._deleted[identifier] = None

    def _watch(self, identifier: str, study: str) -> None:
        if identifier not in self._memory.studies:
            self._memory.studies[identifier] = study
            self._dirty = True

    async def _fire_deletions(self) -> None:
        if not self._follows_deletions:
            self._change_notes.deleted_studies()
            return
        self._deleted.update(dict.fromkeys(self._change_notes.deleted_studies()))
        await self._note_inputs()
        for identifier in list(self._deleted):
            study = self._memory.studies.get(identifier)
            if study is not None and not await self._archive.existing("study", [identifier]):
                for workitem in await self._having_input(study):
                    await self._engine.react(self._deletion(identifier, study, workitem))
                del self._memory.studies[identifier]
                self._dirty = True
            self._deleted.pop(identifier, None)

    async def _having_input(self, study: str) -> list[Workitem]:
        """Open workitems that have a study in this Orthanc as an input."""
        item: DataSet = {_STUDY: element("UI", study)}
        workitems: list[Workitem] = []
        for state in (State.SCHEDULED, State.IN_PROGRESS):
            query = Query.of({INPUT: element("SQ", item), tags.STATE: element("CS", state.value)})
            workitems += await self._worklist.matching(query, _OPEN_AT_ONCE)
        return [workitem for workitem in workitems if study in own_studies(workitem, self._archive.own_ae)]

    def _deletion(self, identifier: str, study: str, workitem: Workitem) -> Cause:
        key = f"study/{identifier} workitem/{workitem.uid}"
        return Cause(
            When.DELETED,
            key,
            f"study {study} was deleted",
            to_keywords(workitem.attributes),
            self._worklist.now(),
            workitem=workitem,
        )


def end_of(workitem: Workitem, zone: tzinfo | None) -> Cause:
    """The end of a workitem as a cause."""
    return Cause(
        _ENDS[workitem.state],
        f"workitem/{workitem.uid}",
        f"workitem {workitem.uid} is {workitem.state.value}",
        to_keywords(workitem.attributes),
        datetime.fromtimestamp(workitem.ended or 0.0, zone),
        workitem=workitem,
    )


def own_studies(workitem: Workitem, own_ae: str) -> set[str]:
    """The studies among a workitem's inputs that can be retrieved from an AE title."""
    return {
        text(item, _STUDY)
        for item in items(workitem.attributes, INPUT)
        if own_ae in _retrieve_aes(item) and text(item, _STUDY)
    }


def _retrieve_aes(item: DataSet) -> Collection[str]:
    return [str(ae) for source in items(item, _DICOM_RETRIEVAL) for ae in values(source, _RETRIEVE_AE)]
