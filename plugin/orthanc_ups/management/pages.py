# SPDX-License-Identifier: AGPL-3.0-or-later
"""The management API and its page on Orthanc's own port, so that Orthanc's login covers them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Unpack
from urllib.parse import quote

from ..dicomweb.authorization import Authorization
from ..dicomweb.origins import Origins
from ..dicomweb.orthanc_requests import ORTHANCS_PORT, OrthancRequests, query_of, send
from ..dicomweb.request import WebRequest
from ..dicomweb.response import HttpProblem, WebResponse
from ..health import HealthReport
from ..orthanc.refusal_log import Refusal
from ..orthanc.sdk import RestOutput, RestRequest
from .explorer_files import serve
from .routing import error_response

API: Final = "/ups/api"
APP: Final = "/ups/app"
_IMPORT: Final = f"{API}/import"
_IMPORT_FACTOR: Final = 4
"""A line of an export is larger than the data set in it, and cannot be divided."""
_LONGEST_PATH: Final = 120  # characters of it in the log
PATTERNS: Final = (f"{API}(/.*)?", f"{APP}(/.*)?")


def answer_closed(output: RestOutput, uri: str, report: HealthReport, request: RestRequest) -> None:
    """Answer while the worklist is not open: the page is served, and the API says why it is not available."""
    if uri.startswith(APP):
        method = request.get("method", "GET").upper()
        send(output, serve(WebRequest(method, quote(uri.removeprefix(APP)), "", {}, b"", "")))
        return
    later = (("Retry-After", "5"),)
    send(output, error_response(503, str(report), report.state.name, headers=later))


class OrthancAdmission:
    """Implements ``routing.Admission`` by asking Orthanc."""

    def __init__(self, authorization: Authorization) -> None:
        self._authorization = authorization

    async def admit(self, request: WebRequest, path: str) -> None:
        """Raise HttpProblem unless Orthanc, or the Orthanc of another node, admits the caller to a path of the API."""
        if request.admitted:
            return
        credentials = self._authorization.credentials(request.headers)
        await self._authorization.admit_to(request.method, API + path, credentials, request.query)

    async def may_read(self, request: WebRequest, path: str) -> bool:
        """True unless Orthanc refuses the caller one of its resources."""
        credentials = self._authorization.credentials(request.headers)
        return await self._authorization.may_read(path, credentials, request.query)


class OrthancPages:
    """Register ``answer`` for each of ``PATTERNS``; Orthanc calls it on threads of its own."""

    def __init__(
        self,
        requests: OrthancRequests,
        api: Callable[[WebRequest], Awaitable[WebResponse]],
        page: Callable[[WebRequest], WebResponse],
        authorization: Authorization,
        service: Callable[[Mapping[str, str]], str],
        origins: Origins,
    ) -> None:
        """Args:
        api: answers requests below ``/ups/api``, on the loop.
        page: returns the files of the page, on any thread.
        authorization: asks Orthanc whom it admits.
        service: returns the URL under which a caller sees this service, from the headers of the request.
        origins: origins whose pages may change something; the API checks them itself.
        """
        self._service = service
        self._origins = origins
        self._requests = requests
        self._api = api
        self._page = page
        self._authorization = authorization

    def answer(self, output: RestOutput, uri: str, **request: Unpack[RestRequest]) -> None:
        """Answer one request. Never raises."""
        if self._authorization.is_question(request.get("headers", {})):
            output.AnswerBuffer(uri, "text/plain")  # Orthanc admits the caller to this path
            return
        if uri.startswith(APP):  # from memory: needs neither the loop nor a slot for a request
            send(output, self._file(self._web_request(uri.removeprefix(APP), request)))
            return

        async def work() -> WebResponse:
            return await self._api(self._web_request(uri.removeprefix(API), request))

        times = _IMPORT_FACTOR if uri.rstrip("/") == _IMPORT else 1

        def refused(response: WebResponse) -> Refusal:
            web_request = self._web_request(uri, request)
            user = f"user {web_request.user}" if web_request.user else ""
            operation = f"{web_request.method} {uri[:_LONGEST_PATH]}"
            return Refusal(operation, ORTHANCS_PORT, user, "", str(response.status), response.reason)

        self._requests.answer(output, request, work, refused, times=times)

    def _file(self, request: WebRequest) -> WebResponse:
        try:
            self._origins.check(request.method, request.headers, request.service)
        except HttpProblem as problem:
            return problem.response()
        return self._page(request)

    def _web_request(self, path: str, request: RestRequest) -> WebRequest:
        headers = {name.lower(): value for name, value in request.get("headers", {}).items()}
        return WebRequest(
            method=request.get("method", "GET").upper(),
            path=quote(path),
            query=query_of(request.get("get", {})),
            headers=headers,
            body=request.get("body", b""),
            service=self._service(headers),
            user=self._authorization.user(headers),
        )
