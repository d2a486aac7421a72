# SPDX-License-Identifier: AGPL-3.0-or-later
"""Reads the sender of a request from its header.

A client usually sends the same header fields with each request of a connection, so they are parsed once and remembered
for as long as the connection lasts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from aiohttp.web import BaseRequest

from ..settings import OrthancSettings, Settings
from . import addresses as web_addresses
from .addresses import Addresses
from .aiohttp_server import connection_of
from .authorization import Authorization, Credentials
from .origins import Origins
from .response import Headers, HttpProblem

_SHORT: Final = 2048  # bytes of a header that is worth keeping


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a request.

    Attributes:
        raw: the header fields as received, and their size in bytes.
        headers: by lower-case name; the values of a repeated one joined (RFC 9110 §5.3).
        cors: headers for every answer.
        service: base URI of the service as they see it, without a trailing slash; ``web_socket_service`` likewise.
        credentials: sent to Orthanc, which decides whether they are admitted.
        is_local: True if they are on this host.
    """

    raw: tuple[tuple[bytes, bytes], ...]
    size: int
    headers: Mapping[str, str]
    cors: Headers
    service: str
    web_socket_service: str
    credentials: Credentials
    is_local: bool


class Callers:
    """Identifies callers."""

    def __init__(
        self,
        settings: Settings,
        orthanc_settings: OrthancSettings,
        authorization: Authorization,
        origins: Origins,
        addresses: Addresses,
        *,
        tls: bool,
    ) -> None:
        self._only_loopback = not orthanc_settings.remote_access_allowed
        self._header_size = settings.maximum_header_size
        self._authorization = authorization
        self._origins = origins
        self._addresses = addresses
        self._scheme = "https" if tls else "http"

    def of(self, request: BaseRequest) -> Caller:
        """The caller of a request."""
        connection = connection_of(request)
        earlier = connection.notes
        if isinstance(earlier, Caller) and earlier.raw == request.raw_headers:
            return earlier
        caller = self._read(request)
        connection.notes = caller if caller.size <= _SHORT else None
        return caller

    def check(self, caller: Caller) -> None:
        """Refuse requests with too long a header, or from foreign pages. Raises HttpProblem 403, 431."""
        if self._only_loopback and not caller.is_local:
            raise HttpProblem(
                403, "only requests from this host are allowed (RemoteAccessAllowed of Orthanc is false)"
            )
        if caller.size > self._header_size:
            raise HttpProblem(
                431, f"the header is larger than {self._header_size} bytes (Ups.MaximumHeaderSize)"
            )

    def _read(self, request: BaseRequest) -> Caller:
        headers = _lower(request)
        service = self._addresses.service(self._scheme, lambda: _local(request), request.remote, headers)
        return Caller(
            raw=request.raw_headers,
            size=sum(len(name) + len(value) + 4 for name, value in request.raw_headers),
            headers=headers,
            cors=self._origins.headers(headers),
            service=service,
            web_socket_service=web_addresses.web_socket(service),
            credentials=self._authorization.credentials(headers),
            is_local=web_addresses.is_loopback(request.remote),
        )


def _lower(request: BaseRequest) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        key = name.lower()
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
    return headers


def _local(request: BaseRequest) -> str:
    """Host and port at which the request arrived."""
    transport = request.transport
    if transport is None or transport.is_closing():
        return "localhost"
    name = transport.get_extra_info("sockname")
    if not name:
        return "localhost"
    host = f"[{name[0]}]" if ":" in str(name[0]) else str(name[0])
    return f"{host}:{name[1]}"
