# SPDX-License-Identifier: AGPL-3.0-or-later
"""The parameters of the list: matching keys by keyword, free text, order, page."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from ..core import tags
from ..core.dataset import DataSet, items, values
from ..core.date_times import UTC, key_interval, since_epoch
from ..core.dictionary import KEYWORD_OF, path_of
from ..core.free_text import words
from ..core.key_tests import SINGLE_VALUE_ONLY, WILDCARD_VRS
from ..core.lateness import LateKind, LatePolicy
from ..core.matching import Query
from ..core.mechanisms import Mechanisms
from ..core.rules import RULES, Rule
from ..dicomweb.response import HttpProblem
from ..projection.narrowing import Narrowing
from .answers import FilterKey
from .keyword_form import name_of, tag_of, to_data_set, vr_of
from .ports import ORDERS, Listing
from .views import person_text

_RESERVED: Final = frozenset(
    {
        "text",
        "study",
        "order",
        "offset",
        "limit",
        "late",
        "claimer",
        "station",
        "performed",
        "claimed",
        "ended",
        "duration",
    }
)
_LATE: Final = tuple(kind.value for kind in LateKind)
_RANGE: Final = re.compile(r"(\d{0,9})-(\d{0,9})")
_STEP: Final = 10.0
"""Seconds for which the set of late workitems stays the same, so that the pages of a list are consistent."""
_COMMA_SEPARATED_VRS: Final = frozenset({"CS", "UI"})
_USUAL: Final = (
    "ProcedureStepState",
    "ScheduledProcedureStepPriority",
    "InputReadinessState",
    "WorklistLabel",
    "ProcedureStepLabel",
    "ScheduledProcedureStepStartDateTime",
    "PatientName",
    "PatientID",
    "ReferencedRequestSequence.AccessionNumber",
    "ScheduledStationNameCodeSequence.CodeValue",
    "ScheduledHumanPerformersSequence.HumanPerformerCodeSequence.CodeValue",
    "ScheduledWorkitemCodeSequence.CodeValue",
)
_ADDITIONAL: Final = ("StudyInstanceUID", "ScheduledProcedureStepExpirationDateTime")
_KINDS: Final = {"DT": "datetime", "DA": "date", "UI": "uid"}


def listing(
    parameters: Mapping[str, str], now: datetime, late: LatePolicy, offset: int, limit: int
) -> Listing:
    """Read the parameters of a list. ``now`` is aware, in the zone of date-times without offset.

    Raises:
        HttpProblem: 400 for a name that is not a matching key.
        UpsError: A900 for a malformed value.
    """
    keys = {name: value for name, value in parameters.items() if name not in _RESERVED and value.strip()}
    identifier = to_identifier({name: _split(name, value) for name, value in keys.items()})
    direction = parameters.get("order") or "-created"
    order = direction.removeprefix("-")
    if order not in ORDERS:
        raise HttpProblem(400, f'"order" is {order[:30]!r}, expected one of {", ".join(ORDERS)}')
    query = Query.of(identifier, timezone=now.tzinfo, mechanisms=Mechanisms.MULTIPLE)
    text = words(f"{parameters.get('text', '')} {parameters.get('study', '')}")
    return Listing(
        query, text, order, direction.startswith("-"), offset, limit, _narrowing(parameters, now, late)
    )


def _narrowing(parameters: Mapping[str, str], now: datetime, late: LatePolicy) -> Narrowing:
    """The conditions besides the matching keys. Raises HttpProblem 400."""
    return Narrowing(
        late=_late_kinds(parameters.get("late", "")),
        claimers=tuple(part.strip() for part in parameters.get("claimer", "").split(",") if part.strip()),
        station=parameters.get("station", "").strip(),
        performed=parameters.get("performed", "").strip(),
        claimed=_span("claimed", parameters, now),
        ended=_span("ended", parameters, now),
        duration=_seconds(parameters.get("duration", "").strip()),
        policy=late,
        now=now.timestamp() // _STEP * _STEP,
    )


def _late_kinds(text: str) -> frozenset[LateKind]:
    names = [part.strip() for part in text.split(",") if part.strip()]
    if names == ["yes"]:
        return frozenset(LateKind)
    for name in names:
        if name not in _LATE:
            raise HttpProblem(400, f'"late" is {name[:30]!r}, expected "yes" or any of {", ".join(_LATE)}')
    return frozenset(map(LateKind, names))


def _span(name: str, parameters: Mapping[str, str], now: datetime) -> tuple[float, float] | None:
    text = parameters.get(name, "").strip()
    if not text:
        return None
    try:
        interval = key_interval("DT", text, now.tzinfo or UTC)
    except ValueError as error:
        raise HttpProblem(400, f'"{name}" is {text[:60]!r}, {error}') from None
    return since_epoch(interval.low), since_epoch(interval.high)


def _seconds(text: str) -> tuple[float, float] | None:
    """A range of seconds such as ``3600-`` or ``60-300``."""
    if not text:
        return None
    match = _RANGE.fullmatch(text)
    if match is None:
        raise HttpProblem(
            400, f'"duration" is {text[:30]!r}, expected a range of seconds such as 60-300 or 3600-'
        )
    return float(match[1] or 0), float(match[2] or math.inf)


def _split(name: str, text: str) -> list[str]:
    separator = "," if _vr(name) in _COMMA_SEPARATED_VRS and "\\" not in text else "\\"
    return [part.strip() for part in text.split(separator) if part.strip()]


def _vr(name: str) -> str:
    tag = tag_of(name.rpartition(".")[2])
    return vr_of(tag) if tag else ""


def to_identifier(keys: Mapping[str, Any]) -> DataSet:
    """An identifier from matching keys with dotted keywords. Raises HttpProblem 400 for any other name."""
    nested: dict[str, Any] = {}
    for name, texts in keys.items():
        path = path_of(name)
        if path is None or path not in RULES or RULES[path].match == "-":
            raise HttpProblem(400, f"{name[:80]} is not a matching key of a workitem; see system.filters")
        *above, last = name.split(".")
        level = nested
        for part in above:
            level = level.setdefault(part, {})
        level[last] = texts
    return to_data_set(nested)


# --- the keys of filters ---


def filters() -> list[FilterKey]:
    """The keys by which the list can be filtered, the usual ones first."""
    chosen = [rule for rule in RULES.values() if rule.match in ("R", "U") and not rule.contents]
    chosen += [RULES[path] for name in _ADDITIONAL if (path := path_of(name)) and RULES[path] not in chosen]
    described = {_dotted(rule): _described(rule) for rule in chosen if rule.vr != "SQ"}
    usual: list[FilterKey] = [{**described.pop(name), "usual": True} for name in _USUAL if name in described]
    return [*usual, *sorted(described.values(), key=lambda field: str(field["label"]))]


def _dotted(rule: Rule) -> str:
    return ".".join(KEYWORD_OF[tag] for tag in rule.path.split("."))


def _described(rule: Rule) -> FilterKey:
    return {
        "name": _dotted(rule),
        "label": label_of(rule.path),
        "kind": "choice" if rule.values else _KINDS.get(rule.vr, "text"),
        "choices": list(rule.values),
        "wildcards": (rule.vr in WILDCARD_VRS or rule.vr == "PN") and rule.tag not in SINGLE_VALUE_ONLY,
        "usual": False,
    }


_SHORT_NAMES: Final = {
    tags.STATION_NAME: "Station",
    "00404026": "Station class",
    "00404027": "Location",
    tags.HUMAN_PERFORMERS: "Performer",
    tags.WORKITEM_CODE: "Workitem code",
    "0040A370": "Request",
    "00380014": "Issuer of admission",
    "00101002": "Other patient ID",
    "00741224": "Replaced step",
    "00080051": "Issuer of accession number",
    tags.STATE: "State",
    tags.PRIORITY: "Priority",
    tags.READINESS: "Input readiness",
    tags.START: "Scheduled start",
    tags.EXPECTED_COMPLETION: "Expected completion",
    tags.EXPIRATION: "Expiration",
    tags.LABEL: "Label",
    tags.WORKLIST_LABEL: "Worklist",
    tags.SOP_INSTANCE_UID: "Workitem UID",
}
_HIDDEN: Final = frozenset({tags.HUMAN_PERFORMER_CODES, "0040A370"})


def label_of(path: str) -> str:
    """A short name of a key: ``Station › Coding Scheme Designator``."""
    parts = path.split(".")
    names = [
        _SHORT_NAMES.get(tag) or name_of(tag)
        for depth, tag in enumerate(parts)
        if _is_shown(tag, depth, parts)
    ]
    return " › ".join(names)


def _is_shown(tag: str, depth: int, parts: list[str]) -> bool:
    """False for Code Value as the last part, and for sequences whose names say nothing more."""
    is_last = depth == len(parts) - 1
    return not (is_last and depth and tag == tags.CODE_VALUE) and (is_last or tag not in _HIDDEN)


def in_words(identifier: DataSet) -> str:
    """A filter as a sentence: ``Station is R7, and State is SCHEDULED or IN PROGRESS``."""
    conditions = [f"{label_of(path)} {_value_words(path, values)}" for path, values in _flat(identifier, "")]
    return ", and ".join(conditions) if conditions else "everything"


def _flat(identifier: DataSet, above: str) -> list[tuple[str, list[Any]]]:
    pairs: list[tuple[str, list[Any]]] = []
    for tag, attribute in identifier.items():
        path = f"{above}.{tag}" if above else tag
        if attribute["vr"] == "SQ":
            for item in items(identifier, tag):
                pairs += _flat(item, path)
        elif values(identifier, tag):
            pairs.append((path, values(identifier, tag)))
    return pairs


def _value_words(path: str, values: list[Any]) -> str:
    texts = [person_text(value) if isinstance(value, dict) else str(value) for value in values]
    vr = vr_of(path.rpartition(".")[2])
    if vr in ("DT", "DA", "TM") and len(texts) == 1 and "-" in texts[0]:
        return _range_words(texts[0])
    matched = (
        "matches" if vr in WILDCARD_VRS | {"PN"} and any(set("*?") & set(value) for value in texts) else "is"
    )
    return f"{matched} {' or '.join(texts)}"


def _range_words(text: str) -> str:
    low, _, high = text.partition("-")
    if low and high:
        return f"is from {low} to {high}"
    return f"is from {low} on" if low else f"is up to {high}"
