# SPDX-License-Identifier: AGPL-3.0-or-later
"""Answers worklist queries from the workitems, as data sets."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Final, cast

from ..core import tags
from ..core.dataset import DataSet, text
from ..core.date_times import Zone
from ..core.matching import Query
from ..core.states import State
from ..core.workitem import Workitem
from ..settings import ModalityWorklist
from ..worklist.workitem_store import WorkitemStore
from .scheduled_steps import answers_of
from .stations import Stations
from .worklist_query import WorklistQuery

_WITHIN: Final = 15.0  # seconds


@dataclass(frozen=True, slots=True)
class WorklistAnswers:
    """The result of a worklist query.

    Attributes:
        answers: with the requested attributes.
        reason: why some answers are missing, "" if none are.
    """

    answers: Sequence[DataSet]
    reason: str = ""


class ModalityWorklists:
    """Finds scheduled steps; used on the loop only."""

    def __init__(
        self,
        settings: ModalityWorklist,
        workitems: WorkitemStore,
        stations: Stations,
        local: Zone,
        counters: Counter[str] | None = None,
    ) -> None:
        """``local`` is the zone of dates and times without offset."""
        self._settings = settings
        self._workitems = workitems
        self._stations = stations
        self._local = local
        self._counters = Counter() if counters is None else counters

    async def find(self, identifier: DataSet) -> WorklistAnswers:
        """The answers to a query.

        Raises:
            UnusableKey: a key has a value that its attribute cannot have.
            UpsError: the worklist cannot be read now.
        """
        self._counters["worklist_queries"] += 1
        result = await self._search(WorklistQuery(identifier, self._stations, self._local))
        self._counters["worklist_answers"] += len(result.answers)
        return result

    async def _search(self, query: WorklistQuery) -> WorklistAnswers:
        answers: list[DataSet] = []
        answered: set[str] = set()
        maximum = self._settings.maximum_answers
        try:
            async with asyncio.timeout(_WITHIN), contextlib.aclosing(self._candidates(query)) as candidates:
                async for uid in candidates:
                    if uid not in answered and len(answers) <= maximum:
                        answered.add(uid)
                        answers += self._answers(query, uid)
                    if len(answers) > maximum:
                        break
        except TimeoutError:
            return WorklistAnswers(answers, f"the search took more than {_WITHIN:g} s")
        if len(answers) > maximum:
            return WorklistAnswers(answers[:maximum], f"there are more than {maximum} (MaximumAnswers)")
        return WorklistAnswers(answers)

    def _answers(self, query: WorklistQuery, uid: str) -> list[DataSet]:
        stored = self._workitems.get(uid)
        if stored is None or not self._is_shown(stored.workitem):
            return []
        fitting = self._fitting(query, stored.workitem.attributes, stored.workitem.created)
        return [query.select(answer) for answer in fitting]

    def _fitting(self, query: WorklistQuery, attributes: DataSet, created: int) -> list[DataSet]:
        answers = answers_of(attributes, created, self._stations, self._local)
        return [answer for answer in map(query.completed, answers) if query.matches(answer)]

    async def _candidates(self, query: WorklistQuery) -> AsyncGenerator[str, None]:
        """UIDs of workitems that may match, possibly repeated."""
        async with contextlib.aclosing(self._numbered(query)) as numbered:
            async for uid in numbered:
                yield uid
        for candidates in query.candidates(in_progress=self._settings.show_in_progress):
            async with contextlib.aclosing(self._stream(candidates)) as chunks:
                async for chunk in chunks:
                    for uid in await asyncio.to_thread(self._tested, query, chunk):
                        yield uid

    async def _numbered(self, query: WorklistQuery) -> AsyncGenerator[str, None]:
        """UIDs of workitems whose Scheduled Procedure Step ID matches, if the query has such a key."""
        identifiers = query.identifiers
        if identifiers is None:
            return
        numbers = set(identifiers.numbers)
        if identifiers.patterns:
            candidates = query.numbered(in_progress=self._settings.show_in_progress)
            numbers.update(filter(identifiers.fit, await self._workitems.numbers(candidates)))
        for number in sorted(numbers):
            for workitem in self._workitems.created(number - 1, number, 1):
                yield workitem.uid
            await asyncio.sleep(0)

    def _tested(self, query: WorklistQuery, chunk: list[DataSet]) -> list[str]:
        """UIDs of those workitems in a chunk that match. Runs in a thread, to leave the loop to others."""
        return [
            text(attributes, tags.SOP_INSTANCE_UID)
            for attributes in chunk
            if self._fitting(query, attributes, 0)
        ]

    def _stream(self, query: Query) -> AsyncGenerator[list[DataSet], None]:
        return cast("AsyncGenerator[list[DataSet], None]", self._workitems.stream_whole(query))

    def _is_shown(self, workitem: Workitem) -> bool:
        states = (
            (State.SCHEDULED, State.IN_PROGRESS) if self._settings.show_in_progress else (State.SCHEDULED,)
        )
        return workitem.state in states
