# SPDX-License-Identifier: AGPL-3.0-or-later
"""The UPS-RS handler: request value in, answer value out, on any HTTP host (PS3.18 chapter 11).

It lives on the worklist's asyncio loop. Whether the caller may come in at all is the host's business; which AE
titles they may use is decided here (``rights.py``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from datetime import tzinfo
from typing import Final
from urllib.parse import quote

from ..codecs.corrections import Corrections
from ..codecs.dicom_json import from_texts
from ..core.commands import Create
from ..core.matching import Query
from ..core.outcome import Paging
from ..core.statuses import MISSING_TRANSACTION_UID, Service, UpsError
from ..settings import Settings
from ..worklist.ports import WorklistPort
from . import answers, capabilities, lost_queries
from .bodies import BodyReader
from .commands import CommandCall, command
from .media_types import DICOM_XML, MULTIPART_XML
from .parameters import (
    Parameters,
    ignored_warning,
    key_warnings,
    search_arguments,
    supported,
)
from .request import WebRequest
from .resources import TRANSACTIONS, Resource, ResourceKind, check_uid, is_filtered, resource_of
from .response import Headers, HttpProblem, WebResponse
from .rights import Rights
from .text_cache import TextCache

_log = logging.getLogger("orthanc_ups.dicomweb.ups_rs")
_XML: Final = (DICOM_XML, MULTIPART_XML)  # written in a thread, because it takes long
_LARGE: Final = 512 * 1024  # bytes of JSON; beyond, a thread finishes it
_UNHARMED: Final = "internal server error; the worklist is unharmed; see Orthanc's log"


class UpsRs:
    """Answers requests of the Worklist Service."""

    def __init__(
        self,
        worklist: WorklistPort,
        settings: Settings,
        rights: Rights,
        *,
        timezone: str | tzinfo | None = None,
        ignored_parameters: Collection[str] = (),
    ) -> None:
        """Prepare.

        Args:
            worklist: on the same loop.
            settings: limits of sizes, depths and pages.
            rights: whose AE titles are whose.
            timezone: the local zone, for date-times without offset.
            ignored_parameters: names in queries that belong to others, such as tokens of an authorization plugin.
        """
        self._worklist = worklist
        self._strict = settings.strict
        self._most_results = settings.maximum_results
        self._bodies = BodyReader(settings.maximum_body_size, settings.maximum_nesting)
        self._texts = TextCache()
        self._rights = rights
        self._timezone = timezone
        self._tokens = frozenset(name.lower() for name in ignored_parameters)

    async def answer(self, request: WebRequest) -> WebResponse:
        """Answer a request; never raises."""
        service: Service | None = None
        warnings: list[str] = []
        try:
            resource = request.resource or self._rights.spelled(resource_of(request.segments()))
            service = TRANSACTIONS.get(resource.kind, {}).get(_method(request))
            response = await self._answered(request, resource, service, warnings)
        except HttpProblem as problem:
            response = problem.response()
        except UpsError as error:
            if request.drops_queries and error.status is MISSING_TRANSACTION_UID:
                warnings.append(lost_queries.without_transaction_uid())
            response = answers.refused(error, service, request.service)
        except Exception:
            _log.exception("%s of a %s failed", request.method, service.value if service else "resource")
            response = HttpProblem(500, _UNHARMED).response()
        for text in filter(None, warnings):
            response = response.having(*answers.warning(request.service, text))
        return await answers.compressed(response, request.headers.get("accept-encoding"))

    async def _answered(
        self, request: WebRequest, resource: Resource, service: Service | None, warnings: list[str]
    ) -> WebResponse:
        """Answer, or raise what ``answer`` turns into a refusal; ``warnings`` are reported in both cases."""
        parameters = Parameters.of(request.query)
        if request.method == "OPTIONS":
            warnings.append(ignored_warning(parameters.unsupported(None, self._tokens)))
            return _capabilities(request, parameters, resource)
        if service is None:
            raise _not_here(request, resource)
        parameters.check_values(supported(service) - self._tokens)
        check_uid(resource)
        if service is Service.SEARCH:
            return await self._search(request, parameters, warnings)
        if not is_filtered(service, resource):
            warnings.append(ignored_warning(parameters.unsupported(service, self._tokens)))
        if service is Service.RETRIEVE:
            response = await self._retrieved(request, parameters, resource)
            return response.having("Content-Location", f"{request.service}/workitems/{resource.uid}")
        return await self._carried_out(request, parameters, resource, service, warnings)

    async def _retrieved(
        self, request: WebRequest, parameters: Parameters, resource: Resource
    ) -> WebResponse:
        media_type = answers.negotiated(request.headers, parameters, answers.FOR_ONE)
        if media_type in _XML:
            workitem = await self._worklist.retrieve(resource.uid)
            return await asyncio.to_thread(answers.workitem_in_xml, workitem, media_type)
        uid, document = resource.uid, self._worklist.document_of(resource.uid)
        if len(document) > _LARGE:
            answer = await asyncio.to_thread(from_texts, (self._worklist.text_of(uid),))
        else:
            answer = self._texts.of(document, lambda: self._worklist.text_of(uid))
        return answers.workitem_in_json(answer, media_type)

    async def _search(self, request: WebRequest, parameters: Parameters, warnings: list[str]) -> WebResponse:
        media_type = answers.negotiated(request.headers, parameters, answers.FOR_MANY)
        arguments = search_arguments(parameters, self._most_results, self._tokens)
        warnings.append(ignored_warning(arguments.ignored))
        query = Query.of(arguments.identifier, mechanisms=arguments.mechanisms, timezone=self._timezone)
        warnings += key_warnings(query)
        paging = Paging(arguments.offset, arguments.limit, arguments.include, arguments.everything)
        if media_type in _XML:
            page = await self._worklist.search(query, paging)
            return await asyncio.to_thread(answers.page_in_xml, page, request.service)
        texts = await self._worklist.search_texts(query, paging)
        if sum(map(len, texts.workitems)) > _LARGE:
            return await asyncio.to_thread(answers.page_in_json, texts, media_type, request.service)
        return answers.page_in_json(texts, media_type, request.service)

    async def _carried_out(
        self,
        request: WebRequest,
        parameters: Parameters,
        resource: Resource,
        service: Service,
        warnings: list[str],
    ) -> WebResponse:
        corrections = Corrections(lenient=not self._strict)
        takes_keys = service is Service.SUBSCRIBE
        body = await self._bodies.data_set(request.headers, request.body, None if takes_keys else corrections)
        call = CommandCall(
            resource,
            parameters,
            body,
            request.user,
            self._rights,
            self._tokens,
            warnings,
            corrections.sentences,
            request.drops_queries,
            self._strict,
        )
        arguments = command(service, call)
        outcome = await self._worklist.execute(arguments)
        headers = _places(request, resource, service, arguments.uid if isinstance(arguments, Create) else "")
        return answers.done(outcome, service, request.service, headers)


def _method(request: WebRequest) -> str:
    return "GET" if request.method == "HEAD" else request.method


def _not_here(request: WebRequest, resource: Resource) -> HttpProblem:
    if resource.kind is ResourceKind.CONNECTION and request.method in ("GET", "HEAD"):
        if request.drops_queries:
            address = f"{request.web_socket_service}/subscribers/AETITLE"
            return HttpProblem(
                400, f"this port has no WebSockets: open the notification connection at {address}"
            )
        return HttpProblem(400, "a notification connection is opened by a WebSocket handshake (RFC 6455)")
    allowed = ", ".join(resource.allowed)
    return HttpProblem(405, f"{resource.kind.value} takes {allowed}", (("Allow", allowed),))


def _places(request: WebRequest, resource: Resource, service: Service, created: str) -> Headers:
    """Where to find what the request was about."""
    if service is Service.CREATE:
        return (("Location", f"{request.service}/workitems/{created}"),)
    if service is Service.UPDATE:
        return (("Content-Location", f"{request.service}/workitems/{resource.uid}"),)
    if service is Service.SUBSCRIBE:
        connection = f"{request.web_socket_service}/subscribers/{quote(resource.ae, safe='')}"
        return (("Content-Location", connection), ("Location", connection))
    return ()


def _capabilities(request: WebRequest, parameters: Parameters, resource: Resource) -> WebResponse:
    media_type = answers.negotiated(request.headers, parameters, capabilities.OFFERED)
    body, entity_tag = capabilities.document(
        request.service, request.web_socket_service, media_type, drops_queries=request.drops_queries
    )
    headers = (("Allow", ", ".join(resource.allowed)), ("ETag", entity_tag), ("Vary", "Accept"))
    if not capabilities.has_changed(request.headers.get("if-none-match"), entity_tag):
        return WebResponse(304, headers)
    return WebResponse(200, headers, body, media_type.name)
