# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the projection indexes of a workitem, in the form in which ``core/matching.py`` compares values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

from ..core import person_names, tags
from ..core.dataset import DataSet, items, plain, text, value, values
from ..core.date_times import Zone, moment, zone
from ..core.free_text import searchable
from ..core.interned import notes_of
from ..core.workitem import Workitem, claim_of
from .schema import (
    CODES,
    COLUMNS,
    KEYS,
    MOMENTS,
    NAMES,
    NO_PROGRESS,
    NO_START,
    NO_TIME,
    NO_WORDS,
    PAIRS,
    RANKS,
    SEPARATOR,
    WITHOUT,
    KeyKind,
)

_PATIENT_SEX: Final = "00100040"
_BIRTH_DATE: Final = "00100030"
_PERFORMER_NAME: Final = "00404037"
_PERFORMED_STATION: Final = "00404028"

CodeRow: TypeAlias = tuple[int, str, str, int]
"""Kind, text and scheme of a code; 1 if an earlier row of the workitem has the same kind and text, else 0."""

KeyRow: TypeAlias = tuple[int, str]
"""Kind and text of any other indexed value."""


class Volatile(NamedTuple):
    """Columns of ``workitem`` that change while a workitem is performed."""

    state: int
    start: int
    priority: int
    readiness: int
    completion: int | None
    modification: int | None
    expiration: int | None
    ended: float | None
    noted: int
    last_event: int
    odd: int
    progress: float
    claimer: str
    claimed: float
    heard: float
    duration: float
    performed: str


class Lasting(NamedTuple):
    """Columns of ``workitem`` that rarely change after creation."""

    worklist: str
    label: str
    name: str
    sex: str
    birth: int | None
    station: str
    performer: str
    work: str


@dataclass(frozen=True, slots=True)
class WorkitemFacts:
    """Everything that is indexed for one workitem."""

    volatile: Volatile
    lasting: Lasting
    codes: tuple[CodeRow, ...]
    keys: tuple[KeyRow, ...]
    words: str


def same_lasting(first: DataSet, second: DataSet) -> bool:
    """True if both have the same element objects for everything indexed (free text too) except the volatile columns."""
    return all(first.get(tag) is second.get(tag) for tag in _LASTING_TAGS)


def facts_of(workitem: Workitem, local: Zone) -> WorkitemFacts:
    """The columns and rows of a workitem. ``local`` is the zone of date-times without an offset."""
    attributes = workitem.attributes
    rows = _Rows([], [])
    for node in _TREE:
        _collect_once(attributes, node, rows)
    names = [person_names.groups(name) for name in values(attributes, tags.PATIENT_NAME)]
    rows.keys.extend(_name_rows(names))
    rows.keys.extend((_WITHOUT, path) for path in WITHOUT if _lacks(attributes, path))
    return WorkitemFacts(
        volatile_of(workitem, local),
        _lasting(attributes, names),
        tuple(_numbered(sorted(set(rows.codes)))),
        tuple(set(rows.keys)),
        searchable(attributes),
    )


def volatile_of(workitem: Workitem, local: Zone) -> Volatile:
    """The volatile columns of a workitem."""
    attributes = workitem.attributes
    east = zone(text(attributes, tags.TIMEZONE_OFFSET)) if tags.TIMEZONE_OFFSET in attributes else None
    own_zone = local if east is None else east
    start, completion, modification, expiration = (
        moment("DT", value(attributes, tag), own_zone) for tag in _DATE_TIMES
    )
    ranks = state, priority, readiness = tuple(_rank(attributes, tag) for tag in RANKS)
    return Volatile(
        state=state,
        start=NO_START if start is None else start,
        priority=priority,
        readiness=readiness,
        completion=completion,
        modification=modification,
        expiration=expiration,
        ended=workitem.ended,
        noted=int(bool(workitem.acts or workitem.spilled)),
        last_event=max((event.sequence for event in workitem.events), default=0),
        odd=int(_is_odd(attributes, ranks)),
        progress=_progress(attributes),
        **_course(workitem),
    )


_DATE_TIMES: Final = tuple(tag for tag in MOMENTS if tag != _BIRTH_DATE)


def _lasting(attributes: DataSet, names: list[dict[str, str]]) -> Lasting:
    first = next((group for name in names for group in name.values()), "")
    return Lasting(
        worklist=plain(value(attributes, tags.WORKLIST_LABEL)),
        label=plain(value(attributes, tags.LABEL)),
        name=first,
        sex=plain(value(attributes, _PATIENT_SEX)),
        birth=moment("DA", value(attributes, _BIRTH_DATE)),
        station=_code_words(attributes, tags.STATION_NAME) or NO_WORDS,
        performer=_performer(attributes) or NO_WORDS,
        work=_code_words(attributes, tags.WORKITEM_CODE) or NO_WORDS,
    )


def _course(workitem: Workitem) -> dict[str, Any]:
    """The columns on who claimed a workitem, when, and where it was performed."""
    claim = claim_of(workitem)
    if claim is None:
        return {
            "claimer": NO_WORDS, "claimed": NO_TIME, "heard": NO_TIME, "duration": NO_TIME,
            "performed": NO_WORDS,
        }  # fmt: skip
    performed = next(iter(items(workitem.attributes, tags.PERFORMED_PROCEDURE)), {})
    return {
        "claimer": claim.ae or NO_WORDS,
        "claimed": claim.at,
        "heard": claim.heard,
        "duration": NO_TIME if claim.duration is None else claim.duration,
        "performed": _code_words(performed, _PERFORMED_STATION) or NO_WORDS,
    }


def _code_words(content: DataSet, sequence: str) -> str:
    """The text shown for the first code of a sequence, case-folded for sorting."""
    for item in items(content, sequence)[:1]:
        return (plain(value(item, tags.CODE_MEANING)) or plain(value(item, tags.CODE_VALUE))).casefold()
    return ""


def _performer(content: DataSet) -> str:
    """The text shown for the first scheduled human performer, case-folded for sorting: the name, or else the code."""
    for item in items(content, tags.HUMAN_PERFORMERS)[:1]:
        groups = person_names.groups(value(item, _PERFORMER_NAME))
        return next(iter(groups.values()), "") or _code_words(item, tags.HUMAN_PERFORMER_CODES)
    return ""


def _progress(content: DataSet) -> float:
    """Procedure Step Progress (0074,1004) in percent, NO_PROGRESS without a valid value."""
    for item in items(content, tags.PROGRESS_INFORMATION)[:1]:
        try:
            percent = float(value(item, tags.PROGRESS))
        except (TypeError, ValueError):
            return NO_PROGRESS
        return percent if math.isfinite(percent) else NO_PROGRESS
    return NO_PROGRESS


def _rank(attributes: DataSet, tag: str) -> int:
    return RANKS[tag].get(plain(value(attributes, tag)), 0)


def _is_odd(attributes: DataSet, ranks: tuple[int, ...]) -> bool:
    """True if a column cannot represent its attribute (a second or an unknown value); queries then test no columns."""
    if any(tag in attributes and len(attributes[tag].get("Value", ())) > 1 for tag in COLUMNS):
        return True
    return not all(ranks) and any(
        values(attributes, tag) for tag, rank in zip(RANKS, ranks, strict=True) if not rank
    )


class _Node(NamedTuple):
    """An attribute to index: the kinds of its values or of its items as codes or pairs, and the attributes below."""

    tag: str
    kind: int | None
    code: int | None
    pair: int | None
    below: tuple[_Node, ...]


class _Rows(NamedTuple):
    codes: list[tuple[int, str, str]]
    keys: list[KeyRow]


def _collect_once(attributes: DataSet, node: _Node, rows: _Rows) -> None:
    """Add the rows of a top-level attribute; those of an interned sequence are computed only once."""
    element = attributes.get(node.tag)
    notes = None if element is None else notes_of(element)
    if notes is None:
        _collect(attributes, (node,), rows)
        return
    interned: _Rows | None = notes.get(("rows", node.tag))
    if interned is None:
        interned = notes["rows", node.tag] = _Rows([], [])
        _collect(attributes, (node,), interned)
    rows.codes.extend(interned.codes)
    rows.keys.extend(interned.keys)


def _collect(dataset: DataSet, level: tuple[_Node, ...], rows: _Rows) -> None:
    for tag, kind, code, pair, below in level:
        if tag not in dataset:
            continue
        for item in dataset[tag].get("Value", ()):
            if kind is not None:
                if text := plain(item):
                    rows.keys.append((kind, text))
            elif isinstance(item, dict):
                if code is not None:
                    rows.codes.extend([(code, *row) for row in _pairs(item)])
                elif pair is not None:
                    rows.keys.extend([(pair, SEPARATOR.join(row)) for row in _pairs(item)])
                _collect(item, below, rows)


def _pairs(item: DataSet) -> list[tuple[str, str]]:
    """The Code Values of an item, each with its Coding Scheme Designator."""
    if tags.CODE_VALUE not in item:
        return []
    codes = [code for raw in item[tags.CODE_VALUE].get("Value", ()) if (code := plain(raw))]
    if tags.CODING_SCHEME not in item:
        return [(code, "") for code in codes]
    schemes = [plain(raw) for raw in item[tags.CODING_SCHEME].get("Value", ("",))]
    return [(code, scheme) for code in codes for scheme in schemes]


def _lacks(dataset: DataSet, path: str) -> bool:
    """True if Empty Value Matching applies (PS3.4 C.2.2.2.7); a sequence without items counts as one empty item."""
    tag, _, below = path.partition(".")
    if not below:
        return not any(map(plain, values(dataset, tag)))
    return any(_lacks(item, below) for item in items(dataset, tag) or ({},))


def _numbered(codes: Iterable[tuple[int, str, str]]) -> Iterator[CodeRow]:
    """Sorted codes as rows, with 1 where kind and text are those of the row before."""
    previous: tuple[int, str] | None = None
    for kind, code, scheme in codes:
        yield kind, code, scheme, int(previous == (kind, code))
        previous = kind, code


_GROUPS: Final = {group: int(kind) for group, kind in NAMES.items()}
_WITHOUT: Final = int(KeyKind.WITHOUT)
_WORD: Final = int(KeyKind.NAME_WORD)
_SOUND: Final = int(KeyKind.NAME_SOUND)


def _name_rows(names: Iterable[dict[str, str]]) -> Iterator[KeyRow]:
    for name in names:
        for group, folded in name.items():
            yield _GROUPS[group], folded
        for word in person_names.words_of(name):
            yield _WORD, word
            if sound := person_names.sound(word):
                yield _SOUND, sound


def _tree() -> tuple[_Node, ...]:
    nested: dict[str, Any] = {}
    for path in (*KEYS, *CODES, *PAIRS):
        level = nested
        for tag in path.split("."):
            level = level.setdefault(tag, {})
    return _nodes(nested, "")


def _nodes(nested: Mapping[str, Any], above: str) -> tuple[_Node, ...]:
    nodes = []
    for tag, below in nested.items():
        path = f"{above}.{tag}" if above else tag
        kind, code, pair = (rows.get(path) for rows in (KEYS, CODES, PAIRS))
        nodes.append(
            _Node(tag, kind and int(kind), code and int(code), pair and int(pair), _nodes(below, path))
        )
    return tuple(nodes)


_TREE: Final = _tree()
_LASTING_TAGS: Final = (
    *(node.tag for node in _TREE),
    tags.PATIENT_NAME,
    tags.WORKLIST_LABEL,
    tags.LABEL,
    _PATIENT_SEX,
    _BIRTH_DATE,
)
