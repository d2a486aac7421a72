# SPDX-License-Identifier: AGPL-3.0-or-later
"""Queries as SQL: conditions become tests of tables and columns, and a plan says which table is read first.

Without statistics SQLite would guess the order of the tables, so it is chosen here, by counting:

1. a small set of ids (one patient, one accession number) is read first, and all matches are gathered and sorted;
2. otherwise a code is, whose rows are in the order of state and start;
3. otherwise an index of ``workitem`` is, in the requested order.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import orjson

from ..core import tags
from ..core.query_conditions import Clause, Condition, Operator
from ..core.wildcards import is_wild, literal_start
from .schema import (
    CODES,
    COLUMNS,
    KEYS,
    MOMENTS,
    NAMES,
    NO_PROGRESS,
    NO_TIME,
    NO_WORDS,
    PAIRS,
    RANKS,
    SEPARATOR,
    WITHOUT,
    KeyKind,
)

_SURROGATES: Final = range(0xD800, 0xE000)
_LONGEST_PATTERN: Final = 1_000
_MOST_PARAMETERS: Final = 100
IN_BOTH_TABLES: Final = frozenset({"state", "start"})
"""Columns that tables ``workitem`` and ``code`` both have."""


class Sql(NamedTuple):
    """A piece of SQL with its parameters."""

    text: str
    values: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Column:
    """A test of a column; ``{row}`` in the SQL is replaced by the table or alias."""

    name: str
    test: Sql


@dataclass(frozen=True, slots=True)
class Ids:
    """A set of ids from an index.

    Attributes:
        select: selects the ids, possibly with duplicates.
        test: an expression that is true if the id ``{id}`` is in the set.
        quick: False if finding even the first ids may take long.
    """

    select: Sql
    test: Sql
    quick: bool = True


@dataclass(frozen=True, slots=True)
class Code:
    """A code in table ``code``, in a scheme or in any (None)."""

    kind: int
    text: str
    scheme: str | None


@dataclass(frozen=True, slots=True)
class Filters:
    """The part of a query that SQL can test; ``exact`` if that is the whole query."""

    columns: tuple[Column, ...]
    ids: tuple[Ids, ...]
    codes: tuple[Code, ...]
    exact: bool


class Translator:
    """Translates clauses.

    ``dated`` is False if the columns of date-times are in another zone than the query's; ``odd`` is True if columns
    do not represent their attributes completely (``facts.Volatile.odd``). Such columns are not tested.
    """

    def __init__(self, *, dated: bool, odd: bool) -> None:
        self._dated = dated
        self._odd = odd
        self._columns: list[Column] = []
        self._ids: list[Ids] = []
        self._codes: list[Code] = []

    def filters(
        self, clauses: Iterable[Clause], words: Sequence[str] = (), also: Iterable[Column | Ids] = ()
    ) -> Filters:
        """The tests of all clauses, of the words (``core/free_text.py``), and ``also``, all of which must hold."""
        exact = [self._clause(clause) for clause in clauses]
        for test in also:
            if isinstance(test, Column):
                self._columns.append(test)
            else:
                self._ids.append(test)
        if words:
            self._ids.append(_free_text(words))
        return Filters(tuple(self._columns), tuple(self._ids), tuple(self._codes), all(exact))

    def _clause(self, clause: Clause) -> bool:
        """Add the tests of a clause; True if they express it completely."""
        pair = _code_pair(clause.conditions)
        if pair is not None:
            self._code(*pair)
            return clause.complete
        expressed = [self._condition(condition) for condition in clause.conditions]
        return clause.complete and expressed == [True]

    def _code(self, sequence: str, code: str, scheme: str | None) -> None:
        if sequence in CODES:
            self._codes.append(Code(CODES[sequence], code, scheme))
        else:
            self._ids.append(_pair(PAIRS[sequence], code, scheme))

    def _condition(self, condition: Condition) -> bool:
        """Add the tests of a condition; True if they express it completely."""
        path, operator, values = condition.path, condition.operator, condition.values
        if operator is Operator.EMPTY:
            return self._empty(path)
        if path in COLUMNS:
            return self._column(path, operator, values)
        name, _, group = path.partition(".")
        if name == tags.PATIENT_NAME:
            return self._name(NAMES.get(group), operator, values)
        if path in KEYS and operator in (Operator.EQUALS, Operator.LIKE) and _is_usable(values):
            self._ids.append(_keys((KEYS[path],), operator, values))
            return True
        return False

    def _empty(self, path: str) -> bool:
        if path not in WITHOUT:
            return False
        self._ids.append(_keys((KeyKind.WITHOUT,), Operator.EQUALS, (path,)))
        return True

    def _column(self, path: str, operator: Operator, values: Sequence[Any]) -> bool:
        if self._odd or (path in MOMENTS and not self._dated) or not _is_usable(values):
            return False
        name = COLUMNS[path]
        if path == tags.SOP_INSTANCE_UID:
            self._ids.append(_uids(values))
        else:
            self._columns.append(Column(name, _column_test(path, name, operator, values)))
        return True

    def _name(self, group: KeyKind | None, operator: Operator, values: Sequence[Any]) -> bool:
        if operator is Operator.SOUNDS:
            self._ids.append(_sounds(*values[0]))
            return True
        if not _is_usable(values):
            return False
        kinds = (group,) if group else tuple(NAMES.values())
        self._ids.append(_keys(kinds, operator, values))
        return True


def _code_pair(conditions: Sequence[Condition]) -> tuple[str, str, str | None] | None:
    """Sequence, value and scheme if the conditions are those of a single indexed code; otherwise None."""
    by_tag = {}
    for condition in conditions:
        sequence, _, tag = condition.path.rpartition(".")
        if len(condition.values) != 1 or condition.operator is not Operator.EQUALS:
            return None
        by_tag[tag] = sequence, condition.values[0]
    sequence, code = by_tag.pop(tags.CODE_VALUE, ("", ""))
    if sequence not in CODES and sequence not in PAIRS:
        return None
    above, scheme = by_tag.pop(tags.CODING_SCHEME, (sequence, None))
    return (sequence, code, scheme) if above == sequence and not by_tag else None


def _is_usable(values: Sequence[Any]) -> bool:
    """False for values that SQLite cannot test: it refuses very long patterns and ends texts at a NUL."""
    return all(
        not isinstance(value, str) or (len(value) <= _LONGEST_PATTERN and "\0" not in value)
        for value in values
    )


def _column_test(path: str, name: str, operator: Operator, values: Sequence[Any]) -> Sql:
    column = f"{{row}}.{name}"
    if operator is Operator.WITHIN:
        return _any([Sql(f"{column} BETWEEN ? AND ?", pair) for pair in values])
    if operator is Operator.LIKE:
        return _any([_like(column, pattern) for pattern in values])
    ranks = RANKS.get(path)
    condition = [ranks.get(value, -1) for value in values] if ranks else list(values)
    return _is_in(column, condition)


def _keys(kinds: Sequence[KeyKind], operator: Operator, values: Sequence[str]) -> Ids:
    of_kind = _is_in("k.kind", [int(kind) for kind in kinds])
    condition = _is_in("k.text", values) if operator is Operator.EQUALS else _texts_like(values)
    every = Sql(
        f"SELECT k.id FROM key k WHERE {of_kind.text} AND {condition.text}",  # noqa: S608
        (*of_kind.values, *condition.values),
    )
    if operator is Operator.LIKE:
        return Ids(every, _in(every), quick=all(literal_start(pattern) for pattern in values))
    return Ids(every, Sql(f"EXISTS({every.text} AND k.id = {{id}})", every.values))


def _texts_like(patterns: Sequence[str]) -> Sql:
    return _any([_like("k.text", pattern) for pattern in patterns])


def _pair(kind: KeyKind, code: str, scheme: str | None) -> Ids:
    start = code + SEPARATOR
    texts = Sql("k.text = ?", (start + scheme,)) if scheme is not None else _within("k.text", start)
    every = Sql(f"SELECT k.id FROM key k WHERE k.kind = {int(kind)} AND {texts.text}", texts.values)  # noqa: S608
    return Ids(every, _in(every))


def _sounds(word: str, sound: str) -> Ids:
    begins = _within("k.text", word)
    select = f"SELECT k.id FROM key k WHERE k.kind = {int(KeyKind.NAME_WORD)} AND {begins.text}"  # noqa: S608
    alike = f" UNION ALL SELECT k.id FROM key k WHERE k.kind = {int(KeyKind.NAME_SOUND)} AND k.text = ?"  # noqa: S608
    every = Sql(select + alike, (*begins.values, sound))
    return Ids(every, _in(every))


def _free_text(words: Sequence[str]) -> Ids:
    tests = " AND ".join("instr(w.text, ?) > 0" for _ in words)
    every = Sql(f"SELECT w.id FROM words w WHERE {tests}", tuple(map(_valid, words)))  # noqa: S608
    return Ids(every, _in(every), quick=False)


def _valid(text: str) -> str:
    """Replace lone surrogates, which SQLite refuses and no stored text has."""
    return text.encode(errors="replace").decode()


def _uids(values: Sequence[str]) -> Ids:
    condition = _is_in("u.uid", values)
    every = Sql(f"SELECT u.id FROM workitem u WHERE {condition.text}", condition.values)  # noqa: S608
    return Ids(every, _in(every))


def _in(every: Sql) -> Sql:
    return Sql(f"{{id}} IN ({every.text})", every.values)


def _is_in(column: str, values: Sequence[Any]) -> Sql:
    if len(values) == 1:
        return Sql(f"{column} = ?", tuple(values))
    if len(values) > _MOST_PARAMETERS:
        listed = orjson.dumps(list(values)).decode()
        return Sql(f"{column} IN (SELECT value FROM json_each(?))", (listed,))  # noqa: S608
    return Sql(f"{column} IN ({', '.join('?' * len(values))})", tuple(values))


def _any(tests: Sequence[Sql]) -> Sql:
    if len(tests) == 1:
        return tests[0]
    return Sql(f"({' OR '.join(test.text for test in tests)})", values_of(tests))


def _like(column: str, pattern: str) -> Sql:
    """The test for a wildcard pattern; the literal text at its start limits the range of the index."""
    if not is_wild(pattern):
        return Sql(f"{column} = ?", (pattern,))
    fits = Sql(f"{column} GLOB ?", (pattern.replace("[", "[[]"),))
    start = literal_start(pattern)
    if not start:
        return fits
    within = _within(column, start)
    return Sql(f"({within.text} AND {fits.text})", (*within.values, *fits.values))


def _within(column: str, start: str) -> Sql:
    """The test for the range of texts with a prefix, which an index can use."""
    last = len(start) - 1
    while last >= 0 and start[last] == "\U0010ffff":
        last -= 1
    if last < 0:
        return Sql(f"{column} >= ?", (start,))
    follower = ord(start[last]) + 1
    end = start[:last] + chr(_SURROGATES.stop if follower in _SURROGATES else follower)
    return Sql(f"{column} >= ? AND {column} < ?", (start, end))


# --- the plan ---

FEW = 2_000
"""A set with fewer ids is small."""

ORDERS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = MappingProxyType(
    {
        "start": ("workitem_start", ("start", "created", "id")),
        "created": ("workitem_created", ("created", "id")),
        "modification": ("workitem_modification", ("modification", "created", "id")),
        "state": ("workitem_state", ("state", "created", "id")),
        "priority": ("", ("priority", "created", "id")),
        "label": ("workitem_label", ("label", "created", "id")),
        "worklist_label": ("workitem_worklist", ("worklist", "created", "id")),
        "patient_name": ("workitem_name", ("name", "created", "id")),
        "station": ("workitem_station", ("station", "created", "id")),
        "performer": ("workitem_performer", ("performer", "created", "id")),
        "progress": ("workitem_progress", ("progress", "created", "id")),
        "urgency": ("", ("priority", "start", "created", "id")),
        "work": ("", ("work", "created", "id")),
        "completion": ("workitem_completion", ("completion", "created", "id")),
        "expiration": ("", ("expiration", "created", "id")),
        "claimer": ("", ("claimer", "created", "id")),
        "claimed": ("", ("claimed", "created", "id")),
        "ended": ("", ("ended", "created", "id")),
        "duration": ("", ("duration", "created", "id")),
        "performed": ("", ("performed", "created", "id")),
    }
)
"""The orders of matches: the index in that order (if there is one) and the columns."""

NULL: Final = "NULL"
"""In NONE_LAST: no value is NULL, which SQLite sorts first."""

NONE_LAST: Final[Mapping[str, object]] = MappingProxyType(
    {
        **dict.fromkeys(("station", "performer", "work", "claimer", "performed"), NO_WORDS),
        "progress": NO_PROGRESS,
        **dict.fromkeys(("claimed", "duration"), NO_TIME),
        **dict.fromkeys(("completion", "expiration", "ended"), NULL),
    }
)
"""What columns hold for no value, in orders in which matches without a value come last in both directions."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A query ready to run.

    Attributes:
        source: the FROM and WHERE clauses; ``d`` is the table that is read first, or ``workitem``.
        values: the parameters of ``source``.
        ordering: the columns of the order, with their table.
        gather: True if all ids are fetched at once, because sorting costs more than fetching.
        exact: True if the rows need no further test.
        none: what the first column holds for no value, if such matches come last in both directions.
    """

    source: str
    values: tuple[object, ...]
    ordering: tuple[str, ...]
    gather: bool
    exact: bool
    none: object = None

    def stretches(self, *, descending: bool) -> tuple[Plan, ...]:
        """The plans to run one after the other, so that matches without a value come last."""
        if self.none == NULL:
            return self._where("IS NOT NULL"), self._where("IS NULL")
        if self.none is None or not descending:
            return (self,)
        return self._only("<"), self._only("=")

    def _where(self, test: str) -> Plan:
        return replace(self, source=f"{self.source} AND {self.ordering[0]} {test}")

    def _only(self, compared: str) -> Plan:
        source = f"{self.source} AND {self.ordering[0]} {compared} ?"
        return replace(self, source=source, values=(*self.values, self.none))

    def count(self) -> Sql:
        """The statement that counts the matches."""
        return Sql(f"SELECT COUNT(*) {self.source}", self.values)

    def ids(self, *, descending: bool = False) -> Sql:
        """The statement that selects their ids in order."""
        direction = " DESC" if descending else ""
        by = ", ".join(f"{column}{direction}" for column in self.ordering)
        return Sql(f"SELECT d.id {self.source} ORDER BY {by}", self.values)

    def after(self, position: tuple[int, int, int] | None) -> Sql:
        """The statement that selects start, creation number and id of matches after a position, by start."""
        source, values = self.source, self.values
        if position is not None:
            source += " AND (d.start, d.created, d.id) > (?, ?, ?)"
            values = (*values, *position)
        return Sql(f"SELECT d.start, d.created, d.id {source} ORDER BY d.start, d.created, d.id", values)


def plan(connection: sqlite3.Connection, filters: Filters, order: str) -> Plan:
    """Choose how to run a query in an order of ORDERS."""
    ids, few = _smallest(connection, filters)
    if ids is not None and (few or not (filters.codes or ids.quick)):
        return _plan_by_ids(filters, ids, order)
    if filters.codes:
        return _plan_by_code(filters, _rarest(connection, filters), order)
    return _plan_by_index(filters, order)


def _smallest(connection: sqlite3.Connection, filters: Filters) -> tuple[Ids | None, bool]:
    """The smallest quick set, and whether it is small; the first set if none is quick, None without sets."""
    counted = [(_count(connection, ids.select), index) for index, ids in enumerate(filters.ids) if ids.quick]
    if counted:
        size, index = min(counted)
        return filters.ids[index], size < FEW
    return (filters.ids[0], False) if filters.ids else (None, False)


def _rarest(connection: sqlite3.Connection, filters: Filters) -> Code:
    if len(filters.codes) == 1:
        return filters.codes[0]
    counted = []
    for index, code in enumerate(filters.codes):
        tests = [_of_code(code), *_on_first_table(filters.columns)]
        rows = Sql(f"SELECT 1 FROM code d WHERE {_and(tests)}", values_of(tests))  # noqa: S608
        counted.append((_count(connection, rows), index))
    return filters.codes[min(counted)[1]]


def _count(connection: sqlite3.Connection, rows: Sql) -> int:
    """The number of rows, at most FEW."""
    text = f"SELECT COUNT(*) FROM ({rows.text} LIMIT {FEW})"  # noqa: S608
    return int(connection.execute(text, rows.values).fetchone()[0])


def _plan_by_ids(filters: Filters, first: Ids, order: str) -> Plan:
    tests = [
        *(_on("d", column) for column in filters.columns),
        *(_is_among("d", ids) for ids in filters.ids if ids is not first),
        *(_has_code("d", code) for code in filters.codes),
    ]
    source = (
        f"FROM (SELECT DISTINCT id FROM ({first.select.text})) i "  # noqa: S608
        f"CROSS JOIN workitem d ON d.id = i.id WHERE {_and(tests)}"
    )
    return _plan(source, (*first.select.values, *values_of(tests)), "d", order, filters, gather=True)


def _plan_by_code(filters: Filters, first: Code, order: str) -> Plan:
    joined_columns = [column for column in filters.columns if column.name not in IN_BOTH_TABLES]
    tests = [
        _of_code(first),
        *_on_first_table(filters.columns),
        *(_on("m", column) for column in joined_columns),
        *(_is_among("d", ids) for ids in filters.ids),
        *(_has_code("d", code) for code in filters.codes if code is not first),
    ]
    joined = bool(joined_columns) or order != "start"
    join = " CROSS JOIN workitem m ON m.id = d.id" if joined else ""
    source = f"FROM code d{join} WHERE {_and(tests)}"
    return _plan(source, values_of(tests), "m" if joined and order != "start" else "d", order, filters)


def _plan_by_index(filters: Filters, order: str) -> Plan:
    index = ORDERS[order][0]
    if order == "start" and _is_one_state(filters.columns):
        index = "workitem_state"
    tests = [
        *(_on("d", column) for column in filters.columns),
        *(_is_among("d", ids) for ids in filters.ids),
        *(_has_code("d", code) for code in filters.codes),
    ]
    source = f"FROM workitem d{f' INDEXED BY {index}' if index else ''} WHERE {_and(tests)}"
    return _plan(source, values_of(tests), "d", order, filters)


def _plan(
    source: str,
    values: tuple[object, ...],
    table: str,
    order: str,
    filters: Filters,
    *,
    gather: bool = False,
) -> Plan:
    ordering = tuple(f"{table}.{column}" for column in ORDERS[order][1])
    return Plan(source, values, ordering, gather, filters.exact, NONE_LAST.get(order))


def _is_one_state(columns: Iterable[Column]) -> bool:
    return any(column.name == "state" and len(column.test.values) == 1 for column in columns)


def _on(table: str, column: Column) -> Sql:
    return Sql(column.test.text.format(row=table), column.test.values)


def _on_first_table(columns: Iterable[Column]) -> list[Sql]:
    return [_on("d", column) for column in columns if column.name in IN_BOTH_TABLES]


def _is_among(table: str, ids: Ids) -> Sql:
    """The test for membership; the unary plus keeps SQLite from reading this set first."""
    return Sql(ids.test.text.format(id=f"+{table}.id"), ids.test.values)


def _of_code(code: Code) -> Sql:
    if code.scheme is None:
        return Sql("d.kind = ? AND d.text = ? AND d.again = 0", (int(code.kind), code.text))
    return Sql("d.kind = ? AND d.text = ? AND d.scheme = ?", (int(code.kind), code.text, code.scheme))


def _has_code(table: str, code: Code) -> Sql:
    scheme = "" if code.scheme is None else " AND c.scheme = ?"
    same_row = " AND ".join(f"c.{name} = {table}.{name}" for name in ("state", "start", "created", "id"))
    text = f"EXISTS(SELECT 1 FROM code c WHERE c.kind = ? AND c.text = ? AND {same_row}{scheme})"  # noqa: S608
    values = (int(code.kind), code.text)
    return Sql(text, values if code.scheme is None else (*values, code.scheme))


def _and(tests: Sequence[Sql]) -> str:
    return " AND ".join(test.text for test in tests) or "1"


def values_of(tests: Iterable[Sql]) -> tuple[Any, ...]:
    """The parameters of pieces of SQL, in order."""
    return tuple(value for test in tests for value in test.values)
