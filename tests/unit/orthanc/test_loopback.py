# SPDX-License-Identifier: AGPL-3.0-or-later
"""The loopback with servers that refuse, vanish, stall or fail."""

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from orthanc_ups.orthanc.loopback import Loopback, Reply, own_url
from orthanc_ups.settings import OrthancSettings
from orthanc_ups.store import shelves
from orthanc_ups.store.metadata import OrthancEntries
from orthanc_ups.store.port import StoreUnavailable
from orthanc_ups.store.shelves import Value
from tests.support.ports import free_port

Answer = Callable[[str, bytes], bytes | None]


def http(status: int, body: bytes = b"", etag: str = "") -> bytes:
    headers = f'HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nETag: "{etag}"\r\n\r\n'
    return headers.encode() + body


class Server:
    """Answers what a test says; None closes the connection without a byte."""

    def __init__(self, answer: Answer, *, close_after_each: bool = False) -> None:
        self.answer = answer
        self.close_after_each = close_after_each
        self.requests: list[str] = []
        self.connections = 0
        self.most_at_once = 0
        self.at_once = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await self._one(reader, writer) and not self.close_after_each:
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.requests.append(head.split(" HTTP", 1)[0])
        lengths = [
            line.split(":")[1] for line in head.lower().splitlines() if line.startswith("content-length")
        ]
        body = await reader.readexactly(int(lengths[0]) if lengths else 0)
        await asyncio.sleep(0)
        answer = self.answer(head, body)
        self.at_once -= 1
        writer.write(answer or b"")
        return answer is not None


@asynccontextmanager
async def served(server: Server, **options: float) -> AsyncIterator[Loopback]:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    async with listening, Loopback(f"http://127.0.0.1:{port}", "Bearer it", **options) as loopback:  # type: ignore[arg-type]
        yield loopback


def run(test: Awaitable[None]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(test, 30)

    asyncio.run(bounded())


def test_a_reply_has_status_body_and_etag_and_the_token_was_sent() -> None:
    async def play() -> None:
        heads: list[str] = []

        def answer(head: str, body: bytes) -> bytes:
            heads.append(head)
            return http(200, body, "3-ab")

        server = Server(answer)
        async with served(server) as loopback:
            reply = await loopback.request("PUT", "/a/b?expand&numeric", b"body", {"If-Match": '"2-aa"'})
        assert reply == Reply(200, b"body", "3-ab")
        assert heads[0].startswith("PUT /a/b?expand&numeric HTTP/1.1\r\n")
        for header in ("Authorization: Bearer it", 'If-Match: "2-aa"', "Accept-Encoding: identity"):
            assert header in heads[0]

    run(play())


def test_a_refused_connection_surely_changed_nothing() -> None:
    async def play() -> None:
        async with Loopback(f"http://127.0.0.1:{free_port()}") as loopback:
            with pytest.raises(StoreUnavailable, match="cannot reach") as error:
                await loopback.request("PUT", "/x", b"")
            assert error.value.certain

    run(play())


def test_a_server_that_vanishes_after_the_request_leaves_doubt() -> None:
    async def play() -> None:
        async with served(Server(lambda *_: None)) as loopback:
            for method in ("PUT", "DELETE", "POST"):
                with pytest.raises(StoreUnavailable, match="no answer") as error:
                    await loopback.request(method, "/x", b"")
                assert not error.value.certain

    run(play())


def test_a_server_that_stalls_leaves_doubt() -> None:
    async def play() -> None:
        async with served(Server(lambda *_: b"HTTP/1.1 200 X\r\nContent-"), timeout=0.05) as loopback:
            with pytest.raises(StoreUnavailable) as error:
                await loopback.request("PUT", "/x", b"")
            assert not error.value.certain

    run(play())


def test_an_answer_that_breaks_off_leaves_doubt() -> None:
    async def play() -> None:
        server = Server(
            lambda *_: b"HTTP/1.1 200 X\r\nContent-Length: 10\r\n\r\nfive!", close_after_each=True
        )
        async with served(server) as loopback:
            with pytest.raises(StoreUnavailable) as error:
                await loopback.request("PUT", "/x", b"")
            assert not error.value.certain

    run(play())


def test_a_kept_connection_that_the_server_closed_is_replaced_quietly() -> None:
    async def play() -> None:
        server = Server(lambda *_: http(200), close_after_each=True)
        async with served(server, keep=30.0) as loopback:
            for _ in range(5):
                assert (await loopback.request("PUT", "/x", b"body")).status == 200
        assert server.requests == ["PUT /x"] * 5
        assert server.connections == 5

    run(play())


def test_connections_are_kept_and_bounded() -> None:
    async def play() -> None:
        server = Server(lambda *_: http(200))
        async with served(server, connections=3) as loopback:
            await asyncio.gather(*(loopback.request("GET", "/x") for _ in range(60)))
        assert server.connections <= 3
        assert server.most_at_once <= 3

    run(play())


def test_an_error_is_told_in_orthancs_words() -> None:
    body = b'{"Message": "Full storage", "Details": "no room", "HttpStatus": 507}'
    assert str(Reply(507, body)) == "507 Full storage: no room"
    assert str(Reply(502, b"<html>")) == "502"
    assert str(Reply(500, b"[]")) == "500"


@pytest.mark.parametrize("arrived", [False, True])
def test_after_a_server_error_the_entry_is_looked_at(arrived: bool) -> None:
    written = Value("workitem/key", 0, b"document").encoded()

    def answer(head: str, body: bytes) -> bytes:
        if head.startswith("PUT"):
            return http(500, b'{"Message": "Error with the database engine"}')
        return http(200, written, f"0-{shelves.md5(written)}") if arrived else http(404)

    async def play() -> None:
        async with served(Server(answer)) as loopback:
            with pytest.raises(StoreUnavailable, match="500 Error with the database engine") as error:
                await OrthancEntries(loopback).create("workitem/key", b"document")
            assert error.value.certain is not arrived

    run(play())


def test_a_refused_token_surely_changed_nothing() -> None:
    async def play() -> None:
        async with served(Server(lambda *_: http(401))) as loopback:
            with pytest.raises(StoreUnavailable, match="401") as error:
                await OrthancEntries(loopback).create("workitem/key", b"document")
            assert error.value.certain

    run(play())


def test_https_is_spoken_whatever_the_certificate_says(tmp_path: Path) -> None:
    """Orthanc's certificate is made for its name in the hospital, not for the loopback address."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=pacs.example",
    ]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def play() -> None:
        listening = await asyncio.start_server(
            Server(lambda *_: http(200, b"safe")).serve, "127.0.0.1", 0, ssl=context
        )
        port = listening.sockets[0].getsockname()[1]
        async with (
            listening,
            Loopback.of(OrthancSettings(http_port=port, http_tls=True), "Bearer it") as loopback,
        ):
            assert (await loopback.request("GET", "/x")).body == b"safe"

    run(play())


def test_only_this_host_is_trusted_with_the_token() -> None:
    for url in ("http://10.0.0.1:8042", "https://orthanc.example", "http://0.0.0.0:8042"):
        with pytest.raises(ValueError, match="not a loopback address"):
            Loopback(url, "Bearer it")


def test_the_own_url_follows_the_configuration() -> None:
    assert own_url(OrthancSettings(http_port=8050)) == "http://127.0.0.1:8050"
    assert own_url(OrthancSettings(http_tls=True)) == "https://127.0.0.1:8042"
    assert own_url(OrthancSettings(http_bind_addresses=("10.0.0.1", "::1"))) == "http://[::1]:8042"
    assert own_url(OrthancSettings(http_bind_addresses=("0.0.0.0",))) == "http://127.0.0.1:8042"
    with pytest.raises(ValueError, match=r'"HttpBindAddresses" is .* add "127.0.0.1"'):
        own_url(OrthancSettings(http_bind_addresses=("10.0.0.1",)))
    with pytest.raises(ValueError, match='"HttpServerEnabled" is false'):
        own_url(OrthancSettings(http_server_enabled=False))
