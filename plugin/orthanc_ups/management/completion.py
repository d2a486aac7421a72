# SPDX-License-Identifier: AGPL-3.0-or-later
"""Completes what an operator enters with attributes that must be present but may be empty (PS3.4 Table CC.2.5-3)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from ..core import tags
from ..core.dataset import DataSet, Element, element, is_empty, items, ordered, text, value
from ..core.dictionary import VR_OF
from ..core.rules import ROOT, Contents
from ..core.stamps import date_time
from ..core.workitem import Workitem, claim_of

_PERFORMER_NAME: Final = "00404037"
_STATION_NAMES: Final = "00404028"
_STATION_CLASSES: Final = "00404029"
_STATION_LOCATIONS: Final = "00404030"
_OUTPUT: Final = "00404033"
_ACTUAL_PERFORMERS: Final = "00404035"
_PERFORMED_START: Final = "00404050"
_PERFORMED_END: Final = "00404051"
_PERFORMED_CODE: Final = "00404019"
_PERFORMED_DESCRIPTION: Final = "00400254"
_LOCAL_SCHEME: Final = "99UPS"

_AT_CREATION: Final[Mapping[str, str]] = {
    tags.STATE: "SCHEDULED",
    tags.PRIORITY: "MEDIUM",
    tags.READINESS: "READY",
}


def for_creation(content: DataSet, now: datetime) -> DataSet:
    """A data set for N-CREATE: what the operator entered, usual values, and empty type 2 attributes."""
    usual: DataSet = {
        **{tag: element("CS", value) for tag, value in _AT_CREATION.items()},
        tags.START: element("DT", date_time(now)),
    }
    defaults = {tag: attribute for tag, attribute in usual.items() if is_empty(content.get(tag))}
    return with_empties(_with_performer_codes({**content, **defaults}), ROOT, creating=True)


def for_update(content: DataSet) -> DataSet:
    """A modification list for N-SET: what the operator entered, with the empty type 2 attributes of its items."""
    filled = with_empties(_with_performer_codes(content), ROOT, creating=False)
    return {tag: attribute for tag, attribute in filled.items() if tag in content}


def _with_performer_codes(content: DataSet) -> DataSet:
    """Human performers without a code get a code of the plugin's own scheme (type 1, PS3.3 §10.6)."""
    people = items(content, tags.HUMAN_PERFORMERS)
    if not any(is_empty(person.get(tags.HUMAN_PERFORMER_CODES)) for person in people):
        return content
    return {**content, tags.HUMAN_PERFORMERS: element("SQ", *map(_with_code, people))}


def _with_code(person: DataSet) -> DataSet:
    name = value(person, _PERFORMER_NAME)
    spelled = name.get("Alphabetic", "") if isinstance(name, dict) else ""
    if not spelled or not is_empty(person.get(tags.HUMAN_PERFORMER_CODES)):
        return person
    code = local_code(spelled.upper(), spelled.replace("^", " "))
    return ordered({**person, tags.HUMAN_PERFORMER_CODES: element("SQ", code)})


def with_empties(dataset: DataSet, contents: Contents, *, creating: bool) -> DataSet:
    """The data set with absent type 2 attributes added empty, in items of sequences too."""
    demands = contents.create if creating else contents.update
    completed: DataSet = {tag: element(VR_OF[tag]) for tag in demands.present if tag not in dataset}
    for tag, attribute in dataset.items():
        rule = contents.rules.get(tag)
        if rule and rule.contents and attribute.get("Value"):
            below = [with_empties(item, rule.contents, creating=creating) for item in attribute["Value"]]
            completed[tag] = element("SQ", *below)
        else:
            completed[tag] = attribute
    return ordered(completed)


# --- closing on behalf of a performer (PS3.4 CC.2.5.1.1) ---


def performed(workitem: Workitem, now: datetime, performer: str) -> DataSet:
    """The proposed item of Performed Procedure Sequence (0074,1216): what is stored, else what was scheduled.

    ``performer`` is the station if none was scheduled.
    """
    content = workitem.attributes
    present = next(iter(items(content, tags.PERFORMED_PROCEDURE)), {})
    proposed: DataSet = {
        _PERFORMED_DESCRIPTION: element("LO", text(content, tags.LABEL)),
        _PERFORMED_CODE: _codes(content, tags.WORKITEM_CODE, "UNSPECIFIED", text(content, tags.LABEL)),
        _STATION_NAMES: _codes(content, tags.STATION_NAME, performer, performer),
        _STATION_CLASSES: element("SQ"),
        _STATION_LOCATIONS: element("SQ"),
        _ACTUAL_PERFORMERS: element("SQ"),
        _OUTPUT: element("SQ"),
        _PERFORMED_START: element("DT", date_time(_claimed_at(workitem, now))),
        _PERFORMED_END: element("DT", date_time(now)),
    }
    return ordered(
        proposed | {tag: attribute for tag, attribute in present.items() if not is_empty(attribute)}
    )


def _codes(content: DataSet, tag: str, code: str, meaning: str) -> Element:
    first = items(content, tag)[:1]
    return element("SQ", *(first or [local_code(code, meaning)]))


def local_code(code: str, meaning: str) -> DataSet:
    """A code item of the plugin's own scheme, for a term without a code."""
    return {
        tags.CODE_VALUE: element("SH", code[:16].strip() or "NONE"),
        tags.CODING_SCHEME: element("SH", _LOCAL_SCHEME),
        tags.CODE_MEANING: element("LO", meaning[:64].strip() or "None"),
    }


def _claimed_at(workitem: Workitem, now: datetime) -> datetime:
    claim = claim_of(workitem)
    return datetime.fromtimestamp(claim.at, now.tzinfo) if claim else now


def cancellation(workitem: Workitem, information: DataSet) -> DataSet:
    """The modification list for a cancellation on behalf of a performer: Progress Information with the reasons."""
    present = next(iter(items(workitem.attributes, tags.PROGRESS_INFORMATION)), {})
    reason_tags = (tags.DISCONTINUATION_REASONS, tags.REASON_FOR_CANCELLATION)
    reasons = {tag: information[tag] for tag in reason_tags if not is_empty(information.get(tag))}
    return {tags.PROGRESS_INFORMATION: element("SQ", ordered({**present, **reasons}))} if reasons else {}


def progress_of(content: DataSet) -> tuple[float | None, str]:
    """Percentage (or None) and description of the current progress."""
    item = next(iter(items(content, tags.PROGRESS_INFORMATION)), {})
    try:
        percent: float | None = float(value(item, tags.PROGRESS))
    except (TypeError, ValueError):
        percent = None
    return percent, text(item, tags.PROGRESS_DESCRIPTION)
