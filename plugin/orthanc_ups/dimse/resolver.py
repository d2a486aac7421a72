# SPDX-License-Identifier: AGPL-3.0-or-later
"""Host names to addresses. A name server that does not answer delays nobody but who waits for that name."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from dataclasses import dataclass
from typing import Final

_KEPT: Final = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class _Answer:
    addresses: tuple[str, ...]
    at: float


class Resolver:
    """Looks names up in a thread each: the loop's own few threads could all be stuck with dead names."""

    def __init__(self) -> None:
        self._answers: dict[str, _Answer] = {}
        self._running: dict[str, asyncio.Future[tuple[str, ...]]] = {}

    async def addresses(self, host: str) -> tuple[str, ...]:
        """The addresses of a host, () if it has none. Addresses themselves need no look-up."""
        if _is_address(host):
            return (host,)
        loop = asyncio.get_running_loop()
        kept = self._answers.get(host)
        if kept and loop.time() - kept.at < _KEPT:
            return kept.addresses
        if host not in self._running:
            self._running[host] = self._look_up(host, loop)
        return await asyncio.shield(self._running[host])

    def _look_up(self, host: str, loop: asyncio.AbstractEventLoop) -> asyncio.Future[tuple[str, ...]]:
        future: asyncio.Future[tuple[str, ...]] = loop.create_future()

        def finish(found: tuple[str, ...]) -> None:
            self._running.pop(host, None)
            if found:
                self._answers[host] = _Answer(found, loop.time())
            if not future.done():
                future.set_result(found)

        def run() -> None:
            found = _looked_up(host)
            if not loop.is_closed():
                loop.call_soon_threadsafe(finish, found)

        threading.Thread(target=run, name="UPS-RESOLVE", daemon=True).start()
        return future

    async def is_same(self, host: str, address: str) -> bool:
        """True if an IP address is one of the host's."""
        if host == address:
            return True
        wanted = _canonical(address)
        return any(_canonical(one) == wanted for one in await self.addresses(host))


def _looked_up(host: str) -> tuple[str, ...]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return tuple(dict.fromkeys(str(one[4][0]) for one in found))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _canonical(address: str) -> str:
    """IPv4 within IPv6 is IPv4."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return str(mapped or parsed)
