# SPDX-License-Identifier: AGPL-3.0-or-later
"""An HTTP/1.1 and WebSocket client at little cost, which sends exactly the given bytes."""

from __future__ import annotations

import asyncio
import base64
import struct
from collections.abc import Callable
from typing import Self

_MASK = b"\x00\x00\x00\x00"  # a mask of zeros is valid and leaves the payload unchanged


class Broken(Exception):
    """The connection ended before the answer was complete."""


def request(method: str, target: str, body: bytes = b"", **headers: str) -> bytes:
    """The bytes of a request; header names have ``_`` for ``-``."""
    lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1"]
    if body:
        headers.setdefault("Content_Type", "application/dicom+json")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body or method in ("POST", "PUT"):
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


class RawHttp:
    """One keep-alive connection; one request after another."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int, host: str = "127.0.0.1") -> Self:
        """Connect. Raises OSError."""
        return cls(*await asyncio.open_connection(host, port, limit=2**24))

    async def send(self, encoded: bytes) -> tuple[int, bytes]:
        """Send a request unchanged and read the answer: status and body. Raises Broken."""
        try:
            self.writer.write(encoded)
            head = await self.reader.readuntil(b"\r\n\r\n")
            return int(head[9:12]), await self.reader.readexactly(_length(head))
        except (OSError, asyncio.IncompleteReadError) as error:
            raise Broken(str(error)) from error

    def close(self) -> None:
        """Close the connection."""
        self.writer.close()


def _length(head: bytes) -> int:
    lower = head.lower()
    at = lower.find(b"\r\ncontent-length:")
    return int(lower[at + 17 : lower.index(b"\r\n", at + 2)]) if at >= 0 else 0


def handshake(path: str) -> bytes:
    """The request that opens a WebSocket."""
    key = base64.b64encode(bytes(16)).decode()
    return request(
        "GET",
        path,
        Upgrade="websocket",
        Connection="Upgrade",
        Sec_WebSocket_Key=key,
        Sec_WebSocket_Version="13",
    )


def masked(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    """A frame as a client sends it."""
    first, size = opcode | (0x80 if final else 0), len(payload)
    if size < 126:
        return bytes((first, 0x80 | size)) + _MASK + payload
    if size < 65_536:
        return struct.pack(">BBH", first, 0x80 | 126, size) + _MASK + payload
    return struct.pack(">BBQ", first, 0x80 | 127, size) + _MASK + payload


class Socket(asyncio.Protocol):
    """An open WebSocket: calls a function with each text message, answers pings.

    ``ended`` is done when the connection is.
    """

    def __init__(self, path: str, took: Callable[[bytes], None]) -> None:
        self._path = path
        self._took = took
        self._buffer = bytearray()
        self._is_open = False
        self._transport: asyncio.Transport | None = None
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()

    @classmethod
    async def open(cls, port: int, path: str, took: Callable[[bytes], None]) -> Socket:
        """Connect and shake hands. Raises OSError or Broken."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: cls(path, took), "127.0.0.1", port)
        await connection.opened
        return connection

    def close(self) -> None:
        """Close without a closing handshake."""
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(handshake(self._path))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(Broken("no WebSocket"))
        if not self.ended.done():
            self.ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._is_open or self._shake_hands():
            self._take_frames()

    def _shake_hands(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        if self._buffer[9:12] == b"101":
            self._is_open = True
            self.opened.set_result(None)
        else:
            self.opened.set_exception(Broken(self._buffer[:200].decode(errors="replace")))
            self.close()
        del self._buffer[: end + 4]
        return self._is_open

    def _take_frames(self) -> None:
        buffer, position, end = self._buffer, 0, len(self._buffer)
        while end - position >= 2:
            size, start = buffer[position + 1], position + 2
            if size >= 126:
                wide = 2 if size == 126 else 8
                if end < start + wide:
                    break
                size, start = int.from_bytes(buffer[start : start + wide], "big"), start + wide
            if end < start + size:
                break
            self._frame(buffer[position] & 0x0F, bytes(buffer[start : start + size]))
            position = start + size
        del buffer[:position]

    def _frame(self, opcode: int, payload: bytes) -> None:
        assert self._transport is not None
        if opcode == 1:
            self._took(payload)
        elif opcode == 9:
            self._transport.write(masked(10, payload))
        elif opcode == 8:
            self._transport.write(masked(8, payload[:2]))
            self._transport.close()
