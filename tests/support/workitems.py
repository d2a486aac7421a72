# SPDX-License-Identifier: AGPL-3.0-or-later
"""Builders of workitems in the inner form, with invented people, for every test.

Each call returns fresh data sets, ascending by tag, that share nothing, so a test may change them at will.

- ``minimal()``: the least that N-CREATE takes: every type 1 attribute with a value, every type 2 one empty.
- ``full()``: every row of PS3.4 Table CC.2.5-3 that a scheduler would fill, with several code items.
- ``stored()``: as the worklist keeps it (with UIDs, stamp and label), by default SCHEDULED.
- ``performed()`` / ``progress()``: modification lists for N-SET; ``performed()`` meets the final state
  requirements of COMPLETED.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Final

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import DataSet, Element, element, ordered

PEOPLE: Final[Mapping[str, Mapping[str, str]]] = {
    "plain": {"Alphabetic": "Fairweather^Ines^Q"},
    "japanese": {"Alphabetic": "Aokawa^Haruka", "Ideographic": "青川^春香", "Phonetic": "あおかわ^はるか"},
    "cyrillic": {"Alphabetic": "Журавлёва^Мария^Олеговна"},
    "greek": {"Alphabetic": "Καστανίδης^Νεκτάριος"},
    "latin-1": {"Alphabetic": "Ångström-Müller^Zoë^François"},
}
"""Person names as PN values, one per character repertoire."""

UID_ROOT: Final = "1.2.826.0.1.3680043.10.1999"
CT_IMAGE: Final = "1.2.840.10008.5.1.4.1.1.2"
SEGMENTATION: Final = "1.2.840.10008.5.1.4.1.1.66.4"


def uid(number: int) -> str:
    """A SOP Instance UID for the workitem ``number`` of a test."""
    return f"{UID_ROOT}.{number}"


def code(value: str = "110005", scheme: str = "DCM", meaning: str = "Interpretation") -> DataSet:
    """One item of a code sequence (PS3.3 Table 8.8-1)."""
    return {
        tags.CODE_VALUE: element("SH", value),
        tags.CODING_SCHEME: element("SH", scheme),
        tags.CODE_MEANING: element("LO", meaning),
    }


def station(name: str = "READING7") -> DataSet:
    """A station as a code item."""
    return code(name, "99STATIONS", f"Station {name}")


def person(who: str = "plain") -> dict[str, str]:
    """A PN value: ``plain``, ``japanese``, ``cyrillic``, ``greek`` or ``latin-1``."""
    return dict(PEOPLE[who])


def performer(who: str = "plain", organization: str = "Harbour Clinic") -> DataSet:
    """One item of Scheduled or Actual Human Performers Sequence."""
    return {
        tags.HUMAN_PERFORMER_CODES: element("SQ", code("P" + who[:6].upper(), "99PEOPLE", "Reader")),
        tags.HUMAN_PERFORMER_ORGANIZATION: element("LO", organization),
        "00404037": element("PN", person(who)),
    }


def text_parameter(value: str = "left", name: str = "Laterality") -> DataSet:
    """A content item with a text value."""
    return ordered(
        {
            "0040A040": element("CS", "TEXT"),
            "0040A043": element("SQ", code("L1", "99PARAM", name)),
            "0040A160": element("UT", value),
        }
    )


def numeric_parameter(value: str = "1.50", name: str = "Dose factor") -> DataSet:
    """A content item with a numeric value and its units."""
    return ordered(
        {
            "004008EA": element("SQ", code("1", "UCUM", "no units")),
            "0040A040": element("CS", "NUMERIC"),
            "0040A043": element("SQ", code("N1", "99PARAM", name)),
            "0040A30A": element("DS", value),
        }
    )


def reference(number: int = 1, sop_class: str = CT_IMAGE) -> DataSet:
    """One item of Input or Output Information Sequence: an instance that Orthanc can give by C-MOVE."""
    return {
        "00081199": element(
            "SQ",
            {
                "00081150": element("UI", sop_class),
                "00081155": element("UI", f"{UID_ROOT}.3.{number}"),
            },
        ),
        "0020000D": element("UI", f"{UID_ROOT}.1.{number}"),
        "0020000E": element("UI", f"{UID_ROOT}.2.{number}"),
        "0040E020": element("CS", "DICOM"),
        "0040E021": element("SQ", {"00080054": element("AE", "ARCHIVE")}),
    }


def request(accession: str = "A-4711") -> DataSet:
    """One item of Referenced Request Sequence."""
    return ordered(
        {
            "0020000D": element("UI", f"{UID_ROOT}.1.1"),
            "00080050": element("SH", accession),
            "00080051": element("SQ", {"00400031": element("UT", "HARBOUR")}),
            "00402016": element("LO", "PLACER-1"),
            "00400026": element("SQ"),
            "00402017": element("LO", "FILLER-1"),
            "00400027": element("SQ"),
            "00401001": element("SH", "RP-1"),
            "00321060": element("LO", "Thorax, second reading"),
            "00321064": element("SQ", code("THX2", "99PROC", "Thorax, second reading")),
            "00321033": element("LO", "Pulmonology"),
        }
    )


_EMPTY_AT_CREATION: Final[Mapping[str, str]] = {
    "00741202": "LO",  # Worklist Label: the SCP fills it
    "00741210": "SQ",
    "00404025": "SQ",
    "00404026": "SQ",
    "00404027": "SQ",
    "00404018": "SQ",
    "00400400": "LT",
    "00404021": "SQ",
    "00100010": "PN",
    "00100021": "LO",
    "00100024": "SQ",
    "00101002": "SQ",
    "00100030": "DA",
    "00100040": "CS",
    "00380010": "LO",
    "00380014": "SQ",
    "00081080": "LO",
    "00081084": "SQ",
    "0040A370": "SQ",
    "00741002": "SQ",
    "00741216": "SQ",
}


def minimal(**changes: Element | None) -> DataSet:
    """The minimal data set that N-CREATE accepts.

    ``changes`` are elements by tag with a leading ``t`` (``t00741200=element("CS", "LOW")``); None removes.
    """
    attributes: DataSet = {tag: element(vr) for tag, vr in _EMPTY_AT_CREATION.items()}
    attributes |= {
        tags.STATE: element("CS", "SCHEDULED"),
        tags.PRIORITY: element("CS", "MEDIUM"),
        tags.LABEL: element("LO", "Second reading"),
        tags.READINESS: element("CS", "READY"),
        tags.START: element("DT", "20261122183000"),
    }
    return changed(attributes, **changes)


def full(who: str = "plain", **changes: Element | None) -> DataSet:
    """A detailed workitem for a patient of ``PEOPLE``, as a thorough scheduler sends it."""
    attributes = minimal() | _scheduling() | _patient(who) | _visit()
    return changed(attributes, **changes)


def _scheduling() -> DataSet:
    return {
        tags.PRIORITY: element("CS", "HIGH"),
        tags.WORKLIST_LABEL: element("LO", "SECOND READS"),
        "00741210": element("SQ", text_parameter(), numeric_parameter()),
        tags.STATION_NAME: element("SQ", station("READING7"), station("READING8")),
        "00404026": element("SQ", code("WS", "99STATIONS", "Workstation")),
        "00404027": element("SQ", code("F2", "99STATIONS", "Second floor")),
        tags.HUMAN_PERFORMERS: element("SQ", performer("greek"), performer("cyrillic")),
        tags.EXPECTED_COMPLETION: element("DT", "20261122193000+0100"),
        tags.EXPIRATION: element("DT", "20261130000000+0100"),
        tags.WORKITEM_CODE: element("SQ", code()),
        "00400400": element("LT", "Compare with the images of last year.\r\nCall if in doubt."),
        "00404021": element("SQ", reference(1), reference(2)),
        "0020000D": element("UI", f"{UID_ROOT}.1.1"),
        "00404070": element("SQ", {"00404071": element("SQ", {"21000140": element("AE", "ARCHIVE")})}),
        "0040A370": element("SQ", request("A-4711"), request("A-4712")),
    }


def _patient(who: str) -> DataSet:
    return {
        "00100010": element("PN", person(who)),
        "00100020": element("LO", "HC-000815"),
        "00100021": element("LO", "HARBOUR"),
        "00100024": element("SQ", _issuer()),
        "00101002": element("SQ", _other_patient_id()),
        "00100030": element("DA", "19730228"),
        "00100040": element("CS", "F"),
        "00101030": element("DS", "71.50"),
        "00102000": element("LO", "Contrast medium", "Pacemaker"),
        "001021C0": element("US", 1),
    }


def _issuer() -> DataSet:
    return {
        "00400032": element("UT", "1.2.826.0.1.3680043.10.1999.9"),
        "00400033": element("CS", "ISO"),
        "00400035": element("CS", "MR"),
        "00400036": element("SQ", {"00400031": element("UT", "HARBOUR")}),
        "00400039": element("SQ"),
        "0040003A": element("SQ"),
    }


def _other_patient_id() -> DataSet:
    return {
        "00100020": element("LO", "OLD-42"),
        "00100021": element("LO", "LIGHTHOUSE"),
        "00100022": element("CS", "TEXT"),
        "00100024": element("SQ"),
    }


def _visit() -> DataSet:
    return {
        "00380010": element("LO", "ADM-1"),
        "00380014": element("SQ", {"00400031": element("UT", "HARBOUR")}),
        "00380050": element("LO", "Wheelchair"),
        "00380300": element("LO", "Ward 3"),
        "00081080": element("LO", "Cough"),
        "00081084": element("SQ", code("R05", "I10", "Cough")),
    }


def performed(**changes: Element | None) -> DataSet:
    """A modification list after which the workitem may become COMPLETED (PS3.4 CC.2.5.1.1).

    ``changes`` go into the one item of Performed Procedure Sequence.
    """
    item: DataSet = {
        "00400254": element("LO", "Second reading"),
        "00404019": element("SQ", code()),
        "00404028": element("SQ", station("READING7")),
        "00404029": element("SQ"),
        "00404030": element("SQ"),
        "00404033": element("SQ", reference(9, SEGMENTATION)),
        "00404035": element("SQ", performer("greek")),
        "00404050": element("DT", "20261122183500+0100"),
        "00404051": element("DT", "20261122184500+0100"),
    }
    return {tags.PERFORMED_PROCEDURE: element("SQ", changed(item, **changes))}


def progress(percent: str = "40", description: str = "Reading", **changes: Element | None) -> DataSet:
    """A modification list with progress. ``changes`` go into the item of Progress Information."""
    item: DataSet = {
        tags.PROGRESS: element("DS", percent),
        tags.PROGRESS_DESCRIPTION: element("ST", description),
        tags.COMMUNICATIONS_URIS: element(
            "SQ",
            {
                tags.CONTACT_URI: element("UR", "tel:+49-40-0000000"),
                tags.CONTACT_NAME: element("LO", "Reading room 7"),
            },
        ),
    }
    return {tags.PROGRESS_INFORMATION: element("SQ", changed(item, **changes))}


def stored(
    number: int = 1, state: str = "SCHEDULED", base: DataSet | None = None, **changes: Element | None
) -> DataSet:
    """The attributes of a workitem as the worklist keeps them (never a Transaction UID)."""
    attributes = deepcopy(base) if base is not None else minimal()
    attributes |= {
        tags.SOP_CLASS_UID: element("UI", tags.PUSH),
        tags.SOP_INSTANCE_UID: element("UI", uid(number)),
        tags.MODIFICATION: element("DT", "20261122180000.000000+0000"),
        tags.STATE: element("CS", state),
    }
    if "Value" not in attributes[tags.WORKLIST_LABEL]:
        attributes[tags.WORKLIST_LABEL] = element("LO", "DEFAULT")
    for tag, vr in {"00100020": "LO", "0020000D": "UI", "00102000": "LO", "00380050": "LO"}.items():
        attributes.setdefault(tag, element(vr))
    attributes.setdefault("001021C0", element("US"))
    return changed(attributes, **changes)


def changed(dataset: DataSet, **changes: Any) -> DataSet:
    """A copy with elements replaced (by tag with a leading ``t``) or, where None, removed."""
    copy = deepcopy(dataset)
    for name, value in changes.items():
        copy.pop(name[1:], None)
        if value is not None:
            copy[name[1:]] = value
    return ordered(copy)
