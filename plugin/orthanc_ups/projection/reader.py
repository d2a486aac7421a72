# SPDX-License-Identifier: AGPL-3.0-or-later
"""Reading the projection: queries on a connection, and the worker threads that run them off the event loop."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from array import array
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias, TypeVar

import orjson

from ..core import tags
from ..core.dataset import DataSet, text
from ..core.date_times import Zone
from ..core.events import Event, EventType
from ..core.matching import Query
from ..core.statuses import OUT_OF_RESOURCES, UpsError
from ..store.documents import UnreadableDocument, attributes_of, unpacked
from .file import ProjectionBroken
from .queries import ORDERS, Column, Ids, Plan, Sql, Translator, plan
from .schema import RANKS

_T = TypeVar("_T")
TESTED_AT_ONCE: Final = 500
Position: TypeAlias = tuple[int, int, int]
"""Start, creation number and id of a workitem: its position in the order of start."""


@dataclass(frozen=True, slots=True)
class Matched:
    """The matches of a query without their documents: plans in order, each with its number of matches.

    If the matches were gathered: their ids in order instead.
    """

    stretches: tuple[tuple[Plan, int], ...]
    ids: array[int] | None = None

    @property
    def total(self) -> int:
        """The number of matches."""
        return sum(many for _, many in self.stretches) if self.ids is None else len(self.ids)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some matches with their ids, and the position of the last; None if there are no more."""

    matches: list[tuple[int, DataSet]]
    position: Position | None


@dataclass(frozen=True, slots=True)
class Counts:
    """The number of workitems per worklist label and state. States without workitems are left out."""

    by_worklist: dict[str, dict[str, int]]

    @property
    def by_state(self) -> dict[str, int]:
        """The number per state over all worklists."""
        totals: dict[str, int] = {}
        for states in self.by_worklist.values():
            for state, number in states.items():
                totals[state] = totals.get(state, 0) + number
        return totals

    @property
    def total(self) -> int:
        """The number of all workitems."""
        return sum(self.by_state.values())


class Reader:
    """Runs queries on a connection, one at a time.

    ``local`` is the zone of the projection; ``stopping`` ends long queries.
    """

    def __init__(self, connection: sqlite3.Connection, local: Zone, stopping: threading.Event) -> None:
        self.connection = connection
        self._execute = connection.execute
        self._local = local
        self._stopping = stopping

    # --- search ---

    def planned(
        self, query: Query, order: str, words: Sequence[str] = (), also: Sequence[Column | Ids] = ()
    ) -> Plan:
        """Choose how to run a query."""
        odd = self._execute("SELECT EXISTS(SELECT 1 FROM workitem WHERE odd <> 0)").fetchone()[0]
        translator = Translator(dated=query.zone == self._local, odd=bool(odd))
        return plan(self.connection, translator.filters(query.clauses, words, also), order)

    def matched(
        self,
        query: Query,
        order: str,
        *,
        descending: bool,
        words: Sequence[str] = (),
        also: Sequence[Column | Ids] = (),
        gather: bool = False,
    ) -> Matched:
        """Count all matches, or gather their ids if requested or needed."""
        with self.snapshot():
            chosen = self.planned(query, order, words, also)
            stretches = chosen.stretches(descending=descending)
            if chosen.exact and not (chosen.gather or gather):
                return Matched(tuple((stretch, self._number(stretch.count())) for stretch in stretches))
            ids = array("q")
            for stretch in stretches:
                ids.extend(self._ids(stretch.ids(descending=descending)))
            if not chosen.exact:
                ids = array("q", (row for row, _ in self._fitting(query, ids)))
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
        """The results of ``form`` for the documents of the matches from ``offset`` on."""
        many = max(0, matched.total - offset if limit is None else min(limit, matched.total - offset))
        with self.snapshot():
            if matched.ids is not None:
                page_ids: Iterable[int] = matched.ids[offset : offset + many]
            else:
                page_ids = self._across(matched.stretches, offset, many, descending=descending)
            return [form(document) for _, document in self._documents(page_ids)]

    def _across(
        self, stretches: Sequence[tuple[Plan, int]], offset: int, many: int, *, descending: bool
    ) -> Iterator[int]:
        for chosen, total in stretches:
            on_page = max(0, min(many, total - offset))
            if on_page:
                yield from self._stretch(chosen, total, offset, on_page, descending=descending)
            offset, many = max(0, offset - total), many - on_page

    def _stretch(
        self, chosen: Plan, total: int, offset: int, many: int, *, descending: bool
    ) -> Iterable[int]:
        """Ids of a plan; read from the nearer end, so that the last page costs as little as the first."""
        following = total - offset - many
        backwards = following < offset
        text, values = chosen.ids(descending=descending is not backwards)
        rows = self._execute(f"{text} LIMIT ? OFFSET ?", (*values, many, following if backwards else offset))
        ids = [row for (row,) in rows]
        return reversed(ids) if backwards else ids

    # --- stream (C-FIND) ---

    def first(self, query: Query, many: int) -> tuple[Plan, array[int] | Chunk]:
        """Start a stream: the plan, and the first chunk or (if gathered or to be tested) the ids of all candidates."""
        with self.snapshot():
            chosen = self.planned(query, "start")
            if chosen.exact and not chosen.gather:
                return chosen, self._next(chosen, None, many)
            return chosen, self._ids(chosen.ids())

    def next(self, chosen: Plan, position: Position, many: int) -> Chunk:
        """The chunk after a position."""
        with self.snapshot():
            return self._next(chosen, position, many)

    def _next(self, chosen: Plan, position: Position | None, many: int) -> Chunk:
        text, values = chosen.after(position)
        positions: list[Position] = self._execute(f"{text} LIMIT ?", (*values, many)).fetchall()
        matches = list(self._attributes(row for _, _, row in positions))
        return Chunk(matches, positions[-1] if len(positions) == many else None)

    def fitting(self, query: Query, ids: Sequence[int]) -> list[DataSet]:
        """The attributes of those candidates that match now."""
        with self.snapshot():
            return [attributes for _, attributes in self._fitting(query, ids)]

    # --- numbers, counts and events ---

    def numbers(self, query: Query) -> list[int]:
        """Creation numbers of all matches, ascending."""
        with self.snapshot():
            chosen = self.planned(query, "created")
            text, values = chosen.ids()
            if chosen.exact:
                rows = self._execute(text.replace("SELECT d.id", "SELECT d.created", 1), values)
                return [number for (number,) in rows]
            ids = self._ids(Sql(text, values))
            created = "SELECT created FROM workitem WHERE id = ?"
            return [self._number(Sql(created, (row,))) for row, _ in self._fitting(query, ids)]

    def counts(self) -> Counts:
        """The number of workitems per worklist and state."""
        rows = self._execute("SELECT worklist, state, COUNT(*) FROM workitem GROUP BY worklist, state")
        by_worklist: dict[str, dict[str, int]] = {}
        for worklist, rank, number in rows:
            by_worklist.setdefault(worklist, {})[_STATES.get(rank, "")] = number
        return Counts(by_worklist)

    def tally(self, query: Query, words: Sequence[str], also: Sequence[Column | Ids]) -> dict[str, int]:
        """The number of matches per state."""
        with self.snapshot():
            chosen = self.planned(query, "start", words, also)
            if chosen.exact:
                rows = self._execute(
                    f"SELECT d.state, COUNT(*) {chosen.source} GROUP BY d.state", chosen.values
                )
                return {_STATES.get(rank, ""): number for rank, number in rows}
            states = (
                text(content, tags.STATE) for _, content in self._fitting(query, self._ids(chosen.ids()))
            )
            return dict(Counter(states))

    def read(self, sql: Sql) -> list[tuple[object, ...]]:
        """The rows of a statement."""
        return self._execute(sql.text, sql.values).fetchall()

    def events(self, after: int, limit: int, receiver: str | None) -> list[Event]:
        """Logged events with a sequence greater than ``after``; only those of a receiver if it is not None."""
        if receiver is None:
            return self._events("sequence > ?", (after,), limit)
        return self._events("sequence > ? AND instr(receivers, ?)", (after, f"\\{receiver}\\"), limit)

    def events_of(self, uid: str, limit: int) -> list[Event]:
        """The last logged events of a workitem, oldest first."""
        return self._events("uid = ?", (uid,), limit, "DESC")[::-1]

    def _events(self, where: str, values: tuple[object, ...], limit: int, direction: str = "") -> list[Event]:
        rows = self._execute(
            "SELECT sequence, type, uid, information, receivers, at FROM event "  # noqa: S608
            f"WHERE {where} ORDER BY sequence {direction} LIMIT ?",
            (*values, limit),
        )
        return [_event(*row) for row in rows]

    # --- helpers ---

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Everything in the block reads the same state."""
        self._execute("BEGIN")
        try:
            yield
        finally:
            self.connection.rollback()

    def _number(self, sql: Sql) -> int:
        first = self._execute(sql.text, sql.values).fetchone()
        return int(first[0])

    def _ids(self, sql: Sql) -> array[int]:
        return array("q", (row for (row,) in self._execute(sql.text, sql.values)))

    def _attributes(self, ids: Iterable[int]) -> Iterator[tuple[int, DataSet]]:
        return ((row, attributes_of(document)) for row, document in self._documents(ids))

    def _documents(self, ids: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """The documents of those workitems that still exist. Raises ``sqlite3.OperationalError`` when stopping."""
        for row in ids:
            if self._stopping.is_set():
                raise sqlite3.OperationalError("interrupted")
            document = self._execute("SELECT document FROM body WHERE id = ?", (row,)).fetchone()
            if document is not None:
                yield row, unpacked(document[0])

    def _fitting(self, query: Query, ids: Iterable[int]) -> Iterator[tuple[int, DataSet]]:
        return ((row, attributes) for row, attributes in self._attributes(ids) if query.matches(attributes))


_STATES: Final = {rank: name for name, rank in RANKS["00741000"].items()}


def _event(sequence: int, kind: int, uid: str, information: bytes, receivers: str, at: float) -> Event:
    titles = tuple(name for name in receivers.split("\\") if name)
    return Event(sequence, EventType(kind), uid, orjson.loads(information), titles, at)


# --- worker threads ---

_THREADS: Final = 2
WAITING_SEARCHES: Final = 500
_REMEMBERED: Final = 16
_Key: TypeAlias = tuple[str, str, tuple[str, ...], tuple[Column | Ids, ...]]


class Searches:
    """Runs queries in a few threads. The methods must be called on the event loop."""

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        local: Zone,
        failed: Callable[[Exception], ProjectionBroken],
        catch_up: Callable[[], None],
    ) -> None:
        """Args:
        connect: opens a connection to the file.
        local: the zone of the projection.
        failed: called on the loop when a query fails because of the file; returns the exception to raise.
        catch_up: called in the thread before each query to write the changes that were handed over.
        """
        self._connect = connect
        self._catch_up = catch_up
        self._local = local
        self._file_failed = failed
        self._executor = ThreadPoolExecutor(_THREADS, "ups-search")
        self._idle: queue.LifoQueue[Reader] = queue.LifoQueue()
        self._stopping = threading.Event()
        self._waiting = 0
        self._generation = 0
        self._matched: OrderedDict[_Key, tuple[int, Matched]] = OrderedDict()

    @property
    def generation(self) -> int:
        """Grows with each write."""
        return self._generation

    @property
    def waiting(self) -> int:
        """The number of queries running or waiting for a thread."""
        return self._waiting

    def outdated(self) -> None:
        """Forget remembered matches, because something was written."""
        self._generation += 1

    def close(self) -> None:
        """End running queries and close the connections."""
        self._stopping.set()
        self._executor.shutdown(wait=True, cancel_futures=True)
        while not self._idle.empty():
            self._idle.get().connection.close()

    # --- queries ---

    async def search(
        self,
        query: Query,
        offset: int,
        limit: int | None,
        order: str,
        words: tuple[str, ...],
        form: Callable[[bytes], _T],
        also: tuple[Column | Ids, ...] = (),
    ) -> tuple[tuple[_T, ...], int]:
        """A page, with the result of ``form`` for the document of each match, and the number of all matches."""
        name, descending = _direction(order)
        key = query.identity, order, words, also
        generation, remembered = self._generation, self._remembered(key)

        def work(reader: Reader) -> tuple[Matched, list[_T]]:
            matched = remembered or reader.matched(query, name, descending=descending, words=words, also=also)
            return matched, reader.page(matched, offset, limit, form, descending=descending)

        matched, page = await self.run(work)
        self._remember(key, generation, matched)
        return tuple(page), matched.total

    def _remembered(self, key: _Key) -> Matched | None:
        generation, matched = self._matched.get(key, (-1, None))
        return matched if generation == self._generation else None

    def _remember(self, key: _Key, generation: int, matched: Matched) -> None:
        self._matched[key] = generation, matched
        self._matched.move_to_end(key)
        if len(self._matched) > _REMEMBERED:
            self._matched.popitem(last=False)

    async def walk(
        self,
        query: Query,
        order: str,
        words: tuple[str, ...],
        form: Callable[[bytes], _T],
        also: tuple[Column | Ids, ...],
        part: range,
        many: int,
    ) -> tuple[AsyncIterator[list[_T]], int]:
        """The results of ``form`` for the current matches, ``many`` at a time, and the number of all matches.

        Only matches at the positions in ``part`` are returned, without those deleted meanwhile.
        """
        name, descending = _direction(order)
        matched = await self.run(
            lambda reader: reader.matched(
                query, name, descending=descending, words=words, also=also, gather=True
            )
        )
        return self._walked(matched, part, many, form), matched.total

    async def _walked(
        self, matched: Matched, part: range, many: int, form: Callable[[bytes], _T]
    ) -> AsyncIterator[list[_T]]:
        for offset in range(part.start, min(part.stop, matched.total), many):
            yield await self.run(_page(matched, offset, min(many, part.stop - offset), form))

    async def stream(self, query: Query, many: int) -> AsyncIterator[list[DataSet]]:
        """All matches in the order of start, in chunks of at most ``many``."""
        plan, start = await self.run(lambda reader: reader.first(query, many))
        if isinstance(start, Chunk):
            async for matches in self._chunks(plan, start, many):
                yield matches
        else:
            async for matches in self._candidates(query, start, many if plan.exact else TESTED_AT_ONCE):
                for offset in range(0, len(matches), many):
                    yield matches[offset : offset + many]

    async def _chunks(self, plan: Plan, chunk: Chunk, many: int) -> AsyncIterator[list[DataSet]]:
        """Yield each match once, even if its start was moved meanwhile and it is read again."""
        yielded: set[int] = set()
        while True:
            fresh = [attributes for row, attributes in chunk.matches if row not in yielded]
            yielded.update(row for row, _ in chunk.matches)
            if fresh:
                yield fresh
            position = chunk.position
            if position is None:
                return
            chunk = await self.run(partial(Reader.next, chosen=plan, position=position, many=many))

    async def _candidates(self, query: Query, ids: array[int], many: int) -> AsyncIterator[list[DataSet]]:
        for offset in range(0, len(ids), many):
            yield await self.run(partial(Reader.fitting, query=query, ids=ids[offset : offset + many]))

    # --- threads ---

    async def run(self, work: Callable[[Reader], _T]) -> _T:
        """Run a query in a thread. Raises ProjectionBroken, or UpsError if too many wait or it is too complex."""
        if self._waiting >= WAITING_SEARCHES:
            raise UpsError(OUT_OF_RESOURCES, "too many searches at once; try again in a moment")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, self._with_reader, work)
        except (sqlite3.Error, UnreadableDocument, ProjectionBroken, RuntimeError) as error:
            raise self._failed(error) from error
        finally:
            self._waiting -= 1

    def _failed(self, error: Exception) -> Exception:
        if self._stopping.is_set():
            return ProjectionBroken("it is closed")
        if _is_too_complex(error):
            return UpsError(OUT_OF_RESOURCES, f"the query is too complex: {error}")
        return error if isinstance(error, RuntimeError) else self._file_failed(error)

    def _with_reader(self, work: Callable[[Reader], _T]) -> _T:
        self._catch_up()
        try:
            reader = self._idle.get_nowait()
        except queue.Empty:
            reader = Reader(self._connect(), self._local, self._stopping)
        try:
            return work(reader)
        finally:
            self._idle.put(reader)


def _page(
    matched: Matched, offset: int, limit: int, form: Callable[[bytes], _T]
) -> Callable[[Reader], list[_T]]:
    """A query for a page of gathered matches, which are already in order."""
    return lambda reader: reader.page(matched, offset, limit, form, descending=False)


def _direction(order: str) -> tuple[str, bool]:
    """The order without its sign, and whether it is descending. Raises ValueError for an unknown order."""
    name, descending = order.removeprefix("-"), order.startswith("-")
    if name not in ORDERS:
        raise ValueError(f"{order!r} is not an order; expected one of {', '.join(ORDERS)}")
    return name, descending


def _is_too_complex(error: Exception) -> bool:
    """True if SQLite refused the statement itself rather than failed to read the file."""
    code = getattr(error, "sqlite_errorcode", None)
    return code in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_TOOBIG) and "no such" not in str(error)
