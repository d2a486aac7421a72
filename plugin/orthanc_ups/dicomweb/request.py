# SPDX-License-Identifier: AGPL-3.0-or-later
"""A request as every HTTP server passes it to the UPS-RS handler: a value, independent of any server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import unquote_to_bytes

from .resources import Resource
from .response import HttpProblem, WebResponse


@dataclass(frozen=True, slots=True)
class WebRequest:
    """One HTTP request.

    Attributes:
        method: in upper case.
        path: below the service's base, percent-encoded as it came: ``/workitems/1.2.3``.
        query: the part after the question mark, as received.
        headers: by lower-case name; a repeated header has its values joined by ``, ``.
        body: as it came, possibly compressed.
        service: base URI of the service as the client sees it, without slash at the end.
        web_socket_service: base of the URLs of notification connections, likewise.
        user: the authenticated user, if the host knows one.
        resource: what the path names, if the host had to find out.
        drops_queries: True if the host drops the query of a POST, PUT or DELETE; `query` is then its replacement.
        admitted: True if another node has asked its Orthanc whether the caller may do this.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    service: str = ""
    web_socket_service: str = ""
    user: str | None = None
    resource: Resource | None = None
    drops_queries: bool = False
    admitted: bool = False

    def segments(self) -> list[str]:
        """The parts of the path, percent-decoded; a slash at the end does not count. Raises HttpProblem 400."""
        return segments_of(self.path)


class WebHandler(Protocol):
    """Answers requests of UPS-RS to which the caller was admitted."""

    async def answer(self, request: WebRequest) -> WebResponse:
        """Answer a request. Never raises."""
        ...


def segments_of(path: str) -> list[str]:
    """The parts of a path, percent-decoded; a slash at the end does not count. Raises HttpProblem 400."""
    path = path.strip("/")
    if not path:
        return []
    return [decoded(part) for part in path.split("/")] if "%" in path else path.split("/")


def decoded(text: str) -> str:
    """Resolve percent-encoded UTF-8. Raises HttpProblem 400."""
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise HttpProblem(400, "the URL is not percent-encoded UTF-8") from None
