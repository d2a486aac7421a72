# SPDX-License-Identifier: AGPL-3.0-or-later
"""Webhooks against a real HTTP server on loopback."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from orthanc_ups.core.ae_titles import AeTitles
from orthanc_ups.core.events import Event, EventType
from orthanc_ups.delivery.port import Unreachable
from orthanc_ups.settings import Webhook
from orthanc_ups.webhook.channel import WebhookChannel, webhook_channels
from tests.support.certificates import self_signed
from tests.support.delivery import NOON, Bench, ClosingFence, VirtualClock, event, progress, restarted

BODY = '{"00741000":{"vr":"CS","Value":["Ä"]}}'.encode()


@dataclass
class Receiver:
    """A server that keeps what it gets and answers as told; the last status stays."""

    statuses: list[int] = field(default_factory=lambda: [204])
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""
    before_answer: Callable[[web.Request], Awaitable[None]] | None = None

    async def handle(self, request: web.Request) -> web.Response:
        self.requests.append(
            ({key.lower(): value for key, value in request.headers.items()}, await request.read())
        )
        if self.before_answer:
            await self.before_answer(request)
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return web.Response(status=status, headers={"location": "/elsewhere"} if status // 100 == 3 else None)

    def header(self, name: str) -> list[str | None]:
        return [headers.get(name) for headers, _ in self.requests]


@asynccontextmanager
async def serving(receiver: Receiver) -> AsyncIterator[Receiver]:
    app = web.Application()
    app.router.add_post("/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook?token=s3cret"
    try:
        yield receiver
    finally:
        await runner.cleanup()


@asynccontextmanager
async def hooked(
    receiver: Receiver | None = None, **settings: Any
) -> AsyncIterator[tuple[Receiver, WebhookChannel]]:
    """A running receiver and a channel to it."""
    async with serving(receiver or Receiver()) as running, aiohttp.ClientSession() as session:
        webhook = Webhook(**{"url": running.url, "aet": "RIS", "secret": "open sesame", **settings})
        yield running, WebhookChannel(webhook, webhook.aet, session, lambda _: BODY, VirtualClock())


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(scenario(), 30)

    asyncio.run(bounded())


def test_an_event_is_posted_with_what_a_receiver_needs() -> None:
    async def scenario() -> None:
        async with hooked() as (receiver, channel):
            assert channel.serves("RIS") and not channel.serves("OTHER")
            assert await channel.deliver("RIS", [event(17, "RIS")]) == 1
        ((headers, body),) = receiver.requests
        assert body == BODY
        assert headers["content-type"] == "application/dicom+json"
        assert headers["webhook-timestamp"] == str(int(NOON))
        expected = {"sequence": "17", "event-type": "1", "receiving-ae": "RIS", "attempt": "1"}
        assert {key: headers[f"ups-{key}"] for key in expected} == expected
        assert headers["user-agent"].startswith("orthanc-ups/")

    run(scenario)


@pytest.mark.parametrize(
    ("secret", "key"),
    [("open sesame", b"open sesame"), ("whsec_" + base64.b64encode(b"\x00\xffkey").decode(), b"\x00\xffkey")],
)
def test_the_signature_covers_id_timestamp_and_body(secret: str, key: bytes) -> None:
    async def scenario() -> None:
        async with hooked(secret=secret) as (receiver, channel):
            await channel.deliver("RIS", [event(1, "RIS")])
        ((headers, body),) = receiver.requests
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        digest = hmac.new(key, signed, hashlib.sha256).digest()
        assert headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()

    run(scenario)


def test_without_a_secret_there_is_no_signature() -> None:
    async def scenario() -> None:
        async with hooked(secret="") as (receiver, channel):
            await channel.deliver("RIS", [event(1, "RIS")])
        assert receiver.header("webhook-signature") == [None]

    run(scenario)


def test_a_secret_that_is_no_base64_is_an_error_that_does_not_show_it() -> None:
    async def scenario() -> None:
        with pytest.raises(ValueError, match="webhook of RIS") as caught:
            async with hooked(secret="whsec_not base64!"):
                pass
        assert "not base64!" not in str(caught.value)

    run(scenario)


def test_the_delivery_id_is_stable_across_attempts_and_differs_per_event_and_webhook() -> None:
    async def scenario() -> None:
        async with hooked(Receiver([500, 500, 204])) as (receiver, channel):
            for _ in range(2):
                with pytest.raises(Unreachable):
                    await channel.deliver("RIS", [event(1, "RIS")])
            await channel.deliver("RIS", [event(1, "RIS"), event(2, "RIS"), restarted(2, "RIS")])
            await channel.deliver("RIS", [restarted(2, "RIS", at=NOON + 1)])
            async with hooked() as (second, elsewhere):
                await elsewhere.deliver("RIS", [event(1, "RIS")])
        names = receiver.header("webhook-id")
        assert names[0] == names[1] == names[2]
        assert receiver.header("ups-attempt") == ["1", "2", "3", "1", "1", "1"]
        assert len({*names[2:], *second.header("webhook-id")}) == 5

    run(scenario)


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_every_2xx_is_success(status: int) -> None:
    async def scenario() -> None:
        async with hooked(Receiver([status])) as (_, channel):
            assert await channel.deliver("RIS", [event(1, "RIS"), event(2, "RIS")]) == 2

    run(scenario)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "it answered HTTP 400 Bad Request"),
        (401, "it answered HTTP 401 Unauthorized"),
        (410, "it answered HTTP 410 Gone"),
        (503, "it answered HTTP 503 Service Unavailable"),
        (599, "it answered HTTP 599"),
        (302, "it answered HTTP 302; redirects are not followed"),
        (307, "it answered HTTP 307; redirects are not followed"),
    ],
)
def test_everything_else_is_tried_again_and_says_why(status: int, words: str) -> None:
    async def scenario() -> None:
        async with hooked(Receiver([status])) as (receiver, channel):
            with pytest.raises(Unreachable) as caught:
                await channel.deliver("RIS", [event(1, "RIS")])
        assert str(caught.value) == words
        assert len(receiver.requests) == 1, "a redirect is not followed"

    run(scenario)


def test_what_was_accepted_before_a_failure_counts() -> None:
    async def scenario() -> None:
        async with hooked(Receiver([204, 204, 503])) as (receiver, channel):
            assert await channel.deliver("RIS", [event(number, "RIS") for number in range(1, 6)]) == 2
        assert receiver.header("ups-sequence") == ["1", "2", "3"]

    run(scenario)


def test_only_wanted_event_types_are_posted() -> None:
    async def scenario() -> None:
        async with hooked(event_types=(1, 5)) as (receiver, channel):
            assigned = event(3, "RIS", kind=EventType.ASSIGNED)
            assert await channel.deliver("RIS", [progress(1, "RIS"), event(2, "RIS"), assigned]) == 3
            assert await channel.deliver("RIS", [progress(4, "RIS")]) == 1
        assert receiver.header("ups-event-type") == ["1", "5"]

    run(scenario)


def test_a_receiver_that_does_not_answer_in_time() -> None:
    async def scenario() -> None:
        enough = asyncio.Event()

        async def hang(request: web.Request) -> None:
            await enough.wait()

        async with hooked(Receiver(before_answer=hang), timeout=0.1) as (_, channel):
            with pytest.raises(Unreachable, match=r"no answer within 0\.1 s"):
                await channel.deliver("RIS", [event(1, "RIS")])
            enough.set()

    run(scenario)


def test_a_receiver_that_hangs_up_or_is_not_there_or_speaks_nonsense() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.close()

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"\x00\x01 no HTTP at all\r\n\r\n")
        writer.close()

    async def why(handler: Callable[..., Awaitable[None]] | None, scheme: str = "http") -> str:
        server = await asyncio.start_server(handler or hang_up, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        if handler is None:
            server.close()
            await server.wait_closed()
        async with aiohttp.ClientSession() as session:
            webhook = Webhook(url=f"{scheme}://127.0.0.1:{port}/x?token=s3cret", aet="RIS")
            channel = WebhookChannel(webhook, webhook.aet, session, lambda _: BODY, VirtualClock())
            with pytest.raises(Unreachable) as caught:
                await channel.deliver("RIS", [event(1, "RIS")])
        server.close()
        await server.wait_closed()
        assert "s3cret" not in str(caught.value) + channel.name
        return str(caught.value)

    async def scenario() -> None:
        assert await why(hang_up) in (
            "it closed the connection without an answer",
            "the request failed (ClientOSError)",
        )
        assert (await why(babble)).startswith("the request failed")
        assert (await why(None)).startswith("cannot connect: ")
        assert (await why(babble, "https")).startswith("cannot connect: ")

    run(scenario)


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    files = self_signed(tmp_path, "hooks")

    async def scenario() -> None:
        receiver = Receiver()
        app = web.Application()
        app.router.add_post("/", receiver.handle)
        runner = web.AppRunner(app)
        await runner.setup()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(files.certificate, files.key)
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        async with aiohttp.ClientSession() as session:
            webhook = Webhook(url=f"https://127.0.0.1:{runner.addresses[0][1]}/", aet="RIS")
            channel = WebhookChannel(webhook, webhook.aet, session, lambda _: BODY, VirtualClock())
            with pytest.raises(Unreachable, match="certificate is not trusted"):
                await channel.deliver("RIS", [event(1, "RIS")])
        await runner.cleanup()
        assert receiver.requests == []

    run(scenario)


def test_an_answer_without_end_is_not_read_to_its_end() -> None:
    async def scenario() -> None:
        async def endless(request: web.Request) -> None:
            answer = web.StreamResponse(status=200)
            await answer.prepare(request)
            try:
                while True:
                    await answer.write(b"x" * 65_536)
            except OSError:
                pass

        async with hooked(Receiver(before_answer=endless), timeout=5.0) as (_, channel):
            assert await channel.deliver("RIS", [event(1, "RIS")]) == 1

    run(scenario)


def test_names_tell_webhooks_apart_and_last() -> None:
    async def scenario() -> None:
        async with aiohttp.ClientSession() as session:

            def names(*webhooks: Webhook) -> list[str]:
                channels = webhook_channels(webhooks, AeTitles(), session, lambda _: BODY, VirtualClock())
                return [channel.name for channel in channels]

            first = Webhook(url="https://hooks.example/a?token=s3cret", aet="RIS")
            second = Webhook(url="https://hooks.example/b", aet="RIS")
            third = Webhook(url=second.url, aet="PACS")
            assert len(set(names(first, second, third, first, first))) == 5
            assert names(first, second) == names(second, first)[::-1], "the order does not matter"
            assert all(name.startswith("webhook:hooks.example/") for name in names(first, second))

    run(scenario)


def test_through_delivery_everything_arrives_in_order_in_spite_of_failures() -> None:
    async def scenario() -> None:
        receiver = Receiver([204, 500, 204, 503, 302, 204])
        async with hooked(receiver) as (_, channel):
            bench = Bench(channel)
            everything = asyncio.Event()
            delivered: list[int] = []

            def note(_: object, event: Event, __: float) -> None:
                delivered.append(event.sequence)
                if len(delivered) == 20:
                    everything.set()

            bench.delivery.observe(note)
            bench.delivery.offer([event(number, "RIS") for number in range(1, 21)])
            while not everything.is_set():
                await bench.clock.advance(1.0)
                await asyncio.sleep(0.001)
            await bench.delivery.going_down(None)
        sequences = [int(header or 0) for header in receiver.header("ups-sequence")]
        assert list(dict.fromkeys(sequences)) == delivered == list(range(1, 21))
        assert len(sequences) == 23

    run(scenario)


def test_a_node_that_leads_no_more_posts_nothing() -> None:
    async def scenario() -> None:
        async with serving(Receiver()) as receiver, aiohttp.ClientSession() as session:
            webhook = Webhook(url=receiver.url, aet="RIS")
            fence = ClosingFence(1)
            channel = WebhookChannel(webhook, "RIS", session, lambda _: BODY, VirtualClock(), fence=fence)
            assert await channel.deliver("RIS", [event(1, "RIS"), event(2, "RIS")]) == 1
            with pytest.raises(Unreachable, match="no longer leads"):
                await channel.deliver("RIS", [event(2, "RIS")])
        assert len(receiver.requests) == 1

    run(scenario)
