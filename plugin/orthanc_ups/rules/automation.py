# SPDX-License-Identifier: AGPL-3.0-or-later
"""All parts of the rules as one object, which is opened and closed with the worklist."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from ..core import tags
from ..core.commands import Command
from ..core.dataset import text
from ..core.matching import Query
from ..core.outcome import Outcome
from ..core.statuses import UpsError
from ..core.workitem import Workitem
from ..orthanc.loopback import Loopback
from ..service import UpsService
from ..store.port import StoreUnavailable
from .archive import Archive, is_identifier
from .backfill import Backfill
from .causes import Cause, When
from .definitions import SiteRule
from .effects import Effects
from .engine import Engine
from .follower import ChangeNotes, EndedWorkitems, Follower, end_of
from .memory import NOTE, Memory

_log = logging.getLogger("orthanc_ups.rules")
_CAUSES_PER_TEST: Final = 200


class ServiceDesk:
    """The worklist as rules use it (``effects.Desk``)."""

    def __init__(self, service: UpsService, now: Callable[[], datetime]) -> None:
        self._service = service
        self.now = now

    async def execute(self, command: Command) -> Outcome:
        """Carry out a command. Raises UpsError."""
        return await self._service.worklist.execute(command)

    def workitem(self, uid: str) -> Workitem | None:
        """A workitem, None if there is none. Raises UpsError (0213) while nothing can be read."""
        stored = self._service.workitems.get(uid)
        return stored.workitem if stored is not None else None

    def is_gone(self, uid: str) -> bool:
        """True if it was purged, and that is still remembered."""
        return self._service.workitems.is_gone(uid)

    async def matching(self, query: Query, limit: int) -> Sequence[Workitem]:
        """Workitems that match a query."""
        data_sets, _ = await self._service.workitems.search(query, 0, limit)
        workitems = (self.workitem(text(data_set, tags.SOP_INSTANCE_UID)) for data_set in data_sets)
        return [workitem for workitem in workitems if workitem is not None]

    def new_uid(self) -> str:
        """A new UID (PS3.5 §B.2)."""
        return f"2.25.{uuid.uuid4().int}"

    @property
    def identities(self) -> Sequence[str]:
        """That of this worklist, which tells it from any other; then those of worklists that it was imported from."""
        return self._service.identities


@dataclass(frozen=True, slots=True)
class Environment:
    """Properties of the Orthanc in which the rules run.

    Attributes:
        archive_ae: AE title from which images are retrieved; ``own_ae`` that of the worklist.
        stable_age: seconds.
        is_own: whether an Orthanc identifier is of what the worklist stores.
        now: aware, in the zone of the server.
    """

    own_ae: str
    archive_ae: str
    stable_age: float
    shares_database: bool
    is_own: Callable[[str], bool]
    now: Callable[[], datetime]


class Automation:
    """The rules of a site. Call ``open``, then ``start``, and finally ``close``."""

    def __init__(
        self,
        rules: Sequence[SiteRule],
        service: UpsService,
        loopback: Loopback,
        change_notes: ChangeNotes,
        environment: Environment,
    ) -> None:
        self.rules = tuple(rules)
        self.memory = Memory()
        self._service = service
        self._environment = environment
        self._desk = ServiceDesk(service, environment.now)
        self._archive = Archive(loopback, environment.archive_ae, environment.now)
        self._effects = Effects(self._desk, self._archive, environment.own_ae, strict=service.settings.strict)
        self._engine = Engine(rules, self._effects, self._desk, self.memory, service.counters)
        self._follower = Follower(
            self._engine,
            self._archive,
            self._desk,
            service.workitems,
            self.memory,
            service.notes.note(NOTE),
            change_notes,
            service.clock,
            stable_age=environment.stable_age,
            is_own=environment.is_own,
            shares_database=environment.shares_database,
        )
        self._backfills: dict[str, Backfill] = {}
        self._task: asyncio.Task[None] | None = None

    # --- life ---

    async def open(self) -> None:
        """Read the stored state. Raises StoreUnavailable; it may then be called again."""
        await self._follower.open()

    def start(self) -> None:
        """Begin to follow changes in the background."""
        self._service.worklist.observers.append(self._accepted)
        self._task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        while True:
            try:
                await self._follower.run()
            except Exception:
                _log.exception("Rules failed: internal error; they go on")
            await self._service.clock.sleep(1.0)

    def _accepted(self, command: Command, outcome: Outcome) -> None:
        self._follower.accepted(command, outcome)

    async def close(self) -> None:
        """Stop, and store the state."""
        tasks = [
            task for task in (self._task, *(backfill.task for backfill in self._backfills.values())) if task
        ]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._accepted in self._service.worklist.observers:
            self._service.worklist.observers.remove(self._accepted)
        try:
            await self._follower.close()
        except (StoreUnavailable, UpsError) as error:
            _log.warning(
                "Rules could not store how far they are (%s); they will repeat their last steps", error
            )

    # --- figures ---

    @property
    def waiting(self) -> int:
        """The number of series, studies and patients that are not stable yet."""
        return len(self.memory.unstable)

    # --- what operators ask ---

    def rule(self, name: str) -> SiteRule | None:
        """A rule by its name."""
        return next((rule for rule in self.rules if rule.name == name), None)

    async def test(self, causes: Mapping[When, Sequence[Cause]]) -> list[dict[str, Any]]:
        """What each rule would do for some causes, or why it would not fire."""
        return [await self._tested(rule, causes) for rule in self.rules]

    def end_of(self, uid: str) -> Mapping[When, Sequence[Cause]]:
        """The end of a workitem. Raises LookupError if there is none."""
        workitem = self._desk.workitem(uid)
        if workitem is None:
            raise LookupError(f'there is no workitem "{uid[:64]}"')
        if not workitem.state.is_final:
            raise LookupError(f"workitem {uid} is {workitem.state.value}: only its end fires rules")
        end = end_of(workitem, self._environment.now().tzinfo)
        return {end.when: [end]}

    async def locate(self, identifier: str) -> tuple[str, str] | None:
        """Level and Orthanc identifier of a resource, by DICOM UID or by that identifier."""
        levels = ("study", "series", "instance", "patient")
        by_uid = await self._archive.lookup(identifier)
        for level in levels:
            if level in by_uid:
                return level, by_uid[level]
        for level in levels if is_identifier(identifier) else ():
            if await self._archive.resource(level, identifier) is not None:
                return level, identifier
        return None

    async def causes_in(self, level: str, identifier: str) -> Mapping[When, Sequence[Cause]]:
        """The causes that a resource contains, by kind; at most ``_CAUSES_PER_TEST`` of each."""
        causes: dict[When, list[Cause]] = {}
        kinds = {rule.when for rule in self.rules}
        order = ("patient", "study", "series", "instance")
        for when in (When.STABLE_PATIENT, When.STABLE_STUDY, When.STABLE_SERIES, When.STORED_INSTANCE):
            if when in kinds and order.index(when.level) >= order.index(level):
                identifiers = await self._archive.below(level, identifier, when.level)
                read = [
                    await self._archive.cause(when, identifier)
                    for identifier in identifiers[:_CAUSES_PER_TEST]
                ]
                causes[when] = [cause for cause in read if cause is not None]
        return causes

    async def _tested(self, rule: SiteRule, causes: Mapping[When, Sequence[Cause]]) -> dict[str, Any]:
        rows = []
        for cause in causes.get(rule.when, ()):
            objections = self._engine.objections(rule, cause)
            rows.append(
                {
                    "cause": cause.words,
                    "fires": not objections and rule.enabled,
                    "why_not": objections if rule.enabled else ["the rule is not enabled", *objections],
                    "would": [] if objections else await self._effects.preview(rule, cause),
                }
            )
        why_not = [] if rows else [f"nothing here is a cause of {rule.when.value}"]
        return {
            "name": rule.name,
            "when": rule.when.value,
            "fires": any(row["fires"] for row in rows),
            "causes": rows,
            "why_not": why_not,
        }

    # --- backfill ---

    def backfill(self, rule: SiteRule) -> Backfill | None:
        """The last backfill of a rule; None if there was none since Orthanc started."""
        return self._backfills.get(rule.name)

    def begin_backfill(self, rule: SiteRule) -> Backfill:
        """Start a backfill of a rule, or return the one that is running."""
        present = self._backfills.get(rule.name)
        if present is not None and present.is_running:
            return present
        backfill = Backfill(rule, self._engine, self._archive, self._ended, self._environment)
        backfill.begin()
        self._backfills[rule.name] = backfill
        return backfill

    @property
    def _ended(self) -> EndedWorkitems:
        return self._service.workitems
