# SPDX-License-Identifier: AGPL-3.0-or-later
"""The memory that data sets of all associations share: all of it is returned, and unassociated peers get little."""

import asyncio
import socket
import struct
from collections.abc import Iterator

import pytest

from orthanc_ups.core import tags
from orthanc_ups.dimse.data_sets import EXPLICIT, encode
from orthanc_ups.dimse.message import (
    ABORT_BY_USER,
    HEADER_SIZE,
    RELEASE_RQ,
    STATUS,
    Assembler,
    CommandField,
    Message,
    data_pdu,
    fragments,
)
from orthanc_ups.settings import Settings
from tests.support import raw_dimse, workitems
from tests.support.dimse_server import DimseRig
from tests.support.raw_dimse import RawPeer, fragment
from tests.support.waiting import wait_until

MOST = 100_000
ALL = 8 * MOST

DATA = encode(workitems.minimal(), EXPLICIT)
COMMAND, *_REST = (
    data_pdu(part) for part in fragments(Message(1, raw_dimse.operation(CommandField.N_CREATE), DATA), 16_384)
)
CREATE = COMMAND + b"".join(_REST)
PART = data_pdu(fragment(b"\0" * 10_000, command=False, last=False))


@pytest.fixture
def rig() -> Iterator[DimseRig]:
    with DimseRig(Settings(maximum_data_set_size=MOST)) as running:
        yield running


def left(rig: DimseRig) -> int:
    return rig.server.memory.free


def wait_for_all_of_it(rig: DimseRig) -> None:
    rig.wait_for_associations(0)
    wait_until(lambda: left(rig) == ALL, lambda: f"{left(rig)} of {ALL} bytes are left")


def reset(peer: RawPeer) -> None:
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.socket.close()


def test_a_message_beyond_a_full_queue_returns_its_memory(rig: DimseRig) -> None:
    """Of three requests one is served, one waits, and the reader waits with the third, when the peer resets."""
    go_on = asyncio.Event()

    async def paused() -> None:
        await go_on.wait()

    rig.worklist.before_execute = paused
    peer = RawPeer(rig.port, tags.PUSH)
    peer.send(CREATE * 3)
    wait_until(lambda: left(rig) == ALL - 3 * len(DATA), "three data sets are there")
    reset(peer)
    wait_until(lambda: rig.connections == 0, "the reset is seen")
    rig.loop.loop.call_soon_threadsafe(go_on.set)
    wait_for_all_of_it(rig)


def test_a_cancel_with_a_data_set_returns_its_memory(rig: DimseRig) -> None:
    """C-CANCEL has none (PS3.7 §9.3.2.3), but what has one is read all the same."""
    with RawPeer(rig.port, tags.PUSH) as peer:
        peer.post(raw_dimse.cancel(), b"\0" * 1000)
        peer.send(CREATE)
        assert peer.answer().number(STATUS) == 0
    wait_for_all_of_it(rig)


@pytest.mark.parametrize(
    "raw",
    [
        COMMAND + PART,
        COMMAND + PART + ABORT_BY_USER,
        COMMAND + PART + RELEASE_RQ,
        COMMAND + PART + COMMAND,
        COMMAND + PART + data_pdu(fragment(b"", context=3, command=False, last=True)),
        COMMAND + PART + data_pdu(b"\0"),
        COMMAND + PART * 11,
        COMMAND + PART * 100,
        COMMAND + PART + data_pdu(fragment(b"\0", command=False, last=True)),
        CREATE * 5 + COMMAND + PART,
        CREATE * 5 + ABORT_BY_USER,
        CREATE * 5 + COMMAND + PART + b"\xff" * 6,
    ],
    ids=[
        "vanished", "aborted", "released", "mixed", "other context", "broken", "too large", "far too large",
        "no data set", "queued and vanished", "queued and aborted", "queued and broken",
    ],
)  # fmt: skip
def test_however_an_association_ends_all_memory_is_returned(rig: DimseRig, raw: bytes) -> None:
    with RawPeer(rig.port, tags.PUSH) as peer:
        peer.send(raw)
    wait_for_all_of_it(rig)


def test_peers_that_may_only_echo_take_no_memory_from_others(
    rig: DimseRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    feed = Assembler.feed

    def noting(self: Assembler, body: bytes) -> Iterator[Message]:
        yield from feed(self, body)
        read.append(len(body))

    monkeypatch.setattr(Assembler, "feed", noting)
    strangers = [RawPeer(rig.port, tags.PUSH, calling=f"STRANGER{number}") for number in range(8)]
    for stranger in strangers:
        stranger.send(COMMAND + PART * 10)
    sent = len(COMMAND) + 10 * len(PART) - 11 * HEADER_SIZE
    wait_until(lambda: sum(read) == 8 * sent, lambda: f"all of it is read: {sum(read)} of {8 * sent}")
    with RawPeer(rig.port, tags.PUSH) as acquainted:
        acquainted.send(CREATE)
        assert acquainted.answer().number(STATUS) == 0
    strangers[0].send(data_pdu(fragment(b"", command=False, last=True)))
    assert strangers[0].answer().number(STATUS) == 0x0124
    for stranger in strangers:
        reset(stranger)
    wait_for_all_of_it(rig)
    budget = rig.server.memory_of_unlisted
    wait_until(lambda: budget.free == MOST, lambda: f"{budget.free} bytes are left for strangers")
