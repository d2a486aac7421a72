# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a node does that does not lead: it checks who calls, passes requests to the leader, and its answers back.

Without a leader a request waits for up to ``PATIENCE`` seconds, then it is refused: 503 with Retry-After, or 0213. A
leader that renews its lease, but to which no connection comes about in time, is asked for longer: either side may be
busy with reading a large worklist. What only reads is asked again if the leader ends meanwhile. What may have changed
something is not: its sender is told that nobody knows (502; on an association, its end), as they would be by a single
Orthanc that was killed.
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
"""The same while there is a leader that renews its lease."""
GRACE: Final = 3.0
"""Seconds for the answer of a former leader."""
_LOOK_EVERY: Final = 0.1
CONNECT_WITHIN: Final = 1.0
"""Seconds for a connection to the leader."""
_RESTARTING: Final = 1012
_ABNORMAL: Final = 1006
_SOON: Final = (("Retry-After", "2"),)
_SAFE: Final = ("GET", "HEAD", "OPTIONS")
_SAFE_FIELDS: Final = (CommandField.C_FIND, CommandField.N_GET)
_LARGEST: Final = 2**31
_T = TypeVar("_T")
_ENDS: Final = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR)


class NoLeader(Exception):
    """Nobody leads now; nothing was done."""


class AnswerLost(Exception):
    """The leader ended before it answered: nobody knows whether the request was carried out."""


class Relay:
    """Connections to the leader."""

    def __init__(self, holder: Callable[[], Holder], is_renewed: Callable[[], bool]) -> None:
        """``holder`` is the lease as it was last read; ``is_renewed`` says whether that was in time."""
        self._holder, self._is_renewed = holder, is_renewed
        self._session: aiohttp.ClientSession | None = None
        self._ends: dict[int, asyncio.Task[None]] = {}

    @property
    def leader(self) -> str:
        """Its name."""
        return str(self._holder().about.get("name", ""))

    async def close(self) -> None:
        """Close every connection."""
        for end in self._ends.values():
            end.cancel()
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _opened(self) -> aiohttp.ClientSession:
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
        """One request, one answer. ``safe``: it may be asked again. Raises NoLeader, AnswerLost."""
        async with self._question(path, content, safe=safe, whole=True) as (answer, _):
            return await answer.read()

    @contextlib.asynccontextmanager
    async def stream(self, path: str, content: bytes, *, safe: bool) -> AsyncIterator[_Pieces]:
        """One request, an answer in pieces. Raises NoLeader, AnswerLost."""
        async with self._question(path, content, safe=safe) as (answer, holder):
            yield _Pieces(answer.content, self, holder)

    @contextlib.asynccontextmanager
    async def _question(
        self, path: str, content: bytes, *, safe: bool, whole: bool = False
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, Holder]]:
        begun = _now()
        deadline = begun + PATIENCE
        while True:
            attempt, holder, is_slow = _now(), self._holder(), False
            if holder.run and holder.about.get("port"):
                try:
                    answer = await self._sent(holder, path, content, whole=whole)
                except AnswerLost:
                    if not safe:
                        raise
                    answer, deadline = None, _now() + PATIENCE
                except aiohttp.ConnectionTimeoutError:
                    answer, is_slow = None, self._is_renewed()
                if answer is not None:
                    try:
                        yield answer, holder
                    finally:
                        answer.close() if not answer.content.at_eof() else answer.release()
                    return
            # The last attempt begins after that time: this node may have opened the worklist during the one before.
            if attempt >= (begun + PATIENCE_WITH_LEADER if is_slow else deadline):
                raise NoLeader
            await asyncio.sleep(_LOOK_EVERY)

    async def _sent(
        self, holder: Holder, path: str, content: bytes, *, whole: bool
    ) -> aiohttp.ClientResponse | None:
        """An answer; None if the request surely was not carried out. Raises as ``_exchange``."""
        return await self.while_it_leads(self._exchange(holder, path, content, whole=whole), holder)

    async def while_it_leads(self, work: Coroutine[Any, Any, _T], holder: Holder) -> _T:
        """What the leader is waited for. Raises AnswerLost some seconds after it has ceased to lead."""
        waiting = asyncio.ensure_future(work)
        patience = GRACE
        try:
            while True:
                await asyncio.wait((waiting,), timeout=_LOOK_EVERY)
                if waiting.done():
                    return waiting.result()
                if self._holder().epoch != holder.epoch or not self._holder().run:
                    patience -= _LOOK_EVERY
                if patience <= 0:
                    raise AnswerLost("it no longer leads")
        finally:
            if not waiting.done():
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)

    async def _exchange(
        self, holder: Holder, path: str, content: bytes, *, whole: bool
    ) -> aiohttp.ClientResponse | None:
        """Raises AnswerLost; aiohttp.ConnectionTimeoutError, with nothing sent."""
        try:
            answer = await self._opened().post(
                _url(holder, path), data=content, headers=_secret(holder), ssl=_fingerprint(holder)
            )
            if answer.status == 503 and NOT_LEADING in answer.headers:
                answer.release()
                return None
            if answer.status != 200:
                raise AnswerLost(f"the leader answered {answer.status}")
            if whole:
                await answer.read()
            return answer
        except (aiohttp.ClientConnectorError, aiohttp.ServerFingerprintMismatch):
            return None
        except aiohttp.ConnectionTimeoutError:
            raise
        except (aiohttp.ClientError, OSError) as error:
            raise AnswerLost(str(error) or type(error).__name__) from error

    def end_of(self, holder: Holder) -> asyncio.Task[None]:
        """Ends when this leader leads no more, even if it is only paused and its connections are as they were."""
        end = self._ends.get(holder.epoch)
        if end is None or end.done():
            self._ends = {holder.epoch: asyncio.ensure_future(self._until_replaced(holder.epoch))}
        return self._ends[holder.epoch]

    async def _until_replaced(self, epoch: int) -> None:
        while True:
            holder = self._holder()
            if holder.epoch != epoch or not holder.run:
                return
            await asyncio.sleep(_LOOK_EVERY)

    @contextlib.asynccontextmanager
    async def socket(
        self, query: Mapping[str, Any], protocols: Iterable[str]
    ) -> AsyncIterator[tuple[aiohttp.ClientWebSocketResponse, asyncio.Task[None]]]:
        """A WebSocket to the leader, and what ends when that leads no more.

        Raises NoLeader, or HttpProblem as the leader refuses it.
        """
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
            attempt, holder = _now(), self._holder()
            if holder.run and holder.about.get("port"):
                with contextlib.suppress(aiohttp.ClientError, OSError, AnswerLost):
                    opening = self._connected(holder, query, protocols)
                    return await self.while_it_leads(opening, holder), holder
            if attempt >= deadline:
                raise NoLeader
            await asyncio.sleep(_LOOK_EVERY)

    async def _connected(
        self, holder: Holder, query: Mapping[str, Any], protocols: Iterable[str]
    ) -> aiohttp.ClientWebSocketResponse:
        return await self._opened().ws_connect(
            _url(holder, EVENTS), params=dict(query), headers=_secret(holder), ssl=_fingerprint(holder),
            protocols=tuple(protocols), autoping=False, max_msg_size=0, compress=0,
        )  # fmt: skip


def _now() -> float:
    return asyncio.get_running_loop().time()


def _url(holder: Holder, path: str) -> str:
    address = str(holder.about["address"])
    host = f"[{address}]" if ":" in address else address
    return f"https://{host}:{holder.about['port']}{path}"


def _secret(holder: Holder) -> dict[str, str]:
    return {SECRET: str(holder.about["secret"])}


def _fingerprint(holder: Holder) -> aiohttp.Fingerprint:
    return _checked(str(holder.about["fingerprint"]))


@lru_cache(maxsize=4)
def _checked(fingerprint: str) -> aiohttp.Fingerprint:
    """The same object each time: aiohttp uses a connection again only for the very object that it was opened with."""
    return aiohttp.Fingerprint(bytes.fromhex(fingerprint))


def no_leader() -> HttpProblem:
    """The answer to HTTP while nobody leads."""
    return HttpProblem(503, "no node leads the worklist now; try again soon", _SOON)


def answer_lost() -> HttpProblem:
    """The answer to HTTP when the leader ended meanwhile."""
    return HttpProblem(
        502,
        "the leader of the worklist ended before it answered: it is not known whether the request was done",
    )


class RelayedUpsRs:
    """UPS-RS of a node that does not lead, behind the same checks of who calls as on the leader."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    async def answer(self, request: WebRequest) -> WebResponse:
        """The leader's answer."""
        try:
            content = await self._relay.ask(
                UPS_RS, envelopes.of_request(request), safe=request.method in _SAFE
            )
        except NoLeader:
            return no_leader().response()
        except AnswerLost:
            return answer_lost().response()
        return envelopes.to_answer(content)


class RelayedApi(Router):
    """The management API of a node that does not lead: Orthanc and the rights are asked here."""

    def __init__(
        self, relay: Relay, ae_title: str, rights: Rights, origins: Origins, admission: Admission
    ) -> None:
        routes = [Route(key.split(" ")[0], key.split(" ")[1], _nobody) for key in RIGHTS]
        super().__init__(routes, ae_title, rights, origins, admission)
        self._relay = relay

    async def handled(self, request: WebRequest) -> WebResponse:
        """The leader's answer, if the caller is admitted."""
        route, _ = await self.admitted(request)
        try:
            content = await self._relay.ask(API, envelopes.of_request(request), safe=request.method == "GET")
        except NoLeader:
            raise no_leader() from None
        except AnswerLost:
            raise answer_lost() from None
        answer = envelopes.to_answer(content)
        is_overview = route.path == "/overview" and answer.status == 200
        return self._with_warning(answer) if is_overview else answer

    def _with_warning(self, answer: WebResponse) -> WebResponse:
        """The overview is that of the leader; who looks at it here is told."""
        overview = msgspec.json.decode(answer.body)
        standby = Sentence(THIS_STANDS_BY, {"leader": self._relay.leader})
        overview["warnings"].append(Alert(standby, "#/administration").described())
        return replace(answer, body=msgspec.json.encode(overview))


class RelayedModalityWorklists:
    """Worklist queries of modalities at a node that does not lead."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    async def find(self, identifier: DataSet) -> WorklistAnswers:
        """As ModalityWorklists. Raises UnusableKey, UpsError."""
        try:
            content = await self._relay.ask(MODALITY_WORKLIST, msgspec.json.encode(identifier), safe=True)
        except (NoLeader, AnswerLost):
            raise UpsError(statuses.RESOURCE_LIMITATION, "no node leads the worklist now") from None
        reply = msgspec.json.decode(content, type=WorklistReply)
        if reply.unusable:
            raise UnusableKey(reply.unusable)
        if reply.refused:
            raise UpsError(statuses.RESOURCE_LIMITATION, reply.refused)
        return WorklistAnswers(cast("list[DataSet]", reply.answers), reply.reason)


async def _nobody(call: Call) -> None:
    raise AssertionError("a relayed route has no handler")


class RelayedSessions:
    """Notification connections of a node that does not lead: frames go through as they are, pings and pongs too."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    async def serve(
        self, request: BaseRequest, receiving_ae: str, query: str, service: str
    ) -> StreamResponse:
        """As WebSocketSessions.

        Raises:
            HttpProblem: 400 for no handshake, 503 if nobody leads, or as the leader says.
        """
        protocols = offered(request)[:1]
        socket = WebSocketResponse(
            protocols=protocols, autoping=False, compress=False, max_msg_size=LARGEST_MESSAGE
        )
        socket.headers["Server"] = SERVER
        if not is_handshake(socket, request):
            raise HttpProblem(400, "a notification connection is opened by a WebSocket handshake (RFC 6455)")
        question = {"ae": receiving_ae, "query": query, "service": service}
        try:
            async with self._relay.socket(question, protocols) as (leader, end):
                await socket.prepare(request)
                await _joined(socket, leader, end)
        except NoLeader:
            raise no_leader() from None
        return socket


async def _joined(
    socket: WebSocketResponse, leader: aiohttp.ClientWebSocketResponse, end: asyncio.Task[None]
) -> None:
    """Pass on in both directions until either side ends, or the leader leads no more."""
    directions = [
        asyncio.ensure_future(_passed_on(leader, socket)),
        asyncio.ensure_future(_passed_on(socket, leader)),
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


async def _passed_on(
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
    """DIMSE services of a node that does not lead. C-ECHO is answered here."""

    def __init__(
        self, relay: Relay, policy: Policy, refusals: RefusalLog, *, performed_steps: bool = False
    ) -> None:
        """``performed_steps``: whether MPPS is served."""
        super().__init__(cast("WorklistPort", None), policy, lambda _: None, refusals)
        self._relay = relay
        self.further = services_by(self._passed) if performed_steps else {}
        self._handlers = {
            field: self._echo if field is CommandField.C_ECHO else self._passed for field in self._handlers
        }

    async def _passed(self, exchange: Exchange) -> None:
        if exchange.message.oversized:
            await exchange.data_set()  # raises
        is_find = exchange.field == CommandField.C_FIND
        try:
            await self._relayed(exchange, safe=exchange.field in _SAFE_FIELDS)
        except NoLeader:
            status = statuses.OUT_OF_RESOURCES if is_find else statuses.RESOURCE_LIMITATION
            raise UpsError(status, "no node leads the worklist now") from None
        except AnswerLost as error:
            _log.warning(
                "an association of %s ends, as the leader did not answer: %s", exchange.calling, error
            )
            raise Gone("the leader did not answer") from error

    async def _relayed(self, exchange: Exchange, *, safe: bool) -> None:
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
    """An answer that comes in pieces."""

    def __init__(self, content: aiohttp.StreamReader, relay: Relay, holder: Holder) -> None:
        self._content, self._relay, self._holder = content, relay, holder

    async def next(self) -> bytes:
        """The next piece. Raises AnswerLost if there is none."""
        return await self._relay.while_it_leads(self._next(), self._holder)

    async def end(self) -> None:
        """Wait for the end of the answer after its last piece, so that its connection can be used again."""
        with contextlib.suppress(aiohttp.ClientError, OSError, AnswerLost):
            await self._relay.while_it_leads(self._content.read(), self._holder)

    async def _next(self) -> bytes:
        try:
            prefix = await self._content.readexactly(PREFIX)
            return await self._content.readexactly(envelopes.length_of(prefix))
        except (asyncio.IncompleteReadError, aiohttp.ClientError, OSError) as error:
            raise AnswerLost("it ended within its answer") from error
