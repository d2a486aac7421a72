# SPDX-License-Identifier: AGPL-3.0-or-later
"""The maximum PDU size of a peer is respected (PS3.8 §D.1), at no cost to others."""

import asyncio
import contextlib
from collections.abc import Iterator

import pytest

from orthanc_ups.core import tags
from orthanc_ups.dimse.association import Association, Terms, Wire
from orthanc_ups.dimse.data_sets import EXPLICIT, SYNTAXES, encode
from orthanc_ups.dimse.message import (
    ABORT_BY_USER,
    STATUS,
    Assembler,
    CommandField,
    MemoryBudget,
    Message,
    PduType,
    read_header,
)
from orthanc_ups.dimse.negotiation import Agreement, Context, request
from tests.support import raw_dimse
from tests.support.dimse_server import DimseRig
from tests.support.raw_dimse import VERIFICATION, RawPeer

LEAST = 128
LARGE = Message(1, raw_dimse.operation(CommandField.N_CREATE), b"\0" * 1_000_000)


@pytest.mark.parametrize("maximum", [1, 7, 8, LEAST - 1])
def test_a_peer_that_takes_tiny_pdus_only_is_rejected(
    rig: DimseRig, maximum: int, caplog: pytest.LogCaptureFixture
) -> None:
    with RawPeer(rig.port) as peer:
        peer.send(request("SCU", "ORTHANC", VERIFICATION, maximum))
        kind, body = peer.receive()
        assert (kind, tuple(body[1:4])) == (PduType.ASSOCIATE_RJ, (1, 2, 1))
    expected = f"maximum length of a PDU is {maximum} bytes, expected at least {LEAST}, or 0"
    assert f"association by SCU at 127.0.0.1 refused: {expected}" in caplog.text


@pytest.mark.parametrize("maximum", [0, LEAST, LEAST + 1, 4096, 65_535, 0xFFFFFFFF])
def test_every_peer_gets_pdus_and_even_fragments_of_its_size(rig: DimseRig, maximum: int) -> None:
    workitem = {tags.LABEL: {"vr": "UT", "Value": ["x" * 300_000]}}
    rig.worklist.workitems["1.2.3"] = workitem
    assembler = Assembler({1}, 1_000_000, MemoryBudget(1_000_000))
    with RawPeer(rig.port, tags.PUSH, max_pdu=maximum) as peer, RawPeer(rig.port, VERIFICATION) as bystander:
        peer.post(raw_dimse.operation(CommandField.N_GET))
        assert bystander.echo() == 0
        answers: list[Message] = []
        while not answers:
            kind, body = peer.receive()
            assert kind is PduType.DATA
            assert len(body) <= (maximum or 0xFFFFFFFF)
            assert len(body) % 2 == 0
            answers += assembler.feed(body)
    assert answers[0].number(STATUS) == 0
    assert answers[0].data == encode(workitem, EXPLICIT)


class Sink(Wire):
    """Takes what is sent; ``is_stuck`` makes it take no more."""

    def __init__(self, *, is_stuck: bool = False) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.begun = asyncio.Event()
        self._is_stuck = is_stuck

    def write(self, pdu: bytes) -> None:
        self.written.append(pdu)
        self.begun.set()

    @property
    def is_congested(self) -> bool:
        return self._is_stuck

    async def drain(self) -> None:
        if self._is_stuck:
            await asyncio.Event().wait()

    async def close(self, *, linger: bool = False) -> None:
        return


def association(sink: Sink) -> Association:
    agreement = Agreement({1: Context(tags.PUSH, SYNTAXES[EXPLICIT.uid])}, LEAST)
    return Association(
        sink, agreement, Terms(65_536, 1_000_000, 0.0, 60.0, MemoryBudget(0)), "SCU", "ORTHANC"
    )


def test_while_a_large_answer_goes_out_in_small_pdus_others_have_their_turn() -> None:
    """And little of it is in memory: each PDU of 128 bytes costs an object, and a million bytes need 8000."""

    async def scenario() -> tuple[list[bytes], int]:
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        sink = Sink()
        sending, waiting = association(sink), asyncio.create_task(others())
        await sending.send(LARGE)
        waiting.cancel()
        await sending.close()
        return sink.written, turns

    written, turns = asyncio.run(scenario())
    assert max(map(len, written)) < 70_000
    assert turns >= len(written) > 14
    (message,) = _messages(b"".join(written), Assembler({1}, 1_000_000, MemoryBudget(1_000_000)))
    assert message.data == LARGE.data


def _messages(pdus: bytes, assembler: Assembler) -> Iterator[Message]:
    offset = 0
    while offset < len(pdus):
        _, length = read_header(pdus[offset : offset + 6])
        yield from assembler.feed(pdus[offset + 6 : offset + 6 + length])
        offset += 6 + length


@pytest.mark.parametrize("how", ["canceled", "released"])
def test_nothing_but_an_abort_follows_half_a_message(how: str) -> None:
    async def scenario() -> list[bytes]:
        sink = Sink(is_stuck=True)
        broken_off = association(sink)
        sending = asyncio.create_task(broken_off.send(LARGE))
        await sink.begun.wait()
        if how == "released":
            await broken_off.release(0.0)
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sending
        assert not broken_off.is_open
        await broken_off.release(0.0)
        return sink.written

    first, *rest = asyncio.run(scenario())
    assert first[0] == PduType.DATA
    assert rest == [ABORT_BY_USER]
