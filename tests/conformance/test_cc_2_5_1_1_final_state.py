# SPDX-License-Identifier: AGPL-3.0-or-later
"""PS3.4 CC.2.5.1.1 and column Final State of Table CC.2.5-3: what a workitem needs in order to be closed."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Final

import pytest

from orthanc_ups.core import attributes, closing, rules, tags
from orthanc_ups.core.dataset import DataSet, element
from orthanc_ups.core.states import State
from tests.support import workitems
from tests.support.table import UPDATE, Row, check_rows, every_line, found_at, modules, rows, sample_item

NOW: Final = datetime(2026, 11, 22, 18, 30, tzinfo=UTC)
FINAL: Final = (State.COMPLETED, State.CANCELED)
NEEDED: Final = {State.COMPLETED: "RP", State.CANCELED: "RX"}


@cache
def closable() -> DataSet:
    """In progress, with all that both final states ask for."""
    base = workitems.stored(base=workitems.full(), state="IN PROGRESS")
    canceled = closing.complete_cancellation(base, NOW)
    return attributes.prepare_update(canceled, workitems.performed(), NOW).attributes


def without(dataset: DataSet, path: str) -> DataSet:
    """The data set without the attribute at a path, in first items."""
    tag, _, rest = path.partition(".")
    if not rest:
        return {key: value for key, value in dataset.items() if key != tag}
    inner = dataset.get(tag, {}).get("Value") or [{}]
    return {**dataset, tag: element("SQ", without(inner[0], rest))}


def emptied(dataset: DataSet, path: str, vr: str) -> DataSet:
    tag, _, rest = path.partition(".")
    if not rest:
        return {**dataset, tag: element(vr)}
    inner = dataset.get(tag, {}).get("Value") or [{}]
    return {**dataset, tag: element("SQ", emptied(inner[0], rest, vr))}


def expected(row: Row, state: State) -> tuple[str, ...]:
    """The row itself if its code counts, and what its items would have to hold."""
    if row.cells["final_state"] not in NEEDED[state] or not row.cells["final_state"]:
        return ()
    inside = [
        nested.path
        for nested in rows()
        if nested.above == row.path
        and nested.cells["final_state"]
        and nested.cells["final_state"] in NEEDED[state]
    ]
    return (row.path, *sorted(inside))


@pytest.mark.parametrize("state", FINAL)
def test_cc_2_5_1_1_a_complete_workitem_may_be_closed(state: State) -> None:
    assert closing.unmet(closable(), state) == ()


@pytest.mark.parametrize("state", [State.SCHEDULED, State.IN_PROGRESS])
def test_cc_2_5_1_1_other_states_demand_nothing(state: State) -> None:
    assert closing.unmet({}, state) == ()


@pytest.mark.parametrize("module", modules())
def test_cc_2_5_1_1_absent_or_without_value(module: str) -> None:
    check_rows(module, _check_final_state)


def _check_final_state(row: Row) -> None:
    absent = without(closable(), row.path)
    empty = emptied(closable(), row.path, row.vr)
    for state in FINAL:
        missing = expected(row, state)
        assert closing.unmet(absent, state) == missing
        assert closing.unmet(empty, state) == (() if row.path == "00741216.00404033" else missing)


@pytest.mark.parametrize("row", [row for row in every_line() if row.path == "*"], ids=str)
def test_cc_2_5_1_1_catch_all_rows_demand_nothing(row: Row) -> None:
    assert rules.CATCH_ALL[row.cells["module"]].final == "O"


def test_cc_2_5_1_1_an_empty_output_information_sequence_is_a_value() -> None:
    done = attributes.prepare_update(closable(), workitems.performed(t00404033=element("SQ")), NOW)
    assert closing.unmet(done.attributes, State.COMPLETED) == ()


def test_cc_2_5_1_1_a_fresh_workitem_is_told_all_that_completion_asks_for() -> None:
    assert closing.unmet(workitems.stored(), State.COMPLETED) == (
        "00741216",
        "00741216.00404019",
        "00741216.00404028",
        "00741216.00404033",
        "00741216.00404050",
        "00741216.00404051",
    )


def test_cc_2_5_1_1_unknown_performers_never_refuse_completion() -> None:
    """RC is "if known", which only the performer can tell."""
    done = attributes.prepare_update(workitems.stored(), workitems.performed(t00404035=None), NOW)
    assert found_at(done.attributes, "00741216.00404035") is None
    assert closing.unmet(done.attributes, State.COMPLETED) == ()


def test_cc_2_5_1_1_the_least_performed_item_is_not_enough() -> None:
    least = {tags.PERFORMED_PROCEDURE: element("SQ", sample_item("00741216", UPDATE))}
    started = attributes.prepare_update(workitems.stored(), least, NOW).attributes
    assert closing.unmet(started, State.COMPLETED) == (
        "00741216.00404019",
        "00741216.00404028",
        "00741216.00404050",
        "00741216.00404051",
    )
