# SPDX-License-Identifier: AGPL-3.0-or-later
"""What holds for every request, however it is made (hypothesis)."""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

from hypothesis import given, settings
from hypothesis import strategies as st

from orthanc_ups.core import attributes, closing, stamps, tags, value_rules
from orthanc_ups.core.dataset import DataSet, Element, element, items, walk
from orthanc_ups.core.representations import REPRESENTATIONS, is_date_time
from orthanc_ups.core.states import State
from orthanc_ups.core.statuses import UpsError
from tests.support import workitems
from tests.support.examples import examples
from tests.support.table import CREATE, UPDATE, rows, sample

NOW: Final = datetime(2026, 11, 22, 18, 30, tzinfo=UTC)
LATER: Final = NOW + timedelta(minutes=5)
REFUSALS: Final = (
    "NOT_SCHEDULED",
    "NO_SUCH_ATTRIBUTE",
    "INVALID_VALUE",
    "MISSING_ATTRIBUTE",
    "MISSING_VALUE",
)

TOP: Final = [row for row in rows() if not row.above]
TAGS: Final = st.sampled_from([row.tag for row in rows()]) | st.sampled_from(
    ["00091001", "7FE00010", "00020010"]
)
JUNK: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=70),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(TAGS | st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
VRS: Final = st.sampled_from(sorted(REPRESENTATIONS))


@st.composite
def odd_elements(draw: st.DrawFn) -> Any:
    """Elements that may or may not be valid."""
    result: Any = {"vr": draw(VRS)}
    if draw(st.booleans()):
        result["Value"] = draw(st.lists(JUNK, max_size=3))
    return draw(st.sampled_from([result, result, result, draw(JUNK)]))


@st.composite
def sensible(draw: st.DrawFn, column: str) -> Element:
    """A valid element of some top level row, or an empty one, with its tag as first of the pair."""
    row = draw(st.sampled_from(TOP))
    return {row.tag: draw(st.sampled_from([sample(row, column), element(row.vr)]))}


def _mutated(base: DataSet, removed: list[str], odd: dict[str, Any], within: bool) -> DataSet:
    """The base with a few elements removed and others in their place, at the top or in the items."""
    result = {tag: value for tag, value in deepcopy(base).items() if tag not in removed} | odd
    if within:
        for _, value in list(walk(base)):
            for item in value.get("Value", []) if value["vr"] == "SQ" else []:
                result[next(iter(odd), "00404018")] = element("SQ", {**item, **odd})
    return result


BASES: Final = st.sampled_from([workitems.minimal(), workitems.full("greek")])
REMOVED: Final = st.lists(TAGS, max_size=2)
ODD: Final = st.dictionaries(TAGS, odd_elements(), max_size=3)


@settings(max_examples=examples(80))
@given(base=BASES, removed=REMOVED, odd=ODD, within=st.booleans())
def test_create_takes_or_refuses_and_leaves_the_request_alone(
    base: DataSet, removed: list[str], odd: dict[str, Any], within: bool
) -> None:
    request = _mutated(base, removed, odd, within)
    before = repr(request)
    try:
        prepared = attributes.prepare_create(request, NOW, "OURS")
    except UpsError as refused:
        assert refused.status.name in REFUSALS
        assert refused.tag is not None
    else:
        value_rules.check_values(prepared.attributes)
        assert list(prepared.attributes) == sorted(prepared.attributes)
    assert repr(request) == before


@settings(max_examples=examples(80))
@given(odd=ODD, good=st.lists(sensible(UPDATE), max_size=3), within=st.booleans())
def test_update_takes_or_refuses_and_leaves_both_alone(
    odd: dict[str, Any], good: list[DataSet], within: bool
) -> None:
    stored = workitems.stored(base=workitems.full())
    request = _mutated({tag: value for part in good for tag, value in part.items()}, [], odd, within)
    before = repr((stored, request))
    try:
        prepared = attributes.prepare_update(stored, request, NOW)
    except UpsError as refused:
        assert refused.status.name in REFUSALS[1:]
        assert refused.tag is not None
    else:
        touched = {tags.MODIFICATION, *request}
        untouched = {tag: value for tag, value in stored.items() if tag not in touched}
        assert {tag: value for tag, value in prepared.attributes.items() if tag not in touched} == untouched
    assert repr((stored, request)) == before


@settings(max_examples=examples(40))
@given(base=BASES, good=st.lists(sensible(CREATE), max_size=4))
def test_what_was_prepared_passes_again_and_stays_the_same(base: DataSet, good: list[DataSet]) -> None:
    request = base | {tag: value for part in good for tag, value in part.items()}
    try:
        once = attributes.prepare_create(request, NOW, "OURS").attributes
    except UpsError:
        return
    again = attributes.prepare_create(once, NOW, "OTHER")
    assert again.attributes == once


@settings(max_examples=examples(40))
@given(good=st.lists(sensible(UPDATE), max_size=4))
def test_an_update_repeated_gives_the_same(good: list[DataSet]) -> None:
    request = {tag: value for part in good for tag, value in part.items()}
    try:
        once = attributes.prepare_update(workitems.stored(), request, NOW).attributes
    except UpsError:
        return
    assert attributes.prepare_update(once, request, NOW).attributes == once
    later = attributes.prepare_update(once, request, LATER).attributes
    assert {tag for tag in later if later[tag] != once[tag]} == {tags.MODIFICATION}


@settings(max_examples=examples(40))
@given(base=BASES, good=st.lists(sensible(UPDATE), max_size=3))
def test_any_workitem_can_be_canceled(base: DataSet, good: list[DataSet]) -> None:
    prepared = workitems.stored(base=base)
    for change in good:
        try:
            prepared = attributes.prepare_update(prepared, change, NOW).attributes
        except UpsError:
            continue
    done = closing.complete_cancellation(prepared, LATER)
    assert closing.unmet(done, State.CANCELED) == ()
    assert len(items(done, tags.PROGRESS_INFORMATION)) == 1


@given(
    st.datetimes(
        timezones=st.integers(-12 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
    )
)
def test_every_stamp_is_a_valid_date_time(now: datetime) -> None:
    assert is_date_time(stamps.date_time(now))
