# SPDX-License-Identifier: AGPL-3.0-or-later
"""The DIMSE client of the bench: never the bottleneck, in a process of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import DataSet, element
from orthanc_ups.dimse.message import AFFECTED_INSTANCE, Message
from tests.bench.measuring import answer, spent
from tests.bench.receivers import Receivers
from tests.support.load_plan import with_transaction
from tests.support.raw_dimse import EventListener, RawScu, encoded, state_change, subscription, together
from tests.support.workitems import UID_ROOT, full, minimal, progress

_DONE = (0x0000, 0xB300, 0xB305)
_COME_BACK = 0x0213
_ATTEMPTS, _PAUSE = 1_000, 0.02  # seconds
_PATIENCE = 120.0  # seconds
_TRANSACTION = f"{UID_ROOT}.99"
_CREATION = encoded(full())
_SHORT_CREATION = encoded(minimal())
_CLAIM = state_change("IN PROGRESS", _TRANSACTION)
_PROGRESS = encoded(with_transaction(progress(), _TRANSACTION))

Step = Callable[[RawScu, str], Awaitable[int]]


async def _create(scu: RawScu, uid: str) -> int:
    return await scu.create(uid, _CREATION)


async def _claim(scu: RawScu, uid: str) -> int:
    return await scu.action(1, uid, _CLAIM)


async def _set(scu: RawScu, uid: str) -> int:
    return await scu.set(uid, _PROGRESS)


async def _get(scu: RawScu, uid: str) -> int:
    return (await scu.get(uid))[0]


_STEPS: dict[str, Step] = {
    "N-CREATE": _create,
    "Change State": _claim,
    "N-SET": _set,
    "N-GET": _get,
}


async def life(port: int, associations: int, each: int, run: str, pid: int = 0) -> dict[str, list[float]]:
    """Messages per second of each operation, every association working on workitems of its own.

    Also, under ``name (times)``, the seconds that each single message took, and for a process ``pid`` of the server
    the seconds of a processor per message: ``name (loop)`` of the plugin's loop, ``name (process)`` of everything.
    """
    scus = [await RawScu.open(port, "BENCH") for _ in range(associations)]
    result: dict[str, list[float]] = {}
    for name, step in _STEPS.items():
        times: list[float] = []

        async def work(number: int, step: Step = step, times: list[float] = times) -> None:
            for count in range(each):
                begun = time.perf_counter()
                status = await _persistent(step, scus[number], f"{UID_ROOT}.{run}.{number}.{count}")
                times.append(time.perf_counter() - begun)
                assert status in _DONE, f"{status:04X}"

        cpu, begun = spent(pid), time.perf_counter()
        await together(associations, work)
        result[name] = [associations * each / (time.perf_counter() - begun)]
        result[f"{name} (times)"] = times
        for what, seconds in spent(pid).items():
            result[f"{name} ({what})"] = [(seconds - cpu[what]) / (associations * each)]
    for scu in scus:
        await scu.association.release()
    return result


async def _persistent(step: Step, scu: RawScu, uid: str) -> int:
    """Ask again while the worklist is being opened, as on a machine too busy to keep a lease."""
    for _ in range(_ATTEMPTS):
        status = await step(scu, uid)
        if status != _COME_BACK:
            return status
        await asyncio.sleep(_PAUSE)
    return _COME_BACK


async def find(port: int, identifier: DataSet, target: int, repeat: int) -> dict[str, list[float]]:
    """Seconds from a C-FIND until the match ``target``, or the end if there are fewer; and the numbers of matches."""
    times: list[float] = []
    counts: list[float] = []
    async with await RawScu.open(port, "BENCH") as scu:
        wanted = encoded(identifier)
        for _ in range(repeat):
            begun, elapsed, count = time.perf_counter(), 0.0, 0
            async for _ in scu.matches(wanted, target):
                count += 1
                elapsed = elapsed or (time.perf_counter() - begun if count == target else 0.0)
            times.append(elapsed or time.perf_counter() - begun)
            counts.append(min(count, target))
    return {"times": times, "counts": counts}


async def events(port: int, listening: int, count: int, run: str) -> dict[str, list[float]]:
    """Seconds from the request to its answer, and from the request to the N-EVENT-REPORT, for each Change State."""
    reported_at: dict[str, float] = {}
    arrived = asyncio.Event()

    def took(_: str, message: Message) -> None:
        reported_at[message.text(AFFECTED_INSTANCE)] = time.perf_counter()
        arrived.set()

    listener = EventListener("LISTENER", took, listening)
    await listener.start()
    answered, reported = [], []
    async with await RawScu.open(port, "BENCH") as scu:
        await scu.action(3, tags.GLOBAL_SUBSCRIPTION, subscription("LISTENER"), on=tags.WATCH)
        for number in range(count):
            uid = f"{UID_ROOT}.{run}.{number}"
            await scu.create(uid, _SHORT_CREATION)  # told by one event, as the claim is
            while uid not in reported_at:
                arrived.clear()
                await arrived.wait()
            del reported_at[uid]
            begun = time.perf_counter()
            await _claim(scu, uid)
            answered.append(time.perf_counter() - begun)
            while uid not in reported_at:
                arrived.clear()
                await arrived.wait()
            reported.append(reported_at[uid] - begun)
        await scu.action(4, tags.GLOBAL_SUBSCRIPTION, _for("LISTENER"), on=tags.WATCH)
    await listener.stop()
    return {"answered": answered, "reported": reported}


def _for(receiving_ae: str) -> bytes:
    return encoded({tags.RECEIVING_AE: element("AE", receiving_ae)})


async def crowd(
    port: int, listening: int, subscribers: int, count: int, run: str, pid: int = 0
) -> dict[str, list[float]]:
    """N-EVENT-REPORTs per second while one association changes states and each change has so many subscribers.

    They are ``LISTENER0`` and so on, all at one port. Of a process ``pid`` of the server the seconds of a processor
    per report, those for the change of state included, as ``life`` has them: ``reports (loop)``.
    """
    receivers = Receivers(listening)
    await receivers.start()
    names = [f"LISTENER{number}" for number in range(subscribers)]
    uids = [f"{UID_ROOT}.{run}.{number}" for number in range(count)]
    async with await RawScu.open(port, "BENCH") as scu:
        for name in names:
            await scu.action(3, tags.GLOBAL_SUBSCRIPTION, subscription(name), on=tags.WATCH)
        for uid in uids:
            await scu.create(uid, _SHORT_CREATION)
        created = subscribers * count
        await receivers.wait(created, _PATIENCE)
        cpu, begun = spent(pid), time.perf_counter()
        for uid in uids:
            await _claim(scu, uid)
        await receivers.wait(2 * created, _PATIENCE)
        result = {"reports": [created / (time.perf_counter() - begun)]}
        for what, seconds in spent(pid).items():
            result[f"reports ({what})"] = [(seconds - cpu[what]) / created]
        for name in names:
            await scu.action(4, tags.GLOBAL_SUBSCRIPTION, _for(name), on=tags.WATCH)
    await receivers.stop()
    return result


if __name__ == "__main__":
    answer(life, find, events, crowd)
