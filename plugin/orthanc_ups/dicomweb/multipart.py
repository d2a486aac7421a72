# SPDX-License-Identifier: AGPL-3.0-or-later
"""``multipart/related`` of one level (RFC 2046 §5.1, RFC 2387), all in memory."""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_MOST_PARTS: Final = 100
_HEADER_END: Final = re.compile(rb"\r?\n[ \t]*\r?\n")
_FOLDED: Final = re.compile(r"\r?\n[ \t]+")


class MalformedMultipart(ValueError):
    """The body is not a multipart body with the boundary that its Content-Type names."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part: its Content-Type (empty if it has none) and its content."""

    content_type: str
    content: bytes


def encode(contents: Iterable[bytes], content_type: str) -> tuple[bytes, str]:
    """Join parts of the same type; returns the body and its boundary."""
    boundary = secrets.token_hex(16)
    head = f"--{boundary}\r\nContent-Type: {content_type}\r\n\r\n".encode()
    parts = [head + content + b"\r\n" for content in contents]
    return b"".join((*parts, f"--{boundary}--\r\n".encode())), boundary


def decode(body: bytes, boundary: str) -> list[Part]:
    """The parts of a body. Raises MalformedMultipart."""
    if not 1 <= len(boundary) <= 70 or not boundary.isascii():
        raise MalformedMultipart("Content-Type has no boundary of 1 to 70 characters")
    delimiter = re.compile(rb"(?:\A|\r?\n)--" + re.escape(boundary.encode()) + rb"(--)?[ \t]*(?=\r?\n|\Z)")
    delimiters = list(delimiter.finditer(body))
    if not delimiters or not delimiters[-1][1]:
        raise MalformedMultipart("the body does not end with the boundary that Content-Type names")
    if len(delimiters) > _MOST_PARTS + 1:
        raise MalformedMultipart(f"the body has more than {_MOST_PARTS} parts")
    return [_part(body[start.end() : end.start()]) for start, end in itertools.pairwise(delimiters)]


def _part(text: bytes) -> Part:
    # The line end of the delimiter is still there, so that a part without headers begins with an empty line.
    end = _HEADER_END.search(text)
    if end is None:
        raise MalformedMultipart("a part has no empty line between its headers and its content")
    head = _FOLDED.sub(" ", text[: end.start()].decode("latin-1"))
    headers = dict(line.split(":", 1) for line in head.splitlines() if ":" in line)
    fields = {name.strip().lower(): value.strip() for name, value in headers.items()}
    if fields.get("content-transfer-encoding", "binary").lower() not in ("binary", "8bit", "7bit"):
        raise MalformedMultipart("a part has a Content-Transfer-Encoding; expected binary")
    return Part(fields.get("content-type", ""), text[end.end() :])
