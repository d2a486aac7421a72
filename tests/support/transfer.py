# SPDX-License-Identifier: AGPL-3.0-or-later
"""Exports and imports between services in memory, page by page as a client does it."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from orthanc_ups.core.commands import Requester
from orthanc_ups.management.answers import ImportState
from orthanc_ups.transfer.exporter import Position
from orthanc_ups.transfer.routes import Importer, export_page, report_json
from tests.support.delivery import settle
from tests.support.service import ServiceRig

OPERATOR = Requester("WORKLIST", "page", "anna")


async def exported(rig: ServiceRig, limit: int = 500) -> list[bytes]:
    """Every line of an export, without those that end a page."""
    lines: list[bytes] = []
    after: Position | None = None
    while True:
        page = (await export_page(rig.service.exporter, after, limit)).splitlines()
        if kind(page[-1]) == "end":
            return lines + page
        lines += page[:-1]
        after = Position.parse(orjson.loads(page[-1])["after"])


async def imported(rig: ServiceRig, lines: list[bytes], at_once: int = 500) -> ImportState:
    """Import lines page by page, return the result, and let events be delivered."""
    importer = Importer(rig.service.import_session)
    for start in range(0, len(lines), at_once):
        task = asyncio.ensure_future(importer.feed(b"\n".join(lines[start : start + at_once]), OPERATOR))
        await rig.until_done(task)
        await task
    await settle()
    return report_json(rig.service.import_session.report)


async def moved(source: ServiceRig, target: ServiceRig) -> ImportState:
    """Export everything from one service and import it into another."""
    return await imported(target, await exported(source))


def kind(line: bytes) -> str:
    """The kind of a line."""
    result: str = orjson.loads(line)["kind"]
    return result


def of_kind(lines: list[bytes], name: str) -> list[dict[str, Any]]:
    """The lines of a kind, decoded."""
    return [orjson.loads(line) for line in lines if kind(line) == name]


def changed(line: bytes, **fields: Any) -> bytes:
    """A line with other fields."""
    return orjson.dumps({**orjson.loads(line), **fields})
