# SPDX-License-Identifier: AGPL-3.0-or-later
"""Frames that a server sends (RFC 6455 §5): unmasked, so one frame serves every socket as it is.

The library that does the handshake and reads what clients send would build each frame again for each socket; with a
thousand sockets per event that is most of the work.
"""

from __future__ import annotations

import struct
from typing import Final

_FINAL: Final = 0x80
_TEXT: Final = 0x1
_CLOSE: Final = 0x8
_PING: Final = 0x9
_PONG: Final = 0xA

GOING_AWAY: Final = 1001
TRY_AGAIN_LATER: Final = 1013


def text(payload: bytes) -> bytes:
    """One text message."""
    return _frame(_TEXT, payload)


def ping(payload: bytes) -> bytes:
    """A ping; the payload has at most 125 bytes."""
    return _frame(_PING, payload)


def pong(payload: bytes) -> bytes:
    """The answer to a ping, with its payload."""
    return _frame(_PONG, payload)


def close(code: int, reason: str) -> bytes:
    """A close frame with a status code of RFC 6455 §7.4 and a reason in words."""
    return _frame(_CLOSE, struct.pack("!H", code) + reason.encode()[:123])


def _frame(opcode: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", _FINAL | opcode, size)
    elif size < 65536:
        head = struct.pack("!BBH", _FINAL | opcode, 126, size)
    else:
        head = struct.pack("!BBQ", _FINAL | opcode, 127, size)
    return head + payload
