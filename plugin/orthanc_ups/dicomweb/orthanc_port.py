# SPDX-License-Identifier: AGPL-3.0-or-later
"""The UPS-RS handler on Orthanc's own port, beside QIDO, WADO and STOW, as far as Orthanc's server permits.

That server drops the query of a POST, PUT or DELETE and all but the last of repeated keys, and knows no OPTIONS,
HEAD or WebSocket. So here

- ``X-Ups-Query: workitem=1.2.3`` replaces the query of any request (that of the URL is then ignored), and so
  does a percent-encoded question mark in the path (``/workitems%3Fworkitem=1.2.3``);
- ``X-Ups-Method: OPTIONS`` on a GET asks for the capabilities;
- a Create, Update or Subscribe may have its arguments in the body (commands.py).

Where an argument may have been lost, a Warning says so (lost_queries).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final, Unpack
from urllib.parse import quote

from ..core.statuses import UpsError
from ..orthanc.refusal_log import Refusal
from ..orthanc.sdk import RestOutput, RestRequest
from ..settings import OrthancSettings, Settings
from . import answers
from .addresses import Addresses, web_socket
from .authorization import Authorization
from .origins import Origins
from .orthanc_requests import ORTHANCS_PORT, OrthancRequests, query_of
from .refusals import refusal
from .request import WebHandler, WebRequest
from .resources import Resource, check_uid, resource_of
from .response import HttpProblem, WebResponse
from .rights import Rights

_QUERY_HEADER: Final = "x-ups-query"
_METHOD_HEADER: Final = "x-ups-method"
_OVERRIDES: Final = ("OPTIONS", "HEAD")
_PORT: Final = re.compile(r":[0-9]+$")
_SPECIAL: Final = frozenset(".^$*+?()[]{}|\\")


class OrthancRoutes:
    """Register ``answer`` for each of ``patterns(settings)``. Its callbacks come on Orthanc's threads."""

    def __init__(
        self,
        handler: WebHandler,
        authorization: Authorization,
        rights: Rights,
        requests: OrthancRequests,
        settings: Settings,
        orthanc_settings: OrthancSettings,
    ) -> None:
        self._handler = handler
        self._authorization = authorization
        self._rights = rights
        self._requests = requests
        self._addresses = Addresses(settings)
        self._origins = Origins(settings.allowed_origins)
        self._public = bool(settings.public_url)
        self._web_socket_port = settings.http_port
        self._scheme = "https" if orthanc_settings.http_tls else "http"
        self._local = f"localhost:{orthanc_settings.http_port}"

    def answer(self, output: RestOutput, uri: str, **request: Unpack[RestRequest]) -> None:
        """Answer one request. Never raises."""
        if self._authorization.is_question(request.get("headers", {})):
            output.AnswerBuffer(uri, "text/plain")  # Orthanc admits the caller to this path
            return

        async def work() -> WebResponse:
            web_request = self._web_request(uri, request)
            try:
                self._origins.check(web_request.method, web_request.headers, web_request.service)
                resource = await self._admitted(web_request, request)
            except UpsError as error:
                return answers.refused(error, None, web_request.service)
            return await self._handler.answer(replace(web_request, resource=resource))

        def refused(response: WebResponse) -> Refusal:
            return self._refusal(uri, request, response)

        self._requests.answer(output, request, work, refused, head=_method(request) == "HEAD")

    def _refusal(self, uri: str, request: RestRequest, response: WebResponse) -> Refusal:
        path = uri.removeprefix(self._addresses.root).partition("?")[0]
        try:
            resource = resource_of(path.strip("/").split("/"))
        except HttpProblem:
            resource = None
        headers = {name.lower(): value for name, value in request.get("headers", {}).items()}
        user = self._authorization.user(headers)
        return refusal(_method(request), resource, ORTHANCS_PORT, user, response)

    async def _admitted(self, web_request: WebRequest, request: RestRequest) -> Resource:
        """The resource that a request is about, to which Orthanc admits the caller by its plain path.

        A filter of Orthanc has judged the path as it was sent, of which we know only what Orthanc makes of it: a slash
        at the end, ``%3F`` or padding may have made it another one for the filter.
        """
        resource = self._rights.spelled(resource_of(web_request.segments()))
        check_uid(resource)
        credentials = self._authorization.credentials(web_request.headers)
        query = query_of(request.get("get", {}))  # where Orthanc finds tokens
        await self._authorization.admit(web_request.method, resource, credentials, query)
        return resource

    def _web_request(self, uri: str, request: RestRequest) -> WebRequest:
        headers = {name.lower(): value for name, value in request.get("headers", {}).items()}
        path, query = _path_and_query(uri.removeprefix(self._addresses.root), headers, request.get("get", {}))
        headers.pop("accept-encoding", None)  # compression is Orthanc's own business here
        service = self.service(headers)
        return WebRequest(
            method=_method(request),
            path=path,
            query=query,
            headers=headers,
            body=request.get("body", b""),
            service=service,
            web_socket_service=self._web_socket_service(service),
            user=self._authorization.user(headers),
            drops_queries="?" not in uri,
        )

    def service(self, headers: Mapping[str, str]) -> str:
        """Base URI of the service as a caller sees it, by the headers of the request."""
        return self._addresses.service(self._scheme, lambda: self._local, None, headers)

    def _web_socket_service(self, service: str) -> str:
        if self._public:
            return web_socket(service)
        host = _PORT.sub("", service.split("/")[2])
        return web_socket(f"{self._scheme}://{host}:{self._web_socket_port}{self._addresses.root}")


def patterns(settings: Settings) -> list[str]:
    """Regular expressions for RegisterRestCallback (plain groups only: named ones crash Orthanc 1.13.0)."""
    root = "".join(f"\\{letter}" if letter in _SPECIAL else letter for letter in Addresses(settings).root)
    return [f"{root}/workitems(.*)", f"{root}/subscribers(/.*)"]


def _method(request: RestRequest) -> str:
    method = request.get("method", "GET").upper()
    override = request.get("headers", {}).get(_METHOD_HEADER, "").strip().upper()
    return override if method == "GET" and override in _OVERRIDES else method


def _path_and_query(uri: str, headers: Mapping[str, str], arguments: Mapping[str, str]) -> tuple[str, str]:
    """Orthanc has decoded the path already, so it is encoded again."""
    path, mark, inside = uri.partition("?")
    query = inside if mark else query_of(arguments)
    return quote(path), headers.get(_QUERY_HEADER, query).strip().removeprefix("?")
