# SPDX-License-Identifier: AGPL-3.0-or-later
"""A network between an Orthanc and its PostgreSQL that can fail: a relay on loopback, in threads."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Final, Self

_CHUNK: Final = 64 * 1024


class DroppingRelay:
    """Passes connections on to a port of this host. ``drop`` makes it silent, as a network that loses every packet."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._passes = threading.Event()
        self._passes.set()
        self._open: set[socket.socket] = set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        self.restore()
        self.cut()

    def drop(self) -> None:
        """Drop everything silently; connections stay open."""
        self._passes.clear()

    def restore(self) -> None:
        """Pass everything again; connections from before are reset, as after a change of the route."""
        if not self._passes.is_set():
            self.cut()
            self._passes.set()

    def cut(self) -> None:
        """Reset every connection."""
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._join, args=(client,), daemon=True).start()

    def _join(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            self._passes.wait()
            with socket.create_connection(("127.0.0.1", self._target)) as server:
                self._open |= {client, server}
                back = threading.Thread(target=self._pass_on, args=(server, client), daemon=True)
                back.start()
                self._pass_on(client, server)
                back.join()
                self._open -= {client, server}

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(_CHUNK):
                self._passes.wait()
                sink.sendall(content)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
