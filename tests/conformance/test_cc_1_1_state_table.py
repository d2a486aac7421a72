# SPDX-License-Identifier: AGPL-3.0-or-later
"""PS3.4 CC.1.1, Table CC.1.1-2: each request in each state with a right, missing and wrong Transaction UID."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.commands import ChangeState, Create, RequestCancel, Requester, Update
from orthanc_ups.core.dataset import DataSet, element, items, text
from orthanc_ups.core.decide import Circumstances, Decision, decide
from orthanc_ups.core.events import EventType
from orthanc_ups.core.states import State
from orthanc_ups.core.statuses import UpsError
from orthanc_ups.core.workitem import Workitem, digest
from tests.support.workitems import minimal, performed

UID, OWNER, STRANGER = "1.2.3.4", "2.25.1111", "2.25.2222"
NOW = Circumstances(datetime(2026, 11, 22, 18, 30, tzinfo=UTC))
REQUESTER = Requester("PERFORMER", "DIMSE")
SCHEDULED, IN_PROGRESS, COMPLETED, CANCELED = State


def workitem(state: State, *, ready_to_complete: bool = True) -> Workitem:
    """A stored workitem in a state; one that was claimed is owned by OWNER."""
    created = decide(None, Create(REQUESTER, UID, minimal()), NOW).workitem
    content: DataSet = {**created.attributes, tags.STATE: element("CS", state.value)}
    if ready_to_complete:
        content |= performed()
    owner = None if state is SCHEDULED else digest(OWNER)
    return replace(created, attributes=dict(sorted(content.items())), created=1, owner=owner)


def change(present: State, requested: State, transaction: str | None) -> Decision:
    return decide(workitem(present), ChangeState(REQUESTER, UID, requested.value, transaction), NOW)


CELLS = [
    # (requested, Transaction UID, codes in the states SCHEDULED, IN PROGRESS, COMPLETED, CANCELED)
    (IN_PROGRESS, OWNER, (0x0000, 0xC302, 0xC300, 0xC300)),
    (IN_PROGRESS, None, (0xC301, 0xC301, 0xC301, 0xC301)),
    (IN_PROGRESS, STRANGER, (0x0000, 0xC301, 0xC301, 0xC301)),
    (SCHEDULED, OWNER, (0xC303, 0xC303, 0xC303, 0xC303)),
    (SCHEDULED, None, (0xC303, 0xC303, 0xC303, 0xC303)),
    (SCHEDULED, STRANGER, (0xC303, 0xC303, 0xC303, 0xC303)),
    (COMPLETED, OWNER, (0xC310, 0x0000, 0xB306, 0xC300)),
    (COMPLETED, None, (0xC301, 0xC301, 0xC301, 0xC301)),
    (COMPLETED, STRANGER, (0xC310, 0xC301, 0xC301, 0xC301)),
    (CANCELED, OWNER, (0xC310, 0x0000, 0xC300, 0xB304)),
    (CANCELED, None, (0xC301, 0xC301, 0xC301, 0xC301)),
    (CANCELED, STRANGER, (0xC310, 0xC301, 0xC301, 0xC301)),
]


@pytest.mark.parametrize("column", range(4), ids=[state.value for state in State])
@pytest.mark.parametrize(("requested", "transaction", "codes"), CELLS)
def test_cc_1_1_2_change_state(
    requested: State, transaction: str | None, codes: tuple[int, ...], column: int
) -> None:
    present, expected = list(State)[column], codes[column]
    if expected >> 12 == 0xC:
        with pytest.raises(UpsError) as refused:
            change(present, requested, transaction)
        assert refused.value.status.code == expected
        return
    decision = change(present, requested, transaction)
    assert decision.status.code == expected
    if expected:
        assert not decision.occurrences
        assert decision.workitem.state is present
    else:
        assert decision.workitem.state is requested
        assert [occurrence.type for occurrence in decision.occurrences] == [EventType.STATE_REPORT]
        assert text(decision.occurrences[0].information, tags.STATE) == requested.value


def test_cc_1_1_2_a_claim_records_the_transaction_uid_as_digest_only() -> None:
    claimed = change(SCHEDULED, IN_PROGRESS, OWNER).workitem
    assert claimed.owner == digest(OWNER)
    assert OWNER not in str(claimed)


@pytest.mark.parametrize("invalid", ["", "no uid", "1..2", "1.02", "9" * 65])
def test_cc_1_1_2_a_claim_with_an_invalid_transaction_uid_is_c301(invalid: str) -> None:
    with pytest.raises(UpsError) as refused:
        change(SCHEDULED, IN_PROGRESS, invalid)
    assert refused.value.status.code == 0xC301


@pytest.mark.parametrize("unknown", ["DISCONTINUED", ""], ids=["discontinued", "empty"])
def test_cc_2_1_an_unknown_state_is_an_invalid_argument(unknown: str) -> None:
    with pytest.raises(UpsError) as refused:
        decide(workitem(SCHEDULED), ChangeState(REQUESTER, UID, unknown, OWNER), NOW)
    assert (refused.value.status.code, refused.value.tag) == (0x0115, tags.STATE)


@pytest.mark.parametrize(
    ("misspelled", "state"),
    [("CANCELLED", CANCELED), ("in progress", IN_PROGRESS), ("IN_PROGRESS", IN_PROGRESS)],
)
def test_cc_2_1_a_misspelled_state_is_corrected_and_told_unless_strict(misspelled: str, state: State) -> None:
    present = SCHEDULED if state is IN_PROGRESS else IN_PROGRESS
    command = ChangeState(REQUESTER, UID, misspelled, OWNER)
    decision = decide(workitem(present), command, NOW)
    assert decision.workitem.state is state
    assert f"ProcedureStepState (0074,1000) was taken as {state.value}" in decision.details
    with pytest.raises(UpsError) as refused:
        decide(workitem(present), command, replace(NOW, strict=True))
    assert (refused.value.status.code, refused.value.tag) == (0x0115, tags.STATE)


def test_cc_1_1_2_completing_without_performed_procedure_is_c304_and_names_the_attribute() -> None:
    ups = workitem(IN_PROGRESS, ready_to_complete=False)
    with pytest.raises(UpsError) as refused:
        decide(ups, ChangeState(REQUESTER, UID, "COMPLETED", OWNER), NOW)
    assert refused.value.status.code == 0xC304
    assert (refused.value.tag or "").startswith(tags.PERFORMED_PROCEDURE)
    assert "UnifiedProcedureStepPerformedProcedureSequence" in refused.value.detail


def test_cc_2_1_3_canceling_supplies_the_missing_date_time_and_reason() -> None:
    ups = workitem(IN_PROGRESS, ready_to_complete=False)
    canceled = decide(ups, ChangeState(REQUESTER, UID, "CANCELED", OWNER), NOW).workitem
    (progress,) = items(canceled.attributes, tags.PROGRESS_INFORMATION)
    (reason,) = items(progress, tags.DISCONTINUATION_REASONS)
    assert text(progress, tags.CANCELLATION_DATETIME).startswith("20261122183000")
    assert text(reason, tags.CODE_VALUE) == "110513"


@pytest.mark.parametrize("state", list(State), ids=lambda state: state.value)
def test_cc_1_1_2_n_create_of_an_existing_ups_is_0111(state: State) -> None:
    with pytest.raises(UpsError) as refused:
        decide(workitem(state), Create(REQUESTER, UID, minimal()), NOW)
    assert refused.value.status.code == 0x0111


@pytest.mark.parametrize(
    ("change", "code"),
    [({tags.STATE: element("CS", "COMPLETED")}, 0xC309), ({tags.LABEL: element("LO")}, 0x0111)],
)
def test_cc_2_5_n_create_of_an_existing_ups_is_0111_whatever_it_lacks_unless_it_is_not_scheduled(
    change: DataSet, code: int
) -> None:
    with pytest.raises(UpsError) as refused:
        decide(workitem(SCHEDULED), Create(REQUESTER, UID, {**minimal(), **change}), NOW)
    assert refused.value.status.code == code


def test_cc_1_1_2_n_create_makes_a_scheduled_ups_without_owner_and_reports_it() -> None:
    decision = decide(None, Create(REQUESTER, UID, minimal()), NOW)
    assert (decision.workitem.state, decision.workitem.owner) == (SCHEDULED, None)
    assert decision.occurrences[0].type is EventType.STATE_REPORT


def test_cc_1_1_2_request_cancel_of_a_scheduled_ups_walks_through_in_progress() -> None:
    reason = {tags.REASON_FOR_CANCELLATION: element("LT", "scanner is down")}
    decision = decide(workitem(SCHEDULED), RequestCancel(REQUESTER, UID, reason), NOW)
    states = [text(occurrence.information, tags.STATE) for occurrence in decision.occurrences]
    assert states == ["IN PROGRESS", "CANCELED"]
    assert decision.workitem.state is CANCELED
    (progress,) = items(decision.workitem.attributes, tags.PROGRESS_INFORMATION)
    assert text(progress, tags.REASON_FOR_CANCELLATION) == "scanner is down"
    assert items(progress, tags.DISCONTINUATION_REASONS)
    assert decision.occurrences[1].information[tags.REASON_FOR_CANCELLATION]["Value"] == ["scanner is down"]


def test_cc_1_1_2_request_cancel_of_an_in_progress_ups_only_asks_the_performer() -> None:
    reason = {tags.REASON_FOR_CANCELLATION: element("LT", "scanner is down")}
    decision = decide(workitem(IN_PROGRESS), RequestCancel(REQUESTER, UID, reason), NOW)
    (request,) = decision.occurrences
    assert request.type is EventType.CANCEL_REQUESTED
    assert text(request.information, tags.REQUESTING_AE) == "PERFORMER"
    assert text(request.information, tags.REASON_FOR_CANCELLATION) == "scanner is down"
    assert decision.workitem.state is IN_PROGRESS


def test_cc_2_2_request_cancel_that_nobody_would_hear_is_c312() -> None:
    with pytest.raises(UpsError) as refused:
        decide(workitem(IN_PROGRESS), RequestCancel(REQUESTER, UID), replace(NOW, watched=False))
    assert refused.value.status.code == 0xC312


def test_cc_1_1_2_request_cancel_of_a_completed_ups_is_c311() -> None:
    with pytest.raises(UpsError) as refused:
        decide(workitem(COMPLETED), RequestCancel(REQUESTER, UID), NOW)
    assert refused.value.status.code == 0xC311


def test_cc_1_1_2_request_cancel_of_a_canceled_ups_is_the_warning_b304() -> None:
    decision = decide(workitem(CANCELED), RequestCancel(REQUESTER, UID), NOW)
    assert (decision.status.code, decision.occurrences) == (0xB304, ())


LABEL: DataSet = {tags.LABEL: element("LO", "another label")}


@pytest.mark.parametrize(
    ("state", "transaction", "expected"),
    [
        (SCHEDULED, None, 0x0000),
        (SCHEDULED, OWNER, 0xC310),
        (IN_PROGRESS, OWNER, 0x0000),
        (IN_PROGRESS, None, 0xC301),
        (IN_PROGRESS, STRANGER, 0xC301),
        (COMPLETED, OWNER, 0xC300),
        (COMPLETED, None, 0xC300),
        (CANCELED, OWNER, 0xC300),
        (CANCELED, STRANGER, 0xC300),
    ],
)
def test_cc_2_6_n_set(state: State, transaction: str | None, expected: int) -> None:
    command = Update(REQUESTER, UID, LABEL, transaction)
    if expected:
        with pytest.raises(UpsError) as refused:
            decide(workitem(state), command, NOW)
        assert refused.value.status.code == expected
    else:
        decision = decide(workitem(state), command, NOW)
        assert text(decision.workitem.attributes, tags.LABEL) == "another label"


@pytest.mark.parametrize(
    "command",
    [
        Update(REQUESTER, UID, LABEL),
        ChangeState(REQUESTER, UID, "IN PROGRESS", OWNER),
        RequestCancel(REQUESTER, UID),
    ],
    ids=lambda command: type(command).__name__,
)
def test_cc_1_1_2_without_such_a_ups_everything_is_c307(
    command: Update | ChangeState | RequestCancel,
) -> None:
    with pytest.raises(UpsError) as refused:
        decide(None, command, NOW)
    assert refused.value.status.code == 0xC307
