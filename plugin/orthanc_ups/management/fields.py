# SPDX-License-Identifier: AGPL-3.0-or-later
"""The fields of the page's forms: the attributes that an operator fills in."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a form.

    Attributes:
        keyword: of the attribute; with a dot for an attribute in the single item of a sequence.
        kind: ``text``, ``long``, ``choice``, ``datetime``, ``date``, ``name``, ``uid``, ``code`` (one coded
            term), ``codes``, ``people`` (human performers).
        editable: True if it may be changed while SCHEDULED (PS3.4 Table CC.2.5-3, column N-SET).
        longest: maximum number of characters; 0 for no limit.
    """

    keyword: str
    label: str
    kind: str
    group: str
    editable: bool = True
    required: bool = False
    longest: int = 64
    choices: tuple[str, ...] = ()
    help: str = ""


_STEP: Final = "Procedure step"
_WHO: Final = "Stations and performers"
_PATIENT: Final = "Patient"
_REQUEST: Final = "Request"

FIELDS: Final = (
    Field("ProcedureStepLabel", "Label", "text", _STEP, required=True, help="Short name of the step"),
    Field("WorklistLabel", "Worklist", "text", _STEP, help="Leave empty for the default worklist"),
    Field("ScheduledProcedureStepPriority", "Priority", "choice", _STEP, choices=("HIGH", "MEDIUM", "LOW")),
    Field(
        "InputReadinessState", "Input readiness", "choice", _STEP, choices=("READY", "INCOMPLETE", "UNAVAILABLE"),
        help="READY once all inputs can be retrieved",
    ),
    Field("ScheduledProcedureStepStartDateTime", "Start", "datetime", _STEP, required=True),
    Field("ExpectedCompletionDateTime", "Expected completion", "datetime", _STEP),
    Field(
        "ScheduledProcedureStepExpirationDateTime", "Expires", "datetime", _STEP,
        help="When the work is no longer useful",
    ),
    Field("ScheduledWorkitemCodeSequence", "Workitem code", "code", _STEP, help="Code for the kind of work"),
    Field("CommentsOnTheScheduledProcedureStep", "Comments", "long", _STEP, longest=10_240),
    Field("ScheduledStationNameCodeSequence", "Stations", "codes", _WHO),
    Field("ScheduledStationClassCodeSequence", "Station classes", "codes", _WHO),
    Field("ScheduledStationGeographicLocationCodeSequence", "Locations", "codes", _WHO),
    Field("ScheduledHumanPerformersSequence", "Performers", "people", _WHO),
    Field("PatientName", "Name", "name", _PATIENT, editable=False, help="Family^Given^Middle"),
    Field("PatientID", "Patient ID", "text", _PATIENT, editable=False),
    Field("IssuerOfPatientID", "Issuer of patient ID", "text", _PATIENT, editable=False),
    Field("PatientBirthDate", "Birth date", "date", _PATIENT, editable=False),
    Field("PatientSex", "Sex", "choice", _PATIENT, editable=False, choices=("F", "M", "O")),
    Field("AdmissionID", "Admission ID", "text", _PATIENT, editable=False),
    Field("StudyInstanceUID", "Study Instance UID", "uid", _REQUEST, editable=True),
    Field("ReferencedRequestSequence.AccessionNumber", "Accession number", "text", _REQUEST, editable=False,
          longest=16),
    Field("ReferencedRequestSequence.RequestedProcedureID", "Requested procedure ID", "text", _REQUEST,
          editable=False, longest=16),
    Field("ReferencedRequestSequence.RequestedProcedureDescription", "Requested procedure", "text", _REQUEST,
          editable=False),
)  # fmt: skip
"""In the order of the form."""

EDITABLE: Final = frozenset(field.keyword for field in FIELDS if field.editable)

_REASONS: Final = {
    "110513": "Discontinued for unspecified reason",
    "110500": "Doctor canceled procedure",
    "110514": "Incorrect worklist entry selected",
    "110510": "Duplicate order",
    "110502": "Incorrect procedure ordered",
    "110501": "Equipment failure",
    "110526": "Resource pre-empted",
    "110527": "Resource inadequate",
    "110523": "Object Set incomplete",
    "110528": "Discontinued Procedure Step rescheduled",
    "110529": "Discontinued Procedure Step rescheduling recommended",
    "110507": "Patient did not arrive",
    "110505": "Patient refused to continue procedure",
    "110515": "Patient condition prevented continuing",
    "110533": "Workitem expired",
}


def described() -> list[dict[str, Any]]:
    """The fields as JSON, for the page."""
    return [asdict(form_field) for form_field in FIELDS]


def reasons() -> list[dict[str, str]]:
    """Coded reasons for a discontinuation (PS3.16 CID 9300), as code items."""
    return [
        {"CodeValue": code, "CodingSchemeDesignator": "DCM", "CodeMeaning": meaning}
        for code, meaning in _REASONS.items()
    ]
