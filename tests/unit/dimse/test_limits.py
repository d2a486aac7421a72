# SPDX-License-Identifier: AGPL-3.0-or-later
"""Time, number and memory of associations are limited, and peers that reach a limit do not harm others."""

import asyncio
import logging
import resource
import socket
from collections.abc import Iterator

import pytest

from orthanc_ups.core import tags
from orthanc_ups.dimse import scp as dimse_scp
from orthanc_ups.dimse.data_sets import EXPLICIT, encode
from orthanc_ups.dimse.message import (
    STATUS,
    CommandField,
    Message,
    PduType,
    data_pdu,
    fragments,
)
from orthanc_ups.orthanc.descriptors import Share
from orthanc_ups.settings import Settings
from tests.support import raw_dimse, workitems
from tests.support.dimse_server import DimseRig
from tests.support.raw_dimse import REQUEST, VERIFICATION, Closed, RawPeer, crowd, fragment, rejection
from tests.support.waiting import wait_until

CREATE = raw_dimse.pdus(raw_dimse.operation(CommandField.N_CREATE), encode(workitems.minimal(), EXPLICIT))


def test_endless_data_sets_are_not_collected() -> None:
    with DimseRig(Settings(maximum_data_set_size=10_000)) as rig, RawPeer(rig.port, tags.PUSH) as peer:
        command, *_ = fragments(Message(1, raw_dimse.operation(CommandField.N_CREATE), b"12"), 16_384)
        more = data_pdu(fragment(b"\0" * 10_000, command=False, last=False))
        peer.send(data_pdu(command) + more * 20)
        assert peer.receive()[0] is PduType.ABORT


def test_many_large_data_sets_at_once_do_not_fill_the_memory() -> None:
    """Eight of the greatest size fit; the ninth is thrown away as it comes, and all is given back at the end."""
    maximum = 100_000
    with DimseRig(Settings(maximum_data_set_size=maximum)) as rig:
        command, *_ = fragments(Message(1, raw_dimse.operation(CommandField.N_CREATE), b"12"), 16_384)
        almost = data_pdu(command) + data_pdu(fragment(b"\0" * 10_000, command=False, last=False)) * 10
        last = data_pdu(fragment(b"", command=False, last=True))
        peers = [RawPeer(rig.port, tags.PUSH) for _ in range(8)]
        for peer in peers:
            peer.send(almost)
        wait_until(lambda: rig.server.memory.free == 0, "eight data sets are there")
        with RawPeer(rig.port, tags.PUSH) as ninth:
            ninth.send(almost + last)
            assert ninth.answer().number(STATUS) == 0x0213
            peers[0].send(last)
            assert peers[0].answer().number(STATUS) == 0x0110  # it is no data set, but it had its room
            ninth.send(CREATE)
            assert ninth.answer().number(STATUS) == 0
        for peer in peers:
            peer.socket.close()
        rig.wait_for_associations(0)
        assert rig.server.memory.free == 8 * maximum


def test_who_connects_and_asks_nothing_has_to_go() -> None:
    with DimseRig(Settings(association_handshake_timeout=0.1)) as rig, RawPeer(rig.port) as peer:
        peer.send(REQUEST[:50])
        with pytest.raises(Closed):
            peer.receive()


def test_an_idle_association_is_aborted() -> None:
    with DimseRig(Settings(association_idle_timeout=0.5)) as rig, RawPeer(rig.port, VERIFICATION) as peer:
        assert peer.echo() == 0
        assert peer.receive()[0] is PduType.ABORT
        rig.wait_for_associations(0)


def test_a_working_association_is_not_idle() -> None:
    async def slowly() -> None:
        await asyncio.sleep(0.8)

    with DimseRig(Settings(association_idle_timeout=0.5)) as rig, RawPeer(rig.port, tags.PUSH) as peer:
        rig.worklist.before_execute = slowly
        peer.send(CREATE)
        assert peer.answer().number(STATUS) == 0


@pytest.mark.parametrize("cut", [3, 20, len(CREATE) - 5])
def test_a_message_that_never_ends_is_aborted(cut: int) -> None:
    with DimseRig(Settings(dimse_timeout=0.2)) as rig, RawPeer(rig.port, tags.PUSH) as peer:
        peer.send(CREATE[:cut])
        if cut > 6:
            assert peer.receive()[0] is PduType.ABORT
            rig.wait_for_associations(0)
        else:  # no PDU has begun: the association is merely idle
            peer.send(CREATE[cut:])
            assert peer.answer().number(STATUS) == 0


def test_fragments_that_trickle_in_do_not_hold_an_association_for_ever() -> None:
    with DimseRig(Settings(dimse_timeout=0.05)) as rig, RawPeer(rig.port, VERIFICATION) as peer:
        trickle = data_pdu(fragment(b"\0", command=True, last=False))
        with pytest.raises((Closed, BrokenPipeError, ConnectionResetError)):
            for _ in range(1000):
                peer.send(trickle)
                peer.socket.settimeout(0.01)
                try:
                    peer.receive()
                except TimeoutError:
                    continue
        rig.wait_for_associations(0)


def test_a_peer_that_does_not_read_its_matches_is_let_go() -> None:
    with DimseRig(Settings(dimse_timeout=0.2)) as rig, RawPeer(rig.port, tags.PULL) as peer:
        answer = {tags.LABEL: {"vr": "LO", "Value": ["x" * 64]}}
        rig.worklist.chunks = [[answer] * 1000] * 200
        peer.post(raw_dimse.find(), encode({tags.LABEL: {"vr": "LO"}}, EXPLICIT))
        rig.wait_for_associations(0)
        wait_until(lambda: rig.worklist.streams_closed == 1, "the stream is closed", 20)


def test_ps3_8_9_3_4_beyond_the_limit_associations_are_rejected(caplog: pytest.LogCaptureFixture) -> None:
    with DimseRig(Settings(maximum_associations=2)) as rig:
        with RawPeer(rig.port, VERIFICATION) as first, RawPeer(rig.port, VERIFICATION) as second:
            with caplog.at_level(logging.WARNING, "orthanc_ups.refused"):
                assert [rejection(rig.port, REQUEST) for _ in range(9)] == [(2, 3, 2)] * 9
            assert len([record for record in caplog.records if record.name == "orthanc_ups.refused"]) == 5
            assert (first.echo(), second.echo()) == (0, 0)
            first.release()
            rig.wait_for_associations(1)
            third = RawPeer(rig.port, VERIFICATION)
            assert third.echo() == 0
            third.socket.close()
        rig.wait_for_associations(0)


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8192)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_thousand_associations_at_once_are_answered_and_bounded(
    many_files: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the thousand take to ask on a busy machine."""
    monkeypatch.setattr(dimse_scp, "CROWDED_HANDSHAKE", 60.0)
    with DimseRig(Settings(maximum_associations=20, association_handshake_timeout=60.0)) as rig:
        answers = asyncio.run(crowd(rig.port, 1000))
        assert answers.count(PduType.ASSOCIATE_AC) == 20
        assert answers.count(PduType.ASSOCIATE_RJ) == 980
        rig.wait_for_associations(0)
        rig.still_serves()


def test_silent_connections_keep_nobody_out(many_files: None) -> None:
    with DimseRig(Settings(maximum_associations=5)) as rig:
        silent = [socket.create_connection(("127.0.0.1", rig.port)) for _ in range(450)]
        with RawPeer(rig.port, VERIFICATION) as peer:
            assert peer.echo() == 0
        for connection in silent:
            connection.close()


def test_file_descriptors_beyond_1023_are_fine(many_files: None) -> None:
    with DimseRig() as rig:
        files = [socket.socket() for _ in range(1100)]
        try:
            with RawPeer(rig.port, VERIFICATION) as peer:
                assert peer.socket.fileno() > 1023
                assert peer.echo() == 0
        finally:
            for file in files:
                file.close()


def test_every_connection_has_no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    accepted: list[socket.socket] = []
    take = Share.take

    def noting(self: Share, connection: socket.socket) -> socket.socket | None:
        transport = take(self, connection)
        accepted.extend([transport] if transport else [])
        return transport

    monkeypatch.setattr(Share, "take", noting)
    with DimseRig() as rig, RawPeer(rig.port, VERIFICATION):
        rig.wait_for_associations(1)
        (connection,) = accepted
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_flood_of_connections_is_rejected_for_a_local_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the rejection is written before they have asked for anything."""
    monkeypatch.setattr(dimse_scp, "MORE_CONNECTIONS", 3)
    with DimseRig(Settings(maximum_associations=1)) as rig:
        waiting = [RawPeer(rig.port) for _ in range(4)]
        wait_until(lambda: rig.connections == 4, "four connections may stay")
        late = [RawPeer(rig.port) for _ in range(3)]
        for peer in late:
            assert peer.socket.recv(1, socket.MSG_PEEK), "the rejection is there"
            peer.send(REQUEST)
            kind, body = peer.receive()
            assert (kind, tuple(body[1:4])) == (PduType.ASSOCIATE_RJ, (2, 3, 2))
            peer.socket.close()
        wait_until(lambda: rig.connections == 4, "those that were turned away are let go")
        for peer in waiting:
            peer.socket.close()
        rig.still_serves()
