# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whom we let in: as Orthanc does on its own DICOM port (``DicomModalities``, ``DicomCheckCalledAet``,
``DicomCheckModalityHost``, ``DicomAlwaysAllowEcho``, ``DicomAlwaysAllowFindWorklist``).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from dataclasses import dataclass
from enum import Enum
from typing import Final

from ..core.ae_titles import AeTitles
from ..orthanc.modalities import Modality, OrthancModalities
from ..settings import Settings, Surroundings
from .message import Rejection


class Wish(Enum):
    """What an AE wants, as far as Orthanc's settings tell it apart."""

    ECHO = "C-ECHO"
    FIND = "C-FIND"
    UPS = "UPS operations"


class Policy:
    """Answers who may open an association, and who may do what on it."""

    def __init__(
        self,
        settings: Settings,
        surroundings: Surroundings,
        modalities: OrthancModalities,
        resolver: Resolver,
        titles: AeTitles,
    ) -> None:
        self._ours = settings.aet or surroundings.dicom_aet
        self._surroundings = surroundings
        self._modalities = modalities
        self._resolver = resolver
        self._titles = titles
        self._always = {
            Wish.ECHO: surroundings.always_allow_echo,
            Wish.FIND: surroundings.always_allow_find_worklist,
            Wish.UPS: False,
        }

    async def rejection(self, calling: str, called: str, address: str) -> Rejection | None:
        """Why an association is turned down, or None if it is welcome."""
        if self._surroundings.check_called_aet and not self._titles.same(called, self._ours):
            return Rejection(1, 1, 7, f"called AE title {called}, expected {self._ours}")
        if any(self._always.values()):
            return None
        stranger = await self._stranger(calling, address, await self._entries(calling))
        return Rejection(1, 1, 3, stranger) if stranger else None

    def remembers(self, calling: str) -> bool:
        """True if the AE title is listed, as far as that is known without asking anybody."""
        return bool(self._modalities.by_ae_title(calling))

    async def knows(self, calling: str, address: str) -> bool:
        """True if the AE is listed, with this host if hosts are checked."""
        return await self._stranger(calling, address, await self._entries(calling)) is None

    async def objection(self, wish: Wish, calling: str, address: str) -> str | None:
        """Why an AE may not do this, in words, or None if it may."""
        if self._always[wish]:
            return None
        entries = await self._entries(calling)
        stranger = await self._stranger(calling, address, entries)
        if stranger:
            return stranger
        if await self._is_allowed(wish, entries, address):
            return None
        return f"{wish.value} is not allowed for {calling}"

    async def _entries(self, calling: str) -> tuple[Modality, ...]:
        """From memory if possible: Orthanc is asked about unknown AEs only."""
        return self._modalities.by_ae_title(calling) or await self._modalities.lookup(calling)

    async def _stranger(self, calling: str, address: str, entries: tuple[Modality, ...]) -> str | None:
        if not entries:
            return f"AE title {calling} is not in DicomModalities"
        if not self._surroundings.check_modality_host:
            return None
        for entry in entries:
            if await self._resolver.is_same(entry.host, address):
                return None
        return f"{address} is not the host of {calling}"

    async def _is_allowed(self, wish: Wish, entries: tuple[Modality, ...], address: str) -> bool:
        """With several entries of one AE title the one with this host decides, else all have to agree."""
        allowed = {entry.host: _allows(entry, wish) for entry in entries}
        if self._surroundings.check_modality_host:
            for host, is_allowed in allowed.items():
                if is_allowed and await self._resolver.is_same(host, address):
                    return True
        return all(allowed.values())


def _allows(modality: Modality, wish: Wish) -> bool:
    if wish is Wish.ECHO:
        return modality.allow_echo
    return modality.allow_find_worklist if wish is Wish.FIND else True


# --- host names ---

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
        answer = self._answers.get(host)
        if answer and loop.time() - answer.at < _KEPT:
            return answer.addresses
        if host not in self._running:
            self._running[host] = self._look_up(host, loop)
        return await asyncio.shield(self._running[host])

    def _look_up(self, host: str, loop: asyncio.AbstractEventLoop) -> asyncio.Future[tuple[str, ...]]:
        future: asyncio.Future[tuple[str, ...]] = loop.create_future()

        def finish(addresses: tuple[str, ...]) -> None:
            self._running.pop(host, None)
            if addresses:
                self._answers[host] = _Answer(addresses, loop.time())
            if not future.done():
                future.set_result(addresses)

        def run() -> None:
            addresses = _looked_up(host)
            if not loop.is_closed():
                loop.call_soon_threadsafe(finish, addresses)

        threading.Thread(target=run, name="UPS-RESOLVE", daemon=True).start()
        return future

    async def is_same(self, host: str, address: str) -> bool:
        """True if an IP address is one of the host's."""
        if host == address:
            return True
        canonical = _canonical(address)
        return any(_canonical(candidate) == canonical for candidate in await self.addresses(host))


def _looked_up(host: str) -> tuple[str, ...]:
    try:
        entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in entries))


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
