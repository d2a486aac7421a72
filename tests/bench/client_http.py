# SPDX-License-Identifier: AGPL-3.0-or-later
"""The HTTP client of the bench, in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Sequence

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import element
from tests.bench.measuring import answer, spent
from tests.support import raw_http
from tests.support.load_plan import as_json, with_transaction
from tests.support.raw_dimse import together
from tests.support.raw_http import RawHttp
from tests.support.workitems import UID_ROOT, full

_TRANSACTION = f"{UID_ROOT}.99"
_CREATION = as_json(full())
_CLAIM = as_json(with_transaction({tags.STATE: element("CS", "IN PROGRESS")}, _TRANSACTION))
_WORKITEMS = "/dicom-web/workitems"


def _create(uid: str) -> bytes:
    return raw_http.request("POST", f"{_WORKITEMS}?{uid}", _CREATION)


def _claim(uid: str) -> bytes:
    return raw_http.request("PUT", f"{_WORKITEMS}/{uid}/state", _CLAIM)


def _retrieve(uid: str) -> bytes:
    return raw_http.request("GET", f"{_WORKITEMS}/{uid}", Accept="application/dicom+json")


_STEPS = {"create": _create, "change state": _claim, "retrieve": _retrieve, "retrieve again": _retrieve}


async def life(
    port: int, connections: int, each: int, run: str, limit: int = 9, pid: int = 0
) -> dict[str, list[float]]:
    """Requests per second of each transaction (or the first ``limit``), under ``name (times)`` the seconds of each, and
    of processor time as ``client_dimse.life`` has it.

    Every workitem is retrieved by the first who asks, and then again, as by everybody who was told of the change.
    """
    open_ones = [await RawHttp.open(port) for _ in range(connections)]
    result: dict[str, list[float]] = {}
    for name, request_of in list(_STEPS.items())[:limit]:
        requests = [
            [request_of(f"{UID_ROOT}.{run}.{number}.{count}") for count in range(each)]
            for number in range(connections)
        ]
        cpu = spent(pid)
        result |= await _timed(name, open_ones, requests)
        for what, seconds in spent(pid).items():
            result[f"{name} ({what})"] = [(seconds - cpu[what]) / (connections * each)]
    return result


async def repeated(port: int, connections: int, each: int, path: str) -> dict[str, list[float]]:
    """The same for one GET, over and over, as ``get``."""
    open_ones = [await RawHttp.open(port) for _ in range(connections)]
    request = raw_http.request("GET", path, Accept="application/dicom+json")
    return await _timed("get", open_ones, [[request] * each] * connections)


async def _timed(
    name: str, connections: Sequence[RawHttp], requests: Sequence[Sequence[bytes]]
) -> dict[str, list[float]]:
    times: list[float] = []

    async def work(number: int) -> None:
        for request in requests[number]:
            begun = time.perf_counter()
            status, body = await connections[number].send(request)
            times.append(time.perf_counter() - begun)
            assert status in (200, 201), f"{name}: {status} {body[:300]!r}"

    begun = time.perf_counter()
    await together(len(connections), work)
    return {name: [len(times) / (time.perf_counter() - begun)], f"{name} (times)": times}


if __name__ == "__main__":
    answer(life, repeated)
