# SPDX-License-Identifier: AGPL-3.0-or-later
"""PDUs over one connection, plain or TLS (PS3.8 §9.3)."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from typing import Final, Self, cast

from .message import HEADER_SIZE, AbortReason, PduType, ProtocolError, read_header

_MOST_UNREAD: Final = 128 * 1024
_FAREWELL: Final = 1.0  # seconds for the peer to close
_LINGER: Final = 3.0  # seconds for the peer to take the last bytes and to close


class Wire(asyncio.Protocol):
    """The protocol of a connection itself: what has arrived is read without waiting, and mostly a PDU comes whole.

    Attributes:
        address: the peer's IP address.
    """

    def __init__(self, connected: Callable[[Wire], None] | None = None) -> None:
        """``connected`` is called once the connection is there."""
        self.address = ""
        self._connected = connected
        self._transport: asyncio.Transport | None = None
        self._unread = bytearray()
        self._wanted = 0
        self._arriving: asyncio.Future[None] | None = None
        self._is_at_end = False
        self._is_reading_paused = False
        self._is_writing_paused = False
        self._drained: set[asyncio.Future[None]] = set()
        self._is_lost = False
        self._error: OSError | None = None
        self._closed = asyncio.get_running_loop().create_future()

    @classmethod
    async def connect(cls, host: str, port: int, context: ssl.SSLContext | None = None) -> Self:
        """Connect to a peer. Raises OSError."""
        _, wire = await asyncio.get_running_loop().create_connection(cls, host, port, ssl=context)
        return wire

    # --- what asyncio calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")  # nobody can say any more once the connection is lost
        self.address = str(peer[0]) if peer else ""
        if self._connected is not None:
            self._connected(self)

    def data_received(self, data: bytes) -> None:
        """Bytes have arrived."""
        self._unread += data
        if len(self._unread) >= self._wanted:
            self._wake()
        if len(self._unread) >= max(_MOST_UNREAD, self._wanted) and not self._is_reading_paused:
            self._is_reading_paused = True
            self._existing.pause_reading()

    def eof_received(self) -> bool:
        """The peer sends no more. Over TCP it may still read what is written; TLS knows no such state."""
        self._is_at_end = True
        self._wake()
        return self._existing.get_extra_info("sslcontext") is None

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        self._is_at_end = self._is_lost = True
        self._error = error if error is None or isinstance(error, OSError) else OSError(str(error))
        self._wake()
        self._go_on()
        if not self._closed.done():
            self._closed.set_result(None)

    def pause_writing(self) -> None:
        """The peer does not keep up."""
        self._is_writing_paused = True

    def resume_writing(self) -> None:
        """The peer has caught up."""
        self._is_writing_paused = False
        self._go_on()

    def _wake(self) -> None:
        arriving, self._arriving = self._arriving, None
        if arriving is not None and not arriving.done():
            arriving.set_result(None)

    def _go_on(self) -> None:
        for waiting in self._drained:
            if not waiting.done():
                waiting.set_result(None)
        self._drained.clear()

    @property
    def _existing(self) -> asyncio.Transport:
        assert self._transport is not None
        return self._transport

    # --- reading, by one task at a time ---

    def holds(self, size: int) -> bool:
        """True if so many bytes can be read without waiting."""
        return len(self._unread) >= size

    async def header(self) -> tuple[PduType, int]:
        """Type and length of the next PDU. Raises ProtocolError, or EOFError at the end of the connection."""
        return read_header(await self._read(HEADER_SIZE))

    async def body(self, length: int, max_length: int) -> bytes:
        """The rest of a PDU behind its header. Raises ProtocolError before it is read if it is too long."""
        if length > max_length:
            raise ProtocolError(
                f"PDU of {length} bytes, expected at most {max_length}", AbortReason.INVALID_VALUE
            )
        return await self._read(length)

    async def _read(self, size: int) -> bytes:
        while len(self._unread) < size:
            if self._is_at_end:
                raise self._error or EOFError
            await self._arrival(size)
        taken = bytes(self._unread[:size])
        del self._unread[:size]
        self._read_on()
        return taken

    async def _arrival(self, size: int) -> None:
        self._wanted = size
        self._read_on()
        self._arriving = asyncio.get_running_loop().create_future()
        try:
            await self._arriving
        finally:
            self._wanted, self._arriving = 0, None

    def _read_on(self) -> None:
        if self._is_reading_paused and len(self._unread) < max(_MOST_UNREAD // 2, self._wanted):
            self._is_reading_paused = False
            self._existing.resume_reading()

    # --- writing ---

    def write(self, pdu: bytes) -> None:
        """Hand over to the connection, which sends it without waiting."""
        self._existing.write(pdu)

    @property
    def is_congested(self) -> bool:
        """True if ``drain`` would wait or raise."""
        return self._is_writing_paused or self._is_lost

    async def drain(self) -> None:
        """Wait until the peer has caught up. Raises OSError if the connection is lost."""
        while self._is_writing_paused and not self._is_lost:
            waiting = asyncio.get_running_loop().create_future()
            self._drained.add(waiting)
            await waiting
        if self._is_lost:
            raise self._error or ConnectionResetError("Connection lost")

    # --- ending ---

    async def close(self, *, linger: bool = False) -> None:
        """Close the connection. With ``linger`` the peer gets some seconds to read what was sent last and to close."""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_LINGER if linger else _FAREWELL):
                if linger:
                    await self._read_to_the_end()
                self.shut()
                await asyncio.shield(self._closed)
        self.drop()

    def shut(self) -> None:
        """Close the connection once everything is sent, without waiting for that."""
        self._existing.close()

    def drop(self) -> None:
        """Close the connection at once; unsent bytes are lost."""
        if self._transport is not None:
            self._transport.abort()

    async def _read_to_the_end(self) -> None:
        """Closing a socket with unread bytes would reset the connection, and the last PDU would be lost."""
        await self.drain()
        while not self._is_at_end:
            self._unread.clear()
            await self._arrival(1)
