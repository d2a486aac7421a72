# SPDX-License-Identifier: AGPL-3.0-or-later
"""The ports of delivery: channels that carry an event to a Receiving AE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Sequence

from ..core.events import Event


class Unreachable(Exception):
    """The receiver could not be told now; the event stays and is tried again. The text says why, in words."""


class Refused(Exception):
    """The receiver has the event and says that it will never take it; trying again is of no use."""


class Channel(Protocol):
    """One way to a Receiving AE: N-EVENT-REPORT, WebSocket or webhook.

    Attributes:
        name: ``"dimse"``, ``"websocket"``, ``"webhook:NAME"``; part of the stored cursor's key.
    """

    name: str

    def serves(self, receiving_ae: str) -> bool:
        """True if this channel has an address for the AE now (it may still be down)."""
        ...

    async def deliver(self, receiving_ae: str, events: Sequence[Event]) -> int:
        """Carry the events in order and return how many were taken (at least one).

        Raises:
            Unreachable: none was taken; try later.
            Refused: the first was refused for good; go on behind it.
        """
        ...

    async def close(self) -> None:
        """Let go of every connection, within a second or two."""
        ...


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A Receiving AE on one channel: what has its own queue, cursor and worker."""

    receiving_ae: str
    channel: str
