# SPDX-License-Identifier: AGPL-3.0-or-later
"""The worklist as a list: pages, CSV, counts and changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from ..core.lateness import LatePolicy
from ..core.states import State
from ..core.workitem import Workitem
from ..dicomweb.response import WebResponse
from . import answers, bodies, views
from .csv_export import BYTE_ORDER_MARK, HEADINGS, cells_of, line_of
from .ports import Inspection, Listing, ManagementClock
from .queries import listing
from .routing import CSV, Call, Route, decode_query

_MAXIMUM_CHANGES: Final = 200


class Lists:
    """Handlers that read many workitems."""

    def __init__(self, inspection: Inspection, clock: ManagementClock, late: LatePolicy) -> None:
        self._inspection = inspection
        self._clock = clock
        self._late = late

    def routes(self) -> tuple[Route, ...]:
        """Routes of lists of workitems, and of their changes, counts and names."""
        return (
            Route("GET", "/workitems", self.page),
            Route("GET", "/workitems.csv", self.csv, answer_type=CSV),
            Route("POST", "/workitems.csv", self.csv_of_long_list, answer_type=CSV),
            Route("GET", "/changes", self.changes),
            Route("GET", "/counts", self.counts),
            Route("GET", "/names", self.names),
        )

    async def page(self, call: Call, query: bodies.PageQuery) -> answers.PageJson:
        """One page of the worklist, and the total number of matches."""
        requested = self._listing(call, query.offset, query.limit)
        workitems, total = await self._inspection.page(requested)
        return {"total": total, "offset": query.offset, "workitems": self._rows(workitems)}

    def _listing(self, call: Call, offset: int, limit: int) -> Listing:
        return listing(call.query, self._clock.now(), self._late, offset, limit)

    def _rows(self, workitems: Sequence[Workitem]) -> list[answers.Row]:
        now = self._clock.now()
        return [
            views.row(workitem, now.tzinfo, views.late(workitem, self._late, now)) for workitem in workitems
        ]

    async def names(self, call: Call, query: bodies.NamesQuery) -> answers.Names:
        """Suggestions for a filter: names, how often each occurs, and the key that finds it."""
        names = await self._inspection.names(query.of)
        return {"names": [views.name_in_use(query.of, *entry) for entry in names]}

    async def counts(self, call: Call) -> answers.CountsJson:
        """Number of workitems by state and by worklist, and number of matches of the list's parameters."""
        by_state = {state.value: 0 for state in State}
        by_worklist: dict[str, dict[str, int]] = {}
        for label, state, count in await self._inspection.counts():
            by_state[state] = by_state.get(state, 0) + count
            by_worklist.setdefault(label, {})[state] = count
        worklists: list[answers.WorklistCounts] = [
            {"worklist": label, "states": states} for label, states in sorted(by_worklist.items())
        ]
        keys = {
            name: value for name, value in call.query.items() if name not in ("ProcedureStepState", "late")
        }
        late_keys = {**keys, "late": call.query.get("late") or "yes"}
        is_narrowed = any(
            value.strip() for name, value in keys.items() if name not in ("order", "offset", "limit")
        )
        tallies = [self._tally(call, late_keys), *([self._tally(call, keys)] if is_narrowed else [])]
        late, *matches = await asyncio.gather(*tallies)
        return {
            "states": by_state,
            "worklists": worklists,
            "matches": matches[0] if matches else by_state,
            "late": sum(late.values()),
        }

    async def _tally(self, call: Call, query: Mapping[str, str]) -> dict[str, int]:
        tally = await self._inspection.tally(self._listing(replace(call, query=query), 0, 1))
        return {state.value: tally.get(state.value, 0) for state in State}

    async def csv(self, call: Call, query: bodies.CsvQuery) -> WebResponse:
        """All matches as CSV (RFC 4180, UTF-8 with a byte order mark) at the moment of the request, as a stream.

        The header `X-UPS-Total` has the number of matches, and `X-UPS-Lines` the number of lines that follow the
        headings, each of which ends in CR LF. Fewer lines mean that the download was cut off, or that workitems were
        deleted during it.
        """
        lines, total = await self._inspection.walk(
            self._listing(call, query.offset, query.limit), self._line()
        )
        headers = (
            ("Content-Disposition", 'attachment; filename="workitems.csv"'),
            ("Cache-Control", "no-store"),
            ("X-UPS-Total", str(total)),
            ("X-UPS-Lines", str(max(0, min(query.limit, total - query.offset)))),
        )
        return WebResponse(200, headers, content_type=f"{CSV}; charset=utf-8", pieces=_file(lines))

    def _line(self) -> Callable[[Workitem], bytes]:
        """The function that converts a workitem to a line, in any thread."""
        now, policy = self._clock.now(), self._late
        return lambda workitem: line_of(
            cells_of(views.row(workitem, now.tzinfo, views.late(workitem, policy, now)))
        )

    async def csv_of_long_list(self, call: Call, body: bodies.CsvOfList) -> WebResponse:
        """All matches as CSV, for keys that are too long for a URL."""
        call = replace(call, query={**call.query, **{name: str(text) for name, text in body.query.items()}})
        return await self.csv(call, decode_query(bodies.CsvQuery, call.query))

    async def changes(self, call: Call, query: bodies.ChangesQuery) -> answers.ChangesJson:
        """Workitems that changed since a number. Answers at once; poll it every few seconds."""
        changes = self._inspection.changes(query.since)
        complete = changes.complete and len(changes.uids) <= _MAXIMUM_CHANGES
        return {
            "number": changes.number,
            "uids": list(changes.uids[-_MAXIMUM_CHANGES:]),
            "complete": complete,
        }


async def _file(lines: AsyncIterator[list[bytes]]) -> AsyncGenerator[bytes]:
    """A CSV file in pieces."""
    yield BYTE_ORDER_MARK + line_of(HEADINGS)
    async for chunk in lines:
        if chunk:
            yield b"".join(chunk)
