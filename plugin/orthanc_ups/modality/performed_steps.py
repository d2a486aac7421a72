# SPDX-License-Identifier: AGPL-3.0-or-later
"""Modality Performed Procedure Steps: what can be created and set (PS3.4 Annex F, Table F.7.2-1), as pure functions.

A step is IN PROGRESS from its N-CREATE on, until an N-SET makes it COMPLETED or DISCONTINUED, for good. Unless
``Ups.Strict`` is set, absent attributes of type 2 are added empty, and a final step without an end ends now.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from types import MappingProxyType
from typing import Any, Final

import orjson

from ..core import tags
from ..core.dataset import DataSet, element, is_empty, items, ordered, text
from ..core.refusals import Findings, Trail
from ..core.statuses import (
    INVALID_VALUE,
    MISSING_ATTRIBUTE,
    MISSING_VALUE,
    NO_SUCH_ATTRIBUTE,
    STEP_MAY_NOT_BE_UPDATED,
    UpsError,
)
from ..core.value_rules import DataSetLimits, checked
from ..core.workitem import HistoryEntry
from ..store.documents import FORMAT, UnreadableDocument, read

PERFORMED_STEP: Final = "1.2.840.10008.3.1.2.3.3"
"""Modality Performed Procedure Step SOP Class."""

RETRIEVE: Final = "1.2.840.10008.3.1.2.3.4"
"""Modality Performed Procedure Step Retrieve SOP Class."""

SCHEDULED_ATTRIBUTES: Final = "00400270"
STATUS: Final = "00400252"
STEP_ID: Final = "00400253"
STATION_AE: Final = "00400241"
STATION: Final = "00400242"
LOCATION: Final = "00400243"
START_DATE: Final = "00400244"
START_TIME: Final = "00400245"
END_DATE: Final = "00400250"
END_TIME: Final = "00400251"
DESCRIPTION: Final = "00400254"
TYPE_DESCRIPTION: Final = "00400255"
PROTOCOL_CODES: Final = "00400260"
COMMENTS: Final = "00400280"
DISCONTINUATION: Final = "00400281"
SERIES: Final = "00400340"
PROCEDURE_CODES: Final = "00081032"
MODALITY: Final = "00080060"
STUDY_ID: Final = "00200010"
STUDY: Final = "0020000D"
SERIES_UID: Final = "0020000E"
PROTOCOL_NAME: Final = "00181030"
_REFERENCED_PATIENT: Final = "00081120"


class StepStatus(str, Enum):
    """Performed Procedure Step Status (0040,0252)."""

    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"

    @property
    def is_final(self) -> bool:
        """True for COMPLETED and DISCONTINUED, after which nothing changes."""
        return self is not StepStatus.IN_PROGRESS


_CREATE_1: Final[Mapping[str, str]] = MappingProxyType(
    {
        SCHEDULED_ATTRIBUTES: "SQ",
        STEP_ID: "SH",
        STATION_AE: "AE",
        START_DATE: "DA",
        START_TIME: "TM",
        STATUS: "CS",
        MODALITY: "CS",
    }
)
"""Attributes of type 1 at creation."""

_CREATE_2: Final[Mapping[str, str]] = MappingProxyType(
    {
        tags.PATIENT_NAME: "PN", tags.PATIENT_ID: "LO", "00100030": "DA", "00100040": "CS", _REFERENCED_PATIENT: "SQ",
        STATION: "SH", LOCATION: "SH", DESCRIPTION: "LO", TYPE_DESCRIPTION: "LO", PROCEDURE_CODES: "SQ",
        END_DATE: "DA", END_TIME: "TM", STUDY_ID: "SH", PROTOCOL_CODES: "SQ", SERIES: "SQ",
    }
)  # fmt: skip
"""Attributes of type 2 at creation."""

_SCHEDULED_1: Final[Mapping[str, str]] = MappingProxyType({STUDY: "UI"})
_SCHEDULED_2: Final[Mapping[str, str]] = MappingProxyType(
    {
        "00081110": "SQ", "00080050": "SH", "00401001": "SH", "00321060": "LO", "00400009": "SH",
        "00400007": "LO", "00400008": "SQ",
    }
)  # fmt: skip
"""Attributes of type 1 and 2 in each item of Scheduled Step Attributes Sequence."""

_SERIES_1: Final[Mapping[str, str]] = MappingProxyType({SERIES_UID: "UI", PROTOCOL_NAME: "LO"})

_FIXED: Final[Collection[str]] = frozenset(
    {SCHEDULED_ATTRIBUTES, STEP_ID, STATION_AE, STATION, LOCATION, START_DATE, START_TIME, MODALITY, STUDY_ID}
    | {tags.SOP_CLASS_UID, tags.SOP_INSTANCE_UID, _REFERENCED_PATIENT}
)
"""Attributes that N-SET must not change, besides those of the patient (groups 0010 and 0038)."""


@dataclass(frozen=True, slots=True)
class StepCircumstances:
    """What the rules of Annex F need besides the step."""

    now: datetime
    limits: DataSetLimits
    strict: bool = False


@dataclass(frozen=True, slots=True)
class PerformedStep:
    """A step as it is stored.

    Attributes:
        uid: SOP Instance UID.
        ae: AE title that created it.
        attributes: the data set.
        created: time of its creation, in seconds since the epoch; ``changed``: of its last change.
        workitems: UIDs of its workitems.
        notes: by workitem the reason why the step is not applied to it; by "" the reason why it has no workitem.
        history: what was done with it, oldest first.
        revision: counts the writes, so that no two documents of a step are equal.
        worklist: identity of the worklist that received it, if it was imported from another one.
    """

    uid: str
    ae: str
    attributes: DataSet
    created: float
    changed: float
    workitems: tuple[str, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    history: tuple[HistoryEntry, ...] = ()
    revision: int = 0
    worklist: str = ""

    @property
    def status(self) -> StepStatus:
        """The Performed Procedure Step Status."""
        return StepStatus(text(self.attributes, STATUS))

    def document(self) -> bytes:
        """The document to store."""
        content = {
            "format": FORMAT,
            "uid": self.uid,
            "ae": self.ae,
            "revision": self.revision,
            "created": self.created,
            "changed": self.changed,
            "workitems": list(self.workitems),
            "notes": dict(self.notes),
            "history": [[entry.at, entry.who, entry.what, entry.why] for entry in self.history],
            "attributes": self.attributes,
            **({"worklist": self.worklist} if self.worklist else {}),
        }
        return orjson.dumps(content)

    @classmethod
    def of_document(cls, document: bytes) -> PerformedStep:
        """Read a stored step. Raises UnreadableDocument."""
        content = read(document)
        try:
            step = cls(
                uid=content["uid"],
                ae=content["ae"],
                attributes=content["attributes"],
                created=float(content["created"]),
                changed=float(content["changed"]),
                workitems=tuple(content["workitems"]),
                notes=dict(content["notes"]),
                history=tuple(HistoryEntry(*entry) for entry in content["history"]),
                revision=int(content["revision"]),
                worklist=str(content.get("worklist", "")),
            )
            _ = step.status
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UnreadableDocument(f"not a performed step: {error!r}") from error
        return step


@dataclass(frozen=True, slots=True)
class StepChange:
    """A step after a request, with corrections of the request as sentences, and tags that were ignored."""

    step: PerformedStep
    corrections: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


def created(uid: str, ae: str, sent: DataSet, circumstances: StepCircumstances) -> StepChange:
    """The step of an N-CREATE (PS3.4 F.7.2.1). Raises UpsError (0106, 0120, 0121) that names every fault."""
    findings = Findings(strict=circumstances.strict)
    attributes = _sound(sent, findings, circumstances)
    attributes = _completed(attributes, _CREATE_1, _CREATE_2, (), findings)
    scheduled = [
        _completed(item, _SCHEDULED_1, _SCHEDULED_2, ((SCHEDULED_ATTRIBUTES, number),), findings)
        for number, item in enumerate(items(attributes, SCHEDULED_ATTRIBUTES), 1)
    ]
    status = attributes.get(STATUS)
    if not is_empty(status) and text(attributes, STATUS).strip() != StepStatus.IN_PROGRESS.value:
        findings.fault(INVALID_VALUE, (), STATUS, f"is not {StepStatus.IN_PROGRESS.value} at creation")
    findings.refuse()
    content = {
        **attributes,
        STATUS: element("CS", StepStatus.IN_PROGRESS.value),
        SCHEDULED_ATTRIBUTES: element("SQ", *scheduled),
        tags.SOP_CLASS_UID: element("UI", PERFORMED_STEP),
        tags.SOP_INSTANCE_UID: element("UI", uid),
    }
    at = circumstances.now.timestamp()
    return StepChange(PerformedStep(uid, ae, ordered(content), at, at), findings.corrections)


def updated(step: PerformedStep, sent: DataSet, circumstances: StepCircumstances) -> StepChange:
    """The step after an N-SET (PS3.4 F.7.2.2).

    Raises:
        UpsError: 0110 for a step that is final; 0105, 0106, 0120 or 0121 for attributes at fault.
    """
    if step.status.is_final:
        raise UpsError(STEP_MAY_NOT_BE_UPDATED)
    findings = Findings(strict=circumstances.strict)
    modifications = _sound(sent, findings, circumstances)
    ignored = tuple(sorted(tag for tag in modifications if _is_refused_change(tag, modifications, step)))
    if circumstances.strict:
        for tag in ignored:
            findings.fault(NO_SUCH_ATTRIBUTE, (), tag, "must not be changed by N-SET")
    status = _status_of(modifications, findings)
    changes = {tag: attribute for tag, attribute in modifications.items() if tag not in ignored}
    merged = {**step.attributes, **changes}
    if status.is_final:
        merged = _ended(merged, status, findings, circumstances)
    findings.refuse()
    after = replace(
        step,
        attributes=ordered({**merged, STATUS: element("CS", status.value)}),
        changed=circumstances.now.timestamp(),
    )
    return StepChange(after, findings.corrections, ignored)


def _sound(sent: DataSet, findings: Findings, circumstances: StepCircumstances) -> DataSet:
    """Check values in strict mode; else leave them as the modality sent them."""
    return checked(sent, findings, circumstances.limits) if findings.strict else sent


def _is_refused_change(tag: str, modifications: DataSet, step: PerformedStep) -> bool:
    is_fixed = tag in _FIXED or tag.startswith(("0010", "0038"))
    return is_fixed and modifications[tag] != step.attributes.get(tag)


def _status_of(modifications: DataSet, findings: Findings) -> StepStatus:
    """The status in an N-SET, IN PROGRESS if it has none."""
    if is_empty(modifications.get(STATUS)):
        return StepStatus.IN_PROGRESS
    try:
        return StepStatus(text(modifications, STATUS).strip())
    except ValueError:
        expected = ", ".join(status.value for status in StepStatus)
        findings.fault(INVALID_VALUE, (), STATUS, f"is not one of {expected}")
        return StepStatus.IN_PROGRESS


def _ended(
    attributes: DataSet, status: StepStatus, findings: Findings, circumstances: StepCircumstances
) -> DataSet:
    """Add what a final step must have: its end; in strict mode also check its series (Table F.7.2-1)."""
    end = {
        END_DATE: element("DA", f"{circumstances.now:%Y%m%d}"),
        END_TIME: element("TM", f"{circumstances.now:%H%M%S}"),
    }
    absent = [tag for tag in end if is_empty(attributes.get(tag))]
    if absent and not findings.strict:
        for tag in end:
            findings.correction((), tag, "set to the time of the request")
        return {**attributes, **end}
    for tag in absent:
        findings.fault(MISSING_VALUE, (), tag, f"has no value, which {status.value} needs")
    if findings.strict:
        if is_empty(attributes.get(SERIES)):
            findings.fault(MISSING_VALUE, (), SERIES, f"has no items, which {status.value} needs")
        for number, item in enumerate(items(attributes, SERIES), 1):
            _completed(item, _SERIES_1, {}, ((SERIES, number),), findings)
    return attributes


def _completed(
    level: DataSet, first: Mapping[str, str], second: Mapping[str, str], trail: Trail, findings: Findings
) -> DataSet:
    """Add missing attributes of type 2 (``second``), and report missing ones of type 1 (``first``)."""
    for tag in first:
        if tag not in level:
            findings.fault(MISSING_ATTRIBUTE, trail, tag, "is missing")
        elif is_empty(level[tag]):
            findings.fault(MISSING_VALUE, trail, tag, "has no value")
    added: dict[str, Any] = {}
    for tag, vr in second.items():
        if tag in level:
            continue
        if findings.strict:
            findings.fault(MISSING_ATTRIBUTE, trail, tag, "is missing")
        else:
            findings.correction(trail, tag, "added empty")
            added[tag] = element(vr)
    return ordered({**level, **added}) if added else level
