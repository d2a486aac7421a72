# SPDX-License-Identifier: AGPL-3.0-or-later
"""From the handshake of a notification connection to its end (PS3.18 §8.10, RFC 6455)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Callable, Collection
from typing import Final, Protocol, TypeAlias

from aiohttp import WSMsgType
from aiohttp.web import BaseRequest, StreamResponse, WebSocketResponse

from ..core.events import Event
from .aiohttp_server import SERVER, is_handshake
from .answers import warning
from .parameters import CONNECTION, Parameters, ignored_warning
from .response import HttpProblem
from .websocket_channel import WebSocketChannel
from .websocket_connection import Connection

_log = logging.getLogger("orthanc_ups.dicomweb.web_socket")
LARGEST_MESSAGE: Final = 64 * 1024
"""Bytes; agents have nothing to say here."""
_INTERNAL_ERROR: Final = 1011
_GOODBYE: Final = 2.0  # seconds
_VERSION: Final = "13"
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
Replay: TypeAlias = Callable[[str, int], AsyncIterator[list[Event]]]
"""Every kept event for an AE behind a sequence, in order, up to those released by now."""
_ENDS: Final = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR)


class NotificationSessions(Protocol):
    """Serves notification connections."""

    async def serve(
        self, request: BaseRequest, receiving_ae: str, query: str, service: str
    ) -> StreamResponse:
        """Shake hands and stay until the socket is closed. Raises HttpProblem."""
        ...


class WebSocketSessions:
    """Opens sockets for the channel and reads what their peers send."""

    def __init__(
        self,
        channel: WebSocketChannel,
        replay: Replay,
        opened: Callable[[str], object],
        tokens: Collection[str] = (),
    ) -> None:
        """Args:
        channel: delivers to the sockets.
        replay: reads what an AE has missed, for ``?since=``.
        opened: called with the AE title when a socket is open.
        tokens: names in queries that belong to others.
        """
        self._channel = channel
        self._replay = replay
        self._opened = opened
        self._tokens = frozenset(name.lower() for name in tokens)

    async def serve(
        self, request: BaseRequest, receiving_ae: str, query: str, service: str
    ) -> StreamResponse:
        """Shake hands and stay until the socket is closed. ``service`` is the base URI of the service.

        Of the subprotocols that a client offers the first is chosen: a client that offers some hangs up if none is,
        and events look the same in all (PS3.18 §8.10.4.1).

        Raises:
            HttpProblem: 400 if this is not a proper handshake, 426 for another version of the protocol than 13, 503
                while the server stops.
        """
        parameters = Parameters.of(query)
        since = parameters.count("since")
        socket = WebSocketResponse(
            protocols=offered(request)[:1],
            autoping=False,
            compress=False,
            max_msg_size=LARGEST_MESSAGE,
            timeout=_GOODBYE,
        )
        socket.headers["Server"] = SERVER
        _check_version(request)
        if not is_handshake(socket, request):
            raise HttpProblem(400, "a notification connection is opened by a WebSocket handshake (RFC 6455)")
        if self._channel.is_closing:
            raise HttpProblem(503, "the server is shutting down", (("Retry-After", "10"),))
        ignored = ignored_warning(name for name, _ in parameters.without(CONNECTION | self._tokens))
        if ignored:
            socket.headers.add(*warning(service, ignored))
        try:
            await socket.prepare(request)
        except ConnectionError:  # nobody will read this answer
            raise HttpProblem(400, "the connection was lost during the handshake") from None
        if request.transport is not None:
            await self._stay(socket, request.transport, receiving_ae, since)
        return socket

    async def _stay(
        self, socket: WebSocketResponse, transport: asyncio.Transport, receiving_ae: str, since: int | None
    ) -> None:
        connection = self._channel.open(receiving_ae, transport, replaying=since is not None)
        self._opened(receiving_ae)
        catching_up = None
        if since is not None:
            catching_up = asyncio.get_running_loop().create_task(self._catch_up(connection, since))
        try:
            await _read(socket, connection)
        finally:
            self._channel.forget(connection)
            if catching_up is not None:
                catching_up.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await catching_up

    async def _catch_up(self, connection: Connection, since: int) -> None:
        try:
            await self._channel.catch_up(connection, since, self._replay(connection.receiving_ae, since))
        except Exception:
            _log.exception("Cannot send %s the events that it missed", connection.receiving_ae)
            connection.close(_INTERNAL_ERROR, "missed events cannot be read now")


def offered(request: BaseRequest) -> list[str]:
    """The subprotocols that a client offers, in its order."""
    names = request.headers.get("Sec-WebSocket-Protocol", "").split(",")
    return [name.strip() for name in names if _TOKEN.fullmatch(name.strip())]


def _check_version(request: BaseRequest) -> None:
    """Refuse every version but 13 (RFC 6455 §4.4). Raises HttpProblem 426."""
    version = request.headers.get("Sec-WebSocket-Version", _VERSION).strip()
    if version != _VERSION:
        headers = (("Sec-WebSocket-Version", _VERSION), ("Upgrade", "websocket"), ("Connection", "Upgrade"))
        detail = f"WebSocket version {version[:20]!r} is not supported, expected {_VERSION} (RFC 6455)"
        raise HttpProblem(426, detail, headers)


async def _read(socket: WebSocketResponse, connection: Connection) -> None:
    """Read pings and pongs; everything else that a client sends is ignored, as the connection is one-way."""
    while True:
        message = await socket.receive()
        if message.type is WSMsgType.PONG:
            connection.take_pong(message.data)
        elif message.type is WSMsgType.PING:
            connection.take_ping(message.data)
        elif message.type in _ENDS:
            return
