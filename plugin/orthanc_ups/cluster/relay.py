# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a standby does: it checks the caller, relays the request to the leader, and returns the leader's answer.

Without a leader, a request waits for up to ``PATIENCE`` seconds and is then refused: 503 with Retry-After, or 0213. If
the leader renews its lease but does not accept a connection in time, the request waits for up to
``PATIENCE_WITH_LEADER``: either side may be busy reading a large worklist. If the leader ends while a request is under
way, a request that only reads is sent again. A request that may have changed something is not: its outcome is unknown,
as if a single Orthanc had been killed. The caller gets 502, or the association ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final, TypeVar, cast

import aiohttp
import msgspec
from aiohttp import WSMsgType
from aiohttp.web import BaseRequest, StreamResponse, WebSocketResponse

from ..core import statuses
from ..core.dataset import DataSet
from ..core.statuses import UpsError
from ..dicomweb.aiohttp_server import SERVER, is_handshake
from ..dicomweb.origins import Origins
from ..dicomweb.request import WebRequest
from ..dicomweb.response import HttpProblem, WebResponse
from ..dicomweb.rights import Rights
from ..dicomweb.websocket import LARGEST_MESSAGE, offered
from ..dimse.association import Gone
from ..dimse.message import STATUS, CommandField
from ..dimse.policy import Policy
from ..dimse.services import CANCELED, PENDING, Exchange, Services
from ..management.alerts import Alert
from ..management.permissions import RIGHTS
from ..management.routing import Admission, Call, Route, Router
from ..management.sentences import THIS_STANDS_BY, Sentence
from ..modality.performed_step_service import services_by
from ..modality.worklist import WorklistAnswers
from ..modality.worklist_query import UnusableKey
from ..orthanc.refusal_log import RefusalLog
from ..worklist.ports import WorklistPort
from . import envelopes
from .envelopes import (
    API,
    DIMSE,
    EVENTS,
    MODALITY_WORKLIST,
    NOT_LEADING,
    PREFIX,
    SECRET,
    UPS_RS,
    WorklistReply,
)
from .lease import Holder

_log = logging.getLogger("orthanc_ups.cluster")
PATIENCE: Final = 2.0
PATIENCE_WITH_LEADER: Final = 15.0
"""Seconds for a connection to a leader that renews its lease."""
GRACE: Final = 3.0
"""Seconds for the answer of a node that no longer leads."""
_POLL_EVERY: Final = 0.1
CONNECT_WITHIN: Final = 1.0
"""Seconds for one attempt to connect to the leader."""
_RESTARTING: Final = 1012
_ABNORMAL: Final = 1006
_SOON: Final = (("Retry-After", "2"),)
_SAFE: Final = ("GET", "HEAD", "OPTIONS")
_SAFE_FIELDS: Final = (CommandField.C_FIND, CommandField.N_GET)
_LARGEST: Final = 2**31
_T = TypeVar("_T")
_OPENING: Final = "the node that leads the worklist is still opening it"
_UNREACHABLE: Final = "the node that leads the worklist cannot be reached"
_ENDS: Final = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR)


class NoLeader(Exception):
    """No leader accepts requests now, and nothing was done. The text says why."""

    def __init__(self, reason: str = "no node leads the worklist now") -> None:
        super().__init__(reason)


class AnswerLost(Exception):
    """The leader ended before it answered; it is unknown whether the request was carried out."""


class Relay:
    """Connections to the leader."""

    def __init__(self, holder: Callable[[], Holder], is_renewed: Callable[[], bool]) -> None:
        """``holder`` returns the lease as last read; ``is_renewed``, whether its holder still renews it."""
        self._holder, self._is_renewed = holder, is_renewed
        self._session: aiohttp.ClientSession | None = None
        self._ends: dict[int, asyncio.Task[None]] = {}

    @property
    def leader(self) -> str:
        """The leader's name; "" if no node leads."""
        return str(self._holder().about.get("name", ""))

    async def close(self) -> None:
        """Close every connection."""
        for end in self._ends.values():
            end.cancel()
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=15, use_dns_cache=False),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_WITHIN),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                read_bufsize=2**20,
            )
        return self._session

    async def ask(self, path: str, content: bytes, *, safe: bool) -> bytes:
        """Send a request and return the whole answer. ``safe``: it may be sent twice. Raises NoLeader, AnswerLost."""
        async with self._answer(path, content, safe=safe, whole=True) as (answer, _):
            return await answer.read()

    @contextlib.asynccontextmanager
    async def stream(self, path: str, content: bytes, *, safe: bool) -> AsyncIterator[_Pieces]:
        """Send a request and yield its answer in pieces. ``safe`` as for ``ask``. Raises NoLeader, AnswerLost."""
        async with self._answer(path, content, safe=safe) as (answer, holder):
            yield _Pieces(answer.content, self, holder)

    @contextlib.asynccontextmanager
    async def _answer(
        self, path: str, content: bytes, *, safe: bool, whole: bool = False
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, Holder]]:
        answer, holder = await self._answered(path, content, safe=safe, whole=whole)
        try:
            yield answer, holder
        finally:
            answer.release() if answer.content.at_eof() else answer.close()

    async def _answered(
        self, path: str, content: bytes, *, safe: bool, whole: bool
    ) -> tuple[aiohttp.ClientResponse, Holder]:
        """Send the request until a leader answers it. ``whole``: read its answer, too."""
        start = _now()
        deadline = start + PATIENCE
        while True:
            attempt, holder, limit = _now(), self._holder(), deadline
            try:
                exchange = self._exchange(holder, path, content, whole=whole)
                return await self.while_it_leads(exchange, holder), holder
            except NoLeader as error:
                refusal = error
            except aiohttp.ConnectionTimeoutError:
                refusal = self._refusal(_UNREACHABLE)
                if self._is_renewed():
                    limit = start + PATIENCE_WITH_LEADER
            except AnswerLost:
                if not safe:
                    raise
                refusal = NoLeader()
                limit = deadline = _now() + PATIENCE
            # The last attempt begins after the limit: this node may have opened the worklist during the one before.
            if attempt >= limit:
                raise refusal
            await asyncio.sleep(_POLL_EVERY)

    def _refusal(self, reason: str) -> NoLeader:
        """A refusal with this reason, unless the lease may have expired."""
        return NoLeader(reason) if self._is_renewed() else NoLeader()

    async def while_it_leads(self, work: Coroutine[Any, Any, _T], holder: Holder) -> _T:
        """Wait for the leader. Raises AnswerLost ``GRACE`` seconds after it has stopped leading."""
        waiting = asyncio.ensure_future(work)
        patience = GRACE
        try:
            while True:
                await asyncio.wait((waiting,), timeout=_POLL_EVERY)
                if waiting.done():
                    return waiting.result()
                if self._holder().epoch != holder.epoch or not self._holder().run:
                    patience -= _POLL_EVERY
                if patience <= 0:
                    raise AnswerLost("it no longer leads")
        finally:
            if not waiting.done():
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)

    async def _exchange(
        self, holder: Holder, path: str, content: bytes, *, whole: bool
    ) -> aiohttp.ClientResponse:
        """Send the request once. Raises AnswerLost; with nothing done, NoLeader or aiohttp.ConnectionTimeoutError."""
        if not _has_port(holder):
            raise NoLeader
        try:
            answer = await self._client().post(
                _url(holder, path), data=content, headers=_secret(holder), ssl=_fingerprint(holder)
            )
            if answer.status == 503 and NOT_LEADING in answer.headers:
                answer.release()
                raise self._refusal(_OPENING)
            if answer.status != 200:
                raise AnswerLost(f"the leader answered {answer.status}")
            if whole:
                await answer.read()
            return answer
        except (aiohttp.ClientConnectorError, aiohttp.ServerFingerprintMismatch):
            raise self._refusal(_UNREACHABLE) from None
        except aiohttp.ConnectionTimeoutError:
            raise
        except (aiohttp.ClientError, OSError) as error:
            raise AnswerLost(str(error) or type(error).__name__) from error

    def end_of(self, holder: Holder) -> asyncio.Task[None]:
        """A task that ends when this leader no longer leads, even if it is suspended and its connections stay open."""
        end = self._ends.get(holder.epoch)
        if end is None or end.done():
            self._ends = {holder.epoch: asyncio.ensure_future(self._until_replaced(holder.epoch))}
        return self._ends[holder.epoch]

    async def _until_replaced(self, epoch: int) -> None:
        while True:
            holder = self._holder()
            if holder.epoch != epoch or not holder.run:
                return
            await asyncio.sleep(_POLL_EVERY)

    @contextlib.asynccontextmanager
    async def socket(
        self, query: Mapping[str, Any], protocols: Iterable[str]
    ) -> AsyncIterator[tuple[aiohttp.ClientWebSocketResponse, asyncio.Task[None]]]:
        """A WebSocket to the leader, and a task that ends when that no longer leads. Raises NoLeader."""
        socket, holder = await self._opened_socket(query, protocols)
        try:
            yield socket, self.end_of(holder)
        finally:
            await socket.close()

    async def _opened_socket(
        self, query: Mapping[str, Any], protocols: Iterable[str]
    ) -> tuple[aiohttp.ClientWebSocketResponse, Holder]:
        deadline = _now() + PATIENCE
        while True:
            attempt, holder, refusal = _now(), self._holder(), NoLeader()
            if _has_port(holder):
                try:
                    opening = self._connected(holder, query, protocols)
                    return await self.while_it_leads(opening, holder), holder
                except (aiohttp.ClientError, OSError, AnswerLost) as error:
                    is_opening = NOT_LEADING in (getattr(error, "headers", None) or ())
                    refusal = self._refusal(_OPENING if is_opening else _UNREACHABLE)
            if attempt >= deadline:
                raise refusal
            await asyncio.sleep(_POLL_EVERY)

    async def _connected(
        self, holder: Holder, query: Mapping[str, Any], protocols: Iterable[str]
    ) -> aiohttp.ClientWebSocketResponse:
        return await self._client().ws_connect(
            _url(holder, EVENTS), params=dict(query), headers=_secret(holder), ssl=_fingerprint(holder),
            protocols=tuple(protocols), autoping=False, max_msg_size=0, compress=0,
        )  # fmt: skip


def _now() -> float:
    return asyncio.get_running_loop().time()


def _has_port(holder: Holder) -> bool:
    return bool(holder.run and holder.about.get("port"))


def _url(holder: Holder, path: str) -> str:
    address = str(holder.about["address"])
    host = f"[{address}]" if ":" in address else address
    return f"https://{host}:{holder.about['port']}{path}"


def _secret(holder: Holder) -> dict[str, str]:
    return {SECRET: str(holder.about["secret"])}


def _fingerprint(holder: Holder) -> aiohttp.Fingerprint:
    return _to_fingerprint(str(holder.about["fingerprint"]))


@lru_cache(maxsize=4)
def _to_fingerprint(digest: str) -> aiohttp.Fingerprint:
    """The same object each time: aiohttp reuses a connection only for the object with which it was opened."""
    return aiohttp.Fingerprint(bytes.fromhex(digest))


def _http_problem(error: NoLeader | AnswerLost) -> HttpProblem:
    if isinstance(error, NoLeader):
        return HttpProblem(503, f"{error}; try again soon", _SOON)
    return HttpProblem(
        502,
        "the leader of the worklist ended before it answered: it is unknown whether the request was carried out",
    )


class RelayedUpsRs:
    """UPS-RS of a standby, behind the same checks of the caller as on the leader."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    async def answer(self, request: WebRequest) -> WebResponse:
        """The leader's answer."""
        try:
            content = await self._relay.ask(
                UPS_RS, envelopes.of_request(request), safe=request.method in _SAFE
            )
        except (NoLeader, AnswerLost) as error:
            return _http_problem(error).response()
        return envelopes.to_answer(content)


class RelayedApi(Router):
    """The management API of a standby, which checks the caller by its own Orthanc and settings."""

    def __init__(
        self, relay: Relay, ae_title: str, rights: Rights, origins: Origins, admission: Admission
    ) -> None:
        routes = [Route(key.split(" ")[0], key.split(" ")[1], _no_handler) for key in RIGHTS]
        super().__init__(routes, ae_title, rights, origins, admission)
        self._relay = relay

    async def handle(self, request: WebRequest) -> WebResponse:
        """The leader's answer, if the caller is admitted."""
        route, _ = await self.admit(request)
        try:
            content = await self._relay.ask(API, envelopes.of_request(request), safe=request.method == "GET")
        except (NoLeader, AnswerLost) as error:
            raise _http_problem(error) from None
        answer = envelopes.to_answer(content)
        is_overview = route.path == "/overview" and answer.status == 200
        return self._with_warning(answer) if is_overview else answer

    def _with_warning(self, answer: WebResponse) -> WebResponse:
        """The leader's overview, with a warning that this node is a standby."""
        overview = msgspec.json.decode(answer.body)
        standby = Sentence(THIS_STANDS_BY, {"leader": self._relay.leader})
        overview["warnings"].append(Alert(standby, "#/administration").described())
        return replace(answer, body=msgspec.json.encode(overview))


class RelayedModalityWorklists:
    """Modality worklist queries to a standby."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    async def find(self, identifier: DataSet) -> WorklistAnswers:
        """As ModalityWorklists.find. Raises UnusableKey, UpsError."""
        try:
            content = await self._relay.ask(MODALITY_WORKLIST, msgspec.json.encode(identifier), safe=True)
        except NoLeader as error:
            raise UpsError(statuses.RESOURCE_LIMITATION, str(error)) from None
        except AnswerLost:
            raise UpsError(
                statuses.RESOURCE_LIMITATION, "the leader of the worklist did not answer"
            ) from None
        reply = msgspec.json.decode(content, type=WorklistReply)
        if reply.unusable:
            raise UnusableKey(reply.unusable)
        if reply.refused:
            raise UpsError(statuses.RESOURCE_LIMITATION, reply.refused)
        return WorklistAnswers(cast("list[DataSet]", reply.answers), reply.reason)


async def _no_handler(call: Call) -> None:
    raise AssertionError("a relayed route has no handler")


class RelayedSessions:
    """Notification connections to a standby, which relays all frames unchanged, including pings and pongs."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    async def serve(
        self, request: BaseRequest, receiving_ae: str, query: str, service: str
    ) -> StreamResponse:
        """As WebSocketSessions.serve.

        Raises:
            HttpProblem: 400 if this is not a proper handshake, 503 if no leader accepts it.
        """
        protocols = offered(request)[:1]
        socket = WebSocketResponse(
            protocols=protocols, autoping=False, compress=False, max_msg_size=LARGEST_MESSAGE
        )
        socket.headers["Server"] = SERVER
        if not is_handshake(socket, request):
            raise HttpProblem(400, "a notification connection is opened by a WebSocket handshake (RFC 6455)")
        parameters = {"ae": receiving_ae, "query": query, "service": service}
        try:
            async with self._relay.socket(parameters, protocols) as (leader, end):
                await socket.prepare(request)
                await _relay_frames(socket, leader, end)
        except NoLeader as error:
            raise _http_problem(error) from None
        return socket


async def _relay_frames(
    socket: WebSocketResponse, leader: aiohttp.ClientWebSocketResponse, end: asyncio.Task[None]
) -> None:
    """Relay in both directions until either side closes, or the leader no longer leads."""
    directions = [
        asyncio.ensure_future(_copy_frames(leader, socket)),
        asyncio.ensure_future(_copy_frames(socket, leader)),
    ]
    try:
        await asyncio.wait((*directions, end), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for direction in directions:
            direction.cancel()
        await asyncio.gather(*directions, return_exceptions=True)
    code = (leader.close_code if leader.closed else None) or _RESTARTING
    with contextlib.suppress(ConnectionError):
        await socket.close(code=_RESTARTING if code == _ABNORMAL else code)


async def _copy_frames(
    source: WebSocketResponse | aiohttp.ClientWebSocketResponse,
    target: WebSocketResponse | aiohttp.ClientWebSocketResponse,
) -> None:
    with contextlib.suppress(ConnectionError):
        while True:
            message = await source.receive()
            if message.type is WSMsgType.TEXT:
                await target.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                await target.send_bytes(message.data)
            elif message.type is WSMsgType.PING:
                await target.ping(message.data)
            elif message.type is WSMsgType.PONG:
                await target.pong(message.data)
            elif message.type in _ENDS:
                return


class RelayedServices(Services):
    """DIMSE services of a standby, which answers only C-ECHO itself."""

    def __init__(
        self, relay: Relay, policy: Policy, refusals: RefusalLog, *, performed_steps: bool = False
    ) -> None:
        """``performed_steps``: whether MPPS is supported."""
        super().__init__(cast("WorklistPort", None), policy, lambda _: None, refusals)
        self._relay = relay
        self.further = services_by(self._relayed) if performed_steps else {}
        self._handlers = {
            field: self._echo if field is CommandField.C_ECHO else self._relayed for field in self._handlers
        }

    async def _relayed(self, exchange: Exchange) -> None:
        if exchange.message.oversized:
            await exchange.data_set()  # raises
        is_find = exchange.field == CommandField.C_FIND
        try:
            await self._relay_answers(exchange, safe=exchange.field in _SAFE_FIELDS)
        except NoLeader as error:
            status = statuses.OUT_OF_RESOURCES if is_find else statuses.RESOURCE_LIMITATION
            raise UpsError(status, str(error)) from None
        except AnswerLost as error:
            _log.warning(
                "The association of %s ends because the leader did not answer: %s", exchange.calling, error
            )
            raise Gone("the leader did not answer") from error

    async def _relay_answers(self, exchange: Exchange, *, safe: bool) -> None:
        content = envelopes.of_exchange(exchange)
        async with self._relay.stream(DIMSE, content, safe=safe) as pieces:
            while True:
                message = envelopes.to_message(await pieces.next(), exchange.message.context, _LARGEST)
                await exchange.send(message)
                if message.number(STATUS) not in PENDING:
                    await pieces.end()
                    return
                if exchange.is_canceled:
                    await exchange.end_of_matches(CANCELED)
                    return


class _Pieces:
    """The answer to a request, in pieces."""

    def __init__(self, content: aiohttp.StreamReader, relay: Relay, holder: Holder) -> None:
        self._content, self._relay, self._holder = content, relay, holder

    async def next(self) -> bytes:
        """The next piece. Raises AnswerLost if the answer ends before it."""
        return await self._relay.while_it_leads(self._next(), self._holder)

    async def end(self) -> None:
        """Read to the end of the answer, after its last piece, so that the connection can be reused."""
        with contextlib.suppress(aiohttp.ClientError, OSError, AnswerLost):
            await self._relay.while_it_leads(self._content.read(), self._holder)

    async def _next(self) -> bytes:
        try:
            prefix = await self._content.readexactly(PREFIX)
            return await self._content.readexactly(envelopes.length_of(prefix))
        except (asyncio.IncompleteReadError, aiohttp.ClientError, OSError) as error:
            raise AnswerLost("its answer broke off") from error
