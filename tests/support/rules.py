# SPDX-License-Identifier: AGPL-3.0-or-later
"""Rules on a service in memory, with an archive that tests fill and time that they advance."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from orthanc_ups.core.dataset import DataSet
from orthanc_ups.core.workitem import Workitem
from orthanc_ups.rules.archive import Archive, Change, ChangesPage, SeriesFacts, reference
from orthanc_ups.rules.causes import Cause, When
from orthanc_ups.rules.definitions import read_rules
from orthanc_ups.rules.effects import Effects
from orthanc_ups.rules.engine import Engine
from orthanc_ups.rules.follower import Follower
from orthanc_ups.rules.memory import NOTE, Memory
from orthanc_ups.rules.worklist_access import WorklistAccess
from orthanc_ups.store.port import StoreUnavailable
from tests.support.service import ServiceRig

STABLE_AGE = 60.0
OWN = "pseudo"


class FilledArchive(Archive):
    """An archive in memory. Identifiers are the UIDs; ``changes`` grows like Orthanc's."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        super().__init__(cast("Any", None), "ORTHANC", now)
        self._clock = now
        self.rows: list[Change] = []
        self.unreadable: set[str] = set()
        self.images: dict[str, tuple[str, str, str, Mapping[str, Any], str]] = {}

    def arrive(
        self, instance: str, series: str = "1.8.1", study: str = "1.7.1", sender: str = "CT1", **tags: Any
    ) -> None:
        """Store an instance."""
        content = {"PatientID": "P", "StudyInstanceUID": study, "SeriesInstanceUID": series, **tags}
        self.images[instance] = (series, study, "P", {**content, "SOPInstanceUID": instance}, sender)
        self._row("NewInstance", instance)

    def _row(self, kind: str, identifier: str) -> None:
        self.rows.append(Change(len(self.rows) + 1, kind, identifier, self._clock().timestamp() - 1.0))

    def delete_study(self, study: str) -> None:
        """Delete a study with its instances; ``/changes`` forgets them too."""
        deleted = {uid for uid, image in self.images.items() if image[1] == study}
        self.images = {uid: image for uid, image in self.images.items() if uid not in deleted}
        self.rows = [row for row in self.rows if row.identifier not in deleted]

    async def last_change(self) -> int:
        return self.rows[-1].sequence if self.rows else 0

    async def changes(self, since: int) -> ChangesPage:
        rows = tuple(row for row in self.rows if row.sequence > since)[:3]
        last = rows[-1].sequence if rows else max(since, await self.last_change())
        return ChangesPage(rows, last, last >= await self.last_change())

    async def resource(self, level: str, identifier: str) -> Mapping[str, Any] | None:
        for uid, (series, study, patient, content, _) in self.images.items():
            if {"instance": uid, "series": series, "study": study, "patient": patient}[level] == identifier:
                parents = {"ParentSeries": series, "ParentStudy": study, "ParentPatient": patient}
                return {"ID": identifier, **parents, "MainDicomTags": content}
        return None

    async def series_of(self, instances: Sequence[str]) -> dict[str, str]:
        return {uid: self.images[uid][0] for uid in instances if uid in self.images}

    async def existing(self, level: str, identifiers: Sequence[str]) -> set[str]:
        return {
            identifier for identifier in identifiers if await self.resource(level, identifier) is not None
        }

    async def series_facts(self, identifier: str, instance: str = "") -> SeriesFacts | None:
        for series, study, patient, content, _ in self.images.values():
            if series == identifier:
                return SeriesFacts(series, study, patient, "", content)
        return None

    async def lookup(self, uid: str) -> Mapping[str, str]:
        there = await self.resource("study", uid)
        return {"study": uid} if there is not None else {}

    async def all(self, level: str) -> AsyncIterator[str]:
        at = {"series": 0, "study": 1, "patient": 2}
        for identifier in dict.fromkeys(
            uid if level == "instance" else str(image[at[level]]) for uid, image in self.images.items()
        ):
            yield identifier

    async def count(self, level: str) -> int:
        return len([identifier async for identifier in self.all(level)])

    async def cause(self, when: When, identifier: str, *, labels: bool = True) -> Cause | None:
        if identifier in self.unreadable:
            raise StoreUnavailable("the file is damaged, says a test", certain=True)
        for uid, (series, study, patient, content, sender) in self.images.items():
            if {"instance": uid, "series": series, "study": study, "patient": patient}[
                when.level
            ] == identifier:
                words = f"{when.level} {identifier} " + (
                    "arrived" if when.level == "instance" else "is stable"
                )
                key = f"{when.level}/{identifier}"
                return Cause(when, key, words, content, self._clock(), identifier, sender, "DicomProtocol")
        return None

    async def references(self, level: str, identifier: str, retrieve: str) -> list[DataSet]:
        by_series: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for uid, (series, study, patient, _, _) in self.images.items():
            if {"instance": uid, "series": series, "study": study, "patient": patient}[level] == identifier:
                by_series.setdefault((study, series), []).append(("1.2.840.10008.5.1.4.1.1.2", uid))
        return [
            reference(study, series, instances, retrieve, self.own_ae)
            for (study, series), instances in by_series.items()
        ]


class NoNotes:
    """Replaces the callback of Orthanc: everything is learnt from ``/changes``; a test reports deletions."""

    def __init__(self) -> None:
        self.deleted: list[str] = []
        self._function: Callable[[], None] | None = None

    def tell(self) -> None:
        """Report an arrival."""
        assert self._function is not None
        self._function()

    def on_change(self, function: Callable[[], None] | None) -> None:
        self._function = function

    def begin_round(self) -> None:
        pass

    def series_of(self, instance: str) -> str | None:
        return None

    def deleted_studies(self) -> list[str]:
        deleted, self.deleted = self.deleted, []
        return deleted


class RulesRig:
    """A service with rules. ``round`` does what the follower does after a change."""

    def __init__(self, rig: ServiceRig, rules: Iterable[Mapping[str, Any]]) -> None:
        self.rig = rig
        self.change_notes = NoNotes()
        self.archive = FilledArchive(self._now)
        self._rules = read_rules(list(rules))

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.rig.clock.now(), UTC)

    async def open(self) -> RulesRig:
        """Open as at a start of Orthanc: the memory of the rules is read from the store."""
        service = self.rig.service
        self.memory = Memory()
        worklist = WorklistAccess(service.worklist, service.workitems, lambda: service.identities, self._now)
        effects = Effects(worklist, self.archive, "WORKLIST")
        self.engine = Engine(self._rules, effects, worklist, self.memory, service.counters)
        self.follower = Follower(
            self.engine,
            self.archive,
            worklist,
            self.memory,
            service.notes.note(NOTE),
            self.change_notes,
            self.rig.clock,
            stable_age=STABLE_AGE,
            is_own=lambda identifier: identifier.startswith(OWN),
        )
        await self.follower.open()
        service.worklist.observers.append(self.follower.accepted)
        return self

    async def restart(self) -> None:
        """Crash the worklist and open it again."""
        await self.rig.restart()
        await self.open()

    async def round(self, later: float = 0.0) -> None:
        """Let time pass, then follow once."""
        if later:
            await self.rig.clock.advance(later)
        await self.follower.round()

    def workitems(self) -> list[Workitem]:
        """All workitems in the order of their creation."""
        return list(self.rig.service.workitems.created(0, 2**62, 1000))
