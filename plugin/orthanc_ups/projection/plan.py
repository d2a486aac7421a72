# SPDX-License-Identifier: AGPL-3.0-or-later
"""How a query is carried out: which table leads, and what is left to test row by row.

Without statistics SQLite guesses, so the order of the tables is chosen here, by looking:

1. a set of ids that is small leads (one patient, one accession number): all matches are gathered and sorted;
2. else a code leads: its rows stand in the order of state and start;
3. else an index of ``workitem`` leads, in the order asked for.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from .filters import ON_EVERY_DRIVER, Code, Column, Filters, Ids, Sql
from .schema import NO_PROGRESS, NO_WORDS

FEW = 2_000

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
    }
)
"""What matches can be sorted by: the index that has the order, and the columns of the order."""

NONE_LAST: Final[Mapping[str, object]] = MappingProxyType(
    {"station": NO_WORDS, "performer": NO_WORDS, "progress": NO_PROGRESS}
)
"""Orders in which matches without a value stand at the end in both directions: what stands for none."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A query ready to run.

    Attributes:
        source: the FROM and WHERE clauses; ``d`` is the table that leads.
        values: its parameters.
        ordering: columns of the order, with their table.
        none: what the first of them holds for no value, if such matches stand at the end in both directions.
        gather: True if all matches are fetched at once, as sorting them costs more than fetching.
        exact: True if no further test is needed.
    """

    source: str
    values: tuple[object, ...]
    ordering: tuple[str, ...]
    gather: bool
    exact: bool
    none: object = None

    def stretches(self, *, descending: bool) -> tuple[Plan, ...]:
        """What to read one after the other; turned round, an index would begin with those that have no value."""
        if self.none is None or not descending:
            return (self,)
        return self._only("<"), self._only("=")

    def _only(self, compared: str) -> Plan:
        source = f"{self.source} AND {self.ordering[0]} {compared} ?"
        return replace(self, source=source, values=(*self.values, self.none))

    def count(self) -> Sql:
        """How many there are."""
        return Sql(f"SELECT COUNT(*) {self.source}", self.values)

    def ids(self, *, descending: bool = False) -> Sql:
        """Their ids in order."""
        direction = " DESC" if descending else ""
        by = ", ".join(f"{column}{direction}" for column in self.ordering)
        return Sql(f"SELECT d.id {self.source} ORDER BY {by}", self.values)

    def after(self, place: tuple[int, int, int] | None) -> Sql:
        """Start, creation number and id of those behind a place in the order of start."""
        source, values = self.source, self.values
        if place is not None:
            source += " AND (d.start, d.created, d.id) > (?, ?, ?)"
            values = (*values, *place)
        return Sql(f"SELECT d.start, d.created, d.id {source} ORDER BY d.start, d.created, d.id", values)


def plan(connection: sqlite3.Connection, filters: Filters, order: str) -> Plan:
    """Choose how to carry out a query in one of ORDERS."""
    ids, few = _smallest(connection, filters)
    if ids is not None and (few or not (filters.codes or ids.quick)):
        return _led_by_ids(filters, ids, order)
    if filters.codes:
        return _led_by_code(filters, _rarest(connection, filters), order)
    return _led_by_index(filters, order)


def _smallest(connection: sqlite3.Connection, filters: Filters) -> tuple[Ids | None, bool]:
    """The set with the fewest ids, and whether those are few; one that is not quick only for want of others."""
    counted = [(_count(connection, ids.select), place) for place, ids in enumerate(filters.ids) if ids.quick]
    if counted:
        size, place = min(counted)
        return filters.ids[place], size < FEW
    return (filters.ids[0], False) if filters.ids else (None, False)


def _rarest(connection: sqlite3.Connection, filters: Filters) -> Code:
    if len(filters.codes) == 1:
        return filters.codes[0]
    counted = []
    for place, code in enumerate(filters.codes):
        tests = [_of_code(code), *_on_driver(filters.columns)]
        rows = Sql(f"SELECT 1 FROM code d WHERE {_and(tests)}", _values(tests))  # noqa: S608
        counted.append((_count(connection, rows), place))
    return filters.codes[min(counted)[1]]


def _count(connection: sqlite3.Connection, rows: Sql) -> int:
    """How many rows there are, up to FEW."""
    text = f"SELECT COUNT(*) FROM ({rows.text} LIMIT {FEW})"  # noqa: S608
    return int(connection.execute(text, rows.values).fetchone()[0])


def _led_by_ids(filters: Filters, leading: Ids, order: str) -> Plan:
    tests = [
        *(_on("d", column) for column in filters.columns),
        *(_known("d", ids) for ids in filters.ids if ids is not leading),
        *(_has_code("d", code) for code in filters.codes),
    ]
    source = (
        f"FROM (SELECT DISTINCT id FROM ({leading.select.text})) i "  # noqa: S608
        f"CROSS JOIN workitem d ON d.id = i.id WHERE {_and(tests)}"
    )
    return _plan(source, (*leading.select.values, *_values(tests)), "d", order, filters, gather=True)


def _led_by_code(filters: Filters, leading: Code, order: str) -> Plan:
    others = [column for column in filters.columns if column.name not in ON_EVERY_DRIVER]
    tests = [
        _of_code(leading),
        *_on_driver(filters.columns),
        *(_on("m", column) for column in others),
        *(_known("d", ids) for ids in filters.ids),
        *(_has_code("d", code) for code in filters.codes if code is not leading),
    ]
    joined = bool(others) or order != "start"
    join = " CROSS JOIN workitem m ON m.id = d.id" if joined else ""
    source = f"FROM code d{join} WHERE {_and(tests)}"
    return _plan(source, _values(tests), "m" if joined and order != "start" else "d", order, filters)


def _led_by_index(filters: Filters, order: str) -> Plan:
    index = ORDERS[order][0]
    if order == "start" and _is_one_state(filters.columns):
        index = "workitem_state"
    tests = [
        *(_on("d", column) for column in filters.columns),
        *(_known("d", ids) for ids in filters.ids),
        *(_has_code("d", code) for code in filters.codes),
    ]
    source = f"FROM workitem d{f' INDEXED BY {index}' if index else ''} WHERE {_and(tests)}"
    return _plan(source, _values(tests), "d", order, filters)


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


def _on_driver(columns: Iterable[Column]) -> list[Sql]:
    return [_on("d", column) for column in columns if column.name in ON_EVERY_DRIVER]


def _known(table: str, ids: Ids) -> Sql:
    """The plus keeps SQLite from letting this set lead."""
    return Sql(ids.test.text.format(id=f"+{table}.id"), ids.test.values)


def _of_code(code: Code) -> Sql:
    if code.scheme is None:
        return Sql("d.kind = ? AND d.text = ? AND d.again = 0", (int(code.kind), code.text))
    return Sql("d.kind = ? AND d.text = ? AND d.scheme = ?", (int(code.kind), code.text, code.scheme))


def _has_code(table: str, code: Code) -> Sql:
    scheme = "" if code.scheme is None else " AND c.scheme = ?"
    place = " AND ".join(f"c.{name} = {table}.{name}" for name in ("state", "start", "created", "id"))
    text = f"EXISTS(SELECT 1 FROM code c WHERE c.kind = ? AND c.text = ? AND {place}{scheme})"  # noqa: S608
    values = (int(code.kind), code.text)
    return Sql(text, values if code.scheme is None else (*values, code.scheme))


def _and(tests: Sequence[Sql]) -> str:
    return " AND ".join(test.text for test in tests) or "1"


def _values(tests: Iterable[Sql]) -> tuple[object, ...]:
    return tuple(one for test in tests for one in test.values)
