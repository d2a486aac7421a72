# SPDX-License-Identifier: AGPL-3.0-or-later
"""The delivery channel to open notification connections (PS3.18 §8.10, §11.13).

Every socket of an AE gets every event. A batch counts as delivered when one of them has confirmed it; sockets that
do not answer a ping in time, or lag too far behind, are cut off without holding up the others.

A socket that was opened with ``?since=N`` first gets the replay behind N. What is delivered meanwhile waits, and
what the peer has already (up to N by its own word, beyond by the replay) is left out: no gap, no repeat.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Final

from ..codecs import event_json
from ..core.events import Event
from ..delivery.port import WEBSOCKET, Fence, Unreachable, no_fence
from ..settings import Settings
from . import websocket_frames as frames
from .websocket_connection import LINGER, Connection, Numbered, SocketLimits

_log = logging.getLogger("orthanc_ups.dicomweb.web_socket")
_REMEMBERED: Final = 1024  # encoded events
_FIRST_ANSWER: Final = 0.5  # seconds for the socket that is pinged first; then all are


class _Batch:
    """Events on their way to the sockets of one AE.

    Attributes:
        number: pings with greater numbers were sent after it.
        holders: the sockets that got it, or will get it after their replay.
        witness: the socket that was pinged first.
    """

    def __init__(self, events: Numbered, number: int) -> None:
        self.events = events
        self.joined = b"".join(frame for _, frame in events)
        self.number = number
        self.holders: set[Connection] = set()
        self.witness: Connection | None = None
        self.confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settle(self, failure: str = "") -> None:
        """Record that the batch has arrived at a socket, or that it cannot."""
        if not self.confirmed.done():
            if failure:
                self.confirmed.set_exception(Unreachable(failure))
            else:
                self.confirmed.set_result(None)


class WebSocketChannel:
    """Implements delivery.port.Channel. Lives on one asyncio loop.

    Attributes:
        is_closing: True once no more sockets are taken.
    """

    name = WEBSOCKET

    def __init__(self, settings: Settings, fence: Fence = no_fence) -> None:
        self.is_closing = False
        self._fence = fence
        self._limits = SocketLimits(
            settings.web_socket_queue, settings.maximum_body_size, settings.web_socket_ping
        )
        self._open: dict[str, dict[Connection, None]] = {}
        self._batches: dict[str, _Batch] = {}
        self._encoded: dict[int, tuple[Event, bytes]] = {}
        self._number = 0
        self._sweeper: asyncio.Task[None] | None = None

    # --- the channel of delivery ---

    def serves(self, receiving_ae: str) -> bool:
        """True if a socket of the AE is open."""
        return receiving_ae in self._open

    async def deliver(self, receiving_ae: str, events: Sequence[Event]) -> int:
        """Write events to every socket of the AE; returns how many, when one socket has confirmed them.

        Raises:
            Unreachable: no socket is open, or none confirmed in time (they are cut off then).
        """
        batch = _Batch(self._numbered(events[: self._slice]), self._next_number())
        self._fence()  # nothing is awaited between this and the first byte
        self._batches[receiving_ae] = batch
        try:
            for connection in list(self._open.get(receiving_ae, ())):
                self._hand(batch, connection)
            await self._confirmation(batch)
        finally:
            del self._batches[receiving_ae]
        return len(batch.events)

    async def close(self) -> None:
        """Tell every peer that the server is going away, and close the connections, within about a second."""
        self.is_closing = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        leaving = list(self.connections())
        for connection in leaving:
            connection.close(frames.GOING_AWAY, "the server is shutting down")
        for batch in self._batches.values():
            batch.settle("the server is shutting down")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._all_gone(), LINGER)
        for connection in leaving:
            connection.cut()

    async def _all_gone(self) -> None:
        while self._open:
            await next(self.connections()).gone.wait()

    # --- for the listener ---

    def connections(self) -> Iterator[Connection]:
        """Every open socket."""
        for group in self._open.values():
            yield from group

    def open(self, receiving_ae: str, transport: asyncio.Transport, *, replaying: bool = False) -> Connection:
        """A socket was opened; with ``replaying`` it gets live events once ``catch_up`` is through."""
        connection = Connection(receiving_ae, transport, self._limits, self._on_pong, replaying)
        self._open.setdefault(receiving_ae, {})[connection] = None
        batch = self._batches.get(receiving_ae)
        if batch is not None and replaying:  # it may land before the replay looks at what waits
            self._hand(batch, connection)
        if self._sweeper is None or self._sweeper.done():
            self._sweeper = asyncio.get_running_loop().create_task(self._sweep())
        _log.info("%s opened a WebSocket%s", receiving_ae, " and is catching up" if replaying else "")
        return connection

    def forget(self, connection: Connection) -> None:
        """Remove a socket that is closed. May be called twice."""
        ae = connection.receiving_ae
        group = self._open.get(ae, {})
        if connection not in group:
            return
        del group[connection]
        connection.end()
        if not group:
            del self._open[ae]
        batch = self._batches.get(ae)
        if batch is not None:
            self._let_go(batch, connection)
        _log.info("a WebSocket of %s is closed, %d left", ae, len(group))

    async def catch_up(self, connection: Connection, since: int, missed: AsyncIterator[list[Event]]) -> None:
        """Send what the AE missed after a sequence, at the pace of the peer, then switch to live events."""
        position = since
        async for events in missed:
            fresh = self._numbered([event for event in events if event.sequence > position])
            for start in range(0, len(fresh), self._slice):
                connection.send_replayed(fresh[start : start + self._slice])
                if not await self._has_arrived(connection):
                    return
            position = fresh[-1][0] if fresh else position
        connection.go_live(position, self._next_number(), _now())

    async def _has_arrived(self, connection: Connection) -> bool:
        number = self._next_number()
        connection.ping(number, _now())
        while not connection.has_confirmed(number, live=False):
            if connection.is_closing:
                return False
            connection.news.clear()
            await connection.news.wait()
        return True

    # --- batches ---

    @property
    def _slice(self) -> int:
        """How many events a socket may get at once, so that these alone are no reason to cut it off."""
        return max(1, self._limits.events // 4)

    def _numbered(self, events: Sequence[Event]) -> Numbered:
        return [(event.sequence, self._frame(event)) for event in events]

    def _frame(self, event: Event) -> bytes:
        """The frame of an event, made once for all sockets."""
        encoded = self._encoded.get(event.sequence)
        if encoded is not None and encoded[0] is event:
            return encoded[1]
        if len(self._encoded) >= _REMEMBERED:
            self._encoded.clear()
        frame = frames.text(event_json.encode(event))
        self._encoded[event.sequence] = (event, frame)
        return frame

    def _hand(self, batch: _Batch, connection: Connection) -> None:
        connection.send(batch.events, batch.joined)
        if connection.is_closing:
            return
        batch.holders.add(connection)
        if connection.is_far_ahead:
            connection.ping(self._next_number(), _now())

    async def _confirmation(self, batch: _Batch) -> None:
        """Ask the most promising socket, and soon all, whether the batch has arrived."""
        if not batch.holders:
            raise Unreachable("no WebSocket is open")
        prompt = next((socket for socket in batch.holders if socket.is_prompt), None)
        batch.witness = prompt or min(batch.holders, key=lambda socket: socket.doubt)
        batch.witness.ping(self._next_number(), _now())
        done, _ = await asyncio.wait((batch.confirmed,), timeout=_FIRST_ANSWER)
        if not done:
            self._ask_all(batch)
        await batch.confirmed

    def _ask_all(self, batch: _Batch) -> None:
        for connection in batch.holders:
            connection.ping(self._next_number(), _now())

    def _on_pong(self, connection: Connection) -> None:
        batch = self._batches.get(connection.receiving_ae)
        if batch is not None and connection in batch.holders and connection.has_confirmed(batch.number):
            batch.settle()

    def _let_go(self, batch: _Batch, connection: Connection) -> None:
        batch.holders.discard(connection)
        if not batch.holders:
            batch.settle("no WebSocket confirmed the events")
        elif connection is batch.witness:
            self._ask_all(batch)

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    # --- keeping sockets alive ---

    async def _sweep(self) -> None:
        while self._open:
            await asyncio.sleep(self._limits.patience / 4)
            for connection in list(self.connections()):
                if connection.is_overdue(_now()):
                    _log.warning("a WebSocket of %s does not answer; closing it", connection.receiving_ae)
                    connection.cut()
                elif connection.wants_ping(_now()):
                    connection.ping(self._next_number(), _now())


def _now() -> float:
    return asyncio.get_running_loop().time()
