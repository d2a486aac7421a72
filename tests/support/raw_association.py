# SPDX-License-Identifier: AGPL-3.0-or-later
"""The upper layer of a quick DIMSE peer, in either role, as an asyncio protocol: no tasks, no timers, no queues."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Mapping

from orthanc_ups.dimse.message import CommandSet, Message, fragments, parse_command
from tests.support import upper_layer
from tests.support.upper_layer import EXPLICIT, Asked

_RQ, _AC, _RJ, _DATA, _RELEASE_RQ, _RELEASE_RP, _ABORT = range(1, 8)
_COMMAND, _LAST = 1, 2
_DATA_SET_TYPE, _NO_DATA_SET = 0x0800, 0x0101
_RELEASE = {kind: upper_layer.pdu(kind, bytes(4)) for kind in (_RELEASE_RQ, _RELEASE_RP)}


class Ended(Exception):
    """The association was refused or has ended; the text says how."""


class RawAssociation(asyncio.Protocol):
    """One association.

    Attributes:
        accepted: transfer syntax of each context by ID.
        established, ended: futures; ``established`` fails with Ended.
        asked: what the peer asked for, if we are its acceptor.
    """

    def __init__(self, request: bytes | None, took: Callable[[RawAssociation, Message], None]) -> None:
        """``request`` is the A-ASSOCIATE-RQ to send, None waits for the peer's. ``took`` gets every message."""
        loop = asyncio.get_running_loop()
        self.established: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.accepted: Mapping[int, str] = {}
        self.asked: Asked | None = None
        self._request = request
        self._took = took
        self._most = 0
        self._buffer = bytearray()
        self._command: CommandSet | None = None
        self._parts: list[bytes] = []
        self._how = "connection closed"
        self._transport: asyncio.Transport | None = None

    @property
    def is_open(self) -> bool:
        """True while messages can be sent."""
        return self.established.done() and not self.ended.done() and not self._is_leaving

    @property
    def how(self) -> str:
        """How it ended, in words."""
        return self._how

    @property
    def _is_leaving(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def post(self, message: Message) -> None:
        """Send a message. Raises Ended."""
        if not self.is_open or self._transport is None:
            raise Ended(self._how)
        parts = fragments(message, min(self._most or 65_536, 65_536))
        self._transport.write(b"".join(upper_layer.pdu(_DATA, part) for part in parts))

    async def release(self, patience: float = 1.0) -> None:
        """End it in good order, or otherwise."""
        if self.is_open and self._transport is not None:
            self._transport.write(_RELEASE[_RELEASE_RQ])
            await asyncio.wait((self.ended,), timeout=patience)
        self.drop()

    def drop(self) -> None:
        """End it without a word."""
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._request:
            transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.established.done():
            self.established.set_exception(Ended(self._how))
            self.established.exception()  # nobody may be waiting
        if not self.ended.done():
            self.ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        buffer, place = self._buffer, 0
        while len(buffer) - place >= 6:
            kind, length = struct.unpack_from(">BxL", buffer, place)
            if len(buffer) - place < 6 + length:
                break
            self._take(kind, bytes(buffer[place + 6 : place + 6 + length]))
            place += 6 + length
        del buffer[:place]

    def _take(self, kind: int, body: bytes) -> None:
        if kind == _DATA:
            self._assemble(body)
        elif kind == _AC:
            self.accepted, self._most = upper_layer.read_ac(body)
            self.established.set_result(None)
        elif kind == _RQ:
            self._accept(upper_layer.read_rq(body))
        else:
            self._end(kind, body)

    def _accept(self, asked: Asked) -> None:
        assert self._transport is not None
        self.asked, self._most = asked, asked.most
        self.accepted = {
            number: EXPLICIT for number, one in asked.contexts.items() if EXPLICIT in one.syntaxes
        }
        self._transport.write(upper_layer.associate_ac(asked, self.accepted))
        self.established.set_result(None)

    def _end(self, kind: int, body: bytes) -> None:
        assert self._transport is not None
        names = {
            _RJ: "rejected",
            _RELEASE_RQ: "released by the peer",
            _RELEASE_RP: "released",
            _ABORT: "aborted",
        }
        self._how = f"{names.get(kind, f'PDU {kind}')} {body.hex()}"
        if kind == _RELEASE_RQ:
            self._transport.write(_RELEASE[_RELEASE_RP])
        self._transport.close()

    def _assemble(self, body: bytes) -> None:
        place = 0
        while place + 6 <= len(body):
            length, context, kind = struct.unpack_from(">LBB", body, place)
            self._parts.append(body[place + 6 : place + 4 + length])
            place += 4 + length
            if kind & _LAST:
                self._complete(context, kind)

    def _complete(self, context: int, kind: int) -> None:
        whole = b"".join(self._parts)
        self._parts.clear()
        if kind & _COMMAND:
            self._command = parse_command(whole)
            if self._command.get(_DATA_SET_TYPE, _NO_DATA_SET) != _NO_DATA_SET:
                return
            message = Message(context, self._command)
        else:
            assert self._command is not None
            message = Message(context, self._command, whole)
        self._took(self, message)
