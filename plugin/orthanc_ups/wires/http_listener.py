# SPDX-License-Identifier: AGPL-3.0-or-later
"""The plugin's own DICOMweb port: HTTP/1.1 and WebSocket on one port, beside Orthanc's (``Ups.HttpPort``)."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from aiohttp.web import BaseRequest, StreamResponse
from aiohttp.web_protocol import RequestHandler

from ..core.statuses import UpsError
from ..settings import Settings, Surroundings
from . import ups_rs_answers, web_addresses
from .authorization import Authorization
from .http_bodies import IncomingBodies
from .http_server import LimitedServer, ServerLimits, as_aiohttp
from .ups_rs import UpsRs
from .ups_rs_resources import Kind, Resource, resource_of
from .web_addresses import Addresses
from .web_origins import Origins, foreign
from .web_request import WebRequest, segments_of
from .web_response import HttpProblem, WebResponse
from .web_rights import Rights
from .web_socket_session import WebSocketSessions

_log = logging.getLogger("orthanc_ups.wires.http")
_STOPPING: Final = 2.0  # seconds for what is under way
_BACKLOG: Final = 512


@dataclass(frozen=True, slots=True)
class Doors:
    """What stands behind the listener."""

    handler: UpsRs
    sessions: WebSocketSessions
    authorization: Authorization
    rights: Rights


@dataclass(slots=True)
class _Visit:
    """A request with what was found out about it on the way in."""

    request: BaseRequest
    headers: Mapping[str, str]
    service: str
    path: str
    query: str
    user: str | None = None
    resource: Resource = field(default_factory=lambda: Resource(Kind.SERVICE))


class HttpListener:
    """Lets requests in, hands them on and sends the answers. Lives on one asyncio loop."""

    def __init__(
        self, doors: Doors, settings: Settings, surroundings: Surroundings, tls: ssl.SSLContext | None = None
    ) -> None:
        """Prepare, without listening. Raises ValueError for a trusted proxy that is no address or network."""
        self._doors = doors
        self._tls = tls
        self._port = settings.http_port
        self._only_loopback = not surroundings.remote_access_allowed
        self._host = settings.bind_address or ("127.0.0.1" if self._only_loopback else None)
        self._addresses = Addresses(settings)
        self._origins = Origins(settings.allowed_origins)
        self._bodies = IncomingBodies(settings.maximum_body_size, settings.http_idle_timeout)
        self._limits = ServerLimits(
            settings.maximum_connections, settings.maximum_header_size, settings.http_idle_timeout
        )
        self._server: LimitedServer | None = None
        self._listening: asyncio.Server | None = None
        self._upgraded: set[RequestHandler] = set()

    @property
    def connections(self) -> int:
        """How many connections are open, WebSockets included."""
        return len(self._server.connections) if self._server else 0

    async def start(self) -> None:
        """Listen. Raises OSError if the port cannot be had."""
        loop = asyncio.get_running_loop()
        self._server = LimitedServer(self._answer, self._limits)
        self._listening = await loop.create_server(
            self._server, self._host, self._port, ssl=self._tls, backlog=_BACKLOG
        )
        where = self._host or "every address"
        _log.info("DICOMweb listens on %s, port %d, path %s", where, self._port, self._addresses.root or "/")

    async def stop(self) -> None:
        """Take no more requests and give those under way two seconds. Open WebSockets are the channel's to close:
        they may still be told that the server goes down.
        """
        if self._listening is not None:
            self._listening.close()
        if self._server is not None:
            plain = [one for one in self._server.connections if one not in self._upgraded]
            transports = [one.transport for one in plain if one.transport is not None]
            for connection in plain:
                connection.close()
            await asyncio.gather(*(connection.shutdown(_STOPPING) for connection in plain))
            for transport in transports:
                transport.abort()  # TLS would wait for the other side
        self._listening = self._server = None

    # --- one request ---

    async def _answer(self, request: BaseRequest) -> StreamResponse:
        headers = _lower(request)
        cors = self._origins.headers(headers)
        service = ""
        try:
            visit = self._received(request, headers)
            service = visit.service
            found = await self._admitted(visit)
        except HttpProblem as problem:
            found = problem.response()
        except UpsError as error:
            found = ups_rs_answers.refused(error, None, service)
        if isinstance(found, StreamResponse):
            return found
        return as_aiohttp(WebResponse(found.status, (*found.headers, *cors), found.body, found.content_type))

    def _received(self, request: BaseRequest, headers: Mapping[str, str]) -> _Visit:
        if self._only_loopback and not web_addresses.is_loopback(request.remote):
            raise HttpProblem(403, "only this host may come in (RemoteAccessAllowed of Orthanc is false)")
        size = sum(len(name) + len(value) + 4 for name, value in request.raw_headers)
        if size > self._limits.header_size:
            raise HttpProblem(
                431, f"the header is larger than {self._limits.header_size} bytes (Ups.MaximumHeaderSize)"
            )
        scheme = "https" if self._tls is not None else "http"
        service = self._addresses.service(scheme, lambda: _local(request), request.remote, headers)
        path, query = self._target(request.raw_path)
        return _Visit(request, headers, service, path, query)

    def _target(self, target: str) -> tuple[str, str]:
        """Path below the root, and query. Raises HttpProblem 404."""
        if "://" in target.partition("?")[0]:  # absolute form (RFC 9112 §3.2.2)
            target = "/" + target.partition("://")[2].partition("/")[2]
        elif not target.startswith("/"):  # OPTIONS *
            target = self._addresses.root or "/"
        path, _, query = target.partition("#")[0].partition("?")
        root = self._addresses.root
        if path == root or path.startswith(root + "/"):
            return path[len(root) :], query
        if path.startswith(("/ws/subscribers/", "/subscribers/")):
            return path, query
        raise HttpProblem(404, f"the service is at {root or '/'}")

    async def _admitted(self, visit: _Visit) -> StreamResponse | WebResponse:
        method = visit.request.method
        preflight = self._origins.preflight(method, visit.headers)
        if preflight is not None:
            return preflight
        self._origins.check(method, visit.headers, visit.service)
        visit.resource = resource_of(segments_of(visit.path))
        visit.user = await self._doors.authorization.admit(method, visit.resource, visit.headers, visit.query)
        if visit.resource.kind is Kind.CONNECTION and method == "GET":
            return await self._connected(visit)
        body = await self._bodies.read(visit.request)
        return await self._doors.handler.answer(self._web_request(visit, body))

    async def _connected(self, visit: _Visit) -> StreamResponse:
        if self._origins.is_foreign(visit.headers, visit.service):
            raise foreign(visit.headers)
        self._doors.rights.check(visit.user, visit.resource.ae)
        connection = visit.request.protocol
        self._upgraded.add(connection)
        try:
            return await self._doors.sessions.serve(visit.request, visit.resource.ae, visit.query)
        finally:
            self._upgraded.discard(connection)

    def _web_request(self, visit: _Visit, body: bytes) -> WebRequest:
        return WebRequest(
            method=visit.request.method,
            path=visit.path,
            query=visit.query,
            headers=visit.headers,
            body=body,
            service=visit.service,
            web_socket_service=web_addresses.web_socket(visit.service),
            user=visit.user,
            resource=visit.resource,
        )


def _lower(request: BaseRequest) -> dict[str, str]:
    """Headers by lower-case name; the values of a repeated one joined (RFC 9110 §5.3)."""
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        key = name.lower()
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
    return headers


def _local(request: BaseRequest) -> str:
    """Where the request came in, as host and port."""
    name = request.transport.get_extra_info("sockname") if request.transport else None
    if not name:
        return "localhost"
    host = f"[{name[0]}]" if ":" in str(name[0]) else str(name[0])
    return f"{host}:{name[1]}"
