# SPDX-License-Identifier: AGPL-3.0-or-later
"""What UPS-RS answers: statuses, headers, Warning texts, bodies (PS3.18 §11.4–§11.12)."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from ..codecs import dicom_json, dicom_xml
from ..codecs.attribute_names import keyword_of
from ..core import statuses
from ..core.dataset import DataSet
from ..core.dictionary import keyword
from ..core.outcome import Outcome, Page
from ..core.statuses import Service, Status, UpsError
from . import multipart
from .media_types import (
    DICOM_JSON,
    DICOM_XML,
    MULTIPART_XML,
    PLAIN_JSON,
    MediaType,
    accepts_gzip,
    accepts_utf_8,
    choose,
)
from .parameters import Parameters
from .response import Headers, HttpProblem, WebResponse, report

FOR_MANY: Final = (DICOM_JSON, MULTIPART_XML, PLAIN_JSON)
FOR_ONE: Final = (*FOR_MANY, DICOM_XML)
_NOT_CLAIMED: Final = "The target URI did not reference a claimed Workitem."
_INCONSISTENT: Final = "The submitted request is inconsistent with the state of the UPS Instance."
_WORTH_COMPRESSING: Final = 1024  # bytes
_LARGE: Final = 32 * 1024  # bytes; beyond, a thread compresses
_FAST: Final = 3
_GZIP: Final = 31
_RETRY_AFTER: Final = 5  # seconds
_LONGEST_WARNING: Final = 1000
_LONGEST_HEADER: Final = 2400
"""Together with the Warning, so that all headers fit into the 4 KiB that proxies such as nginx take by default."""
_NOT_TO_BE_KEPT: Final = ("Cache-Control", "no-store")  # patients' data


def warning(service: str, text: str) -> tuple[str, str]:
    """The Warning header as DICOM writes it (PS3.18 §8.4.3)."""
    return "Warning", f"299 {service}: {text}"


def negotiated(
    headers: Mapping[str, str], parameters: Parameters, offered: tuple[MediaType, ...]
) -> MediaType:
    """The media type of an answer; the ``accept`` parameter stands in for the header. Raises HttpProblem 406."""
    accept = parameters.media_types() or headers.get("accept")
    chosen = choose(accept, offered)
    if chosen is None:
        raise HttpProblem(406, f"none of {', '.join(map(str, offered))} is acceptable")
    if not accepts_utf_8(parameters.value("charset")):
        raise HttpProblem(406, "answers are in UTF-8 only, which charset excludes")
    return chosen


def done(outcome: Outcome, service: Service, base: str, headers: Headers = ()) -> WebResponse:
    """The answer to a command that was carried out, perhaps with a warning; normally it has no body."""
    status = outcome.status.http_for(service)
    if outcome.status.warning:
        headers = (*headers, warning(base, outcome.status.warning))
    modifications = _modifications(outcome)
    if modifications:
        headers = (
            *headers,
            warning(base, _shortened(modifications, _LONGEST_WARNING, " ... (more in X-Ups-Modifications)")),
            ("X-Ups-Modifications", _shortened(modifications, _LONGEST_HEADER, " ...")),
        )
    if status >= 400:  # a success for DIMSE only: there was no such subscription
        return report(status, {"Detail": outcome.status.meaning}, headers)
    return WebResponse(status, headers)


def _shortened(text: str, longest: int, ending: str) -> str:
    """As much of a text as fits, cut between words; the ending says that it is cut."""
    if len(text) <= longest:
        return text
    return text[: longest - len(ending)].rpartition(" ")[0].rstrip(",;") + ending


def _modifications(outcome: Outcome) -> str:
    """The corrections of the server, in words; this header is not in the standard."""
    return "; ".join(outcome.details).encode("ascii", "replace").decode()


def refused(error: UpsError, service: Service | None, base: str) -> WebResponse:
    """The answer to a refused request: nothing has changed."""
    status = error.status
    http = status.http_for(service) if service else status.http
    text = _warning_of(status, service)
    headers: Headers = (warning(base, text),) if text else ()
    if http == 503:
        headers = (*headers, ("Retry-After", str(_RETRY_AFTER)))
    content = {
        "Status": f"{status.code:04X}",
        "Meaning": status.meaning,
        "Detail": error.detail,
        "Attribute": error.tag,
        "Attributes": [
            {"Tag": fault.path, "Keyword": _keywords(fault.path), "Reason": fault.reason}
            for fault in error.faults
        ],
    }
    return report(http, content, headers)


def _keywords(path: str) -> str:
    return ".".join(keyword_of(tag) or keyword(tag) for tag in path.split(".") if tag)


def _warning_of(status: Status, service: Service | None) -> str | None:
    """The text of a warning; Update and Change State have different ones (PS3.18 §11.6.3.2, §11.7.3.2)."""
    if service is Service.UPDATE and status.code == statuses.WRONG_TRANSACTION_UID.code:
        return _NOT_CLAIMED
    if service is Service.CHANGE_STATE and status.warning == statuses.INCONSISTENT:
        return _INCONSISTENT
    return status.warning


def workitem_in_json(text: bytes, media_type: MediaType) -> WebResponse:
    """The answer of Retrieve (PS3.18 §11.5.3) in JSON: an array of one."""
    return WebResponse(200, (_NOT_TO_BE_KEPT,), text, media_type.name)


def workitem_in_xml(workitem: DataSet, media_type: MediaType) -> WebResponse:
    """The answer of Retrieve in XML: one part, or the bare document."""
    if media_type is DICOM_XML:
        return WebResponse(200, (_NOT_TO_BE_KEPT,), dicom_xml.encode(workitem), DICOM_XML.name)
    return _in_parts([workitem], ())


def page_in_json(page: Page[bytes], media_type: MediaType, base: str) -> WebResponse:
    """The answer of Search (PS3.18 §11.9.3), from texts as ``dicom_json.from_text`` takes them."""
    headers = _more(page, base)
    if not page.workitems:
        return WebResponse(204, headers)
    body = dicom_json.from_texts(page.workitems)
    return WebResponse(200, (*headers, _NOT_TO_BE_KEPT), body, media_type.name)


def page_in_xml(page: Page[DataSet], base: str) -> WebResponse:
    """The answer of Search in XML."""
    headers = _more(page, base)
    return _in_parts(page.workitems, headers) if page.workitems else WebResponse(204, headers)


def _more(page: Page[Any], base: str) -> Headers:
    if not page.remaining:
        return ()
    return (warning(base, f"There are {page.remaining} additional results that can be requested"),)


def _in_parts(workitems: Sequence[DataSet], headers: Headers) -> WebResponse:
    body, boundary = multipart.encode(map(dicom_xml.encode, workitems), DICOM_XML.name)
    content_type = f'{MULTIPART_XML}; boundary="{boundary}"'
    return WebResponse(200, (*headers, _NOT_TO_BE_KEPT), body, content_type)


async def compressed(response: WebResponse, accept_encoding: str | None) -> WebResponse:
    """The answer, with gzip if the client accepts it and it pays off."""
    if len(response.body) < _WORTH_COMPRESSING or not accepts_gzip(accept_encoding):
        return response
    large = len(response.body) > _LARGE
    body = await asyncio.to_thread(_gzip, response.body) if large else _gzip(response.body)
    headers = (*response.headers, ("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding"))
    return replace(response, headers=headers, body=body)


def _gzip(body: bytes) -> bytes:
    writer = zlib.compressobj(_FAST, zlib.DEFLATED, _GZIP)
    return writer.compress(body) + writer.flush()
