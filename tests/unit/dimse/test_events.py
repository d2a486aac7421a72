# SPDX-License-Identifier: AGPL-3.0-or-later
"""Event reports to receivers in processes of their own (PS3.4 CC.2.4), and C-ECHO to them."""

import asyncio
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from io import RawIOBase

import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import DataSet, element
from orthanc_ups.core.events import Event, EventType
from orthanc_ups.delivery.port import Channel, Refused, Unreachable
from orthanc_ups.dimse import requestor
from orthanc_ups.dimse.data_sets import Syntax
from orthanc_ups.dimse.message import (
    ABORT_BY_USER,
    COMMAND_FIELD,
    RELEASE_RP,
    RELEASE_RQ,
    RESPONDED_ID,
    STATUS,
    AbortReason,
    MemoryBudget,
    Message,
    Value,
    abort_by_provider,
    fragments,
)
from orthanc_ups.orthanc.modalities import Modality
from orthanc_ups.settings import OrthancSettings, Settings
from tests.support import upper_layer, workitems
from tests.support.delivery import ClosingFence
from tests.support.dimse_server import DimseRig
from tests.support.event_receiver import EventReceiver
from tests.support.ports import free_port
from tests.support.upper_layer import Asked, Proposed, pdu

SILENCE = 0.2  # seconds


def event(
    sequence: int, information: DataSet | None = None, type: EventType = EventType.STATE_REPORT
) -> Event:
    content = information or {
        tags.READINESS: element("CS", "READY"),
        tags.STATE: element("CS", "SCHEDULED"),
    }
    return Event(sequence, type, workitems.uid(sequence), content, ("WATCHER",), 0.0)


def at(port: int, ae: str = "WATCHER", host: str = "127.0.0.1") -> Modality:
    return Modality(ae.lower(), ae, host, port)


@pytest.fixture
def watcher() -> Iterator[EventReceiver]:
    with EventReceiver("WATCHER") as receiver:
        yield receiver


def deliver(rig: DimseRig, *events: Event, ae: str = "WATCHER") -> int:
    return rig.loop.run(rig.channel.deliver(ae, events))


def refusal(rig: DimseRig, *events: Event, ae: str = "WATCHER") -> str:
    """The words of Unreachable."""
    with pytest.raises(Unreachable) as error:
        deliver(rig, *events, ae=ae)
    return str(error.value)


def test_it_is_a_channel() -> None:
    with DimseRig() as rig:
        channel: Channel = rig.channel
        assert channel.name == "dimse"


def test_cc_2_4_reports_come_in_order_on_one_association_with_the_scp_role(watcher: EventReceiver) -> None:
    with DimseRig(modalities=[at(watcher.port)]) as rig:
        assert rig.channel.serves("WATCHER")
        assert not rig.channel.serves("STRANGER")
        assert deliver(rig, *(event(number) for number in range(1, 6))) == 5
        assert deliver(rig, event(6)) == 1
        reports = watcher.wait_for(6)
    assert [report.uid for report in reports] == [workitems.uid(number) for number in range(1, 7)]
    assert {report.association for report in reports} == {1}
    assert {report.sop_class for report in reports} == {tags.PUSH}
    assert {report.roles for report in reports} == {(False, True)}
    assert {report.calling for report in reports} == {"ORTHANC"}
    assert len({report.message_id for report in reports}) == 6
    assert reports[0].information[tags.STATE] == element("CS", "SCHEDULED")


def test_cc_2_4_table_1_every_type_arrives_with_its_information(watcher: EventReceiver) -> None:
    information: DataSet = {
        tags.STATION_NAME: element("SQ", workitems.station("READING7")),
        tags.CONTACT_NAME: element("LO", "Bérénice Ørsted"),
    }
    with DimseRig(modalities=[at(watcher.port)]) as rig:
        deliver(rig, *(event(1, dict(sorted(information.items())), type) for type in EventType))
        reports = watcher.wait_for(len(EventType))
    assert [report.type for report in reports] == list(EventType)
    for report in reports:
        assert report.information.pop(tags.SPECIFIC_CHARACTER_SET) == element("CS", "ISO_IR 192")
        assert report.information == information


def test_ps3_7_d_3_3_4_a_receiver_that_knows_no_roles_is_told_as_well() -> None:
    with EventReceiver("WATCHER", with_role=False) as watcher, DimseRig(modalities=[at(watcher.port)]) as rig:
        assert deliver(rig, event(1)) == 1
        assert watcher.wait_for(1)[0].roles == (False, True)


@pytest.mark.parametrize(
    ("roles", "is_told"), [((0, 1), True), ((1, 1), True), ((0, 0), False), ((1, 0), False)]
)
def test_ps3_7_d_3_3_4_a_receiver_that_refuses_us_the_scp_role_is_sent_nothing(
    roles: tuple[int, int], is_told: bool
) -> None:
    answer = taken(roles={tags.EVENT: roles})
    settings = Settings(dimse_timeout=SILENCE)
    with Mute(answer) as mute, DimseRig(settings, modalities=[at(mute.port)]) as rig:
        words = refusal(rig, event(1))
    if is_told:
        assert words.startswith("N-EVENT-REPORT not answered")
    else:
        where = f"WATCHER at 127.0.0.1:{mute.port}"
        assert words == f"{where} does not accept the UPS Event SOP Class: the SCP role was refused"


def test_ps3_7_10_1_1_success_and_warnings_mean_taken() -> None:
    codes = [0x0000, 0x0001, 0x0107, 0x0116, 0xB000]
    with EventReceiver("WATCHER", statuses=codes) as watcher, DimseRig(modalities=[at(watcher.port)]) as rig:
        assert deliver(rig, *(event(number) for number in range(1, 6))) == 5


def test_ps3_7_10_1_1_what_may_pass_is_tried_again() -> None:
    passing = {
        0x0110: "Processing failure",
        0x0210: "Duplicate invocation",
        0x0213: "Resource limitation",
        0xA700: "Out of resources",
        0xA702: "Out of resources",
        0xC000: "Unable to process",
        0xC123: "Unable to process",
        0xFF00: "Pending",
        0xFF01: "Pending",
    }
    with (
        EventReceiver("WATCHER", statuses=list(passing)) as watcher,
        DimseRig(modalities=[at(watcher.port)]) as rig,
    ):
        for status, meaning in passing.items():
            assert refusal(rig, event(1), event(2)) == f"N-EVENT-REPORT answered {status:04X} {meaning}"
        assert deliver(rig, event(1), event(2)) == 2
        reports = watcher.wait_for(len(passing) + 2)
    assert [report.uid for report in reports] == [workitems.uid(1)] * (len(passing) + 1) + [workitems.uid(2)]


REFUSALS = [
    0x0112,
    0x0113,
    0x0114,
    0x0115,
    0x0117,
    0x0118,
    0x0119,
    0x0122,
    0x0124,
    0x0211,
    0x0212,
    0x0105,
    0x0999,
]


def test_ps3_7_10_1_1_what_will_never_be_taken_is_refused() -> None:
    with (
        EventReceiver("WATCHER", statuses=REFUSALS) as watcher,
        DimseRig(modalities=[at(watcher.port)]) as rig,
    ):
        for number, status in enumerate(REFUSALS, 1):
            with pytest.raises(Refused, match=f"answered {status:04X} [A-Z]"):
                deliver(rig, event(number))
        assert deliver(rig, event(99)) == 1
        assert {report.association for report in watcher.wait_for(len(REFUSALS) + 1)} == {1}


def test_what_was_taken_before_a_refusal_counts() -> None:
    with (
        EventReceiver("WATCHER", statuses=[0, 0, 0x0115]) as watcher,
        DimseRig(modalities=[at(watcher.port)]) as rig,
    ):
        assert deliver(rig, *(event(number) for number in range(1, 6))) == 2


def test_an_event_is_encoded_once_for_all_its_receivers(
    watcher: EventReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        EventReceiver("SECOND") as second,
        DimseRig(modalities=[at(watcher.port), at(second.port, "SECOND")]) as rig,
    ):
        encoded: list[DataSet] = []
        encode = rig.codec.encoded

        def noted(dataset: DataSet, syntax: Syntax) -> bytes:
            encoded.append(dataset)
            return encode(dataset, syntax)

        monkeypatch.setattr(rig.codec, "encoded", noted)
        first = event(1)
        assert deliver(rig, first) == deliver(rig, first, ae="SECOND") == 1
        assert deliver(rig, event(1), ae="SECOND") == 1
        reports = [*watcher.wait_for(1), *second.wait_for(2)]
    assert len(encoded) == 2
    assert [report.information for report in reports] == [reports[0].information] * 3


# --- receivers that are not there ----------------------------------------------------------------


def test_an_ae_without_address_is_unreachable() -> None:
    with DimseRig() as rig:
        assert refusal(rig, event(1), ae="NOBODY") == "AE title NOBODY is not in DicomModalities"


def test_a_host_that_does_not_listen_is_unreachable() -> None:
    port = free_port()
    with DimseRig(modalities=[at(port)]) as rig:
        assert refusal(rig, event(1)).startswith(f"cannot connect to WATCHER at 127.0.0.1:{port}: ")


def test_a_host_without_address_is_unreachable() -> None:
    with DimseRig(modalities=[at(104, host="no-such-host.invalid")]) as rig:
        assert refusal(rig, event(1)) == "host no-such-host.invalid has no address"


def test_a_host_by_name_is_found(watcher: EventReceiver) -> None:
    with DimseRig(modalities=[at(watcher.port, host="localhost")]) as rig:
        assert deliver(rig, event(1)) == 1


def test_a_receiver_without_the_event_class_is_unreachable() -> None:
    with (
        EventReceiver("WATCHER", refuse_context=True) as watcher,
        DimseRig(modalities=[at(watcher.port)]) as rig,
    ):
        where = f"WATCHER at 127.0.0.1:{watcher.port}"
        expected = f"{where} does not accept the UPS Event SOP Class: abstract syntax not supported"
        assert refusal(rig, event(1)) == expected


LAST_OF_DATA = 2
"""Message Control Header of the last fragment of a data set (PS3.8 Annex E.2)."""


def first_message(connection: socket.socket) -> list[bytes]:
    """The PDUs of the first message behind the association request."""
    with connection.makefile("rb", buffering=0) as stream:
        pdus = [_pdu(stream)]
        while len(pdus) == 1 or pdus[-1][11] != LAST_OF_DATA:
            pdus.append(_pdu(stream))
    return pdus[1:]


def _pdu(stream: RawIOBase) -> bytes:
    header = _exactly(stream, 6)
    return header + _exactly(stream, int.from_bytes(header[2:]))


def _exactly(stream: RawIOBase, size: int) -> bytes:
    received = b""
    while len(received) < size:
        part = stream.read(size - len(received))
        assert part, "the connection ended"
        received += part
    return received


class Mute:
    """A host that accepts connections, sends ``answer``, and ``reply`` to the first message; then nothing more."""

    def __init__(self, answer: bytes = b"", reply: bytes = b"") -> None:
        self._answer = answer
        self._reply = reply
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._kept: list[socket.socket] = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            while True:
                connection, _ = self._socket.accept()
                self._kept.append(connection)
                connection.sendall(self._answer)
                if self._reply:
                    first_message(connection)
                    connection.sendall(self._reply)
        except OSError:
            return

    def __enter__(self) -> "Mute":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for connection in self._kept:
            connection.close()


def taken(maximum: int = 65_536, roles: Mapping[str, tuple[int, int]] | None = None) -> bytes:
    """The A-ASSOCIATE-AC of a receiver that takes the event class; ``roles`` answers role selection."""
    proposed = {1: Proposed(tags.EVENT, (upper_layer.EXPLICIT,))}
    request = Asked("ORTHANC", "WATCHER", proposed, dict(roles or {}))
    return upper_layer.associate_ac(request, {1: upper_layer.EXPLICIT}, maximum)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "did not answer the association request"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "broke off the association request"),
        (pdu(2, b"\0" * 68 + b"\x21"), "broke off the association request"),
        (pdu(2, b"\0" * 68), "does not accept the UPS Event SOP Class: no answer to it"),
        (
            taken(maximum=8),
            "cannot be sent messages: maximum length of a PDU is 8 bytes, expected at least 128, or 0",
        ),
        (pdu(3, bytes((0, 1, 1, 7))), "rejected the association: called AE title not recognized"),
        (pdu(3, bytes((0, 2, 3, 2))), "rejected the association: local limit exceeded"),
        (pdu(7, bytes(4)), "aborted the association request"),
    ],
    ids=["silent", "no dicom", "broken", "empty", "tiny", "called", "limit", "aborted"],
)
def test_hosts_that_do_not_let_us_in_are_unreachable_in_words(answer: bytes, words: str) -> None:
    with (
        Mute(answer) as mute,
        DimseRig(Settings(association_handshake_timeout=0.2), modalities=[at(mute.port)]) as rig,
    ):
        assert refusal(rig, event(1)) == f"WATCHER at 127.0.0.1:{mute.port} {words}"


def test_a_dead_receiver_delays_nobody_else(watcher: EventReceiver) -> None:
    with Mute() as mute, DimseRig(modalities=[at(watcher.port), at(mute.port, "DEAD")]) as rig:

        async def deliver_both() -> bool:
            dead = asyncio.create_task(rig.channel.deliver("DEAD", [event(1)]))
            await rig.channel.deliver("WATCHER", [event(1), event(2)])
            is_waiting = not dead.done()
            dead.cancel()
            await asyncio.gather(dead, return_exceptions=True)
            return is_waiting

        assert rig.loop.run(deliver_both())
        watcher.wait_for(2)


def test_the_next_entry_of_an_ae_is_tried(watcher: EventReceiver) -> None:
    with DimseRig(modalities=[at(free_port()), at(watcher.port)]) as rig:
        assert deliver(rig, event(1)) == 1


def test_no_answer_in_time_is_unreachable() -> None:
    with (
        EventReceiver("WATCHER", delay=1.0) as watcher,
        DimseRig(Settings(dimse_timeout=0.2), modalities=[at(watcher.port)]) as rig,
    ):
        assert refusal(rig, event(1)) == "N-EVENT-REPORT not answered: no answer within 0.2 s"


# --- kept associations ---------------------------------------------------------------------------


def test_a_kept_association_that_turns_out_dead_is_replaced() -> None:
    with EventReceiver("WATCHER") as watcher, DimseRig(modalities=[at(watcher.port)]) as rig:
        deliver(rig, event(1))
        watcher.stop()
        assert refusal(rig, event(2)).startswith("cannot connect")
        watcher.start()
        assert deliver(rig, event(2)) == 1
        assert [report.uid for report in watcher.wait_for(2)] == [workitems.uid(1), workitems.uid(2)]


def test_a_report_that_was_cut_off_is_sent_again_on_a_new_association() -> None:
    with EventReceiver("WATCHER", drop_after=2) as watcher, DimseRig(modalities=[at(watcher.port)]) as rig:
        assert deliver(rig, event(1), event(2), event(3)) == 3
        reports = watcher.wait_for(3)
        assert [(report.uid, report.association) for report in reports] == [
            (workitems.uid(1), 1),
            (workitems.uid(2), 2),
            (workitems.uid(3), 2),
        ]


def test_a_report_that_is_cut_off_on_a_new_association_is_unreachable() -> None:
    with EventReceiver("WATCHER", drop_after=1) as watcher, DimseRig(modalities=[at(watcher.port)]) as rig:
        assert refusal(rig, event(1)).startswith("N-EVENT-REPORT not answered: connection")


def test_an_association_without_events_is_released() -> None:
    with (
        EventReceiver("WATCHER") as watcher,
        DimseRig(Settings(event_association_idle_timeout=0.1), modalities=[at(watcher.port)]) as rig,
    ):
        deliver(rig, event(1))
        assert watcher.endings(1) == ["released"]
        deliver(rig, event(2))
        assert [report.association for report in watcher.wait_for(2)] == [1, 2]


def test_an_address_that_changed_is_used_at_once(watcher: EventReceiver) -> None:
    with EventReceiver("WATCHER") as moved, DimseRig(modalities=[at(watcher.port)]) as rig:
        deliver(rig, event(1))
        rig.modalities.entries[:] = [at(moved.port)]
        deliver(rig, event(2))
        assert watcher.wait_for(1)[0].uid == workitems.uid(1)
        assert moved.wait_for(1)[0].uid == workitems.uid(2)


def test_closing_releases_every_association(watcher: EventReceiver) -> None:
    with DimseRig(modalities=[at(watcher.port)]) as rig:
        deliver(rig, event(1))
        rig.loop.run(rig.channel.close(), timeout=3)
        assert watcher.endings(1) == ["released"]


def test_the_modality_may_ask_for_another_calling_ae_title(watcher: EventReceiver) -> None:
    entry = replace(at(watcher.port), local_aet="OTHERNAME")
    with DimseRig(Settings(aet="UPS"), modalities=[entry]) as rig:
        deliver(rig, event(1))
        assert watcher.wait_for(1)[0].calling == "OTHERNAME"


def test_our_own_ae_title_is_shown_otherwise(watcher: EventReceiver) -> None:
    with DimseRig(Settings(aet="UPS"), modalities=[at(watcher.port)]) as rig:
        deliver(rig, event(1))
        assert watcher.wait_for(1)[0].calling == "UPS"


def test_replies_with_data_sets_return_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """UPS has no event replies, but who sends one is heard all the same."""
    budgets: list[MemoryBudget] = []

    class NotedBudget(MemoryBudget):
        def __init__(self, capacity: int) -> None:
            super().__init__(capacity)
            budgets.append(self)

    monkeypatch.setattr(requestor, "MemoryBudget", NotedBudget)
    reply: dict[int, Value] = {COMMAND_FIELD: 0x8100, RESPONDED_ID: 1, STATUS: 0}
    replies = b"".join(pdu(4, part) for part in fragments(Message(1, reply, b"\0" * 1000), 16_384))
    with Mute(taken(), replies) as mute, DimseRig(modalities=[at(mute.port)]) as rig:
        assert deliver(rig, event(1)) == 1
        assert [budget.free for budget in budgets] == [64 * 1024]


def test_an_empty_reply_that_is_announced_and_not_sent_holds_nothing_up() -> None:
    with (
        EventReceiver("WATCHER", empty_reply=True) as watcher,
        DimseRig(modalities=[at(watcher.port)]) as rig,
    ):
        assert deliver(rig, event(1), event(2), event(3)) == 3
        assert {report.association for report in watcher.wait_for(3)} == {1}


# --- our side of the association -----------------------------------------------------------------

ANSWER = b"".join(
    pdu(4, part)
    for part in fragments(Message(1, {COMMAND_FIELD: 0x8100, RESPONDED_ID: 1, STATUS: 0}), 16_384)
)


class Scripted:
    """A receiver that sends ``script`` to the first message of the first association, and notes what comes then."""

    def __init__(self, script: bytes, maximum: int = 65_536) -> None:
        self._script = script
        self._maximum = maximum
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.message: list[bytes] = []
        self._behind = b""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        connection, _ = self._socket.accept()
        self._socket.close()
        with connection:
            connection.sendall(taken(self._maximum))
            self.message = first_message(connection)
            connection.sendall(self._script)
            while more := connection.recv(65_536):
                self._behind += more

    def heard(self) -> bytes:
        """What came behind the first message, once the connection is closed."""
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self._behind


def test_ps3_8_7_2_a_release_by_an_idle_receiver_is_answered_at_once() -> None:
    receiver = Scripted(ANSWER + RELEASE_RQ)
    with DimseRig(modalities=[at(receiver.port)]) as rig:
        assert deliver(rig, event(1)) == 1
        assert receiver.heard() == RELEASE_RP
        assert refusal(rig, event(2)).startswith("cannot connect")


@pytest.mark.parametrize(
    ("script", "heard", "words"),
    [
        (RELEASE_RQ, RELEASE_RP, "released by the peer"),
        (ABORT_BY_USER, b"", "aborted by the peer"),
        (pdu(2, b""), abort_by_provider(AbortReason.UNEXPECTED), "protocol error of the peer: unexpected"),
        (pdu(9, b""), abort_by_provider(AbortReason.UNRECOGNIZED), "protocol error of the peer: unknown PDU"),
        (
            pdu(4, b"\0"),
            abort_by_provider(AbortReason.INVALID_VALUE),
            "protocol error of the peer: P-DATA-TF",
        ),
        (
            b"\4\0\x7f\0\0\0",
            abort_by_provider(AbortReason.INVALID_VALUE),
            "protocol error of the peer: PDU of 2130706432 bytes",
        ),
    ],
    ids=["release", "abort", "unexpected", "unknown", "broken", "huge"],
)
def test_whatever_comes_in_place_of_an_answer_ends_the_association_in_words(
    script: bytes, heard: bytes, words: str
) -> None:
    receiver = Scripted(script)
    with DimseRig(modalities=[at(receiver.port)]) as rig:
        assert refusal(rig, event(1)).startswith(f"N-EVENT-REPORT not answered: {words}")
        assert receiver.heard() == heard


def test_ps3_7_9_1_answers_to_other_messages_are_not_taken_for_ours() -> None:
    other = ANSWER.replace(bytes((0x20, 1, 2, 0, 0, 0, 1)), bytes((0x20, 1, 2, 0, 0, 0, 9)))
    assert other != ANSWER
    receiver = Scripted(other)
    with DimseRig(Settings(dimse_timeout=SILENCE), modalities=[at(receiver.port)]) as rig:
        assert refusal(rig, event(1)) == f"N-EVENT-REPORT not answered: no answer within {SILENCE:g} s"
        assert receiver.heard() == ABORT_BY_USER


def test_ps3_8_9_3_1_the_smallest_pdus_that_are_taken_carry_a_report() -> None:
    receiver = Scripted(ANSWER, maximum=128)
    with DimseRig(modalities=[at(receiver.port)]) as rig:
        assert deliver(rig, event(1)) == 1
        rig.loop.run(rig.channel.close())
        assert receiver.heard().endswith(RELEASE_RQ)
    assert max(len(pdu) - 6 for pdu in receiver.message) == 128


# --- C-ECHO --------------------------------------------------------------------------------------


def test_echo_tells_how_long_it_took(watcher: EventReceiver) -> None:
    with DimseRig(modalities=[at(watcher.port)]) as rig:
        assert 0 < rig.loop.run(rig.channel.echo("WATCHER")) < 10


def test_echo_of_what_is_not_there_says_why() -> None:
    with DimseRig(modalities=[at(free_port())]) as rig:
        with pytest.raises(Unreachable, match="cannot connect to WATCHER"):
            rig.loop.run(rig.channel.echo("WATCHER"))
        with pytest.raises(Unreachable, match="is not in DicomModalities"):
            rig.loop.run(rig.channel.echo("NOBODY"))


def test_our_own_port_takes_our_echo_and_refuses_our_events() -> None:
    """Two of us may be each other's modalities."""
    orthanc_settings = OrthancSettings(dicom_aet="SCU")
    with DimseRig(orthanc_settings=orthanc_settings) as rig:
        rig.modalities.entries[:] = [at(rig.port, "SCU")]
        assert rig.loop.run(rig.channel.echo("SCU")) > 0
        words = refusal(rig, event(1), ae="SCU")
        assert words.endswith("does not accept the UPS Event SOP Class: rejected by the user")


def test_a_node_that_leads_no_more_sends_nothing_even_within_a_delivery(watcher: EventReceiver) -> None:
    """The lease may end while the association is being opened, or between two reports."""
    with DimseRig(modalities=[at(watcher.port)], fence=ClosingFence(2)) as rig:
        assert deliver(rig, event(1), event(2), event(3)) == 2
        assert "no longer leads" in refusal(rig, event(3))
        reports = watcher.wait_for(2)
        assert watcher.silent_for(SILENCE)
    assert [report.uid for report in reports] == [workitems.uid(1), workitems.uid(2)]
