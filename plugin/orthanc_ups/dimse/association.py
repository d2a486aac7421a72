# SPDX-License-Identifier: AGPL-3.0-or-later
"""An established association on the asyncio loop (PS3.8 §9.2): messages in, messages out, and its end.

Why not pynetdicom's own reactor: it needs two or three threads per association which poll a thousand times a
second, reads PDUs and data sets of any size into memory, cannot use file descriptors beyond 1023, and shakes hands
for TLS while nobody else can connect. Its PDUs and its negotiation are used (``negotiation.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

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
)
from .negotiation import Agreement, Context
from .wire import Wire

_log = logging.getLogger("orthanc_ups.dimse")

_MAX_WAITING: Final = 1  # messages received but not yet served; more stay in the network
_MAX_CONTROL: Final = 1024  # bytes of a release or abort
_SLACK: Final = 256  # bytes by which careless peers exceed the maximum PDU length
_MAX_SENT: Final = 128 * 1024  # bytes of a PDU for a peer that takes any size
_SENT_AT_ONCE: Final = 64 * 1024  # bytes of PDUs written before other associations get a turn
_DATA_SET_DUE: Final = 5.0  # seconds after its command set until a data set must have begun
_MESSAGE_FACTOR: Final = 10  # a whole message may take this many times as long as one PDU


class Gone(Exception):
    """The association has ended; the text says how."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What an association is allowed to do.

    Attributes:
        max_pdu: greatest P-DATA-TF that we announced, in bytes behind its header.
        max_data_set: greatest data set in bytes.
        idle: seconds without any traffic after which it is aborted; 0 never.
        pace: seconds for one PDU to arrive or to be taken by the peer.
        memory: for data sets on their way in.
    """

    max_pdu: int
    max_data_set: int
    idle: float
    pace: float
    memory: MemoryBudget


class Association:
    """One association in either role. Lives on the loop; a task of its own reads ahead, so that C-CANCEL is seen.

    Attributes:
        calling, called: AE titles.
        agreement: what was negotiated.
    """

    def __init__(self, wire: Wire, agreement: Agreement, terms: Terms, calling: str, called: str) -> None:
        self.calling = calling
        self.called = called
        self.agreement = agreement
        self._wire = wire
        self._terms = terms
        self._assembler = Assembler(agreement.contexts, terms.max_data_set, terms.memory, skips_replies=True)
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
        self._max_sent = min(agreement.max_pdu or _MAX_SENT, _MAX_SENT)
        self._reading = asyncio.create_task(self._read())

    @property
    def address(self) -> str:
        """The peer's IP address."""
        return self._wire.address

    @property
    def contexts(self) -> Mapping[int, Context]:
        """The accepted presentation contexts by their IDs."""
        return self.agreement.contexts

    @property
    def is_open(self) -> bool:
        """False once either side has left."""
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
        """Every message up to the end of the association. Each counts as served when the next is asked for."""
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
        """True if C-CANCEL came for this message."""
        return message.number(MESSAGE_ID) in self._canceled

    def forget(self, message: Message) -> None:
        """The operation is over: its Message ID and the memory of its data set are free again."""
        number = message.number(MESSAGE_ID)
        self._pending.discard(number)
        self._canceled.discard(number)
        self._give_back(message)

    def _give_back(self, message: Message | None) -> None:
        if message is not None and message.data:
            self._terms.memory.give(len(message.data))

    async def send(self, *messages: Message) -> None:
        """Send messages and wait until the peer keeps up; meanwhile others have their turn. Not to be called twice
        at the same time. Raises Gone if the peer does not keep up, or if the association has ended.
        """
        self._is_sending = True
        try:
            is_short = len(messages) == 1
            for pdus in _batches(messages, self._max_sent):
                self._write(pdus)
                if self._wire.is_congested:
                    await self._flush()
                is_short = is_short and len(pdus) < _SENT_AT_ONCE
                if not is_short:
                    await asyncio.sleep(0)
        except asyncio.CancelledError:  # nothing else may follow half a message
            self._break_off("a message was broken off")
            raise
        finally:
            self._is_sending = False

    def _write(self, pdus: bytes) -> None:
        if not self.is_open:
            raise Gone(self._ended or "closed")
        self._wire.write(pdus)
        self._sent_at = asyncio.get_running_loop().time()

    async def _flush(self) -> None:
        try:
            async with asyncio.timeout(self._terms.pace):
                await self._wire.drain()
        except TimeoutError:
            await self.abort()
            raise Gone("the peer does not read") from None
        except OSError as error:
            raise Gone(f"connection lost ({error.strerror or error})") from error

    # --- reading ---

    async def _read(self) -> None:
        try:
            while self._ended is None and not self._released.is_set():
                await self._take(*await self._next())
        except (ProtocolError, Malformed) as error:
            reason = error.reason if isinstance(error, ProtocolError) else AbortReason.INVALID_VALUE
            self._wire.write(abort_by_provider(reason))
            self._end(f"protocol error of the peer: {error}")
        except TimeoutError:
            self._break_off("the peer was silent for too long")
        except EOFError:
            self._end("connection closed by the peer")
        except OSError as error:
            self._end(f"connection lost ({error.strerror or error})")
        except Exception:
            _log.exception("reading from %s failed", self.calling)
            self._end("internal error")
        await self._incoming.put(None)

    def _break_off(self, words: str) -> None:
        if self.is_open:
            self._wire.write(ABORT_BY_USER)
        self._end(words)

    def _end(self, words: str) -> None:
        self._ended = self._ended or words

    async def _next(self) -> tuple[PduType, bytes]:
        kind, length = await self._header()
        max_length = self._terms.max_pdu + _SLACK if kind is PduType.DATA else _MAX_CONTROL
        if self._wire.holds(length):
            return kind, await self._wire.body(length, max_length)
        async with asyncio.timeout(self._terms.pace):
            return kind, await self._wire.body(length, max_length)

    async def _header(self) -> tuple[PduType, int]:
        """The next header; TimeoutError if nothing was sent or received for too long."""
        if self._wire.holds(HEADER_SIZE):
            return await self._wire.header()
        if self._assembler.awaits_data_set:
            try:
                async with asyncio.timeout(min(_DATA_SET_DUE, self._terms.pace)):
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

    async def _take(self, kind: PduType, body: bytes) -> None:
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
        """If the association ends while the queue is full, nobody else holds the message: its memory is freed here."""
        self._pending.add(message.number(MESSAGE_ID))
        try:
            await self._incoming.put(message)
        except BaseException:
            self._give_back(message)
            raise

    # --- ending ---

    async def close(self) -> None:
        """Close the connection, answering the peer's release if it asked for one."""
        if self._released.is_set() and not self._closed:
            self._wire.write(RELEASE_RP)
        await self._shut(linger=True)

    async def release(self, patience: float) -> None:
        """Release as requestor: wait for the answer at most ``patience`` seconds, then close (PS3.8 §7.2).

        Within a message there is no release: then the association is aborted.
        """
        if self._is_sending:
            self._break_off("closed")
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
