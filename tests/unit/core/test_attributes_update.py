# SPDX-License-Identifier: AGPL-3.0-or-later
"""N-SET beyond the rows of the table: replacing, emptying, repeating."""

from __future__ import annotations

from typing import Final

import pytest

from orthanc_ups.core import dictionary, statuses, tags
from orthanc_ups.core.dataset import DataSet, element, is_empty
from tests.support.preparing import STAMP, refused_update, update
from tests.support.workitems import full, performed, progress, stored

TRANSACTION: Final = "1.2.826.0.1.3680043.10.1999.5"


# --- N-SET ------------------------------------------------------------------------------------------


def test_cc_2_6_state_is_not_set() -> None:
    for state, strict in (("SCHEDULED", True), ("COMPLETED", False)):
        error = refused_update({tags.STATE: element("CS", state)}, strict=strict)
        assert (error.status, error.tag) == (statuses.NO_SUCH_ATTRIBUTE, tags.STATE)
        assert error.detail == (
            "ProcedureStepState (0074,1000) is changed by Change UPS State, not in an update"
        )


def test_cc_2_6_strict_patient_identity_is_not_set_even_if_equal() -> None:
    base = stored(base=full())
    error = refused_update({"00100010": base["00100010"]}, base, strict=True)
    assert error.detail == "PatientName (0010,0010) is not allowed in an update"


def test_cc_2_6_a_whole_workitem_sent_back_with_one_change_is_an_update_of_that() -> None:
    base = stored(base=full())
    prepared = update(base, {**base, tags.LABEL: element("LO", "Other")})
    assert {tag for tag, value in prepared.attributes.items() if value != base[tag]} == {
        tags.LABEL,
        tags.MODIFICATION,
    }
    assert "PatientName (0010,0010)" in prepared.modifications[0]


def test_cc_2_6_patient_identity_is_not_changed() -> None:
    error = refused_update({"00100010": element("PN", {"Alphabetic": "Other^Name"})})
    assert (error.status, error.tag) == (statuses.NO_SUCH_ATTRIBUTE, "00100010")


def test_cc_2_6_other_patient_ids_are_set_without_their_issuers() -> None:
    item = {"00100020": element("LO", "NEW-1")}
    prepared = update(stored(base=full()), {"00101002": element("SQ", item)})
    assert prepared.attributes["00101002"] == element("SQ", item)
    error = refused_update({"00101002": element("SQ", item | {"00100021": element("LO", "X")})})
    assert (error.status, error.tag) == (statuses.NO_SUCH_ATTRIBUTE, "00101002.00100021")


def test_cc_2_6_a_sequence_is_replaced_as_a_whole() -> None:
    first = update(stored(), progress("40", "Reading")).attributes
    percent_only = {tags.PROGRESS_INFORMATION: element("SQ", {tags.PROGRESS: element("DS", "60")})}
    second = update(first, percent_only).attributes
    assert second[tags.PROGRESS_INFORMATION] == percent_only[tags.PROGRESS_INFORMATION]


def test_cc_2_6_what_is_not_named_stays() -> None:
    base = stored(base=full("greek"))
    updated = update(base, {tags.LABEL: element("LO", "Other")}).attributes
    differing = {tag for tag in updated.keys() | base.keys() if updated.get(tag) != base.get(tag)}
    assert differing == {tags.LABEL, tags.MODIFICATION}


def test_cc_2_6_an_empty_list_only_stamps() -> None:
    base = stored()
    assert update(base, {}).attributes == {**base, tags.MODIFICATION: STAMP}


@pytest.mark.parametrize("tag", [tags.PRIORITY, tags.LABEL, tags.WORKLIST_LABEL, tags.START, tags.READINESS])
def test_cc_2_6_type_1_cannot_be_emptied(tag: str) -> None:
    empty = {tag: element(dictionary.VR_OF[tag])}
    error = refused_update(empty)
    assert (error.status, error.tag) == (statuses.MISSING_VALUE, tag)


@pytest.mark.parametrize("tag", ["00404018", "00400400", tags.EXPECTED_COMPLETION])
def test_cc_2_6_empty_stays_empty(tag: str) -> None:
    """3/1, but there is no value to lose: a client that sends back what it got is not refused."""
    base = stored()
    updated = update(base, {tag: element(dictionary.VR_OF[tag])}).attributes
    assert updated.get(tag) == base.get(tag)
    assert refused_update({tag: element(dictionary.VR_OF[tag])}).status is statuses.MISSING_VALUE


@pytest.mark.parametrize("tag", [tags.STATION_NAME, "00404021", "0020000D", tags.PROGRESS_INFORMATION])
def test_cc_2_6_type_2_can_be_emptied(tag: str) -> None:
    base = update(stored(base=full()), progress()).attributes
    assert not is_empty(base[tag])
    assert update(base, {tag: element(dictionary.VR_OF[tag])}).attributes[tag] == element(
        dictionary.VR_OF[tag]
    )


def test_cc_2_6_transaction_uid_in_the_list_alters_nothing() -> None:
    prepared = update(stored(), progress() | {tags.TRANSACTION_UID: element("UI", TRANSACTION)})
    assert TRANSACTION not in str(prepared)


def test_cc_2_6_performed_needs_its_output_sequence() -> None:
    error = refused_update(performed(t00404033=None), strict=True)
    assert (error.status, error.tag) == (statuses.MISSING_ATTRIBUTE, "00741216.00404033")


def test_cc_2_6_stations_that_a_performer_leaves_out_stand_empty() -> None:
    item = update(stored(), performed(t00404028=None, t00404029=None)).attributes["00741216"]["Value"][0]
    assert (item["00404028"], item["00404029"]) == (element("SQ"), element("SQ"))
    assert list(item) == sorted(item)


def test_cc_2_6_an_empty_end_is_no_end() -> None:
    """Performers send the whole item from the start, with what they do not know yet empty."""
    updated = update(stored(), performed(t00404051=element("DT"))).attributes
    assert "00404051" not in updated["00741216"]["Value"][0]


@pytest.mark.parametrize("percent", ["0", "100", "99.9", "1e1"])
def test_progress_is_a_percentage(percent: str) -> None:
    updated = update(stored(), progress(percent)).attributes
    assert updated[tags.PROGRESS_INFORMATION]["Value"][0][tags.PROGRESS] == element("DS", percent)


@pytest.mark.parametrize("percent", ["-1", "100.1", "1e3", "half"])
def test_progress_beyond_a_percentage_is_refused(percent: str) -> None:
    assert refused_update(progress(percent)).tag == f"{tags.PROGRESS_INFORMATION}.{tags.PROGRESS}"


@pytest.mark.parametrize(
    "modification_list", [performed(), progress(), {tags.PRIORITY: element("CS", "low")}, {}]
)
def test_cc_2_6_an_update_is_idempotent(modification_list: DataSet) -> None:
    once = update(stored(base=full()), modification_list).attributes
    assert update(once, modification_list).attributes == once
