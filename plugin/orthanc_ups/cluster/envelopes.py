# SPDX-License-Identifier: AGPL-3.0-or-later
"""Requests and answers on their way between nodes: a head in JSON, then the bytes as they came.

Nodes of two versions talk to each other while a cluster is upgraded: a field that one of them does not know is ignored,
and one that is missing has its default. DIMSE messages stay what they are on an association (PS3.8 Annex E).
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
from ..dicomweb.response import HttpProblem, WebResponse
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
    """A request of UPS-RS or the management API without its body; fields as those of WebRequest."""

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
    """An answer without its body; fields as those of WebResponse."""

    status: int
    headers: list[tuple[str, str]] = []
    content_type: str = ""
    reason: str = ""


class WorklistReply(msgspec.Struct, frozen=True):
    """What a worklist query of a modality finds; or which key cannot be used, or why it cannot be answered."""

    answers: list[dict[str, Any]] = []
    reason: str = ""
    unusable: str = ""
    refused: str = ""


class DimseHead(msgspec.Struct, frozen=True):
    """Whose message it is, and what was negotiated for its presentation context."""

    calling: str
    called: str
    address: str
    context: int
    abstract: str
    syntax: str
    mechanisms: int = 0


def enveloped(head: msgspec.Struct, body: bytes) -> bytes:
    """Head and body as they are sent."""
    encoded = msgspec.json.encode(head)
    return _LENGTH.pack(len(encoded)) + encoded + body


def opened(kind: type[_Head], content: bytes) -> tuple[_Head, bytes]:
    """Head and body as they were sent. Raises ValueError."""
    if len(content) < _LENGTH.size:
        raise ValueError("no head")
    (length,) = _LENGTH.unpack_from(content)
    end = _LENGTH.size + length
    return msgspec.json.decode(content[_LENGTH.size : end], type=kind), content[end:]


def _encodable(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value.encode("utf-8", "replace").decode() for name, value in headers.items()}


def of_request(request: WebRequest) -> bytes:
    """A request to which its caller was admitted."""
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
    """The same on the other side, marked as admitted. Raises ValueError, KeyError."""
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
    """An answer."""
    head = AnswerHead(response.status, list(response.headers), response.content_type, response.reason)
    return enveloped(head, response.body)


def to_answer(content: bytes) -> WebResponse:
    """The same on the other side. Raises ValueError."""
    head, body = opened(AnswerHead, content)
    return WebResponse(head.status, tuple(head.headers), body, head.content_type, head.reason)


def of_problem(problem: HttpProblem) -> bytes:
    """What HTTP itself refuses."""
    return of_answer(problem.response())


# --- DIMSE ---


def of_exchange(exchange: Exchange) -> bytes:
    """A DIMSE request, for which its sender was admitted."""
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
    """Command set and data set, as in the P-DATA-TF of an association."""
    return b"".join(fragments(message, _FRAGMENT))


def to_message(content: bytes, context: int, largest: int) -> Message:
    """The same on the other side. Raises ValueError."""
    messages = list(Assembler((context,), largest, MemoryBudget(largest)).feed(content))
    if len(messages) != 1:
        raise ValueError(f"{len(messages)} messages, expected one")
    return messages[0]


def context_of(head: DimseHead) -> Context:
    """The presentation context of a relayed request. Raises KeyError."""
    return Context(head.abstract, SYNTAXES[head.syntax], Mechanisms(head.mechanisms))


def framed(content: bytes) -> bytes:
    """One of several pieces in a stream."""
    return _LENGTH.pack(len(content)) + content


def length_of(prefix: bytes) -> int:
    """How long the piece behind this prefix is."""
    (length,) = _LENGTH.unpack(prefix)
    return int(length)


PREFIX: Final = _LENGTH.size


# --- the log of events ---


def of_events(events: Iterable[Event]) -> bytes:
    """Events as they are sent."""
    by_workitem = itertools.groupby(events, key=lambda event: event.uid)
    return b"".join(framed(encode_events(uid, some)) for uid, some in by_workitem)


def to_events(content: bytes) -> list[Event]:
    """The same on the other side. Raises UnreadableDocument, struct.error."""
    events: list[Event] = []
    position = 0
    while position < len(content):
        begin = position + PREFIX
        position = begin + length_of(content[position:begin])
        events += decode_events(content[begin:position])
    return events


def event_query(ae: str, query: str, service: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """What the leader has to know of a notification connection."""
    protocols = headers.get("sec-websocket-protocol", "")
    return {"ae": ae, "query": query, "service": service, "protocols": protocols}
