# SPDX-License-Identifier: AGPL-3.0-or-later
"""One worklist on PostgreSQL: what it costs beside SQLite, what a standby adds, and how long a failover takes."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.filling import filled_in_postgresql
from tests.bench.measuring import best
from tests.bench.part_dimse import EACH, MODALITIES, Rates, rates
from tests.bench.part_size import COUNT
from tests.bench.report import Part, Row, at_least, at_most, median
from tests.support.nodes import health, is_warm, leads, nodes, stands_by
from tests.support.orthanc import RealOrthanc
from tests.support.postgresql import PostgreSql
from tests.support.waiting import wait_until

OPERATIONS = ("N-CREATE", "N-SET", "N-GET", "Change State")
_LEASE = 2.0


@contextmanager
def _pair(suite: str, count: int = 0) -> Iterator[list[RealOrthanc]]:
    """A leader and a standby, whose worklist has so many workitems; PostgreSQL waits for the disk."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        PostgreSql(fsync=True) as database,
        nodes(suite, Path(folder), database, overrides={"DicomModalities": MODALITIES}) as (first, second),
    ):
        if count:
            filled_in_postgresql(first, database, count)
        first.launch()
        leads(first, 1_800)
        second.launch()
        stands_by(second, 1_800)
        yield [first, second]


def speed(suite: str, attempts: int) -> Part:
    """The same messages at an Orthanc on SQLite, at the leader, and at the standby, in turns."""
    rows: list[Row] = []
    with (
        RealOrthanc(suite, {"DicomModalities": MODALITIES}) as sqlite,
        RealOrthanc(suite, {"DicomModalities": MODALITIES, "Ups": {"Store": "metadata"}}) as metadata,
        _pair(suite) as (leader, standby),
    ):
        everyone = (sqlite, metadata, leader, standby)
        for associations in EACH:
            seen: list[Rates] = [{} for _ in everyone]
            for _ in range(attempts):
                for orthanc, into in zip(everyone, seen, strict=True):
                    for name, values in rates(orthanc.ups_dicom_port, associations, 1).items():
                        into.setdefault(name, []).extend(values)
            where = "1 association" if associations == 1 else f"{associations} associations"
            for name in OPERATIONS:
                alone, shelves, ours, relayed = (best(part[name]) for part in seen)
                rows += [
                    at_least(f"{name}, {where}", ours, alone, "/s"),
                    at_least(f"{name}, {where}, against metadata on SQLite", ours, shelves, "/s"),
                    at_least(f"{name}, {where}, through the standby", relayed, alone, "/s"),
                ]
    return Part(
        "PostgreSQL beside SQLite",
        "Messages per second at the leader of two Orthancs on one PostgreSQL that waits for the disk (fsync); the "
        "floor is one Orthanc on SQLite with the default store, then one that keeps the worklist as metadata.",
        rows,
    )


def failover(suite: str, attempts: int) -> Part:
    """How long nobody leads."""
    rows = []
    for size in (0, COUNT):
        with _pair(suite, size) as pair:
            for name, number in (("killed", signal.SIGKILL), ("stopped", signal.SIGTERM)):
                took = [_took_over(pair, number) for _ in range(attempts)]
                words = ", ".join(f"{seconds:.1f} s" for seconds in took)
                what = f"the leader of {size:,} workitems is {name}"
                rows.append(at_most(what, words, "", median(took), "s", 5.0))
                rows.append(Row("of that, from the lease until it is open", _openings(pair, attempts)))
    return Part(
        "Failover on PostgreSQL",
        f"From the signal until the other Orthanc leads and is open; the lease lasts {_LEASE:g} s.",
        rows,
    )


def _took_over(pair: list[RealOrthanc], number: int) -> float:
    leader, standby = sorted(pair, key=lambda node: health(node)[1])
    is_warm(standby, 600)
    begun = time.perf_counter()
    os.kill(leader.pid, number)
    wait_until(lambda: health(standby) == ("open", "leader"), standby.log_tail, 600, interval=0.02)
    took = time.perf_counter() - begun
    leader.wait()
    leader.launch()
    stands_by(leader, 600)
    return took


def _openings(pair: list[RealOrthanc], count: int) -> str:
    """What the nodes say themselves of the last times that they took over."""
    lines = [
        line for node in pair for line in node.log_text().splitlines() if "took the worklist over" in line
    ]
    return ", ".join(line.rpartition(" in ")[2] for line in sorted(lines)[-count:])


PARTS: dict[str, Callable[[str, int], Part]] = {"postgresql": speed, "failover": failover}
