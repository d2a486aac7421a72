# SPDX-License-Identifier: AGPL-3.0-or-later
"""Associations: who is let in, what peers may do, and that nothing a peer does harms others (PS3.8 §9.2)."""

import asyncio
import logging
import resource
import socket
import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orthanc_ups.core import tags
from orthanc_ups.modalities import Modality
from orthanc_ups.settings import Settings, Surroundings
from orthanc_ups.wires import dimse_pdu
from orthanc_ups.wires.dimse_encode import encode
from orthanc_ups.wires.dimse_message import STATUS, Field, Message, fragments
from orthanc_ups.wires.dimse_negotiation import request
from orthanc_ups.wires.dimse_pdu import Kind
from orthanc_ups.wires.dimse_syntax import EXPLICIT
from tests.support import dimse_raw, workitems
from tests.support.dimse_client import NoAssociation, UpsClient
from tests.support.dimse_raw import VERIFICATION, Closed, RawPeer, fragment, pdu
from tests.support.dimse_server import KNOWN, DimseRig
from tests.support.waiting import wait_until

UID = workitems.uid(1)
REQUEST = request("SCU", "ORTHANC", VERIFICATION, 16_384)
ECHO = b"".join(dimse_pdu.data(part) for part in fragments(Message(1, dimse_raw.echo()), 16_384))
CREATE = b"".join(
    dimse_pdu.data(part)
    for part in fragments(
        Message(1, dimse_raw.operation(Field.N_CREATE), encode(workitems.minimal(), EXPLICIT)), 16_384
    )
)


@pytest.fixture
def rig() -> Iterator[DimseRig]:
    with DimseRig() as running:
        yield running


def still_serves(rig: DimseRig) -> None:
    with RawPeer(rig.port, VERIFICATION) as peer:
        assert peer.echo() == 0
        peer.release()
    rig.wait_for_associations(0)


# --- negotiation ---------------------------------------------------------------------------------


def rejected(rig: DimseRig, raw: bytes) -> tuple[int, ...]:
    with RawPeer(rig.port) as peer:
        peer.send(raw)
        kind, body = peer.receive()
        assert kind is Kind.ASSOCIATE_RJ
        return tuple(body[1:4])


def aborted(rig: DimseRig, raw: bytes, abstract: str | None = None) -> tuple[int, int]:
    """Source and reason of the A-ABORT that the bytes provoke; the connection is closed in good order."""
    with RawPeer(rig.port, abstract) as peer:
        peer.send(raw)
        kind, body = peer.receive()
        assert kind is Kind.ABORT
        peer.socket.shutdown(socket.SHUT_WR)
        with pytest.raises(Closed) as closed:
            peer.receive()
        assert not closed.value.rude
        return body[2], body[3]


def test_ps3_8_9_3_4_another_application_context_is_rejected(rig: DimseRig) -> None:
    assert rejected(rig, REQUEST.replace(b"1.2.840.10008.3.1.1.1", b"1.2.840.10008.3.1.1.2")) == (1, 1, 2)


def test_ps3_8_9_3_2_another_protocol_version_is_rejected(rig: DimseRig) -> None:
    assert rejected(rig, REQUEST[:6] + b"\0\2" + REQUEST[8:]) == (1, 2, 2)


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
        assert peer.receive()[0] is Kind.ASSOCIATE_AC
        assert peer.echo() == 0


def test_an_abstract_syntax_of_others_is_not_accepted(rig: DimseRig) -> None:
    contexts = ["1.2.840.10008.5.1.4.34.4.1", "1.2.840.10008.5.1.4.1.1.2", tags.PULL]
    with UpsClient(rig.port, contexts=contexts) as client:
        assert list(client.accepted) == [tags.PULL]


def test_ps3_7_d_3_3_4_role_selection_is_answered(rig: DimseRig) -> None:
    with RawPeer(rig.port) as peer:
        peer.send(request("SCU", "ORTHANC", tags.EVENT, 16_384, as_scp=True))
        kind, body = peer.receive()
        assert kind is Kind.ASSOCIATE_AC
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
    still_serves(rig)


COMMAND = dimse_raw.echo()
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
    with RawPeer(rig.port, VERIFICATION) as other:
        source, _ = aborted(rig, raw, VERIFICATION)
        assert source == 2
        assert other.echo() == 0


def test_endless_data_sets_are_not_collected() -> None:
    with DimseRig(Settings(maximum_data_set_size=10_000)) as rig, RawPeer(rig.port, tags.PUSH) as peer:
        command, *_ = fragments(Message(1, dimse_raw.operation(Field.N_CREATE), b"12"), 16_384)
        more = dimse_pdu.data(fragment(b"\0" * 10_000, command=False, last=False))
        peer.send(dimse_pdu.data(command) + more * 20)
        assert peer.receive()[0] is Kind.ABORT


# --- the ends of associations --------------------------------------------------------------------


def test_a_release_is_answered_after_what_was_asked_before_it(rig: DimseRig) -> None:
    with RawPeer(rig.port, VERIFICATION) as peer:
        peer.send(ECHO + ECHO + dimse_pdu.RELEASE_RQ)
        assert [peer.answer().number(STATUS) for _ in range(2)] == [0, 0]
        assert peer.receive()[0] is Kind.RELEASE_RP
    rig.wait_for_associations(0)


def test_a_peer_that_aborts_leaves_nothing_behind(rig: DimseRig) -> None:
    with RawPeer(rig.port, VERIFICATION) as peer:
        rig.wait_for_associations(1)
        peer.send(dimse_pdu.ABORT_BY_USER)
    rig.wait_for_associations(0)


def test_what_an_aborting_peer_asked_for_last_is_not_begun(rig: DimseRig) -> None:
    async def slowly() -> None:
        await asyncio.sleep(0.1)

    rig.worklist.before_execute = slowly
    with RawPeer(rig.port, tags.PUSH) as peer:
        peer.send(CREATE * 3 + dimse_pdu.ABORT_BY_USER)
        rig.wait_for_associations(1)
    rig.wait_for_associations(0)
    assert len(rig.worklist.commands) <= 1


@given(place=st.integers(0, len(REQUEST) + len(CREATE)))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_peer_may_vanish_at_any_byte(rig: DimseRig, place: int) -> None:
    conversation = request("SCU", "ORTHANC", tags.PUSH, 16_384) + CREATE
    with RawPeer(rig.port) as peer:
        peer.send(conversation[:place])
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    still_serves(rig)


def test_stopping_aborts_what_is_open_and_frees_the_port() -> None:
    with DimseRig() as rig:
        port = rig.port
        with RawPeer(port, VERIFICATION) as one, RawPeer(port) as silent:
            wait_until(lambda: len(rig.server._tasks) == 2, "both connections")
            rig.wait_for_associations(1)
            rig.loop.run(rig.server.stop(), timeout=3)
            assert one.receive()[0] is Kind.ABORT
            with pytest.raises(Closed):
                silent.receive()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 1)


def test_a_port_that_is_taken_is_an_error() -> None:
    with DimseRig() as first:
        second = DimseRig()
        second.server._settings = replace(second.settings, dicom_port=first.port)
        with pytest.raises(OSError, match="in use"):
            second.loop.run(second.server.start())
        second.codec.close()
        second.loop.close()


# --- time limits ---------------------------------------------------------------------------------


def test_who_connects_and_asks_nothing_has_to_go() -> None:
    with DimseRig(Settings(association_handshake_timeout=0.1)) as rig, RawPeer(rig.port) as peer:
        peer.send(REQUEST[:50])
        with pytest.raises(Closed):
            peer.receive()


def test_an_idle_association_is_aborted() -> None:
    with DimseRig(Settings(association_idle_timeout=0.1)) as rig, RawPeer(rig.port, VERIFICATION) as peer:
        assert peer.echo() == 0
        assert peer.receive()[0] is Kind.ABORT
        rig.wait_for_associations(0)


def test_a_working_association_is_not_idle() -> None:
    async def slowly() -> None:
        await asyncio.sleep(0.4)

    with DimseRig(Settings(association_idle_timeout=0.1)) as rig, RawPeer(rig.port, tags.PUSH) as peer:
        rig.worklist.before_execute = slowly
        peer.send(CREATE)
        assert peer.answer().number(STATUS) == 0


@pytest.mark.parametrize("cut", [3, 20, len(CREATE) - 5])
def test_a_message_that_never_ends_is_aborted(cut: int) -> None:
    with DimseRig(Settings(dimse_timeout=0.05)) as rig, RawPeer(rig.port, tags.PUSH) as peer:
        peer.send(CREATE[:cut])
        if cut > 6:
            assert peer.receive()[0] is Kind.ABORT
            rig.wait_for_associations(0)
        else:  # no PDU has begun: the association is merely idle
            peer.send(CREATE[cut:])
            assert peer.answer().number(STATUS) == 0


def test_fragments_that_trickle_in_do_not_hold_an_association_for_ever() -> None:
    with DimseRig(Settings(dimse_timeout=0.05)) as rig, RawPeer(rig.port, VERIFICATION) as peer:
        trickle = dimse_pdu.data(fragment(b"\0", command=True, last=False))
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
        peer.post(dimse_raw.find(), encode({tags.LABEL: {"vr": "LO"}}, EXPLICIT))
        rig.wait_for_associations(1)
        rig.wait_for_associations(0)
        assert rig.worklist.streams_closed == 1


# --- number of associations ----------------------------------------------------------------------


def test_ps3_8_9_3_4_beyond_the_limit_associations_are_rejected(caplog: pytest.LogCaptureFixture) -> None:
    with DimseRig(Settings(maximum_associations=2)) as rig:
        with RawPeer(rig.port, VERIFICATION) as one, RawPeer(rig.port, VERIFICATION) as two:
            with caplog.at_level(logging.WARNING, "orthanc_ups.dimse"):
                assert [rejected(rig, REQUEST) for _ in range(5)] == [(2, 3, 2)] * 5
            assert len([one for one in caplog.records if one.name == "orthanc_ups.dimse"]) == 1
            assert (one.echo(), two.echo()) == (0, 0)
            one.release()
            rig.wait_for_associations(1)
            still = RawPeer(rig.port, VERIFICATION)
            assert still.echo() == 0
            still.socket.close()
        rig.wait_for_associations(0)


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8192)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_thousand_associations_at_once_are_answered_and_bounded(many_files: None) -> None:
    with DimseRig(Settings(maximum_associations=20)) as rig:
        answers = asyncio.run(_crowd(rig.port, 1000))
        assert answers.count(Kind.ASSOCIATE_AC) == 20
        assert answers.count(Kind.ASSOCIATE_RJ) == 980
        rig.wait_for_associations(0)
        still_serves(rig)


async def _crowd(port: int, count: int) -> list[Kind | None]:
    """What each of many peers gets that ask at the same time and stay until all have an answer."""
    everybody = asyncio.Event()
    left = count

    async def one() -> Kind | None:
        nonlocal left
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST)
        try:
            kind, _ = dimse_pdu.read_header(await reader.readexactly(6))
        except (OSError, EOFError):
            kind = None
        left -= 1
        if left == 0:
            everybody.set()
        await everybody.wait()
        writer.close()
        return kind

    return await asyncio.gather(*(one() for _ in range(count)))


def test_silent_connections_keep_nobody_out(many_files: None) -> None:
    with DimseRig(Settings(maximum_associations=5)) as rig:
        silent = [socket.create_connection(("127.0.0.1", rig.port)) for _ in range(450)]
        with RawPeer(rig.port, VERIFICATION) as peer:
            assert peer.echo() == 0
        for one in silent:
            one.close()


def test_file_descriptors_beyond_1023_are_fine(many_files: None) -> None:
    with DimseRig() as rig:
        files = [socket.socket() for _ in range(1100)]
        try:
            with RawPeer(rig.port, VERIFICATION) as peer:
                assert peer.socket.fileno() > 1023
                assert peer.echo() == 0
        finally:
            for one in files:
                one.close()


def test_every_connection_has_no_delay(rig: DimseRig) -> None:
    with RawPeer(rig.port, VERIFICATION):
        rig.wait_for_associations(1)
        (association,) = rig.server._open
        connection = association._wire._writer.get_extra_info("socket")
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# --- fuzz ----------------------------------------------------------------------------------------


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_conversations_harm_nobody(rig: DimseRig, data: st.DataObject) -> None:
    conversation = bytearray(request("SCU", "ORTHANC", tags.PUSH, 16_384) + CREATE * 2 + dimse_pdu.RELEASE_RQ)
    for _ in range(data.draw(st.integers(1, 6))):
        conversation[data.draw(st.integers(0, len(conversation) - 1))] = data.draw(st.integers(0, 255))
    before = len(rig.loop.trouble)
    with RawPeer(rig.port, timeout=2) as peer:
        peer.send(bytes(conversation))
        peer.socket.shutdown(socket.SHUT_WR)
        with pytest.raises(Closed):
            while True:
                peer.receive()
    still_serves(rig)
    assert len(rig.loop.trouble) == before


# --- whom we let in: as Orthanc does -------------------------------------------------------------

CLOSED = Surroundings(always_allow_echo=False, always_allow_find_worklist=False)


def open_as(rig: DimseRig, calling: str = "SCU", called: str = "ORTHANC") -> Any:
    return UpsClient(rig.port, calling, called)


def test_check_called_aet() -> None:
    with DimseRig(surroundings=Surroundings(check_called_aet=True)) as rig:
        with open_as(rig, called="orthanc"):
            pass
        with pytest.raises(NoAssociation, match="rejected 1 1 7"), open_as(rig, called="OTHER"):
            pass


def test_check_called_aet_with_strict_comparison_and_an_aet_of_our_own() -> None:
    strict = Surroundings(check_called_aet=True, raw={"StrictAetComparison": True})
    with DimseRig(Settings(aet="UPS"), strict) as rig:
        with open_as(rig, called="UPS"):
            pass
        for called in ("ups", "ORTHANC"):
            with pytest.raises(NoAssociation, match="rejected 1 1 7"), open_as(rig, called=called):
                pass


def test_an_unknown_ae_is_rejected_if_nothing_is_always_allowed() -> None:
    with DimseRig(surroundings=CLOSED) as rig:
        with pytest.raises(NoAssociation, match="rejected 1 1 3"), open_as(rig, "STRANGER"):
            pass
        with open_as(rig) as client:
            assert client.echo().code == 0
            assert client.create(workitems.minimal(), UID).code == 0


def test_an_unknown_ae_may_echo_but_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    with DimseRig(surroundings=Surroundings(always_allow_find_worklist=False)) as rig:
        with open_as(rig, "STRANGER") as client:
            assert client.echo().code == 0
            refusals = [
                client.create(workitems.minimal(), UID),
                client.get(UID),
                client.change_state(UID, "IN PROGRESS", "1.2.3"),
                client.find({tags.STATE: {"vr": "CS"}})[-1],
            ]
        assert {(one.code, one.comment) for one in refusals} == {
            (0x0124, "AE title STRANGER is not in DicomModalities")
        }
        assert not rig.worklist.commands
        assert "STRANGER at 127.0.0.1" in caplog.text


def test_an_unknown_ae_may_query_worklists_if_orthanc_says_so() -> None:
    allowing = replace(CLOSED, always_allow_find_worklist=True)
    with DimseRig(surroundings=allowing) as rig, open_as(rig, "STRANGER") as client:
        assert client.find({tags.STATE: {"vr": "CS"}})[-1].code == 0
        assert client.echo().code == 0x0124
        assert client.create(workitems.minimal(), UID).code == 0x0124


def test_allow_flags_of_the_modality_count() -> None:
    limited = replace(KNOWN, allow_find_worklist=False, allow_echo=False)
    with DimseRig(surroundings=CLOSED, modalities=[limited]) as rig, open_as(rig) as client:
        assert client.echo().code == 0x0124
        refused = client.find({tags.STATE: {"vr": "CS"}})[-1]
        assert (refused.code, refused.comment) == (0x0124, "C-FIND is not allowed for SCU")
        assert client.create(workitems.minimal(), UID).code == 0


@pytest.mark.parametrize(
    ("hosts", "is_welcome"),
    [
        (["127.0.0.1"], True),
        (["192.0.2.7"], False),
        (["192.0.2.7", "127.0.0.1"], True),
        (["localhost"], True),
        (["::ffff:127.0.0.1"], True),
        (["no-such-host.invalid"], False),
    ],
)
def test_check_modality_host(hosts: list[str], is_welcome: bool) -> None:
    entries = [Modality(host, "SCU", host, 104) for host in hosts]
    with DimseRig(surroundings=Surroundings(check_modality_host=True), modalities=entries) as rig:
        with open_as(rig) as client:
            answer = client.create(workitems.minimal(), UID)
        assert answer.code == (0 if is_welcome else 0x0124)
        assert is_welcome or answer.comment == "127.0.0.1 is not the host of SCU"
        assert rig.seen == (["SCU"] if is_welcome else [])


def test_delivery_hears_of_known_aes_that_open_an_association_or_echo(rig: DimseRig) -> None:
    with open_as(rig) as client:
        client.echo()
    with open_as(rig, "STRANGER"):
        pass
    rig.wait_for_associations(0)
    assert rig.seen == ["SCU", "SCU"]


def test_a_modality_that_is_added_later_is_let_in(rig: DimseRig) -> None:
    with open_as(rig, "LATER") as client:
        assert client.create(workitems.minimal(), UID).code == 0x0124
        rig.modalities.entries.append(Modality("later", "LATER", "127.0.0.1", 104))
        assert client.create(workitems.minimal(), UID).code == 0
