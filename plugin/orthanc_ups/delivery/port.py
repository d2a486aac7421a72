# SPDX-License-Identifier: AGPL-3.0-or-later
"""The ports of delivery: channels that carry an event to a Receiving AE, where the events come from, and the clock."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from ..core.events import Event

WEBSOCKET: Final = "websocket"
"""Name of the channel that waits for an AE which no other channel serves."""


class Unreachable(Exception):
    """The receiver cannot be reached now; the event stays and is tried again. The text says why."""


class Refused(Exception):
    """The receiver refused the event for good; there is no point in trying again."""


class Channel(Protocol):
    """One way to a Receiving AE: N-EVENT-REPORT, WebSocket or webhook.

    Attributes:
        name: ``"dimse"``, ``"websocket"``, ``"webhook:NAME"``; part of the stored cursor's key.
    """

    name: str

    def serves(self, receiving_ae: str) -> bool:
        """True if this channel has an address for the AE now (it may still be down). Cheap, never blocks."""
        ...

    async def deliver(self, receiving_ae: str, events: Sequence[Event]) -> int:
        """Send the events in order and return how many the AE accepted (at least one).

        Raises:
            Unreachable: none was accepted; try later.
            Refused: the first was refused for good; continue behind it.
        """
        ...

    async def close(self) -> None:
        """Close every connection, within a second or two."""
        ...


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A Receiving AE on one channel: what has its own queue, cursor and worker."""

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
        act: which act of the AE's log it is.
        at: when the act was made, seconds since the epoch; 0 if unknown (then it never grows too old).
    """

    receiving_ae: str
    first: int
    through: int
    act: int
    at: float = 0.0

    @property
    def sequence(self) -> int:
        """The position among events: that of the act."""
        return self.first

    @property
    def receivers(self) -> tuple[str, ...]:
        """The AE alone."""
        return (self.receiving_ae,)

    @property
    def last(self) -> int:
        """The last sequence reserved for this burst."""
        return self.first + self.through


class BurstSource(Protocol):
    """Makes initial State Reports; implemented by the worklist."""

    async def burst(self, burst: Burst, after: int, limit: int) -> list[Event]:
        """The next reports, with the present states, by sequence.

        Args:
            burst: the burst whose reports are made.
            after: a sequence; only reports behind it are returned.
            limit: the greatest number of reports.

        Returns:
            Reports of workitems to which that act subscribed the AE; none if there are no more.
        """
        ...


class EventLog(Protocol):
    """The events of the last ``ReplayWindow``; implemented by the projection."""

    async def events(self, after: int, limit: int) -> list[Event]:
        """Up to ``limit`` events of any receiver with a greater sequence, by sequence."""
        ...


class Clock(Protocol):
    """Time and randomness."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds since some moment; never set back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...

    def random(self) -> float:
        """A number in [0, 1)."""
        ...


Fence: TypeAlias = Callable[[], None]
"""Called by a channel right before an event is sent. Raises Unreachable if another node sends events now."""


def no_fence() -> None:
    """The fence of an Orthanc without a cluster: it never raises."""


OnDelivered: TypeAlias = Callable[[Endpoint, Event, float], None]
"""Called for each delivered event, with the seconds since it was committed."""


# Python's shared generator belongs to whoever seeds it, such as a test.
_RANDOM: Final = random.SystemRandom()


class SystemClock:
    """The ``Clock`` of a running plugin."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since some moment; never set back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    def random(self) -> float:
        """A number in [0, 1)."""
        return _RANDOM.random()
