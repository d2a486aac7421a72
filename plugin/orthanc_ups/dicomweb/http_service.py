# SPDX-License-Identifier: AGPL-3.0-or-later
"""UPS-RS and its WebSockets on the plugin's own port: admits callers, and finds the resource of a request."""

from __future__ import annotations

from dataclasses import dataclass, replace

from aiohttp.web import BaseRequest, StreamResponse

from ..core.statuses import UpsError
from ..orthanc.refusal_log import Refusal, RefusalLog
from ..settings import OrthancSettings, Settings
from . import answers
from .addresses import Addresses
from .aiohttp_server import as_aiohttp, connection_of
from .authorization import Authorization
from .bodies import BodyReceiver
from .callers import Caller, Callers
from .origins import Origins, foreign
from .parameters import REQUESTER, Parameters
from .refusals import refusal
from .request import WebHandler, WebRequest, segments_of
from .resources import Resource, ResourceKind, ae_title, check_uid, resource_of
from .response import HttpProblem, WebResponse
from .rights import Rights
from .websocket import NotificationSessions


@dataclass(frozen=True, slots=True)
class HttpParts:
    """What answers the requests of the port."""

    handler: WebHandler
    sessions: NotificationSessions
    authorization: Authorization
    rights: Rights


class HttpService:
    """Admits requests, passes them on and sends the answers. Lives on one asyncio loop."""

    def __init__(
        self, parts: HttpParts, settings: Settings, orthanc_settings: OrthancSettings, refusals: RefusalLog
    ) -> None:
        """Raises ValueError for a trusted proxy that is not an address or network."""
        self._parts = parts
        self._refusals = refusals
        self._addresses = Addresses(settings)
        self._origins = Origins(settings.allowed_origins)
        self._callers = Callers(
            settings,
            orthanc_settings,
            parts.authorization,
            self._origins,
            self._addresses,
            tls=orthanc_settings.http_tls,
        )
        self._bodies = BodyReceiver(settings.maximum_body_size, settings.http_idle_timeout)

    async def answer(self, request: BaseRequest) -> StreamResponse:
        """Answer one request; for ``HttpPort.serve``."""
        caller = self._callers.of(request)
        try:
            response = await self._admitted(request, caller)
        except HttpProblem as problem:
            response = problem.response()
        except UpsError as error:
            response = answers.refused(error, None, caller.service)
        if isinstance(response, StreamResponse):
            return response
        if response.status >= 400:
            self._refusals.add(self._refusal(request, caller, response))
        return as_aiohttp(response, caller.cors)

    def _refusal(self, request: BaseRequest, caller: Caller, response: WebResponse) -> Refusal:
        try:
            path, query = self._target(request.raw_path)
            resource = _resource(request.method, path, query)
        except HttpProblem:
            resource = None
        host = self._addresses.client(request.remote, caller.headers)
        return refusal(request.method, resource, host, caller.credentials.user, response)

    def _target(self, target: str) -> tuple[str, str]:
        """Path below the root, and query. Raises HttpProblem 404."""
        if not target.startswith("/"):
            # absolute form (RFC 9112 §3.2.2), or OPTIONS *
            absolute = "/" + target.partition("://")[2].partition("/")[2]
            target = absolute if "://" in target.partition("?")[0] else self._addresses.root or "/"
        path, _, query = target.partition("#")[0].partition("?")
        root = self._addresses.root
        if path == root or path.startswith(root + "/"):
            return path[len(root) :], query
        if path in ("/ws", "/subscribers") or path.startswith(("/ws/subscribers/", "/subscribers/")):
            return path, query
        raise HttpProblem(404, f"the service is at {root or '/'}")

    async def _admitted(self, request: BaseRequest, caller: Caller) -> StreamResponse | WebResponse:
        self._callers.check(caller)
        path, query = self._target(request.raw_path)
        method = request.method
        preflight = self._origins.preflight(method, caller.headers)
        if preflight is not None:
            return preflight
        self._origins.check(method, caller.headers, caller.service)
        resource = self._parts.rights.spelled(_resource(method, path, query))
        check_uid(resource)  # what is asked of Orthanc must be what it looks like
        user = await self._parts.authorization.admit(method, resource, caller.credentials, query)
        web_request = WebRequest(
            method=method,
            path=path,
            query=query,
            headers=caller.headers,
            service=caller.service,
            web_socket_service=caller.web_socket_service,
            user=user,
            resource=resource,
        )
        if resource.kind is ResourceKind.CONNECTION and method == "GET":
            return await self._connected(request, web_request, resource.ae)
        if not request.body_exists:
            return await self._parts.handler.answer(web_request)
        async with self._bodies.of(request) as body:
            return await self._parts.handler.answer(replace(web_request, body=body))

    async def _connected(self, request: BaseRequest, web_request: WebRequest, ae: str) -> StreamResponse:
        if self._origins.is_foreign(web_request.headers, web_request.service):
            raise foreign(web_request.headers)
        self._parts.rights.check(web_request.user, ae)
        connection = connection_of(request)
        connection.is_web_socket = True
        try:
            return await self._parts.sessions.serve(request, ae, web_request.query, web_request.service)
        finally:
            connection.is_web_socket = False


def _resource(method: str, path: str, query: str) -> Resource:
    """The resource of a request. A notification connection may also be named by its requester, at the base of
    the service and where the AE title would follow: ``GET /?requester=AE`` (PS3.18 §8.10.4, §11.1).

    Raises HttpProblem 400 if neither path nor query say whose connection, 404 for a path of no resource.
    """
    resource = resource_of(segments_of(path))
    is_base = resource.kind is ResourceKind.SERVICE
    if resource.ae or not (is_base or resource.kind is ResourceKind.CONNECTION):
        return resource
    if method != "GET":
        return Resource(ResourceKind.SERVICE)
    requester = Parameters.of(query).value(*REQUESTER)
    if not requester:
        raise HttpProblem(
            400,
            "the notification connection lacks an AE title; expected /subscribers/AETITLE or ?requester=AETITLE",
        )
    return Resource(ResourceKind.CONNECTION, ae=ae_title(requester))
