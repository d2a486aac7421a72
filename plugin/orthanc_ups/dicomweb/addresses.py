# SPDX-License-Identifier: AGPL-3.0-or-later
"""The URL at which a client sees the service: directly, behind a proxy (``X-Forwarded-*``) or by ``Ups.PublicUrl``."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Final

from ..settings import Settings

_HOST: Final = re.compile(r"[A-Za-z0-9._-]+(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](?::[0-9]{1,5})?")
_PREFIX: Final = re.compile(r"(?:/[A-Za-z0-9._~-]+)*")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Addresses:
    """Knows the base URIs of the service. Raises ValueError for a trusted proxy that is not an address or network."""

    def __init__(self, settings: Settings) -> None:
        self.root = "/" + settings.root.strip("/") if settings.root.strip("/") else ""
        self._public = settings.public_url.rstrip("/")
        self._trusted: tuple[Network, ...] = tuple(
            ipaddress.ip_network(proxy, strict=False) for proxy in settings.trusted_proxies
        )

    def service(
        self, scheme: str, local: Callable[[], str], peer: str | None, headers: Mapping[str, str]
    ) -> str:
        """Base URI of the service, without a trailing slash.

        Args:
            scheme: ``http`` or ``https``, as the request came to us.
            local: returns ``host:port`` at which the request arrived, for clients that do not send it.
            peer: address of the client; None if unknown: then it is not trusted.
            headers: by lower-case name.
        """
        if self._public:
            return self._public
        host, prefix = headers.get("host", ""), ""
        if self.trusts(peer):
            host = _first(headers, "x-forwarded-host") or host
            scheme = _first(headers, "x-forwarded-proto").lower() or scheme
            prefix = _first(headers, "x-forwarded-prefix").rstrip("/")
        host = host if _HOST.fullmatch(host) else local()
        prefix = prefix if _PREFIX.fullmatch(prefix) else ""
        return f"{'https' if scheme == 'https' else 'http'}://{host}{prefix}{self.root}"

    def client(self, peer: str | None, headers: Mapping[str, str]) -> str:
        """Address of a client, behind a trusted proxy the one that the proxy names; empty if unknown."""
        client = headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
        return client if client and self.trusts(peer) and _address(client) else peer or ""

    def trusts(self, peer: str | None) -> bool:
        """True if the address belongs to a configured proxy."""
        if not self._trusted or not peer:
            return False
        address = _address(peer)
        return address is not None and any(
            address in network for network in self._trusted if network.version == address.version
        )


def web_socket(service: str) -> str:
    """The same base for WebSockets: ws for http, wss for https."""
    return "ws" + service.removeprefix("http") if service.startswith("http") else service


def is_loopback(peer: str | None) -> bool:
    """True for a loopback address of this host."""
    address = _address(peer or "")
    return address is not None and address.is_loopback


def _address(peer: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _first(headers: Mapping[str, str], name: str) -> str:
    return headers.get(name, "").split(",")[0].strip()
