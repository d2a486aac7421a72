# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the worklist adds when a workitem is canceled, and what a cancellation request may carry."""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, datetime
from typing import Final

import pytest

from orthanc_ups.core import attributes, closing, statuses, tags
from orthanc_ups.core.dataset import DataSet, element
from orthanc_ups.core.states import State
from orthanc_ups.core.statuses import Status, UpsError
from tests.support import workitems
from tests.support.workitems import changed, code, progress, stored

NOW: Final = datetime(2026, 11, 22, 18, 30, tzinfo=UTC)
INFORMATION: Final[DataSet] = {
    tags.CONTACT_URI: element("UR", "mailto:desk@harbour.example"),
    tags.CONTACT_NAME: element("LO", "Front desk"),
    tags.DISCONTINUATION_REASONS: element("SQ", code("110526", "DCM", "Resource pre-empted")),
    tags.REASON_FOR_CANCELLATION: element("LT", "The patient has left"),
}
LAST_RESORT: Final = code("110513", "DCM", "Discontinued for unspecified reason")


def canceled(base: DataSet, information: DataSet | None = None) -> DataSet:
    result = closing.complete_cancellation(base, NOW, information)[tags.PROGRESS_INFORMATION]
    assert len(result["Value"]) == 1
    item: DataSet = result["Value"][0]
    assert list(item) == sorted(item)
    return item


def test_cc_2_2_3_without_information_time_and_last_resort_are_set() -> None:
    assert canceled(stored()) == {
        tags.CANCELLATION_DATETIME: element("DT", "20261122183000.000000+0000"),
        tags.DISCONTINUATION_REASONS: element("SQ", LAST_RESORT),
    }


def test_cc_2_2_3_what_the_request_gave_is_taken_over() -> None:
    contact = {tag: INFORMATION[tag] for tag in (tags.CONTACT_URI, tags.CONTACT_NAME)}
    assert canceled(stored(), INFORMATION) == {
        tags.COMMUNICATIONS_URIS: element("SQ", contact),
        tags.CANCELLATION_DATETIME: element("DT", "20261122183000.000000+0000"),
        tags.DISCONTINUATION_REASONS: INFORMATION[tags.DISCONTINUATION_REASONS],
        tags.REASON_FOR_CANCELLATION: INFORMATION[tags.REASON_FOR_CANCELLATION],
    }


def test_a_name_without_uri_is_no_contact() -> None:
    """Contact URI is type 1 in each item of the sequence."""
    assert tags.COMMUNICATIONS_URIS not in canceled(stored(), changed(INFORMATION, t0074100A=None))


def test_cc_2_1_3_what_the_performer_has_set_stays() -> None:
    own = progress(
        t00404052=element("DT", "20261122170000+0100"),
        t0074100E=element("SQ", code("110524", "DCM", "Clinical reason")),
        t00741238=element("LT", "Allergic"),
    )
    base = attributes.prepare_update(stored(), own, NOW).attributes
    assert closing.complete_cancellation(base, NOW, INFORMATION) is base
    assert element("SQ", canceled(base, INFORMATION)) == own[tags.PROGRESS_INFORMATION]


def test_cc_2_1_3_only_gaps_are_filled() -> None:
    base = attributes.prepare_update(stored(), progress(), NOW).attributes
    item = canceled(base, INFORMATION)
    assert item[tags.PROGRESS] == element("DS", "40")
    assert (
        item[tags.COMMUNICATIONS_URIS]
        == base[tags.PROGRESS_INFORMATION]["Value"][0][tags.COMMUNICATIONS_URIS]
    )
    assert item[tags.REASON_FOR_CANCELLATION] == INFORMATION[tags.REASON_FOR_CANCELLATION]


@pytest.mark.parametrize("base", [stored(), stored(base=workitems.full())], ids=["minimal", "full"])
@pytest.mark.parametrize("information", [None, {}, INFORMATION], ids=["none", "empty", "full"])
def test_cc_2_5_1_1_a_canceled_workitem_always_meets_its_requirements(
    base: DataSet, information: DataSet | None
) -> None:
    before = deepcopy((base, information))
    done = closing.complete_cancellation(base, NOW, information)
    assert closing.unmet(done, State.CANCELED) == ()
    assert closing.complete_cancellation(done, NOW, information) == done
    assert list(done) == sorted(done)
    assert (base, information) == before


def test_what_is_filled_in_is_valid_itself() -> None:
    item = canceled(stored(), INFORMATION)
    prepared = attributes.prepare_update(stored(), {tags.PROGRESS_INFORMATION: element("SQ", item)}, NOW)
    assert prepared.attributes[tags.PROGRESS_INFORMATION] == element("SQ", item)
    assert prepared.modifications == ()


@pytest.mark.parametrize("information", [{}, INFORMATION, {tags.CONTACT_URI: element("UR")}])
def test_cc_2_2_2_good_information_is_taken(information: DataSet) -> None:
    closing.check_cancellation(information)
    assert information.keys() <= INFORMATION.keys()


@pytest.mark.parametrize(
    ("information", "status", "path"),
    [
        ({tags.PRIORITY: element("CS", "HIGH")}, statuses.NO_SUCH_ARGUMENT, tags.PRIORITY),
        ({tags.REASON_FOR_CANCELLATION: element("US", 1)}, statuses.INVALID_ARGUMENT, "00741238"),
        ({tags.CONTACT_URI: element("UR", "two words")}, statuses.INVALID_ARGUMENT, "0074100A"),
        (
            {tags.DISCONTINUATION_REASONS: element("SQ", changed(code(), t00080104=None))},
            statuses.INVALID_ARGUMENT,
            "0074100E.00080104",
        ),
        ({tags.DISCONTINUATION_REASONS: element("SQ", {})}, statuses.INVALID_ARGUMENT, "0074100E.00080104"),
    ],
)
def test_cc_2_2_2_bad_information_is_refused(information: DataSet, status: Status, path: str) -> None:
    with pytest.raises(UpsError) as caught:
        closing.check_cancellation(information, strict=True)
    assert (caught.value.status, caught.value.tag) == (status, path)
    assert caught.value.detail
