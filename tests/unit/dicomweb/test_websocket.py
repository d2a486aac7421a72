# SPDX-License-Identifier: AGPL-3.0-or-later
"""The WebSocket channel over transports that a test can read: confirmation, bounds, replay without gap or repeat."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest

from orthanc_ups.codecs import event_json
from orthanc_ups.core.dataset import element
from orthanc_ups.core.events import Event, EventType
from orthanc_ups.delivery.port import Unreachable
from orthanc_ups.dicomweb import websocket_frames as frames
from orthanc_ups.dicomweb.websocket_channel import WebSocketChannel
from orthanc_ups.dicomweb.websocket_connection import Connection
from orthanc_ups.settings import Settings
from tests.support.delivery import ClosingFence

PATIENCE = 0.2


def event(sequence: int, receivers: Sequence[str] = ("AI",)) -> Event:
    information = {"00404041": element("CS", "READY"), "00741000": element("CS", "SCHEDULED")}
    return Event(sequence, EventType.STATE_REPORT, f"1.2.{sequence}", information, tuple(receivers), 0.0)


def events(*sequences: int) -> list[Event]:
    return [event(sequence) for sequence in sequences]


async def settle() -> None:
    """Let everything run that can run without time passing."""
    for _ in range(60):
        await asyncio.sleep(0)


class Peer(asyncio.Transport):
    """The far end of a socket: reads frames, answers pings if it `answers`, takes nothing in if `stalled`."""

    def __init__(self, *, answers: bool = True, stalled: bool = False) -> None:
        super().__init__()
        self.answers = answers
        self.stalled = stalled
        self.waiting = 0
        self.sequences: list[int] = []
        self.pings: list[bytes] = []
        self.closed_with: tuple[int, str] | None = None
        self.closing = False
        self.connection: Connection
        self.channel: WebSocketChannel

    def write(self, data: Any) -> None:
        assert not self.closing
        content = bytes(data)
        self.waiting += len(content) if self.stalled else 0
        while content:
            opcode, payload, content = _taken(content)
            self._take(opcode, payload)

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == 0x1:
            self.sequences.append(int(json.loads(payload)[event_json.SEQUENCE_TAG]["Value"][0]))
        elif opcode == 0x9:
            self.pings.append(payload)
            if self.answers:
                asyncio.get_running_loop().call_soon(self.pong)
        elif opcode == 0x8:
            self.closed_with = struct.unpack("!H", payload[:2])[0], payload[2:].decode()

    def pong(self) -> None:
        if self.pings:
            self.connection.take_pong(self.pings[-1])

    def is_closing(self) -> bool:
        return self.closing

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def get_extra_info(self, name: str, default: Any = None) -> None:
        """There is no socket."""

    def abort(self) -> None:
        self.close()

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_soon(self.channel.forget, self.connection)


def _taken(content: bytes) -> tuple[int, bytes, bytes]:
    opcode, size, start = content[0] & 0x0F, content[1], 2
    assert content[0] & 0x80, "frames are whole"
    assert not size & 0x80, "a server does not mask"
    if size == 126:
        size, start = int.from_bytes(content[2:4]), 4
    elif size == 127:
        size, start = int.from_bytes(content[2:10]), 10
    return opcode, content[start : start + size], content[start + size :]


class Kept:
    """Events that can be replayed; `gate` holds a replay up before each part."""

    def __init__(self, *parts: list[Event]) -> None:
        self.parts = parts
        self.gate = asyncio.Event()
        self.gate.set()

    async def replay(self, receiving_ae: str, after_sequence: int) -> AsyncIterator[list[Event]]:
        for part in self.parts:
            await self.gate.wait()
            yield [event for event in part if event.sequence > after_sequence]


class Stage:
    """A channel with peers."""

    def __init__(self, queue: int = 100, patience: float = PATIENCE) -> None:
        self.channel = WebSocketChannel(
            Settings(web_socket_queue=queue, web_socket_ping=patience),
        )

    def connect(self, ae: str = "AI", *, replaying: bool = False, **more: Any) -> Peer:
        peer = Peer(**more)
        peer.channel = self.channel
        peer.connection = self.channel.open(ae, peer, replaying=replaying)
        return peer


def on_loop(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(asyncio.wait_for(_work(), 20))

    async def _work() -> None:
        await test()

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@on_loop
async def test_every_socket_of_an_ae_gets_every_event_in_order() -> None:
    stage = Stage()
    peers = [stage.connect() for _ in range(3)]
    stranger = stage.connect("OTHER")
    assert await stage.channel.deliver("AI", events(1, 2, 5)) == 3
    assert [peer.sequences for peer in peers] == [[1, 2, 5]] * 3
    assert stranger.sequences == []


@on_loop
async def test_nobody_is_unreachable() -> None:
    stage = Stage()
    assert not stage.channel.serves("AI")
    with pytest.raises(Unreachable, match="no WebSocket"):
        await stage.channel.deliver("AI", events(1))


@on_loop
async def test_delivery_waits_for_a_pong_of_one_socket() -> None:
    stage = Stage(patience=60)
    quiet, late = stage.connect(answers=False), stage.connect(answers=False)
    delivery = asyncio.ensure_future(stage.channel.deliver("AI", events(1)))
    await settle()
    assert not delivery.done()
    assert quiet.sequences == late.sequences == [1]
    (witness,) = [peer for peer in (quiet, late) if peer.pings]
    witness.connection.take_pong(b"of my own accord")
    witness.connection.take_pong((999).to_bytes(8))
    await settle()
    assert not delivery.done()
    witness.pong()
    assert await delivery == 1


@on_loop
async def test_socket_that_answers_takes_over_from_one_that_does_not() -> None:
    stage = Stage()
    silent, good = stage.connect(answers=False), stage.connect()
    assert await stage.channel.deliver("AI", events(1)) == 1
    assert good.sequences == silent.sequences == [1]


@on_loop
async def test_sockets_that_do_not_answer_are_cut_off_and_the_events_stay() -> None:
    stage = Stage()
    silent = [stage.connect(answers=False) for _ in range(2)]
    with pytest.raises(Unreachable, match="confirmed"):
        await stage.channel.deliver("AI", events(1))
    assert all(peer.closing for peer in silent)
    assert not stage.channel.serves("AI")
    assert list(stage.channel.connections()) == []


@on_loop
async def test_silent_sockets_are_pinged_and_dead_ones_cut_off() -> None:
    stage = Stage()
    alive, dead = stage.connect("ALIVE"), stage.connect("DEAD", answers=False)
    await asyncio.wait_for(dead.connection.gone.wait(), 5)
    assert alive.pings
    assert not alive.closing


@on_loop
async def test_slow_socket_is_cut_off_without_hurting_others() -> None:
    stage = Stage(queue=8, patience=60)
    slow, good = stage.connect(answers=False), stage.connect()
    for sequence in range(1, 40):
        assert await stage.channel.deliver("AI", events(sequence)) == 1
    assert slow.closing
    assert len(slow.sequences) <= 9
    assert good.sequences == list(range(1, 40))


@on_loop
async def test_socket_whose_peer_reads_nothing_is_cut_off_by_size() -> None:
    stage = Stage(queue=1_000_000, patience=60)
    full, good = stage.connect(stalled=True, answers=False), stage.connect()
    full.waiting = Settings().maximum_body_size
    assert await stage.channel.deliver("AI", events(1)) == 1
    assert full.closing
    assert good.sequences == [1]


@on_loop
async def test_batch_is_cut_to_what_a_socket_may_lag() -> None:
    stage = Stage(queue=8)
    peer = stage.connect()
    assert await stage.channel.deliver("AI", events(*range(1, 21))) == 2
    assert peer.sequences == [1, 2]
    assert not peer.closing


@on_loop
async def test_event_is_encoded_once_for_all_sockets() -> None:
    stage = Stage()
    encoded: list[int] = []
    original = event_json.encode

    def counting(encoded_event: Event) -> bytes:
        encoded.append(encoded_event.sequence)
        return original(encoded_event)

    event_json.encode = counting  # type: ignore[assignment]
    try:
        for ae in ("A", "B", "C"):
            stage.connect(ae)
            stage.connect(ae)
        report = event(7)
        for ae in ("A", "B", "C"):
            await stage.channel.deliver(ae, [report])
    finally:
        event_json.encode = original
    assert encoded == [7]


@on_loop
async def test_replay_comes_first_and_live_events_follow_without_gap_or_repeat() -> None:
    stage = Stage(patience=60)
    backlog = Kept(events(3, 4), events(5, 6, 7))
    backlog.gate.clear()
    peer = stage.connect(replaying=True)
    catching_up = asyncio.ensure_future(stage.channel.catch_up(peer.connection, 2, backlog.replay("AI", 2)))
    delivery = asyncio.ensure_future(stage.channel.deliver("AI", events(6, 7, 8)))
    await settle()
    assert peer.sequences == []
    assert not delivery.done()
    backlog.gate.set()
    assert await delivery == 3
    await catching_up
    assert (
        await stage.channel.deliver("AI", events(7, 8, 9)) == 3
    )  # a repeat by delivery is not ours to judge
    assert peer.sequences == [3, 4, 5, 6, 7, 8, 8, 9]


@on_loop
async def test_pong_of_a_replay_does_not_confirm_what_still_waits() -> None:
    stage = Stage(patience=60)
    backlog = Kept(events(1), events(2))
    peer = stage.connect(replaying=True, answers=False)
    catching_up = asyncio.ensure_future(stage.channel.catch_up(peer.connection, 0, backlog.replay("AI", 0)))
    await settle()
    delivery = asyncio.ensure_future(stage.channel.deliver("AI", events(3)))
    await settle()
    peer.pong()  # of the first part
    await settle()
    assert peer.sequences == [1, 2]
    assert not delivery.done()
    peer.pong()  # of the second
    await settle()
    assert peer.sequences == [1, 2, 3]
    assert not delivery.done()
    peer.pong()
    await settle()
    assert delivery.done()
    await catching_up


@on_loop
async def test_batch_in_flight_reaches_a_socket_that_opens_meanwhile() -> None:
    stage = Stage(patience=60)
    backlog = Kept(events(1, 2))  # what is in flight is neither settled nor waiting any more
    stage.connect(answers=False)
    delivery = asyncio.ensure_future(stage.channel.deliver("AI", events(3)))
    await settle()
    late = stage.connect(replaying=True)
    await stage.channel.catch_up(late.connection, 0, backlog.replay("AI", 0))
    assert await delivery == 1
    assert late.sequences == [1, 2, 3]


@on_loop
async def test_other_sockets_go_on_while_one_catches_up() -> None:
    stage = Stage(patience=60)
    backlog = Kept(events(1))
    backlog.gate.clear()
    live, behind = stage.connect(), stage.connect(replaying=True)
    catching_up = asyncio.ensure_future(stage.channel.catch_up(behind.connection, 0, backlog.replay("AI", 0)))
    for sequence in (2, 3):
        assert await stage.channel.deliver("AI", events(sequence)) == 1
    assert live.sequences == [2, 3]
    backlog.gate.set()
    await catching_up
    assert behind.sequences == [1, 2, 3]


@on_loop
async def test_long_replay_goes_at_the_pace_of_the_peer() -> None:
    stage = Stage(queue=8, patience=60)
    backlog = Kept(events(*range(1, 101)))
    peer = stage.connect(replaying=True, answers=False)
    catching_up = asyncio.ensure_future(stage.channel.catch_up(peer.connection, 0, backlog.replay("AI", 0)))
    await settle()
    assert peer.sequences == [1, 2]
    while not catching_up.done():
        peer.pong()
        await settle()
    assert peer.sequences == list(range(1, 101))


@on_loop
async def test_replay_ends_when_the_socket_does() -> None:
    stage = Stage()
    backlog = Kept(events(1, 2))
    peer = stage.connect(replaying=True, answers=False)
    await stage.channel.catch_up(peer.connection, 0, backlog.replay("AI", 0))
    assert peer.closing


@on_loop
async def test_closing_says_so_and_gives_up_what_is_in_flight() -> None:
    stage = Stage(patience=60)
    peers = [stage.connect(answers=False), stage.connect("OTHER")]
    delivery = asyncio.ensure_future(stage.channel.deliver("AI", events(1)))
    await settle()
    await stage.channel.close()
    with pytest.raises(Unreachable, match="shutting down"):
        await delivery
    assert {peer.closed_with for peer in peers} == {(frames.GOING_AWAY, "the server is shutting down")}
    assert not list(stage.channel.connections())


def test_frames_carry_payloads_of_every_size() -> None:
    for size in (0, 1, 125, 126, 65535, 65536):
        payload = b"x" * size
        assert _taken(frames.text(payload)) == (1, payload, b"")


def test_event_is_one_object_with_the_command_set_first() -> None:
    content = json.loads(event_json.encode(event(70_000)))
    assert list(content) == sorted(content)
    assert content["00000002"] == {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.34.6.1"]}
    assert content["00001000"] == {"vr": "UI", "Value": ["1.2.70000"]}
    assert content["00001002"] == {"vr": "US", "Value": [1]}
    assert content["00000110"] == {"vr": "US", "Value": [70_000 % 65535 + 1]}
    assert content["00741000"] == {"vr": "CS", "Value": ["SCHEDULED"]}
    assert content["00770010"] == {"vr": "LO", "Value": ["ORTHANC-UPS"]}
    assert content["00771001"] == {"vr": "LO", "Value": ["70000"]}


@on_loop
async def test_a_node_that_leads_no_more_writes_nothing() -> None:
    stage = Stage()
    stage.channel = WebSocketChannel(Settings(), ClosingFence(1))
    peer = stage.connect()
    assert await stage.channel.deliver("AI", events(1)) == 1
    with pytest.raises(Unreachable, match="no longer leads"):
        await stage.channel.deliver("AI", events(2))
    assert peer.sequences == [1]
