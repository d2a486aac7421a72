# SPDX-License-Identifier: AGPL-3.0-or-later
"""Associations: negotiation, how they end, and that nothing a peer sends harms others (PS3.8 §9.2)."""

import asyncio
import socket
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orthanc_ups.core import tags
from orthanc_ups.dimse.data_sets import EXPLICIT, encode
from orthanc_ups.dimse.message import (
    ABORT_BY_USER,
    RELEASE_RQ,
    STATUS,
    CommandField,
    Message,
    PduType,
    fragments,
)
from orthanc_ups.dimse.negotiation import request
from tests.support import raw_dimse, workitems
from tests.support.dimse_client import UpsClient
from tests.support.dimse_server import DimseRig
from tests.support.examples import examples
from tests.support.raw_dimse import REQUEST, VERIFICATION, Closed, RawPeer, fragment, rejection
from tests.support.upper_layer import pdu
from tests.support.waiting import wait_until

ECHO = raw_dimse.pdus(raw_dimse.echo())


CREATE = raw_dimse.pdus(raw_dimse.operation(CommandField.N_CREATE), encode(workitems.minimal(), EXPLICIT))


def aborted(rig: DimseRig, raw: bytes, abstract: str | None = None) -> tuple[int, int]:
    """Source and reason of the A-ABORT that the bytes provoke; the connection is closed in good order."""
    with RawPeer(rig.port, abstract) as peer:
        peer.send(raw)
        kind, body = peer.receive()
        assert kind is PduType.ABORT
        peer.socket.shutdown(socket.SHUT_WR)
        with pytest.raises(Closed) as closed:
            peer.receive()
        assert not closed.value.rude
        return body[2], body[3]


def test_ps3_8_9_3_4_another_application_context_is_rejected(rig: DimseRig) -> None:
    assert rejection(rig.port, REQUEST.replace(b"1.2.840.10008.3.1.1.1", b"1.2.840.10008.3.1.1.2")) == (
        1,
        1,
        2,
    )


def test_ps3_8_9_3_2_another_protocol_version_is_rejected(rig: DimseRig) -> None:
    assert rejection(rig.port, REQUEST[:6] + b"\0\2" + REQUEST[8:]) == (1, 2, 2)


def test_ps3_8_9_3_1_unknown_items_are_ignored(rig: DimseRig) -> None:
    unknown = b"\x77\0\0\4abcd"
    user_information = REQUEST.index(b"\x50\0", 74)
    inner = REQUEST[user_information:]
    length = struct.unpack(">H", inner[2:4])[0] + len(unknown)
    longer = (
        REQUEST[:user_information] + inner[:2] + struct.pack(">H", length) + inner[4:] + unknown + unknown
    )
    with RawPeer(rig.port) as peer:
        peer.send(longer[:2] + struct.pack(">L", len(longer) - 6) + longer[6:])
        assert peer.receive()[0] is PduType.ASSOCIATE_AC
        assert peer.echo() == 0


def test_an_abstract_syntax_of_others_is_not_accepted(rig: DimseRig) -> None:
    contexts = ["1.2.840.10008.5.1.4.34.4.1", "1.2.840.10008.5.1.4.1.1.2", tags.PULL]
    with UpsClient(rig.port, contexts=contexts) as client:
        assert list(client.accepted) == [tags.PULL]


def test_ps3_7_d_3_3_4_role_selection_is_answered(rig: DimseRig) -> None:
    with RawPeer(rig.port) as peer:
        peer.send(request("SCU", "ORTHANC", tags.EVENT, 16_384, as_scp=True))
        kind, body = peer.receive()
        assert kind is PduType.ASSOCIATE_AC
        result = body[body.index(b"\x21\0", 68) + 6]
        assert result == 1  # we are no SCU of UPS Event: rejected by the user


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"GET /dicom-web/workitems HTTP/1.1\r\n\r\n", 1),
        (pdu(1, b""), 6),
        (pdu(1, b"\0" * 68), 6),
        (pdu(1, REQUEST[6:-3]), 6),
        (pdu(1, REQUEST[6:74] + b"\x20\0\xff\xff"), 6),
        (struct.pack(">BxL", 1, 0xFFFFFFFF), 6),
        (pdu(4, b""), 2),
        (pdu(5, b"\0\0\0\0"), 2),
        (pdu(2, REQUEST[6:]), 2),
        (b"\0" * 64, 1),
    ],
)
def test_what_is_no_association_request_is_aborted(rig: DimseRig, raw: bytes, reason: int) -> None:
    assert aborted(rig, raw) == (2, reason)
    rig.still_serves()


COMMAND = raw_dimse.echo()


WHOLE_COMMAND = next(iter(fragments(Message(1, COMMAND), 16_384)))[6:]


@pytest.mark.parametrize(
    "raw",
    [
        pdu(8, b""),
        pdu(1, REQUEST[6:]),
        pdu(4, b"\0\0"),
        pdu(4, b"\0\0\0\1\1\3"),
        pdu(4, struct.pack(">LBB", 99, 1, 3)),
        pdu(4, fragment(b"\0" * 7, command=True, last=True)),
        pdu(4, fragment(b"", command=True, last=True)),
        pdu(4, fragment(WHOLE_COMMAND, context=3, command=True, last=True)),
        pdu(4, fragment(b"ab", command=False, last=True)),
        pdu(4, fragment(b"\1\0\0\0\0\0\0\0", command=True, last=True)),
        pdu(4, fragment(WHOLE_COMMAND, command=True, last=False) + fragment(b"", command=False, last=True)),
        struct.pack(">BxL", 4, 0x7FFFFFFF),
        struct.pack(">BxL", 5, 100_000),
        *([pdu(4, fragment(b"\0" * 16_000, command=True, last=False)) * 6]),
    ],
)
def test_what_is_no_message_aborts_the_association_and_no_other(rig: DimseRig, raw: bytes) -> None:
    with RawPeer(rig.port, VERIFICATION) as bystander:
        source, _ = aborted(rig, raw, VERIFICATION)
        assert source == 2
        assert bystander.echo() == 0


def test_a_release_is_answered_after_what_was_asked_before_it(rig: DimseRig) -> None:
    with RawPeer(rig.port, VERIFICATION) as peer:
        peer.send(ECHO + ECHO + RELEASE_RQ)
        assert [peer.answer().number(STATUS) for _ in range(2)] == [0, 0]
        assert peer.receive()[0] is PduType.RELEASE_RP
    rig.wait_for_associations(0)


def test_a_peer_that_aborts_leaves_nothing_behind(rig: DimseRig) -> None:
    with RawPeer(rig.port, VERIFICATION) as peer:
        rig.wait_for_associations(1)
        peer.send(ABORT_BY_USER)
    rig.wait_for_associations(0)


def test_what_an_aborting_peer_asked_for_last_is_not_begun(rig: DimseRig) -> None:
    gate = asyncio.Event()
    rig.worklist.before_execute = gate.wait
    with RawPeer(rig.port, tags.PUSH) as peer:
        peer.send(CREATE * 2 + ABORT_BY_USER)
        rig.wait_for_associations(1)
    rig.loop.loop.call_soon_threadsafe(gate.set)
    rig.wait_for_associations(0)
    assert len(rig.worklist.commands) == 1


@given(length=st.integers(0, len(REQUEST) + len(CREATE)))
@settings(max_examples=examples(20), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_peer_may_vanish_at_any_byte(rig: DimseRig, length: int) -> None:
    conversation = request("SCU", "ORTHANC", tags.PUSH, 16_384) + CREATE
    with RawPeer(rig.port) as peer:
        peer.send(conversation[:length])
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    rig.still_serves()


def test_stopping_aborts_what_is_open_and_frees_the_port() -> None:
    with DimseRig() as rig:
        port = rig.port
        with RawPeer(port, VERIFICATION) as associated, RawPeer(port) as silent:
            wait_until(lambda: rig.connections == 2, "both connections")
            rig.wait_for_associations(1)
            rig.loop.run(rig.server.stop(), timeout=60)
            assert associated.receive()[0] is PduType.ABORT
            with pytest.raises(Closed):
                silent.receive()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 1)


def test_a_port_that_is_taken_is_an_error() -> None:
    with DimseRig() as first:
        second = DimseRig(port=first.port)
        with pytest.raises(OSError, match="in use"):
            second.loop.run(second.server.start())
        second.codec.close()
        second.loop.close()


@given(data=st.data())
@settings(max_examples=examples(30), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_conversations_harm_nobody(rig: DimseRig, data: st.DataObject) -> None:
    conversation = bytearray(request("SCU", "ORTHANC", tags.PUSH, 16_384) + CREATE * 2 + RELEASE_RQ)
    for _ in range(data.draw(st.integers(1, 6))):
        conversation[data.draw(st.integers(0, len(conversation) - 1))] = data.draw(st.integers(0, 255))
    before = len(rig.loop.trouble)
    with RawPeer(rig.port) as peer:
        peer.send(bytes(conversation))
        peer.socket.shutdown(socket.SHUT_WR)
        with pytest.raises(Closed):
            while True:
                peer.receive()
    rig.still_serves()
    assert len(rig.loop.trouble) == before
