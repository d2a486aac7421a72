# SPDX-License-Identifier: AGPL-3.0-or-later
"""The UPS-RS handler on Orthanc's own port, beside QIDO, WADO and STOW, as far as Orthanc's server carries it.

That server drops the query of a POST, PUT or DELETE and all but the last of repeated keys, and knows no OPTIONS,
HEAD or WebSocket. So here

- ``X-Ups-Query: workitem=1.2.3`` stands for the query of any request (then the URL's own does not count), and so
  does a percent-encoded question mark in the path (``/workitems%3Fworkitem=1.2.3``);
- ``X-HTTP-Method-Override: OPTIONS`` on a GET asks for the capabilities;
- a Create, Update or Subscribe may have its arguments in the body (ups_rs_commands).

A callback runs on one of Orthanc's HTTP threads with a small stack: it hands everything to our loop, waits with a
bound, and only a part of these threads may wait here at a time, as the worklist needs Orthanc's HTTP server itself.
"""

from __future__ import annotations

import hmac
import logging
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, Final, Unpack
from urllib.parse import quote, urlsplit

from ..sdk import RestOutput, RestRequest
from ..settings import Settings, Surroundings
from .authorization import PROBE_HEADER, Authorization
from .ups_rs import UpsRs
from .web_addresses import Addresses, web_socket
from .web_request import WebRequest
from .web_response import HttpProblem, WebResponse

_log = logging.getLogger("orthanc_ups.wires.orthanc_routes")
_QUERY_HEADER: Final = "x-ups-query"
_METHOD_HEADER: Final = "x-http-method-override"
_OVERRIDES: Final = ("OPTIONS", "HEAD")
_WITHIN: Final = 30.0  # seconds
_USUAL_THREADS: Final = 50  # of HttpThreadsCount
_SPECIAL: Final = frozenset(".^$*+?()[]{}|\\")
_LATER: Final = (("Retry-After", "5"),)

Submit = Callable[[Coroutine[Any, Any, WebResponse]], "Future[WebResponse]"]


class OrthancRoutes:
    """Register ``answer`` for each of ``patterns``. Its callbacks come on Orthanc's threads."""

    def __init__(
        self,
        handler: UpsRs,
        authorization: Authorization,
        submit: Submit,
        settings: Settings,
        surroundings: Surroundings,
    ) -> None:
        """Prepare. ``submit`` runs a coroutine on the worklist's loop."""
        self._handler = handler
        self._authorization = authorization
        self._submit = submit
        self._maximum_size = settings.maximum_body_size
        self._addresses = Addresses(settings)
        self._public = bool(settings.public_url)
        self._web_socket_port = settings.http_port
        self._scheme = "https" if surroundings.http_tls else "http"
        self._local = f"localhost:{surroundings.http_port}"
        threads = surroundings.raw.get("HttpThreadsCount")
        places = threads if isinstance(threads, int) and threads > 0 else _USUAL_THREADS
        self._places = threading.BoundedSemaphore(max(1, places // 4))

    def patterns(self) -> list[str]:
        """Regular expressions for RegisterRestCallback (plain groups only: named ones crash Orthanc 1.13.0)."""
        root = "".join(f"\\{one}" if one in _SPECIAL else one for one in self._addresses.root)
        return [f"{root}/workitems(.*)", f"{root}/subscribers(/.*)"]

    def answer(self, output: RestOutput, uri: str, **request: Unpack[RestRequest]) -> None:
        """Answer one request. Never raises."""
        try:
            headers = request.get("headers", {})
            if hmac.compare_digest(headers.get(PROBE_HEADER.lower(), ""), self._authorization.secret):
                output.SendHttpStatusCode(204)  # Orthanc has let it in, and that was the question
                return
            _send(output, self._answered(uri, request), head=_method(request) == "HEAD")
        except Exception:
            _log.exception("a request on Orthanc's port failed")
            output.SendHttpStatusCode(500)

    def _answered(self, uri: str, request: RestRequest) -> WebResponse:
        if len(request.get("body", b"")) > self._maximum_size:
            return HttpProblem(
                413, f"larger than {self._maximum_size} bytes (Ups.MaximumBodySize)"
            ).response()
        if not self._places.acquire(blocking=False):
            return HttpProblem(503, "too many requests at once on Orthanc's port", _LATER).response()
        try:
            return self._submit(self._handler.answer(self._web_request(uri, request))).result(_WITHIN)
        except FutureTimeoutError:
            detail = (
                "no answer in time; what was asked for may still be carried out: look before trying again"
            )
            return HttpProblem(503, detail, _LATER).response()
        except HttpProblem as problem:
            return problem.response()
        finally:
            self._places.release()

    def _web_request(self, uri: str, request: RestRequest) -> WebRequest:
        headers = {name.lower(): value for name, value in request.get("headers", {}).items()}
        path, query = _path_and_query(uri.removeprefix(self._addresses.root), headers, request.get("get", {}))
        headers.pop("accept-encoding", None)  # compression is Orthanc's own business here
        service = self._addresses.service(self._scheme, self._local, None, headers)
        return WebRequest(
            method=_method(request),
            path=path,
            query=query,
            headers=headers,
            body=request.get("body", b""),
            service=service,
            web_socket_service=self._web_socket_service(service),
            user=self._authorization.user(headers),
        )

    def _web_socket_service(self, service: str) -> str:
        if self._public:
            return web_socket(service)
        host = urlsplit(service).hostname or "localhost"
        host = f"[{host}]" if ":" in host else host
        return web_socket(f"{self._scheme}://{host}:{self._web_socket_port}{self._addresses.root}")


def _method(request: RestRequest) -> str:
    method = request.get("method", "GET").upper()
    wanted = request.get("headers", {}).get(_METHOD_HEADER, "").strip().upper()
    return wanted if method == "GET" and wanted in _OVERRIDES else method


def _path_and_query(uri: str, headers: Mapping[str, str], given: Mapping[str, str]) -> tuple[str, str]:
    """Orthanc has decoded the path already, so it is encoded again."""
    path, mark, inside = uri.partition("?")
    query = "&".join(_pair(name, value) for name, value in given.items())
    if mark:
        query = inside
    return quote(path), headers.get(_QUERY_HEADER, query)


def _pair(name: str, value: str) -> str:
    """A bare key comes with an empty value, which means the same."""
    return f"{quote(name, safe='')}={quote(value, safe='')}" if value else quote(name, safe="")


def _send(output: RestOutput, response: WebResponse, *, head: bool) -> None:
    for name in dict.fromkeys(name for name, _ in response.headers):
        values = [value for one, value in response.headers if one == name]
        output.SetHttpHeader(name, ", ".join(values))
    if response.status == 200 and response.body:
        output.AnswerBuffer(b"" if head else response.body, response.content_type)
    elif response.body and not head:
        output.SendHttpStatus(response.status, response.body)
    else:
        output.SendHttpStatusCode(response.status)
