# SPDX-License-Identifier: AGPL-3.0-or-later
"""Reads Orthanc's archive for the rules: changes, attributes of images, and references to them."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import orjson

from ..core.dataset import DataSet, element
from ..orthanc.loopback import Loopback, Reply, refused
from .causes import ARRIVED, IS_STABLE, Cause, When
from .definitions import BY_DICOM

_PAGE: Final = 1000
_BATCH: Final = 100
_CACHED_SERIES: Final = 2000
_LARGE_BODY: Final = 256 * 1024
PLURALS: Final = {"patient": "patients", "study": "studies", "series": "series", "instance": "instances"}
"""Orthanc's levels, and how its REST API calls their collections."""

_PARENTS: Final = {
    "instance": ("ParentSeries", "series"),
    "series": ("ParentStudy", "study"),
    "study": ("ParentPatient", "patient"),
}
_CHILDREN: Final = {
    "patient": ("Studies", "study"),
    "study": ("Series", "series"),
    "series": ("Instances", "instance"),
}
_UIDS: Final = {"study": "StudyInstanceUID", "series": "SeriesInstanceUID", "instance": "SOPInstanceUID"}
_DATE: Final = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)")
_IDENTIFIER: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{8}){4}")


@dataclass(frozen=True, slots=True)
class Change:
    """A row of Orthanc's ``/changes``; ``at`` in seconds since the epoch, None if the date cannot be parsed."""

    sequence: int
    kind: str
    identifier: str
    at: float | None


@dataclass(frozen=True, slots=True)
class ChangesPage:
    """Rows after a sequence number, up to ``last``; ``done`` is true if there are no more."""

    rows: tuple[Change, ...]
    last: int
    done: bool


@dataclass(frozen=True, slots=True)
class SeriesFacts:
    """Orthanc's identifiers of a series, its study and its patient, with the attributes of an instance.

    Attributes:
        instance: Orthanc's identifier of that instance.
        content: its attributes in keyword form.
    """

    identifier: str
    study: str
    patient: str
    instance: str
    content: Mapping[str, Any]


class ArchivedInstance(NamedTuple):
    """An instance as a reference names it. ``series`` is Orthanc's identifier. Within a series, sorts by number."""

    series: str
    number: int
    uid: str
    sop_class: str

    @classmethod
    def of(cls, series: str, content: Mapping[str, Any]) -> ArchivedInstance:
        """Read the attributes of an instance, by keyword."""
        return cls(
            series,
            _number(content.get("InstanceNumber")),
            str(content.get("SOPInstanceUID", "")),
            str(content.get("SOPClassUID", "")),
        )


class Archive:
    """Reads resources in Orthanc. Every method that does may raise StoreUnavailable.

    A resource that does not exist is None, or is left out.
    """

    def __init__(self, loopback: Loopback, own_ae: str, now: Callable[[], datetime]) -> None:
        """``own_ae`` is the AE title from which images are retrieved; ``now`` is in the server's time zone."""
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
        content = await self._get(f"/{PLURALS[level]}/{identifier}")
        return content if isinstance(content, Mapping) else None

    async def series_of(self, instances: Sequence[str]) -> dict[str, str]:
        """The series of each instance that still exists, by instance."""
        return {
            str(row["ID"]): str(row["ParentSeries"])
            async for row in self._bulk_content("instance", instances, metadata=False)
        }

    async def existing(self, level: str, identifiers: Sequence[str]) -> set[str]:
        """The identifiers of those resources that exist."""
        return {str(row["ID"]) async for row in self._bulk_content(level, identifiers, metadata=False)}

    async def ancestor(self, level: str, identifier: str, upper: str) -> str:
        """Orthanc's identifier of the resource on a higher level that contains a resource; empty if none does."""
        while level != upper and identifier:
            resource = await self.resource(level, identifier) or {}
            parent, level = _PARENTS[level]
            identifier = str(resource.get(parent, ""))
        return identifier

    async def series_facts(self, identifier: str, instance: str = "") -> SeriesFacts | None:
        """A series with the attributes of one of its instances, from a cache of recent series.

        ``instance``: an instance of the series, if the caller knows one; this saves listing all of them.
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
        if len(self._series) >= _CACHED_SERIES:
            del self._series[next(iter(self._series))]
        self._series[identifier] = facts
        return facts

    def stored(self, instance: str, series: str) -> None:
        """An instance was stored, perhaps again: attributes that were read from it are out of date."""
        facts = self._series.get(series)
        if facts is not None and facts.instance == instance:
            self.forget_series(series)

    def forget_series(self, identifier: str) -> None:
        """Read the attributes of a series again next time."""
        self._series.pop(identifier, None)

    async def lookup(self, uid: str) -> Mapping[str, str]:
        """Orthanc's identifiers of the resources with a DICOM UID, by level."""
        reply = await self._loopback.request("POST", "/tools/lookup", uid.encode())
        matches = _checked(reply, "look up a UID") or ()
        return {str(row["Type"]).lower(): str(row["ID"]) for row in matches}

    async def all(self, level: str) -> AsyncIterator[str]:
        """Orthanc's identifiers of all resources of a level."""
        since = 0
        while page := await self._get(f"/{PLURALS[level]}?since={since}&limit={_BATCH}"):
            for identifier in page:
                yield str(identifier)
            since += len(page)

    async def below(self, level: str, identifier: str, lower: str) -> list[str]:
        """Orthanc's identifiers of what a resource contains on a lower level; its own for the same level."""
        if level == lower:
            return [identifier]
        path = f"/{PLURALS[level]}/{identifier}/{PLURALS[lower]}?expand=false"
        return [str(row["ID"] if isinstance(row, Mapping) else row) for row in await self._get(path) or ()]

    async def count(self, level: str) -> int:
        """The number of resources of a level."""
        name = f"Count{PLURALS[level].capitalize()}"
        return int((await self._get("/statistics") or {}).get(name, 0))

    # --- causes ---

    async def cause(self, when: When, identifier: str, *, labels: bool = True) -> Cause | None:
        """A resource as a cause, with its attributes, sender and labels. None if it no longer exists.

        ``labels``: False if no rule has a condition on labels, which saves requests.
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
        event = ARRIVED if when is When.STORED_INSTANCE else IS_STABLE
        keyword = _UIDS.get(when.level)
        uid = f" {content.get(keyword, '')}" if keyword else ""
        return Cause(
            when,
            f"{when.level}/{identifier}",
            f"{when.level}{uid} {event}",
            content,
            self._now(),
            identifier,
            str(metadata.get("RemoteAET", "")),
            str(metadata.get("Origin", "")),
            await self._labels(when.level, identifier) if labels else (),
        )

    async def _labels(self, level: str, identifier: str) -> tuple[str, ...]:
        """The labels of a resource and of all that contain it."""
        labels: dict[str, None] = {}
        while identifier:
            resource = await self.resource(level, identifier) or {}
            labels.update(dict.fromkeys(map(str, resource.get("Labels", ()))))
            parent, level = _PARENTS.get(level, ("", ""))
            identifier = str(resource.get(parent, ""))
        return tuple(labels)

    async def _representative(self, level: str, identifier: str) -> str | None:
        """The first instance of a resource."""
        while level != "instance":
            resource = await self.resource(level, identifier) or {}
            children, level = _CHILDREN[level]
            identifiers = resource.get(children) or ()
            if not identifiers:
                return None
            identifier = str(identifiers[0])
        return identifier

    async def _tags(self, instance: str) -> Mapping[str, Any] | None:
        """The attributes of an instance in keyword form; Orthanc may truncate or omit long values."""
        reply = await self._loopback.request("GET", f"/instances/{instance}/simplified-tags")
        if reply.status == 200 and len(reply.body) > _LARGE_BODY:
            content = await asyncio.to_thread(orjson.loads, reply.body)
        else:
            content = _checked(reply, "read an instance")
        return content if isinstance(content, Mapping) else None

    # --- references (PS3.4 Table CC.2.5-3, Referenced Instances and Access) ---

    async def references(self, level: str, identifier: str, retrieve: str) -> list[DataSet]:
        """Items of Input or Output Information Sequence that reference a resource, one per series.

        ``retrieve``: ``DICOM`` for retrieval from ``own_ae``, or the base URL of a DICOMweb service.
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
        """The item that references the instances of a series, by Series Instance UID; empty if it does not exist."""
        identifier = (await self.lookup(uid)).get("series")
        return await self.references("series", identifier, BY_DICOM) if identifier else []

    async def _instances(self, level: str, identifier: str) -> Sequence[ArchivedInstance]:
        if level == "instance":
            return await self._described([identifier])
        instances: list[ArchivedInstance] = []
        for series in await self.below(level, identifier, "series"):
            instances += await self._query_instances(series) or await self._list_instances(series)
        return instances

    async def _query_instances(self, series: str) -> Sequence[ArchivedInstance]:
        """The instances of a series by one request; empty if this Orthanc cannot do this (before 1.12.5).

        Only three tags are requested: Orthanc needs twice as long for all tags and metadata.
        """
        if not self._can_find:
            return ()
        query = {
            "Level": "Instance",
            "Query": {},
            "ParentSeries": series,
            "RequestedTags": ["SOPInstanceUID", "SOPClassUID", "InstanceNumber"],
            "ResponseContent": ["RequestedTags", "Parent"],
        }
        rows = await self._post("/tools/find", query)
        self._can_find = all(_is_row(row, series) for row in rows)
        if not self._can_find:
            return ()
        return [ArchivedInstance.of(series, row["RequestedTags"]) for row in rows]

    async def _list_instances(self, series: str) -> Sequence[ArchivedInstance]:
        return await self._described(await self.below("series", series, "instance"))

    async def _described(self, identifiers: Sequence[str]) -> Sequence[ArchivedInstance]:
        return [
            ArchivedInstance.of(
                str(row["ParentSeries"]),
                {**row["MainDicomTags"], "SOPClassUID": row.get("Metadata", {}).get("SopClassUid", "")},
            )
            async for row in self._bulk_content("instance", identifiers, metadata=True)
        ]

    async def missing_instances(self, uids: Iterable[str]) -> list[str]:
        """The SOP Instance UIDs that are not in the archive."""
        distinct = list(dict.fromkeys(uids))
        missing: list[str] = []
        for begin in range(0, len(distinct), _BATCH):
            batch = distinct[begin : begin + _BATCH]
            query = {
                "Level": "Instance",
                "Expand": True,
                "Query": {"SOPInstanceUID": "\\".join(batch)},
            }
            matches = await self._post("/tools/find", query)
            present = {str(row["MainDicomTags"]["SOPInstanceUID"]) for row in matches}
            missing += [uid for uid in batch if uid not in present]
        return missing

    # --- requests ---

    async def _bulk_content(
        self, level: str, identifiers: Sequence[str], *, metadata: bool
    ) -> AsyncIterator[Mapping[str, Any]]:
        """Orthanc's descriptions of those resources that exist."""
        for begin in range(0, len(identifiers), _BATCH):
            query = {
                "Resources": list(identifiers[begin : begin + _BATCH]),
                "Level": level.capitalize(),
                "Metadata": metadata,
            }
            for row in await self._post("/tools/bulk-content", query):
                yield row

    async def _get(self, path: str) -> Any:
        return _checked(await self._loopback.request("GET", path), f"read {path.partition('?')[0]}")

    async def _post(self, path: str, content: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        reply = await self._loopback.request(
            "POST", path, orjson.dumps(content), {"Content-Type": "application/json"}
        )
        return _checked(reply, f"query {path}") or ()


def reference(
    study: str, series: str, instances: Sequence[tuple[str, str]], retrieve: str, own_ae: str
) -> DataSet:
    """An item that references instances (SOP Class and Instance UID) of a series, and says how to retrieve them."""
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
    """True for an instance of a series with the requested tags."""
    return isinstance(row, Mapping) and row.get("ParentSeries") == series and "RequestedTags" in row


def is_identifier(text: str) -> bool:
    """True if a text has the form of Orthanc's identifiers."""
    return _IDENTIFIER.fullmatch(text) is not None


def _checked(reply: Reply, purpose: str) -> Any:
    if reply.status == 404:
        return None
    if reply.status != 200:
        raise refused(reply, f"cannot {purpose}")
    return reply.json()


def _number(text: object) -> int:
    try:
        return int(str(text))
    except ValueError:
        return 0


@functools.lru_cache(maxsize=16)  # many changes have the same date
def _seconds(date: str) -> float | None:
    """A date of ``/changes`` (``20261127T010834``, in UTC) as seconds since the epoch."""
    parsed = _DATE.match(date)
    if parsed is None:
        return None
    year, month, day, hour, minute, second = map(int, parsed.groups())
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()
