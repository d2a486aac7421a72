# SPDX-License-Identifier: AGPL-3.0-or-later
"""A large worklist: queries, every operation, start and stop, idle time and memory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import DataSet, element
from tests.bench import client_dimse
from tests.bench.filling import filled
from tests.bench.measuring import run_client, spent
from tests.bench.part_dimse import MODALITIES, OPERATIONS, Rates, rates
from tests.bench.report import Part, Row, at_most, median, milliseconds, percentile
from tests.support.orthanc import RealOrthanc
from tests.support.workitems import station

LARGE, SMALL, NONE = 100_000, 1_000, 0
HUGE = 1_000_000
COUNT = int(os.environ.get("ORTHANC_UPS_BENCH_SIZE") or LARGE)
"""Workitems of a large worklist, in every part of the bench."""
PAGE = 50
_MEGABYTE = 1_000_000
_AFTER_START = 15.0
_IDLE = 20.0
_SPARE = 100_000
"""Workitems that are created beside those that are there from the start, at most."""


@dataclass(frozen=True)
class Aims:
    """Seconds more than with no workitems that a start may take, and MB in memory; None: nothing is asked."""

    clean: float
    killed: float | None
    lost: float | None
    memory: float


AIMS = {LARGE: Aims(3, 6, 45, 500), HUGE: Aims(30, None, None, 1_500)}


@contextmanager
def worklist(suite: str, count: int) -> Iterator[RealOrthanc]:
    """A stopped Orthanc whose worklist has so many workitems."""
    ups = {"MaximumWorkitems": count + _SPARE}
    orthanc = RealOrthanc(suite, {"DicomModalities": MODALITIES, "Ups": ups})
    try:
        filled(orthanc, count)
        yield orthanc
    finally:
        orthanc.discard()


def identifier(state: str, start: str, station_code: str) -> DataSet:
    """State, start range and station code, with the attributes that a worklist shows."""
    return {
        tags.SOP_INSTANCE_UID: element("UI"),
        tags.STATE: element("CS", state),
        tags.PRIORITY: element("CS"),
        tags.LABEL: element("LO"),
        tags.WORKLIST_LABEL: element("LO"),
        tags.START: element("DT", start),
        tags.STATION_NAME: element("SQ", {tags.CODE_VALUE: station(station_code)[tags.CODE_VALUE]}),
        tags.PATIENT_NAME: element("PN"),
        tags.PATIENT_ID: element("LO"),
    }


QUERIES = {
    "one day, one station": identifier("SCHEDULED", "20261110000000+0000-20261111000000+0000", "ROOM3"),
    "one month, one station": identifier("SCHEDULED", "20261101000000+0000-20261201000000+0000", "ROOM3"),
}
NOTHING = identifier("SCHEDULED", "20261110000000+0000-20261111000000+0000", "NOWHERE")


def size(suite: str, attempts: int) -> Part:
    """Everything that could depend on the number of workitems."""
    aims = AIMS[HUGE if COUNT > LARGE else LARGE]
    with worklist(suite, NONE) as none, worklist(suite, SMALL) as small, worklist(suite, COUNT) as large:
        rows = [
            *_starts(none, large, aims),
            *_queries(small, large, attempts),
            *_operations(small, large, attempts),
        ]
    return Part(
        f"{COUNT:,} workitems",
        f"The floor of a query is one that matches nothing, of a start an Orthanc without workitems, of an operation "
        f"the same with {SMALL:,} workitems. Well-filled workitems of about 4 KB.",
        rows,
    )


# --- start and memory ---


def _starts(none: RealOrthanc, large: RealOrthanc, aims: Aims) -> list[Row]:
    rows = [
        _start("start, the search index is made anew", large, none, aims.lost),
        _memory("resident memory after that", large, none, aims),
        _stop(large),
    ]
    none.stop()
    rows.append(_start("start after a clean stop", large, none, aims.clean))
    rows.append(_memory("resident memory after that", large, none, aims))
    large.kill()
    none.kill()
    rows.append(_start("start after kill -9", large, none, aims.killed))
    rows.append(_idle(large, none))
    none.stop()
    rows.append(_stop(large))
    return rows


def _start(what: str, large: RealOrthanc, none: RealOrthanc, aim: float | None) -> Row:
    floor, floor_cpu = _started(none)
    ours, cpu = _started(large)
    return at_most(
        what,
        f"{ours:.1f} s, {cpu:.1f} s of processor",
        f"{floor:.1f} s, {floor_cpu:.1f} s",
        ours - floor,
        "s",
        aim,
    )


def _started(orthanc: RealOrthanc) -> tuple[float, float]:
    """Seconds until it serves, and those of processor time."""
    begun = time.perf_counter()
    orthanc.start(1_800)
    return time.perf_counter() - begun, spent(orthanc.pid)["process"]


def _memory(what: str, large: RealOrthanc, none: RealOrthanc, aims: Aims) -> Row:
    ours, floor = large.rss() / _MEGABYTE, none.rss() / _MEGABYTE
    return at_most(what, f"{ours:.0f} MB", f"{floor:.0f} MB", ours - floor, "MB", aims.memory)


def _stop(large: RealOrthanc) -> Row:
    begun = time.perf_counter()
    large.stop(60)
    took = time.perf_counter() - begun
    return at_most("SIGTERM until the process has ended", f"{took:.1f} s", "", took, "s", 10)


def _idle(large: RealOrthanc, none: RealOrthanc) -> Row:
    time.sleep(
        _AFTER_START
    )  # a start has work left when it serves already, which is not what is measured here
    before = [spent(orthanc.pid)["process"] for orthanc in (large, none)]
    time.sleep(_IDLE)
    after = [spent(orthanc.pid)["process"] for orthanc in (large, none)]
    shares = [(late - early) / _IDLE * 100 for early, late in zip(before, after, strict=True)]
    words = [f"{share:.2f} % of a core" for share in shares]
    return at_most("idle", words[0], words[1], shares[0] - shares[1], "%", 1)


# --- queries ---


def _queries(small: RealOrthanc, large: RealOrthanc, attempts: int) -> list[Row]:
    small.start()
    large.start(1_800)
    nothing = _page_times(large, NOTHING, attempts)["times"]
    rows = []
    for name, query in QUERIES.items():
        result = _page_times(large, query, attempts)
        count = result["counts"][0]
        typical, slow = median(result["times"]), percentile(result["times"], 0.99)
        rows.append(
            at_most(
                f"C-FIND, the first {count:.0f} matches: {name}",
                f"{milliseconds(typical)} (p99 {milliseconds(slow)})",
                f"{milliseconds(median(nothing))} (p99 {milliseconds(percentile(nothing, 0.99))})",
                (typical - median(nothing)) * 1000,
                "ms",
                20,
            )
        )
        few = median(_page_times(small, query, attempts)["times"])
        rows.append(
            Row(f"the same among {SMALL:,}", milliseconds(typical), milliseconds(few), f"{typical / few:.2f}")
        )
    return rows


def _page_times(orthanc: RealOrthanc, query: DataSet, attempts: int) -> Rates:
    return run_client(
        client_dimse.find,
        port=orthanc.ups_dicom_port,
        identifier=query,
        target=PAGE,
        repeat=50 * attempts,
    )


# --- operations ---


def _operations(small: RealOrthanc, large: RealOrthanc, attempts: int) -> list[Row]:
    """In turns, so that both see the same machine."""
    few: Rates = {}
    many: Rates = {}
    for _ in range(2 * attempts):
        for orthanc, into in ((small, few), (large, many)):
            for name, values in rates(orthanc.ups_dicom_port, 1, 1, 150).items():
                into.setdefault(name, []).extend(values)
    rows = []
    for name in OPERATIONS:
        cost, floor = (median(rates[f"{name} (times)"]) for rates in (many, few))
        rows.append(at_most(name, milliseconds(cost), milliseconds(floor), cost / floor, "", 1.2))
    return rows


PARTS: dict[str, Callable[[str, int], Part]] = {"size": size}
