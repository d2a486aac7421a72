# SPDX-License-Identifier: AGPL-3.0-or-later
"""Reads Orthanc's archive for the rules: changes, attributes of images, and references to them."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import orjson

from ..core.dataset import DataSet, element
from ..orthanc.loopback import Loopback, Reply, refused
from .causes import ARRIVED, IS_STABLE, STABLE, Cause, When
from .definitions import BY_DICOM

_PAGE: Final = 1000
_BATCH: Final = 100
_REMEMBERED: Final = 2000
_LARGE: Final = 256 * 1024
_PLURALS: Final = {"patient": "patients", "study": "studies", "series": "series", "instance": "instances"}
_PARENTS: Final = {"instance": "ParentSeries", "series": "ParentStudy", "study": "ParentPatient"}
_ABOVE: Final = {"instance": "series", "series": "study", "study": "patient"}
_BELOW: Final = {
    "patient": ("Studies", "study"),
    "study": ("Series", "series"),
    "series": ("Instances", "instance"),
}
_UIDS: Final = {"study": "StudyInstanceUID", "series": "SeriesInstanceUID", "instance": "SOPInstanceUID"}
_DATE: Final = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)")
_IDENTIFIER: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{8}){4}")


@dataclass(frozen=True, slots=True)
class Change:
    """A row of Orthanc's ``/changes``: ``at`` in seconds since the epoch, None if it cannot be read."""

    sequence: int
    kind: str
    identifier: str
    at: float | None


@dataclass(frozen=True, slots=True)
class ChangesPage:
    """Rows after a sequence number, up to ``last``. ``done`` is true if there are no more."""

    rows: tuple[Change, ...]
    last: int
    done: bool


@dataclass(frozen=True, slots=True)
class SeriesFacts:
    """What does not change while a series lasts.

    Attributes:
        identifier: Orthanc's, with those of its study and patient.
        content: attributes of one of its instances, in keyword form; ``instance`` is that one.
    """

    identifier: str
    study: str
    patient: str
    instance: str
    content: Mapping[str, Any]


class ArchivedInstance(NamedTuple):
    """What a reference needs of an instance. ``series`` is Orthanc's identifier. Sorts by Instance Number."""

    series: str
    number: int
    uid: str
    sop_class: str

    @classmethod
    def of(cls, series: str, content: Mapping[str, Any]) -> ArchivedInstance:
        """Build it from attributes by keyword."""
        return cls(
            series,
            _number(content.get("InstanceNumber")),
            str(content.get("SOPInstanceUID", "")),
            str(content.get("SOPClassUID", "")),
        )


class Archive:
    """Reads Orthanc. Every method may raise StoreUnavailable, and returns None for a resource that does not exist."""

    def __init__(self, loopback: Loopback, own_ae: str, now: Callable[[], datetime]) -> None:
        """``own_ae`` is the AE title from which images are retrieved; ``now`` in the zone of the server."""
        self._loopback = loopback
        self._now = now
        self._series: dict[str, SeriesFacts] = {}
        self._can_find = True
        self.own_ae = own_ae

    # --- changes ---

    async def last_change(self) -> int:
        """The number of the newest row of ``/changes``; 0 if there is none."""
        return int((await self._get("/changes?last") or {}).get("Last", 0))

    async def changes(self, since: int) -> ChangesPage:
        """The next page of rows after a sequence number."""
        page = await self._get(f"/changes?since={since}&limit={_PAGE}") or {}
        rows = tuple(
            Change(
                int(row["Seq"]),
                str(row["ChangeType"]),
                str(row.get("ID", "")),
                _seconds(str(row.get("Date"))),
            )
            for row in page.get("Changes", ())
        )
        return ChangesPage(rows, int(page.get("Last", since)), bool(page.get("Done", True)))

    # --- resources ---

    async def resource(self, level: str, identifier: str) -> Mapping[str, Any] | None:
        """Orthanc's JSON description of a resource."""
        content = await self._get(f"/{_PLURALS[level]}/{identifier}")
        return content if isinstance(content, Mapping) else None

    async def series_of(self, instances: Sequence[str]) -> dict[str, str]:
        """The series of each instance that still exists, by instance."""
        parents: dict[str, str] = {}
        for begin in range(0, len(instances), _BATCH):
            question = {
                "Resources": list(instances[begin : begin + _BATCH]),
                "Level": "Instance",
                "Metadata": False,
            }
            for row in await self._post("/tools/bulk-content", question):
                parents[str(row["ID"])] = str(row["ParentSeries"])
        return parents

    async def existing(self, level: str, identifiers: Sequence[str]) -> set[str]:
        """The identifiers of those resources that exist."""
        there: set[str] = set()
        for begin in range(0, len(identifiers), _BATCH):
            question = {
                "Resources": list(identifiers[begin : begin + _BATCH]),
                "Level": level.capitalize(),
                "Metadata": False,
            }
            there.update(str(row["ID"]) for row in await self._post("/tools/bulk-content", question))
        return there

    async def series_facts(self, identifier: str, instance: str = "") -> SeriesFacts | None:
        """A series with attributes of one of its instances; remembered for a while.

        ``instance``: one of them, if the caller knows any: Orthanc's list of a long series is long.
        """
        if identifier in self._series:
            return self._series[identifier]
        content = await self._tags(instance) if instance else None
        if content is None:
            series = await self.resource("series", identifier)
            if series is None or not series.get("Instances"):
                return None
            instance = str(series["Instances"][0])
            content = await self._tags(instance)
        study = await self._get(f"/series/{identifier}/study")
        if study is None or content is None:
            return None
        facts = SeriesFacts(
            identifier, str(study["ID"]), str(study.get("ParentPatient", "")), instance, content
        )
        if len(self._series) >= _REMEMBERED:
            del self._series[next(iter(self._series))]
        self._series[identifier] = facts
        return facts

    def stored(self, instance: str, series: str) -> None:
        """Forget the attributes of a series if they are those of this instance, which was stored again."""
        facts = self._series.get(series)
        if facts is not None and facts.instance == instance:
            self.forget_series(series)

    def forget_series(self, identifier: str) -> None:
        """Read the attributes of a series anew next time."""
        self._series.pop(identifier, None)

    async def lookup(self, uid: str) -> Mapping[str, str]:
        """Orthanc's identifiers of the resources with a DICOM UID, by level."""
        reply = await self._loopback.request("POST", "/tools/lookup", uid.encode())
        matches = _checked(reply, "look up a UID") or ()
        return {str(row["Type"]).lower(): str(row["ID"]) for row in matches}

    async def all(self, level: str) -> AsyncIterator[str]:
        """Orthanc's identifiers of every resource of a level."""
        since = 0
        while page := await self._get(f"/{_PLURALS[level]}?since={since}&limit={_BATCH}"):
            for identifier in page:
                yield str(identifier)
            since += len(page)

    async def below(self, level: str, identifier: str, lower: str) -> list[str]:
        """Orthanc's identifiers of the children of a resource on a lower level; its own for the same level."""
        if level == lower:
            return [identifier]
        path = f"/{_PLURALS[level]}/{identifier}/{_PLURALS[lower]}?expand=false"
        return [str(row["ID"] if isinstance(row, Mapping) else row) for row in await self._get(path) or ()]

    async def count(self, level: str) -> int:
        """The number of resources of a level."""
        name = f"Count{_PLURALS[level].capitalize()}"
        return int((await self._get("/statistics") or {}).get(name, 0))

    # --- causes ---

    async def cause(self, when: When, identifier: str, *, labels: bool = True) -> Cause | None:
        """The cause that a resource is: its attributes, sender and labels. None if it no longer exists.

        ``labels``: False if nobody asks for them, which saves some questions.
        """
        if when.level == "series":
            facts = await self.series_facts(identifier)
            instance, content = (facts.instance, facts.content) if facts else (None, None)
        else:
            instance = await self._representative(when.level, identifier)
            content = await self._tags(instance) if instance else None
        metadata = await self._get(f"/instances/{instance}/metadata?expand") if instance else None
        if content is None or metadata is None:
            self.forget_series(identifier)
            return None
        metadata = metadata if isinstance(metadata, Mapping) else {}
        happened = ARRIVED if when is When.STORED_INSTANCE else IS_STABLE
        name = _UIDS.get(when.level)
        uid = f" {content.get(name, '')}" if name else ""
        return Cause(
            when,
            f"{when.level}/{identifier}",
            f"{when.level}{uid} {happened}",
            content,
            self._now(),
            identifier,
            str(metadata.get("RemoteAET", "")),
            str(metadata.get("Origin", "")),
            await self._labels(when.level, identifier) if labels else (),
        )

    async def _labels(self, level: str, identifier: str) -> tuple[str, ...]:
        """The labels of a resource and of its parents."""
        labels: dict[str, None] = {}
        at: str | None = level
        while at is not None:
            resource = await self.resource(at, identifier) or {}
            labels.update(dict.fromkeys(map(str, resource.get("Labels", ()))))
            identifier = str(resource.get(_PARENTS.get(at, ""), ""))
            at = _ABOVE.get(at) if identifier else None
        return tuple(labels)

    async def _representative(self, level: str, identifier: str) -> str | None:
        """The first instance of a resource."""
        while level != "instance":
            resource = await self.resource(level, identifier) or {}
            children, level = _BELOW[level]
            identifiers = resource.get(children) or ()
            if not identifiers:
                return None
            identifier = str(identifiers[0])
        return identifier

    async def _tags(self, instance: str) -> Mapping[str, Any] | None:
        """All attributes of an instance in keyword form; long values may be cut or absent."""
        reply = await self._loopback.request("GET", f"/instances/{instance}/simplified-tags")
        if reply.status == 200 and len(reply.body) > _LARGE:
            content = await asyncio.to_thread(orjson.loads, reply.body)
        else:
            content = _checked(reply, "read an instance")
        return content if isinstance(content, Mapping) else None

    # --- references (PS3.4 Table CC.2.5-3, Referenced Instances and Access) ---

    async def references(self, level: str, identifier: str, retrieve: str) -> list[DataSet]:
        """Items of Input or Output Information Sequence for a resource: one per series.

        ``retrieve``: ``DICOM`` for retrieval from our own AE title, or the base URL of a DICOMweb service.
        """
        by_series: dict[str, list[ArchivedInstance]] = {}
        for instance in await self._instances(level, identifier):
            by_series.setdefault(instance.series, []).append(instance)
        items = []
        for series, instances in by_series.items():
            facts = await self.series_facts(series)
            if facts is not None:
                items.append(
                    reference(
                        str(facts.content.get("StudyInstanceUID", "")),
                        str(facts.content.get("SeriesInstanceUID", "")),
                        [(instance.sop_class, instance.uid) for instance in sorted(instances)],
                        retrieve,
                        self.own_ae,
                    )
                )
        return sorted(items, key=lambda item: str(item["0020000E"]["Value"]))

    async def series(self, uid: str) -> list[DataSet]:
        """An item that references the instances of a series, by Series Instance UID; empty if it does not exist."""
        identifier = (await self.lookup(uid)).get("series")
        return await self.references("series", identifier, BY_DICOM) if identifier else []

    async def _instances(self, level: str, identifier: str) -> Sequence[ArchivedInstance]:
        """The instances of a resource."""
        if level == "instance":
            return await self._expanded([identifier])
        instances: list[ArchivedInstance] = []
        for series in await self.below(level, identifier, "series"):
            instances += await self._found_instances(series) or await self._listed_instances(series)
        return instances

    async def _found_instances(self, series: str) -> Sequence[ArchivedInstance]:
        """The instances of a series by one request (Orthanc 1.12.5 and later); empty if Orthanc cannot do this.

        Three tags are asked for by name, as Orthanc takes half as long to answer them as all tags and metadata.
        """
        if not self._can_find:
            return ()
        question = {
            "Level": "Instance",
            "Query": {},
            "ParentSeries": series,
            "RequestedTags": ["SOPInstanceUID", "SOPClassUID", "InstanceNumber"],
            "ResponseContent": ["RequestedTags", "Parent"],
        }
        rows = await self._post("/tools/find", question)
        self._can_find = all(_is_row(row, series) for row in rows)
        if not self._can_find:
            return ()
        return [ArchivedInstance.of(series, row["RequestedTags"]) for row in rows]

    async def _listed_instances(self, series: str) -> Sequence[ArchivedInstance]:
        instances: list[ArchivedInstance] = []
        identifiers = await self.below("series", series, "instance")
        for begin in range(0, len(identifiers), _BATCH):
            instances += await self._expanded(identifiers[begin : begin + _BATCH])
        return instances

    async def _expanded(self, identifiers: Sequence[str]) -> Sequence[ArchivedInstance]:
        question = {"Resources": list(identifiers), "Level": "Instance", "Metadata": True}
        return [
            ArchivedInstance.of(
                str(row["ParentSeries"]),
                {**row["MainDicomTags"], "SOPClassUID": row.get("Metadata", {}).get("SopClassUid", "")},
            )
            for row in await self._post("/tools/bulk-content", question)
        ]

    async def missing_instances(self, uids: Iterable[str]) -> list[str]:
        """The SOP Instance UIDs that are not in the archive."""
        distinct = list(dict.fromkeys(uids))
        missing: list[str] = []
        for begin in range(0, len(distinct), _BATCH):
            batch = distinct[begin : begin + _BATCH]
            question = {
                "Level": "Instance",
                "Expand": True,
                "Query": {"SOPInstanceUID": "\\".join(batch)},
            }
            matches = await self._post("/tools/find", question)
            there = {str(row["MainDicomTags"]["SOPInstanceUID"]) for row in matches}
            missing += [uid for uid in batch if uid not in there]
        return missing

    # --- requests ---

    async def _get(self, path: str) -> Any:
        return _checked(await self._loopback.request("GET", path), f"read {path.partition('?')[0]}")

    async def _post(self, path: str, content: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        reply = await self._loopback.request(
            "POST", path, orjson.dumps(content), {"Content-Type": "application/json"}
        )
        return _checked(reply, f"ask {path}") or ()


def reference(
    study: str, series: str, instances: Sequence[tuple[str, str]], retrieve: str, own_ae: str
) -> DataSet:
    """An item that references instances (SOP Class and Instance UID) of a series, with the way to retrieve them."""
    item: DataSet = {
        "00081199": element(
            "SQ",
            *(
                {"00081150": element("UI", sop_class), "00081155": element("UI", uid)}
                for sop_class, uid in instances
            ),
        ),
        "0020000D": element("UI", study),
        "0020000E": element("UI", series),
        "0040E020": element("CS", "DICOM"),
    }
    if retrieve == BY_DICOM:
        item["0040E021"] = element("SQ", {"00080054": element("AE", own_ae)})
    else:
        url = f"{retrieve}/studies/{study}/series/{series}"
        item["0040E025"] = element("SQ", {"00081190": element("UR", url)})
    return item


def _is_row(row: object, series: str) -> bool:
    """True for an instance of a series with the tags that were asked for."""
    return isinstance(row, Mapping) and row.get("ParentSeries") == series and "RequestedTags" in row


def is_identifier(text: str) -> bool:
    """True for an identifier of a resource in Orthanc."""
    return _IDENTIFIER.fullmatch(text) is not None


def stored_earlier(cause: Cause, at: datetime) -> Cause:
    """The same cause with another time."""
    return replace(cause, at=at)


def stable(level: str) -> When:
    """The kind of cause of a stable resource of a level."""
    return STABLE[level]


def _checked(reply: Reply, what: str) -> Any:
    if reply.status == 404:
        return None
    if reply.status != 200:
        raise refused(reply, f"cannot {what}")
    return reply.json()


def _number(text: object) -> int:
    try:
        return int(str(text))
    except ValueError:
        return 0


@functools.lru_cache(maxsize=16)  # many changes have the same
def _seconds(date: str) -> float | None:
    """A date of ``/changes`` (``20261127T010834``, in UTC) as seconds since the epoch."""
    parsed = _DATE.match(date)
    if parsed is None:
        return None
    year, month, day, hour, minute, second = map(int, parsed.groups())
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()
