# SPDX-License-Identifier: AGPL-3.0-or-later
"""PDUs (PS3.8 §9.3), the fragments in them (PS3.8 Annex E), and the messages that these form (PS3.7 §6.3, Annex E).

The PDUs of negotiation are in ``negotiation.py``.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Final, TypeAlias, cast

# --- protocol data units ---


class PduType(IntEnum):
    """PDU types (PS3.8 §9.3.1)."""

    ASSOCIATE_RQ = 1
    ASSOCIATE_AC = 2
    ASSOCIATE_RJ = 3
    DATA = 4
    RELEASE_RQ = 5
    RELEASE_RP = 6
    ABORT = 7


HEADER_SIZE: Final = 6
_HEADER: Final = struct.Struct(">BxL")


class AbortReason(IntEnum):
    """Reason of an A-ABORT by the service provider (PS3.8 Table 9-26)."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED = 1
    UNEXPECTED = 2
    INVALID_VALUE = 6


class ProtocolError(Exception):
    """The peer violated the upper layer protocol; the association is aborted for this reason."""

    def __init__(self, text: str, reason: AbortReason = AbortReason.UNEXPECTED) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Rejection:
    """An A-ASSOCIATE-RJ (PS3.8 Table 9-21).

    Attributes:
        result: 1 permanent, 2 transient.
        source: 1 service user, 2 service provider (ACSE), 3 service provider (presentation).
        reason: its meaning depends on the source.
        words: why, for the log.
    """

    result: int
    source: int
    reason: int
    words: str

    @property
    def pdu(self) -> bytes:
        """The encoded PDU."""
        return _HEADER.pack(PduType.ASSOCIATE_RJ, 4) + bytes((0, self.result, self.source, self.reason))


_REASONS: Final = {
    (1, 1): "no reason given",
    (1, 2): "application context name not supported",
    (1, 3): "calling AE title not recognized",
    (1, 7): "called AE title not recognized",
    (2, 1): "no reason given",
    (2, 2): "protocol version not supported",
    (3, 1): "temporary congestion",
    (3, 2): "local limit exceeded",
}

RELEASE_RQ: Final = _HEADER.pack(PduType.RELEASE_RQ, 4) + bytes(4)
RELEASE_RP: Final = _HEADER.pack(PduType.RELEASE_RP, 4) + bytes(4)
ABORT_BY_USER: Final = _HEADER.pack(PduType.ABORT, 4) + bytes(4)


def abort_by_provider(reason: AbortReason) -> bytes:
    """An A-ABORT with the reason."""
    return _HEADER.pack(PduType.ABORT, 4) + bytes((0, 0, 2, reason))


def data_pdu(fragment: bytes) -> bytes:
    """A P-DATA-TF with one fragment."""
    return _HEADER.pack(PduType.DATA, len(fragment)) + fragment


def read_header(header: bytes) -> tuple[PduType, int]:
    """The PDU type, and the length of the rest of the PDU in bytes.

    Raises:
        ProtocolError: the type is unknown.
    """
    kind, length = _HEADER.unpack(header)
    try:
        return PduType(kind), length
    except ValueError:
        raise ProtocolError(f"unknown PDU type {kind:02X}", AbortReason.UNRECOGNIZED) from None


def read_rejection(body: bytes) -> Rejection:
    """An A-ASSOCIATE-RJ without its header."""
    _, result, source, reason = body[:4].ljust(4, b"\0")
    words = _REASONS.get((source, reason), f"source {source}, reason {reason}")
    return Rejection(result, source, reason, words)


# --- messages ---

Value: TypeAlias = int | str | tuple[str, ...]
CommandSet: TypeAlias = Mapping[int, Value]
"""Elements of group 0000 by element number: numbers, text, or tags as 8 hex digits."""


class CommandField(IntEnum):
    """Command Field (0000,0100) of the requests; a response has the highest bit set as well."""

    C_STORE = 0x0001
    C_GET = 0x0010
    C_FIND = 0x0020
    C_MOVE = 0x0021
    C_ECHO = 0x0030
    N_EVENT_REPORT = 0x0100
    N_GET = 0x0110
    N_SET = 0x0120
    N_ACTION = 0x0130
    N_CREATE = 0x0140
    N_DELETE = 0x0150
    C_CANCEL = 0x0FFF


RESPONSE: Final = 0x8000
"""The bit that turns the Command Field of a request into that of its response."""

AFFECTED_CLASS: Final = 0x0002
REQUESTED_CLASS: Final = 0x0003
COMMAND_FIELD: Final = 0x0100
MESSAGE_ID: Final = 0x0110
RESPONDED_ID: Final = 0x0120
PRIORITY: Final = 0x0700
DATA_SET_TYPE: Final = 0x0800
STATUS: Final = 0x0900
OFFENDING_ELEMENT: Final = 0x0901
ERROR_COMMENT: Final = 0x0902
ERROR_ID: Final = 0x0903
AFFECTED_INSTANCE: Final = 0x1000
REQUESTED_INSTANCE: Final = 0x1001
EVENT_TYPE: Final = 0x1002
ATTRIBUTE_LIST: Final = 0x1005
ACTION_TYPE: Final = 0x1008

_VRS: Final[Mapping[int, str]] = MappingProxyType(
    {
        **dict.fromkeys((AFFECTED_CLASS, REQUESTED_CLASS, AFFECTED_INSTANCE, REQUESTED_INSTANCE), "UI"),
        **dict.fromkeys((COMMAND_FIELD, MESSAGE_ID, RESPONDED_ID, PRIORITY, DATA_SET_TYPE), "US"),
        **dict.fromkeys((STATUS, ERROR_ID, EVENT_TYPE, ACTION_TYPE), "US"),
        **dict.fromkeys((OFFENDING_ELEMENT, ATTRIBUTE_LIST), "AT"),
        ERROR_COMMENT: "LO",
    }
)
_NO_DATA_SET: Final = 0x0101
_WITH_DATA_SET: Final = 0x0001
_MAX_COMMAND: Final = 64 * 1024  # bytes; an Attribute Identifier List of 10,000 tags has 40,000
_DISCARD_FACTOR: Final = 8
_IS_COMMAND: Final = 1
_IS_LAST: Final = 2


class Malformed(Exception):
    """The peer violated the DIMSE protocol, and the association cannot continue; the text says how."""


@dataclass(frozen=True, slots=True)
class Message:
    """One DIMSE message.

    Attributes:
        context: presentation context ID.
        command: the command set.
        data: the encoded data set, or None if there is none.
        oversized: True if the data set was larger than allowed; it was discarded.
    """

    context: int
    command: CommandSet
    data: bytes | None = None
    oversized: bool = False

    def number(self, element: int) -> int | None:
        """The value of a US element, or None if it is absent or empty."""
        value = self.command.get(element)
        return value if isinstance(value, int) else None

    def text(self, element: int) -> str:
        """The value of a text element, empty if it is absent."""
        value = self.command.get(element)
        return value if isinstance(value, str) else ""

    def tags(self, element: int) -> tuple[str, ...]:
        """The values of an AT element, () if it is absent."""
        value = self.command.get(element)
        return value if isinstance(value, tuple) else ()

    @property
    def field(self) -> int:
        """Command Field (0000,0100); 0 if absent."""
        return self.number(COMMAND_FIELD) or 0


# --- command sets ---


def parse_command(encoded: bytes) -> CommandSet:
    """Decode a command set, which is always Implicit VR Little Endian. Unknown elements are left out.

    Raises:
        Malformed: it is not a command set, or has no Command Field.
    """
    command: dict[int, Value] = {}
    offset = 0
    while offset < len(encoded):
        if len(encoded) - offset < 8:
            raise Malformed("command set ends within an element")
        group, element, length = struct.unpack_from("<HHL", encoded, offset)
        offset += 8
        if group != 0 or length > len(encoded) - offset:
            raise Malformed("command set has a broken element")
        value = _parsed(_VRS.get(element), encoded[offset : offset + length])
        if value is not None:
            command[element] = value
        offset += length
    if COMMAND_FIELD not in command:
        raise Malformed("command set has no Command Field")
    return command


def _parsed(vr: str | None, raw: bytes) -> Value | None:
    if vr == "US":
        return int.from_bytes(raw[:2], "little") if len(raw) >= 2 else None
    if vr == "AT":
        halves = struct.unpack(f"<{len(raw) // 4 * 2}H", raw[: len(raw) // 4 * 4])
        return tuple(
            f"{group:04X}{number:04X}" for group, number in zip(halves[::2], halves[1::2], strict=True)
        )
    return raw.decode("ascii", errors="replace").strip(" \0") if vr else None


def format_command(command: CommandSet, has_data: bool) -> bytes:
    """Encode a command set with its group length and Command Data Set Type."""
    whole = {**command, DATA_SET_TYPE: _WITH_DATA_SET if has_data else _NO_DATA_SET}
    encoded = bytearray()
    for element in sorted(whole):
        value = whole[element]
        if isinstance(value, tuple):
            encoded += struct.pack("<HHL", 0, element, 4 * len(value))
            for tag in value:
                encoded += struct.pack("<HH", int(tag[:4], 16), int(tag[4:], 16))
        else:
            encoded += _number_or_text(element, value)
    return struct.pack("<HHLL", 0, 0, 4, len(encoded)) + encoded


@lru_cache(2048)
def _number_or_text(element: int, value: int | str) -> bytes:
    """Encode an element. Cached, because commands differ in little but Message ID and workitem."""
    if isinstance(value, int):
        return struct.pack("<HHLH", 0, element, 2, value)
    raw = value.encode("ascii", errors="replace")
    raw += (b"\0" if _VRS.get(element) == "UI" else b" ") * (len(raw) % 2)
    return struct.pack("<HHL", 0, element, len(raw)) + raw


# --- fragments ---


def fragments(message: Message, max_pdu: int) -> Iterator[bytes]:
    """Presentation data values that each fit into a P-DATA-TF of at most ``max_pdu`` bytes after its header.

    Each has an even length, even if ``max_pdu`` is odd (PS3.8 §E.1).
    """
    size = max((max_pdu - 6) & ~1, 2)
    command = format_command(message.command, bool(message.data))
    for encoded, kind in ((command, _IS_COMMAND), (message.data or b"", 0)):
        for offset in range(0, len(encoded), size):
            part = encoded[offset : offset + size]
            last = _IS_LAST if offset + size >= len(encoded) else 0
            yield struct.pack(">LBB", len(part) + 2, message.context, kind | last) + part


class MemoryBudget:
    """A limit on the memory for incoming data sets, shared by associations.

    ``take`` reserves bytes as fragments arrive; the code that is done with a data set gives them back. Example: with
    room for 8 data sets of the greatest size, a ninth that arrives at the same time is discarded and answered with
    0213, and its association stays open.
    """

    def __init__(self, capacity: int) -> None:
        """Args:
        capacity: bytes in all.
        """
        self._free = capacity

    @property
    def free(self) -> int:
        """Bytes that are free."""
        return self._free

    def take(self, size: int) -> bool:
        """Reserve bytes; False if not enough are free."""
        if size > self._free:
            return False
        self._free -= size
        return True

    def give(self, size: int) -> None:
        """Give bytes back."""
        self._free += size


@dataclass(slots=True)
class Assembler:
    """Assembles messages from fragments, without sockets or a clock.

    Attributes:
        contexts: IDs of the accepted presentation contexts.
        max_data_set: greatest size of a data set in bytes; a larger one is discarded as it arrives.
        memory: reserves the bytes of data sets. The receiver of a complete message gives its bytes back.
        skips_replies: treat a response as complete after its command set, and discard its data set as it arrives. Some
            peers announce a data set and never send it: pynetdicom does with empty ones.
    """

    contexts: Collection[int]
    max_data_set: int
    memory: MemoryBudget
    skips_replies: bool = False
    _context: int = 0
    _command: CommandSet | None = None
    _parts: bytearray = field(default_factory=bytearray)
    _discarded: int = 0
    _is_skipping: bool = False  # the data set of a response

    @property
    def is_within(self) -> bool:
        """True if part of a message has arrived."""
        return self._command is not None or bool(self._parts)

    @property
    def awaits_data_set(self) -> bool:
        """True if a command set announced a data set, and none of it has arrived."""
        return self._command is not None and not self._parts and not self._discarded

    def without_data_set(self) -> Message:
        """Complete the message without its announced data set; only while ``awaits_data_set``."""
        return self._complete(None)

    def feed(self, body: bytes) -> Iterator[Message]:
        """Take the content of one P-DATA-TF, and yield the messages that it completes.

        Raises:
            Malformed: the fragments form no message.
        """
        offset = 0
        while offset < len(body):
            if len(body) - offset < 6:
                raise Malformed("P-DATA-TF ends within the header of a fragment")
            length, context, kind = struct.unpack_from(">LBB", body, offset)
            end = offset + 4 + length
            if length < 2 or end > len(body):
                raise Malformed("P-DATA-TF has a fragment of a wrong length")
            if kind & _IS_COMMAND and self.awaits_data_set:
                yield self.without_data_set()
            complete = self._take(context, kind, body[offset + 6 : end])
            if complete:
                yield complete
            offset = end

    def _take(self, context: int, kind: int, part: bytes) -> Message | None:
        if context not in self.contexts:
            raise Malformed(f"presentation context {context} was not accepted")
        if self._is_skipping:
            if not kind & _IS_COMMAND:
                self._skip(kind, part)
                return None
            self._stop_skipping()
        if self.is_within and context != self._context:
            raise Malformed("fragments of two messages are mixed")
        if bool(kind & _IS_COMMAND) == (self._command is not None):
            raise Malformed("command set and data set are mixed")
        self._context = context
        self._append(part)
        if not kind & _IS_LAST:
            return None
        return self._end_of_command() if kind & _IS_COMMAND else self._complete(bytes(self._parts))

    def _append(self, part: bytes) -> None:
        if self._command is None:
            if len(self._parts) + len(part) > _MAX_COMMAND:
                raise Malformed("command set is too long")
            self._parts += part
        elif (
            self._discarded
            or len(self._parts) + len(part) > self.max_data_set
            or not self.memory.take(len(part))
        ):
            self._discard(part)
        else:
            self._parts += part

    def _discard(self, part: bytes) -> None:
        self._discarded += len(self._parts) + len(part)
        self.close()
        if self._discarded > self.max_data_set * _DISCARD_FACTOR:
            raise Malformed("data set is far too large")

    def _skip(self, kind: int, part: bytes) -> None:
        self._discard(part)
        if kind & _IS_LAST:
            self._stop_skipping()

    def _stop_skipping(self) -> None:
        self._is_skipping, self._discarded = False, 0

    def close(self) -> None:
        """Discard an incomplete message."""
        if self._command is not None:
            self.memory.give(len(self._parts))
        self._parts.clear()

    def _end_of_command(self) -> Message | None:
        self._command = parse_command(bytes(self._parts))
        self._parts.clear()
        if self._command.get(DATA_SET_TYPE, _NO_DATA_SET) == _NO_DATA_SET:
            return self._complete(None)
        self._is_skipping = self.skips_replies and bool(cast("int", self._command[COMMAND_FIELD]) & RESPONSE)
        return self._complete(None) if self._is_skipping else None

    def _complete(self, data: bytes | None) -> Message:
        assert self._command is not None
        oversized = bool(self._discarded)
        message = Message(self._context, self._command, None if oversized else data, oversized)
        self._command = None
        self._discarded = 0
        self._parts.clear()
        return message
