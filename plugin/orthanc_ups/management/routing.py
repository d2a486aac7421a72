# SPDX-License-Identifier: AGPL-3.0-or-later
"""Finds the handler of a request, and converts what it returns or raises to an answer."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol, TypeAlias, get_type_hints
from urllib.parse import parse_qsl, quote

import orjson
from msgspec import Struct

from ..codecs.structs import T, WrongKeys, decode
from ..core.commands import Requester
from ..core.reasons import MAXIMUM as LONGEST_REASON
from ..core.statuses import UpsError
from ..delivery.port import Unreachable
from ..dicomweb.origins import Origins
from ..dicomweb.request import WebRequest
from ..dicomweb.response import HttpProblem, WebResponse, encodable
from ..dicomweb.rights import Rights
from ..store.port import StoreUnavailable
from . import permissions
from .keyword_form import keyword_path
from .permissions import RIGHTS

_log = logging.getLogger("orthanc_ups.management")
JSON: Final = "application/json"
JSON_LINES: Final = "application/x-ndjson"
CSV: Final = "text/csv"
QUERY_HEADER: Final = "x-ups-query"
"""Header with the query of a GET, which Orthanc alters: 1.13.0 decodes it before splitting it, 1.12.7 not at all."""

_WITH_BODY: Final = frozenset({"POST", "PUT"})
_NO_STORE: Final = (("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"))


@dataclass(frozen=True, slots=True)
class Call:
    """The arguments of a handler.

    Attributes:
        parameters: the parts of the path at ``{…}``.
        query: the last value of each name, as received.
        requester: the operator and their reason, for history and events.
        content: the body, as received.
        may_read: asks Orthanc whether the caller may read a resource of Orthanc; None if everybody may.
    """

    parameters: Mapping[str, str]
    query: Mapping[str, str]
    requester: Requester
    content: bytes = b""
    may_read: Callable[[str], Awaitable[bool]] | None = None

    @property
    def uid(self) -> str:
        """The workitem in the path."""
        return self.parameters["uid"]

    @property
    def ae(self) -> str:
        """The AE title in the path."""
        return self.parameters["ae"]

    async def check_readable(self, path: str) -> None:
        """Raise HttpProblem 403 if Orthanc refuses the caller one of its resources, 503 if it does not answer."""
        if self.may_read is not None and not await self.may_read(path):
            raise HttpProblem(403, "Orthanc does not allow you to read this")


Handler: TypeAlias = Callable[..., Awaitable[Any]]
"""Takes a ``Call``, and optionally ``body`` and ``query``, each a msgspec struct (see ``bodies``)."""


class Admission(Protocol):
    """Asks Orthanc about a caller, with the credentials of the request; paths are percent-encoded."""

    async def admit(self, request: WebRequest, path: str) -> None:
        """Raise HttpProblem unless Orthanc admits the caller to a path below ``/ups/api``."""
        ...

    async def may_read(self, request: WebRequest, path: str) -> bool:
        """True unless Orthanc refuses the caller one of its resources."""
        ...


@dataclass(frozen=True, slots=True)
class Route:
    """One operation of the API.

    The signature of the handler has the types of ``body``, ``query`` and the answer. ``body`` and ``query`` are decoded
    before it is called, and openapi.json describes all of them, with the handler's docstring.

    Attributes:
        path: with ``{name}`` for parameters, such as ``/workitems/{uid}``.
        media_type: media type of the body, if there is one.
        answer_type: media type of the answer.
    """

    method: str
    path: str
    handler: Handler
    media_type: str = JSON
    answer_type: str = JSON
    parts: tuple[str, ...] = field(init=False)
    types: Mapping[str, Any] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.path.strip("/").split("/")))
        object.__setattr__(self, "types", get_type_hints(self.handler, include_extras=True))

    def expand(self, parameters: Mapping[str, str]) -> str:
        """The path with its parameters filled in, percent-encoded."""
        parts = (
            quote(parameters[part.strip("{}")], safe="") if part[0] == "{" else part for part in self.parts
        )
        return "/" + "/".join(parts)

    def parameters(self, segments: list[str]) -> dict[str, str] | None:
        """The parameters of a path, or None if it does not match."""
        if len(segments) != len(self.parts):
            return None
        parameters = {}
        for part, segment in zip(self.parts, segments, strict=True):
            if part.startswith("{"):
                parameters[part.strip("{}")] = segment
            elif part != segment:
                return None
        return parameters


class Router:
    """Finds routes, calls handlers, and converts results and errors to answers."""

    def __init__(
        self,
        routes: Iterable[Route],
        ae_title: str,
        rights: Rights,
        origins: Origins,
        admission: Admission | None = None,
    ) -> None:
        """Args:
        routes: each must be in ``permissions.RIGHTS``; otherwise this raises KeyError.
        ae_title: of the worklist.
        rights: what users may do.
        origins: origins whose pages may use the API.
        admission: asks Orthanc about the plain path of each request; None to admit everybody.
        """
        self._admission = admission
        self.routes = tuple(routes)
        self._required = {route: RIGHTS[f"{route.method} {route.path}"] for route in self.routes}
        self._ae_title = ae_title
        self._rights = rights
        self._origins = origins

    async def answer(self, request: WebRequest) -> WebResponse:
        """Answer a request whose path is below ``/ups/api``."""
        try:
            content = await self.handle(request)
        except UpsError as error:
            return refusal(error)
        except HttpProblem as problem:
            return error_response(problem.status, problem.detail, headers=problem.headers)
        except Unreachable as error:
            return error_response(502, str(error), "UNREACHABLE")
        except StoreUnavailable as error:
            return error_response(503, f"not possible now: {error}", "RESOURCE_LIMITATION")
        except Exception:
            _log.exception("%s %s failed", request.method, request.path)
            return error_response(500, "internal server error; see Orthanc's log", "PROCESSING_FAILURE")
        return content if isinstance(content, WebResponse) else json_response(content)

    async def admit(self, request: WebRequest) -> tuple[Route, dict[str, str]]:
        """Return the route of a request and the parameters of its path, if the caller may use it.

        Raises:
            HttpProblem: Orthanc does not admit the caller, or there is no such route.
            UpsError: ``Ups.Users`` does not allow it.
        """
        self._origins.check(request.method, request.headers, request.service)
        route, parameters = self._route(request.method, request.segments())
        if "ae" in parameters:
            parameters["ae"] = self._rights.ae_title(parameters["ae"])
        if self._admission is not None:
            await self._admission.admit(request, route.expand(parameters))
        permissions.check(self._rights, self._required[route], request.user, parameters)
        return route, parameters

    async def handle(self, request: WebRequest) -> Any:
        """Call the handler of a request, and return its result. Raises the errors that ``answer`` converts."""
        route, parameters = await self.admit(request)
        _check_media_type(request, route.media_type)
        content = _content(request) if route.media_type == JSON else {}
        query = dict(parse_qsl(request.headers.get(QUERY_HEADER, request.query), keep_blank_values=True))
        structs = _structs(route, content, query)
        reason = "" if route.method == "GET" else _reason({**query, **content})
        requester = self._rights.operator(request.user, self._ae_title, reason)
        may_read = None if self._admission is None else partial(self._admission.may_read, request)
        call = Call(parameters, query, requester, request.body, may_read)
        return await route.handler(call, **structs)

    def _route(self, method: str, segments: list[str]) -> tuple[Route, dict[str, str]]:
        methods: list[str] = []
        for route in self.routes:
            parameters = route.parameters(segments)
            if parameters is None:
                continue
            if route.method == method:
                return route, parameters
            methods.append(route.method)
        if methods:
            raise HttpProblem(405, f"{method} is not supported here", (("Allow", ", ".join(methods)),))
        raise HttpProblem(404, "the management API has no such resource; see openapi.json")


def _check_media_type(request: WebRequest, expected: str) -> None:
    """Raise HttpProblem 415 for another type. Pages of other origins cannot send these types without a preflight."""
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if request.method in _WITH_BODY and media_type != expected:
        body = "JSON" if expected == JSON else "lines of JSON"
        raise HttpProblem(415, f"the body must be {body}, with the header Content-Type: {expected}")


def _content(request: WebRequest) -> Mapping[str, Any]:
    if request.method == "GET" or not request.body.strip():
        return {}
    try:
        content = orjson.loads(request.body)
    except orjson.JSONDecodeError as error:
        raise HttpProblem(400, f"the body is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise HttpProblem(400, "the body must be a JSON object")
    return content


def _structs(route: Route, content: Mapping[str, Any], query: Mapping[str, str]) -> dict[str, Struct]:
    """The decoded ``body`` and ``query`` of a handler. Raises HttpProblem 400, which names every key at fault."""
    structs: dict[str, Struct] = {}
    if "body" in route.types:
        try:
            structs["body"] = decode(route.types["body"], content)
        except WrongKeys as error:
            raise HttpProblem(400, str(error)) from None
    if "query" in route.types:
        structs["query"] = decode_query(route.types["query"], query)
    return structs


def decode_query(struct: type[T], query: Mapping[str, str]) -> T:
    """The parameters of a query as a struct; empty ones count as absent. Raises HttpProblem 400."""
    try:
        return decode(struct, {name: text for name, text in query.items() if text}, strict=False)
    except WrongKeys as error:
        raise HttpProblem(400, str(error)) from None


def _reason(parameters: Mapping[str, Any]) -> str:
    """The operator's reason: from the body, or for a DELETE, whose body Orthanc does not pass on, from the query."""
    reason = parameters.get("reason") or ""
    if not isinstance(reason, str):
        raise HttpProblem(400, '"reason" must be a string')
    reason = reason.strip()
    if len(reason) > LONGEST_REASON:
        raise HttpProblem(
            400, f'"reason" is {len(reason)} characters long, expected at most {LONGEST_REASON}'
        )
    return reason


def json_response(content: Any, status: int = 200) -> WebResponse:
    """An answer in JSON."""
    return WebResponse(status, _NO_STORE, orjson.dumps(content), "application/json")


def refusal(error: UpsError) -> WebResponse:
    """The answer to a refused command: the rule in words, its name, and every attribute at fault."""
    faults = [{"attribute": keyword_path(fault.path), "reason": fault.reason} for fault in error.faults]
    return error_response(
        error.status.http, error.detail, error.status.name, keyword_path(error.tag), faults=faults
    )


def error_response(
    status: int,
    words: str,
    name: str = "REQUEST",
    attribute: str | None = None,
    headers: Iterable[tuple[str, str]] = (),
    faults: Sequence[Mapping[str, str | None]] = (),
) -> WebResponse:
    """An error answer; ``faults`` has all attributes at fault, each with its reason."""
    content: dict[str, object] = {
        "error": words[:1].upper() + words[1:],
        "status": name,
        "attribute": attribute,
    }
    if faults:
        content["attributes"] = list(faults)
    body = orjson.dumps(encodable(content))
    reason = f"{words} ({name})" if name != "REQUEST" else words
    return WebResponse(status, (*_NO_STORE, *headers), body, "application/json", reason)
