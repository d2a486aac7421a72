# SPDX-License-Identifier: AGPL-3.0-or-later
"""A worklist of any size within seconds: entries written straight to the shelves, before the plugin starts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from orthanc_ups.core import tags
from orthanc_ups.core.commands import Create, Requester
from orthanc_ups.core.dataset import element
from orthanc_ups.core.decide import Circumstances, decide
from orthanc_ups.core.workitem import HistoryEntry, Workitem
from orthanc_ups.orthanc.loopback import Loopback
from orthanc_ups.store.documents import encode
from orthanc_ups.store.metadata import OrthancEntries
from orthanc_ups.store.port import Entry
from orthanc_ups.store.shelf_set import in_flight
from orthanc_ups.store.writer import Writer
from orthanc_ups.worklist.commits import workitem_key
from orthanc_ups.worklist.worklist_entry import WorklistEntry
from tests.support.orthanc import RealOrthanc
from tests.support.workitems import UID_ROOT, full, station

FIRST: Final = datetime(2026, 11, 1, 6, 0, tzinfo=UTC)
STATIONS: Final = 20
_MINUTES: Final = 60 * 24 * 30
_STATES: Final = ("SCHEDULED",) * 7 + ("IN PROGRESS",) + ("COMPLETED",) * 2


def filled(orthanc: RealOrthanc, count: int) -> None:
    """Write ``count`` workitems into an Orthanc that has never run, and stop it again."""
    plugin = orthanc.configuration["PythonScript"]
    nothing = orthanc.folder / "nothing.py"
    nothing.write_text("import orthanc\n")
    orthanc.configuration["PythonScript"] = str(nothing)
    orthanc.start()
    asyncio.run(_fill(orthanc.base_url, count))
    orthanc.stop()
    orthanc.configuration["PythonScript"] = plugin


async def _fill(url: str, count: int) -> None:
    async with Loopback(url) as loopback:
        entries = OrthancEntries(loopback)
        await entries.open()
        await entries.restore(_nothing())
        await WorklistEntry(Writer(entries)).reserve(1, count + 1)
        pattern = _pattern()

        async def write(number: int) -> None:
            workitem = _workitem(pattern, number)
            await entries.create(workitem_key(workitem.uid), encode(workitem))

        await in_flight(write, range(1, count + 1))


async def _nothing() -> AsyncIterator[Entry]:
    nothing: tuple[Entry, ...] = ()
    for entry in nothing:
        yield entry


def _pattern() -> Workitem:
    create = Create(Requester("FILLER", "DIMSE"), f"{UID_ROOT}.1", full())
    return decide(None, create, Circumstances(FIRST)).workitem


def uid(number: int) -> str:
    """The UID of a workitem, from 1 on."""
    return f"{UID_ROOT}.5.{number}"


def _workitem(pattern: Workitem, number: int) -> Workitem:
    """Each has its own start, patient and station; seven of ten are SCHEDULED."""
    state = _STATES[number % 10]
    start = FIRST + timedelta(minutes=number * 7919 % _MINUTES)
    attributes = {
        **pattern.attributes,
        tags.SOP_INSTANCE_UID: element("UI", uid(number)),
        tags.STATE: element("CS", state),
        tags.START: element("DT", start.strftime("%Y%m%d%H%M%S+0000")),
        tags.STATION_NAME: element("SQ", station(f"ROOM{number % STATIONS}")),
        tags.PATIENT_ID: element("LO", f"PAT{number % 5000}"),
    }
    history = (HistoryEntry(FIRST.timestamp(), "FILLER by DIMSE", "created"),)
    ended = datetime.now(UTC).timestamp() if state == "COMPLETED" else None
    return replace(
        pattern,
        uid=uid(number),
        created=number,
        attributes=attributes,
        history=history,
        ended=ended,
        revision=1,
    )
