# SPDX-License-Identifier: AGPL-3.0-or-later
"""A TCP port that stays open: when there are no free file descriptors, and when its socket is lost.

asyncio's own server logs a failed accept(2) once per slot of its backlog, and has no limit that several ports
share. Therefore connections are accepted here and then passed to asyncio.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Final, cast

from .descriptors import Share
from .logs import Seldom

_log = logging.getLogger("orthanc_ups")
_BACKLOG: Final = 1024  # connections that wait in the kernel
_AT_ONCE: Final = 64  # connections that are accepted before the loop runs other tasks
ACCEPT_AGAIN: Final = 0.5  # seconds
LOOK_EVERY: Final = 2.0  # seconds
_LOST: Final = (errno.EBADF, errno.EINVAL, errno.ENOTSOCK)


class TcpListener:
    """Listens on one port, on the loop, and creates a protocol for each connection."""

    def __init__(
        self,
        name: str,
        address: tuple[str | None, int],
        protocol: Callable[[], asyncio.BaseProtocol],
        share: Share,
        *,
        refusal: bytes,
        tls: ssl.SSLContext | None = None,
        handshake: float | None = None,
    ) -> None:
        """Prepare, without listening.

        Args:
            name: the name of the service, for the log.
            address: host (None: every address of this machine) and port.
            protocol: creates the asyncio protocol for a connection.
            share: its share of the process's file descriptors.
            refusal: sent to a client if there are too many connections; not over TLS.
            tls: the context for TLS; None for plain TCP.
            handshake: seconds that a TLS handshake may take.
        """
        self._name = name
        self._address = address
        self._protocol = protocol
        self._share = share
        self._refusal = refusal
        self._tls = tls
        self._handshake = handshake if tls else None
        self._sockets: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._watching: asyncio.Task[None] | None = None
        self._seldom = Seldom(_log)

    @property
    def is_open(self) -> bool:
        """True while the port accepts connections."""
        return bool(self._sockets) and all(map(_is_listening, self._sockets))

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return self._share.in_use

    @property
    def port(self) -> int:
        """The TCP port."""
        return int(self._sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Listen. Raises OSError if the port is in use or the address is not one of this machine."""
        await self._open()
        self._watching = asyncio.create_task(self._watch())

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        # asyncio binds every address of a host, but does not accept connections here.
        server = await loop.create_server(self._protocol, *self._address, start_serving=False)
        self._sockets = [_duplicate(bound) for bound in server.sockets]
        server.close()
        for listening in self._sockets:
            listening.setblocking(False)
            listening.listen(_BACKLOG)
            loop.add_reader(listening, self._accept, listening)

    async def close(self) -> None:
        """Stop accepting connections; open ones stay open."""
        if self._watching is not None:
            self._watching.cancel()
        self._shut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _shut(self) -> None:
        loop = asyncio.get_running_loop()
        for listening in self._sockets:
            with contextlib.suppress(OSError, ValueError):  # its descriptor may be lost
                loop.remove_reader(listening)
            with contextlib.suppress(OSError):
                listening.close()
        self._sockets = []

    async def _watch(self) -> None:
        """Reopen the port whenever anything but ``close`` has closed it."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            if self.is_open:
                continue
            try:
                self._shut()
                await self._open()
                _log.error("the port of %s was closed by something else; it is open again", self._name)
            except OSError as error:
                self._seldom.warning(
                    "the port of %s was closed by something else; cannot open it yet: %s", self._name, error
                )

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(listening, error)
                return
            self._admit(connection)

    def _pause(self, listening: socket.socket, error: OSError) -> None:
        """Stop accepting for a while; clients wait in the kernel. ``_watch`` replaces a lost socket."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening)
        if error.errno not in _LOST:
            self._seldom.warning("%s cannot accept connections now; trying again: %s", self._name, error)
            loop.call_later(ACCEPT_AGAIN, self._resume, listening)

    def _resume(self, listening: socket.socket) -> None:
        if listening in self._sockets and listening.fileno() >= 0:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _admit(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        counted = self._share.take(connection)
        if counted is None:
            self._refuse(connection)
            return
        task = asyncio.create_task(self._serve(counted))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                self._protocol, connection, ssl=self._tls, ssl_handshake_timeout=self._handshake
            )
        except (OSError, TimeoutError) as error:
            _log.debug("A connection to %s failed: %s", self._name, error)
            connection.close()
        except asyncio.CancelledError:
            connection.close()
            raise

    def _refuse(self, connection: socket.socket) -> None:
        self._seldom.warning(
            "too many connections: more than %d to %s are refused, so that Orthanc has file descriptors left",
            self._share.in_use,
            self._name,
        )
        with contextlib.suppress(OSError), connection:
            if self._tls is None:
                connection.send(self._refusal)
                connection.shutdown(socket.SHUT_WR)


def aborter(transport: asyncio.BaseTransport) -> Callable[[], None]:
    """A function that ends a connection at once, even with unsent data. Call this while the connection is open.

    ``transport.abort()`` is not enough over TLS: a transport that is closed twice, as easily happens between aiohttp
    and this package, forgets its connection. Then ``abort`` does nothing, or raises AttributeError (CPython 3.11.2),
    and the connection stays open until the peer answers or 30 seconds have passed.
    """
    connection = transport.get_extra_info("socket")

    def abort() -> None:
        with contextlib.suppress(AttributeError):
            cast("asyncio.WriteTransport", transport).abort()
        if connection is not None:
            with contextlib.suppress(OSError):  # it is closed
                connection.shutdown(socket.SHUT_RDWR)

    return abort


def _is_listening(candidate: socket.socket) -> bool:
    try:
        return candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
    except OSError:
        return False


def _duplicate(bound: socket.socket) -> socket.socket:
    return socket.fromfd(bound.fileno(), bound.family, bound.type, bound.proto)
