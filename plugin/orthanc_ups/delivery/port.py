# SPDX-License-Identifier: AGPL-3.0-or-later
"""The interfaces that delivery uses: channels to Receiving AEs, sources of events, and the clock."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from ..core.events import Event

WEBSOCKET: Final = "websocket"
"""The name of the channel on which events wait for an AE that no other channel serves."""


class Unreachable(Exception):
    """The receiver cannot be reached now; the event is retried later. The text says why."""


class Refused(Exception):
    """The receiver refused the event; retrying it is pointless. The text says why."""


class Channel(Protocol):
    """A way to reach Receiving AEs: N-EVENT-REPORT, WebSocket or a webhook.

    Attributes:
        name: ``"dimse"``, ``"websocket"``, ``"webhook:NAME"``; part of the stored cursor's key.
    """

    name: str

    def serves(self, receiving_ae: str) -> bool:
        """True if this channel has an address for the AE now (which may be down). Cheap, never blocks."""
        ...

    async def deliver(self, receiving_ae: str, events: Sequence[Event]) -> int:
        """Send the events in order and return how many the AE accepted (at least one).

        Raises:
            Unreachable: none was accepted; retry later.
            Refused: the first was refused; continue with the next.
        """
        ...

    async def close(self) -> None:
        """Close every connection, within a second or two."""
        ...


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A Receiving AE on one channel. Each endpoint has its own queue, cursor and worker."""

    receiving_ae: str
    channel: str

    def __str__(self) -> str:
        return f"{self.receiving_ae} ({self.channel})"


@dataclass(frozen=True, slots=True)
class Burst:
    """The initial State Reports of a global subscribe with Deletion Lock (PS3.4 CC.2.3), not stored.

    Sequence ``first + c`` belongs to the workitem with creation number ``c``.

    Attributes:
        first: sequence of the act; the reports have ``first + 1`` … ``first + through``.
        through: the highest creation number at that time.
        act: the sequence that identifies the act in the AE's log.
        at: when the AE subscribed, in seconds since the epoch; 0 if unknown (it then never expires).
    """

    receiving_ae: str
    first: int
    through: int
    act: int
    at: float = 0.0

    @property
    def sequence(self) -> int:
        """Its position among events."""
        return self.first

    @property
    def receivers(self) -> tuple[str, ...]:
        """The Receiving AE."""
        return (self.receiving_ae,)

    @property
    def last(self) -> int:
        """The last sequence of its reports."""
        return self.first + self.through


class BurstSource(Protocol):
    """Makes initial State Reports; implemented by the worklist."""

    async def burst(self, burst: Burst, after: int, limit: int) -> list[Event]:
        """The next reports of a burst, with current states, by sequence.

        Args:
            burst: the burst.
            after: the sequence after which to continue.
            limit: the greatest number of reports to return.

        Returns:
            Reports on workitems to which the act subscribed the AE; none if there are no more.
        """
        ...


class EventLog(Protocol):
    """The events of the last ``ReplayWindow``; implemented by the projection."""

    async def events(self, after: int, limit: int) -> list[Event]:
        """Up to ``limit`` events with a sequence greater than ``after``, to any receivers, by sequence."""
        ...


class Clock(Protocol):
    """Time and randomness."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment; never goes backwards."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...

    def random(self) -> float:
        """A number in [0, 1)."""
        ...


Fence: TypeAlias = Callable[[], None]
"""Called by a channel right before it sends an event. Raises Unreachable if another node is now responsible."""


def no_fence() -> None:
    """The fence of an Orthanc outside a cluster: never raises."""


OnDelivered: TypeAlias = Callable[[Endpoint, Event, float], None]
"""Called for each delivered event, with the seconds since it was committed."""


# Not Python's shared generator, which a test may seed.
_RANDOM: Final = random.SystemRandom()


class SystemClock:
    """The ``Clock`` of a running plugin."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment; never goes backwards."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    def random(self) -> float:
        """A number in [0, 1)."""
        return _RANDOM.random()
