# SPDX-License-Identifier: AGPL-3.0-or-later
"""From a node that stands by to the leader and back: what is passed on, what is asked again, who is believed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any, cast

import aiohttp
import pytest

from orthanc_ups.cluster import relay as relay_module
from orthanc_ups.cluster.envelopes import UPS_RS, of_request, to_answer, to_request
from orthanc_ups.cluster.inner_port import InnerPort, LeaderParts, offer
from orthanc_ups.cluster.lease import Holder
from orthanc_ups.cluster.relay import (
    AnswerLost,
    NoLeader,
    Relay,
    RelayedModalityWorklists,
    RelayedUpsRs,
)
from orthanc_ups.core import tags
from orthanc_ups.core.dataset import DataSet, element
from orthanc_ups.core.statuses import UpsError
from orthanc_ups.dicomweb.request import WebRequest
from orthanc_ups.dicomweb.resources import Resource, ResourceKind
from orthanc_ups.dicomweb.response import WebResponse
from orthanc_ups.modality.worklist import WorklistAnswers
from orthanc_ups.modality.worklist_query import UnusableKey
from orthanc_ups.orthanc.descriptors import Descriptors
from orthanc_ups.orthanc.refusal_log import RefusalLog
from orthanc_ups.settings import Settings
from tests.support.waiting import wait_until

REQUEST = WebRequest(
    "PUT",
    "/workitems/1.2/state",
    "a=b",
    {"content-type": "application/dicom+json", "x-odd": "\udcff"},
    b"\x00body",
    "http://proxy/dicom-web",
    "ws://proxy/dicom-web",
    "ris",
    Resource(ResourceKind.STATE, "1.2"),
    True,
)


class Leader:
    """A node that answers, and its row in the database."""

    def __init__(self, run: str, epoch: int) -> None:
        self.run, self.epoch = run, epoch
        self.requests: list[WebRequest] = []
        self.answer: Callable[[WebRequest], Awaitable[WebResponse]] = self._answered
        self.find: Any = None

    async def _answered(self, request: WebRequest) -> WebResponse:
        self.requests.append(request)
        return WebResponse(
            201, (("Location", "x"), ("Warning", "a"), ("Warning", "b")), b"\xff", "a/b", "why"
        )

    async def start(self) -> None:
        self.connections = Descriptors(1000).share()
        self.port = InnerPort(Settings(), "127.0.0.1", self.connections, RefusalLog())
        await self.port.start()
        self.holder = Holder(self.epoch, self.run, 0, offer(self.port, "127.0.0.1"))
        self.leads()

    def leads(self) -> None:
        nothing = cast("Any", None)
        parts = LeaderParts(
            lambda request: self.answer(request),
            nothing,
            nothing,
            nothing,
            nothing,
            lambda _: None,
            self.find,
            nothing,
        )
        self.port.serve(parts)


class Lease:
    """What the relay believes of who leads."""

    def __init__(self) -> None:
        self.holder = Holder()
        self.is_renewed = True


@contextlib.asynccontextmanager
async def relayed(*leaders: Leader) -> AsyncIterator[tuple[Relay, Lease]]:
    lease = Lease()
    relay = Relay(lambda: lease.holder, lambda: lease.is_renewed)
    for leader in leaders:
        await leader.start()
    if leaders:
        lease.holder = leaders[0].holder
    try:
        yield relay, lease
    finally:
        await relay.close()
        for leader in leaders:
            await leader.port.stop()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "PATIENCE", 0.3)
    monkeypatch.setattr(relay_module, "GRACE", 0.3)


def test_a_request_and_its_answer_go_through_as_they_are() -> None:
    async def run() -> None:
        leader = Leader("a", 1)
        async with relayed(leader) as (relay, _):
            answer = await RelayedUpsRs(relay).answer(REQUEST)
        assert answer == WebResponse(
            201, (("Location", "x"), ("Warning", "a"), ("Warning", "b")), b"\xff", "a/b", "why"
        )
        (request,) = leader.requests
        headers = {"content-type": "application/dicom+json", "x-odd": "?"}
        assert request == replace(REQUEST, headers=headers, admitted=True)

    asyncio.run(run())


def test_requests_one_after_the_other_share_a_connection() -> None:
    async def run() -> None:
        leader = Leader("a", 1)
        async with relayed(leader) as (relay, _):
            for _ in range(5):
                await relay.ask(UPS_RS, of_request(REQUEST), safe=False)
            async with relay.stream(UPS_RS, of_request(REQUEST), safe=False) as pieces:
                await pieces.end()
            assert len(leader.requests) == 6
            assert leader.connections.in_use == 1

    asyncio.run(run())


def test_an_answer_that_nobody_reads_to_its_end_cuts_its_connection() -> None:
    """So the leader notices a C-CANCEL, although it has more to send."""

    async def run() -> None:
        leader = Leader("a", 1)

        async def large(_: WebRequest) -> WebResponse:
            return WebResponse(200, (), bytes(16 << 20), "a/b", "why")

        leader.answer = large
        async with relayed(leader) as (relay, _):
            async with relay.stream(UPS_RS, of_request(REQUEST), safe=False):
                assert leader.connections.in_use == 1
            await asyncio.to_thread(
                wait_until, lambda: not leader.connections.in_use, "the connection is closed", 20
            )

    asyncio.run(run())


def test_only_code_of_ours_says_that_a_caller_was_admitted() -> None:
    assert not REQUEST.admitted and to_request(of_request(REQUEST)).admitted


def test_without_a_leader_a_request_is_refused_with_503_and_retry_after() -> None:
    async def run() -> None:
        async with relayed() as (relay, _):
            answer = await RelayedUpsRs(relay).answer(REQUEST)
        assert answer.status == 503 and answer.header("Retry-After") == "2"
        assert answer.reason == "no node leads the worklist now; try again soon"

    asyncio.run(run())


def test_a_caller_whose_connection_breaks_ends_their_notification_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is not opened again for nobody."""

    class Socket:
        closed = False

        async def close(self) -> None:
            self.closed = True

    async def run() -> None:
        leader, sockets = Leader("a", 1), list[Socket]()

        async def connected(*_: object, **__: object) -> Socket:
            sockets.append(Socket())
            return sockets[-1]

        async with relayed(leader) as (relay, _):
            monkeypatch.setattr(aiohttp.ClientSession, "ws_connect", connected)
            with pytest.raises(ConnectionResetError):
                async with relay.socket({}, ()):
                    raise ConnectionResetError
        assert [socket.closed for socket in sockets] == [True]

    asyncio.run(run())


def test_who_waited_long_enough_is_answered_if_the_worklist_was_opened_meanwhile() -> None:
    """Opening keeps the loop busy; the last attempt begins after that."""

    async def run() -> None:
        leader, looks = Leader("a", 1), itertools.count()

        def holder() -> Holder:
            if next(looks):
                return leader.holder
            time.sleep(relay_module.PATIENCE)
            return Holder()

        async with relayed(leader):
            relay = Relay(holder, lambda: True)
            assert (await RelayedUpsRs(relay).answer(REQUEST)).status == 201
            await relay.close()

    asyncio.run(run())


@contextlib.asynccontextmanager
async def busy(leader: Leader) -> AsyncIterator[Holder]:
    """The lease of a leader that is too busy to finish a handshake."""

    async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        yield replace(leader.holder, about={**leader.holder.about, "port": port})


def test_a_leader_that_is_busy_is_asked_for_longer_while_it_renews_its_lease(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay_module, "CONNECT_WITHIN", 0.1)

    async def run() -> None:
        leader = Leader("a", 1)
        async with relayed(leader) as (relay, lease), busy(leader) as holder:
            lease.holder = holder
            asking = asyncio.ensure_future(RelayedUpsRs(relay).answer(REQUEST))
            await asyncio.sleep(3 * relay_module.PATIENCE)
            assert not asking.done()
            lease.holder = leader.holder
            assert (await asking).status == 201
            assert len(leader.requests) == 1
            lease.holder, lease.is_renewed = holder, False
            assert (await RelayedUpsRs(relay).answer(REQUEST)).status == 503

    asyncio.run(run())


def test_a_request_waits_for_a_leader_that_is_still_opening() -> None:
    async def run() -> None:
        leader = Leader("a", 1)
        async with relayed(leader) as (relay, _):
            leader.port.serve(None)
            asking = asyncio.ensure_future(RelayedUpsRs(relay).answer(REQUEST))
            await asyncio.sleep(0.05)
            leader.leads()
            assert (await asking).status == 201

    asyncio.run(run())


def test_a_refusal_says_whether_no_node_leads_or_the_leader_cannot_answer_yet() -> None:
    async def run() -> None:
        leader = Leader("a", 1)
        async with relayed(leader) as (relay, lease):
            leader.port.serve(None)
            with pytest.raises(NoLeader, match="the node that leads the worklist is still opening it"):
                await relay.ask(UPS_RS, of_request(REQUEST), safe=True)
            with pytest.raises(NoLeader, match="the node that leads the worklist is still opening it"):
                async with relay.socket({}, ()):
                    pass
            lease.is_renewed = False
            with pytest.raises(NoLeader, match="no node leads the worklist now"):
                await relay.ask(UPS_RS, of_request(REQUEST), safe=True)
            await leader.port.stop()
            lease.is_renewed = True
            with pytest.raises(NoLeader, match="the node that leads the worklist cannot be reached"):
                await relay.ask(UPS_RS, of_request(REQUEST), safe=True)

    asyncio.run(run())


@pytest.mark.parametrize(("method", "status", "asked"), [("GET", 201, 1), ("PUT", 502, 0)])
def test_only_what_reads_is_asked_of_the_next_leader(method: str, status: int, asked: int) -> None:
    async def run() -> None:
        first, second = Leader("a", 1), Leader("b", 2)
        silent = asyncio.Event()

        async def silence(_: WebRequest) -> WebResponse:
            silent.set()
            await asyncio.sleep(60)
            raise AssertionError

        first.answer = silence
        async with relayed(first, second) as (relay, lease):
            asking = asyncio.ensure_future(RelayedUpsRs(relay).answer(replace(REQUEST, method=method)))
            await silent.wait()
            lease.holder = second.holder
            assert (await asking).status == status
        assert len(second.requests) == asked

    asyncio.run(run())


@pytest.mark.parametrize("field", ["secret", "fingerprint"])
def test_a_node_believes_only_what_the_database_names(field: str) -> None:
    async def run() -> None:
        leader = Leader("a", 1)
        async with relayed(leader) as (relay, lease):
            wrong = {**leader.holder.about, field: "00" * 32}
            lease.holder = replace(leader.holder, about=wrong)
            with pytest.raises((NoLeader, AnswerLost)):
                await relay.ask(UPS_RS, of_request(REQUEST), safe=False)
        assert leader.requests == []

    asyncio.run(run())


def test_what_cannot_be_read_is_no_answer() -> None:
    with pytest.raises(ValueError):
        to_answer(b"\x00")

    async def run() -> None:
        leader = Leader("a", 1)
        async with relayed(leader) as (relay, _):
            with pytest.raises(AnswerLost, match="400"):
                await relay.ask(UPS_RS, b"\x00\x00\x00\x05{}", safe=False)

    asyncio.run(run())


def test_worklist_queries_of_modalities_are_answered_by_the_leader() -> None:
    async def find(identifier: DataSet) -> WorklistAnswers:
        if not identifier:
            raise UnusableKey("no keys")
        return WorklistAnswers([identifier], "there are more")

    async def run() -> None:
        leader = Leader("a", 1)
        leader.find = find
        async with relayed(leader) as (relay, lease):
            worklists = RelayedModalityWorklists(relay)
            query: DataSet = {tags.PATIENT_NAME: element("PN", {"Alphabetic": "Müller"})}
            assert await worklists.find(query) == WorklistAnswers([query], "there are more")
            with pytest.raises(UnusableKey, match="no keys"):
                await worklists.find({})
            lease.holder = Holder()
            with pytest.raises(UpsError):
                await worklists.find(query)

    asyncio.run(run())
