# SPDX-License-Identifier: AGPL-3.0-or-later
"""Who may associate and do what, as on Orthanc's own DICOM port (``DicomModalities``, ``DicomCheckCalledAet``,
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
from ..settings import OrthancSettings, Settings
from .message import Rejection


class Operation(Enum):
    """The kinds of operation that Orthanc's settings distinguish."""

    ECHO = "C-ECHO"
    FIND = "C-FIND"
    UPS = "UPS operations"


class Policy:
    """Decides who may open an association, and who may do what on it."""

    def __init__(
        self,
        settings: Settings,
        orthanc_settings: OrthancSettings,
        modalities: OrthancModalities,
        resolver: Resolver,
        titles: AeTitles,
    ) -> None:
        self._own_ae = settings.aet or orthanc_settings.dicom_aet
        self._orthanc_settings = orthanc_settings
        self._modalities = modalities
        self._resolver = resolver
        self._titles = titles
        self._always = {
            Operation.ECHO: orthanc_settings.always_allow_echo,
            Operation.FIND: orthanc_settings.always_allow_find_worklist,
            Operation.UPS: False,
        }

    async def rejection(self, calling: str, called: str, address: str) -> Rejection | None:
        """The rejection of an association, or None if it is accepted."""
        if self._orthanc_settings.check_called_aet and not self._titles.same(called, self._own_ae):
            return Rejection(1, 1, 7, f"called AE title {called}, expected {self._own_ae}")
        if any(self._always.values()):
            return None
        mismatch = await self._mismatch(calling, address, await self._entries(calling))
        return Rejection(1, 1, 3, mismatch) if mismatch else None

    def has_cached(self, calling: str) -> bool:
        """True if the AE title is in the cached list, without a request to Orthanc."""
        return bool(self._modalities.by_ae_title(calling))

    async def knows(self, calling: str, address: str) -> bool:
        """True if the AE is in ``DicomModalities``, with this host if hosts are checked."""
        return await self._mismatch(calling, address, await self._entries(calling)) is None

    async def objection(self, operation: Operation, calling: str, address: str) -> str | None:
        """Why an AE may not do this, or None if it may."""
        if self._always[operation]:
            return None
        entries = await self._entries(calling)
        mismatch = await self._mismatch(calling, address, entries)
        if mismatch:
            return mismatch
        if operation is Operation.UPS or await self._is_allowed(operation, entries, address):
            return None
        return f"{operation.value} is not allowed for {calling}"

    async def _entries(self, calling: str) -> tuple[Modality, ...]:
        """The AE's entries, from the cached list if it has any, else from Orthanc."""
        return self._modalities.by_ae_title(calling) or await self._modalities.lookup(calling)

    async def _mismatch(self, calling: str, address: str, entries: tuple[Modality, ...]) -> str | None:
        if not entries:
            return f"AE title {calling} is not in DicomModalities"
        if not self._orthanc_settings.check_modality_host:
            return None
        for entry in entries:
            if await self._resolver.is_same(entry.host, address):
                return None
        return f"{address} is not the host of {calling}"

    async def _is_allowed(self, operation: Operation, entries: tuple[Modality, ...], address: str) -> bool:
        """If an AE title has several entries, the entry with this host decides; otherwise all must agree."""
        is_echo = operation is Operation.ECHO
        allowed = {
            entry.host: entry.allow_echo if is_echo else entry.allow_find_worklist for entry in entries
        }
        if self._orthanc_settings.check_modality_host:
            for host, is_allowed in allowed.items():
                if is_allowed and await self._resolver.is_same(host, address):
                    return True
        return all(allowed.values())


# --- host names ---

_CACHE_TIME: Final = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class _Answer:
    addresses: tuple[str, ...]
    at: float


class Resolver:
    """Looks up host names, each in a thread of its own: names that do not resolve could block all threads of a pool.

    A name server that does not respond delays only the callers that wait for that name. Answers are cached for a
    minute.
    """

    def __init__(self) -> None:
        self._answers: dict[str, _Answer] = {}
        self._running: dict[str, asyncio.Future[tuple[str, ...]]] = {}

    async def addresses(self, host: str) -> tuple[str, ...]:
        """The IP addresses of a host; () if it has none. An IP address is returned as it is."""
        if _is_address(host):
            return (host,)
        loop = asyncio.get_running_loop()
        answer = self._answers.get(host)
        if answer and loop.time() - answer.at < _CACHE_TIME:
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
        """True if the host has this IP address."""
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
    """An address in one form; an IPv4 address mapped into IPv6 becomes the IPv4 address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return str(mapped or parsed)
