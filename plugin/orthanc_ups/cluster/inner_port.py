# SPDX-License-Identifier: AGPL-3.0-or-later
"""The port for requests from other nodes: TLS, with a new certificate at each start.

The lease row has its fingerprint and a secret; whoever can read that row can write the worklist anyway. A standby
checks the fingerprint before it sends anything, and sends the secret with each request.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
import hmac
import logging
import secrets
import ssl
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
from aiohttp.web import BaseRequest, Response, StreamResponse
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ..core.dataset import DataSet
from ..core.events import Event
from ..core.statuses import UpsError
from ..dicomweb.aiohttp_server import FULL, LimitedServer, ServerLimits, as_aiohttp, connection_of
from ..dicomweb.request import WebRequest
from ..dicomweb.response import HttpProblem, WebResponse
from ..dicomweb.websocket import NotificationSessions
from ..dimse.data_sets import Codec
from ..dimse.message import Message, ProtocolError
from ..dimse.negotiation import Context
from ..dimse.services import Exchange, Services
from ..modality.worklist import WorklistAnswers
from ..modality.worklist_query import UnusableKey
from ..orthanc.descriptors import Share
from ..orthanc.listener import TcpListener
from ..orthanc.refusal_log import RefusalLog
from ..settings import Settings
from . import envelopes
from .envelopes import (
    API,
    DIMSE,
    EVENT_LOG,
    EVENTS,
    MODALITY_WORKLIST,
    NOT_LEADING,
    SECRET,
    SEEN,
    UPS_RS,
    DimseHead,
    WorklistReply,
)

_log = logging.getLogger("orthanc_ups.cluster")
_STOPPING: Final = 2.0
_IDLE: Final = 75.0
_HEADER: Final = 64 * 1024
_EVENTS_AT_ONCE: Final = 200
_HEAD_SIZE: Final = 1 << 20  # bytes of a relayed request in addition to its body

Answer = Callable[[WebRequest], Awaitable[WebResponse]]
Find = Callable[[DataSet], Awaitable[WorklistAnswers]]
EventLog = Callable[[int, int], Awaitable[list[Event]]]
"""Takes a sequence and a limit; returns the events after that sequence, in order, at most as many as the limit."""


@dataclass(frozen=True, slots=True)
class LeaderParts:
    """What answers relayed requests while this node leads."""

    ups_rs: Answer
    api: Answer
    sessions: NotificationSessions
    services: Services
    codec: Codec
    seen: Callable[[str], object]
    find: Find | None
    event_log: EventLog


class RelayedAssociation:
    """The association of a relayed DIMSE request. It sends answers as a stream to the node that has the association."""

    def __init__(
        self, head: DimseHead, context: Context, stream: StreamResponse, request: BaseRequest
    ) -> None:
        self.calling, self.called, self.address = head.calling, head.called, head.address
        self.contexts: Mapping[int, Context] = {head.context: context}
        self._stream, self._request = stream, request

    def is_canceled(self, message: Message) -> bool:
        """True if the other node has closed its connection, as it does on C-CANCEL."""
        transport = self._request.transport
        return transport is None or transport.is_closing()

    async def send(self, *messages: Message) -> None:
        """Send answers. Raises OSError if the connection is lost."""
        if not self._stream.prepared:
            await self._stream.prepare(self._request)
        for message in messages:
            await self._stream.write(envelopes.framed(envelopes.of_message(message)))


class InnerPort:
    """Listens for other nodes while the plugin runs; answers their requests while this node leads."""

    def __init__(self, settings: Settings, host: str, share: Share, refusals: RefusalLog) -> None:
        """``host``: the address to listen on; ``share``: this port's share of the file descriptors."""
        self._settings = settings
        self.secret = secrets.token_urlsafe(32)
        context, self.fingerprint = _identity()
        limits = ServerLimits(settings.maximum_connections, _HEADER, _IDLE)
        self._server = LimitedServer(self._answer, limits, refusals)
        address = host, settings.cluster.port
        self._listener = TcpListener("other nodes", address, self._server, share, refusal=FULL, tls=context)
        self._parts: LeaderParts | None = None
        self._largest = max(settings.maximum_body_size * 4, settings.maximum_data_set_size) + _HEAD_SIZE

    @property
    def port(self) -> int:
        """The TCP port."""
        return self._listener.port

    async def start(self) -> None:
        """Start to listen. Raises OSError if the port cannot be opened."""
        await self._listener.start()

    def serve(self, parts: LeaderParts | None) -> None:
        """Answer relayed requests with these parts; None: this node does not lead."""
        self._parts = parts

    async def stop(self) -> None:
        """Accept no more requests; give those under way two seconds."""
        await self._listener.close()
        connections = list(self._server.connections)
        for connection in connections:
            connection.close()
        await asyncio.gather(*(connection.shutdown(_STOPPING) for connection in connections))

    async def _answer(self, request: BaseRequest) -> StreamResponse:
        secret = request.headers.get(SECRET, "").encode("utf-8", "replace")
        if not hmac.compare_digest(secret, self.secret.encode()):
            return Response(status=403)
        parts = self._parts
        if parts is None:
            return Response(status=503, headers={NOT_LEADING: "1"})
        try:
            if request.path == EVENTS:
                return await self._events(request, parts)
            body = await self._body(request)
            if request.path == DIMSE:
                return await self._dimse(request, parts, body)
            if request.path == MODALITY_WORKLIST:
                return Response(body=msgspec.json.encode(await _worklist_reply(parts.find, body)))
            if request.path == EVENT_LOG:
                return Response(body=envelopes.of_events(await parts.event_log(int(body), _EVENTS_AT_ONCE)))
            if request.path == SEEN:
                parts.seen(body.decode())
                return Response()
            answered = await {UPS_RS: parts.ups_rs, API: parts.api}[request.path](envelopes.to_request(body))
            return Response(body=envelopes.of_answer(await answered.whole()))
        except (KeyError, ValueError, ProtocolError) as error:
            _log.warning("Cannot read a message from another node, whose version may differ too much from this one: %s",
                         error)  # fmt: skip
            return Response(status=400)

    async def _body(self, request: BaseRequest) -> bytes:
        body = bytearray()
        async for part in request.content.iter_any():
            body += part
            if len(body) > self._largest:
                raise ValueError("too long")
        return bytes(body)

    async def _events(self, request: BaseRequest, parts: LeaderParts) -> StreamResponse:
        query = request.query
        connection = connection_of(request)
        connection.is_web_socket = True
        try:
            return await parts.sessions.serve(request, query["ae"], query["query"], query["service"])
        except HttpProblem as problem:
            return as_aiohttp(problem.response())
        finally:
            connection.is_web_socket = False

    async def _dimse(self, request: BaseRequest, parts: LeaderParts, body: bytes) -> StreamResponse:
        head, encoded = envelopes.opened(DimseHead, body)
        context = envelopes.context_of(head)
        message = envelopes.to_message(encoded, head.context, self._settings.maximum_data_set_size)
        stream = StreamResponse()
        association = RelayedAssociation(head, context, stream, request)
        with contextlib.suppress(OSError):  # the other node has closed the connection
            await parts.services.serve(Exchange(association, message, parts.codec))
            await stream.write_eof()
        return stream


async def _worklist_reply(find: Find | None, query: bytes) -> WorklistReply:
    if find is None:
        return WorklistReply(refused="ModalityWorklist is not enabled on the leader")
    try:
        answers = await find(msgspec.json.decode(query))
    except UnusableKey as error:
        return WorklistReply(unusable=str(error))
    except UpsError as error:
        return WorklistReply(refused=error.detail)
    return WorklistReply(list(answers.answers), answers.reason)


def _identity() -> tuple[ssl.SSLContext, str]:
    """A TLS context with a new key pair, and the SHA-256 of its certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "orthanc-ups node")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Clocks may differ, and only the fingerprint is checked.
        .not_valid_before(now - datetime.timedelta(days=3650))
        .not_valid_after(now + datetime.timedelta(days=3650))
        .sign(key, hashes.SHA256())
    )
    encoded = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "node.pem"
        file.touch(0o600)
        file.write_bytes(encoded)
        context.load_cert_chain(file)
    digest = hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()
    return context, digest


def offer(port: InnerPort, address: str) -> dict[str, Any]:
    """What the lease row says about how to reach this node."""
    return {
        "address": address,
        "port": port.port,
        "fingerprint": port.fingerprint,
        "secret": port.secret,
    }
