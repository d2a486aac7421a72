# SPDX-License-Identifier: AGPL-3.0-or-later
"""The worklist as a list: pages, CSV, what changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import tzinfo
from typing import Any, Final

from ..core.workitem import Workitem
from ..dicomweb.response import HttpProblem, WebResponse
from . import views
from .csv_export import csv_of
from .ports import Inspection, Listing
from .queries import GREATEST_PAGE, listing
from .routing import Call, Route

_USUAL_PAGE: Final = 50
_MOST_ROWS: Final = 100_000
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
            Route("GET", "/workitems.csv", self.csv),
            Route("POST", "/workitems.csv", self.csv),
            Route("GET", "/changes", self.changes),
        )

    async def page(self, call: Call) -> dict[str, Any]:
        """One page of rows, and how many there are in all."""
        offset = call.asked_number("offset", 0, 0, 10**9)
        limit = call.asked_number("limit", _USUAL_PAGE, 1, GREATEST_PAGE)
        asked = listing(call.query, self._local(), offset, limit)
        workitems, total = await self._inspection.page(asked)
        return {"total": total, "offset": offset, "workitems": self._rows(workitems)}

    def _rows(self, workitems: Sequence[Workitem]) -> list[dict[str, Any]]:
        local = self._local()
        return [views.row(workitem, local) for workitem in workitems]

    async def csv(self, call: Call) -> WebResponse:
        """Matches from ``offset`` on as a file, at most ``limit``; the header X-UPS-Total says how many there are.

        Orthanc waits half a minute at most: whoever wants very many asks for them in lots. A long list of keys
        fits the body of a POST only.
        """
        asked = {str(name): str(value) for name, value in call.object("query").items()}
        call = replace(call, query={**call.query, **asked})
        offset = call.asked_number("offset", 0, 0, 10**9)
        limit = call.asked_number("limit", _MOST_ROWS, 1, _MOST_ROWS)
        rows, total = await self._all(listing(call.query, self._local(), offset, min(limit, _AT_ONCE)), limit)
        headers = (
            ("Content-Disposition", 'attachment; filename="workitems.csv"'),
            ("Cache-Control", "no-store"),
            ("X-UPS-Total", str(total)),
        )
        return WebResponse(200, headers, csv_of(rows), "text/csv; charset=utf-8")

    async def _all(self, asked: Listing, maximum: int) -> tuple[list[dict[str, Any]], int]:
        """Page by page, so that others get their turn in between."""
        rows: list[dict[str, Any]] = []
        while True:
            limit = min(_AT_ONCE, maximum - len(rows))
            page = replace(asked, offset=asked.offset + len(rows), limit=limit)
            workitems, total = await self._inspection.page(page)
            rows += self._rows(workitems)
            if not workitems or len(rows) >= min(maximum, total - asked.offset):
                return rows, total
            await asyncio.sleep(0)

    async def changes(self, call: Call) -> dict[str, Any]:
        """What changed since a number; answers at once."""
        since = call.query.get("since", "")
        if not since.isascii() or not since.isdigit():
            raise HttpProblem(400, '"since" must be a number of an earlier answer, or 0')
        changes = self._inspection.changes(int(since[:18]))
        complete = changes.complete and len(changes.uids) <= _MOST_NAMED
        return {"number": changes.number, "uids": changes.uids[-_MOST_NAMED:], "complete": complete}
