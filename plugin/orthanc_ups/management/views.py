# SPDX-License-Identifier: AGPL-3.0-or-later
"""Workitems and events in readable form: plain texts, ISO 8601 times, no DICOM encoding."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from ..core import tags
from ..core.dataset import BINARY_VRS, DataSet, Element, is_empty, items, text, value, values
from ..core.date_times import UTC as UTC_OFFSET
from ..core.date_times import Zone, moment, zone
from ..core.events import Event, EventType
from ..core.lateness import LatePolicy, late_kinds
from ..core.rules import RULES
from ..core.states import State
from ..core.workitem import HistoryEntry, Workitem, claim_of
from . import answers
from .completion import progress_of
from .keyword_form import keyword_of, name_of, name_text, tag_of

_DAY_PRECISION: Final = 8
_PERFORMER_NAME: Final = "00404037"
_PERFORMED_STATIONS: Final = "00404028"
_REQUEST: Final = "0040A370"
_CODE_CONTENT: Final = frozenset(
    {
        "00080100",
        "00080102",
        "00080103",
        "00080104",
        "00080119",
        "00080120",
        "0008010B",
        "0008010F",
        "00080117",
    }
)
_GROUP_OF_MODULE: Final[Mapping[str, str]] = {
    "UPS Scheduled Procedure Information": "Scheduling",
    "UPS Relationship": "Patient and request",
    "Patient Demographic": "Patient and request",
    "Patient Medical": "Patient and request",
    "Visit Identification": "Visit",
    "Visit Status": "Visit",
    "Visit Admission": "Visit",
    "UPS Progress Information": "Progress",
    "UPS Performed Procedure Information": "Performed",
}
GROUP_ORDER: Final = ("Scheduling", "Patient and request", "Visit", "Progress", "Performed", "Other")

EVENT_NAMES: Final[Mapping[EventType, str]] = {
    EventType.STATE_REPORT: "State report",
    EventType.CANCEL_REQUESTED: "Cancellation requested",
    EventType.PROGRESS_REPORT: "Progress report",
    EventType.SCP_STATUS_CHANGE: "SCP status change",
    EventType.ASSIGNED: "Assigned",
}


def iso(seconds: float | None) -> str | None:
    """A time in seconds since the epoch as ISO 8601 in UTC."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def zone_of(content: DataSet, local: tzinfo | None) -> Zone:
    """The zone of date-times without offset: that of (0008,0201) if present, else the server's."""
    offset = zone(text(content, tags.TIMEZONE_OFFSET))
    return offset if offset is not None else local or UTC


def iso_of(text: str, where: Zone) -> str | None:
    """A DT value as ISO 8601 in UTC; only the date if it has no time; None if it is empty or less precise."""
    plain = text.strip()
    if len(plain) == _DAY_PRECISION and plain.isdigit():
        return f"{plain[:4]}-{plain[4:6]}-{plain[6:]}"
    at = moment("DT", plain, where) if len(plain) > _DAY_PRECISION else None
    if at is None:
        return None
    whole = datetime.min.replace(tzinfo=UTC) + timedelta(microseconds=at)
    return whole.isoformat(timespec="seconds").replace("+00:00", "Z")


def code_text(item: DataSet) -> str:
    """The meaning of a code item, else its value."""
    return text(item, tags.CODE_MEANING) or text(item, tags.CODE_VALUE) or "?"


def person_text(name: object) -> str:
    """A person name for display: ``Doe, Jane Q.``, followed by the other groups in parentheses."""
    if not isinstance(name, Mapping):
        return ""
    other_groups = [
        " ".join(name.get(group, "").replace("^", " ").split()) for group in ("Ideographic", "Phonetic")
    ]
    first, *rest = [part for part in (_group_text(name.get("Alphabetic", "")), *other_groups) if part] or [""]
    return f"{first} ({', '.join(rest)})" if rest else first


def _group_text(group: str) -> str:
    family, given_name, middle, prefix, suffix = [*group.split("^"), "", "", "", ""][:5]
    rest = " ".join(part for part in (prefix, given_name, middle, suffix) if part.strip())
    return f"{family}, {rest}" if family and rest else family or rest


# --- a row of the list ---


def late(workitem: Workitem, policy: LatePolicy, now: datetime) -> list[str]:
    """Why a workitem is late at an aware time, in the words of ``core.lateness.LateKind``."""
    local: Zone = now.tzinfo or UTC_OFFSET
    return [kind.value for kind in late_kinds(workitem, policy, now.timestamp(), local)]


def row(workitem: Workitem, local: tzinfo | None, late: Sequence[str] = ()) -> answers.Row:
    """One line of the worklist; ``late`` says why it is late."""
    content = workitem.attributes
    where = zone_of(content, local)
    percent, description = progress_of(content)
    return {
        "uid": workitem.uid,
        "number": workitem.created,
        "state": workitem.state.value,
        "priority": text(content, tags.PRIORITY),
        "readiness": text(content, tags.READINESS),
        "label": text(content, tags.LABEL),
        "worklist": text(content, tags.WORKLIST_LABEL),
        "patient": patient(content),
        "code": next(map(code_text, items(content, tags.WORKITEM_CODE)), ""),
        "stations": [code_text(item) for item in items(content, tags.STATION_NAME)],
        "performers": [_performer(item) for item in items(content, tags.HUMAN_PERFORMERS)],
        "start": iso_of(text(content, tags.START), where),
        "expected": iso_of(text(content, tags.EXPECTED_COMPLETION), where),
        "expires": iso_of(text(content, tags.EXPIRATION), where),
        "modified": iso_of(text(content, tags.MODIFICATION), where),
        "accession": next((text(item, "00080050") for item in items(content, _REQUEST)), ""),
        "performed_stations": _performed_stations(content),
        "progress": {"percent": percent, "description": description},
        "late": list(late),
        **_course(workitem),
    }


def history(entries: Iterable[HistoryEntry]) -> list[answers.HistoryEntryJson]:
    """The history, oldest first."""
    return [_entry(entry) for entry in entries]


def _entry(entry: HistoryEntry) -> answers.HistoryEntryJson:
    entry_json: answers.HistoryEntryJson = {
        "at": iso(entry.at),
        "who": entry.who,
        "what": readable(entry.what),
    }
    return {**entry_json, "why": entry.why} if entry.why else entry_json


_KEYWORD: Final = re.compile(r"\b[A-Z][a-z]+(?:[A-Z][A-Za-z]*)+\b")


def readable(what: str) -> str:
    """A text with its keywords replaced by the names of the attributes."""

    def named(match: re.Match[str]) -> str:
        tag = tag_of(match[0])
        return name_of(tag).removesuffix(" Sequence") if tag else match[0]

    return _KEYWORD.sub(named, what)


def patient(content: DataSet) -> answers.Patient:
    """The patient of a workitem."""
    return {
        "name": person_text(value(content, tags.PATIENT_NAME)),
        "id": text(content, tags.PATIENT_ID),
        "birth_date": text(content, "00100030"),
        "sex": text(content, "00100040"),
    }


def _performer(item: DataSet) -> str:
    person = person_text(value(item, _PERFORMER_NAME))
    return person or next(map(code_text, items(item, tags.HUMAN_PERFORMER_CODES)), "?")


def _course(workitem: Workitem) -> answers.Course:
    """A summary of the history."""
    history = workitem.history
    claim = claim_of(workitem)
    cancel_requested = any(entry.what == "asked the performer to cancel" for entry in history)
    return {
        "created": iso(history[0].at) if history else None,
        "ended": iso(workitem.ended),
        "claimed": {"who": claim.who, "ae": claim.ae, "at": iso(claim.at)} if claim else None,
        "heard": iso(claim.heard if claim else None),
        "duration": claim.duration if claim else None,
        "cancel_requested": cancel_requested and workitem.state is State.IN_PROGRESS,
    }


def _performed_stations(content: DataSet) -> list[str]:
    performed = items(content, tags.PERFORMED_PROCEDURE)[:1]
    return [code_text(station) for item in performed for station in items(item, _PERFORMED_STATIONS)]


_NAMED_BY: Final[Mapping[str, tuple[str, ...]]] = {
    "station": (tags.STATION_NAME,),
    "performer": (tags.HUMAN_PERFORMERS, tags.HUMAN_PERFORMER_CODES),
    "work": (tags.WORKITEM_CODE,),
}


def first_station(workitem: Workitem | None) -> str:
    """The name of the first scheduled station as it was sent, "" for none."""
    return next(map(code_text, items(workitem.attributes, tags.STATION_NAME)), "") if workitem else ""


def name_in_use(column: str, name: str, count: int, example: Workitem | None) -> answers.NameInUse:
    """A name that occurs in workitems, as it is shown, and the code that finds all of them."""
    content = example.attributes if example else {}
    described: answers.NameInUse = {"name": name, "count": count}
    if column in _NAMED_BY:
        first, *below = _NAMED_BY[column]
        item = next(iter(items(content, first)), {})
        code = next(iter(items(item, below[0])), {}) if below else item
        words = _performer(item) if column == "performer" and item else code_text(code)
        return {**described, "name": words or name, "code": text(code, tags.CODE_VALUE)}
    if column == "performed":
        return {**described, "name": next(iter(_performed_stations(content)), name)}
    return described


# --- every attribute, readable ---


def groups(workitem: Workitem, local: tzinfo | None) -> list[answers.Group]:
    """All attributes, grouped under headings."""
    where = zone_of(workitem.attributes, local)
    grouped: dict[str, list[answers.NodeJson]] = {name: [] for name in GROUP_ORDER}
    for tag, attribute in workitem.attributes.items():
        if tag in _NOT_SHOWN:
            continue
        rule = RULES.get(tag)
        grouped[_GROUP_OF_MODULE.get(rule.module, "Other") if rule else "Other"].append(
            node(tag, attribute, where)
        )
    return [{"name": name, "attributes": nodes} for name, nodes in grouped.items() if nodes]


_NOT_SHOWN: Final = frozenset({tags.TRANSACTION_UID})


def nodes(content: DataSet, where: Zone) -> list[answers.NodeJson]:
    """A data set as nodes."""
    return [node(tag, attribute, where) for tag, attribute in content.items()]


def node(tag: str, attribute: Element, where: Zone) -> answers.NodeJson:
    """One attribute: its name and its values.

    ``values`` are texts; ``times`` are their ISO 8601 form if they are date-times; ``items`` have ``code`` if
    the item is a coded term, else ``nodes``.
    """
    described: answers.NodeJson = {
        "tag": tag,
        "keyword": keyword_of(tag),
        "name": name_of(tag),
        "vr": attribute["vr"],
    }
    if attribute["vr"] == "SQ":
        described["items"] = [_item(item, where) for item in attribute.get("Value", ())]
    else:
        described["values"] = _texts(attribute)
        if attribute["vr"] == "DT":
            described["times"] = [iso_of(item, where) for item in described["values"]]
    return described


def _item(content: DataSet, where: Zone) -> answers.Item:
    if tags.CODE_MEANING in content and content.keys() <= _CODE_CONTENT:
        code = text(content, tags.CODE_VALUE) or text(content, "00080119") or text(content, "00080120")
        scheme = text(content, tags.CODING_SCHEME)
        return {"code": {"meaning": code_text(content), "value": code, "scheme": scheme}}
    return {"nodes": nodes(content, where)}


def _texts(attribute: Element) -> list[str]:
    if attribute["vr"] in BINARY_VRS:
        size = len(attribute.get("InlineBinary", "")) * 3 // 4
        return [f"{size} bytes"] if size else []
    if is_empty(attribute):
        return []
    if attribute["vr"] == "PN":
        return [person_text(value) or name_text(value) for value in attribute["Value"]]
    return ["" if value is None else str(value) for value in attribute["Value"]]


def references(content: DataSet, sequence: str) -> list[answers.Reference]:
    """Inputs or outputs, and where they can be retrieved."""
    return [_reference(item) for item in items(content, sequence)]


def _reference(item: DataSet) -> answers.Reference:
    instances = items(item, "00081199")
    sources = [
        *(text(part, "00080054") for part in items(item, "0040E021")),
        *(text(part, "00081190") for part in items(item, "0040E025")),
        *(text(part, "0040E010") for part in items(item, "0040E023")),
    ]
    return {
        "type": text(item, "0040E020"),
        "study": text(item, "0020000D"),
        "series": text(item, "0020000E"),
        "instances": len(instances),
        "instance": text(instances[0], "00081155") if len(instances) == 1 else "",
        "sources": [part for part in sources if part],
    }


# --- events ---


def event(report: Event, receivers: Sequence[answers.Receiver], local: tzinfo | None) -> answers.EventJson:
    """An event report, and its delivery to each receiver."""
    return {
        "sequence": report.sequence,
        "type": int(report.type),
        "name": EVENT_NAMES[report.type],
        "at": iso(report.at),
        "summary": _summary(report),
        "nodes": nodes(report.information, zone_of(report.information, local)),
        "receivers": list(receivers),
    }


def _summary(report: Event) -> str:
    content = report.information
    if report.type is EventType.STATE_REPORT:
        return f"{text(content, tags.STATE)}, inputs {text(content, tags.READINESS)}"
    if report.type is EventType.PROGRESS_REPORT:
        percent, description = progress_of(content)
        return " · ".join(
            ([f"{percent:g} %"] if percent is not None else []) + ([description] if description else [])
        )
    if report.type is EventType.CANCEL_REQUESTED:
        return f"asked by {text(content, tags.REQUESTING_AE)}"
    if report.type is EventType.ASSIGNED:
        who = [
            code_text(item)
            for tag in (tags.STATION_NAME, tags.HUMAN_PERFORMER_CODES)
            for item in items(content, tag)
        ]
        return ", ".join(who)
    return ", ".join(str(value) for value in values(content, tags.SCP_STATUS))
