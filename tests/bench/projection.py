# SPDX-License-Identifier: AGPL-3.0-or-later
"""How long the most frequent calls of the projection take. By hand: ``python -m tests.bench.projection [count]``."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import DataSet, element
from orthanc_ups.core.free_text import words as core_words
from orthanc_ups.core.matching import Query
from orthanc_ups.core.workitem import Workitem
from orthanc_ups.projection.projection import Projection
from orthanc_ups.store.documents import decode, encode
from orthanc_ups.store.port import Entry
from tests.support import workitems

FAMILIES = [
    "Parker",
    "Bishop",
    "Mendelson",
    "Ortega",
    "Müller",
    "Conway",
    "Aokawa",
    "Журавлёва",
    "Καστανίδης",
]
STATES = ["SCHEDULED"] * 7 + ["IN PROGRESS"] + ["COMPLETED"] * 2
BASE = workitems.stored(base=workitems.full())
LEFT_OUT = ("00741210", "00101002", "00100024", "00404070", "00081084")


def workitem(number: int) -> Workitem:
    """A workitem of about 4 KB."""
    chance = random.Random(number)
    day, hour, minute = chance.randrange(1, 31), chance.randrange(24), chance.randrange(60)
    name = (
        f"{chance.choice(FAMILIES)}{chance.randrange(200)}^{chance.choice(['Ines', 'Tom', 'Haru', 'Olga'])}"
    )
    attributes: DataSet = {tag: value for tag, value in BASE.items() if tag not in LEFT_OUT}
    attributes |= {
        tags.SOP_INSTANCE_UID: element("UI", workitems.uid(number)),
        tags.STATE: element("CS", chance.choice(STATES)),
        tags.START: element("DT", f"202611{day:02}{hour:02}{minute:02}00"),
        tags.STATION_NAME: element("SQ", workitems.station(f"ROOM{chance.randrange(20)}")),
        tags.HUMAN_PERFORMERS: element("SQ", workitems.performer("greek")),
        tags.WORKLIST_LABEL: element("LO", f"WORKLIST {chance.randrange(5)}"),
        tags.LABEL: element("LO", f"Step {chance.randrange(30)}"),
        tags.PRIORITY: element("CS", chance.choice(["HIGH", "MEDIUM", "MEDIUM", "LOW"])),
        tags.PATIENT_ID: element("LO", f"HC-{chance.randrange(60_000):06}"),
        tags.PATIENT_NAME: element("PN", {"Alphabetic": name}),
        "0040A370": element("SQ", workitems.request(f"A-{number:07}")),
    }
    if attributes[tags.STATE]["Value"] != ["SCHEDULED"]:
        item = {tags.PROGRESS: element("DS", str(chance.randrange(101)))}
        attributes[tags.PROGRESS_INFORMATION] = element("SQ", item)
    return Workitem(workitems.uid(number), number, dict(sorted(attributes.items())))


def station(code: str) -> DataSet:
    item = {tags.CODE_VALUE: element("SH", code), tags.CODING_SCHEME: element("SH", "99STATIONS")}
    return {tags.STATION_NAME: element("SQ", item)}


SCHEDULED: DataSet = {tags.STATE: element("CS", "SCHEDULED")}
WEEK: DataSet = {tags.START: element("DT", "20261108-20261114")}
QUERIES: dict[str, DataSet] = {
    "state, start range, station": {**SCHEDULED, **WEEK, **station("ROOM7")},
    "state, start range": {**SCHEDULED, **WEEK},
    "state": SCHEDULED,
    "everything": {tags.SOP_INSTANCE_UID: element("UI")},
    "station": station("ROOM7"),
    "state, priority, worklist": {
        **SCHEDULED,
        tags.PRIORITY: element("CS", "HIGH"),
        tags.WORKLIST_LABEL: element("LO", "WORKLIST 3"),
    },
    "accession number": {"0040A370": element("SQ", {"00080050": element("SH", "A-0004711")})},
    "patient id": {tags.PATIENT_ID: element("LO", "HC-000815")},
    "patient name müller7*": {tags.PATIENT_NAME: element("PN", {"Alphabetic": "müller7*"})},
    "patient name *olga": {tags.PATIENT_NAME: element("PN", {"Alphabetic": "*^olga"})},
    "workitem code, state": {
        **SCHEDULED,
        tags.WORKITEM_CODE: element("SQ", {tags.CODE_VALUE: element("SH", "110005")}),
    },
    "nothing": {tags.PATIENT_ID: element("LO", "NOBODY")},
    "comments (no index)": {
        "00400400": element("LT", "*last year*"),
        **WEEK,
        **SCHEDULED,
        **station("ROOM7"),
    },
}


def say(what: str, seconds: list[float]) -> None:
    times = sorted(second * 1_000 for second in seconds)
    print(
        f"{what:52} median {statistics.median(times):8.3f} ms   p99 {times[int(len(times) * 0.99)]:8.3f} ms"
    )


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


async def awaited(work: Callable[[], Awaitable[object]]) -> float:
    start = time.perf_counter()
    await work()
    return time.perf_counter() - start


def entries(count: int) -> Iterator[list[Entry]]:
    for first in range(1, count + 1, 500):
        numbers = range(first, min(first + 500, count + 1))
        yield [Entry(f"workitem/{workitems.uid(n)}", encode(workitem(n)), f"v{n}") for n in numbers]


def rebuild(projection: Projection, count: int) -> str:
    """Time in the projection, without making the documents."""
    seconds = cpu = 0.0
    with projection.rebuilding() as going:
        for chunk in entries(count):
            start, busy = time.perf_counter(), time.process_time()
            going.take(chunk)
            seconds, cpu = seconds + time.perf_counter() - start, cpu + time.process_time() - busy
        start, busy = time.perf_counter(), time.process_time()
    seconds, cpu = seconds + time.perf_counter() - start, cpu + time.process_time() - busy
    return f"{seconds:.2f} s, {cpu:.2f} s of them on the processor"


def writes(projection: Projection, count: int) -> None:
    chance = random.Random(0)
    claims, gets, creations = [], [], []
    for turn in range(2_000):
        uid = workitems.uid(chance.randrange(1, count + 1))
        start = time.perf_counter()
        stored = projection.get(uid)
        gets.append(time.perf_counter() - start)
        assert stored
        changed = {**stored.workitem.attributes, tags.STATE: element("CS", "IN PROGRESS")}
        changed[tags.MODIFICATION] = element("DT", f"20261122190000.{turn:06}+0000")
        claimed = dataclasses.replace(stored.workitem, attributes=changed, revision=turn + 1)
        document = encode(claimed)
        claims.append(timed(lambda: projection.put(claimed, "w", document)))  # noqa: B023
        created = workitem(count + turn + 1)
        document = encode(created)
        creations.append(timed(lambda: projection.put(created, "w", document)))  # noqa: B023
    say("get", gets)
    say("put of a claimed workitem", claims)
    say("put of a new workitem", creations)


def outdate(projection: Projection) -> None:
    """As a write does, so that no remembered matches are measured."""
    projection.record_events(())


async def searches(projection: Projection) -> None:
    for name, identifier in QUERIES.items():
        query = Query.of(identifier)
        _, total = await projection.search(query, 0, 50)
        first, last, chunk = [], [], []
        for _ in range(15):
            outdate(projection)
            first.append(await awaited(lambda: projection.search(query, 0, 50)))  # noqa: B023
            outdate(projection)
            at = max(0, total - 50)
            last.append(await awaited(lambda: projection.search(query, at, 50)))  # noqa: B023
            chunk.append(await awaited(lambda: anext(projection.stream(query, 50), None)))  # noqa: B023
        say(f"{name}: first page of {total}", first)
        say(f"{name}: last page", last)
        say(f"{name}: first 50 of a stream", chunk)
    everything = Query.of(QUERIES["everything"])
    orders = ("modification", "state", "priority", "label", "worklist_label", "patient_name")
    for order in (*orders, "station", "performer", "progress", "-station", "-performer", "-progress"):
        outdate(projection)
        taken = [await awaited(lambda: projection.search(everything, 0, 50, order)) for _ in range(5)]  # noqa: B023
        say(f"everything by {order}: first page", taken)
    wanted = core_words("müller7")
    taken = [
        await awaited(lambda: projection.search(everything, 0, 50, "-created", wanted)) for _ in range(5)
    ]
    say("free text", taken)
    say("numbers of everything", [await awaited(lambda: projection.numbers(everything)) for _ in range(5)])
    say("counts", [await awaited(projection.counts) for _ in range(5)])


def main() -> None:
    """Fill, start again, write, search."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "projection.sqlite"
        projection = Projection.open(path)
        size = statistics.mean(len(encode(workitem(n))) for n in range(1, 200))
        print(f"{count} workitems of {size:.0f} bytes")
        print(f"rebuild of all: {rebuild(projection, count)}; decoding alone: {decoding(count):.2f} s")
        projection.close()
        print(f"file: {path.stat().st_size / 1e6:.0f} MB")
        projection = Projection.open(path)
        print(f"check that nothing changed: {rebuild(projection, count)}")
        writes(projection, count)
        asyncio.run(searches(projection))
        projection.close()
    print(f"greatest resident size: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")


def decoding(count: int) -> float:
    """Seconds that reading the documents takes, estimated from a few."""
    documents = [encode(workitem(n)) for n in range(1, 2_001)]
    return sum(timed(lambda: decode(document)) for document in documents) * count / len(documents)  # noqa: B023


if __name__ == "__main__":
    main()
