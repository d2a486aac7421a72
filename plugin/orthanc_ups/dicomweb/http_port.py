# SPDX-License-Identifier: AGPL-3.0-or-later
"""The plugin's own HTTP port (``Ups.HttpPort``): open as long as Orthanc runs, and reporting the state of the service.

``GET /ups/health`` is answered from memory, without credentials and without asking Orthanc: 200 if the worklist can be
used, else 503, with ``{"State": "open", "Role": "alone"}`` and, if it cannot be used, a ``Reason``. Everything else is
answered by who was given to ``serve``; until then with 503.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Final

import orjson
from aiohttp.web import BaseRequest, StreamResponse

from ..health import HealthReport
from ..orthanc.descriptors import Share
from ..orthanc.listener import TcpListener
from ..orthanc.refusal_log import RefusalLog
from ..settings import OrthancSettings, Settings
from .aiohttp_server import FULL, LimitedHandler, LimitedServer, ServerLimits, as_aiohttp
from .response import HttpProblem, WebResponse

_log = logging.getLogger("orthanc_ups.http")
HEALTH: Final = "/ups/health"
_STOPPING: Final = 2.0  # seconds for what is under way
_SOON: Final = (("Retry-After", "2"),)

Answer = Callable[[BaseRequest], Awaitable[StreamResponse]]


class HttpPort:
    """Accepts connections and passes on their requests. Lives on one asyncio loop."""

    def __init__(
        self,
        settings: Settings,
        orthanc_settings: OrthancSettings,
        share: Share,
        health: Callable[[], HealthReport],
        refusals: RefusalLog,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Prepare, without listening. ``share``: of the process's file descriptors."""
        everywhere = None if orthanc_settings.remote_access_allowed else "127.0.0.1"
        self._address = settings.bind_address or everywhere, settings.http_port
        self._health = health
        self._answerer: Answer | None = None
        limits = ServerLimits(
            settings.maximum_connections, settings.maximum_header_size, settings.http_idle_timeout
        )
        self._server = LimitedServer(self._answer, limits, refusals)
        self._listener = TcpListener("DICOMweb", self._address, self._server, share, refusal=FULL, tls=tls)

    @property
    def connections(self) -> int:
        """The number of open connections, WebSockets included."""
        return len(self._server.connections)

    @property
    def is_open(self) -> bool:
        """True while the port accepts connections."""
        return self._listener.is_open

    def serve(self, answer: Answer | None) -> None:
        """Direct requests here from now on; None: answer them with 503."""
        self._answerer = answer

    async def start(self) -> None:
        """Listen. Raises OSError if the port cannot be had."""
        await self._listener.start()
        host, port = self._address
        _log.info("HTTP listens on %s, port %d", host or "every address", port)

    async def stop(self) -> None:
        """Take no more requests and give running ones two seconds. Open WebSockets are left to their channel, which may
        still report that the server goes down.
        """
        await self._listener.close()
        plain = [
            connection
            for connection in self._server.connections
            if isinstance(connection, LimitedHandler) and not connection.is_web_socket
        ]
        for connection in plain:
            connection.close()
        await asyncio.gather(*(connection.shutdown(_STOPPING) for connection in plain))
        for connection in plain:
            connection.abort()  # TLS would wait for the peer

    async def _answer(self, request: BaseRequest) -> StreamResponse:
        if request.raw_path.partition("?")[0] == HEALTH:
            return as_aiohttp(health_answer(request.method, self._health()))
        if self._answerer is None:
            return as_aiohttp(unavailable(self._health()))
        return await self._answerer(request)


def health_answer(method: str, report: HealthReport) -> WebResponse:
    """The answer to a request for ``HEALTH``."""
    if method not in ("GET", "HEAD"):
        return HttpProblem(405, "the health can only be read", (("Allow", "GET, HEAD"),)).response()
    content = {"State": report.state.value, "Role": report.role.value}
    if report.reason:
        content["Reason"] = report.reason
    status = 200 if report.is_well else 503
    return WebResponse(status, (("Cache-Control", "no-store"),), orjson.dumps(content), "application/json")


def unavailable(report: HealthReport) -> WebResponse:
    """The answer to every other request while the service cannot answer it: 503 with the reason."""
    return HttpProblem(503, str(report), _SOON).response()
