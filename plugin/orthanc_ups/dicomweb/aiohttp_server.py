# SPDX-License-Identifier: AGPL-3.0-or-later
"""The HTTP/1.1 server under the service: aiohttp's, with limits on connections, headers and patience.

Everything that relies on internals of aiohttp is here, and nowhere else: the overridden methods of its connection,
what it raises and sets, the state of a request and of a handshake. test_aiohttp_server.py names each; aiohttp is pinned
below the next minor version, as internals may change with it.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any, Final, cast

from aiohttp.http_exceptions import BadHttpMethod, LineTooLong
from aiohttp.web import BaseRequest, RequestHandler, Response, Server, StreamResponse, WebSocketResponse

from ..orthanc.listener import aborter
from ..orthanc.logs import Seldom
from ..orthanc.refusal_log import Refusal, RefusalLog
from .response import Headers, HttpProblem, WebResponse

_log = logging.getLogger("orthanc_ups.http")
SERVER: Final = "orthanc-ups"
"""What each answer has as ``Server``: no versions, which would help attackers only."""
_LARGE: Final = 48 * 1024  # bytes; what is smaller fits an empty buffer below us, so that nobody waits
_TOO_MANY: Final = b"too many connections are open\n"
FULL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nServer: orthanc-ups\r\nContent-Type: text/plain\r\nRetry-After: 5\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(_TOO_MANY), _TOO_MANY)
)
"""What a client reads when there are too many connections."""


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Limits for a client.

    Attributes:
        connections: at once, sockets included.
        header_size: bytes of the request line, and of all header fields together.
        idle: seconds without a complete request, and for reading an answer.
    """

    connections: int
    header_size: int
    idle: float


def as_aiohttp(response: WebResponse, more: Headers = ()) -> Response:
    """An answer in the form of this server, with ``more`` headers."""
    answer = Response(status=response.status, body=response.body or None)
    headers = answer.headers
    headers["Server"] = SERVER
    if response.content_type:
        headers["Content-Type"] = response.content_type
    elif "Content-Type" in headers:
        del headers["Content-Type"]
    for name, value in (*response.headers, *more):
        headers.add(name, value)
    return answer


class LimitedServer(Server):
    """Makes a handler for each connection."""

    def __init__(self, handler: Any, limits: ServerLimits, refusals: RefusalLog) -> None:
        super().__init__(handler)
        self.limits = limits
        self.refusals = refusals
        self.seldom = Seldom(_log)

    def __call__(self) -> RequestHandler:
        """A handler for a new connection."""
        return LimitedHandler(self, loop=asyncio.get_running_loop())


class LimitedHandler(RequestHandler):
    """One connection.

    Attributes:
        abort: ends the connection at once.
        notes: whatever the answering code wants to remember about the connection.
        is_web_socket: True once it has become a WebSocket.
    """

    __slots__ = ("_limits", "_refusals", "abort", "is_web_socket", "notes")

    def __init__(self, manager: LimitedServer, *, loop: asyncio.AbstractEventLoop) -> None:
        self._limits = manager.limits
        self._refusals = manager.refusals
        self.notes: object = None
        self.is_web_socket = False
        super().__init__(
            manager,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # None is how it is turned off
            logger=_log,
            keepalive_timeout=self._limits.idle,
            # One more than for a field, so that the error tells which of them was too long.
            max_line_size=self._limits.header_size + 1,
            max_field_size=self._limits.header_size,
            lingering_time=2.0,
            auto_decompress=False,
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Turn the client away if there are too many."""
        super().connection_made(transport)
        self.abort = aborter(transport)
        manager = self._manager
        if manager is not None and len(manager.connections) > self._limits.connections:
            _log.info(
                "a connection is refused: %d are open (Ups.MaximumConnections)", self._limits.connections
            )
            cast("asyncio.WriteTransport", transport).write(FULL)
            self.force_close()

    async def finish_response(
        self, request: BaseRequest, resp: StreamResponse, start_time: float | None
    ) -> tuple[StreamResponse, bool]:
        """Send an answer; a client that does not read it in time is disconnected."""
        transport = self.transport
        is_gone = transport is None or transport.is_closing()  # over TLS it cannot be asked any more
        waiting = 0 if transport is None or is_gone else transport.get_write_buffer_size()
        if not waiting and (resp.content_length or 0) < _LARGE:
            return await super().finish_response(request, resp, start_time)
        try:
            async with asyncio.timeout(self._limits.idle):
                return await super().finish_response(request, resp, start_time)
        except TimeoutError:
            _log.info(
                "a client did not read its answer within %g s; closing the connection", self._limits.idle
            )
            self.abort()
            return resp, True

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> StreamResponse:
        """Answer what cannot be parsed as HTTP with the status that says why, and close the connection."""
        problem = self._problem(status, exc)
        if problem.status < 500:
            refusal = Refusal(
                "HTTP request", request.remote or "", status=str(problem.status), reason=problem.detail
            )
            self._refusals.add(refusal)
        response = as_aiohttp(problem.response())
        response.force_close()
        return response

    def _problem(self, status: int, exc: BaseException | None) -> HttpProblem:
        if isinstance(exc, LineTooLong):
            line = exc.args[1] == self._limits.header_size + 1
            where = "request line" if line else "header field"
            detail = f"the {where} is longer than {self._limits.header_size} bytes (Ups.MaximumHeaderSize)"
            return HttpProblem(414 if line else 431, detail)
        if isinstance(exc, BadHttpMethod):
            return HttpProblem(400, "this is not an HTTP/1.1 request")
        if exc is not None and "Too many headers" in str(exc):
            return HttpProblem(431, "the request has too many header fields")
        if status < 500:
            return HttpProblem(status, "the request is not well-formed HTTP/1.1")
        _log.error("a request failed", exc_info=exc)
        return HttpProblem(status, "internal server error; see Orthanc's log")


async def invite_body(request: BaseRequest) -> None:
    """Send 100 Continue to a client that waits for it (RFC 9110 §10.1.1). Raises HttpProblem 417."""
    expected = request.headers.get("Expect")
    if expected is None or request.version < (1, 1):
        return
    if expected.lower() != "100-continue":
        raise HttpProblem(417, f"Expect is {expected[:40]!r}, which is not supported")
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # it is no part of the answer


def is_handshake(socket: WebSocketResponse, request: BaseRequest) -> bool:
    """True if a request is a handshake that ``socket.prepare`` will accept."""
    try:
        return bool(socket.can_prepare(request))
    except ValueError:  # a key that is not even ASCII; or aiohttp repeats such a header in its own complaint
        return False


def connection_of(request: BaseRequest) -> LimitedHandler:
    """The connection that a request came by."""
    connection = request.protocol
    assert isinstance(connection, LimitedHandler)
    return connection
