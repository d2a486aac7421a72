# SPDX-License-Identifier: AGPL-3.0-or-later
"""Resources of Orthanc: patients, studies, series and instances as a source of attributes and inputs of workitems."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from ..core.dataset import DataSet, element
from ..dicomweb.response import HttpProblem
from . import answers, bodies
from .ports import OrthancResources, ServerFacts
from .routing import Call, Route

_PARENTS: Final[Mapping[str, str]] = {
    "instance": "ParentSeries",
    "series": "ParentStudy",
    "study": "ParentPatient",
}
_ABOVE: Final[Mapping[str, str]] = {"instance": "series", "series": "study", "study": "patient"}
_PLURAL: Final[Mapping[str, str]] = {
    "patient": "patients",
    "study": "studies",
    "series": "series",
    "instance": "instances",
}
_IDENTIFIER: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{8}){4}")
_MAXIMUM_INSTANCES: Final = 10_000
_DATE_LENGTH: Final = 8
_PATIENT: Final = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")


@dataclass(frozen=True, slots=True)
class _Lineage:
    """A resource and its parents, by level."""

    level: str
    chain: Mapping[str, Mapping[str, Any]]

    def tag(self, level: str, keyword: str) -> str:
        """A main DICOM tag of a level, or empty."""
        resource = self.chain.get(level, {})
        patient = resource.get("PatientMainDicomTags", {}) if level == "study" else {}
        return str(resource.get("MainDicomTags", {}).get(keyword) or patient.get(keyword) or "")


class Resources:
    """Handlers of ``/prefill`` and ``/links``, and the references to inputs of new workitems."""

    def __init__(self, orthanc: OrthancResources, facts: ServerFacts) -> None:
        self._orthanc = orthanc
        self._facts = facts

    def routes(self) -> tuple[Route, ...]:
        """Routes of initial values and viewers for resources of Orthanc."""
        return (Route("GET", "/prefill", self.prefill), Route("GET", "/links", self.links))

    # --- a new workitem for a resource ---

    async def prefill(self, call: Call, query: bodies.ResourceQuery) -> answers.Prefill:
        """Initial values for a workitem, from a patient, study, series or instance in Orthanc."""
        lineage = await self._lineage(call, query.level, query.id)
        study = lineage.tag("study", "StudyInstanceUID")
        attributes = {keyword: lineage.tag("patient", keyword) for keyword in _PATIENT}
        if study:
            attributes |= {
                "StudyInstanceUID": study,
                "ReferencedRequestSequence.AccessionNumber": lineage.tag("study", "AccessionNumber"),
                "ReferencedRequestSequence.RequestedProcedureDescription": lineage.tag(
                    "study", "StudyDescription"
                ),
            }
        return {
            "level": lineage.level,
            "title": _title(lineage),
            "study": study,
            "patient_id": lineage.tag("patient", "PatientID"),
            "attributes": {keyword: value for keyword, value in attributes.items() if value},
            "inputs": await self._inputs(lineage) if study else [],
        }

    async def _lineage(self, call: Call, level: str, identifier: str) -> _Lineage:
        """A resource that the caller may read, and its parents."""
        if _IDENTIFIER.fullmatch(identifier):
            await call.check_readable(f"/{_PLURAL[level]}/{identifier}")
        chain: dict[str, Mapping[str, Any]] = {}
        current: str | None = level
        while current:
            chain[current] = await self._get(current, identifier)
            identifier = str(chain[current].get(_PARENTS.get(current, ""), ""))
            current = _ABOVE.get(current)
        return _Lineage(level, chain)

    async def _get(self, level: str, identifier: str) -> Mapping[str, Any]:
        if not _IDENTIFIER.fullmatch(identifier):
            raise HttpProblem(400, '"id" must be an identifier of Orthanc')
        resource = await self._orthanc.get(f"/{_PLURAL[level]}/{identifier}")
        if not isinstance(resource, Mapping):
            raise HttpProblem(404, f"Orthanc has no such {level}; it may have been deleted")
        return resource

    async def _inputs(self, lineage: _Lineage) -> list[answers.PossibleInput]:
        """The series to choose from; for an instance, the instance itself."""
        if lineage.level == "instance":
            number = lineage.tag("instance", "InstanceNumber")
            identifier = str(lineage.chain["instance"].get("ID", ""))
            label = f"Instance {number}".strip()
            return [{"level": "instance", "id": identifier, "label": label, "instances": 1, "chosen": True}]
        series = await self._orthanc.get(f"/studies/{lineage.chain['study']['ID']}/series")
        chosen = str(lineage.chain["series"].get("ID")) if lineage.level == "series" else None
        listed = [_series(entry, chosen) for entry in series or ()]
        return sorted(listed, key=lambda entry: (not entry["chosen"], str(entry["label"])))

    # --- references to inputs ---

    async def references(self, call: Call, inputs: Sequence[bodies.Input]) -> list[DataSet]:
        """Items of Input Information Sequence (0040,4021) for resources: one per series."""
        if len(inputs) > _MAXIMUM_INSTANCES:
            raise HttpProblem(
                400, f'"inputs" has {len(inputs)} entries, expected at most {_MAXIMUM_INSTANCES}'
            )
        references: list[DataSet] = []
        for entry in inputs:
            references += await self._references(await self._lineage(call, entry.level, entry.id))
        total = sum(len(item["00081199"]["Value"]) for item in references)
        if total > _MAXIMUM_INSTANCES:
            raise HttpProblem(
                400, f"the inputs have {total} instances, expected at most {_MAXIMUM_INSTANCES}"
            )
        return references

    async def _references(self, lineage: _Lineage) -> list[DataSet]:
        if lineage.level == "patient":
            raise HttpProblem(400, "an input is a study, a series or an instance, not a patient")
        if lineage.level == "study":
            series = await self._orthanc.get(f"/studies/{lineage.chain['study']['ID']}/series") or ()
        else:
            series = [lineage.chain["series"]]
        study = lineage.tag("study", "StudyInstanceUID")
        only = lineage.chain.get("instance")
        return [await self._reference(study, entry, only) for entry in series]

    async def _reference(
        self, study: str, series: Mapping[str, Any], only: Mapping[str, Any] | None
    ) -> DataSet:
        instances = await self._instances(series, only)
        return {
            "00081199": element("SQ", *instances),
            "0020000D": element("UI", study),
            "0020000E": element("UI", str(series["MainDicomTags"]["SeriesInstanceUID"])),
            "0040E020": element("CS", "DICOM"),
            "0040E021": element("SQ", {"00080054": element("AE", self._facts.archive_ae_title)}),
        }

    async def _instances(self, series: Mapping[str, Any], only: Mapping[str, Any] | None) -> list[DataSet]:
        path = f"/series/{series['ID']}/instances?expand&requestedTags=SOPClassUID"
        instances = await self._orthanc.get(path) or ()
        chosen = [instance for instance in instances if only is None or instance["ID"] == only["ID"]]
        return [
            {
                "00081150": element("UI", str(instance.get("RequestedTags", {}).get("SOPClassUID", ""))),
                "00081155": element("UI", str(instance["MainDicomTags"]["SOPInstanceUID"])),
            }
            for instance in chosen
        ]

    # --- links into viewers ---

    async def links(self, call: Call, query: bodies.LinksQuery) -> answers.Links:
        """Viewers for a study or series, if it is in this Orthanc."""
        study, series = query.study, query.series
        identifiers = dict(await self._orthanc.lookup(series or study)) if series or study else {}
        in_study = dict(await self._orthanc.lookup(study)) if series and study else identifiers
        return {
            "links": _links(
                study, in_study.get("Study", ""), identifiers.get("Series", ""), self._facts.plugins
            )
        }


def _title(lineage: _Lineage) -> str:
    if lineage.level == "patient":
        return lineage.tag("patient", "PatientID")
    words = (lineage.tag("study", "StudyDescription"), _date(lineage.tag("study", "StudyDate")))
    return " · ".join(word for word in words if word) or lineage.tag("study", "StudyInstanceUID")


def _date(text: str) -> str:
    """A DA as ISO 8601."""
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if len(text) == _DATE_LENGTH and text.isdigit() else text


def _series(series: Mapping[str, Any], chosen: str | None) -> answers.PossibleInput:
    main = series.get("MainDicomTags", {})
    parts = (main.get("Modality"), main.get("SeriesNumber"), main.get("SeriesDescription"))
    return {
        "level": "series",
        "id": series.get("ID"),
        "label": " · ".join(str(part) for part in parts if part) or str(main.get("SeriesInstanceUID", "")),
        "instances": len(series.get("Instances", ())),
        "chosen": chosen is None or series.get("ID") == chosen,
    }


def _links(study_uid: str, study: str, series: str, plugins: Sequence[str]) -> list[answers.Link]:
    """Addresses relative to Orthanc's root."""
    if not study:
        return []
    uid = quote(study_uid)
    links: list[answers.Link] = []
    if "stone-webviewer" in plugins:
        links.append({"name": "Stone Web Viewer", "url": f"stone-webviewer/index.html?study={uid}"})
    if "ohif" in plugins:
        links.append({"name": "OHIF", "url": f"ohif/viewer?StudyInstanceUIDs={uid}"})
    if "osimis-web-viewer" in plugins:
        links.append({"name": "Osimis Web Viewer", "url": f"osimis-viewer/app/index.html?study={study}"})
    if "web-viewer" in plugins and series:
        links.append({"name": "Web viewer", "url": f"web-viewer/app/viewer.html?series={series}"})
    if "orthanc-explorer-2" in plugins:
        url = f"ui/app/#/filtered-studies?StudyInstanceUID={uid}&expand=study"
        links.append({"name": "Orthanc Explorer 2", "url": url})
    page = f"series?uuid={series}" if series else f"study?uuid={study}"
    links.append({"name": "Orthanc Explorer", "url": f"app/explorer.html#{page}"})
    return links
