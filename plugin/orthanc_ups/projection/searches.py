# SPDX-License-Identifier: AGPL-3.0-or-later
"""Searches off the event loop: worker threads, their connections, and what paging need not find out again."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from array import array
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeAlias, TypeVar

from ..core.dataset import DataSet
from ..core.date_times import Zone
from ..core.matching import Query
from ..core.statuses import OUT_OF_RESOURCES, UpsError
from ..store.document import UnreadableDocument
from .file import ProjectionBroken
from .plan import ORDERS, Plan
from .reads import Chunk, Matched, Reader

_T = TypeVar("_T")
_THREADS: Final = 2
_WAITING: Final = 500
_REMEMBERED: Final = 16
_TESTED_AT_ONCE: Final = 500
_Key: TypeAlias = tuple[str, str, tuple[str, ...]]


class Searches:
    """Runs queries in a bounded number of threads. Its methods are called on the event loop."""

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        local: Zone,
        broke: Callable[[object], ProjectionBroken],
    ) -> None:
        self._connect = connect
        self._local = local
        self._broke = broke
        self._executor = ThreadPoolExecutor(_THREADS, "ups-search")
        self._idle: queue.LifoQueue[Reader] = queue.LifoQueue()
        self._stopping = threading.Event()
        self._waiting = 0
        self._generation = 0
        self._matched: OrderedDict[_Key, tuple[int, Matched]] = OrderedDict()

    def outdated(self) -> None:
        """Something was written: what is known of matches is not true any more."""
        self._generation += 1

    def close(self) -> None:
        """End what is running and close the connections."""
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
    ) -> tuple[tuple[_T, ...], int]:
        """One page, of each match what ``form`` makes of its document, and the number of all matches."""
        name, descending = order.removeprefix("-"), order.startswith("-")
        if name not in ORDERS:
            raise ValueError(f"{order!r} is no order; expected one of {', '.join(ORDERS)}")
        key = query.identity, order, words
        generation, known = self._generation, self._known(key)

        def work(reader: Reader) -> tuple[Matched, list[_T]]:
            matched = known or reader.matched(query, name, descending=descending, words=words)
            return matched, reader.page(matched, offset, limit, form, descending=descending)

        matched, found = await self.run(work)
        self._remember(key, generation, matched)
        return tuple(found), matched.total

    def _known(self, key: _Key) -> Matched | None:
        generation, matched = self._matched.get(key, (-1, None))
        return matched if generation == self._generation else None

    def _remember(self, key: _Key, generation: int, matched: Matched) -> None:
        self._matched[key] = generation, matched
        self._matched.move_to_end(key)
        if len(self._matched) > _REMEMBERED:
            self._matched.popitem(last=False)

    async def stream(self, query: Query, many: int) -> AsyncIterator[list[DataSet]]:
        """All matches in the order of start, in chunks of at most ``many``."""
        plan, start = await self.run(lambda reader: reader.first(query, many))
        if isinstance(start, Chunk):
            async for found in self._chunks(plan, start, many):
                yield found
        else:
            async for found in self._candidates(query, start, many if plan.exact else _TESTED_AT_ONCE):
                for at in range(0, len(found), many):
                    yield found[at : at + many]

    async def _chunks(self, plan: Plan, chunk: Chunk, many: int) -> AsyncIterator[list[DataSet]]:
        """A workitem whose start was moved ahead meanwhile is met again, but told once."""
        told: set[int] = set()
        while True:
            fresh = [found for row, found in chunk.found if row not in told]
            told.update(row for row, _ in chunk.found)
            if fresh:
                yield fresh
            place = chunk.place
            if place is None:
                return
            chunk = await self._next(plan, place, many)

    async def _next(self, plan: Plan, place: tuple[int, int, int], many: int) -> Chunk:
        return await self.run(lambda reader: reader.next(plan, place, many))

    async def _candidates(self, query: Query, ids: array[int], many: int) -> AsyncIterator[list[DataSet]]:
        for at in range(0, len(ids), many):
            yield await self._fitting(query, ids[at : at + many])

    async def _fitting(self, query: Query, ids: array[int]) -> list[DataSet]:
        return await self.run(lambda reader: reader.fitting(query, ids))

    # --- threads ---

    async def run(self, work: Callable[[Reader], _T]) -> _T:
        """Let a thread do some reading. Raises ProjectionBroken, or UpsError if too many wait already."""
        if self._waiting >= _WAITING:
            raise UpsError(OUT_OF_RESOURCES, "too many searches at once; try again in a moment")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, self._with_reader, work)
        except (sqlite3.Error, UnreadableDocument, RuntimeError) as error:
            raise self._failed(error) from error
        finally:
            self._waiting -= 1

    def _failed(self, error: Exception) -> Exception:
        if self._stopping.is_set():
            return ProjectionBroken("it is closed")
        if _is_too_complex(error):
            return UpsError(OUT_OF_RESOURCES, f"the query is too complex: {error}")
        return error if isinstance(error, RuntimeError) else self._broke(error)

    def _with_reader(self, work: Callable[[Reader], _T]) -> _T:
        try:
            reader = self._idle.get_nowait()
        except queue.Empty:
            reader = Reader(self._connect(), self._local, self._stopping)
        try:
            return work(reader)
        finally:
            self._idle.put(reader)


def _is_too_complex(error: Exception) -> bool:
    """True if SQLite refused the statement itself; the file is not to blame then."""
    code = getattr(error, "sqlite_errorcode", None)
    return code in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_TOOBIG) and "no such" not in str(error)
