# SPDX-License-Identifier: AGPL-3.0-or-later
"""A peer that can misbehave: PDUs and fragments by hand over a plain socket."""

from __future__ import annotations

import socket
import struct
from types import TracebackType
from typing import Any, Self

from orthanc_ups.core import tags
from orthanc_ups.dimse.message import (
    ACTION_TYPE,
    AFFECTED_CLASS,
    COMMAND_FIELD,
    HEADER_SIZE,
    MESSAGE_ID,
    RELEASE_RQ,
    REQUESTED_CLASS,
    REQUESTED_INSTANCE,
    RESPONDED_ID,
    STATUS,
    Assembler,
    CommandField,
    Message,
    PduType,
    Room,
    Value,
    data_pdu,
    fragments,
    read_header,
)
from orthanc_ups.dimse.negotiation import request

VERIFICATION = "1.2.840.10008.1.1"
CONTEXT = 1


class Closed(Exception):
    """The server closed the connection; ``rude`` if by a reset."""

    def __init__(self, *, rude: bool) -> None:
        super().__init__("reset" if rude else "closed")
        self.rude = rude


class RawPeer:
    """One connection. With ``abstract`` an association with one presentation context, number 1, is opened."""

    def __init__(
        self,
        port: int,
        abstract: str | None = None,
        *,
        calling: str = "SCU",
        timeout: float = 10.0,
        most: int = 16_384,
    ) -> None:
        """``most`` is the greatest PDU that we say we take."""
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._assembler = Assembler({CONTEXT}, 1_000_000_000, Room(1_000_000_000_000))
        self._abstract = abstract
        if abstract:
            try:
                self._open(request(calling, "ORTHANC", abstract, most))
            except BaseException:
                self.socket.close()
                raise

    def _open(self, association_request: bytes) -> None:
        self.send(association_request)
        kind, body = self.receive()
        assert kind is PduType.ASSOCIATE_AC, (kind, body)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, raw: bytes) -> None:
        self.socket.sendall(raw)

    def receive(self) -> tuple[PduType, bytes]:
        """The next PDU. Raises Closed at the end."""
        kind, length = read_header(self._exactly(HEADER_SIZE))
        return kind, self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        found = b""
        while len(found) < count:
            try:
                part = self.socket.recv(count - len(found))
            except ConnectionResetError:
                raise Closed(rude=True) from None
            if not part:
                raise Closed(rude=False)
            found += part
        return found

    def ask(self, command: dict[int, Value], data: bytes | None = None) -> Message:
        """Send a message and give the next one that comes."""
        self.post(command, data)
        return self.answer()

    def post(self, command: dict[int, Value], data: bytes | None = None) -> None:
        """Send a message."""
        message = Message(CONTEXT, command, data)
        self.send(b"".join(data_pdu(part) for part in fragments(message, 16_384)))

    def answer(self) -> Message:
        """The next message. Raises Closed, or AssertionError for another PDU."""
        while True:
            kind, body = self.receive()
            assert kind is PduType.DATA, kind
            for message in self._assembler.feed(body):
                return message

    def echo(self) -> int | None:
        """C-ECHO on an association for Verification; its status."""
        return self.ask(echo()).number(STATUS)

    def release(self) -> None:
        """Release, and see that it is answered."""
        self.send(RELEASE_RQ)
        assert self.receive()[0] is PduType.RELEASE_RP


def echo(number: int = 1) -> dict[int, Value]:
    """A C-ECHO."""
    return {AFFECTED_CLASS: VERIFICATION, COMMAND_FIELD: int(CommandField.C_ECHO), MESSAGE_ID: number}


def find(sop_class: str = tags.PULL, number: int = 1) -> dict[int, Value]:
    """A C-FIND."""
    return {AFFECTED_CLASS: sop_class, COMMAND_FIELD: int(CommandField.C_FIND), MESSAGE_ID: number}


def cancel(number: int = 1) -> dict[int, Value]:
    """A C-CANCEL."""
    return {COMMAND_FIELD: int(CommandField.C_CANCEL), RESPONDED_ID: number}


def operation(field: CommandField, uid: str = "1.2.3", number: int = 1, **more: Any) -> dict[int, Value]:
    """An N-GET, N-SET, N-ACTION or N-CREATE of UPS Push; ``action`` is the Action Type ID."""
    is_create = field is CommandField.N_CREATE
    made: dict[int, Value] = {
        AFFECTED_CLASS if is_create else REQUESTED_CLASS: more.get("sop_class", tags.PUSH),
        COMMAND_FIELD: int(field),
        MESSAGE_ID: number,
        0x1000 if is_create else REQUESTED_INSTANCE: uid,
    }
    if "action" in more:
        made[ACTION_TYPE] = more["action"]
    return made


def pdu(kind: int, body: bytes) -> bytes:
    """Any PDU."""
    return struct.pack(">BxL", kind, len(body)) + body


def fragment(body: bytes, *, context: int = CONTEXT, command: bool, last: bool) -> bytes:
    """One presentation data value."""
    return struct.pack(">LBB", len(body) + 2, context, command | last << 1) + body
