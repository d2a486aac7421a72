# SPDX-License-Identifier: AGPL-3.0-or-later
"""The HTTP and WebSocket client of the bench, in a process of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import element
from tests.bench.measuring import answer
from tests.support import raw_http
from tests.support.load_plan import as_json, with_transaction
from tests.support.raw_dimse import together
from tests.support.raw_http import RawHttp, Socket
from tests.support.workitems import UID_ROOT, full, minimal

_TRANSACTION = f"{UID_ROOT}.99"
_CREATION = as_json(full())
_SHORT_CREATION = as_json(minimal())
_CLAIM = as_json(with_transaction({tags.STATE: element("CS", "IN PROGRESS")}, _TRANSACTION))
_WORKITEMS = "/dicom-web/workitems"


def _create(uid: str) -> bytes:
    return raw_http.request("POST", f"{_WORKITEMS}?{uid}", _CREATION)


def _claim(uid: str) -> bytes:
    return raw_http.request("PUT", f"{_WORKITEMS}/{uid}/state", _CLAIM)


def _retrieve(uid: str) -> bytes:
    return raw_http.request("GET", f"{_WORKITEMS}/{uid}", Accept="application/dicom+json")


_STEPS = {"create": _create, "change state": _claim, "retrieve": _retrieve}


async def life(port: int, connections: int, each: int, run: str) -> dict[str, list[float]]:
    """Requests per second of each transaction, and under ``name (times)`` the seconds of each."""
    open_ones = [await RawHttp.open(port) for _ in range(connections)]
    found: dict[str, list[float]] = {}
    for name, made in _STEPS.items():
        requests = [
            [made(f"{UID_ROOT}.{run}.{number}.{count}") for count in range(each)]
            for number in range(connections)
        ]
        found |= await _timed(name, open_ones, requests)
    return found


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


async def fan_out(
    port: int, sockets: int, changes: int, path: str, target: str, run: str
) -> dict[str, list[float]]:
    """Open sockets, then make changes one after the other: seconds until every socket has each (``times``).

    ``target`` is what is POSTed to; empty means a workitem of our own.
    """
    counter = _Counter(sockets)
    open_ones = [await Socket.open(port, path, counter.took) for _ in range(sockets)]
    connection = await RawHttp.open(port)
    times = []
    for number in range(changes):
        request = _announced(target, f"{UID_ROOT}.{run}.{number}")
        counter.start()
        begun = time.perf_counter()
        status, body = await connection.send(request)
        assert status in (200, 201), f"{status} {body[:300]!r}"
        await counter.all_have_it()
        times.append(time.perf_counter() - begun)
    for socket in open_ones:
        socket.close()
    return {"times": times}


def _announced(target: str, uid: str) -> bytes:
    """A change that is told by exactly one event."""
    if target:
        return raw_http.request("POST", target, b"{}")
    return raw_http.request("POST", f"{_WORKITEMS}?{uid}", _SHORT_CREATION)


class _Counter:
    """Counts what the sockets get."""

    def __init__(self, sockets: int) -> None:
        self._sockets = sockets
        self._left = 0
        self._done = asyncio.Event()

    def start(self) -> None:
        self._left += self._sockets
        self._done.clear()

    def took(self, _: bytes) -> None:
        self._left -= 1
        if self._left <= 0:
            self._done.set()

    async def all_have_it(self) -> None:
        if self._left > 0:
            async with asyncio.timeout(30):
                await self._done.wait()


if __name__ == "__main__":
    answer(life, repeated, fan_out)
