# SPDX-License-Identifier: AGPL-3.0-or-later
"""UPS-RS requests per second, a page of a hundred thousand workitems, and an event sent to a thousand sockets."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import requests

from orthanc_ups.core import tags
from tests.bench import client_fanout, client_http
from tests.bench.measuring import best, run_client, server
from tests.bench.part_dimse import Rates
from tests.bench.part_size import COUNT, worklist
from tests.bench.report import Part, Row, at_least, at_most, median, milliseconds, percentile
from tests.support.load import subscribe_globally
from tests.support.orthanc import RealOrthanc
from tests.support.workitems import UID_ROOT, full, stored

EACH = {1: 300, 8: 100}
SOCKETS = (1, 100, 1000)
_FIND = (
    "/dicom-web/workitems?ProcedureStepState=SCHEDULED&limit=50&ScheduledStationNameCodeSequence.CodeValue=ROOM3"
    "&ScheduledProcedureStepStartDateTime=20261101000000%2B0000-20261201000000%2B0000"
)
_EVENT = {
    "00000002": {"vr": "UI", "Value": [tags.PUSH]},
    "00000110": {"vr": "US", "Value": [7]},
    "00001000": {"vr": "UI", "Value": [f"{UID_ROOT}.1"]},
    "00001002": {"vr": "US", "Value": [1]},
    "00404041": {"vr": "CS", "Value": ["READY"]},
    "00741000": {"vr": "CS", "Value": ["SCHEDULED"]},
    "00770010": {"vr": "LO", "Value": ["ORTHANC-UPS"]},
    "00771001": {"vr": "LO", "Value": ["1234567"]},
}
_runs = iter(range(1, 1_000_000))


@contextmanager
def _floor(suite: str, constant: bytes) -> Iterator[int]:
    """The server that answers a constant, and broadcasts an event."""
    with tempfile.TemporaryDirectory() as folder:
        answer, message = Path(folder) / "answer", Path(folder) / "event"
        answer.write_bytes(constant)
        message.write_bytes(orjson.dumps(_EVENT))
        with server("tests.bench.floor_http", suite, str(answer), str(message)) as port:
            yield port


def transactions(suite: str, attempts: int) -> Part:
    """Create, change state, retrieve and search at a hundred thousand workitems."""
    rows: list[Row] = []
    with worklist(suite, COUNT) as orthanc:
        orthanc.start(300)
        page = requests.get(f"http://127.0.0.1:{orthanc.ups_http_port}{_FIND}", timeout=60).content
        count = len(orjson.loads(page))
        with _floor(suite, orjson.dumps([stored(base=full())])) as floor:
            for connections in EACH:
                rows += _rows(orthanc, floor, connections, attempts)
        with _floor(suite, page) as floor:
            rows += _search(orthanc, floor, count, attempts)
    return Part(
        "UPS-RS",
        f"Requests to an Orthanc with {COUNT:,} workitems; the floor is the same server answering a constant of the "
        f"same size from memory.",
        rows,
    )


def _rows(orthanc: RealOrthanc, floor: int, connections: int, attempts: int) -> Iterator[Row]:
    ours = _life(orthanc.ups_http_port, connections, attempts)
    bare = _life(floor, connections, attempts)
    where = "1 connection" if connections == 1 else f"{connections} connections"
    for name in ("create", "change state", "retrieve", "retrieve again"):
        aim = 0.5 if name.startswith("retrieve") else None
        yield at_least(f"{name}, {where}", best(ours[name]), best(bare[name]), "/s", aim)
        tail = 4 if connections == 1 and not name.startswith("retrieve") else None
        yield _latency(
            f"{name}, {where}, p50 and p99", ours[f"{name} (times)"], bare[f"{name} (times)"], tail
        )


def _latency(what: str, ours: list[float], floor: list[float], tail: float | None = None) -> Row:
    ratio = percentile(ours, 0.99) / median(ours)
    return at_most(what, _both(ours), _both(floor), ratio, "× p50", tail)


def _both(times: list[float]) -> str:
    return f"{milliseconds(median(times))}, {milliseconds(percentile(times, 0.99))}"


def _life(port: int, connections: int, attempts: int) -> Rates:
    result: Rates = {}
    for _ in range(attempts):
        run = f"3.{next(_runs)}"
        measured = run_client(
            client_http.life, port=port, connections=connections, each=EACH[connections], run=run
        )
        for name, values in measured.items():
            result.setdefault(name, []).extend(values)
    return result


def _search(orthanc: RealOrthanc, floor: int, count: int, attempts: int) -> Iterator[Row]:
    ports = (orthanc.ups_http_port, floor)
    ours, bare = (_repeated(port, 1, 100 * attempts) for port in ports)
    times = ours["get (times)"]
    name = f"search, {count} of {COUNT:,}"
    yield at_least(f"{name}, 1 connection", ours["get"][0], bare["get"][0], "/s")
    yield _latency(f"{name}, 1 connection, p50 and p99", times, bare["get (times)"])
    yield at_most(f"{name}: a page", milliseconds(median(times)), "", median(times) * 1000, "ms", 15)
    ours, bare = (_repeated(port, 8, 30 * attempts) for port in ports)
    yield at_least(f"{name}, 8 connections", ours["get"][0], bare["get"][0], "/s")


def _repeated(port: int, connections: int, each: int) -> Rates:
    return run_client(client_http.repeated, port=port, connections=connections, each=each, path=_FIND)


# --- fan-out ---


def fan_out(suite: str, attempts: int) -> Part:
    """One change to many sockets."""
    rows: list[Row] = []
    with RealOrthanc(suite) as orthanc, _floor(suite, b"{}") as floor:
        alone = {
            "ours": _fanned(orthanc.ups_http_port, 0, "", attempts),
            "floor": _fanned(floor, 0, "/broadcast", attempts),
        }
        subscribe_globally(orthanc, "BOARD")
        for sockets in SOCKETS:
            ours = _fanned(orthanc.ups_http_port, sockets, "", attempts)
            bare = _fanned(floor, sockets, "/broadcast", attempts)
            frames = _fanned(floor, sockets, "/frames", attempts)
            rows += _fan_out_rows(sockets, ours, bare, frames, alone)
    return Part(
        "Fan-out to WebSockets",
        "One workitem is created, and every open socket is told: the time until the last one has it. The floor is a "
        "bare broadcast by the same server: its own call for each socket, then one prepared frame written to each. "
        "What the same change takes without any socket (ours: decided and stored) is taken off on both sides.",
        rows,
    )


def _fan_out_rows(
    sockets: int, ours: float, bare: float, frames: float, alone: dict[str, float]
) -> Iterator[Row]:
    who = f"{sockets:,} socket{'s' * (sockets > 1)}"
    yield Row(f"a change until {who} have it", milliseconds(ours), milliseconds(bare))
    cost = max(1e-6, ours - alone["ours"])
    for what, floor, aim in (("broadcast", bare, 0.8), ("prepared frames", frames, None)):
        least = max(1e-6, floor - alone["floor"])
        ratio = least / cost
        yield Row(
            f"telling {who}, against {what}",
            milliseconds(cost),
            milliseconds(least),
            f"{ratio:.2f}",
            "" if aim is None or sockets == 1 else f"≥ {aim:g}",
            None if aim is None or sockets == 1 else ratio >= aim,
        )


def _fanned(port: int, sockets: int, target: str, attempts: int) -> float:
    result = run_client(
        client_fanout.fan_out,
        port=port,
        sockets=sockets,
        changes=(200 if sockets < 1000 else 40) * attempts,
        path="/dicom-web/subscribers/BOARD",
        target=target,
        run=f"4.{next(_runs)}",
    )
    return median(result["times"])


PARTS: dict[str, Callable[[str, int], Part]] = {"http": transactions, "fanout": fan_out}
