# SPDX-License-Identifier: AGPL-3.0-or-later
"""The format of requests and answers between nodes: a head in JSON, then the body unchanged.

While a cluster is upgraded, nodes of two versions talk to each other: unknown fields are ignored, and missing ones have
their default. DIMSE messages are encoded as on an association (PS3.8 Annex E).
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from ..core.events import Event
from ..core.mechanisms import Mechanisms
from ..dicomweb.request import WebRequest
from ..dicomweb.resources import Resource, ResourceKind
from ..dicomweb.response import WebResponse
from ..dimse.data_sets import SYNTAXES
from ..dimse.message import Assembler, MemoryBudget, Message, fragments
from ..dimse.negotiation import Context
from ..dimse.services import Exchange
from ..store.documents import decode_events, encode_events

UPS_RS: Final = "/ups-rs"
API: Final = "/api"
DIMSE: Final = "/dimse"
SEEN: Final = "/seen"
EVENTS: Final = "/events"
MODALITY_WORKLIST: Final = "/mwl"
EVENT_LOG: Final = "/event-log"
SECRET: Final = "X-Ups-Secret"  # noqa: S105 - the name of a header
NOT_LEADING: Final = "X-Ups-Not-Leading"

_LENGTH: Final = struct.Struct(">L")
_FRAGMENT: Final = 1 << 20
_Head = TypeVar("_Head")


class WebHead(msgspec.Struct, frozen=True):
    """A request to UPS-RS or the management API, without its body. Fields as in WebRequest."""

    method: str
    path: str
    query: str = ""
    headers: dict[str, str] = {}
    service: str = ""
    web_socket_service: str = ""
    user: str | None = None
    kind: str = ""
    uid: str = ""
    ae: str = ""
    drops_queries: bool = False


class AnswerHead(msgspec.Struct, frozen=True):
    """A response without its body. Fields as in WebResponse."""

    status: int
    headers: list[tuple[str, str]] = []
    content_type: str = ""
    reason: str = ""


class WorklistReply(msgspec.Struct, frozen=True):
    """The answer to a modality worklist query.

    Attributes:
        answers: matching items, in DICOM JSON.
        reason: why there may be more matches; "" if there are not.
        unusable: which key cannot be used; "" if all can.
        refused: why the query is refused; "" if it is not.
    """

    answers: list[dict[str, Any]] = []
    reason: str = ""
    unusable: str = ""
    refused: str = ""


class DimseHead(msgspec.Struct, frozen=True):
    """The association of a DIMSE message, and its presentation context as negotiated."""

    calling: str
    called: str
    address: str
    context: int
    abstract: str
    syntax: str
    mechanisms: int = 0


def enveloped(head: msgspec.Struct, body: bytes) -> bytes:
    """Encode head and body."""
    encoded = msgspec.json.encode(head)
    return _LENGTH.pack(len(encoded)) + encoded + body


def opened(kind: type[_Head], content: bytes) -> tuple[_Head, bytes]:
    """Decode head and body. Raises ValueError."""
    if len(content) < _LENGTH.size:
        raise ValueError("no head")
    (length,) = _LENGTH.unpack_from(content)
    end = _LENGTH.size + length
    return msgspec.json.decode(content[_LENGTH.size : end], type=kind), content[end:]


def _encodable(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value.encode("utf-8", "replace").decode() for name, value in headers.items()}


def of_request(request: WebRequest) -> bytes:
    """Encode a request whose caller has been admitted."""
    resource = request.resource
    head = WebHead(
        request.method,
        request.path,
        request.query,
        _encodable(request.headers),
        request.service,
        request.web_socket_service,
        request.user,
        resource.kind.name if resource else "",
        resource.uid if resource else "",
        resource.ae if resource else "",
        request.drops_queries,
    )
    return enveloped(head, request.body)


def to_request(content: bytes) -> WebRequest:
    """Decode a request, marked as admitted. Raises ValueError, KeyError."""
    head, body = opened(WebHead, content)
    return WebRequest(
        method=head.method,
        path=head.path,
        query=head.query,
        headers=head.headers,
        body=body,
        service=head.service,
        web_socket_service=head.web_socket_service,
        user=head.user,
        resource=Resource(ResourceKind[head.kind], head.uid, head.ae) if head.kind else None,
        drops_queries=head.drops_queries,
        admitted=True,
    )


def of_answer(response: WebResponse) -> bytes:
    """Encode a response."""
    head = AnswerHead(response.status, list(response.headers), response.content_type, response.reason)
    return enveloped(head, response.body)


def to_answer(content: bytes) -> WebResponse:
    """Decode a response. Raises ValueError."""
    head, body = opened(AnswerHead, content)
    return WebResponse(head.status, tuple(head.headers), body, head.content_type, head.reason)


# --- DIMSE ---


def of_exchange(exchange: Exchange) -> bytes:
    """Encode a DIMSE request whose sender has been admitted."""
    context = exchange.context
    head = DimseHead(
        exchange.calling,
        exchange.called,
        exchange.address,
        exchange.message.context,
        context.abstract,
        context.syntax.uid,
        context.mechanisms.value,
    )
    return enveloped(head, of_message(exchange.message))


def of_message(message: Message) -> bytes:
    """Encode command set and data set, as in the P-DATA-TF PDUs of an association."""
    return b"".join(fragments(message, _FRAGMENT))


def to_message(content: bytes, context: int, largest: int) -> Message:
    """Decode a message of at most ``largest`` bytes. Raises ValueError."""
    messages = list(Assembler((context,), largest, MemoryBudget(largest)).feed(content))
    if len(messages) != 1:
        raise ValueError(f"{len(messages)} messages, expected one")
    return messages[0]


def context_of(head: DimseHead) -> Context:
    """The presentation context of a relayed request. Raises KeyError."""
    return Context(head.abstract, SYNTAXES[head.syntax], Mechanisms(head.mechanisms))


def framed(content: bytes) -> bytes:
    """Prefix a piece of a stream with its length."""
    return _LENGTH.pack(len(content)) + content


def length_of(prefix: bytes) -> int:
    """The length of the piece that follows this prefix, in bytes."""
    (length,) = _LENGTH.unpack(prefix)
    return int(length)


PREFIX: Final = _LENGTH.size


# --- the log of events ---


def of_events(events: Iterable[Event]) -> bytes:
    """Encode events, in order."""
    by_workitem = itertools.groupby(events, key=lambda event: event.uid)
    return b"".join(framed(encode_events(uid, group)) for uid, group in by_workitem)


def to_events(content: bytes) -> list[Event]:
    """Decode events. Raises UnreadableDocument, struct.error."""
    events: list[Event] = []
    position = 0
    while position < len(content):
        begin = position + PREFIX
        position = begin + length_of(content[position:begin])
        events += decode_events(content[begin:position])
    return events
