# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which media type an answer gets (RFC 9110 §12.5.1, PS3.18 §8.7.4)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

_PIECE: Final = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*")+')
_PARAMETER: Final = re.compile(r';\s*([^\s=;,"]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;,"]*))')
_RANGE: Final = re.compile(r"\s*([^\s/;,]+)\s*/\s*([^\s;,]+)\s*")
_SHORT: Final = 256  # characters of a header that is worth remembering
_Q: Final = re.compile(r"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")


@dataclass(frozen=True, slots=True, eq=False)
class MediaType:
    """A media type, or a range of them: ``type/subtype`` in lower case with its parameters."""

    type: str
    subtype: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """``type/subtype``."""
        return f"{self.type}/{self.subtype}"

    def __str__(self) -> str:
        return self.name + "".join(f'; {key}="{value}"' for key, value in self.parameters.items())


DICOM_JSON: Final = MediaType("application", "dicom+json")
PLAIN_JSON: Final = MediaType("application", "json")
DICOM_XML: Final = MediaType("application", "dicom+xml")
MULTIPART_XML: Final = MediaType("multipart", "related", {"type": DICOM_XML.name})
WADL: Final = MediaType("application", "vnd.sun.wadl+xml")
PLAIN_XML: Final = MediaType("application", "xml")


def parse(text: str) -> MediaType | None:
    """Read one media type, or a range, with its parameters (names in lower case); None if it is not valid."""
    match = _RANGE.match(text)
    if match is None:
        return None
    parameters = {
        name.lower(): re.sub(r"\\(.)", r"\1", quoted) if quoted else plain.strip()
        for name, quoted, plain in _PARAMETER.findall(text, match.end())
    }
    return MediaType(match[1].lower(), match[2].lower(), parameters)


def choose(accept: str | None, offered: tuple[MediaType, ...]) -> MediaType | None:
    """The offer that the client prefers, the first among equals; None if it accepts none of them.

    ``accept`` is the value of the header; None or blank accepts all. The most specific range that fits an offer
    decides its quality, and quality 0 excludes it.
    """
    if accept is None or not accept.strip():
        return offered[0]
    return (_chosen if len(accept) <= _SHORT else _choose)(accept, offered)


def _choose(accept: str, offered: tuple[MediaType, ...]) -> MediaType | None:
    ranges = list(_ranges(accept))
    best = max(offered, key=lambda offer: _quality(offer, ranges))
    return best if _quality(best, ranges) > 0 else None


_chosen = lru_cache(512)(_choose)  # clients say the same again and again


def _ranges(accept: str) -> Iterator[tuple[MediaType, float]]:
    for piece in _PIECE.findall(accept):
        media_range = parse(piece)
        if media_range is not None:
            quality = media_range.parameters.get("q", "1")
            yield media_range, float(quality) if _Q.fullmatch(quality) else 0.0


def _quality(offer: MediaType, ranges: list[tuple[MediaType, float]]) -> float:
    fitting = [
        (specific, quality) for media_range, quality in ranges if (specific := _fit(media_range, offer))
    ]
    return max(fitting, key=lambda fit: fit[0])[1] if fitting else 0.0


def _fit(accepted: MediaType, offer: MediaType) -> int:
    """0 if the range does not fit the offer, else the higher the more specific it is."""
    if accepted.name == "*/*":
        return 1
    if accepted.type != offer.type or accepted.subtype not in ("*", offer.subtype):
        return 0
    kind = accepted.parameters.get("type", "").lower()
    if kind and kind != offer.parameters.get("type", ""):
        return 0
    return 2 if accepted.subtype == "*" else 4 if kind else 3


def accepts_gzip(accept_encoding: str | None) -> bool:
    """True if an Accept-Encoding header allows gzip by name or by ``*`` (RFC 9110 §12.5.3)."""
    if not accept_encoding:
        return False
    return (_gzip_allowed if len(accept_encoding) <= _SHORT else _allows_gzip)(accept_encoding)


def _allows_gzip(accept_encoding: str) -> bool:
    qualities = {}
    for piece in accept_encoding.lower().split(","):
        coding, _, weight = piece.partition(";")
        quality = weight.strip().removeprefix("q=").strip() or "1"
        qualities[coding.strip()] = bool(_Q.fullmatch(quality)) and float(quality) > 0
    return qualities.get("gzip", qualities.get("*", False))


_gzip_allowed = lru_cache(512)(_allows_gzip)


def accepts_utf_8(charsets: str | None) -> bool:
    """True unless an ``Accept-Charset`` list excludes UTF-8."""
    if not charsets or not charsets.strip():
        return True
    listed = [piece.partition(";") for piece in charsets.lower().split(",")]
    return any(
        name.strip() in ("utf-8", "utf8", "*") and weight.replace(" ", "") not in ("q=0", "q=0.0")
        for name, _, weight in listed
    )
