# SPDX-License-Identifier: AGPL-3.0-or-later
"""Export and import of the whole worklist as lines of JSON, page by page.

Orthanc sends an answer in one piece, so an export is divided into pages: each GET returns at most some thousand lines,
and the last one says where to continue. A page fits into one POST of an import.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Annotated, Final

from msgspec import Meta, Struct

from ..core.commands import Requester
from ..core.statuses import UpsError
from ..dicomweb.response import HttpProblem, WebResponse
from ..management.answers import ImportedLines, ImportState
from ..management.routing import JSON_LINES, Call, Route, json_response
from ..store.port import StoreUnavailable
from .exporter import Exporter, Position
from .importer import KINDS, MAXIMUM_LISTED, ImportNotStarted, ImportReport, ImportSession
from .lines import NotALine, decode, encode, next_page
from .records import ImportOutcome, Tail

_log = logging.getLogger("orthanc_ups.management")
PAGE_BYTES: Final = 4 * 1024 * 1024


async def export(exporter: Exporter) -> AsyncIterator[bytes]:
    """Every line of an export. Raises UpsError while the search index is being rebuilt."""
    async for record, _ in exporter.records():
        yield encode(record)


async def export_page(exporter: Exporter, after: Position | None, limit: int) -> bytes:
    """The lines after a position: at most ``limit`` records and about ``PAGE_BYTES``, but at least one."""
    lines: list[bytes] = []
    size, last = 0, after
    async for record, position in exporter.records(after):
        line = encode(record)
        if lines and (len(lines) >= limit or size + len(line) > PAGE_BYTES) and not isinstance(record, Tail):
            lines.append(next_page(str(last)))
            break
        lines.append(line)
        size, last = size + len(line), position
    return b"".join(lines)


class ImportStopped(Exception):
    """A line could not be imported. The lines before it were, and it can be sent again.

    Attributes:
        number: of the line within its request, from 1.
        status: HTTP status.
    """

    def __init__(self, number: int, status: int, why: str) -> None:
        super().__init__(f"line {number}: {why}")
        self.number = number
        self.status = status


class Importer:
    """Imports the lines of one request at a time, in the order of the export."""

    def __init__(self, import_session: ImportSession) -> None:
        self._session = import_session
        self._lock = asyncio.Lock()

    @property
    def report(self) -> ImportReport:
        """Progress and results of the current or last import."""
        return self._session.report

    async def feed(self, lines: bytes, requester: Requester) -> int:
        """Import whole lines, and return their number. Raises ImportStopped."""
        imported = 0
        async with self._lock:
            for number, line in enumerate(lines.split(b"\n"), 1):
                if line.strip():
                    await self._import_line(number, line, requester)
                    imported += 1
        return imported

    async def _import_line(self, number: int, line: bytes, requester: Requester) -> None:
        try:
            record = decode(line)
            if record is not None:
                await self._session.import_record(record, requester)
        except NotALine as error:
            raise ImportStopped(number, 400, str(error)) from error
        except ImportNotStarted as error:
            raise ImportStopped(number, 409, str(error)) from error
        except UpsError as error:
            raise ImportStopped(number, 503, error.detail) from error
        except StoreUnavailable as error:
            raise ImportStopped(number, 503, f"Orthanc cannot store it now: {error}") from error


class ExportQuery(Struct):
    """Which lines of an export to return."""

    after: Annotated[str, Meta(description="Where to continue: from the last line of the previous page.")] = (
        ""
    )
    limit: Annotated[int, Meta(ge=1, le=5_000, description="Maximum number of lines.")] = 500


class Transfer:
    """Handlers of ``/ups/api/export`` and ``/ups/api/import``."""

    def __init__(self, exporter: Exporter, import_session: ImportSession) -> None:
        self._exporter = exporter
        self._importer = Importer(import_session)

    def routes(self) -> tuple[Route, ...]:
        """Routes of export and import."""
        return (
            Route("GET", "/export", self.export, answer_type=JSON_LINES),
            Route("GET", "/import", self.progress),
            Route("POST", "/import", self.take, JSON_LINES),
        )

    async def export(self, call: Call, query: ExportQuery) -> WebResponse:
        """One page of the whole worklist as lines of JSON. If there is more, the last line says where to continue."""
        try:
            after = Position.parse(query.after) if query.after else None
        except ValueError as error:
            raise HttpProblem(400, f'"after" is {error}; use that of the last line of a page') from None
        lines = await export_page(self._exporter, after, query.limit)
        if after is None:
            _log.warning("%s: an export of the worklist starts", call.requester)
        return WebResponse(200, (("Cache-Control", "no-store"),), lines, JSON_LINES)

    async def progress(self, call: Call) -> ImportState:
        """Progress and results of the last import."""
        return report_json(self._importer.report)

    async def take(self, call: Call) -> ImportedLines | WebResponse:
        """Import a page of an export; it may be repeated."""
        try:
            imported = await self._importer.feed(call.content, call.requester)
        except ImportStopped as stopped:
            report = report_json(self._importer.report)
            content = {"error": str(stopped), "line": stopped.number, "import": report}
            return json_response(content, stopped.status)
        return {"lines": imported, "import": report_json(self._importer.report)}


def report_json(report: ImportReport) -> ImportState:
    """The report of an import as JSON."""
    counts = report.counts
    conflicts = sum(number for (_, outcome), number in counts.items() if outcome is ImportOutcome.CONFLICT)
    return {
        "state": report.state,
        "mode": report.mode,
        "from": report.identity,
        "counts": {
            kind: {
                "expected": report.expected.get(kind),
                **{outcome.value: counts[kind, outcome] for outcome in ImportOutcome},
            }
            for kind in KINDS
        },
        "conflicts": [
            {"kind": conflict.kind, "name": conflict.name, "why": conflict.why}
            for conflict in report.conflicts
        ],
        "conflicts_listed_at_most": MAXIMUM_LISTED,
        "conflicts_in_all": conflicts,
    }
