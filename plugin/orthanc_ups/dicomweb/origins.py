# SPDX-License-Identifier: AGPL-3.0-or-later
"""What pages of other origins may do: nothing, unless ``Ups.AllowedOrigins`` names them.

Reading across origins is stopped by browsers, as no CORS header allows it. Requests that change something, and
WebSockets, browsers send regardless; so these are refused here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from .response import Headers, HttpProblem, WebResponse

_SAFE: Final = ("GET", "HEAD", "OPTIONS")
_METHODS: Final = "GET, HEAD, POST, PUT, DELETE, OPTIONS"
_EXPOSED: Final = "Location, Content-Location, Warning, ETag, X-Ups-Modifications"
_REMEMBERED: Final = "600"  # seconds
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443", "ws": ":80", "wss": ":443"}


class Origins:
    """Decides on the Origin header. ``allowed`` are origins such as ``https://viewer.example``, or ``*``."""

    def __init__(self, allowed: tuple[str, ...]) -> None:
        self._everybody = "*" in allowed
        self._allowed = frozenset(origin.rstrip("/").lower() for origin in allowed)

    def is_foreign(self, headers: Mapping[str, str], service: str) -> bool:
        """True if the request comes from a page of an origin that is neither the service's own nor allowed.

        Without Origin, which browsers send with every unsafe method, Sec-Fetch-Site decides.
        """
        origin = headers.get("origin")
        if self._everybody or (origin or "").lower() in self._allowed:
            return False
        if origin is None:
            return headers.get("sec-fetch-site", "none") not in ("same-origin", "none")
        # A page of another origin cannot send X-Forwarded-Host without a preflight, so it can be trusted here.
        hosts = (headers.get("host", ""), headers.get("x-forwarded-host", "").split(",")[0].strip())
        own = {_authority(service), *(_authority(f"http://{host}") for host in hosts if host)}
        return _authority(origin) not in own - {""}

    def check(self, method: str, headers: Mapping[str, str], service: str) -> None:
        """Refuse unsafe methods of foreign pages, on any port. Raises HttpProblem 403."""
        if method not in _SAFE and self.is_foreign(headers, service):
            raise foreign(headers)

    def headers(self, headers: Mapping[str, str]) -> Headers:
        """The CORS headers of an answer."""
        origin = headers.get("origin")
        if origin is None or not (self._everybody or origin.lower() in self._allowed):
            return ()
        exposed = ("Access-Control-Expose-Headers", _EXPOSED)
        if origin.lower() in self._allowed:
            return (("Access-Control-Allow-Origin", origin), ("Access-Control-Allow-Credentials", "true"),
                    ("Vary", "Origin"), exposed)  # fmt: skip
        return (("Access-Control-Allow-Origin", "*"), exposed)

    def preflight(self, method: str, headers: Mapping[str, str]) -> WebResponse | None:
        """The answer to a CORS preflight, which carries no credentials, without what ``headers`` adds to every
        answer; None if the request is not one. Raises HttpProblem 403.
        """
        if method != "OPTIONS" or "origin" not in headers or "access-control-request-method" not in headers:
            return None
        if not self.headers(headers):
            raise foreign(headers)
        requested_headers = headers.get("access-control-request-headers", "")
        more = (("Access-Control-Allow-Headers", requested_headers),) if requested_headers else ()
        methods = ("Access-Control-Allow-Methods", _METHODS)
        return WebResponse(204, (methods, *more, ("Access-Control-Max-Age", _REMEMBERED)))


def foreign(headers: Mapping[str, str]) -> HttpProblem:
    """The refusal of a page of another origin."""
    origin = headers.get("origin", "of another site")[:200]
    return HttpProblem(403, f"origin {origin} is not allowed (Ups.AllowedOrigins)")


def _authority(url: str) -> str:
    """Host and port, empty for an opaque origin (``null``); the scheme says nothing behind a proxy that ends TLS."""
    try:
        parts = urlsplit(url.lower())
    except ValueError:  # no address at all
        return url
    default = _DEFAULT_PORTS.get(parts.scheme, "")
    return parts.netloc.removesuffix(default) if default else parts.netloc
