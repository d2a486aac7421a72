# SPDX-License-Identifier: AGPL-3.0-or-later
"""Delivery in virtual time: a clock that a test advances, channels that fail on demand, a small worklist."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypeVar

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import element
from orthanc_ups.core.events import Event, EventType
from orthanc_ups.delivery.documents import decode_progress
from orthanc_ups.delivery.management import DeliveryManagement
from orthanc_ups.delivery.outbox import Delivery
from orthanc_ups.delivery.port import Burst, Channel, Refused, Unreachable
from orthanc_ups.settings import Settings
from orthanc_ups.store.port import Entry
from tests.support.memory_store import InMemoryEntries

NOON = 1_795_000_000.0
T = TypeVar("T")


async def settle() -> None:
    """Let the loop run until every task waits for time to pass."""
    ready = getattr(asyncio.get_running_loop(), "_ready")  # noqa: B009 - there is no public way to ask
    for _ in range(100_000):
        await asyncio.sleep(0)
        if not ready:
            return
    raise AssertionError("something runs in circles")


class VirtualClock:
    """Time that passes only when a test says so. ``now`` may be set; ``monotonic`` may not go back."""

    def __init__(self) -> None:
        self.wall = NOON
        self.passed = 0.0
        self.chance = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._ids = count()

    def now(self) -> float:
        return self.wall + self.passed

    def monotonic(self) -> float:
        return self.passed

    def random(self) -> float:
        return self.chance

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.passed + seconds, next(self._ids), waiting))
        await waiting

    async def advance(self, seconds: float) -> None:
        """Let time pass; sleeping tasks wake at their time."""
        until = self.passed + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= until:
            at, _, waiting = heapq.heappop(self._sleepers)
            self.passed = max(self.passed, at)
            if not waiting.done():
                waiting.set_result(None)
            await settle()
        self.passed = until
        await settle()


class ClosingFence:
    """Lets a number of events pass and then refuses, as when another node leads."""

    def __init__(self, count: int) -> None:
        self._left = count

    def __call__(self) -> None:
        if not self._left:
            raise Unreachable("this node no longer leads the worklist")
        self._left -= 1


@dataclass
class TwinChannel:
    """A channel in memory.

    Attributes:
        ae_titles: the AEs that it has an address for.
        down: AEs that cannot be reached now, with the reason.
        refuses: sequences that receivers refuse.
        breaks_on: sequences on which the channel has an error of its own.
        takes: how many events it takes at most in one call.
        holds: if set, ``deliver`` waits for it before anything is taken.
        events: per AE what arrived; ``calls``: the batches as they were handed over.
    """

    name: str
    ae_titles: set[str] = field(default_factory=set)
    down: dict[str, str] = field(default_factory=dict)
    refuses: set[int] = field(default_factory=set)
    breaks_on: set[int] = field(default_factory=set)
    takes: int = 1_000
    holds: dict[str, asyncio.Event] = field(default_factory=dict)
    events: dict[str, list[Event]] = field(default_factory=dict)
    calls: list[tuple[str, list[int]]] = field(default_factory=list)
    closed: bool = False

    def serves(self, receiving_ae: str) -> bool:
        return receiving_ae in self.ae_titles

    async def deliver(self, receiving_ae: str, events: Sequence[Event]) -> int:
        self.calls.append((receiving_ae, [event.sequence for event in events]))
        if receiving_ae in self.holds:
            await self.holds[receiving_ae].wait()
        return self.take(receiving_ae, events)

    def take(self, receiving_ae: str, events: Sequence[Event]) -> int:
        if receiving_ae in self.down:
            raise Unreachable(self.down[receiving_ae])
        count = 0
        for event in events[: self.takes]:
            if event.sequence in self.refuses:
                if not count:
                    raise Refused("0110 processing failure")
                break
            if event.sequence in self.breaks_on:
                if not count:
                    raise ValueError("no such tag")
                break
            self.events.setdefault(receiving_ae, []).append(event)
            count += 1
        return count

    async def close(self) -> None:
        self.closed = True

    def sequences(self, receiving_ae: str) -> list[int]:
        """The sequences of the events that arrived."""
        return [event.sequence for event in self.events.get(receiving_ae, [])]


@dataclass
class TwinLog:
    """The event log and the source of bursts in memory; no workitem ever changes."""

    logged: list[Event] = field(default_factory=list)
    subscribed: dict[int, set[int]] = field(default_factory=dict)
    asked: list[tuple[int, int]] = field(default_factory=list)

    async def events(self, after: int, limit: int) -> list[Event]:
        return [event for event in self.logged if event.sequence > after][:limit]

    async def burst(self, burst: Burst, after: int, limit: int) -> list[Event]:
        self.asked.append((after, limit))
        chosen = self.subscribed.get(burst.act, set(range(1, burst.through + 1)))
        numbers = [
            number for number in sorted(chosen) if burst.first + number > after and number <= burst.through
        ]
        return [
            event(burst.first + number, burst.receiving_ae, uid=f"1.2.{number}", at=burst.at)
            for number in numbers[:limit]
        ]


def event(
    sequence: int,
    *receivers: str,
    kind: EventType = EventType.STATE_REPORT,
    uid: str = "1.2.3",
    at: float = NOON,
) -> Event:
    """An event report with a little content."""
    information = {tags.STATE: element("CS", "IN PROGRESS")}
    return Event(sequence, kind, uid, information, receivers, at)


def progress(sequence: int, *receivers: str, uid: str = "1.2.3", at: float = NOON) -> Event:
    """A Progress Report."""
    return event(sequence, *receivers, kind=EventType.PROGRESS_REPORT, uid=uid, at=at)


def restarted(sequence: int, *receivers: str, at: float = NOON) -> Event:
    """An SCP Status Change."""
    return event(sequence, *receivers, kind=EventType.SCP_STATUS_CHANGE, uid=tags.GLOBAL_SUBSCRIPTION, at=at)


class Bench:
    """Delivery with everything that it needs; ``restart`` is a crash and a new start."""

    def __init__(self, *channels: Channel, settings: Settings | None = None) -> None:
        self.clock = VirtualClock()
        self.entries = InMemoryEntries()
        self.log = TwinLog()
        self.settings = settings or Settings()
        self.channels = channels
        self.delivery = self.new_delivery()

    def new_delivery(self) -> Delivery:
        return Delivery(self.settings, self.channels, self.entries, self.log, self.log, self.clock)

    @property
    def management(self) -> DeliveryManagement:
        return DeliveryManagement(self.delivery)

    async def offer(self, *released: Event | Burst) -> None:
        """Offer events and let them be delivered."""
        self.delivery.offer(released)
        await settle()

    async def restart(self, stored: Iterable[Event] = (), bursts: Iterable[Burst] = ()) -> None:
        """Crash, and start again with what is stored."""
        for worker in self.delivery.workers():
            await worker.stop()
        await self.delivery.cursor_writer.close()
        self.delivery = self.new_delivery()
        await self.delivery.load(await self.stored())
        self.delivery.resume(stored, bursts)
        await settle()

    async def stored(self) -> list[Entry]:
        """Every entry in the store."""
        return [entry async for chunk in self.entries.load() for entry in chunk]


async def cursors(bench: Bench, receiving_ae: str) -> dict[str, int | None]:
    """The stored cursors of an AE by channel."""
    for entry in await bench.stored():
        if entry.key == f"delivery/{receiving_ae}":
            return {name: log.cursor for name, log in decode_progress(entry.document)[2].items()}
    return {}


def run(scenario: Coroutine[Any, Any, T]) -> T:
    """Run a scenario on a loop of its own, and cancel the tasks that it leaves behind."""
    return asyncio.run(scenario)
