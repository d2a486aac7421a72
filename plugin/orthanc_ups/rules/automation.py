# SPDX-License-Identifier: AGPL-3.0-or-later
"""The rules of a site as one object, which is opened and closed with the worklist."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypedDict

from ..core.commands import Command
from ..core.outcome import Outcome
from ..core.statuses import UpsError
from ..orthanc.loopback import Loopback
from ..service import UpsService
from ..store.port import StoreUnavailable
from .archive import Archive, is_identifier
from .backfill import Backfill
from .causes import Cause, When
from .definitions import SiteRule
from .effects import Effects
from .engine import Engine
from .follower import ChangeNotes, Follower, end_of
from .memory import NOTE, Memory
from .worklist_access import WorklistAccess

_log = logging.getLogger("orthanc_ups.rules")
_CAUSES_PER_TEST: Final = 200


class TestedCause(TypedDict):
    """What a rule would do for one cause, or why it would not fire."""

    cause: str
    fires: bool
    why_not: list[str]
    would: list[str]


class TestedRule(TypedDict):
    """What a rule would do. ``why_not`` says so if there is no cause for it at all."""

    name: str
    when: str
    fires: bool
    causes: list[TestedCause]
    why_not: list[str]


@dataclass(frozen=True, slots=True)
class Environment:
    """Properties of the Orthanc in which the rules run.

    Attributes:
        own_ae: AE title of the worklist.
        archive_ae: AE title from which images are retrieved.
        stable_age: Orthanc's ``StableAge``, in seconds.
        shares_database: whether several Orthancs share the database.
        is_own: whether an identifier of Orthanc is that of a resource in which the worklist is stored.
        now: returns the current time, aware, in the server's time zone.
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
        self._worklist = WorklistAccess(
            service.worklist, service.workitems, lambda: service.identities, environment.now
        )
        self._archive = Archive(loopback, environment.archive_ae, environment.now)
        self._effects = Effects(
            self._worklist, self._archive, environment.own_ae, strict=service.settings.strict
        )
        self._engine = Engine(rules, self._effects, self._worklist, self.memory, service.counters)
        self._follower = Follower(
            self._engine,
            self._archive,
            self._worklist,
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

    # --- opening and closing ---

    async def open(self) -> None:
        """Read the stored state. May raise StoreUnavailable, after which it can be called again."""
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
                _log.exception("Internal error in the rules; continuing")
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
            _log.warning("Cannot store how far the rules are (%s); they will repeat their last steps", error)

    @property
    def waiting(self) -> int:
        """The number of series, studies and patients that are not stable yet."""
        return len(self.memory.unstable)

    def rule(self, name: str) -> SiteRule | None:
        """A rule by its name."""
        return next((rule for rule in self.rules if rule.name == name), None)

    # --- tests of rules ---

    async def test(self, causes: Mapping[When, Sequence[Cause]]) -> list[TestedRule]:
        """What each rule would do for some causes, or why it would not fire."""
        return [await self._tested(rule, causes) for rule in self.rules]

    def end_of(self, uid: str) -> Mapping[When, Sequence[Cause]]:
        """The end of a workitem as a cause. Raises LookupError if it has not ended or does not exist."""
        workitem = self._worklist.workitem(uid)
        if workitem is None:
            raise LookupError(f'there is no workitem "{uid[:64]}"')
        if not workitem.state.is_final:
            raise LookupError(f"workitem {uid} is {workitem.state.value}: only its end fires rules")
        end = end_of(workitem, self._environment.now().tzinfo)
        return {end.when: [end]}

    async def locate(self, identifier: str) -> tuple[str, str] | None:
        """Level and Orthanc identifier of a resource, by DICOM UID or Orthanc identifier. None if it does not exist."""
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
        """The causes that a resource contains, by kind; at most 200 of each kind."""
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

    async def _tested(self, rule: SiteRule, causes: Mapping[When, Sequence[Cause]]) -> TestedRule:
        rows: list[TestedCause] = []
        for cause in causes.get(rule.when, ()):
            objections = self._engine.objections(rule, cause)
            rows.append(
                {
                    "cause": cause.description,
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
        running = self._backfills.get(rule.name)
        if running is not None and running.is_running:
            return running
        backfill = Backfill(rule, self._engine, self._archive, self._worklist, self._environment.is_own)
        backfill.begin()
        self._backfills[rule.name] = backfill
        return backfill
