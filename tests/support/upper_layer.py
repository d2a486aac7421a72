# SPDX-License-Identifier: AGPL-3.0-or-later
"""A-ASSOCIATE PDUs written by hand (PS3.8 §9.3), for fast clients and for deliberately broken requests."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"
IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
_IMPLEMENTATION = b"2.25.99132275113"
_AE_TITLES = 68  # bytes before the first item, behind the header


@dataclass(frozen=True)
class Proposed:
    """One presentation context of a request."""

    abstract: str
    syntaxes: tuple[str, ...]


@dataclass(frozen=True)
class Asked:
    """An A-ASSOCIATE-RQ, as far as these tests need it.

    Attributes:
        contexts: what was proposed, by ID.
        roles: (SCU, SCP) by SOP class.
    """

    calling: str
    called: str
    contexts: Mapping[int, Proposed]
    roles: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    maximum: int = 0


def item(kind: int, content: bytes) -> bytes:
    """An item or sub-item: type, reserved byte, length."""
    return struct.pack(">BxH", kind, len(content)) + content


def pdu(kind: int, content: bytes) -> bytes:
    """A PDU: type, reserved byte, length."""
    return struct.pack(">BxL", kind, len(content)) + content


def items(encoded: bytes) -> Iterator[tuple[int, bytes]]:
    """Split the content into items."""
    position = 0
    while position + 4 <= len(encoded):
        kind, length = struct.unpack_from(">BxH", encoded, position)
        yield kind, encoded[position + 4 : position + 4 + length]
        position += 4 + length


def associate_rq(
    calling: str,
    called: str,
    classes: Sequence[str],
    *,
    maximum: int = 65_536,
    syntax: str = EXPLICIT,
    roles: Mapping[str, tuple[int, int]] | None = None,
) -> bytes:
    """An A-ASSOCIATE-RQ with one context per SOP class; their IDs are 1, 3, 5, …"""
    contexts = [
        item(0x20, bytes((number, 0, 0, 0)) + item(0x30, uid.encode()) + item(0x40, syntax.encode()))
        for number, uid in zip(range(1, 256, 2), classes, strict=False)
    ]
    return _associate(1, calling, called, contexts, maximum, roles or {})


def associate_ac(request: Asked, accepted: Mapping[int, str], maximum: int = 65_536) -> bytes:
    """The answer: a transfer syntax per accepted context; the roles are granted as proposed."""
    contexts = [
        item(
            0x21,
            bytes((number, 0, 0 if number in accepted else 3, 0)) + item(0x40, _syntax(accepted, number)),
        )
        for number in request.contexts
    ]
    return _associate(2, request.calling, request.called, contexts, maximum, request.roles)


def _syntax(accepted: Mapping[int, str], number: int) -> bytes:
    return accepted.get(number, IMPLICIT).encode()


def _associate(
    kind: int,
    calling: str,
    called: str,
    contexts: Sequence[bytes],
    maximum: int,
    roles: Mapping[str, tuple[int, int]],
) -> bytes:
    user = item(0x51, struct.pack(">L", maximum)) + item(0x52, _IMPLEMENTATION)
    for uid, (scu, scp) in roles.items():
        user += item(0x54, struct.pack(">H", len(uid)) + uid.encode() + bytes((scu, scp)))
    head = struct.pack(">HH16s16s32x", 1, 0, called.encode().ljust(16), calling.encode().ljust(16))
    return pdu(kind, head + item(0x10, APPLICATION_CONTEXT) + b"".join(contexts) + item(0x50, user))


def read_rq(body: bytes) -> Asked:
    """Parse an A-ASSOCIATE-RQ without its header."""
    called, calling = (body[at : at + 16].decode().strip() for at in (4, 20))
    contexts: dict[int, Proposed] = {}
    roles: dict[str, tuple[int, int]] = {}
    maximum = 0
    for kind, content in items(body[_AE_TITLES:]):
        if kind == 0x20:
            inner = list(items(content[4:]))
            abstract = next(value.decode().strip("\0") for sub, value in inner if sub == 0x30)
            syntaxes = tuple(value.decode().strip("\0") for sub, value in inner if sub == 0x40)
            contexts[content[0]] = Proposed(abstract, syntaxes)
        elif kind == 0x50:
            for sub, value in items(content):
                if sub == 0x51:
                    maximum = int.from_bytes(value, "big")
                elif sub == 0x54:
                    roles[value[2:-2].decode()] = (value[-2], value[-1])
    return Asked(calling, called, contexts, roles, maximum)


def read_ac(body: bytes) -> tuple[dict[int, str], int]:
    """The transfer syntax of each accepted context by ID, and the maximum PDU size of the peer."""
    accepted: dict[int, str] = {}
    maximum = 0
    for kind, content in items(body[_AE_TITLES:]):
        if kind == 0x21 and content[2] == 0:
            accepted[content[0]] = next(
                value.decode().strip("\0") for sub, value in items(content[4:]) if sub == 0x40
            )
        elif kind == 0x50:
            maximum = next((int.from_bytes(value, "big") for sub, value in items(content) if sub == 0x51), 0)
    return accepted, maximum
