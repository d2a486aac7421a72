# SPDX-License-Identifier: AGPL-3.0-or-later
"""Bodies as they come in over HTTP: bounded in size, in time and all together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from aiohttp.web import BaseRequest
from aiohttp.web_protocol import RequestPayloadError

from .response import HttpProblem

_TOGETHER: Final = 16
"""So many bodies of the greatest size may be in memory at once."""


@dataclass(slots=True)
class _Taken:
    size: int = 0


class IncomingBodies:
    """Reads bodies."""

    def __init__(self, maximum_size: int, patience: float) -> None:
        """Prepare. ``patience`` is in seconds for a whole body."""
        self._maximum = maximum_size
        self._patience = patience
        self._held = 0

    @asynccontextmanager
    async def of(self, request: BaseRequest) -> AsyncIterator[bytes]:
        """The body as it was sent; it counts as held until the block is left.

        Raises:
            HttpProblem: 408, 413, 417, 503, or 400 if it breaks off.
        """
        if (request.content_length or 0) > self._maximum:
            raise self._too_large()
        await _invite(request)
        taken = _Taken()
        try:
            yield await self._read(request, taken)
        finally:
            self._held -= taken.size

    async def _read(self, request: BaseRequest, taken: _Taken) -> bytes:
        try:
            async with asyncio.timeout(self._patience):
                return await self._collected(request, taken)
        except TimeoutError:
            raise HttpProblem(408, f"the body did not arrive within {self._patience:g} s") from None
        except RequestPayloadError:
            raise HttpProblem(400, "the body is not what its headers announce") from None
        except ConnectionError:  # nobody will read this answer
            raise HttpProblem(400, "the connection was lost before the whole body came") from None

    async def _collected(self, request: BaseRequest, taken: _Taken) -> bytes:
        chunks: list[bytes] = []
        async for chunk in request.content.iter_any():
            taken.size += len(chunk)
            self._held += len(chunk)
            if taken.size > self._maximum:
                raise self._too_large()
            if self._held > _TOGETHER * self._maximum:
                raise HttpProblem(503, "too many large requests at once", (("Retry-After", "5"),))
            chunks.append(chunk)
        return b"".join(chunks)

    def _too_large(self) -> HttpProblem:
        return HttpProblem(413, f"the body is larger than {self._maximum} bytes (Ups.MaximumBodySize)")


async def _invite(request: BaseRequest) -> None:
    """Tell a client that waits for it to go on (RFC 9110 §10.1.1)."""
    expected = request.headers.get("Expect")
    if expected is None or request.version < (1, 1):
        return
    if expected.lower() != "100-continue":
        raise HttpProblem(417, f"Expect is {expected[:40]!r}, which is not understood")
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # it is no part of the answer
