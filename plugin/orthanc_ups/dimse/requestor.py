# SPDX-License-Identifier: AGPL-3.0-or-later
"""An association opened by the plugin: each request is answered before the next is sent (PS3.7 §7.1, PS3.8 §9.2)."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from dataclasses import dataclass
from typing import Final, Self

from .association import MAX_CONTROL, MAX_SENT, SLACK, Gone, Wire
from .message import (
    ABORT_BY_USER,
    HEADER_SIZE,
    MESSAGE_ID,
    RELEASE_RP,
    RELEASE_RQ,
    RESPONDED_ID,
    RESPONSE,
    AbortReason,
    Assembler,
    CommandSet,
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

_MAX_REPLY: Final = 64 * 1024  # bytes of a reply's data set; the requests sent here have replies without one
_NUMBER: Final = struct.Struct("<H")
_NUMBER_HEAD: Final = struct.pack("<HHL", 0, MESSAGE_ID, _NUMBER.size)


@dataclass(frozen=True, slots=True)
class EncodedRequest:
    """A request as PDUs without its Message ID, so that a report to many receivers is encoded once.

    Attributes:
        field: Command Field (0000,0100).
        before, after: the bytes of the PDUs before and after the Message ID.
    """

    field: int
    before: bytes
    after: bytes

    @classmethod
    def of(cls, context: int, command: CommandSet, data: bytes | None, max_pdu: int) -> Self:
        """Encode for a peer that takes P-DATA-TF of at most ``max_pdu`` bytes after the header, at least 128.

        The Message ID is within the first 104 bytes of the command set, and so in the first fragment.
        """
        message = Message(context, {**command, MESSAGE_ID: 0}, data)
        pdus = b"".join(data_pdu(fragment) for fragment in fragments(message, max_pdu))
        number_at = pdus.index(_NUMBER_HEAD) + len(_NUMBER_HEAD)
        return cls(message.field, pdus[:number_at], pdus[number_at + _NUMBER.size :])

    def numbered(self, number: int) -> bytes:
        """The PDUs with a Message ID."""
        return self.before + _NUMBER.pack(number) + self.after


class Requestor:
    """The requestor's side of an association. It has no task: bytes are processed in the callback that receives them.

    Attributes:
        agreement: what was negotiated.
        max_sent: greatest P-DATA-TF that may be sent, in bytes after its header.
    """

    def __init__(self, wire: Wire, agreement: Agreement, max_pdu: int) -> None:
        """``max_pdu`` is the greatest P-DATA-TF that was announced to the peer, in bytes after its header."""
        self.agreement = agreement
        self.max_sent = min(agreement.max_pdu or MAX_SENT, MAX_SENT)
        self._wire = wire
        self._max_received = max_pdu + SLACK
        self._memory = MemoryBudget(_MAX_REPLY)
        self._assembler = Assembler(agreement.contexts, _MAX_REPLY, self._memory, skips_replies=True)
        self._header: tuple[PduType, int] | None = None
        self._last_id = 0
        self._answer: asyncio.Future[Message] | None = None
        self._field = 0  # Command Field of the awaited answer
        self._patience = 0.0
        self._due = 0.0  # deadline of the answer, by the loop's clock
        self._timer: asyncio.TimerHandle | None = None
        self._is_leaving = False
        self._ended: str | None = None  # how the association ended
        self._end_reached = asyncio.Event()
        wire.follow(self._arrived)

    @property
    def is_open(self) -> bool:
        """False once either side has ended the association."""
        return self._ended is None and not self._is_leaving

    async def ask(self, request: EncodedRequest, patience: float) -> Message:
        """Send a request and wait for its answer. Only one call at a time.

        Raises:
            Gone: the association has ended, or was aborted because there was no answer within ``patience`` seconds.
        """
        if self._ended is not None:
            raise Gone(self._ended)
        loop = asyncio.get_running_loop()
        self._last_id = self._last_id % 0xFFFF + 1
        self._field = request.field | RESPONSE
        self._answer = loop.create_future()
        self._expect_within(patience, loop)
        self._wire.write(request.numbered(self._last_id))
        try:
            return await self._answer
        finally:
            self._answer = None

    # --- the deadline of an answer: one timer serves many requests ---

    def _expect_within(self, patience: float, loop: asyncio.AbstractEventLoop) -> None:
        self._patience, self._due = patience, loop.time() + patience
        if self._timer is not None and self._timer.when() > self._due:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = loop.call_at(self._due, self._check_deadline)

    def _check_deadline(self) -> None:
        self._timer = None
        if self._answer is None:
            return
        loop = asyncio.get_running_loop()
        if loop.time() < self._due:
            self._timer = loop.call_at(self._due, self._check_deadline)
        else:
            self._abort_with(f"no answer within {self._patience:g} s")

    # --- what arrives ---

    def _arrived(self) -> None:
        try:
            while self._ended is None and (pdu := self._next()) is not None:
                self._take(*pdu)
        except (ProtocolError, Malformed) as error:
            reason = error.reason if isinstance(error, ProtocolError) else AbortReason.INVALID_VALUE
            self._wire.write(abort_by_provider(reason))
            self._end(f"protocol error of the peer: {error}")
        if self._wire.ending is not None:
            self._end(self._wire.ending)

    def _next(self) -> tuple[PduType, bytes] | None:
        """The next PDU, or None if it is not complete yet."""
        if self._header is None:
            if not self._wire.expects(HEADER_SIZE):
                return None
            self._header = self._checked(*read_header(self._wire.take(HEADER_SIZE)))
        kind, length = self._header
        if not self._wire.expects(length):
            return None
        self._header = None
        return kind, self._wire.take(length)

    def _checked(self, kind: PduType, length: int) -> tuple[PduType, int]:
        max_length = self._max_received if kind is PduType.DATA else MAX_CONTROL
        if length > max_length:
            words = f"PDU of {length} bytes, expected at most {max_length}"
            raise ProtocolError(words, AbortReason.INVALID_VALUE)
        return kind, length

    def _take(self, kind: PduType, body: bytes) -> None:
        if kind is PduType.DATA:
            for message in self._assembler.feed(body):
                self._take_message(message)
        elif kind is PduType.RELEASE_RQ:
            self._wire.write(RELEASE_RP)
            self._end("released by the peer")
        elif kind is PduType.RELEASE_RP:
            self._end("released")
        elif kind is PduType.ABORT:
            self._end("aborted by the peer")
        else:
            raise ProtocolError(f"unexpected {kind.name}")

    def _take_message(self, message: Message) -> None:
        """Hand over the awaited answer; any other message is ignored."""
        if message.data:
            self._memory.give(len(message.data))
        is_answer = message.field == self._field and message.number(RESPONDED_ID) == self._last_id
        if is_answer and self._answer is not None and not self._answer.done():
            self._answer.set_result(message)

    # --- ending ---

    def _end(self, words: str) -> None:
        if self._ended is not None:
            return
        self._ended = words
        self._end_reached.set()
        self._assembler.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(Gone(words))
        self._wire.shut()

    def _abort_with(self, words: str) -> None:
        if self._ended is None:
            self._wire.write(ABORT_BY_USER)
        self._end(words)

    async def release(self, patience: float) -> None:
        """Release the association, wait at most ``patience`` seconds for the answer, and close (PS3.8 §7.2)."""
        if self.is_open:
            self._is_leaving = True
            self._wire.write(RELEASE_RQ)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._end_reached.wait()
        self._end("closed")
        await self._wire.close()
