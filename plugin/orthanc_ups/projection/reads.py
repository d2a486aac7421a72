# SPDX-License-Identifier: AGPL-3.0-or-later
"""Queries on one connection of the projection. All run in a worker thread and may raise ``sqlite3.Error``."""

from __future__ import annotations

import sqlite3
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

import orjson

from ..core.dataset import DataSet
from ..core.date_times import Zone
from ..core.events import Event, EventType
from ..core.matching import Query
from ..store.document import attributes_of
from .filters import Sql, Translator
from .plan import Plan, plan
from .schema import RANKS

_T = TypeVar("_T")
TESTED_AT_ONCE: Final = 500
Place = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Matched:
    """What is known of the matches of a query: stretches of them in order, each with their number.

    If they were gathered, their ids in order instead.
    """

    stretches: tuple[tuple[Plan, int], ...]
    ids: array[int] | None = None

    @property
    def total(self) -> int:
        """How many there are."""
        return sum(many for _, many in self.stretches) if self.ids is None else len(self.ids)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some matches by id, and the place of the last; no place if there are no more."""

    found: list[tuple[int, DataSet]]
    place: Place | None


@dataclass(frozen=True, slots=True)
class Counts:
    """How many workitems there are: per worklist label and state. States without any are left out."""

    by_worklist: dict[str, dict[str, int]]

    @property
    def by_state(self) -> dict[str, int]:
        """Per state over all worklists."""
        found: dict[str, int] = {}
        for states in self.by_worklist.values():
            for state, number in states.items():
                found[state] = found.get(state, 0) + number
        return found

    @property
    def total(self) -> int:
        """All."""
        return sum(self.by_state.values())


class Reader:
    """One connection for one query at a time.

    ``local`` is the zone that the projection was made for; ``stopping`` ends long queries.
    """

    def __init__(self, connection: sqlite3.Connection, local: Zone, stopping: threading.Event) -> None:
        self.connection = connection
        self._execute = connection.execute
        self._local = local
        self._stopping = stopping

    # --- search ---

    def planned(self, query: Query, order: str, words: Sequence[str] = ()) -> Plan:
        """Choose how to carry out a query."""
        odd = self._execute("SELECT EXISTS(SELECT 1 FROM workitem WHERE odd <> 0)").fetchone()[0]
        translator = Translator(dated=query.zone == self._local, odd=bool(odd))
        return plan(self.connection, translator.filters(query.clauses, words), order)

    def matched(self, query: Query, order: str, *, descending: bool, words: Sequence[str] = ()) -> Matched:
        """Count or gather all matches."""
        with self.snapshot():
            chosen = self.planned(query, order, words)
            stretches = chosen.stretches(descending=descending)
            if chosen.exact and not chosen.gather:
                return Matched(tuple((one, self._one(one.count())) for one in stretches))
            ids = array("q")
            for one in stretches:
                ids.extend(self._ids(one.ids(descending=descending)))
            if not chosen.exact:
                ids = array("q", (one for one, _ in self._fitting(query, ids)))
            return Matched((), ids)

    def page(
        self,
        matched: Matched,
        offset: int,
        limit: int | None,
        form: Callable[[bytes], _T],
        *,
        descending: bool,
    ) -> list[_T]:
        """What ``form`` makes of the documents of the matches from ``offset`` on."""
        many = max(0, matched.total - offset if limit is None else min(limit, matched.total - offset))
        with self.snapshot():
            if matched.ids is not None:
                wanted: Iterable[int] = matched.ids[offset : offset + many]
            else:
                wanted = self._across(matched.stretches, offset, many, descending=descending)
            return [form(document) for _, document in self._documents(wanted)]

    def _across(
        self, stretches: Sequence[tuple[Plan, int]], offset: int, many: int, *, descending: bool
    ) -> Iterator[int]:
        for chosen, total in stretches:
            here = max(0, min(many, total - offset))
            if here:
                yield from self._stretch(chosen, total, offset, here, descending=descending)
            offset, many = max(0, offset - total), many - here

    def _stretch(
        self, chosen: Plan, total: int, offset: int, many: int, *, descending: bool
    ) -> Iterable[int]:
        """From the nearer end: the last page costs as much as the first."""
        behind = total - offset - many
        backwards = behind < offset
        text, values = chosen.ids(descending=descending is not backwards)
        rows = self._execute(f"{text} LIMIT ? OFFSET ?", (*values, many, behind if backwards else offset))
        found = [row for (row,) in rows]
        return reversed(found) if backwards else found

    # --- stream (C-FIND) ---

    def first(self, query: Query, many: int) -> tuple[Plan, array[int] | Chunk]:
        """Start a stream: the plan, and either all candidates or, if no further test is needed, a chunk."""
        with self.snapshot():
            chosen = self.planned(query, "start")
            if chosen.exact and not chosen.gather:
                return chosen, self._next(chosen, None, many)
            return chosen, self._ids(chosen.ids())

    def next(self, chosen: Plan, place: Place, many: int) -> Chunk:
        """The chunk behind a place."""
        with self.snapshot():
            return self._next(chosen, place, many)

    def _next(self, chosen: Plan, place: Place | None, many: int) -> Chunk:
        text, values = chosen.after(place)
        places: list[Place] = self._execute(f"{text} LIMIT ?", (*values, many)).fetchall()
        found = list(self._attributes(row for _, _, row in places))
        return Chunk(found, places[-1] if len(places) == many else None)

    def fitting(self, query: Query, ids: Sequence[int]) -> list[DataSet]:
        """The attributes of those candidates that fit by now."""
        with self.snapshot():
            return [found for _, found in self._fitting(query, ids)]

    # --- others ---

    def numbers(self, query: Query) -> list[int]:
        """Creation numbers of all matches, ascending."""
        with self.snapshot():
            chosen = self.planned(query, "created")
            text, values = chosen.ids()
            if chosen.exact:
                rows = self._execute(text.replace("SELECT d.id", "SELECT d.created", 1), values)
                return [number for (number,) in rows]
            ids = self._ids(Sql(text, values))
            of = "SELECT created FROM workitem WHERE id = ?"
            return [int(self._one(Sql(of, (row,)))) for row, _ in self._fitting(query, ids)]

    def counts(self) -> Counts:
        """How many workitems are in which state, per worklist."""
        rows = self._execute("SELECT worklist, state, COUNT(*) FROM workitem GROUP BY worklist, state")
        found: dict[str, dict[str, int]] = {}
        for worklist, rank, number in rows:
            found.setdefault(worklist, {})[_STATES.get(rank, "")] = number
        return Counts(found)

    def events(self, after: int, limit: int, receiver: str | None) -> list[Event]:
        """Logged events behind a sequence number, those of one receiver only if it is named."""
        if receiver is None:
            return self._events("sequence > ?", (after,), limit)
        return self._events("sequence > ? AND instr(receivers, ?)", (after, f"\\{receiver}\\"), limit)

    def events_of(self, uid: str, limit: int) -> list[Event]:
        """The last logged events of a workitem, oldest first."""
        return self._events("uid = ?", (uid,), limit, "DESC")[::-1]

    def _events(self, where: str, values: tuple[object, ...], limit: int, turned: str = "") -> list[Event]:
        rows = self._execute(
            "SELECT sequence, type, uid, information, receivers, at FROM event "  # noqa: S608
            f"WHERE {where} ORDER BY sequence {turned} LIMIT ?",
            (*values, limit),
        )
        return [_event(*row) for row in rows]

    # --- pieces ---

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """All that is read inside is of one moment."""
        self._execute("BEGIN")
        try:
            yield
        finally:
            self.connection.rollback()

    def _one(self, sql: Sql) -> int:
        found = self._execute(sql.text, sql.values).fetchone()
        return int(found[0])

    def _ids(self, sql: Sql) -> array[int]:
        return array("q", (row for (row,) in self._execute(sql.text, sql.values)))

    def _attributes(self, ids: Iterable[int]) -> Iterator[tuple[int, DataSet]]:
        return ((row, attributes_of(document)) for row, document in self._documents(ids))

    def _documents(self, ids: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """The documents of workitems that are still there."""
        for row in ids:
            if self._stopping.is_set():
                raise sqlite3.OperationalError("interrupted")
            found = self._execute("SELECT document FROM body WHERE id = ?", (row,)).fetchone()
            if found is not None:
                yield row, found[0]

    def _fitting(self, query: Query, ids: Iterable[int]) -> Iterator[tuple[int, DataSet]]:
        return ((row, found) for row, found in self._attributes(ids) if query.matches(found))


_STATES: Final = {rank: name for name, rank in RANKS["00741000"].items()}


def _event(sequence: int, kind: int, uid: str, information: bytes, receivers: str, at: float) -> Event:
    told = tuple(name for name in receivers.split("\\") if name)
    return Event(sequence, EventType(kind), uid, orjson.loads(information), told, at)


def event_row(event: Event) -> tuple[object, ...]:
    """A row of the event log. No AE title holds a backslash, so it separates and encloses them."""
    told = "".join(f"\\{name}" for name in event.receivers) + "\\"
    information = orjson.dumps(event.information)
    return event.sequence, event.uid, int(event.type), information, told, event.at
