# SPDX-License-Identifier: AGPL-3.0-or-later
"""DIMSE messages per second, and how soon a subscriber receives an event."""

from __future__ import annotations

from collections.abc import Callable

from tests.bench import client_dimse
from tests.bench.measuring import best, run_client, server
from tests.bench.report import Part, Row, at_least, at_most, median, milliseconds
from tests.support.orthanc import Json, RealOrthanc
from tests.support.ports import free_port

OPERATIONS = ("N-CREATE", "N-SET", "N-GET", "Change State")
EACH = {1: 400, 8: 100}
MODALITIES: Json = {"bench": ["BENCH", "127.0.0.1", 104]}

Rates = dict[str, list[float]]


def messages(suite: str, attempts: int) -> Part:
    """Every operation on one association and on eight."""
    with (
        RealOrthanc(suite, {"DicomModalities": MODALITIES}) as orthanc,
        server("tests.bench.floor_pynetdicom", suite) as pynetdicom,
        server("tests.bench.floor_transport", suite) as transport,
    ):
        rows: list[Row] = []
        for associations in EACH:
            ours, floor, bare = (
                rates(port, associations, attempts)
                for port in (orthanc.ups_dicom_port, pynetdicom, transport)
            )
            where = "1 association" if associations == 1 else f"{associations} associations"
            rows += [
                at_least(f"{name}, {where}", best(ours[name]), best(floor[name]), "/s", 0.6)
                for name in OPERATIONS
            ]
            rows += [
                at_least(f"{name}, {where}, bare transport", best(ours[name]), best(bare[name]), "/s")
                for name in OPERATIONS
            ]
    return Part(
        "DIMSE messages",
        "Messages per second; the floor is a pynetdicom AE whose handlers decode the data set and answer success "
        "(TCP_NODELAY at both ends), then our own transport in front of a worklist that does nothing. Each server is "
        "a process of its own, ours a real Orthanc that stores every change before it answers.",
        rows,
    )


_runs = iter(range(1, 1_000_000))


def rates(port: int, associations: int, attempts: int, each: int | None = None) -> Rates:
    """What the client measured, all attempts together."""
    result: Rates = {}
    for _ in range(attempts):
        run = f"1.{next(_runs)}"
        many = each or EACH[associations]
        measured = run_client(client_dimse.life, port=port, associations=associations, each=many, run=run)
        for name, values in measured.items():
            result.setdefault(name, []).extend(values)
    return result


def events(suite: str, attempts: int) -> Part:
    """From a committed change to its N-EVENT-REPORT."""
    listening = free_port()
    modalities = {**MODALITIES, "listener": ["LISTENER", "127.0.0.1", listening]}
    with (
        RealOrthanc(suite, {"DicomModalities": modalities}) as orthanc,
        server("tests.bench.floor_pynetdicom", suite) as pynetdicom,
        server("tests.bench.floor_transport", suite) as transport,
    ):
        floor, bare = (_round_trip(port, attempts) for port in (pynetdicom, transport))
        seen = [_events(orthanc, listening) for _ in range(attempts)]
    answered = median([seconds for measurement in seen for seconds in measurement["answered"]])
    reported = median([seconds for measurement in seen for seconds in measurement["reported"]])
    behind = max(0.0, reported - answered) + bare
    rows = [
        Row("from the request to its answer", milliseconds(answered)),
        Row("from the request to the event at the subscriber", milliseconds(reported)),
        at_most(
            "from the commit to the event, at most",
            milliseconds(behind),
            milliseconds(floor),
            behind / floor,
            "round trips",
            1.5,
        ),
        at_most(
            "the same against the bare transport",
            milliseconds(behind),
            milliseconds(bare),
            behind / bare,
            "round trips",
        ),
    ]
    return Part(
        "N-EVENT-REPORT",
        "Change State while one subscriber listens on a kept association, medians. The moment of the commit is not "
        "visible from outside; as it comes before the answer, the time by which the event is later than the answer, "
        "and one whole round trip of the bare transport for the way of the answer, is an upper bound. The floor is "
        "one N-ACTION round trip with a pynetdicom AE.",
        rows,
    )


def _round_trip(port: int, attempts: int) -> float:
    return median(rates(port, 1, attempts, 200)["Change State (times)"])


def _events(orthanc: RealOrthanc, listening: int) -> Rates:
    return run_client(
        client_dimse.events,
        port=orthanc.ups_dicom_port,
        listening=listening,
        count=200,
        run=f"2.{next(_runs)}",
    )


PARTS: dict[str, Callable[[str, int], Part]] = {"dimse": messages, "events": events}
