# SPDX-License-Identifier: AGPL-3.0-or-later
"""A workitem as answers to a worklist query: the mapping of docs/modality-worklist.md (PS3.4 Table K.6-1)."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

from ..core import tags
from ..core.dataset import DataSet, Element, element, is_empty, items, ordered, text, value
from ..core.date_times import Zone, moment, zone
from ..core.states import State
from .stations import DCM, STATION_CLASS, Stations

REFERENCED_REQUEST: Final = "0040A370"
SCHEDULED_STEP: Final = "00400100"
STATION_AE: Final = "00400001"
START_DATE: Final = "00400002"
START_TIME: Final = "00400003"
END_DATE: Final = "00400004"
END_TIME: Final = "00400005"
PERFORMING_PHYSICIAN: Final = "00400006"
STEP_DESCRIPTION: Final = "00400007"
PROTOCOL_CODES: Final = "00400008"
STEP_ID: Final = "00400009"
STATION: Final = "00400010"
STEP_LOCATION: Final = "00400011"
STEP_STATUS: Final = "00400020"
MODALITY: Final = "00080060"
ACCESSION_NUMBER: Final = "00080050"
STUDY: Final = "0020000D"
REQUESTED_ID: Final = "00401001"
REQUESTED_PRIORITY: Final = "00401003"
REQUESTED_DESCRIPTION: Final = "00321060"
REQUESTED_CODES: Final = "00321064"

_STATION_LOCATION: Final = "00404027"
_PERFORMER_NAME: Final = "00404037"
_COMMENTS: Final = "00400400"
_OF_THE_STEP: Final = (_COMMENTS, "00400012", "00321070")
"""Attributes of a workitem that belong in the step: comments, pre-medication, contrast agent."""

_COPIED_GROUPS: Final = ("0010", "0038")
_COPIED: Final = ("00081120", "00403001")
_ID_PREFIX: Final = "UPS"
_SHORT: Final = 16  # characters of VR SH
_EPOCH: Final = datetime(1, 1, 1, tzinfo=UTC)

MAPPED: Final = frozenset(
    {
        tags.PATIENT_NAME, tags.PATIENT_ID, "00100021", "00100030", "00100040", "00380010",
        ACCESSION_NUMBER, STUDY, REQUESTED_ID, REQUESTED_PRIORITY, REQUESTED_DESCRIPTION, REQUESTED_CODES,
        SCHEDULED_STEP, STATION_AE, START_DATE, START_TIME, END_DATE, END_TIME, PERFORMING_PHYSICIAN,
        STEP_DESCRIPTION, PROTOCOL_CODES, STEP_ID, STATION, STEP_LOCATION, STEP_STATUS, MODALITY,
        tags.CODE_VALUE, tags.CODING_SCHEME, tags.CODE_MEANING, *_OF_THE_STEP,
    }
)  # fmt: skip
"""Attributes that every answer has if the workitem has a value for them, so that keys for them must match."""


def step_id(created: int) -> str:
    """The Scheduled Procedure Step ID of the workitem with this creation number."""
    return f"{_ID_PREFIX}{created}"


def number_of(identifier: str) -> int | None:
    """The creation number in a Scheduled Procedure Step ID; None if the ID is not one of this plugin."""
    digits = identifier.strip().removeprefix(_ID_PREFIX)
    is_own = identifier.strip().startswith(_ID_PREFIX) and digits.isascii() and digits.isdigit()
    return int(digits) if is_own and len(digits) < _SHORT else None


def study_of(workitem: DataSet) -> str:
    """The Study Instance UID for images of a workitem.

    That of the workitem or of its request; else a UID derived from the workitem's own, so always the same.
    """
    requested = (text(item, STUDY) for item in items(workitem, REFERENCED_REQUEST))
    listed = next(filter(None, (text(workitem, STUDY), *requested)), "")
    if listed:
        return listed
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, text(workitem, tags.SOP_INSTANCE_UID)).int}"


def answers_of(workitem: DataSet, created: int, stations: Stations, local: Zone) -> list[DataSet]:
    """The answers for a workitem, one for each requested procedure, at least one.

    Args:
        workitem: the attributes of the workitem.
        created: its creation number.
        stations: the stations of the site.
        local: the zone of dates and times in answers.
    """
    requests = items(workitem, REFERENCED_REQUEST) or [{}]
    step = _step(workitem, created, stations, local)
    return [_answer(workitem, created, request, step) for request in requests]


def _answer(workitem: DataSet, created: int, request: DataSet, step: DataSet) -> DataSet:
    copied = {
        tag: attribute
        for tag, attribute in workitem.items()
        if tag.startswith(_COPIED_GROUPS) or tag in _COPIED
    }
    requested = {tag: attribute for tag, attribute in request.items() if tag != STUDY}
    if is_empty(requested.get(REQUESTED_ID)):
        requested[REQUESTED_ID] = element("SH", step_id(created))
    codes = items(workitem, tags.WORKITEM_CODE)
    if is_empty(requested.get(REQUESTED_DESCRIPTION)) and is_empty(requested.get(REQUESTED_CODES)):
        requested[REQUESTED_DESCRIPTION] = _text("LO", text(workitem, tags.LABEL))
        requested[REQUESTED_CODES] = element("SQ", *codes)
    if is_empty(requested.get(REQUESTED_PRIORITY)):
        requested[REQUESTED_PRIORITY] = _text("SH", text(workitem, tags.PRIORITY))
    study = text(workitem, STUDY) or text(request, STUDY) or study_of(workitem)
    return ordered({**copied, **requested, STUDY: element("UI", study), SCHEDULED_STEP: element("SQ", step)})


def _step(workitem: DataSet, created: int, stations: Stations, local: Zone) -> DataSet:
    titles = stations.titles_of(workitem)
    own = zone(text(workitem, tags.TIMEZONE_OFFSET))
    stored_in = local if own is None else own
    start = _local(value(workitem, tags.START), stored_in, local)
    end = _local(value(workitem, tags.EXPECTED_COMPLETION), stored_in, local)
    performers = items(workitem, tags.HUMAN_PERFORMERS)
    names = [name for item in performers if (name := value(item, _PERFORMER_NAME))]
    is_started = text(workitem, tags.STATE) == State.IN_PROGRESS.value
    step: dict[str, Element] = {
        MODALITY: _text("CS", modality_of(workitem, titles, stations)),
        STATION_AE: _texts("AE", titles),
        START_DATE: _text("DA", start[0]),
        START_TIME: _text("TM", start[1]),
        PERFORMING_PHYSICIAN: element("PN", *names[:1]),
        STEP_DESCRIPTION: _text("LO", text(workitem, tags.LABEL)),
        PROTOCOL_CODES: element("SQ", *items(workitem, tags.WORKITEM_CODE)),
        STEP_ID: element("SH", step_id(created)),
        STATION: _texts("SH", map(_name_of, items(workitem, tags.STATION_NAME))),
        STEP_LOCATION: _texts("SH", list(map(_name_of, items(workitem, _STATION_LOCATION)))[:1]),
        STEP_STATUS: element("CS", "STARTED" if is_started else "SCHEDULED"),
    }
    if end[0]:
        step |= {END_DATE: _text("DA", end[0]), END_TIME: _text("TM", end[1])}
    step |= {tag: workitem[tag] for tag in _OF_THE_STEP if tag in workitem}
    return ordered(step)


def modality_of(workitem: DataSet, titles: Iterable[str], stations: Stations) -> str:
    """The modality: a station class of coding scheme DCM, else that of its AE titles in the settings, else ""."""
    for item in items(workitem, STATION_CLASS):
        if text(item, tags.CODING_SCHEME).strip() == DCM:
            return text(item, tags.CODE_VALUE).strip()
    return stations.modality_of(titles)


def _local(written: Any, stored_in: Zone, local: Zone) -> tuple[str, str]:
    """Date and time of a date-time, in the zone of answers; empty if it is not valid."""
    at = moment("DT", written, stored_in)
    if at is None:
        return "", ""
    east = timezone(timedelta(microseconds=local)) if isinstance(local, int) else local
    try:
        here = (_EPOCH + timedelta(microseconds=at)).astimezone(east)
    except OverflowError:  # in the first or last hours of the calendar
        return "", ""
    return f"{here.year:04}{here:%m%d}", f"{here:%H%M%S}"


def _name_of(code: DataSet) -> str:
    """A code as text of at most 16 characters: its meaning if that is short enough, else its value."""
    meaning = text(code, tags.CODE_MEANING).strip()
    return meaning if 0 < len(meaning) <= _SHORT else text(code, tags.CODE_VALUE).strip()[:_SHORT]


def _text(vr: str, content: str) -> Element:
    return element(vr, content) if content else element(vr)


def _texts(vr: str, contents: Iterable[str]) -> Element:
    return element(vr, *filter(None, contents))
