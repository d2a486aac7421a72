# SPDX-License-Identifier: AGPL-3.0-or-later
"""N-CREATE, N-SET and N-GET on the wire, asked by pynetdicom, and what each context allows."""

from typing import Any

import pytest

from orthanc_ups.core import statuses, tags
from orthanc_ups.core.commands import Create, Requester, Update
from orthanc_ups.core.dataset import DataSet, element
from orthanc_ups.core.decide import is_uid
from orthanc_ups.core.outcome import Outcome
from orthanc_ups.dimse.data_sets import EXPLICIT as EXPLICIT_SYNTAX
from orthanc_ups.dimse.data_sets import encode
from orthanc_ups.dimse.message import AFFECTED_CLASS, STATUS, CommandField
from tests.support import raw_dimse, workitems
from tests.support.dimse_client import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    UPS_CLASSES,
    VERIFICATION,
    UpsClient,
    to_pydicom,
)
from tests.support.dimse_server import DimseRig
from tests.support.raw_dimse import RawPeer, echo

UID = workitems.uid(1)


SCU = Requester("SCU", "DIMSE")


TRANSACTION = "2.25.4711"


CHANGE: DataSet = {tags.LABEL: element("LO", "Other")}


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED])
def test_ps3_5_annex_a_every_uncompressed_transfer_syntax_is_spoken(rig: DimseRig, syntax: str) -> None:
    dataset = workitems.full("japanese")
    rig.worklist.workitems[UID] = dataset
    with UpsClient(rig.port, syntaxes=[syntax]) as client:
        assert client.accepted == dict.fromkeys((*UPS_CLASSES, VERIFICATION), syntax)
        assert client.create(workitems.minimal(t00100010=element("PN", workitems.person("greek")))).code == 0
        assert client.get(UID, ["00100010"]).attributes == {"00100010": dataset["00100010"]}
    assert isinstance(rig.worklist.commands[0], Create)
    assert rig.worklist.commands[0].attributes["00100010"] == element("PN", workitems.person("greek"))


OPERATIONS = {
    "N-CREATE": lambda client, on: client.create(workitems.minimal(), UID, on=on),
    "N-SET": lambda client, on: client.update(UID, CHANGE, on=on),
    "N-GET": lambda client, on: client.get(UID, on=on),
    "N-ACTION 1": lambda client, on: client.change_state(UID, "IN PROGRESS", TRANSACTION, on=on),
    "N-ACTION 2": lambda client, on: client.request_cancel(UID, on=on),
    "N-ACTION 3": lambda client, on: client.action(3, UID, receiving("FALSE"), on=on),
    "N-ACTION 4": lambda client, on: client.action(4, UID, receiving(), on=on),
    "N-ACTION 5": lambda client, on: client.action(5, tags.GLOBAL_SUBSCRIPTION, receiving(), on=on),
    "C-FIND": lambda client, on: client.find({tags.STATE: element("CS")}, on=on)[-1],
}


ALLOWED = {
    tags.PUSH: {"N-CREATE", "N-GET", "N-ACTION 2"},
    tags.WATCH: {"N-GET", "C-FIND", "N-ACTION 2", "N-ACTION 3", "N-ACTION 4", "N-ACTION 5"},
    tags.PULL: {"N-SET", "N-GET", "C-FIND", "N-ACTION 1"},
    tags.QUERY: {"C-FIND"},
    tags.EVENT: set(),
}


def receiving(lock: str | None = None, ae: str = "WATCHER") -> DataSet:
    locked = {tags.DELETION_LOCK: element("LO", lock)} if lock else {}
    return {**locked, tags.RECEIVING_AE: element("AE", ae)}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("on", UPS_CLASSES)
def test_cc_2_table_1_each_service_on_the_contexts_that_allow_it(
    rig: DimseRig, client: UpsClient, on: str, operation: str
) -> None:
    rig.worklist.workitems[UID] = workitems.stored()
    answer = OPERATIONS[operation](client, on)
    if operation in ALLOWED[on]:
        assert answer.code == 0
    else:
        wrong_action = operation.startswith("N-ACTION") and on in (tags.PUSH, tags.WATCH, tags.PULL)
        no_such_service = 0x0122 if operation == "C-FIND" else 0x0211
        assert answer.code == (0x0123 if wrong_action else no_such_service)
        assert answer.comment
        assert not rig.worklist.commands
    assert client.echo().code == 0


@pytest.mark.parametrize("sop_class", UPS_CLASSES)
def test_cc_3_1_any_ups_class_in_the_message_is_taken_and_push_is_answered(
    client: UpsClient, sop_class: str
) -> None:
    answer = client.create(workitems.minimal(), UID, as_class=sop_class)
    assert (answer.code, answer.command["AffectedSOPClassUID"]) == (0, tags.PUSH)


@pytest.mark.parametrize("sop_class", [tags.PUSH, "1.2.840.10008.5.1.4.31"])
def test_ps3_7_9_1_5_c_echo_with_another_class_than_verification_is_0122(
    rig: DimseRig, sop_class: str
) -> None:
    with RawPeer(rig.port, VERIFICATION) as peer:
        answer = peer.ask({**echo(), AFFECTED_CLASS: sop_class})
        assert answer.number(STATUS) == 0x0122
        assert peer.echo() == 0


def test_a_class_that_is_no_ups_is_refused(rig: DimseRig, client: UpsClient) -> None:
    assert client.create(workitems.minimal(), UID, as_class="1.2.840.10008.3.1.2.3.3").code == 0x0118
    assert client.action(2, UID, None, as_class="1.2.840.10008.1.20.1").code == 0x0118
    assert not rig.worklist.commands


@pytest.mark.parametrize("who", workitems.PEOPLE)
def test_cc_2_5_n_create_hands_over_the_workitem_without_loss(rig: DimseRig, who: str) -> None:
    dataset = workitems.full(who)
    with RawPeer(rig.port, tags.PUSH) as peer:
        encoded = encode(dataset, EXPLICIT_SYNTAX)
        answer = peer.ask(raw_dimse.operation(CommandField.N_CREATE, UID), encoded)
    assert answer.number(STATUS) == 0
    assert rig.worklist.commands == [Create(SCU, UID, dataset)]


def test_ps3_7_10_1_5_without_instance_uid_we_choose_one_and_tell_it(
    rig: DimseRig, client: UpsClient
) -> None:
    answer = client.create(workitems.minimal())
    assert is_uid(answer.uid)
    assert answer.uid.startswith("2.25.")
    assert rig.worklist.commands[0].uid == answer.uid


def test_a_repeated_instance_uid_counts_if_there_is_no_other(rig: DimseRig, client: UpsClient) -> None:
    attributes = workitems.minimal(t00080018=element("UI", UID))
    assert client.create(attributes).uid == UID
    assert client.create(attributes, UID).code == 0
    refused = client.create(attributes, workitems.uid(2))
    assert (refused.code, refused.offending) == (0x0106, tags.SOP_INSTANCE_UID)
    assert [command.uid for command in rig.worklist.commands] == [UID, UID]


def test_cc_2_5_3_b300_comes_with_what_was_modified(rig: DimseRig, client: UpsClient) -> None:
    stored: DataSet = {tags.WORKLIST_LABEL: element("LO", "DEFAULT")}
    modified = Outcome(statuses.CREATED_MODIFIED, UID, stored, ("Worklist Label was filled",))
    rig.worklist.outcome = lambda command: modified
    answer = client.create(workitems.minimal(), UID)
    assert (answer.code, answer.attributes, answer.uid) == (0xB300, stored, UID)
    assert answer.comment == "Worklist Label was filled"


def test_cc_2_6_n_set_takes_the_transaction_uid_out_of_the_modification_list(
    rig: DimseRig, client: UpsClient
) -> None:
    client.update(UID, workitems.progress(), TRANSACTION)
    client.update(UID, {tags.LABEL: element("LO", "Other")})
    client.update(UID, {tags.TRANSACTION_UID: element("UI"), tags.LABEL: element("LO")})
    first, second, third = rig.worklist.commands
    assert isinstance(first, Update)
    assert (first.uid, first.transaction, list(first.attributes)) == (
        UID,
        TRANSACTION,
        [tags.PROGRESS_INFORMATION],
    )
    assert second == Update(SCU, UID, {tags.LABEL: element("LO", "Other")}, None)
    assert third == Update(SCU, UID, {tags.LABEL: element("LO")}, None)


def test_several_transaction_uids_are_none(rig: DimseRig, client: UpsClient) -> None:
    answer = client.update(UID, {tags.TRANSACTION_UID: element("UI", TRANSACTION, "1.2.3")})
    assert (answer.code, answer.offending) == (0x0106, tags.TRANSACTION_UID)
    assert not rig.worklist.commands


def test_cc_2_6_3_b305_comes_with_what_was_coerced(rig: DimseRig, client: UpsClient) -> None:
    stored: DataSet = {tags.LABEL: element("LO", "Cut")}
    rig.worklist.outcome = lambda command: Outcome(statuses.UPDATED_MODIFIED, UID, stored, ("cut",))
    answer = client.update(UID, {tags.LABEL: element("LO", "Cut off")})
    assert (answer.code, answer.attributes) == (0xB305, stored)


def test_cc_2_7_n_get_without_list_gives_everything_but_the_transaction_uid(
    rig: DimseRig, client: UpsClient
) -> None:
    rig.worklist.workitems[UID] = workitems.stored() | {tags.TRANSACTION_UID: element("UI", TRANSACTION)}
    answer = client.get(UID)
    assert answer.code == 0
    assert answer.attributes.keys() == workitems.stored().keys()
    assert TRANSACTION not in repr(answer)


def test_cc_2_7_n_get_gives_what_is_asked_for_empty_if_absent(rig: DimseRig, client: UpsClient) -> None:
    rig.worklist.workitems[UID] = workitems.stored()
    answer = client.get(UID, [tags.STATE, tags.EXPIRATION, tags.SPECIFIC_CHARACTER_SET])
    assert answer.code == 0
    assert answer.attributes == {tags.EXPIRATION: element("DT"), tags.STATE: element("CS", "SCHEDULED")}


@pytest.mark.parametrize(
    ("tag", "applies"),
    [
        (tags.EXPIRATION, True),
        ("00100030", True),
        ("00404021", True),
        (tags.STATE, False),
        (tags.SPECIFIC_CHARACTER_SET, False),
    ],
)
def test_ps3_3_c_12_1_1_8_n_get_of_dates_and_times_comes_with_their_timezone_offset(
    rig: DimseRig, client: UpsClient, tag: str, applies: bool
) -> None:
    offset = {tags.TIMEZONE_OFFSET: element("SH", "+0100")}
    rig.worklist.workitems[UID] = workitems.stored() | offset
    answer = client.get(UID, [tag])
    assert answer.code == 0
    assert (tags.TIMEZONE_OFFSET in answer.attributes) == applies


def test_ps3_5_7_8_1_n_get_of_a_private_attribute_comes_with_its_creator(
    rig: DimseRig, client: UpsClient
) -> None:
    private = {"00110010": element("LO", "SOMEBODY"), "00111001": element("SH", "X")}
    rig.worklist.workitems[UID] = workitems.stored() | private
    assert client.get(UID, ["00111001"]).attributes == private


@pytest.mark.parametrize("tag", ["00091001", "00280010", tags.TRANSACTION_UID])
def test_cc_2_7_3_what_is_not_supported_is_left_out_with_warning_0001(
    rig: DimseRig, client: UpsClient, tag: str
) -> None:
    rig.worklist.workitems[UID] = workitems.stored() | {tags.TRANSACTION_UID: element("UI", TRANSACTION)}
    answer = client.get(UID, [tags.STATE, tag])
    assert (answer.code, answer.attributes) == (0x0001, {tags.STATE: element("CS", "SCHEDULED")})
    assert f"({tag[:4]},{tag[4:]})" in answer.comment


@pytest.mark.parametrize("uid", [workitems.uid(404), tags.GLOBAL_SUBSCRIPTION])
def test_cc_2_7_3_what_is_no_workitem_is_c307(client: UpsClient, uid: str) -> None:
    assert client.get(uid).code == 0xC307


@pytest.mark.parametrize("field", [CommandField.N_GET, CommandField.N_SET, CommandField.N_ACTION])
def test_a_missing_or_impossible_instance_uid_is_0117(rig: DimseRig, field: CommandField) -> None:
    action = {"action": 1} if field is CommandField.N_ACTION else {}
    with RawPeer(rig.port, tags.PULL) as peer:
        for uid in ("", "1.02.3", "UPS-1", "1." + "2" * 70):
            assert peer.ask(raw_dimse.operation(field, uid, **action)).number(STATUS) == 0x0117
    assert not rig.worklist.commands


def test_text_of_answers_goes_out_in_utf_8(rig: DimseRig, client: UpsClient) -> None:
    rig.worklist.workitems[UID] = workitems.stored(base=workitems.full("cyrillic"))
    answer: Any = client.association.send_n_get([0x00100010], tags.PUSH, UID)[1]
    assert answer.SpecificCharacterSet == "ISO_IR 192"
    assert str(answer.PatientName) == workitems.PEOPLE["cyrillic"]["Alphabetic"]


def test_to_pydicom_is_honest() -> None:
    assert to_pydicom(workitems.full("greek")).SpecificCharacterSet == "ISO_IR 192"
