# SPDX-License-Identifier: AGPL-3.0-or-later
"""N-ACTION on the wire, asked by pynetdicom (PS3.4 CC.2.1 to CC.2.3)."""

from collections.abc import Iterator

import pytest

from orthanc_ups.core import statuses, tags
from orthanc_ups.core.commands import ChangeState, RequestCancel, Requester, Subscribe, Suspend, Unsubscribe
from orthanc_ups.core.dataset import DataSet, element
from orthanc_ups.core.outcome import Outcome
from orthanc_ups.dimse.data_sets import EXPLICIT as EXPLICIT_SYNTAX
from orthanc_ups.dimse.data_sets import encode
from orthanc_ups.dimse.message import ERROR_COMMENT, OFFENDING_ELEMENT, STATUS, CommandField
from orthanc_ups.settings import Settings
from tests.support import raw_dimse, workitems
from tests.support.dimse_client import (
    UpsClient,
)
from tests.support.dimse_server import DimseRig
from tests.support.raw_dimse import RawPeer

UID = workitems.uid(1)


SCU = Requester("SCU", "DIMSE")


TRANSACTION = "2.25.4711"


@pytest.fixture
def strict_rig() -> Iterator[DimseRig]:
    with DimseRig(Settings(strict=True)) as running:
        yield running


def receiving(lock: str | None = None, ae: str = "WATCHER") -> DataSet:
    locked = {tags.DELETION_LOCK: element("LO", lock)} if lock else {}
    return {**locked, tags.RECEIVING_AE: element("AE", ae)}


def test_cc_2_1_change_state(rig: DimseRig, client: UpsClient) -> None:
    answer = client.change_state(UID, "IN PROGRESS", TRANSACTION)
    client.change_state(UID, "COMPLETED", None)
    assert rig.worklist.commands == [
        ChangeState(SCU, UID, "IN PROGRESS", TRANSACTION),
        ChangeState(SCU, UID, "COMPLETED", None),
    ]
    assert answer.command["ActionTypeID"] == 1


@pytest.mark.parametrize(
    ("state", "transaction"),
    [
        *(("IN PROGRESS", transaction) for transaction in ("mine", "1.02", "1..2", "9" * 65)),
        *((state, TRANSACTION) for state in ("completed", "In_Progress", "CANCELLED")),
    ],
)
def test_cc_2_1_transaction_uids_that_are_none_and_spellings_of_states_are_for_the_rules_to_judge(
    rig: DimseRig, state: str, transaction: str
) -> None:
    information = {
        tags.STATE: element("CS", state),
        tags.TRANSACTION_UID: element("UI", transaction),
    }
    with RawPeer(rig.port, tags.PULL) as peer:
        command = raw_dimse.operation(CommandField.N_ACTION, UID, action=1)
        assert peer.ask(command, encode(information, EXPLICIT_SYNTAX)).number(STATUS) == 0
    assert rig.worklist.commands == [ChangeState(SCU, UID, state, transaction)]


@pytest.mark.parametrize(
    "status", [statuses.ALREADY_CANCELED, statuses.ALREADY_COMPLETED], ids=lambda status: status.name
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


def test_ps3_7_c_a_refused_subscription_names_every_argument_at_fault(client: UpsClient) -> None:
    answer = client.action(3, UID, {tags.REQUESTING_AE: element("AE", "SCU")})
    assert answer.code == 0x0115
    assert [int(tag) for tag in answer.command["OffendingElement"]] == [0x00741234, 0x00741230]


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
    "unknown argument of 1": (
        1,
        0x0114,
        {tags.STATE: element("CS", "COMPLETED"), tags.LABEL: element("LO", "x")},
        0,
        tags.LABEL,
    ),
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
def test_ps3_7_10_1_4_wrong_arguments_of_actions_are_named(strict_rig: DimseRig, case: str) -> None:
    rig = strict_rig
    number, code, information, _, tag = WRONG_ARGUMENTS[case]
    on = tags.PULL if number == 1 else tags.WATCH
    with RawPeer(rig.port, on) as peer:
        command = raw_dimse.operation(CommandField.N_ACTION, UID, action=number)
        answer = peer.ask(command, encode(information, EXPLICIT_SYNTAX))
        assert answer.number(STATUS) == code
        assert answer.tags(OFFENDING_ELEMENT) == ((tag,) if tag else ())
        assert answer.text(ERROR_COMMENT)
        assert not rig.worklist.commands
        assert peer.ask(raw_dimse.operation(CommandField.N_GET, UID)).number(STATUS) == 0xC307


STATE: DataSet = {tags.STATE: element("CS", "IN PROGRESS")}
TRANSACTION_UID: DataSet = {tags.TRANSACTION_UID: element("UI", TRANSACTION)}
REQUESTING: DataSet = {tags.REQUESTING_AE: element("AE", "RIS")}
CLASS: DataSet = {"00080016": element("UI", tags.PUSH)}
LABEL: DataSet = {tags.LABEL: element("LO", "x")}
HARMLESS = {
    "receiving AE of 1": (1, {**STATE, **TRANSACTION_UID, **receiving("TRUE"), **REQUESTING, **CLASS}),
    "state as LO of 1": (1, {tags.STATE: element("LO", "IN PROGRESS"), **TRANSACTION_UID}),
    "transaction and state of 2": (2, {**STATE, **TRANSACTION_UID, **REQUESTING, **CLASS}),
    "transaction UID of 3": (3, {**receiving("TRUE"), **TRANSACTION_UID, **REQUESTING, **CLASS}),
    "lock in lower case of 3": (3, receiving("true")),
    "lock of 4": (4, receiving("TRUE")),
    "filter of 4": (4, {**receiving(), **LABEL, **STATE}),
    "lock of 5": (5, {**receiving("FALSE"), **LABEL}),
}


@pytest.mark.parametrize("case", HARMLESS)
def test_cc_2_1_to_cc_2_3_arguments_of_other_actions_are_ignored(
    rig: DimseRig, client: UpsClient, case: str
) -> None:
    number, information = HARMLESS[case]
    uid = tags.GLOBAL_SUBSCRIPTION if number == 5 else UID
    on = tags.PULL if number == 1 else tags.WATCH
    assert client.action(number, uid, information, on=on).code == 0
    expected = {
        1: ChangeState(SCU, uid, "IN PROGRESS", TRANSACTION),
        2: RequestCancel(SCU, uid),
        3: Subscribe(SCU, uid, "WATCHER", True),
        4: Unsubscribe(SCU, uid, "WATCHER"),
        5: Suspend(SCU, uid, "WATCHER"),
    }
    assert rig.worklist.commands == [expected[number]]


LOST = {
    "performed procedure of 1": (1, {**STATE, **TRANSACTION_UID, **LABEL}),
    "label of 2": (2, LABEL),
    "key of 3": (3, {**receiving("TRUE"), **LABEL}),
    "state as key of 3": (3, {**receiving("TRUE"), **STATE}),
}


@pytest.mark.parametrize("case", LOST)
def test_ps3_7_10_1_4_information_that_would_be_lost_is_0114(
    rig: DimseRig, client: UpsClient, case: str
) -> None:
    number, information = LOST[case]
    on = tags.PULL if number == 1 else tags.WATCH
    assert client.action(number, UID, information, on=on).code == 0x0114
    assert rig.worklist.commands == []


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
