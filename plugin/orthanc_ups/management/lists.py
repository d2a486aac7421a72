# SPDX-License-Identifier: AGPL-3.0-or-later
"""The worklist as a list: pages, CSV, what changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import tzinfo
from typing import Final

from ..core.workitem import Workitem
from ..dicomweb.response import WebResponse
from . import answers, bodies, views
from .csv_export import csv_of
from .ports import Inspection, Listing
from .queries import listing
from .routing import CSV, Call, Route, decode_query

_AT_ONCE: Final = 500
_MOST_NAMED: Final = 200


class Lists:
    """Handlers that read many workitems."""

    def __init__(self, inspection: Inspection, local: Callable[[], tzinfo | None]) -> None:
        self._inspection = inspection
        self._local = local

    def routes(self) -> tuple[Route, ...]:
        """What is offered."""
        return (
            Route("GET", "/workitems", self.page),
            Route("GET", "/workitems.csv", self.csv, answer_type=CSV),
            Route("POST", "/workitems.csv", self.csv_of_long_list, answer_type=CSV),
            Route("GET", "/changes", self.changes),
        )

    async def page(self, call: Call, query: bodies.PageQuery) -> answers.PageJson:
        """One page of the worklist, and how many matches there are in all."""
        requested = listing(call.query, self._local(), query.offset, query.limit)
        workitems, total = await self._inspection.page(requested)
        return {"total": total, "offset": query.offset, "workitems": self._rows(workitems)}

    def _rows(self, workitems: Sequence[Workitem]) -> list[answers.Row]:
        local = self._local()
        return [views.row(workitem, local) for workitem in workitems]

    async def csv(self, call: Call, query: bodies.CsvQuery) -> WebResponse:
        """All matches as CSV (RFC 4180, UTF-8 with a byte order mark).

        The header `X-UPS-Total` says how many matches there are. Orthanc waits half a minute at most: whoever
        wants very many asks for them in lots.
        """
        requested = listing(call.query, self._local(), query.offset, min(query.limit, _AT_ONCE))
        rows, total = await self._all(requested, query.limit)
        headers = (
            ("Content-Disposition", 'attachment; filename="workitems.csv"'),
            ("Cache-Control", "no-store"),
            ("X-UPS-Total", str(total)),
        )
        return WebResponse(200, headers, csv_of(rows), f"{CSV}; charset=utf-8")

    async def csv_of_long_list(self, call: Call, body: bodies.CsvOfList) -> WebResponse:
        """All matches as CSV, for a list of keys that fits no address."""
        call = replace(call, query={**call.query, **{name: str(text) for name, text in body.query.items()}})
        return await self.csv(call, decode_query(bodies.CsvQuery, call.query))

    async def _all(self, requested: Listing, maximum: int) -> tuple[list[answers.Row], int]:
        """Page by page, so that others get their turn in between."""
        rows: list[answers.Row] = []
        while True:
            limit = min(_AT_ONCE, maximum - len(rows))
            page = replace(requested, offset=requested.offset + len(rows), limit=limit)
            workitems, total = await self._inspection.page(page)
            rows += self._rows(workitems)
            if not workitems or len(rows) >= min(maximum, total - requested.offset):
                return rows, total
            await asyncio.sleep(0)

    async def changes(self, call: Call, query: bodies.ChangesQuery) -> answers.ChangesJson:
        """What changed since a number. Answers at once; ask every few seconds."""
        changes = self._inspection.changes(query.since)
        complete = changes.complete and len(changes.uids) <= _MOST_NAMED
        return {"number": changes.number, "uids": list(changes.uids[-_MOST_NAMED:]), "complete": complete}
