# SPDX-License-Identifier: AGPL-3.0-or-later
"""An answer as the UPS-RS handler returns it to every HTTP server."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import Any

import orjson

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class WebResponse:
    """One HTTP answer.

    Attributes:
        status: HTTP status.
        headers: names with values, in order; a name may occur more than once. Without Content-Type and -Length.
        body: the content, or empty.
        content_type: of the body; empty if there is none.
        reason: why the request was refused, for the log; empty if it was not.
        pieces: the content piece by piece, of one that is too large for memory; ``body`` is empty then.
    """

    status: int
    headers: Headers = ()
    body: bytes = b""
    content_type: str = ""
    reason: str = ""
    pieces: AsyncGenerator[bytes] | None = None

    def having(self, name: str, value: str) -> WebResponse:
        """The answer with one more header."""
        return replace(self, headers=(*self.headers, (name, value)))

    async def whole(self) -> WebResponse:
        """The answer with its pieces, if any, joined into one body."""
        if self.pieces is None:
            return self
        return replace(self, body=b"".join([piece async for piece in self.pieces]), pieces=None)

    def header(self, name: str) -> str | None:
        """The first value of a header, or None."""
        return next((value for field, value in self.headers if field.lower() == name.lower()), None)


class HttpProblem(Exception):
    """A request that HTTP itself refuses: syntax, media types, sizes, rights, load.

    Attributes:
        status: HTTP status.
        detail: what is wrong and what was expected.
        headers: for the answer.
    """

    def __init__(self, status: int, detail: str, headers: Headers = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers

    def response(self) -> WebResponse:
        """The answer with a Status Report as its body."""
        return report(self.status, {"Detail": self.detail}, self.headers)


def report(status: int, content: dict[str, Any], headers: Headers = ()) -> WebResponse:
    """An answer with a Status Report (PS3.18 §8.6.3.1) in JSON."""
    safe = encodable({key: value for key, value in content.items() if value})
    code = f" ({content['Status']})" if content.get("Status") else ""
    reason = f"{content.get('Detail', '')}{code}"
    body = orjson.dumps(safe, option=orjson.OPT_APPEND_NEWLINE)
    return WebResponse(status, headers, body, "application/json", reason)


def encodable(value: Any) -> Any:
    """The text without lone surrogates, which a client may have sent and which UTF-8 cannot encode."""
    if isinstance(value, list):
        return [encodable(item) for item in value]
    if isinstance(value, dict):
        return {key: encodable(item) for key, item in value.items()}
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
