# SPDX-License-Identifier: AGPL-3.0-or-later
"""Protocol data units of the DICOM upper layer (PS3.8 §9.3), as far as they are not negotiation."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class Kind(IntEnum):
    """PDU type."""

    ASSOCIATE_RQ = 1
    ASSOCIATE_AC = 2
    ASSOCIATE_RJ = 3
    DATA = 4
    RELEASE_RQ = 5
    RELEASE_RP = 6
    ABORT = 7


HEADER_SIZE: Final = 6
_HEADER: Final = struct.Struct(">BxL")


class Abort(IntEnum):
    """Reason of an A-ABORT by the service provider (PS3.8 Table 9-26)."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED = 1
    UNEXPECTED = 2
    INVALID_VALUE = 6


class ProtocolError(Exception):
    """The peer broke the upper layer protocol; the association is aborted for this reason."""

    def __init__(self, text: str, reason: Abort = Abort.UNEXPECTED) -> None:
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
        return _HEADER.pack(Kind.ASSOCIATE_RJ, 4) + bytes((0, self.result, self.source, self.reason))


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

RELEASE_RQ: Final = _HEADER.pack(Kind.RELEASE_RQ, 4) + bytes(4)
RELEASE_RP: Final = _HEADER.pack(Kind.RELEASE_RP, 4) + bytes(4)
ABORT_BY_USER: Final = _HEADER.pack(Kind.ABORT, 4) + bytes(4)


def abort_by_provider(reason: Abort) -> bytes:
    """An A-ABORT that tells what the peer did wrong."""
    return _HEADER.pack(Kind.ABORT, 4) + bytes((0, 0, 2, reason))


def data(fragment: bytes) -> bytes:
    """A P-DATA-TF with one fragment."""
    return _HEADER.pack(Kind.DATA, len(fragment)) + fragment


def read_header(header: bytes) -> tuple[Kind, int]:
    """Type and length of what follows.

    Raises:
        ProtocolError: there is no such type.
    """
    kind, length = _HEADER.unpack(header)
    try:
        return Kind(kind), length
    except ValueError:
        raise ProtocolError(f"unknown PDU type {kind:02X}", Abort.UNRECOGNIZED) from None


def read_rejection(body: bytes) -> Rejection:
    """An A-ASSOCIATE-RJ without its header."""
    _, result, source, reason = body[:4].ljust(4, b"\0")
    words = _REASONS.get((source, reason), f"source {source}, reason {reason}")
    return Rejection(result, source, reason, words)
