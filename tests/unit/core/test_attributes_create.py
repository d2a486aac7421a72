# SPDX-License-Identifier: AGPL-3.0-or-later
"""N-CREATE beyond the rows of the table: order of checks, what the worklist sets, what is never stored."""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

import pytest

from orthanc_ups.core import attributes, dictionary, stamps, statuses, tags
from orthanc_ups.core.dataset import Element, element, is_empty, walk
from orthanc_ups.core.statuses import Status, UpsError
from orthanc_ups.core.value_rules import DataSetLimits
from tests.support import workitems
from tests.support.preparing import NOW, STAMP, create, refused_create, update
from tests.support.workitems import changed, full, minimal, performed, progress, stored

TRANSACTION: Final = "1.2.826.0.1.3680043.10.1999.5"


# --- N-CREATE ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (element("CS", "IN PROGRESS"), statuses.NOT_SCHEDULED),
        (element("CS", "SCHEDULED", "SCHEDULED"), statuses.NOT_SCHEDULED),
        (element("CS", "anything else"), statuses.NOT_SCHEDULED),
        (element("US", 7), statuses.NOT_SCHEDULED),
        (element("CS"), statuses.MISSING_VALUE),
        ({}, statuses.MISSING_VALUE),
        (None, statuses.MISSING_ATTRIBUTE),
    ],
    ids=repr,
)
def test_cc_2_5_3_the_state_counts_before_all_other_errors(state: Element | None, status: Status) -> None:
    wrong = changed(minimal(), t00741000=state, t00741200=None, t00741204=element("LO", "x" * 99))
    error = refused_create(wrong)
    assert (error.status, error.tag) == (status, tags.STATE)


def test_cc_2_5_3_padding_of_the_state_is_no_difference() -> None:
    prepared = create(minimal(t00741000=element("CS", "SCHEDULED ")))
    assert prepared.attributes[tags.STATE] == element("CS", "SCHEDULED")
    assert prepared.modifications == ()


def test_cc_2_5_what_the_worklist_sets() -> None:
    sent = minimal()
    prepared = create(sent).attributes
    assert prepared[tags.SOP_CLASS_UID] == element("UI", tags.PUSH)
    assert prepared[tags.MODIFICATION] == STAMP
    assert prepared[tags.WORKLIST_LABEL] == element("LO", "OURS")
    added = {tag for tag in prepared if tag not in sent} - {tags.SOP_CLASS_UID, tags.MODIFICATION}
    assert {dictionary.KEYWORD_OF[tag] for tag in added} == {
        "MedicalAlerts",
        "PatientID",
        "PregnancyStatus",
        "SpecialNeeds",
        "StudyInstanceUID",
    }
    assert all(is_empty(prepared[tag]) for tag in added)


def test_cc_2_5_nothing_is_invented() -> None:
    prepared = create(minimal()).attributes
    assert tags.EXPECTED_COMPLETION not in prepared
    assert tags.SOP_INSTANCE_UID not in prepared


def test_cc_2_5_a_full_workitem_is_stored_as_it_was_sent() -> None:
    sent = full("japanese")
    prepared = create(sent)
    stored = {tag: value for tag, value in prepared.attributes.items() if tag in sent}
    assert stored == sent
    assert prepared.modifications == ()
    assert list(prepared.attributes) == sorted(prepared.attributes)


def test_unchanged_parts_are_shared() -> None:
    sent = full()
    assert create(sent).attributes["00404021"] is sent["00404021"]


def test_inputs_are_never_changed() -> None:
    sent, base, modification_list = full(), stored(base=full()), performed() | progress()
    before = deepcopy((sent, base, modification_list))
    create(sent)
    update(base, modification_list)
    assert (sent, base, modification_list) == before


@pytest.mark.parametrize("transaction", [None, element("UI")])
def test_cc_2_5_transaction_uid_is_created_empty_and_never_stored(transaction: Element | None) -> None:
    prepared = create(minimal(t00081195=transaction))
    assert tags.TRANSACTION_UID not in prepared.attributes
    assert prepared.modifications == ()


def test_cc_2_5_transaction_uid_with_a_value_is_left_out_and_not_disclosed() -> None:
    prepared = create(minimal(t00081195=element("UI", TRANSACTION)))
    assert tags.TRANSACTION_UID not in prepared.attributes
    assert "TransactionUID (0008,1195)" in prepared.modifications[0]
    assert TRANSACTION not in prepared.modifications[0]


def test_cc_2_5_strict_transaction_uid_with_a_value_is_refused_and_not_disclosed() -> None:
    error = refused_create(minimal(t00081195=element("UI", TRANSACTION)), strict=True)
    assert (error.status, error.tag) == (statuses.INVALID_VALUE, tags.TRANSACTION_UID)
    assert TRANSACTION not in error.detail


@pytest.mark.parametrize("tag", [tags.PROGRESS_INFORMATION, tags.PERFORMED_PROCEDURE])
def test_cc_2_5_progress_and_performed_are_created_empty(tag: str) -> None:
    sent = {**minimal(), **progress(), **performed()}
    request = {**minimal(), tag: sent[tag]}
    error = refused_create(request)
    assert (error.status, error.tag) == (statuses.INVALID_VALUE, tag)
    assert refused_create({**minimal(), tag: element("SQ", {})}, strict=True).tag == tag
    assert tag in create({**minimal(), tag: element("SQ", {})}).attributes


def test_cc_2_5_another_sop_class_is_refused() -> None:
    for wrong, strict in ((tags.PULL, True), ("1.2.3", False)):
        error = refused_create(minimal(t00080016=element("UI", wrong)), strict=strict)
        assert (error.status, error.tag) == (statuses.INVALID_VALUE, tags.SOP_CLASS_UID)


def test_cc_3_1_the_sop_class_of_the_context_becomes_ups_push() -> None:
    prepared = create(minimal(t00080016=element("UI", tags.PULL)))
    assert prepared.attributes[tags.SOP_CLASS_UID] == element("UI", tags.PUSH)
    assert prepared.modifications == ("SOPClassUID (0008,0016) was set to UPS Push",)


def test_cc_2_5_type_2_means_there() -> None:
    error = refused_create(minimal(t00100010=None), strict=True)
    assert (error.status, error.detail) == (statuses.MISSING_ATTRIBUTE, "PatientName (0010,0010) is missing")


def test_cc_2_5_a_request_needs_its_study() -> None:
    item = workitems.request()
    del item["0020000D"]
    error = refused_create(minimal(t0040A370=element("SQ", workitems.request(), item)))
    assert (error.status, error.tag) == (statuses.MISSING_ATTRIBUTE, "0040A370.0020000D")
    assert error.detail.endswith("in item 2 of ReferencedRequestSequence (0040,A370)")


def test_private_and_unknown_attributes_are_kept() -> None:
    private = {
        "00090010": element("LO", "HARBOUR"),
        "00091001": {"vr": "OB", "InlineBinary": "AQID"},
        "00091002": element("SQ", {"00091003": element("UN")}),
    }
    prepared = create({**minimal(), **private}).attributes
    assert {tag: prepared[tag] for tag in private} == private


def test_limits_reach_the_check_of_values() -> None:
    with pytest.raises(UpsError, match="is too large"):
        attributes.prepare_create(full(), NOW, "OURS", limits=DataSetLimits(parts=10))
    with pytest.raises(UpsError, match="is too large"):
        attributes.prepare_update(stored(), performed(), NOW, limits=DataSetLimits(parts=10))


# --- Stamps -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "stamp"),
    [
        (NOW, "20261122183000.000000+0000"),
        (
            datetime(2026, 7, 1, 0, 0, 0, 7, timezone(timedelta(hours=-3, minutes=-30))),
            "20260701000000.000007-0330",
        ),
        (datetime(2026, 7, 1, tzinfo=timezone(timedelta(hours=14))), "20260701000000.000000+1400"),
        (datetime(426, 7, 1, tzinfo=UTC), "04260701000000.000000+0000"),
    ],
)
def test_ps3_5_6_2_stamps_are_local_with_offset(now: datetime, stamp: str) -> None:
    assert stamps.date_time(now) == stamp


def test_a_stamp_needs_a_zone() -> None:
    with pytest.raises(ValueError, match="time zone"):
        stamps.date_time(NOW.replace(tzinfo=None))


def test_nothing_stored_is_a_transaction_uid_or_character_set() -> None:
    sent: dict[str, Any] = full() | {"00080005": element("CS", "ISO_IR 192"), "00081195": element("UI")}
    paths = [path for path, _ in walk(create(sent).attributes)]
    assert not {tags.TRANSACTION_UID, tags.SPECIFIC_CHARACTER_SET}.intersection(paths)
