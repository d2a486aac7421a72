# SPDX-License-Identifier: AGPL-3.0-or-later
"""Workitems and events as the page shows them: readable words, ISO 8601 times, no DICOM to decode."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final

from ..core import tags
from ..core.dataset import BINARY_VRS, DataSet, Element, is_empty, items, text, value, values
from ..core.date_times import Zone, moment, zone
from ..core.events import Event, EventType
from ..core.rules import rule_for
from ..core.states import State
from ..core.workitem import HistoryEntry, Workitem
from .completion import progress_of
from .keyword_form import keyword_of, name_of, name_text, tag_of

Json = dict[str, Any]

_DAY_PRECISION: Final = 8
_PERFORMER_NAME: Final = "00404037"
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
_GROUPS: Final[Mapping[str, str]] = {
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
    """A moment in seconds since the epoch as ISO 8601 in UTC."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def zone_of(content: DataSet, local: tzinfo | None) -> Zone:
    """The zone of date-times without offset: (0008,0201) if it is there, else the server's."""
    found = zone(text(content, tags.TIMEZONE_OFFSET))
    return found if found is not None else local or UTC


def iso_of(given: str, where: Zone) -> str | None:
    """A DT value as ISO 8601 in UTC; a date only for one without time; None if it is empty or says less."""
    plain = given.strip()
    if len(plain) == _DAY_PRECISION and plain.isdigit():
        return f"{plain[:4]}-{plain[4:6]}-{plain[6:]}"
    at = moment("DT", plain, where) if len(plain) > _DAY_PRECISION else None
    if at is None:
        return None
    whole = datetime.min.replace(tzinfo=UTC) + timedelta(microseconds=at)
    return whole.isoformat(timespec="seconds").replace("+00:00", "Z")


def code_text(item: DataSet) -> str:
    """A code item in words: its meaning, else its value."""
    return text(item, tags.CODE_MEANING) or text(item, tags.CODE_VALUE) or "?"


def person_text(name: object) -> str:
    """A person name for reading: ``Doe, Jane Q.``, with the other groups behind it."""
    if not isinstance(name, Mapping):
        return ""
    others = [
        " ".join(name.get(group, "").replace("^", " ").split()) for group in ("Ideographic", "Phonetic")
    ]
    first, *rest = [one for one in (_group_text(name.get("Alphabetic", "")), *others) if one] or [""]
    return f"{first} ({', '.join(rest)})" if rest else first


def _group_text(group: str) -> str:
    family, given, middle, prefix, suffix = [*group.split("^"), "", "", "", ""][:5]
    rest = " ".join(part for part in (prefix, given, middle, suffix) if part.strip())
    return f"{family}, {rest}" if family and rest else family or rest


# --- a row of the list ---


def row(workitem: Workitem, local: tzinfo | None) -> Json:
    """One line of the worklist."""
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
        "stations": [code_text(one) for one in items(content, tags.STATION_NAME)],
        "performers": [_performer(one) for one in items(content, tags.HUMAN_PERFORMERS)],
        "start": iso_of(text(content, tags.START), where),
        "expected": iso_of(text(content, tags.EXPECTED_COMPLETION), where),
        "expires": iso_of(text(content, tags.EXPIRATION), where),
        "modified": iso_of(text(content, tags.MODIFICATION), where),
        "progress": {"percent": percent, "description": description},
        **_course(workitem),
    }


def history(workitem: Workitem) -> list[Json]:
    """Who did what when, and why if a reason was given; oldest first."""
    return [_entry(one) for one in workitem.history]


def _entry(one: HistoryEntry) -> Json:
    told: Json = {"at": iso(one.at), "who": one.who, "what": readable(one.what)}
    return {**told, "why": one.why} if one.why else told


_KEYWORD: Final = re.compile(r"\b[A-Z][a-z]+(?:[A-Z][A-Za-z]*)+\b")


def readable(what: str) -> str:
    """A text with the keywords in it as names in words."""

    def named(found: re.Match[str]) -> str:
        tag = tag_of(found[0])
        return name_of(tag).removesuffix(" Sequence") if tag else found[0]

    return _KEYWORD.sub(named, what)


def patient(content: DataSet) -> Json:
    """Who it is about."""
    return {
        "name": person_text(value(content, tags.PATIENT_NAME)),
        "id": text(content, tags.PATIENT_ID),
        "birth_date": text(content, "00100030"),
        "sex": text(content, "00100040"),
    }


def _performer(item: DataSet) -> str:
    named = person_text(value(item, _PERFORMER_NAME))
    return named or next(map(code_text, items(item, tags.HUMAN_PERFORMER_CODES)), "?")


def _course(workitem: Workitem) -> Json:
    """What the history tells at a glance."""
    history = workitem.history
    claims = [entry for entry in history if entry.what == "claimed"]
    asked = any(entry.what == "asked the performer to cancel" for entry in history)
    return {
        "created": iso(history[0].at) if history else None,
        "ended": iso(workitem.ended),
        "claimed": {"who": claims[-1].who, "at": iso(claims[-1].at)} if claims else None,
        "cancel_requested": asked and workitem.state is State.IN_PROGRESS,
    }


# --- every attribute, readable ---


def groups(workitem: Workitem, local: tzinfo | None) -> list[Json]:
    """All attributes under headings."""
    where = zone_of(workitem.attributes, local)
    found: dict[str, list[Json]] = {name: [] for name in GROUP_ORDER}
    for tag, one in workitem.attributes.items():
        if tag in _ALONE:
            continue
        rule = rule_for(tag)
        found[_GROUPS.get(rule.module, "Other") if rule else "Other"].append(node(tag, one, where))
    return [{"name": name, "attributes": nodes} for name, nodes in found.items() if nodes]


_ALONE: Final = frozenset({tags.TRANSACTION_UID})


def nodes(content: DataSet, where: Zone) -> list[Json]:
    """A data set as nodes."""
    return [node(tag, one, where) for tag, one in content.items()]


def node(tag: str, found: Element, where: Zone) -> Json:
    """One attribute: its name in words and what it holds.

    ``values`` are texts; ``times`` their ISO 8601 form where they are date-times; ``items`` hold ``code`` if
    the item is a coded term, else ``nodes``.
    """
    made: Json = {"tag": tag, "keyword": keyword_of(tag), "name": name_of(tag), "vr": found["vr"]}
    if found["vr"] == "SQ":
        made["items"] = [_item(one, where) for one in found.get("Value", ())]
    else:
        made["values"] = _texts(found)
        if found["vr"] == "DT":
            made["times"] = [iso_of(one, where) for one in made["values"]]
    return made


def _item(content: DataSet, where: Zone) -> Json:
    if tags.CODE_MEANING in content and content.keys() <= _CODE_CONTENT:
        code = text(content, tags.CODE_VALUE) or text(content, "00080119") or text(content, "00080120")
        scheme = text(content, tags.CODING_SCHEME)
        return {"code": {"meaning": code_text(content), "value": code, "scheme": scheme}}
    return {"nodes": nodes(content, where)}


def _texts(found: Element) -> list[str]:
    if found["vr"] in BINARY_VRS:
        size = len(found.get("InlineBinary", "")) * 3 // 4
        return [f"{size} bytes"] if size else []
    if is_empty(found):
        return []
    if found["vr"] == "PN":
        return [person_text(one) or name_text(one) for one in found["Value"]]
    return ["" if one is None else str(one) for one in found["Value"]]


def references(content: DataSet, sequence: str) -> list[Json]:
    """Inputs or outputs: what they are and from where they can be had."""
    return [_reference(one) for one in items(content, sequence)]


def _reference(item: DataSet) -> Json:
    instances = items(item, "00081199")
    sources = [
        *(text(one, "00080054") for one in items(item, "0040E021")),
        *(text(one, "00081190") for one in items(item, "0040E025")),
        *(text(one, "0040E010") for one in items(item, "0040E023")),
    ]
    return {
        "type": text(item, "0040E020"),
        "study": text(item, "0020000D"),
        "series": text(item, "0020000E"),
        "instances": len(instances),
        "instance": text(instances[0], "00081155") if len(instances) == 1 else "",
        "sources": [one for one in sources if one],
    }


# --- events ---


def event(one: Event, receivers: Sequence[Json], local: tzinfo | None) -> Json:
    """An event report and what became of it at each receiver."""
    return {
        "sequence": one.sequence,
        "type": int(one.type),
        "name": EVENT_NAMES[one.type],
        "at": iso(one.at),
        "summary": _summary(one),
        "nodes": nodes(one.information, zone_of(one.information, local)),
        "receivers": list(receivers),
    }


def _summary(one: Event) -> str:
    told = one.information
    if one.type is EventType.STATE_REPORT:
        return f"{text(told, tags.STATE)}, inputs {text(told, tags.READINESS)}"
    if one.type is EventType.PROGRESS_REPORT:
        percent, description = progress_of(told)
        return " · ".join(
            ([f"{percent:g} %"] if percent is not None else []) + ([description] if description else [])
        )
    if one.type is EventType.CANCEL_REQUESTED:
        return f"asked by {text(told, tags.REQUESTING_AE)}"
    if one.type is EventType.ASSIGNED:
        who = [
            code_text(item)
            for tag in (tags.STATION_NAME, tags.HUMAN_PERFORMER_CODES)
            for item in items(told, tag)
        ]
        return ", ".join(who)
    return ", ".join(str(value) for value in values(told, tags.SCP_STATUS))
