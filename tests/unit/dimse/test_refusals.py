# SPDX-License-Identifier: AGPL-3.0-or-later
"""Refusals over DIMSE: their statuses and comments, and that they change nothing."""

import asyncio
import logging

import pytest

from orthanc_ups.core import statuses, tags
from orthanc_ups.core.commands import Create, Requester
from orthanc_ups.core.dataset import DataSet, element
from orthanc_ups.core.outcome import Outcome
from orthanc_ups.core.statuses import UpsError
from orthanc_ups.dimse.data_sets import EXPLICIT as EXPLICIT_SYNTAX
from orthanc_ups.dimse.data_sets import encode
from orthanc_ups.dimse.message import ERROR_COMMENT, STATUS, CommandField
from orthanc_ups.dimse.services import comment_on, shortened
from orthanc_ups.settings import Settings
from tests.support import raw_dimse, workitems
from tests.support.dimse_client import (
    UpsClient,
)
from tests.support.dimse_server import DimseRig
from tests.support.preparing import refused_create
from tests.support.raw_dimse import RawPeer
from tests.support.waiting import wait_until

UID = workitems.uid(1)


SCU = Requester("SCU", "DIMSE")


TRANSACTION = "2.25.4711"


CHANGE: DataSet = {tags.LABEL: element("LO", "Other")}


def test_an_unknown_dimse_service_is_refused_and_the_association_kept(rig: DimseRig) -> None:
    with RawPeer(rig.port, tags.PUSH) as peer:
        for field in (CommandField.C_STORE, CommandField.N_DELETE, CommandField.N_EVENT_REPORT):
            answer = peer.ask(raw_dimse.operation(field))
            assert (answer.field, answer.number(STATUS)) == (field | 0x8000, 0x0211)
        assert peer.ask(raw_dimse.operation(CommandField.N_GET)).number(STATUS) == 0xC307


def test_a_refusal_names_the_attribute(rig: DimseRig, client: UpsClient) -> None:
    path = f"{tags.STATION_NAME}.{tags.CODE_VALUE}"
    rig.worklist.error = UpsError(statuses.MISSING_ATTRIBUTE, "CodeValue (0008,0100) is missing", path)
    answer = client.create(workitems.minimal(), UID)
    assert (answer.code, answer.offending) == (0x0120, tags.CODE_VALUE)
    assert f"{int(answer.command['AttributeIdentifierList']):08X}" == tags.STATION_NAME
    assert answer.comment == "(0040,4025)>(0008,0100) CodeValue is missing"
    assert (answer.uid, answer.command["AffectedSOPClassUID"]) == (UID, tags.PUSH)


@pytest.mark.parametrize(
    "status",
    [status for status in statuses.REGISTER.values() if status.is_failure],
    ids=lambda status: status.name,
)
def test_ps3_7_annex_c_every_failure_of_the_register_reaches_the_peer(
    rig: DimseRig, client: UpsClient, status: statuses.Status
) -> None:
    rig.worklist.error = UpsError(status, tag=tags.STATE)
    answer = client.update(UID, CHANGE)
    assert (answer.code, answer.comment) == (status.code, shortened(f"(0074,1000) {status.meaning}"))
    assert answer.offending == tags.STATE


def test_ps3_7_annex_c_a_refusal_names_every_attribute_at_fault(rig: DimseRig, client: UpsClient) -> None:
    request = workitems.changed(
        workitems.minimal(),
        t00741204=None,
        t00404005=None,
        t00741200=element("CS", "URGENT"),
        t00404018=element("SQ", {tags.CODE_VALUE: element("SH", "X")}),
    )
    rig.worklist.error = refused_create(request)
    answer = client.create(request, UID)
    assert answer.code == 0x0120
    assert [f"{int(tag):08X}" for tag in answer.command["AttributeIdentifierList"]] == [
        "00404005",
        "00741204",
        "00404018",
        "00741200",
    ]
    assert [f"{int(tag):08X}" for tag in answer.command["OffendingElement"]] == [
        "00404005",
        "00741204",
        "00080104",
        "00080102",
        "00741200",
    ]
    assert answer.comment == "(0040,4005) (0074,1204) (0040,4018)>(0008,0104),(0008,0102).."


def test_comments_say_what_was_corrected_with_tags_first() -> None:
    details = ("PatientName (0010,0010), PatientSex (0010,0040) were added empty",)
    assert comment_on(Outcome(statuses.CREATED_MODIFIED, UID, details=details)) == (
        "(0010,0010) (0010,0040) PatientName, PatientSex were added empty"
    )
    nameless = ("(0000,0002), (0000,1000) were left out, in item 1 of Sequence (0040,4018)",)
    assert comment_on(Outcome(statuses.UPDATED_MODIFIED, UID, details=nameless)) == (
        "(0000,0002) (0000,1000) (0040,4018) were left out, in item 1.."
    )
    assert comment_on(Outcome(statuses.ALREADY_CANCELED, UID)) == statuses.ALREADY_CANCELED.meaning


def test_error_comments_fit_and_are_cut_between_words() -> None:
    assert shortened("short") == "short"
    long = shortened("PatientName (0010,0010) is not valid: expected a person name of at most 5 components")
    assert long == "PatientName (0010,0010) is not valid: expected a person name.."
    assert len(shortened("x" * 100)) == 64
    assert shortened("name Ä\\ö…") == "name ?/?..."


BROKEN = encode(workitems.full(), EXPLICIT_SYNTAX)[:-7]


DEEP: DataSet = {tags.WORKITEM_CODE: element("SQ")}


for _ in range(40):
    DEEP = {tags.WORKITEM_CODE: element("SQ", DEEP)}


FAULTS = {
    "truncated": (BROKEN, 0x0110, 0x0110, 0xA900),
    "noise": (b"\xff" * 99, 0x0110, 0x0110, 0xA900),
    "too deep": (encode(DEEP, EXPLICIT_SYNTAX), 0x0106, 0x0115, 0xA900),
    "not in its character set": (
        b"\x08\0\5\0CS\x0a\0ISO_IR 192\x10\0\x20\0LO\2\0\xff\xfe",
        0x0106,
        0x0115,
        0xA900,
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_data_set_is_answered_and_changes_nothing(rig: DimseRig, fault: str) -> None:
    data, for_set, for_action, for_find = FAULTS[fault]
    with RawPeer(rig.port, tags.PUSH) as push, RawPeer(rig.port, tags.PULL) as pull:
        assert push.ask(raw_dimse.operation(CommandField.N_CREATE), data).number(STATUS) == for_set
        assert pull.ask(raw_dimse.operation(CommandField.N_SET), data).number(STATUS) == for_set
        action = raw_dimse.operation(CommandField.N_ACTION, action=1)
        assert pull.ask(action, data).number(STATUS) == for_action
        assert pull.ask(raw_dimse.find(), data).number(STATUS) == for_find
        assert pull.ask(raw_dimse.operation(CommandField.N_GET)).number(STATUS) == 0xC307
    assert not rig.worklist.commands


def test_a_data_set_beyond_the_limit_is_thrown_away_as_it_comes() -> None:
    with DimseRig(Settings(maximum_data_set_size=100_000)) as rig, RawPeer(rig.port, tags.PUSH) as peer:
        command = raw_dimse.operation(CommandField.N_CREATE)
        answer = peer.ask(command, b"\0" * 200_000)
        assert (answer.number(STATUS), answer.text(ERROR_COMMENT)) == (
            0x0213,
            "no room for the data set (at most 100000 bytes)",
        )
        assert peer.ask(command, encode(workitems.minimal(), EXPLICIT_SYNTAX)).number(STATUS) == 0


def test_a_large_data_set_within_the_limit_is_taken(rig: DimseRig) -> None:
    attributes = workitems.minimal(
        t00400400=element("LT", "x" * 10_000), t0040A160=element("UT", "é" * 2_000_000)
    )
    with RawPeer(rig.port, tags.PUSH) as peer:
        encoded = encode(attributes, EXPLICIT_SYNTAX)
        assert peer.ask(raw_dimse.operation(CommandField.N_CREATE, UID), encoded).number(STATUS) == 0
    assert rig.worklist.commands == [Create(SCU, UID, attributes)]


def test_a_mistake_of_ours_is_answered_and_logged(
    rig: DimseRig, client: UpsClient, caplog: pytest.LogCaptureFixture
) -> None:
    rig.worklist.error = ValueError("a mistake of ours")
    with caplog.at_level(logging.ERROR, "orthanc_ups.dimse"):
        answer = client.update(UID, CHANGE)
    assert (answer.code, answer.comment) == (0x0110, "internal error")
    assert "a mistake of ours" in caplog.text
    assert client.echo().code == 0


def test_a_command_is_carried_out_though_its_sender_has_gone(rig: DimseRig) -> None:
    gate = asyncio.Event()
    rig.worklist.before_execute = gate.wait
    with RawPeer(rig.port, tags.PUSH) as peer:
        peer.post(
            raw_dimse.operation(CommandField.N_CREATE, UID), encode(workitems.minimal(), EXPLICIT_SYNTAX)
        )
        rig.wait_for_associations(1)
    rig.loop.loop.call_soon_threadsafe(gate.set)
    rig.wait_for_associations(0)
    wait_until(lambda: rig.worklist.commands, "the command is carried out")
    assert [command.uid for command in rig.worklist.commands] == [UID]


def test_requests_that_were_sent_together_are_answered_in_order(rig: DimseRig) -> None:
    with RawPeer(rig.port, raw_dimse.VERIFICATION) as peer:
        for number in range(1, 41):
            peer.post(raw_dimse.echo(number))
        assert [peer.answer().number(0x0120) for _ in range(40)] == list(range(1, 41))
        peer.release()


def test_the_log_knows_no_patient_and_no_transaction_uid(
    rig: DimseRig, client: UpsClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "orthanc_ups.dimse"):
        rig.worklist.error = UpsError(statuses.WRONG_TRANSACTION_UID)
        client.create(workitems.full("latin-1"), UID)
        client.change_state(UID, "IN PROGRESS", TRANSACTION)
        client.update(UID, {"00100010": element("PN", workitems.person("latin-1"))}, TRANSACTION)
        client.find({"00100010": element("PN", workitems.person("latin-1"))})
    ours = "\n".join(
        record.getMessage() for record in caplog.records if record.name.startswith("orthanc_ups")
    )
    assert ours
    assert TRANSACTION not in ours
    assert "ngstr" not in ours


def test_pynetdicom_takes_the_answer_of_a_refusal_for_valid(rig: DimseRig, client: UpsClient) -> None:
    rig.worklist.error = UpsError(statuses.INVALID_VALUE, "wrong", tags.STATE)
    for answer in (
        client.create(workitems.minimal(), UID),
        client.update(UID, CHANGE),
        client.change_state(UID, "COMPLETED", TRANSACTION),
    ):
        assert answer.code == 0x0106
    assert client.association.is_established
