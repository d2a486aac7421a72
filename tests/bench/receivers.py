# SPDX-License-Identifier: AGPL-3.0-or-later
"""Receivers of event reports at little cost, so that the server is measured."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Final

from orthanc_ups.core import tags
from orthanc_ups.dimse.message import (
    AFFECTED_CLASS,
    COMMAND_FIELD,
    HEADER_SIZE,
    RELEASE_RP,
    RESPONDED_ID,
    RESPONSE,
    STATUS,
    CommandField,
    Message,
    PduType,
    Value,
    data_pdu,
    fragments,
    read_header,
)
from tests.support import upper_layer
from tests.support.upper_layer import EXPLICIT

_CONTEXT_AT, _KIND_AT, _COMMAND_AT = 10, 11, 12  # bytes from the begin of a P-DATA-TF with one fragment
_IS_COMMAND, _IS_LAST = 1, 2
_MESSAGE_ID: Final = struct.pack("<HHL", 0, 0x0110, 2)
_NO_DATA_SET: Final = struct.pack("<HHLH", 0, 0x0800, 2, 0x0101)
_RESPONDED_ID: Final = struct.pack("<HHL", 0, RESPONDED_ID, 2)


def _success() -> bytearray:
    """The answer to an event report, without Message ID and context."""
    command: dict[int, Value] = {
        AFFECTED_CLASS: tags.PUSH,
        COMMAND_FIELD: int(CommandField.N_EVENT_REPORT) | RESPONSE,
        RESPONDED_ID: 0,
        STATUS: 0,
    }
    return bytearray(b"".join(data_pdu(part) for part in fragments(Message(1, command), 16_384)))


class Receivers:
    """Any number of AEs at one port that accept every association and answer each report with success.

    Attributes:
        reports: how many came so far.
    """

    def __init__(self, port: int) -> None:
        self.reports = 0
        self._port = port
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Transport] = set()
        self._expected = 0
        self._complete = asyncio.Event()

    async def start(self) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Receiver(self._open, self._count), "127.0.0.1", self._port, backlog=128
        )

    async def stop(self) -> None:
        """Go away without a word."""
        if self._server is not None:
            self._server.close()
        for transport in list(self._open):
            transport.abort()
        await asyncio.sleep(0)

    async def wait(self, reports: int, patience: float) -> None:
        """Until so many came in all. Raises TimeoutError after ``patience`` seconds."""
        self._expected = reports
        self._complete.clear()
        if self.reports < reports:
            async with asyncio.timeout(patience):
                await self._complete.wait()

    def _count(self) -> None:
        self.reports += 1
        if self.reports == self._expected:
            self._complete.set()


class _Receiver(asyncio.Protocol):
    """One association. Each P-DATA-TF has one fragment, and a command set fits into one, as our channel has it."""

    def __init__(self, transports: set[asyncio.Transport], count: Callable[[], None]) -> None:
        self._transports = transports
        self._count = count
        self._unread = b""
        self._answer = _success()
        self._number_at = self._answer.index(_RESPONDED_ID) + len(_RESPONDED_ID)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._transports.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        assert self._transport is not None
        self._transports.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        data, begin = self._unread + data, 0
        while len(data) - begin >= HEADER_SIZE:
            end = begin + HEADER_SIZE + int.from_bytes(data[begin + 2 : begin + HEADER_SIZE])
            if end > len(data):
                break
            self._take(data[begin:end])
            begin = end
        self._unread = data[begin:]

    def _take(self, pdu: bytes) -> None:
        assert self._transport is not None
        if pdu[0] != PduType.DATA:
            self._take_control(pdu)
            return
        kind, is_complete = pdu[_KIND_AT], True
        if kind & _IS_COMMAND:
            number_at = pdu.index(_MESSAGE_ID, _COMMAND_AT) + len(_MESSAGE_ID)
            self._answer[_CONTEXT_AT] = pdu[_CONTEXT_AT]
            self._answer[self._number_at : self._number_at + 2] = pdu[number_at : number_at + 2]
            is_complete = _NO_DATA_SET in pdu
        if is_complete and kind & _IS_LAST:
            self._count()
            self._transport.write(bytes(self._answer))

    def _take_control(self, pdu: bytes) -> None:
        assert self._transport is not None
        kind, _ = read_header(pdu[:HEADER_SIZE])
        if kind is PduType.ASSOCIATE_RQ:
            asked = upper_layer.read_rq(pdu[HEADER_SIZE:])
            accepted = dict.fromkeys(asked.contexts, EXPLICIT)
            self._transport.write(upper_layer.associate_ac(asked, accepted))
        else:
            if kind is PduType.RELEASE_RQ:
                self._transport.write(RELEASE_RP)
            self._transport.close()
