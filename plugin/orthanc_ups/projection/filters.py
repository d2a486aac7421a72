# SPDX-License-Identifier: AGPL-3.0-or-later
"""The conditions of a query as SQL."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import orjson

from ..core import tags
from ..core.query_conditions import Clause, Condition, Operator
from ..core.wildcards import is_wild, literal_start
from .schema import CODES, COLUMNS, KEYS, MOMENTS, NAMES, PAIRS, RANKS, SEPARATOR, Kind

_SURROGATES: Final = range(0xD800, 0xE000)
_LONGEST_PATTERN: Final = 1_000
_MOST_PARAMETERS: Final = 100
ON_EVERY_DRIVER: Final = frozenset({"state", "start"})
"""Columns that tables ``workitem`` and ``code`` both have."""


class Sql(NamedTuple):
    """A piece of SQL with its parameters."""

    text: str
    values: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Column:
    """A test of a column; ``{row}`` in it stands for the row that has the column."""

    name: str
    test: Sql


@dataclass(frozen=True, slots=True)
class Ids:
    """A set of ids found by an index.

    Attributes:
        select: gives the ids, perhaps several times each.
        test: tells of one id, ``{id}``, whether it is in the set.
        quick: False if even the first ids may take long to find.
    """

    select: Sql
    test: Sql
    quick: bool = True


@dataclass(frozen=True, slots=True)
class Code:
    """A code in table ``code``, in a scheme or (None) in any."""

    kind: int
    text: str
    scheme: str | None


@dataclass(frozen=True, slots=True)
class Filters:
    """What SQL can do for a query; ``exact`` if that is all there is to do."""

    columns: tuple[Column, ...]
    ids: tuple[Ids, ...]
    codes: tuple[Code, ...]
    exact: bool


class Translator:
    """Translates clauses. ``dated`` False means that moments are of another zone, ``odd`` that columns lie."""

    def __init__(self, *, dated: bool, odd: bool) -> None:
        self._dated = dated
        self._odd = odd
        self._columns: list[Column] = []
        self._ids: list[Ids] = []
        self._codes: list[Code] = []

    def filters(self, clauses: Iterable[Clause], words: Sequence[str] = ()) -> Filters:
        """What all clauses together ask, and that each of the words occurs (``core/free_text.py``)."""
        exact = [self._clause(clause) for clause in clauses]
        if words:
            self._ids.append(_free_text(words))
        return Filters(tuple(self._columns), tuple(self._ids), tuple(self._codes), all(exact))

    def _clause(self, clause: Clause) -> bool:
        """Add what one clause asks; True if nothing is left to do."""
        pair = _code_pair(clause.conditions)
        if pair is not None:
            self._code(*pair)
            return clause.complete
        known = [self._condition(condition) for condition in clause.conditions]
        return clause.complete and known == [True]

    def _code(self, sequence: str, code: str, scheme: str | None) -> None:
        if sequence in CODES:
            self._codes.append(Code(CODES[sequence], code, scheme))
        else:
            self._ids.append(_pair(PAIRS[sequence], code, scheme))

    def _condition(self, condition: Condition) -> bool:
        """True if the condition is expressed in full."""
        path, operator, values = condition.path, condition.operator, condition.values
        if path in COLUMNS:
            return self._column(path, operator, values)
        name, _, group = path.partition(".")
        if name == tags.PATIENT_NAME:
            return self._name(NAMES.get(group), operator, values)
        if path in KEYS and operator in (Operator.EQUALS, Operator.LIKE) and _is_usable(values):
            self._ids.append(_keys((KEYS[path],), operator, values))
            return True
        return False

    def _column(self, path: str, operator: Operator, values: Sequence[Any]) -> bool:
        if self._odd or (path in MOMENTS and not self._dated) or not _is_usable(values):
            return False
        name = COLUMNS[path]
        if path == tags.SOP_INSTANCE_UID:
            self._ids.append(_uids(values))
        else:
            self._columns.append(Column(name, _column_test(path, name, operator, values)))
        return True

    def _name(self, group: Kind | None, operator: Operator, values: Sequence[Any]) -> bool:
        if operator is Operator.SOUNDS:
            self._ids.append(_sounds(*values[0]))
            return True
        if not _is_usable(values):
            return False
        kinds = (group,) if group else tuple(NAMES.values())
        self._ids.append(_keys(kinds, operator, values))
        return True


def _code_pair(conditions: Sequence[Condition]) -> tuple[str, str, str | None] | None:
    """Sequence, value and scheme if the conditions are about one indexed code and nothing else."""
    found = {}
    for condition in conditions:
        sequence, _, tag = condition.path.rpartition(".")
        if len(condition.values) != 1 or condition.operator is not Operator.EQUALS:
            return None
        found[tag] = sequence, condition.values[0]
    sequence, code = found.pop(tags.CODE_VALUE, ("", ""))
    if sequence not in CODES and sequence not in PAIRS:
        return None
    above, scheme = found.pop(tags.CODING_SCHEME, (sequence, None))
    return (sequence, code, scheme) if above == sequence and not found else None


def _is_usable(values: Sequence[Any]) -> bool:
    """SQLite refuses very long patterns and ends texts at a NUL."""
    return all(
        not isinstance(one, str) or (len(one) <= _LONGEST_PATTERN and "\0" not in one) for one in values
    )


def _column_test(path: str, name: str, operator: Operator, values: Sequence[Any]) -> Sql:
    column = f"{{row}}.{name}"
    if operator is Operator.WITHIN:
        return _any([Sql(f"{column} BETWEEN ? AND ?", pair) for pair in values])
    if operator is Operator.LIKE:
        return _any([_like(column, pattern) for pattern in values])
    ranks = RANKS.get(path)
    wanted = [ranks.get(one, -1) for one in values] if ranks else list(values)
    return _one_of(column, wanted)


def _keys(kinds: Sequence[Kind], operator: Operator, values: Sequence[str]) -> Ids:
    of_kind = _one_of("k.kind", [int(kind) for kind in kinds])
    wanted = _one_of("k.text", values) if operator is Operator.EQUALS else _texts_like(values)
    every = Sql(
        f"SELECT k.id FROM key k WHERE {of_kind.text} AND {wanted.text}",  # noqa: S608
        (*of_kind.values, *wanted.values),
    )
    if operator is Operator.LIKE:
        return Ids(every, _in(every), quick=all(literal_start(pattern) for pattern in values))
    return Ids(every, Sql(f"EXISTS({every.text} AND k.id = {{id}})", every.values))


def _texts_like(patterns: Sequence[str]) -> Sql:
    return _any([_like("k.text", pattern) for pattern in patterns])


def _pair(kind: Kind, code: str, scheme: str | None) -> Ids:
    start = code + SEPARATOR
    texts = Sql("k.text = ?", (start + scheme,)) if scheme is not None else _within("k.text", start)
    every = Sql(f"SELECT k.id FROM key k WHERE k.kind = {int(kind)} AND {texts.text}", texts.values)  # noqa: S608
    return Ids(every, _in(every))


def _sounds(word: str, sound: str) -> Ids:
    begins = _within("k.text", word)
    select = f"SELECT k.id FROM key k WHERE k.kind = {int(Kind.NAME_WORD)} AND {begins.text}"  # noqa: S608
    alike = f" UNION ALL SELECT k.id FROM key k WHERE k.kind = {int(Kind.NAME_SOUND)} AND k.text = ?"  # noqa: S608
    every = Sql(select + alike, (*begins.values, sound))
    return Ids(every, _in(every))


def _free_text(words: Sequence[str]) -> Ids:
    found = " AND ".join("instr(w.text, ?) > 0" for _ in words)
    every = Sql(f"SELECT w.id FROM words w WHERE {found}", tuple(map(_valid, words)))  # noqa: S608
    return Ids(every, _in(every), quick=False)


def _valid(text: str) -> str:
    """SQLite takes no lone surrogates; no stored text has one."""
    return text.encode(errors="replace").decode()


def _uids(values: Sequence[str]) -> Ids:
    wanted = _one_of("u.uid", values)
    every = Sql(f"SELECT u.id FROM workitem u WHERE {wanted.text}", wanted.values)  # noqa: S608
    return Ids(every, _in(every))


def _in(every: Sql) -> Sql:
    return Sql(f"{{id}} IN ({every.text})", every.values)


def _one_of(column: str, values: Sequence[Any]) -> Sql:
    if len(values) == 1:
        return Sql(f"{column} = ?", tuple(values))
    if len(values) > _MOST_PARAMETERS:
        listed = orjson.dumps(list(values)).decode()
        return Sql(f"{column} IN (SELECT value FROM json_each(?))", (listed,))  # noqa: S608
    return Sql(f"{column} IN ({', '.join('?' * len(values))})", tuple(values))


def _any(tests: Sequence[Sql]) -> Sql:
    if len(tests) == 1:
        return tests[0]
    return Sql(
        f"({' OR '.join(test.text for test in tests)})", tuple(one for test in tests for one in test.values)
    )


def _like(column: str, pattern: str) -> Sql:
    """A wildcard pattern: what it begins with narrows the index down."""
    if not is_wild(pattern):
        return Sql(f"{column} = ?", (pattern,))
    fits = Sql(f"{column} GLOB ?", (pattern.replace("[", "[[]"),))
    start = literal_start(pattern)
    if not start:
        return fits
    within = _within(column, start)
    return Sql(f"({within.text} AND {fits.text})", (*within.values, *fits.values))


def _within(column: str, start: str) -> Sql:
    """Texts that begin so, as a stretch of an index."""
    last = len(start) - 1
    while last >= 0 and start[last] == "\U0010ffff":
        last -= 1
    if last < 0:
        return Sql(f"{column} >= ?", (start,))
    follower = ord(start[last]) + 1
    behind = start[:last] + chr(_SURROGATES.stop if follower in _SURROGATES else follower)
    return Sql(f"{column} >= ? AND {column} < ?", (start, behind))
