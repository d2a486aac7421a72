# SPDX-License-Identifier: AGPL-3.0-or-later
"""The file descriptors of the process, which Orthanc, its plugins and the connections to this plugin share.

Without a free descriptor nothing in the process can open a file or a connection. Connections to the plugin's ports may
therefore use only what the limit leaves after a reserve for Orthanc.

The default soft limit of Debian and systemd, 1,024, protects programs that call select(2), which ends the process or
writes to memory that is not its own for a descriptor of 1,024 or more (FD_SETSIZE). DCMTK and civetweb, as Debian
builds them for Orthanc 1.12.7 and 1.13.0, import poll(2) and not select(2), but another build, plugin or script may
call it. So the limit is raised only as far as the plugin's own connections need, and they use the descriptors from
1,024 on. The lower ones remain for everything else, as before.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import resource
import socket
from typing import Final, Self

_log = logging.getLogger("orthanc_ups")
SELECTABLE: Final = 1024
"""FD_SETSIZE: select(2) cannot wait for this descriptor and greater ones."""
RESERVE: Final = 320
"""For Orthanc: its HTTP threads, associations, files and database, and connections to it and to receivers."""
_MINIMUM_CAPACITY: Final = 16


class Descriptors:
    """How many connections to the plugin's ports the process can have."""

    def __init__(self, limit: int, reserve: int = RESERVE) -> None:
        """``limit``: the soft limit. If it is very low, Orthanc's reserve is half of it."""
        self.limit = limit
        self.capacity = max(_MINIMUM_CAPACITY, limit - min(reserve, limit // 2))
        self._shares: list[Share] = []

    @classmethod
    def of_process(cls, connections: int) -> Self:
        """Raise the soft limit to what the connections need, as far as the hard limit allows."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY:
            soft = hard = 1 << 20
        needed = SELECTABLE + RESERVE + connections
        reachable = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        if reachable > soft:
            with contextlib.suppress(OSError, ValueError):  # a sandbox may forbid it
                resource.setrlimit(resource.RLIMIT_NOFILE, (reachable, hard))
                _log.info("The limit of open files was raised from %d to %d", soft, reachable)
                soft = reachable
        descriptors = cls(soft)
        if descriptors.capacity < connections:
            _log.warning(
                "Only %d file descriptors are allowed: at most %d connections at a time are accepted, "
                "although the settings allow %d; raise the limit (LimitNOFILE=, ulimit -n)",
                soft,
                descriptors.capacity,
                connections,
            )
        return descriptors

    def share(self) -> Share:
        """A new share, for one port."""
        share = Share(self)
        self._shares.append(share)
        return share

    @property
    def in_use(self) -> int:
        """The number of open connections to all ports."""
        return sum(share.in_use for share in self._shares)

    @property
    def is_full(self) -> bool:
        """True if no more connections are possible."""
        return sum(share.counted for share in self._shares) >= self.capacity and self.in_use >= self.capacity


class Share:
    """What one port may use: at most three quarters of the capacity, so that no port can starve another.

    Attributes:
        maximum: the greatest number of connections.
    """

    def __init__(self, descriptors: Descriptors) -> None:
        self._descriptors = descriptors
        self.maximum = descriptors.capacity - descriptors.capacity // 4
        self._sockets: set[socket.socket] = set()

    @property
    def counted(self) -> int:
        """An upper bound of ``in_use`` that takes no time: closed connections may be included."""
        return len(self._sockets)

    @property
    def in_use(self) -> int:
        """The number of open connections to this port."""
        self._sockets = {connection for connection in self._sockets if connection.fileno() >= 0}
        return len(self._sockets)

    def take(self, connection: socket.socket) -> socket.socket | None:
        """Count a connection until it is closed, and return it with a descriptor from ``SELECTABLE`` on, if possible.

        Returns None if there are too many connections; the caller must then close this one.
        """
        if (self.counted >= self.maximum and self.in_use >= self.maximum) or self._descriptors.is_full:
            return None
        moved = _moved(connection)
        self._sockets.add(moved)
        return moved


def _moved(connection: socket.socket) -> socket.socket:
    if connection.fileno() >= SELECTABLE:
        return connection
    try:
        number = fcntl.fcntl(connection.fileno(), fcntl.F_DUPFD_CLOEXEC, SELECTABLE)
    except OSError:  # the limit is lower than that, or all of them are in use
        return connection
    moved = socket.socket(connection.family, connection.type, connection.proto, fileno=number)
    connection.close()
    return moved
