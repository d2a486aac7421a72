# SPDX-License-Identifier: AGPL-3.0-or-later
"""Bodies of requests: receives them within limits on size, time and total memory, and reads the data set in them in any
media type and compression (PS3.18 §8.7, §11.1.4).
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from aiohttp.web import BaseRequest, RequestPayloadError

from ..codecs import dicom_json, dicom_xml
from ..codecs.corrections import Corrections
from ..codecs.dicom_xml import MalformedXml
from ..core.dataset import DataSet
from ..core.interned import Interned
from . import multipart
from .aiohttp_server import invite_body
from .media_types import DICOM_JSON, DICOM_XML, MULTIPART_XML, PLAIN_JSON, MediaType, parse
from .response import HttpProblem

_LARGE: Final = 32 * 1024  # bytes; beyond, a thread parses, so that the loop serves others meanwhile
THREADS: Final = 2  # at once, which bounds the memory that parsing takes
PATIENCE: Final = 15.0  # seconds
_TAKEN: Final = f"{DICOM_JSON}, {MULTIPART_XML} or {DICOM_XML}"
_GZIP: Final = 31
_TOGETHER: Final = 16
"""How many bodies of the greatest size may be in memory at once."""


# --- receiving --------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Received:
    size: int = 0


class BodyReceiver:
    """Receives bodies, within limits on size, time and memory."""

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
        await invite_body(request)
        received = _Received()
        try:
            yield await self._read(request, received)
        finally:
            self._held -= received.size

    async def _read(self, request: BaseRequest, received: _Received) -> bytes:
        try:
            async with asyncio.timeout(self._patience):
                return await self._collected(request, received)
        except TimeoutError:
            raise HttpProblem(408, f"the body did not arrive within {self._patience:g} s") from None
        except RequestPayloadError:
            raise HttpProblem(400, "the body does not match its headers") from None
        except ConnectionError:  # nobody will read this answer
            raise HttpProblem(400, "the connection was lost before the whole body arrived") from None

    async def _collected(self, request: BaseRequest, received: _Received) -> bytes:
        chunks: list[bytes] = []
        async for chunk in request.content.iter_any():
            received.size += len(chunk)
            self._held += len(chunk)
            if received.size > self._maximum:
                raise self._too_large()
            if self._held > _TOGETHER * self._maximum:
                raise HttpProblem(503, "too many large requests at once", (("Retry-After", "5"),))
            chunks.append(chunk)
        return b"".join(chunks)

    def _too_large(self) -> HttpProblem:
        return HttpProblem(413, f"the body is larger than {self._maximum} bytes (Ups.MaximumBodySize)")


# --- reading ----------------------------------------------------------------------------------------


class BodyReader:
    """Reads the data set in a body, within limits."""

    def __init__(self, maximum_size: int, maximum_nesting: int) -> None:
        self._size = maximum_size
        self._nesting = maximum_nesting
        self._threads = asyncio.Semaphore(THREADS)
        self._interned = Interned()

    async def data_set(
        self, headers: Mapping[str, str], body: bytes, corrections: Corrections | None = None
    ) -> DataSet | None:
        """The one data set in a body, or None if there is none.

        ``corrections`` collects what was corrected while reading; without it, nothing is corrected.

        Raises:
            HttpProblem: 400 malformed or several data sets, 413 too large, 415 not of a type we take,
                503 if many large ones wait already.
            UpsError: 0105 or 0106 with the path of the attribute.
        """
        if not body:
            return None
        if len(body) > self._size:
            raise HttpProblem(413, f"the body is larger than {self._size} bytes (Ups.MaximumBodySize)")
        compressed = headers.get("content-encoding", "").strip().lower()
        if len(body) <= _LARGE and not compressed:
            return self._read(headers.get("content-type", ""), body, compressed, corrections, self._interned)
        await self._turn()
        try:
            return await asyncio.to_thread(
                self._read, headers.get("content-type", ""), body, compressed, corrections
            )
        finally:
            self._threads.release()

    async def _turn(self) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                await self._threads.acquire()
        except TimeoutError:
            raise HttpProblem(503, "too many large bodies are being read", (("Retry-After", "5"),)) from None

    def _read(
        self,
        content_type: str,
        body: bytes,
        compressed: str,
        corrections: Corrections | None,
        interned: Interned | None = None,
    ) -> DataSet | None:
        if compressed not in ("", "identity"):
            body = _decompressed(body, compressed, self._size)
        media_type = _media_type(content_type)
        data_sets = self._data_sets(media_type, body, corrections, interned)
        if len(data_sets) > 1:
            raise HttpProblem(400, f"the body contains {len(data_sets)} data sets, expected one")
        return data_sets[0] if data_sets else None

    def _data_sets(
        self,
        media_type: MediaType,
        body: bytes,
        corrections: Corrections | None,
        interned: Interned | None = None,
    ) -> list[DataSet]:
        try:
            if media_type.name in (DICOM_JSON.name, PLAIN_JSON.name):
                return dicom_json.decode(body, self._nesting, corrections, interned)
            if media_type.name == DICOM_XML.name:
                return [dicom_xml.decode(body, self._nesting, corrections)]
            if media_type.name == MULTIPART_XML.name:
                return self._parts(media_type, body, corrections)
        except (dicom_json.MalformedJson, MalformedXml, multipart.MalformedMultipart) as error:
            raise HttpProblem(400, str(error)) from None
        raise HttpProblem(415, f"the body is {media_type.name}, expected {_TAKEN}")

    def _parts(self, media_type: MediaType, body: bytes, corrections: Corrections | None) -> list[DataSet]:
        default = media_type.parameters.get("type", "") or DICOM_XML.name
        data_sets: list[DataSet] = []
        for part in multipart.decode(body, media_type.parameters.get("boundary", "")):
            of_part = _media_type(part.content_type or default)
            if of_part.type == "multipart":
                raise HttpProblem(415, "a part of the body is itself multipart")
            data_sets += self._data_sets(of_part, part.content, corrections)
        return data_sets


def _media_type(content_type: str) -> MediaType:
    """The media type of a body; without Content-Type the default of the service."""
    if not content_type.strip():
        return DICOM_JSON
    media_type = parse(content_type)
    if media_type is None:
        raise HttpProblem(415, f"Content-Type {content_type[:100]!r} is not a media type, expected {_TAKEN}")
    charset = media_type.parameters.get("charset", "utf-8").lower()
    if charset not in ("utf-8", "utf8", "us-ascii") and media_type.subtype.endswith("json"):
        raise HttpProblem(415, f"the body has charset {charset[:40]}, expected UTF-8")
    return media_type


def _decompressed(body: bytes, coding: str, maximum: int) -> bytes:
    if coding not in ("gzip", "x-gzip"):
        raise HttpProblem(
            415, f"Content-Encoding {coding[:40]}, expected gzip", (("Accept-Encoding", "gzip"),)
        )
    reader = zlib.decompressobj(_GZIP)
    try:
        plain = reader.decompress(body, maximum + 1)
    except zlib.error:
        raise HttpProblem(400, "the body is not gzip, as its Content-Encoding says") from None
    if len(plain) > maximum:
        raise HttpProblem(
            413, f"the body is larger than {maximum} bytes when decompressed (Ups.MaximumBodySize)"
        )
    if not reader.eof or reader.unused_data:
        raise HttpProblem(400, "the gzip of the body is truncated or followed by other data")
    return plain
