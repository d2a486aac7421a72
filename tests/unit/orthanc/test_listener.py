# SPDX-License-Identifier: AGPL-3.0-or-later
"""A port stays open: without free file descriptors, beyond its share of them, and when its socket is lost."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import resource
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from orthanc_ups.orthanc import listener as listening
from orthanc_ups.orthanc.descriptors import SELECTABLE, Descriptors
from orthanc_ups.orthanc.listener import TcpListener, aborter
from tests.support.certificates import self_signed
from tests.support.ports import free_port

REFUSAL = b"full"


class Greeting(asyncio.Protocol):
    """Says its name to each client."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(b"hello")


async def greeted(port: int) -> bytes:
    """What a client reads first."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(60):
        text = await reader.read(100)
    writer.close()
    return text


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def run(
    work: Callable[[TcpListener], Awaitable[None]], descriptors: Descriptors | None = None, port: int = 0
) -> None:
    """Do the work with an open listener; port 0 is one that the system chooses."""

    async def served() -> None:
        share = (descriptors or Descriptors(4096)).share()
        listener = TcpListener("TEST", ("127.0.0.1", port), Greeting, share, refusal=REFUSAL)
        await listener.start()
        try:
            await work(listener)
        finally:
            await listener.close()
        assert not listener.is_open

    asyncio.run(served())


def test_who_connects_is_served() -> None:
    async def work(listener: TcpListener) -> None:
        assert listener.is_open
        assert await greeted(listener.port) == b"hello"

    run(work)


def test_beyond_the_share_clients_read_why_they_are_refused_and_later_all_is_as_before(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work(listener: TcpListener) -> None:
        port = listener.port
        first = [await asyncio.open_connection("127.0.0.1", port) for _ in range(12)]
        for reader, _ in first:
            assert await reader.read(5) == b"hello"
        assert [await greeted(port) for _ in range(5)] == [REFUSAL] * 5
        for _, writer in first:
            writer.close()
        async with asyncio.timeout(60):
            while await greeted(port) == REFUSAL:
                pass
        assert await greeted(port) == b"hello"

    with caplog.at_level(logging.WARNING):
        run(work, Descriptors(32))  # 16 for all ports, 12 for one
    assert len([message for message in caplog.messages if "too many connections" in message]) == 1


def test_no_port_takes_what_another_needs() -> None:
    descriptors = Descriptors(1024)
    first, second = descriptors.share(), descriptors.share()
    pairs: list[socket.socket] = []

    def taken(share: object) -> int:
        count = 0
        while True:
            mine, theirs = socket.socketpair()
            pairs.extend((mine, theirs))
            held = share.take(mine)  # type: ignore[attr-defined]
            if held is None:
                return count
            pairs.append(held)
            count += 1

    try:
        assert taken(first) == first.maximum < descriptors.capacity
        assert taken(second) == descriptors.capacity - first.maximum > 100
        assert descriptors.in_use == descriptors.capacity
    finally:
        for pair in pairs:
            pair.close()
    assert descriptors.in_use == 0


def test_an_accept_that_fails_is_tried_again_and_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """accept(2): EMFILE, the process has no free file descriptor."""
    monkeypatch.setattr(listening, "ACCEPT_AGAIN", 0.0)
    failures = iter([OSError(errno.EMFILE, "Too many open files")] * 50)
    accept = socket.socket.accept

    def failing(self: socket.socket) -> object:
        failure = next(failures, None)
        if failure is not None:
            raise failure
        return accept(self)

    async def work(listener: TcpListener) -> None:
        monkeypatch.setattr(socket.socket, "accept", failing)
        assert await greeted(listener.port) == b"hello"
        assert next(failures, None) is None, "all failures were met"

    with caplog.at_level(logging.WARNING):
        run(work)
    assert caplog.messages == [
        "TEST cannot accept connections now; trying again: [Errno 24] Too many open files"
    ]


def shut_from_outside(port: int) -> None:
    """Shut down the socket that listens on a port, as other code in the process may do by mistake."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(name))) as copy:
            if copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) and copy.getsockname()[1] == port:
                copy.shutdown(socket.SHUT_RDWR)


def test_a_port_that_is_lost_is_opened_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listening, "LOOK_EVERY", 0.01)

    port = free_port()

    async def work(listener: TcpListener) -> None:
        shut_from_outside(port)
        await eventually(lambda: not listener.is_open)
        await eventually(lambda: listener.is_open)
        assert listener.port == port
        assert await greeted(port) == b"hello"

    run(work, port=port)
    assert "the port of TEST was closed by something else; it is open again" in caplog.text


def test_connections_leave_the_descriptors_that_select_can_wait_for_to_others() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft <= SELECTABLE:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    mine, theirs = socket.socketpair()
    with mine, theirs:
        moved = Descriptors(4096).share().take(mine)
        assert moved is not None
        with moved:
            assert moved.fileno() >= SELECTABLE
            assert mine.fileno() == -1
            assert fcntl.fcntl(moved, fcntl.F_GETFD) & fcntl.FD_CLOEXEC, "no child process inherits it"
            theirs.send(b"x")
            assert moved.recv(1) == b"x"


@pytest.mark.parametrize(
    ("limits", "raised", "capacity"),
    [
        ((1024, 524_288), 1024 + 320 + 2612, 3636),
        ((1024, 2048), 2048, 1728),
        ((1024, 1024), 1024, 704),
        ((256, 256), 256, 128),
        ((65_536, 65_536), 65_536, 65_216),
    ],
)
def test_the_soft_limit_is_raised_as_far_as_our_own_connections_need(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], raised: int, capacity: int
) -> None:
    now = [limits]
    monkeypatch.setattr(resource, "getrlimit", lambda _: now[0])
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: now.__setitem__(0, limits))
    assert Descriptors.of_process(2612).capacity == capacity
    assert now[0] == (raised, limits[1])


class ClosedTwice(asyncio.Protocol):
    """Closes its connection twice, as aiohttp does, before it is to end at once."""

    def __init__(self) -> None:
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        abort = aborter(transport)
        transport.close()
        transport.close()
        abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(None)


def test_a_tls_connection_ends_at_once_though_it_was_closed_before(tmp_path: Path) -> None:
    """The peer never answers the end of TLS, for which asyncio would wait 30 s."""
    issued = self_signed(tmp_path, "listener")
    served, trusting = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    served.load_cert_chain(issued.certificate, issued.key)
    trusting.load_verify_locations(issued.certificate)

    async def served_and_closed() -> None:
        accepting = socket.create_server(("127.0.0.1", 0))
        with accepting, socket.create_connection(accepting.getsockname()) as silent:
            accepted, _ = accepting.accept()
            accepted.setblocking(False)
            loop = asyncio.get_running_loop()
            handshake = loop.run_in_executor(
                None, lambda: trusting.wrap_socket(silent, server_hostname="127.0.0.1")
            )
            _, protocol = await loop.connect_accepted_socket(ClosedTwice, accepted, ssl=served)
            with await handshake:
                async with asyncio.timeout(20):
                    await protocol.lost

    asyncio.run(served_and_closed())
