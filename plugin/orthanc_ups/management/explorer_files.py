# SPDX-License-Identifier: AGPL-3.0-or-later
"""The files of the page: read once while the script loads, and served from memory with a content security policy."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from ..dicomweb.request import WebRequest
from ..dicomweb.response import HttpProblem, WebResponse

_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
    "json": "application/json",
}
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'self'",
    )
)
_HEADERS: Final = (
    ("Cache-Control", "no-cache"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "same-origin"),
    ("Content-Security-Policy", _POLICY),
)
_BUTTONS: Final = "orthanc-explorer.js"
_FROM_ROOT: Final = "../../ups/app/index.html"
"""Correct for ``/ups/app/`` below any prefix of a proxy. Orthanc drops the final slash, so this cannot depend on it."""


@cache
def explorer_files() -> dict[str, bytes]:
    """Every file of the page by its path below ``/ups/app``."""
    return dict(_below(files("orthanc_ups").joinpath("explorer"), ""))


def _below(folder: Traversable, above: str) -> list[tuple[str, bytes]]:
    served: list[tuple[str, bytes]] = []
    for entry in folder.iterdir():
        name = f"{above}{entry.name}"
        if entry.is_dir():
            served += _below(entry, f"{name}/")
        elif entry.name.rpartition(".")[2] in _TYPES:
            served.append((name, entry.read_bytes()))
    return served


def orthanc_explorer_buttons() -> str:
    """JavaScript for ``orthanc.ExtendOrthancExplorer``: the buttons of the legacy Orthanc Explorer."""
    return explorer_files().get(_BUTTONS, b"").decode()


def serve(request: WebRequest) -> WebResponse:
    """Answer a request, whose path is relative to ``/ups/app``. Never raises."""
    if request.method != "GET":
        return HttpProblem(405, "the page's files can only be read", (("Allow", "GET"),)).response()
    name = request.path.strip("/")
    if not name:
        return WebResponse(307, (("Location", _FROM_ROOT),))
    content = explorer_files().get(name)
    if content is None or name == _BUTTONS:
        return HttpProblem(404, "the page has no such file").response()
    return WebResponse(200, _HEADERS, content, _TYPES[name.rpartition(".")[2]])
