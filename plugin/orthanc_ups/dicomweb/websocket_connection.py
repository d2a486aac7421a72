# SPDX-License-Identifier: AGPL-3.0-or-later
"""One open notification connection: what was written to it, and how much of it the peer has confirmed.

The peer confirms by answering a ping that was sent behind events: as frames arrive in order, its pong says that
everything before it has arrived. Pings carry a number that grows, so a pong also answers those before it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from ..orthanc.listener import aborter
from . import websocket_frames as frames

_NUMBER_SIZE: Final = 8  # bytes
LINGER: Final = 1.0
"""Seconds for a close frame to leave and be answered before the connection is cut."""
_NOT_YET: Final = 2**63

Numbered: TypeAlias = list[tuple[int, bytes]]
"""Events in order: sequence and frame."""


@dataclass(frozen=True, slots=True)
class SocketLimits:
    """How far a peer may lag behind.

    Attributes:
        events: written and not confirmed.
        size: bytes waiting to be sent.
        patience: seconds for a pong, and between two pings.
    """

    events: int
    size: int
    patience: float


@dataclass(frozen=True, slots=True)
class _Ping:
    number: int
    events: int  # written before it, in all
    at: float


class Connection:
    """Writes to one socket, never waits for it, and cuts it off when it lags too far behind.

    Attributes:
        receiving_ae: whose events it gets.
        news: set when a pong arrives or the connection ends.
        gone: set when it has ended.
    """

    def __init__(
        self,
        receiving_ae: str,
        transport: asyncio.Transport,
        limits: SocketLimits,
        on_pong: Callable[[Connection], None],
        replaying: bool = False,
    ) -> None:
        self.receiving_ae = receiving_ae
        self.news = asyncio.Event()
        self.gone = asyncio.Event()
        self._transport = transport
        self._abort = aborter(transport)
        self._limits = limits
        self._on_pong = on_pong
        self._has_through = 0  # the peer has every event up to this sequence, by its own word or by replay
        self._backlog: Numbered | None = [] if replaying else None
        self._live_from = _NOT_YET if replaying else 0
        self._confirmed = 0
        self._pings: deque[_Ping] = deque()
        self._last_ping = 0.0
        self._written = self._pinged = self._arrived = 0

    @property
    def is_closing(self) -> bool:
        """True once the socket was ended, from either side."""
        return self._transport.is_closing()

    @property
    def lag(self) -> int:
        """Events written and not confirmed, and those that wait for the end of a replay."""
        return self._written - self._arrived + len(self._backlog or ())

    @property
    def is_prompt(self) -> bool:
        """True if it is live and no pong is outstanding; all such sockets are equally good."""
        return not self._pings and self._backlog is None

    @property
    def doubt(self) -> tuple[bool, bool, int]:
        """A sort key, lower for a peer that is likely to confirm sooner: live, no pong outstanding, little lag."""
        return self._backlog is not None, bool(self._pings), self.lag

    def has_confirmed(self, number: int, *, live: bool = True) -> bool:
        """True if the peer answered this ping or a later one; ``live``: one sent after the end of a replay."""
        return self._confirmed >= (max(number, self._live_from) if live else number)

    # --- writing ---

    def send(self, events: Numbered, joined: bytes) -> None:
        """Write events, given one by one and joined; or keep them while a replay runs."""
        if self._backlog is not None:
            self._backlog += events
            return self._check()
        if events and events[0][0] <= self._has_through:
            events = [event for event in events if event[0] > self._has_through]
            joined = b"".join(frame for _, frame in events)
        self._written += len(events)
        return self._write(joined)

    def send_replayed(self, events: Numbered) -> None:
        """Write events of a replay, ahead of waiting ones."""
        self._written += len(events)
        self._write(b"".join(frame for _, frame in events))

    def go_live(self, through: int, number: int, now: float) -> None:
        """End a replay that was written up to a sequence: waiting events follow with a ping, then live ones."""
        waited, self._backlog = self._backlog or [], None
        self._has_through, self._live_from = through, number
        self.send(waited, b"".join(frame for _, frame in waited))
        self.ping(number, now)

    def ping(self, number: int, now: float) -> None:
        """Ask the peer to confirm everything written so far."""
        self._pings.append(_Ping(number, self._written, now))
        self._pinged, self._last_ping = self._written, now
        self._write(frames.ping(number.to_bytes(_NUMBER_SIZE, "big")))

    def _write(self, content: bytes) -> None:
        if content and not self._transport.is_closing():
            self._transport.write(content)
            self._check()

    def _check(self) -> None:
        if self.lag > self._limits.events or self._transport.get_write_buffer_size() > self._limits.size:
            self.cut()

    # --- reading ---

    def take_pong(self, payload: bytes) -> None:
        """Handle a pong: the answer to one of our pings, or an unsolicited one."""
        number = int.from_bytes(payload, "big") if len(payload) == _NUMBER_SIZE else 0
        if not any(ping.number == number for ping in self._pings):
            return
        while self._pings and self._pings[0].number <= number:
            self._arrived = self._pings.popleft().events
        self._confirmed = number
        self.news.set()
        self._on_pong(self)

    def take_ping(self, payload: bytes) -> None:
        """Answer a ping of the peer."""
        self._write(frames.pong(payload))

    # --- liveness ---

    def is_overdue(self, now: float) -> bool:
        """True if a ping was not answered in time."""
        return bool(self._pings) and now - self._pings[0].at > self._limits.patience

    def wants_ping(self, now: float) -> bool:
        """True if it is time for a ping: none is outstanding, and events are unconfirmed, or nothing was received."""
        if self._pings:
            return False
        return self._written > self._arrived or now - self._last_ping >= self._limits.patience

    @property
    def is_far_ahead(self) -> bool:
        """True if so much was written since the last ping that another one is due."""
        return self._written - self._pinged > self._limits.events // 4

    def end(self) -> None:
        """Record that nothing will arrive any more."""
        self.gone.set()
        self.news.set()

    def cut(self) -> None:
        """End it at once, whatever is waiting to be sent: the peer reads too slowly or not at all."""
        self._abort()

    def close(self, code: int, reason: str) -> None:
        """End it with a closing handshake; if the peer does not answer, ``cut`` it after LINGER."""
        if not self._transport.is_closing():
            self._transport.write(frames.close(code, reason))
            self._transport.close()
