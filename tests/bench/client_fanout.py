# SPDX-License-Identifier: AGPL-3.0-or-later
"""Many WebSockets that wait for events, at as little cost as Python allows, so that the server is measured."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Iterator

from tests.bench.measuring import answer
from tests.support import raw_http
from tests.support.load_plan import as_json
from tests.support.workitems import UID_ROOT, minimal

_CREATION = as_json(minimal())
_TEXT, _PING, _PONG = 0x1, 0x9, 0xA
_HOST = "127.0.0.1"
_PATIENCE = 30.0


class _Ear:
    """One open WebSocket."""

    def __init__(self, port: int, path: str) -> None:
        self.socket = socket.create_connection((_HOST, port), _PATIENCE)
        self.socket.sendall(raw_http.handshake(path))
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.socket.recv(65_536)
        assert head.startswith(b"HTTP/1.1 101"), head
        self._rest = head.partition(b"\r\n\r\n")[2]

    def read(self) -> int:
        """Take what came, answer pings; how many messages it was."""
        data, position, messages = self._rest + self.socket.recv(65_536), 0, 0
        while (end := _end(data, position)) <= len(data):
            opcode = data[position] & 0x0F
            messages += opcode == _TEXT
            if opcode == _PING:
                self.socket.sendall(raw_http.masked(_PONG, data[position + 2 : end]))
            position = end
        self._rest = data[position:]
        return messages


def _end(data: bytes, position: int) -> int:
    """Where the frame ends that begins at a place; beyond the data if it is not all there."""
    size, start = data[position + 1] if position + 1 < len(data) else 125, position + 2
    if size == 126 and start + 2 <= len(data):
        return start + 2 + int(struct.unpack_from(">H", data, start)[0])
    return start + size


class _Crowd:
    """All ears, and the connection by which changes are made."""

    def __init__(self, port: int, sockets: int, path: str) -> None:
        self._poll = select.epoll()
        ears = [_Ear(port, path) for _ in range(sockets)]
        self._ears = {ear.socket.fileno(): ear for ear in ears}
        self._sender = socket.create_connection((_HOST, port), _PATIENCE)
        for number in (*self._ears, self._sender.fileno()):
            self._poll.register(number, select.EPOLLIN)

    def change(self, request: bytes) -> float:
        """Make a change; seconds until it is answered and every ear has heard of it."""
        begun, left, answered = time.perf_counter(), len(self._ears), False
        self._sender.sendall(request)
        while left > 0 or not answered:
            for number in self._ready():
                if number in self._ears:
                    left -= self._ears[number].read()
                else:
                    answered = self._is_answered()
        return time.perf_counter() - begun

    def _ready(self) -> Iterator[int]:
        ready = self._poll.poll(_PATIENCE)
        assert ready, f"nothing for {_PATIENCE:g} s"
        return (number for number, _ in ready)

    def _is_answered(self) -> bool:
        result = self._sender.recv(65_536)
        assert result[9:12] in (b"200", b"201"), result
        return True


async def fan_out(
    port: int, sockets: int, changes: int, path: str, target: str, run: str
) -> dict[str, list[float]]:
    """Open sockets, then make changes one after the other: seconds until every socket has each (``times``).

    ``target`` is what is POSTed to; empty means a workitem of our own.
    """
    crowd = _Crowd(port, sockets, path)
    return {"times": [crowd.change(_announced(target, f"{UID_ROOT}.{run}.{n}")) for n in range(changes)]}


def _announced(target: str, uid: str) -> bytes:
    """A change that is told by exactly one event."""
    if target:
        return raw_http.request("POST", target, b"{}")
    return raw_http.request("POST", f"/dicom-web/workitems?{uid}", _CREATION)


if __name__ == "__main__":
    answer(fan_out)
