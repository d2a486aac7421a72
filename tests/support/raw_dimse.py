# SPDX-License-Identifier: AGPL-3.0-or-later
"""A DIMSE peer without pynetdicom: PDUs and fragments exactly as a test specifies, and messages at little cost.

- RawPeer: a blocking socket, for what is broken on purpose.
- RawScu and EventListener: many associations on one asyncio loop, for load and measurements.

Whether the plugin speaks DICOM is shown by the pynetdicom clients (``dimse_client.py``, ``event_receiver.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from orthanc_ups.codecs.encoded_values import undeclared
from orthanc_ups.core import tags
from orthanc_ups.core.dataset import DataSet, element
from orthanc_ups.dimse.data_sets import SYNTAXES, Bounds, decode, encode
from orthanc_ups.dimse.message import (
    ACTION_TYPE,
    AFFECTED_CLASS,
    AFFECTED_INSTANCE,
    COMMAND_FIELD,
    HEADER_SIZE,
    MESSAGE_ID,
    PRIORITY,
    RELEASE_RP,
    RELEASE_RQ,
    REQUESTED_CLASS,
    REQUESTED_INSTANCE,
    RESPONDED_ID,
    RESPONSE,
    STATUS,
    Assembler,
    CommandField,
    MemoryBudget,
    Message,
    PduType,
    Value,
    data_pdu,
    fragments,
    read_header,
)
from orthanc_ups.dimse.negotiation import request
from tests.support import upper_layer
from tests.support.upper_layer import EXPLICIT, Asked

VERIFICATION = "1.2.840.10008.1.1"
CLASSES = (tags.PUSH, tags.WATCH, tags.PULL, tags.EVENT, tags.QUERY)
CONTEXT = 1
"""ID of the only presentation context of a RawPeer."""
REQUEST = request("SCU", "ORTHANC", VERIFICATION, 16_384)
"""The A-ASSOCIATE-RQ of a RawPeer that only wants to C-ECHO."""

_PATIENCE = 30.0  # seconds for the answer to an association request
_MAX_PDU = 65_536
_EXPLICIT = SYNTAXES[EXPLICIT]
_PENDING = (0xFF00, 0xFF01)


class Refused(Exception):
    """The association was not accepted, or has ended before the answer; the text says how."""


class Closed(Exception):
    """The server closed the connection; ``rude`` if by a reset."""

    def __init__(self, *, rude: bool) -> None:
        super().__init__("reset" if rude else "closed")
        self.rude = rude


# --- data sets and commands ---


def encoded(dataset: DataSet) -> bytes:
    """A data set for the wire (explicit VR little endian)."""
    return encode(dataset, _EXPLICIT)


def decoded(data: bytes | None) -> DataSet:
    """A data set from the wire."""
    return decode(data, _EXPLICIT, Bounds(), len(data), undeclared("Latin1")) if data else {}


def state_change(state: str, transaction: str) -> bytes:
    """Action information of Change State."""
    return encoded({tags.TRANSACTION_UID: element("UI", transaction), tags.STATE: element("CS", state)})


def subscription(receiving_ae: str, *, lock: bool = False) -> bytes:
    """Action information of Subscribe."""
    deletion_lock = element("LO", "TRUE" if lock else "FALSE")
    return encoded({tags.DELETION_LOCK: deletion_lock, tags.RECEIVING_AE: element("AE", receiving_ae)})


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
    command: dict[int, Value] = {
        AFFECTED_CLASS if is_create else REQUESTED_CLASS: more.get("sop_class", tags.PUSH),
        COMMAND_FIELD: int(field),
        MESSAGE_ID: number,
        AFFECTED_INSTANCE if is_create else REQUESTED_INSTANCE: uid,
    }
    if "action" in more:
        command[ACTION_TYPE] = more["action"]
    return command


def fragment(body: bytes, *, context: int = CONTEXT, command: bool, last: bool) -> bytes:
    """One presentation data value."""
    return struct.pack(">LBB", len(body) + 2, context, command | last << 1) + body


def pdus(command: dict[int, Value], data: bytes | None = None) -> bytes:
    """A message of a RawPeer as it goes over the wire."""
    return b"".join(data_pdu(part) for part in fragments(Message(CONTEXT, command, data), 16_384))


def _assembler(contexts: Sequence[int]) -> Assembler:
    return Assembler(contexts, 1_000_000_000, MemoryBudget(1_000_000_000_000))


# --- blocking ---


class RawPeer:
    """One connection. With ``abstract`` an association with one presentation context, number 1, is opened."""

    def __init__(
        self,
        port: int,
        abstract: str | None = None,
        *,
        calling: str = "SCU",
        timeout: float = 60.0,
        max_pdu: int = 16_384,
    ) -> None:
        """``max_pdu`` is the greatest PDU that we say we take."""
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._assembler = _assembler([CONTEXT])
        if abstract:
            try:
                self.negotiate(request(calling, "ORTHANC", abstract, max_pdu))
            except BaseException:
                self.socket.close()
                raise

    def negotiate(self, association_request: bytes) -> None:
        """Ask for an association, which must be accepted."""
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
        received = b""
        while len(received) < count:
            try:
                part = self.socket.recv(count - len(received))
            except ConnectionResetError:
                raise Closed(rude=True) from None
            if not part:
                raise Closed(rude=False)
            received += part
        return received

    def ask(self, command: dict[int, Value], data: bytes | None = None) -> Message:
        """Send a message and give the next one that comes."""
        self.post(command, data)
        return self.answer()

    def post(self, command: dict[int, Value], data: bytes | None = None) -> None:
        """Send a message."""
        self.send(pdus(command, data))

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


def rejection(port: int, association_request: bytes) -> tuple[int, ...]:
    """Result, source and reason of the A-ASSOCIATE-RJ that a request is answered with."""
    with RawPeer(port) as peer:
        peer.send(association_request)
        kind, body = peer.receive()
        assert kind is PduType.ASSOCIATE_RJ, kind
        return tuple(body[1:4])


# --- on an asyncio loop ---

_ENDINGS = {
    PduType.ASSOCIATE_RJ: "rejected",
    PduType.RELEASE_RQ: "released by the peer",
    PduType.RELEASE_RP: "released",
    PduType.ABORT: "aborted",
}


class RawAssociation(asyncio.Protocol):
    """One association.

    Attributes:
        accepted: transfer syntax of each context by ID.
        established, ended: futures; ``established`` fails with Refused.
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
        self._max_pdu = 0
        self._buffer = bytearray()
        self._assembler = _assembler(())
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
        """Send a message. Raises Refused."""
        if not self.is_open or self._transport is None:
            raise Refused(self._how)
        parts = fragments(message, min(self._max_pdu or _MAX_PDU, _MAX_PDU))
        self._transport.write(b"".join(map(data_pdu, parts)))

    async def release(self, patience: float = 1.0) -> None:
        """End it in good order, or otherwise."""
        if self.is_open and self._transport is not None:
            self._transport.write(RELEASE_RQ)
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
            self.established.set_exception(Refused(self._how))
            self.established.exception()  # nobody may be waiting
        if not self.ended.done():
            self.ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        buffer, offset = self._buffer, 0
        while len(buffer) - offset >= HEADER_SIZE:
            kind, length = read_header(bytes(buffer[offset : offset + HEADER_SIZE]))
            start = offset + HEADER_SIZE
            if len(buffer) - start < length:
                break
            self._take(kind, bytes(buffer[start : start + length]))
            offset = start + length
        del buffer[:offset]

    def _take(self, kind: PduType, body: bytes) -> None:
        if kind is PduType.DATA:
            for message in self._assembler.feed(body):
                self._took(self, message)
        elif kind is PduType.ASSOCIATE_AC:
            self.accepted, self._max_pdu = upper_layer.read_ac(body)
            self._establish()
        elif kind is PduType.ASSOCIATE_RQ:
            self._accept(upper_layer.read_rq(body))
        else:
            self._end(kind, body)

    def _accept(self, request: Asked) -> None:
        assert self._transport is not None
        self.asked, self._max_pdu = request, request.maximum
        self.accepted = {
            number: EXPLICIT for number, context in request.contexts.items() if EXPLICIT in context.syntaxes
        }
        self._transport.write(upper_layer.associate_ac(request, self.accepted))
        self._establish()

    def _establish(self) -> None:
        self._assembler.contexts = self.accepted.keys()
        self.established.set_result(None)

    def _end(self, kind: PduType, body: bytes) -> None:
        assert self._transport is not None
        self._how = f"{_ENDINGS[kind]} {body.hex()}"
        if kind is PduType.RELEASE_RQ:
            self._transport.write(RELEASE_RP)
        self._transport.close()


class RawScu:
    """One association as SCU. ``await RawScu.open(…)``; then requests, one after the other."""

    def __init__(self, request: bytes, classes: Sequence[str]) -> None:
        self.association = RawAssociation(request, self._took)
        self._classes = classes
        self._contexts: dict[str, int] = {}
        self._last_id = 0
        self._answers: deque[Message] = deque()
        self._waiting: asyncio.Future[None] | None = None

    @classmethod
    async def open(
        cls,
        port: int,
        calling: str,
        called: str = "ORTHANC",
        classes: Sequence[str] = CLASSES,
        host: str = "127.0.0.1",
    ) -> Self:
        """Associate. Raises Refused, or OSError if nobody listens."""
        scu = cls(upper_layer.associate_rq(calling, called, classes), classes)
        association = scu.association
        await asyncio.get_running_loop().create_connection(lambda: association, host, port)
        association.ended.add_done_callback(lambda _: scu._wake())
        try:
            await asyncio.wait_for(association.established, _PATIENCE)
        except (Refused, TimeoutError) as error:
            association.drop()
            raise Refused(str(error) or "the association request was not answered") from error
        scu.associated()
        return scu

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.association.release()

    def associated(self) -> None:
        """The peer has accepted some of what was proposed."""
        proposed = dict(zip(range(1, 256, 2), self._classes, strict=False))
        self._contexts = {proposed[number]: number for number in self.association.accepted}

    def _took(self, _: RawAssociation, message: Message) -> None:
        self._answers.append(message)
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    # --- messages ---

    async def ask(self, on: str, command: Mapping[int, Value], data: bytes | None = None) -> Message:
        """Send a request on the context of a SOP class and wait for its answer. Raises Refused if there is none."""
        self.association.post(self._request(on, command, data))
        return await self.answer()

    async def answer(self) -> Message:
        """The next message of the peer. Raises Refused if there is none any more."""
        while not self._answers:
            if not self.association.is_open:
                raise Refused(self.association.how)
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        return self._answers.popleft()

    def _request(self, on: str, command: Mapping[int, Value], data: bytes | None) -> Message:
        self._last_id = self._last_id % 0xFFFF + 1
        return Message(self._contexts[on], {**command, MESSAGE_ID: self._last_id}, data)

    async def create(self, uid: str, data: bytes) -> int:
        """N-CREATE; gives the status."""
        return _status(await self.ask(tags.PUSH, operation(CommandField.N_CREATE, uid), data))

    async def set(self, uid: str, data: bytes) -> int:
        """N-SET; the Transaction UID is in the data."""
        return _status(await self.ask(tags.PULL, operation(CommandField.N_SET, uid), data))

    async def get(self, uid: str) -> tuple[int, bytes | None]:
        """N-GET of everything."""
        answer = await self.ask(tags.PULL, operation(CommandField.N_GET, uid))
        return _status(answer), answer.data

    async def action(self, number: int, uid: str, data: bytes, on: str = tags.PULL) -> int:
        """N-ACTION."""
        return _status(await self.ask(on, operation(CommandField.N_ACTION, uid, action=number), data))

    async def echo(self) -> int:
        """C-ECHO; the association must have been opened with Verification."""
        return _status(await self.ask(VERIFICATION, echo()))

    async def find(self, identifier: bytes, limit: int | None = None) -> tuple[int, int]:
        """C-FIND up to ``limit`` matches; the rest is canceled and discarded. Returns final status and matches."""
        status, count = 0, 0
        async for status, _ in self.matches(identifier, limit):
            count += status in _PENDING
        return status, count

    async def matches(
        self, identifier: bytes, limit: int | None = None
    ) -> AsyncIterator[tuple[int, bytes | None]]:
        """Status and data set of each answer as it arrives; C-CANCEL is sent after the match ``limit``."""
        command = {**find(), PRIORITY: 0}
        answer, number = await self.ask(tags.PULL, command, identifier), 0
        while True:
            status = _status(answer)
            yield status, answer.data
            if status not in _PENDING:
                return
            number += 1
            if number == limit:
                self._cancel()
            answer = await self.answer()

    def _cancel(self) -> None:
        self.association.post(Message(self._contexts[tags.PULL], cancel(self._last_id)))


def _status(answer: Message) -> int:
    status = answer.number(STATUS)
    if status is None:
        raise Refused(f"the answer {answer.field:04X} has no status")
    return status


class EventListener:
    """A receiver of event reports: accepts every association and answers each report with success.

    ``took`` is called with AE title and message before the answer is sent.
    """

    def __init__(self, ae_title: str, took: Callable[[str, Message], None], port: int = 0) -> None:
        self.ae_title = ae_title
        self.port = port
        self._took = took
        self._server: asyncio.Server | None = None
        self._associations: set[RawAssociation] = set()

    async def start(self) -> None:
        """Listen; ``port`` says where."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connected, "127.0.0.1", self.port, backlog=128)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Close without a release, as when a machine is switched off."""
        if self._server is not None:
            self._server.close()
        ending = [association.ended for association in self._associations]
        for association in self._associations:
            association.drop()
        await asyncio.gather(*ending)

    def _connected(self) -> RawAssociation:
        association = RawAssociation(None, self._report)
        self._associations.add(association)
        association.ended.add_done_callback(lambda _: self._associations.discard(association))
        return association

    def _report(self, association: RawAssociation, message: Message) -> None:
        self._took(self.ae_title, message)
        command: dict[int, Value] = {
            AFFECTED_CLASS: tags.PUSH,
            COMMAND_FIELD: message.field | RESPONSE,
            RESPONDED_ID: message.number(MESSAGE_ID) or 0,
            STATUS: 0,
        }
        with contextlib.suppress(Refused):
            association.post(Message(message.context, command))


async def together(count: int, work: Callable[[int], Coroutine[None, None, None]]) -> None:
    """Run the same work several times concurrently; the first failure ends all."""
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(work(number))


async def crowd(port: int, count: int) -> list[PduType | None]:
    """The answers to many peers that request at the same time and stay until all have been answered.

    Sockets are read directly: a stream of asyncio forgets an answer if the connection is reset before it is read.
    """
    loop, all_answered, pending = asyncio.get_running_loop(), asyncio.Event(), count

    async def answer() -> PduType | None:
        nonlocal pending
        header = b""
        with socket.socket() as connection:
            connection.setblocking(False)
            await loop.sock_connect(connection, ("127.0.0.1", port))
            with contextlib.suppress(
                OSError
            ):  # a peer that was rejected at once may have had no time to send
                await loop.sock_sendall(connection, REQUEST)
            with contextlib.suppress(OSError):
                header = await loop.sock_recv(connection, HEADER_SIZE)
            pending -= 1
            if pending == 0:
                all_answered.set()
            await all_answered.wait()
        return read_header(header)[0] if len(header) == HEADER_SIZE else None

    return await asyncio.gather(*(answer() for _ in range(count)))
