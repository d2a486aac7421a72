# SPDX-License-Identifier: AGPL-3.0-or-later
"""A hundred thousand workitems: queries, every operation, the start and the memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import DataSet, element
from tests.bench.filling import filled
from tests.bench.measuring import asked
from tests.bench.part_dimse import CLIENT, MODALITIES, OPERATIONS, Rates, rates
from tests.bench.report import Part, Row, at_most, median, milliseconds, percentile
from tests.support.orthanc import RealOrthanc
from tests.support.workitems import station

LARGE, SMALL, NONE = 100_000, 1_000, 0
PAGE = 50
_MEGABYTE = 1_000_000


@contextmanager
def worklist(suite: str, count: int) -> Iterator[RealOrthanc]:
    """A stopped Orthanc whose worklist has so many workitems."""
    orthanc = RealOrthanc(suite, {"DicomModalities": MODALITIES})
    try:
        filled(orthanc, count)
        yield orthanc
    finally:
        orthanc.discard()


def identifier(state: str, start: str, room: str) -> DataSet:
    """State, start range and station code, with the attributes that a worklist shows."""
    return {
        tags.SOP_INSTANCE_UID: element("UI"),
        tags.STATE: element("CS", state),
        tags.PRIORITY: element("CS"),
        tags.LABEL: element("LO"),
        tags.WORKLIST_LABEL: element("LO"),
        tags.START: element("DT", start),
        tags.STATION_NAME: element("SQ", {tags.CODE_VALUE: station(room)[tags.CODE_VALUE]}),
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
    with worklist(suite, NONE) as none, worklist(suite, SMALL) as small, worklist(suite, LARGE) as large:
        rows = [
            *_starts(none, large),
            *_queries(small, large, attempts),
            *_operations(small, large, attempts),
        ]
    return Part(
        f"{LARGE:,} workitems",
        f"The floor of a query is one that matches nothing, of a start an Orthanc without workitems, of an operation "
        f"the same with {SMALL:,} workitems. Well-filled workitems of about 4 KB.",
        rows,
    )


# --- start and memory ---


def _starts(none: RealOrthanc, large: RealOrthanc) -> list[Row]:
    floor, _ = _started(none)
    floor_memory = none.rss()
    first, _ = _started(large)
    memory = large.rss()
    none.stop()
    large.stop()
    floor_again, _ = _started(none)
    again, _ = _started(large)
    large.kill()
    crashed, _ = _started(large)
    more = (large.rss() - none.rss()) / _MEGABYTE
    none.stop()
    large.stop()
    return [
        at_most(
            "start, the projection is made anew", f"{first:.1f} s", f"{floor:.1f} s", first - floor, "s", 15
        ),
        at_most(
            "start after a clean stop", f"{again:.1f} s", f"{floor_again:.1f} s", again - floor_again, "s", 15
        ),
        at_most(
            "start after kill -9", f"{crashed:.1f} s", f"{floor_again:.1f} s", crashed - floor_again, "s", 15
        ),
        at_most(
            "resident memory after the first start",
            f"{memory / _MEGABYTE:.0f} MB",
            f"{floor_memory / _MEGABYTE:.0f} MB",
            (memory - floor_memory) / _MEGABYTE,
            "MB",
            500,
        ),
        Row("more resident memory after a later start", f"{more:.0f} MB", aim="≤ 500 MB", is_met=more <= 500),
    ]


def _started(orthanc: RealOrthanc) -> tuple[float, float]:
    begun = time.perf_counter()
    orthanc.start(300)
    return time.perf_counter() - begun, begun


# --- queries ---


def _queries(small: RealOrthanc, large: RealOrthanc, attempts: int) -> list[Row]:
    small.start()
    large.start(300)
    nothing = _found(large, NOTHING, attempts)["times"]
    rows = []
    for name, query in QUERIES.items():
        found = _found(large, query, attempts)
        count = found["counts"][0]
        typical, slow = median(found["times"]), percentile(found["times"], 0.99)
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
        few = median(_found(small, query, attempts)["times"])
        rows.append(
            Row(f"the same among {SMALL:,}", milliseconds(typical), milliseconds(few), f"{typical / few:.2f}")
        )
    return rows


def _found(orthanc: RealOrthanc, query: DataSet, attempts: int) -> Rates:
    found: Rates = asked(
        CLIENT, "find", port=orthanc.ups_dicom_port, identifier=query, most=PAGE, repeat=50 * attempts
    )
    return found


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
        cost, floor = (median(found[f"{name} (times)"]) for found in (many, few))
        rows.append(at_most(name, milliseconds(cost), milliseconds(floor), cost / floor, "", 1.3))
    return rows


PARTS: dict[str, Callable[[str, int], Part]] = {"size": size}
