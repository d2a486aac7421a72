# SPDX-License-Identifier: AGPL-3.0-or-later
"""Each DIMSE service on the wire, asked by pynetdicom, with a worklist that does as it is told."""

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from pydicom import Dataset

from orthanc_ups.core import statuses, tags
from orthanc_ups.core.commands import (
    ChangeState,
    Create,
    RequestCancel,
    Requester,
    Subscribe,
    Suspend,
    Unsubscribe,
    Update,
)
from orthanc_ups.core.dataset import DataSet, element
from orthanc_ups.core.decide import is_uid
from orthanc_ups.core.statuses import UpsError
from orthanc_ups.outcome import Outcome
from orthanc_ups.settings import Settings
from orthanc_ups.wires.dimse_encode import encode
from orthanc_ups.wires.dimse_exchange import shortened
from orthanc_ups.wires.dimse_message import ERROR_COMMENT, OFFENDING_ELEMENT, STATUS, Field
from orthanc_ups.wires.dimse_syntax import EXPLICIT as EXPLICIT_SYNTAX
from tests.support import dimse_raw, workitems
from tests.support.dimse_client import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    UPS_CLASSES,
    VERIFICATION,
    Answer,
    UpsClient,
    to_pydicom,
)
from tests.support.dimse_raw import RawPeer
from tests.support.dimse_server import DimseRig

UID = workitems.uid(1)
SCU = Requester("SCU", "DIMSE")
TRANSACTION = "2.25.4711"
CHANGE: DataSet = {tags.LABEL: element("LO", "Other")}
NAME_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")


@pytest.fixture
def rig() -> Iterator[DimseRig]:
    with DimseRig() as running:
        yield running


@pytest.fixture
def client(rig: DimseRig) -> Iterator[UpsClient]:
    with UpsClient(rig.port) as open_client:
        yield open_client


# --- contexts and classes ------------------------------------------------------------------------


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
        assert answer.code == (0x0123 if wrong_action else 0x0122)
        assert answer.comment
        assert not rig.worklist.commands
    assert client.echo().code == 0


@pytest.mark.parametrize("sop_class", UPS_CLASSES)
def test_cc_3_1_any_ups_class_in_the_message_is_taken_and_push_is_answered(
    client: UpsClient, sop_class: str
) -> None:
    answer = client.create(workitems.minimal(), UID, as_class=sop_class)
    assert (answer.code, answer.command["AffectedSOPClassUID"]) == (0, tags.PUSH)


def test_a_class_that_is_no_ups_is_refused(rig: DimseRig, client: UpsClient) -> None:
    assert client.create(workitems.minimal(), UID, as_class="1.2.840.10008.3.1.2.3.3").code == 0x0118
    assert client.action(2, UID, None, as_class="1.2.840.10008.1.20.1").code == 0x0118
    assert not rig.worklist.commands


def test_an_unknown_dimse_service_is_refused_and_the_association_kept(rig: DimseRig) -> None:
    with RawPeer(rig.port, tags.PUSH) as peer:
        for field in (Field.C_STORE, Field.N_DELETE, Field.N_EVENT_REPORT):
            answer = peer.ask(dimse_raw.operation(field))
            assert (answer.field, answer.number(STATUS)) == (field | 0x8000, 0x0122)
        assert peer.ask(dimse_raw.operation(Field.N_GET)).number(STATUS) == 0xC307


# --- N-CREATE (PS3.4 CC.2.5) ---------------------------------------------------------------------


@pytest.mark.parametrize("who", workitems.PEOPLE)
def test_cc_2_5_n_create_hands_over_the_workitem_without_loss(rig: DimseRig, who: str) -> None:
    dataset = workitems.full(who)
    with RawPeer(rig.port, tags.PUSH) as peer:
        encoded = encode(dataset, EXPLICIT_SYNTAX)
        answer = peer.ask(dimse_raw.operation(Field.N_CREATE, UID), encoded)
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
    assert [one.uid for one in rig.worklist.commands] == [UID, UID]


def test_cc_2_5_3_b300_comes_with_what_was_modified(rig: DimseRig, client: UpsClient) -> None:
    told: DataSet = {tags.WORKLIST_LABEL: element("LO", "DEFAULT")}
    modified = Outcome(statuses.CREATED_MODIFIED, UID, told, ("Worklist Label was filled",))
    rig.worklist.outcome = lambda command: modified
    answer = client.create(workitems.minimal(), UID)
    assert (answer.code, answer.attributes, answer.uid) == (0xB300, told, UID)
    assert answer.comment == "Worklist Label was filled"


def test_a_refusal_names_the_attribute(rig: DimseRig, client: UpsClient) -> None:
    path = f"{tags.STATION_NAME}.{tags.CODE_VALUE}"
    rig.worklist.error = UpsError(statuses.MISSING_ATTRIBUTE, "CodeValue (0008,0100) is missing", path)
    answer = client.create(workitems.minimal(), UID)
    assert (answer.code, answer.offending) == (0x0120, tags.CODE_VALUE)
    assert f"{int(answer.command['AttributeIdentifierList']):08X}" == tags.STATION_NAME
    assert answer.comment == "CodeValue (0008,0100) is missing"
    assert (answer.uid, answer.command["AffectedSOPClassUID"]) == (UID, tags.PUSH)


@pytest.mark.parametrize(
    "status", [one for one in statuses.REGISTER.values() if one.is_failure], ids=lambda one: one.name
)
def test_ps3_7_annex_c_every_failure_of_the_register_reaches_the_peer(
    rig: DimseRig, client: UpsClient, status: statuses.Status
) -> None:
    rig.worklist.error = UpsError(status, tag=tags.STATE)
    answer = client.update(UID, CHANGE)
    assert (answer.code, answer.comment) == (status.code, shortened(status.meaning))
    assert answer.offending == tags.STATE


def test_error_comments_fit_and_are_cut_between_words() -> None:
    assert shortened("short") == "short"
    long = shortened("PatientName (0010,0010) is not valid: expected a person name of at most 5 components")
    assert long == "PatientName (0010,0010) is not valid: expected a person name.."
    assert len(shortened("x" * 100)) == 64
    assert shortened("name Ä\\ö…") == "name ?/?..."


# --- N-SET (PS3.4 CC.2.6) ------------------------------------------------------------------------


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
    told: DataSet = {tags.LABEL: element("LO", "Cut")}
    rig.worklist.outcome = lambda command: Outcome(statuses.UPDATED_MODIFIED, UID, told, ("cut",))
    answer = client.update(UID, {tags.LABEL: element("LO", "Cut off")})
    assert (answer.code, answer.attributes) == (0xB305, told)


# --- N-GET (PS3.4 CC.2.7) ------------------------------------------------------------------------


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


@pytest.mark.parametrize("field", [Field.N_GET, Field.N_SET, Field.N_ACTION])
def test_a_missing_or_impossible_instance_uid_is_0117(rig: DimseRig, field: Field) -> None:
    action = {"action": 1} if field is Field.N_ACTION else {}
    with RawPeer(rig.port, tags.PULL) as peer:
        for uid in ("", "1.02.3", "UPS-1", "1." + "2" * 70):
            assert peer.ask(dimse_raw.operation(field, uid, **action)).number(STATUS) == 0x0117
    assert not rig.worklist.commands


# --- N-ACTION (PS3.4 CC.2.1 to CC.2.3) -----------------------------------------------------------


def test_cc_2_1_change_state(rig: DimseRig, client: UpsClient) -> None:
    answer = client.change_state(UID, "IN PROGRESS", TRANSACTION)
    client.change_state(UID, "COMPLETED", None)
    assert rig.worklist.commands == [
        ChangeState(SCU, UID, "IN PROGRESS", TRANSACTION),
        ChangeState(SCU, UID, "COMPLETED", None),
    ]
    assert answer.command["ActionTypeID"] == 1


@pytest.mark.parametrize(
    "status", [statuses.ALREADY_CANCELED, statuses.ALREADY_COMPLETED], ids=lambda one: one.name
)
def test_cc_2_1_warnings_reach_the_peer(rig: DimseRig, client: UpsClient, status: statuses.Status) -> None:
    rig.worklist.outcome = lambda command: Outcome(status, command.uid)
    assert client.change_state(UID, "COMPLETED", TRANSACTION).code == status.code


def test_cc_2_2_request_cancel_with_and_without_information(rig: DimseRig, client: UpsClient) -> None:
    information: DataSet = {
        tags.CONTACT_URI: element("UR", "tel:+49-40-0000000"),
        tags.DISCONTINUATION_REASONS: element("SQ", workitems.code("110514", "DCM", "Incorrect entry")),
        tags.REASON_FOR_CANCELLATION: element("LT", "Double booking"),
    }
    assert client.request_cancel(UID, on=tags.WATCH).code == 0
    assert client.request_cancel(UID, information).code == 0
    assert rig.worklist.commands == [RequestCancel(SCU, UID, {}), RequestCancel(SCU, UID, information)]


def test_cc_2_3_subscriptions(rig: DimseRig, client: UpsClient) -> None:
    filter: DataSet = {tags.WORKLIST_LABEL: element("LO", "CT")}
    client.subscribe(UID, "WATCHER")
    client.subscribe(tags.GLOBAL_SUBSCRIPTION, "WATCHER", lock=True)
    client.subscribe(tags.FILTERED_SUBSCRIPTION, "WATCHER", filter=filter)
    client.unsubscribe(UID, "WATCHER")
    client.suspend(tags.GLOBAL_SUBSCRIPTION, "WATCHER")
    assert rig.worklist.commands == [
        Subscribe(SCU, UID, "WATCHER", False),
        Subscribe(SCU, tags.GLOBAL_SUBSCRIPTION, "WATCHER", True),
        Subscribe(SCU, tags.FILTERED_SUBSCRIPTION, "WATCHER", False, filter),
        Unsubscribe(SCU, UID, "WATCHER"),
        Suspend(SCU, tags.GLOBAL_SUBSCRIPTION, "WATCHER"),
    ]


def test_cc_2_3_3_b301_tells_that_the_lock_was_not_granted(rig: DimseRig, client: UpsClient) -> None:
    rig.worklist.outcome = lambda command: Outcome(statuses.LOCK_NOT_GRANTED, command.uid)
    assert client.subscribe(UID, "WATCHER", lock=True).code == 0xB301


WRONG_ARGUMENTS: dict[str, tuple[int, int, DataSet, int, str | None]] = {
    "no state": (1, 0x0115, {tags.TRANSACTION_UID: element("UI", "1.2")}, 0, tags.STATE),
    "empty state": (1, 0x0115, {tags.STATE: element("CS")}, 0, tags.STATE),
    "two states": (1, 0x0115, {tags.STATE: element("CS", "COMPLETED", "CANCELED")}, 0, tags.STATE),
    "state of another VR": (1, 0x0212, {tags.STATE: element("LO", "COMPLETED")}, 0, tags.STATE),
    "two transaction uids": (
        1,
        0x0115,
        {tags.STATE: element("CS", "COMPLETED"), tags.TRANSACTION_UID: element("UI", "1.2", "1.3")},
        0,
        tags.TRANSACTION_UID,
    ),
    "transaction uid is none": (
        1,
        0x0115,
        {tags.STATE: element("CS", "COMPLETED"), tags.TRANSACTION_UID: element("UI", "mine")},
        0,
        tags.TRANSACTION_UID,
    ),
    "unknown argument of 1": (
        1,
        0x0114,
        {tags.STATE: element("CS", "COMPLETED"), tags.LABEL: element("LO", "x")},
        0,
        tags.LABEL,
    ),
    "unknown argument of 2": (2, 0x0114, {tags.LABEL: element("LO", "x")}, 0, tags.LABEL),
    "reason of another VR": (2, 0x0115, {tags.REASON_FOR_CANCELLATION: element("UT", "x")}, 0, "00741238"),
    "no receiving ae": (3, 0x0115, {tags.DELETION_LOCK: element("LO", "FALSE")}, 0, tags.RECEIVING_AE),
    "empty receiving ae": (
        3,
        0x0115,
        {tags.RECEIVING_AE: element("AE"), tags.DELETION_LOCK: element("LO", "FALSE")},
        0,
        tags.RECEIVING_AE,
    ),
    "two receiving aes": (4, 0x0115, {tags.RECEIVING_AE: element("AE", "ONE", "TWO")}, 0, tags.RECEIVING_AE),
    "receiving ae too long": (5, 0x0115, receiving(ae="SEVENTEEN-LETTERS"), 0, tags.RECEIVING_AE),
    "no lock": (3, 0x0115, receiving(), 0, tags.DELETION_LOCK),
    "lock is neither": (3, 0x0115, receiving("YES"), 0, tags.DELETION_LOCK),
    "lock of another VR": (
        3,
        0x0212,
        {tags.RECEIVING_AE: element("AE", "ONE"), tags.DELETION_LOCK: element("CS", "TRUE")},
        0,
        tags.DELETION_LOCK,
    ),
    "keys without filter": (
        3,
        0x0114,
        {**receiving("TRUE"), tags.LABEL: element("LO", "x")},
        0,
        tags.LABEL,
    ),
    "unknown argument of 4": (4, 0x0114, {**receiving(), tags.LABEL: element("LO", "x")}, 0, tags.LABEL),
    "lock of 5": (5, 0x0114, receiving("TRUE"), 0, tags.DELETION_LOCK),
}


@pytest.mark.parametrize("case", WRONG_ARGUMENTS)
def test_ps3_7_10_1_4_wrong_arguments_of_actions_are_named(rig: DimseRig, case: str) -> None:
    number, code, information, _, tag = WRONG_ARGUMENTS[case]
    on = tags.PULL if number == 1 else tags.WATCH
    with RawPeer(rig.port, on) as peer:
        command = dimse_raw.operation(Field.N_ACTION, UID, action=number)
        answer = peer.ask(command, encode(information, EXPLICIT_SYNTAX))
        assert answer.number(STATUS) == code
        assert answer.tags(OFFENDING_ELEMENT) == ((tag,) if tag else ())
        assert answer.text(ERROR_COMMENT)
        assert not rig.worklist.commands
        assert peer.ask(dimse_raw.operation(Field.N_GET, UID)).number(STATUS) == 0xC307


def test_a_filter_without_keys_is_refused(client: UpsClient) -> None:
    assert client.subscribe(tags.FILTERED_SUBSCRIPTION, "WATCHER", filter={}).code == 0x0115


@pytest.mark.parametrize("number", [0, 6, 65535])
def test_ps3_7_10_1_4_an_unknown_action_is_0123(client: UpsClient, number: int) -> None:
    assert client.action(number, UID, receiving()).code == 0x0123


def test_private_arguments_and_the_time_zone_do_no_harm(rig: DimseRig, client: UpsClient) -> None:
    more: DataSet = {
        "00091001": {"vr": "UN", "InlineBinary": "AQI="},
        tags.TIMEZONE_OFFSET: element("SH", "+0100"),
    }
    assert client.action(4, UID, {**receiving(), **more}).code == 0


# --- C-FIND (PS3.4 CC.2.8) -----------------------------------------------------------------------

ANY_STATE: DataSet = {tags.STATE: element("CS")}


def codes(answers: list[Answer]) -> list[int | None]:
    return [answer.code for answer in answers]


@pytest.mark.parametrize("on", [tags.PULL, tags.WATCH, tags.QUERY])
def test_cc_2_8_matches_are_pending_then_success(rig: DimseRig, client: UpsClient, on: str) -> None:
    found: DataSet = {
        tags.STATE: element("CS", "SCHEDULED"),
        "00100010": element("PN", workitems.person("japanese")),
    }
    rig.worklist.chunks = [[found, found], [found]]
    answers = client.find(ANY_STATE, on=on)
    assert codes(answers) == [0xFF00] * 3 + [0]
    assert [one.attributes for one in answers] == [found] * 3 + [{}]
    assert {one.command["AffectedSOPClassUID"] for one in answers} == {on}


def test_cc_2_8_keys_that_are_not_supported_make_it_ff01(rig: DimseRig, client: UpsClient) -> None:
    rig.worklist.chunks = [[ANY_STATE]]
    unsupported = {**ANY_STATE, "00281201": {"vr": "OW", "InlineBinary": "AQI="}}
    assert codes(client.find(unsupported)) == [0xFF01, 0]
    assert rig.worklist.queries[0].unsupported


def test_cc_2_8_an_identifier_without_keys_matches_nothing(rig: DimseRig, client: UpsClient) -> None:
    rig.worklist.chunks = [[ANY_STATE]]
    assert codes(client.find({tags.TIMEZONE_OFFSET: element("SH", "+0100")})) == [0]
    assert not rig.worklist.queries


@pytest.mark.parametrize(
    ("charset", "who"),
    [
        ("ISO_IR 192", "japanese"),
        ("\\ISO 2022 IR 87", "japanese"),
        ("ISO_IR 144", "cyrillic"),
        ("ISO_IR 126", "greek"),
        ("ISO_IR 100", "latin-1"),
    ],
)
def test_ps3_5_6_1_2_keys_are_understood_in_the_character_set_of_the_request(
    rig: DimseRig, client: UpsClient, charset: str, who: str
) -> None:
    stored = workitems.stored(base=workitems.full(who))
    rig.worklist.chunks = [[stored]]
    identifier = Dataset()
    identifier.SpecificCharacterSet = charset.split("\\") if "\\" in charset else charset
    identifier.PatientName = "=".join(
        workitems.person(who).get(one, "") for one in ("Alphabetic", "Ideographic", "Phonetic")
    )
    answers = client.find(identifier)
    assert rig.worklist.queries[0].matches(stored)
    assert answers[0].attributes["00100010"] == stored["00100010"]


def test_cc_2_8_c_cancel_ends_the_stream_with_fe00(rig: DimseRig, client: UpsClient) -> None:
    async def slowly() -> None:
        await asyncio.sleep(0.01)

    rig.worklist.chunks = [[ANY_STATE]] * 2000
    rig.worklist.before_chunk = slowly
    answers = client.find(ANY_STATE, cancel_after=3)
    assert answers[-1].code == 0xFE00
    assert len(answers) < 1000
    assert rig.worklist.streams_closed == 1
    rig.worklist.chunks = [[ANY_STATE]]
    assert codes(client.find(ANY_STATE)) == [0xFF00, 0]


def test_a_c_cancel_that_comes_with_its_request_is_honoured(rig: DimseRig) -> None:
    rig.worklist.chunks = [[ANY_STATE] * 100] * 10
    with RawPeer(rig.port, tags.PULL) as peer:
        peer.post(dimse_raw.find(number=7), encode(ANY_STATE, EXPLICIT_SYNTAX))
        peer.post(dimse_raw.cancel(7))
        code = 0xFF00
        while code == 0xFF00:
            code = peer.answer().number(STATUS) or 0
        assert code == 0xFE00


def test_a_c_cancel_of_something_else_is_ignored(rig: DimseRig) -> None:
    rig.worklist.chunks = [[ANY_STATE]]
    with RawPeer(rig.port, tags.PULL) as peer:
        peer.post(dimse_raw.cancel(1))
        assert peer.ask(dimse_raw.find(number=1), encode(ANY_STATE, EXPLICIT_SYNTAX)).number(STATUS) == 0xFF00
        assert peer.answer().number(STATUS) == 0


def test_a_peer_that_leaves_amid_the_answers_ends_the_stream(rig: DimseRig) -> None:
    rig.worklist.chunks = [[ANY_STATE] * 1000] * 1000
    with RawPeer(rig.port, tags.PULL) as peer:
        peer.post(dimse_raw.find(), encode(ANY_STATE, EXPLICIT_SYNTAX))
        assert peer.answer().number(STATUS) == 0xFF00
    rig.wait_for_associations(0)
    assert rig.worklist.streams_closed == 1
    assert rig.worklist.given < 1_000_000


def test_others_are_served_while_a_peer_gets_many_matches(rig: DimseRig, client: UpsClient) -> None:
    rig.worklist.chunks = [[ANY_STATE] * 5000] * 20
    with RawPeer(rig.port, tags.PULL) as greedy:
        greedy.post(dimse_raw.find(), encode(ANY_STATE, EXPLICIT_SYNTAX))  # and never reads
        assert client.echo().code == 0
        assert client.create(workitems.minimal()).code == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UpsError(statuses.RESOURCE_LIMITATION), 0xA700),
        (UpsError(statuses.PROCESSING_FAILURE), 0xA700),
        (UpsError(statuses.IDENTIFIER_MISMATCH), 0xA900),
        (ValueError("a mistake of ours"), 0xA700),
    ],
)
def test_cc_2_8_failures_amid_the_answers_have_statuses_of_c_find(
    rig: DimseRig, client: UpsClient, error: Exception, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    rig.worklist.chunks = [[ANY_STATE]]
    rig.worklist.error = error
    assert codes(client.find(ANY_STATE)) == [0xFF00, code]
    assert client.echo().code == 0


def test_cc_2_8_a_malformed_key_is_a900_and_named(rig: DimseRig) -> None:
    with RawPeer(rig.port, tags.PULL) as peer:
        identifier = encode({tags.START: element("DT", "tomorrow")}, EXPLICIT_SYNTAX)
        answer = peer.ask(dimse_raw.find(), identifier)
        assert (answer.number(STATUS), answer.tags(OFFENDING_ELEMENT)) == (0xA900, (tags.START,))


def test_a_c_find_without_identifier_is_a900(rig: DimseRig) -> None:
    with RawPeer(rig.port, tags.PULL) as peer:
        assert peer.ask(dimse_raw.find()).number(STATUS) == 0xA900


@pytest.mark.parametrize(
    ("asked", "answered", "fuzzy"),
    [
        (b"\1\1\1\1", b"\1\1\1\1", True),
        (b"\1\1\1\0", b"\1\1\1\0", True),
        (b"\1\1\0\1", b"\1\1\0\1", False),
        (b"\1\1\1", b"\1\1\1", True),
        (b"\1\1", b"\1\1", False),
    ],
)
def test_k_5_extended_negotiation_of_c_find(
    rig: DimseRig, asked: bytes, answered: bytes, fuzzy: bool
) -> None:
    with UpsClient(rig.port, extended=asked) as client:
        assert client.extended_answer == dict.fromkeys((tags.WATCH, tags.PULL, tags.QUERY), answered)
        client.find({"00100010": element("PN", {"Alphabetic": "Jensen"})})
    stored = {"00100010": element("PN", {"Alphabetic": "Jenssen^Kari"})}
    assert rig.worklist.queries[0].matches(stored) is fuzzy


def test_without_extended_negotiation_none_is_answered(client: UpsClient) -> None:
    assert client.extended_answer == {}


# --- whatever goes wrong -------------------------------------------------------------------------

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
        assert push.ask(dimse_raw.operation(Field.N_CREATE), data).number(STATUS) == for_set
        assert pull.ask(dimse_raw.operation(Field.N_SET), data).number(STATUS) == for_set
        action = dimse_raw.operation(Field.N_ACTION, action=1)
        assert pull.ask(action, data).number(STATUS) == for_action
        assert pull.ask(dimse_raw.find(), data).number(STATUS) == for_find
        assert pull.ask(dimse_raw.operation(Field.N_GET)).number(STATUS) == 0xC307
    assert not rig.worklist.commands


def test_a_data_set_beyond_the_limit_is_thrown_away_as_it_comes() -> None:
    with DimseRig(Settings(maximum_data_set_size=100_000)) as rig, RawPeer(rig.port, tags.PUSH) as peer:
        command = dimse_raw.operation(Field.N_CREATE)
        answer = peer.ask(command, b"\0" * 200_000)
        assert (answer.number(STATUS), answer.text(ERROR_COMMENT)) == (
            0x0213,
            "the data set is larger than 100000 bytes",
        )
        assert peer.ask(command, encode(workitems.minimal(), EXPLICIT_SYNTAX)).number(STATUS) == 0


def test_a_large_data_set_within_the_limit_is_taken(rig: DimseRig) -> None:
    attributes = workitems.minimal(
        t00400400=element("LT", "x" * 10_000), t0040A160=element("UT", "é" * 2_000_000)
    )
    with RawPeer(rig.port, tags.PUSH) as peer:
        encoded = encode(attributes, EXPLICIT_SYNTAX)
        assert peer.ask(dimse_raw.operation(Field.N_CREATE, UID), encoded).number(STATUS) == 0
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
    async def slowly() -> None:
        await asyncio.sleep(0.2)

    rig.worklist.before_execute = slowly
    with RawPeer(rig.port, tags.PUSH) as peer:
        peer.post(dimse_raw.operation(Field.N_CREATE, UID), encode(workitems.minimal(), EXPLICIT_SYNTAX))
    rig.wait_for_associations(1)
    rig.wait_for_associations(0)
    assert [one.uid for one in rig.worklist.commands] == [UID]


def test_requests_that_were_sent_together_are_answered_in_order(rig: DimseRig) -> None:
    with RawPeer(rig.port, dimse_raw.VERIFICATION) as peer:
        for number in range(1, 41):
            peer.post(dimse_raw.echo(number))
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


def test_text_of_answers_goes_out_in_utf_8(rig: DimseRig, client: UpsClient) -> None:
    rig.worklist.workitems[UID] = workitems.stored(base=workitems.full("cyrillic"))
    answer: Any = client.association.send_n_get([0x00100010], tags.PUSH, UID)[1]
    assert answer.SpecificCharacterSet == "ISO_IR 192"
    assert str(answer.PatientName) == workitems.PEOPLE["cyrillic"]["Alphabetic"]


def test_to_pydicom_is_honest() -> None:
    assert to_pydicom(workitems.full("greek")).SpecificCharacterSet == "ISO_IR 192"
