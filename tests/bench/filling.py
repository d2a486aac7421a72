# SPDX-License-Identifier: AGPL-3.0-or-later
"""A worklist of any size within seconds: entries written straight to the store, before the plugin starts."""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

import psycopg

from orthanc_ups.core import tags
from orthanc_ups.core.commands import Create, Requester
from orthanc_ups.core.dataset import element
from orthanc_ups.core.decide import Circumstances, decide
from orthanc_ups.core.workitem import HistoryEntry, Workitem
from orthanc_ups.orthanc.loopback import Loopback
from orthanc_ups.store import keys, shelves
from orthanc_ups.store.documents import encode
from orthanc_ups.store.key_value import value_of
from orthanc_ups.store.metadata import OrthancEntries
from orthanc_ups.store.port import Entry
from orthanc_ups.store.shelf_set import ShelfSet, in_flight
from orthanc_ups.store.shelves import Address, Uploads, Value
from orthanc_ups.store.writer import Writer
from orthanc_ups.worklist.order import WorklistEntry
from tests.support.memory_store import InMemoryEntries
from tests.support.orthanc import RealOrthanc
from tests.support.postgresql import PostgreSql
from tests.support.waiting import wait_until
from tests.support.workitems import UID_ROOT, full, station

FIRST: Final = datetime(2026, 11, 1, 6, 0, tzinfo=UTC)
STATIONS: Final = 20
_REVISION: Final = 1_790_000_000_000_000
_MINUTES: Final = 60 * 24 * 30
_STATES: Final = ("SCHEDULED",) * 7 + ("IN PROGRESS",) + ("COMPLETED",) * 2


_SCRIPT: Final = """
import struct
import orthanc

def changed(change, *_):
    if change != orthanc.ChangeType.ORTHANC_STARTED:
        return
    with open({entries!r}, "rb") as file:
        while head := file.read(8):
            key, value = struct.unpack("<LL", head)
            orthanc.StoreKeyValue("orthanc-ups", file.read(key).decode(), file.read(value))
    open({done!r}, "w").close()

orthanc.RegisterOnChangeCallback(changed)
"""


def filled(orthanc: RealOrthanc, count: int) -> None:
    """Write ``count`` workitems into the key-value store of an Orthanc that has never run, and stop it again."""
    plugin = orthanc.configuration["PythonScript"]
    script, entries, done = (orthanc.folder / name for name in ("fill.py", "entries", "filled"))
    script.write_text(_SCRIPT.format(entries=str(entries), done=str(done)))
    with entries.open("wb") as file:
        for key, document in _entries(count):
            value = value_of(_REVISION, document)
            file.write(struct.pack("<LL", len(key), len(value)) + key.encode() + value)
    orthanc.configuration["PythonScript"] = str(script)
    orthanc.start()
    wait_until(done.exists, "the workitems are there", 60 + count / 1_000, interval=0.2)
    orthanc.stop()
    orthanc.configuration["PythonScript"] = plugin
    entries.unlink()


def _entries(count: int) -> Iterator[tuple[str, bytes]]:
    yield keys.WORKLIST, asyncio.run(_worklist_entry(count))
    pattern = _pattern()
    for number in range(1, count + 1):
        workitem = _workitem(pattern, number)
        yield keys.workitem(workitem.uid), encode(workitem)


async def _worklist_entry(count: int) -> bytes:
    entries = InMemoryEntries()
    await WorklistEntry(Writer(entries)).reserve(1, count + 1)
    entry = await entries.read(keys.WORKLIST)
    assert entry is not None
    return entry.document


def filled_as_metadata(orthanc: RealOrthanc, count: int) -> None:
    """The same in metadata, as plugins before the key-value store have it."""
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

        async def write(entry: tuple[str, bytes]) -> None:
            await entries.create(*entry)

        await WorklistEntry(Writer(entries)).reserve(1, count + 1)
        await in_flight(write, itertools.islice(_entries(count), 1, None))


def filled_in_postgresql(orthanc: RealOrthanc, database: PostgreSql, count: int) -> None:
    """The same in metadata of an index on PostgreSQL, written as rows. The Orthanc has never run."""
    plugin = orthanc.configuration["PythonScript"]
    nothing = orthanc.folder / "nothing.py"
    nothing.write_text("import orthanc\n")
    orthanc.configuration["PythonScript"] = str(nothing)
    orthanc.start()
    shelf_count = max(1, count // shelves.FULL)
    asyncio.run(_make_shelves(orthanc.base_url, shelf_count))
    orthanc.stop()
    orthanc.configuration["PythonScript"] = plugin
    with psycopg.connect(database.address()) as session:
        query = "SELECT publicid, internalid FROM resources WHERE resourcetype = 3"
        rows = {str(public): int(internal) for public, internal in session.execute(query)}
        taken: set[Address] = set()
        with session.cursor().copy("COPY metadata (id, type, value, revision) FROM STDIN") as copy:
            for key, document in _entries(count):
                probes = (shelves.new_address(key, probe, shelf_count) for probe in itertools.count())
                address = next(address for address in probes if address not in taken)
                taken.add(address)
                value = Value(key, 0, document).encoded().decode()
                copy.write_row((rows[shelves.INSTANCES[address.shelf]], address.slot, value, 0))


async def _make_shelves(url: str, count: int) -> None:
    async with Loopback(url) as loopback:
        shelf_set = ShelfSet(loopback, Uploads())
        await shelf_set.make_missing()
        await shelf_set.mark_complete([0])
        for _ in range(count - 1):
            await shelf_set.add()


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
