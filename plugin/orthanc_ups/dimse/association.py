# SPDX-License-Identifier: AGPL-3.0-or-later
"""Connections and associations on the asyncio loop (PS3.8 §9): a ``Wire`` carries PDUs, an ``Association`` messages.

This replaces pynetdicom's own reactor, which needs two or three threads per association that poll a thousand times a
second, reads PDUs and data sets of any size into memory, cannot use file descriptors above 1023, and accepts no other
connection during a TLS handshake. pynetdicom is used for the PDUs of negotiation (``negotiation.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Self, cast

from ..orthanc.listener import aborter
from .message import (
    ABORT_BY_USER,
    HEADER_SIZE,
    MESSAGE_ID,
    RELEASE_RP,
    RELEASE_RQ,
    RESPONDED_ID,
    AbortReason,
    Assembler,
    CommandField,
    Malformed,
    MemoryBudget,
    Message,
    PduType,
    ProtocolError,
    abort_by_provider,
    data_pdu,
    fragments,
    read_header,
)
from .negotiation import Agreement

_log = logging.getLogger("orthanc_ups.dimse")

# --- connections ---

_MAX_UNREAD: Final = 128 * 1024
_CLOSE_WITHIN: Final = 1.0  # seconds for the peer to close
_LINGER: Final = 3.0  # seconds for the peer to take the last bytes and to close


class Wire(asyncio.Protocol):
    """A connection, as an asyncio protocol. Bytes that have arrived, mostly a whole PDU, are read without waiting.

    Attributes:
        address: the peer's IP address.
    """

    def __init__(self, connected: Callable[[Wire], None] | None = None) -> None:
        """``connected`` is called once the connection is established."""
        self.address = ""
        self._connected = connected
        self._transport: asyncio.Transport | None = None
        self._abort: Callable[[], None] | None = None
        self._unread = bytearray()
        self._awaited_size = 0
        self._arriving: asyncio.Future[None] | None = None
        self._follower: Callable[[], None] | None = None
        self._is_at_end = False
        self._is_encrypted = False
        self._is_reading_paused = False
        self._is_writing_paused = False
        self._blocked_writers: set[asyncio.Future[None]] = set()
        self._is_lost = False
        self._error: OSError | None = None
        self._closed = asyncio.get_running_loop().create_future()

    @classmethod
    async def connect(cls, host: str, port: int, context: ssl.SSLContext | None = None) -> Self:
        """Connect to a peer. Raises OSError."""
        _, wire = await asyncio.get_running_loop().create_connection(cls, host, port, ssl=context)
        return wire

    # --- called by asyncio ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is established."""
        self._transport = cast("asyncio.Transport", transport)
        self._abort = aborter(transport)
        peer = transport.get_extra_info("peername")  # unavailable once the connection is lost
        self.address = str(peer[0]) if peer else ""
        self._is_encrypted = (
            transport.get_extra_info("sslcontext") is not None
        )  # a follower may close it at the end
        if self._connected is not None:
            self._connected(self)

    def data_received(self, data: bytes) -> None:
        """Bytes have arrived."""
        self._unread += data
        if len(self._unread) >= self._awaited_size:
            self._wake()
        if len(self._unread) >= max(_MAX_UNREAD, self._awaited_size) and not self._is_reading_paused:
            self._is_reading_paused = True
            self._existing.pause_reading()

    def eof_received(self) -> bool:
        """The peer sends no more. Over TCP it may still read; TLS has no such half-open state."""
        self._is_at_end = True
        self._wake()
        return not self._is_encrypted

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        self._is_at_end = self._is_lost = True
        self._error = error if error is None or isinstance(error, OSError) else OSError(str(error))
        self._wake()
        self._resume_writers()
        if not self._closed.done():
            self._closed.set_result(None)

    def pause_writing(self) -> None:
        """The peer reads too slowly: ``drain`` waits."""
        self._is_writing_paused = True

    def resume_writing(self) -> None:
        """The peer has caught up: ``drain`` returns."""
        self._is_writing_paused = False
        self._resume_writers()

    def _wake(self) -> None:
        arriving, self._arriving = self._arriving, None
        if arriving is not None and not arriving.done():
            arriving.set_result(None)
        if self._follower is not None:
            self._follower()

    def _resume_writers(self) -> None:
        for waiting in self._blocked_writers:
            if not waiting.done():
                waiting.set_result(None)
        self._blocked_writers.clear()

    @property
    def _existing(self) -> asyncio.Transport:
        assert self._transport is not None
        return self._transport

    # --- reading, by one task at a time ---

    def holds(self, size: int) -> bool:
        """True if ``size`` bytes can be read without waiting."""
        return len(self._unread) >= size

    async def header(self) -> tuple[PduType, int]:
        """Type and length of the next PDU. Raises ProtocolError, or EOFError at the end of the connection."""
        return read_header(await self._read(HEADER_SIZE))

    async def body(self, length: int, max_length: int) -> bytes:
        """The rest of a PDU after its header. Raises ProtocolError, without reading it, if it is too long."""
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
        return self.take(size)

    def take(self, size: int) -> bytes:
        """Return ``size`` bytes, which must have arrived."""
        content = bytes(self._unread[:size])
        del self._unread[:size]
        self._read_on()
        return content

    async def _arrival(self, size: int) -> None:
        self._awaited_size = size
        self._read_on()
        self._arriving = asyncio.get_running_loop().create_future()
        try:
            await self._arriving
        finally:
            self._awaited_size, self._arriving = 0, None

    def _read_on(self) -> None:
        if self._is_reading_paused and len(self._unread) < max(_MAX_UNREAD // 2, self._awaited_size):
            self._is_reading_paused = False
            self._existing.resume_reading()

    # --- reading without a task ---

    def follow(self, follower: Callable[[], None]) -> None:
        """From now on, call a function when the bytes that it ``expects`` have arrived, or the connection ends."""
        self._follower = follower
        asyncio.get_running_loop().call_soon(follower)

    def expects(self, size: int) -> bool:
        """True if ``size`` bytes have arrived; if not, the follower is called when they have."""
        if self.holds(size):
            self._awaited_size = 0
            return True
        self._awaited_size = size
        self._read_on()
        return False

    @property
    def ending(self) -> str | None:
        """How the connection ended; None while the peer may still send."""
        if not self._is_at_end:
            return None
        if self._error is None:
            return "connection closed by the peer"
        return f"connection lost ({self._error.strerror or self._error})"

    # --- writing ---

    def write(self, pdu: bytes) -> None:
        """Queue a PDU for sending; does not wait."""
        self._existing.write(pdu)

    @property
    def is_congested(self) -> bool:
        """True if ``drain`` would wait or raise."""
        return self._is_writing_paused or self._is_lost

    async def drain(self) -> None:
        """Wait until the peer has caught up. Raises OSError if the connection is lost."""
        while self._is_writing_paused and not self._is_lost:
            waiting = asyncio.get_running_loop().create_future()
            self._blocked_writers.add(waiting)
            await waiting
        if self._is_lost:
            raise self._error or ConnectionResetError("Connection lost")

    # --- ending ---

    async def close(self, *, linger: bool = False) -> None:
        """Close the connection. With ``linger``, give the peer some seconds to read the last PDU and to close first."""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_LINGER if linger else _CLOSE_WITHIN):
                if linger:
                    await self._read_to_the_end()
                self.shut()
                await asyncio.shield(self._closed)
        self.drop()

    def shut(self) -> None:
        """Close the connection once everything has been sent, without waiting for that."""
        self._existing.close()

    def drop(self) -> None:
        """Close the connection at once; unsent bytes are lost."""
        if self._abort is not None:
            self._abort()

    async def _read_to_the_end(self) -> None:
        """Closing a socket with unread bytes resets the connection, and the peer might not get the last PDU."""
        await self.drain()
        while not self._is_at_end:
            self._unread.clear()
            await self._arrival(1)


# --- associations ---

_MAX_WAITING: Final = 1  # messages received but not yet served; further ones are not read
MAX_CONTROL: Final = 1024  # bytes of a release or abort
SLACK: Final = 256  # bytes by which careless peers exceed the maximum PDU length
MAX_SENT: Final = 128 * 1024  # bytes of a PDU for a peer that accepts any size
_SENT_AT_ONCE: Final = 64 * 1024  # bytes of PDUs written before other associations are served
_DATA_SET_WITHIN: Final = 5.0  # seconds from a command set to the beginning of its data set
_MESSAGE_FACTOR: Final = 10  # a whole message may take this many times as long as one PDU


class Gone(Exception):
    """The association has ended; the text says how."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The limits of an association.

    Attributes:
        max_pdu: greatest P-DATA-TF that the plugin announced, in bytes after its header.
        max_data_set: greatest data set in bytes.
        idle: seconds without traffic, after which it is aborted; 0 for never.
        pace: seconds within which one PDU must arrive, or the peer must have read one.
        memory: for incoming data sets.
    """

    max_pdu: int
    max_data_set: int
    idle: float
    pace: float
    memory: MemoryBudget


class Association:
    """An association, on the loop. A task of its own reads ahead, to notice C-CANCEL.

    Attributes:
        calling, called: AE titles.
        agreement: what was negotiated.
        address: the peer's IP address.
        contexts: the accepted presentation contexts by their IDs.
    """

    def __init__(self, wire: Wire, agreement: Agreement, terms: Terms, calling: str, called: str) -> None:
        self.calling = calling
        self.called = called
        self.agreement = agreement
        self.address = wire.address
        self.contexts = agreement.contexts
        self._wire = wire
        self._terms = terms
        self._assembler = Assembler(self.contexts, terms.max_data_set, terms.memory, skips_replies=True)
        self._incoming: asyncio.Queue[Message | None] = asyncio.Queue(_MAX_WAITING)
        self._pending: set[int | None] = set()
        self._canceled: set[int | None] = set()
        self._is_serving = False
        self._is_sending = False
        self._ended: str | None = None  # how the association ended, in words
        self._closed = False
        self._sent_at = asyncio.get_running_loop().time()
        self._begun_at = 0.0
        self._released = asyncio.Event()
        self._max_sent = min(agreement.max_pdu or MAX_SENT, MAX_SENT)
        self._reading = asyncio.create_task(self._read())

    @property
    def is_open(self) -> bool:
        """False once either side has ended the association."""
        return self._ended is None and not self._closed

    # --- messages ---

    async def receive(self) -> Message:
        """The next message other than C-CANCEL; ``forget`` it when done. Raises Gone when the association ends."""
        if self.is_open:
            message = await self._incoming.get()
            if message is not None and self.is_open:
                return message
            self._give_back(message)
        self._end("released by the peer" if self._released.is_set() else "closed")
        raise Gone(self._ended or "")

    async def messages(self) -> AsyncGenerator[Message, None]:
        """All messages up to the end of the association. A message counts as served when the next is requested."""
        with contextlib.suppress(Gone):
            while True:
                message = await self.receive()
                self._is_serving = True
                try:
                    yield message
                finally:
                    self._is_serving = False
                    self.forget(message)

    def is_canceled(self, message: Message) -> bool:
        """True if C-CANCEL has arrived for this message."""
        return message.number(MESSAGE_ID) in self._canceled

    def forget(self, message: Message) -> None:
        """Free the Message ID and the memory of an operation that is over."""
        number = message.number(MESSAGE_ID)
        self._pending.discard(number)
        self._canceled.discard(number)
        self._give_back(message)

    def _give_back(self, message: Message | None) -> None:
        if message is not None and message.data:
            self._terms.memory.give(len(message.data))

    async def send(self, *messages: Message) -> None:
        """Send messages, and wait until the peer has read most of them, while other associations are served.

        Only one call at a time. Raises Gone if the peer reads too slowly, or if the association has ended.
        """
        self._is_sending = True
        try:
            is_short = len(messages) == 1
            for pdus in _batches(messages, self._max_sent):
                if not self.is_open:
                    raise Gone(self._ended or "closed")
                self._wire.write(pdus)
                self._sent_at = asyncio.get_running_loop().time()
                if self._wire.is_congested:
                    await self._flush()
                is_short = is_short and len(pdus) < _SENT_AT_ONCE
                if not is_short:
                    await asyncio.sleep(0)
        except asyncio.CancelledError:  # nothing may follow half a message
            self._abort_with("a message was broken off")
            raise
        finally:
            self._is_sending = False

    async def _flush(self) -> None:
        try:
            async with asyncio.timeout(self._terms.pace):
                await self._wire.drain()
        except TimeoutError:
            await self.abort()
            raise Gone("the peer reads too slowly") from None
        except OSError as error:
            raise Gone(f"connection lost ({error.strerror or error})") from error

    # --- reading ---

    async def _read(self) -> None:
        try:
            while self._ended is None and not self._released.is_set():
                kind, length = await self._header()
                body = await self._body(
                    length, self._terms.max_pdu + SLACK if kind is PduType.DATA else MAX_CONTROL
                )
                if kind is PduType.DATA:
                    await self._assemble(body)
                elif kind is PduType.RELEASE_RQ:
                    self._released.set()  # earlier requests are answered first
                elif kind is PduType.RELEASE_RP:
                    self._end("released")
                elif kind is PduType.ABORT:
                    self._end("aborted by the peer")
                else:
                    raise ProtocolError(f"unexpected {kind.name}")
        except (ProtocolError, Malformed) as error:
            reason = error.reason if isinstance(error, ProtocolError) else AbortReason.INVALID_VALUE
            self._wire.write(abort_by_provider(reason))
            self._end(f"protocol error of the peer: {error}")
        except TimeoutError:
            self._abort_with("the peer was silent for too long")
        except EOFError:
            self._end("connection closed by the peer")
        except OSError as error:
            self._end(f"connection lost ({error.strerror or error})")
        except Exception:
            _log.exception("Reading from %s failed", self.calling)
            self._end("internal error")
        await self._incoming.put(None)

    def _abort_with(self, words: str) -> None:
        if self.is_open:
            self._wire.write(ABORT_BY_USER)
        self._end(words)

    def _end(self, words: str) -> None:
        self._ended = self._ended or words

    async def _body(self, length: int, max_length: int) -> bytes:
        if self._wire.holds(length):
            return await self._wire.body(length, max_length)
        async with asyncio.timeout(self._terms.pace):
            return await self._wire.body(length, max_length)

    async def _header(self) -> tuple[PduType, int]:
        """The next header. Raises TimeoutError if nothing was sent or received for too long."""
        if self._wire.holds(HEADER_SIZE):
            return await self._wire.header()
        if self._assembler.awaits_data_set:
            try:
                async with asyncio.timeout(min(_DATA_SET_WITHIN, self._terms.pace)):
                    return await self._wire.header()
            except TimeoutError:  # pynetdicom announces an empty data set and does not send it
                await self._hand_over(self._assembler.without_data_set())
        if self._assembler.is_within:
            async with asyncio.timeout_at(self._begun_at + self._terms.pace * _MESSAGE_FACTOR):
                return await self._wire.header()
        while True:
            quiet_since = asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout(self._terms.idle or None):
                    return await self._wire.header()
            except TimeoutError:
                if self._sent_at < quiet_since and not self._is_serving:
                    raise

    async def _assemble(self, body: bytes) -> None:
        if not self._assembler.is_within:
            self._begun_at = asyncio.get_running_loop().time()
        for message in self._assembler.feed(body):
            if message.field == CommandField.C_CANCEL:
                self._canceled |= self._pending & {message.number(RESPONDED_ID)}
                self._give_back(message)  # it should not have a data set, but may
            else:
                await self._hand_over(message)

    async def _hand_over(self, message: Message) -> None:
        """Queue a message. If the association ends while the queue is full, its memory is freed here."""
        self._pending.add(message.number(MESSAGE_ID))
        try:
            await self._incoming.put(message)
        except BaseException:
            self._give_back(message)
            raise

    # --- ending ---

    async def close(self) -> None:
        """Close the connection, after an answer to the peer's A-RELEASE-RQ if there was one."""
        if self._released.is_set() and not self._closed:
            self._wire.write(RELEASE_RP)
        await self._shut(linger=True)

    async def release(self, patience: float) -> None:
        """Release as requestor: wait for the answer at most ``patience`` seconds, then close (PS3.8 §7.2).

        In the middle of a message the association is aborted instead.
        """
        if self._is_sending:
            self._abort_with("closed")
        if self.is_open:
            self._wire.write(RELEASE_RQ)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await asyncio.shield(self._reading)
            if self._released.is_set():  # both sides requested release at the same time
                self._wire.write(RELEASE_RP)
        await self._shut(linger=False)

    async def abort(self) -> None:
        """Abort and close at once."""
        if self.is_open:
            self._wire.write(ABORT_BY_USER)
        await self._shut(linger=False)

    async def _shut(self, *, linger: bool) -> None:
        if self._closed:
            return
        self._closed = True
        self._reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reading
        self._assembler.close()
        while not self._incoming.empty():
            self._give_back(self._incoming.get_nowait())
        await self._wire.close(linger=linger)


def _batches(messages: Iterable[Message], max_pdu: int) -> Iterator[bytes]:
    """The PDUs of messages, encoded lazily: a large data set becomes very many small PDUs."""
    batch = bytearray()
    for message in messages:
        for part in fragments(message, max_pdu):
            batch += data_pdu(part)
            if len(batch) >= _SENT_AT_ONCE:
                yield bytes(batch)
                batch.clear()
    if batch:
        yield bytes(batch)
