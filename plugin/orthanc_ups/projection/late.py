# SPDX-License-Identifier: AGPL-3.0-or-later
"""The rules of ``core/lateness.py`` on late workitems as SQL. A test compares the two."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..core.date_times import EPOCH
from ..core.lateness import LateKind, LatePolicy
from .queries import Ids, Sql, values_of
from .schema import NO_START, NO_WORDS

_SCHEDULED: Final = 1
_IN_PROGRESS: Final = 2
_INCOMPLETE: Final = 3
_KINDS: Final = (
    (_SCHEDULED, (LateKind.START, LateKind.INPUTS, LateKind.EXPIRATION)),
    (_IN_PROGRESS, (LateKind.COMPLETION, LateKind.EXPIRATION, LateKind.SILENT)),
)


@dataclass(frozen=True, slots=True)
class LateGroup:
    """Late workitems of one worklist and (first) scheduled station.

    Attributes:
        station: the name in the form for sorting, "" for none.
        example: the greatest id of a workitem in the group.
    """

    worklist: str
    station: str
    total: int
    by_kind: dict[LateKind, int]
    example: int = 0


def late(policy: LatePolicy, now: float, kinds: Collection[LateKind] = tuple(LateKind)) -> Ids:
    """The set of workitems that are late in any of these ways."""
    parts = [part for state, possible in _KINDS if (part := _late_in(state, possible, kinds, policy, now))]
    select = _union([Sql(f"SELECT m.id {part.text}", part.values) for part in parts])
    return Ids(select, Sql(f"{{id}} IN ({select.text})", select.values))


def late_groups(policy: LatePolicy, now: float) -> Sql:
    """Rows of worklist, station, greatest id, number of late workitems, and their number for each ``LateKind``."""
    parts = []
    for state, possible in _KINDS:
        tests = {kind: _test(kind, policy, now) for kind in possible}
        columns = [tests.get(kind, Sql("0")) for kind in LateKind]
        part = _late_in(state, possible, possible, policy, now)
        if part is not None:
            sums = ", ".join(f"SUM({column.text})" for column in columns)
            text = (
                f"SELECT m.worklist, m.station, MAX(m.id), COUNT(*), {sums} {part.text} "
                "GROUP BY m.worklist, m.station"
            )
            parts.append(Sql(text, (*values_of(columns), *part.values)))
    return _union(parts)


def read_groups(rows: Sequence[tuple[Any, ...]]) -> list[LateGroup]:
    """The groups in the rows of ``late_groups``, the largest first."""
    sums: dict[tuple[str, str], list[int]] = {}
    examples: dict[tuple[str, str], int] = {}
    for worklist, station, example, *numbers in rows:
        key = worklist, "" if station == NO_WORDS else station
        subtotals = sums.get(key, [0] * len(numbers))
        examples[key] = max(example, examples.get(key, 0))
        sums[key] = [first + second for first, second in zip(subtotals, numbers, strict=True)]
    groups = [
        LateGroup(*key, total, dict(zip(LateKind, by_kind, strict=True)), examples[key])
        for key, (total, *by_kind) in sums.items()
    ]
    return sorted(groups, key=lambda group: (-group.total, group.worklist, group.station))


OLDEST_SCHEDULED: Final = Sql(
    "SELECT uid, start FROM workitem INDEXED BY workitem_state WHERE state = ? AND start > ? ORDER BY start LIMIT 1",
    (_SCHEDULED, NO_START),
)
"""UID and start (as stored in columns of date-times) of the SCHEDULED workitem that starts first."""

LONGEST_IN_PROGRESS: Final = Sql(
    "SELECT uid, claimed FROM workitem INDEXED BY workitem_state WHERE state = ? ORDER BY claimed LIMIT 1",
    (_IN_PROGRESS,),
)
"""UID and time of the claim (NO_TIME if unknown) of the IN PROGRESS workitem that was claimed first."""


def _late_in(
    state: int, possible: Sequence[LateKind], kinds: Collection[LateKind], policy: LatePolicy, now: float
) -> Sql | None:
    """FROM and WHERE clauses for the workitems in a state that are late in any of ``kinds``; None if none applies."""
    tests = [_test(kind, policy, now) for kind in possible if kind in kinds]
    if not tests:
        return None
    text = "FROM workitem m INDEXED BY workitem_state WHERE m.state = ?"
    values: tuple[Any, ...] = (state,)
    if state == _SCHEDULED:
        text += " AND m.start > ? AND m.start < ?"
        values = (state, NO_START, _moment(now))
    either = " OR ".join(test.text for test in tests)
    return Sql(f"{text} AND ({either})", (*values, *values_of(tests)))


def _test(kind: LateKind, policy: LatePolicy, now: float) -> Sql:
    match kind:
        case LateKind.START:
            return _past_grace(policy, now)
        case LateKind.INPUTS:
            return Sql("m.readiness = ?", (_INCOMPLETE,))
        case LateKind.COMPLETION:
            return Sql("IFNULL(m.completion < ?, 0)", (_moment(now),))
        case LateKind.EXPIRATION:
            return Sql("IFNULL(m.expiration < ?, 0)", (_moment(now),))
        case LateKind.SILENT:
            return Sql("m.heard < ?", (now - policy.silence,)) if policy.silence else Sql("0")


def _past_grace(policy: LatePolicy, now: float) -> Sql:
    if not policy.graces:
        return Sql("m.start < ?", (_moment(now - policy.grace),))
    cases, values = "", []
    for grace in policy.graces:
        cases += " WHEN m.label = ?" + (" AND m.worklist = ?" if grace.worklist else "") + " THEN ?"
        values += [grace.label, *([grace.worklist] if grace.worklist else []), _moment(now - grace.seconds)]
    return Sql(f"m.start < CASE{cases} ELSE ? END", (*values, _moment(now - policy.grace)))


def _moment(seconds: float) -> int:
    return EPOCH + round(seconds * 1_000_000)


def _union(parts: Sequence[Sql]) -> Sql:
    if not parts:
        return Sql("SELECT NULL WHERE 0")
    return Sql(" UNION ALL ".join(part.text for part in parts), values_of(parts))
