# SPDX-License-Identifier: AGPL-3.0-or-later
"""Late work is the same in the rule and in SQL: in lists, in counts, and in any order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import element, text
from orthanc_ups.core.lateness import Grace, LateKind, LatePolicy, late_kinds
from orthanc_ups.core.workitem import HistoryEntry, Workitem
from orthanc_ups.management.views import first_station
from orthanc_ups.projection import vocabulary
from orthanc_ups.projection.late import (
    LONGEST_IN_PROGRESS,
    OLDEST_SCHEDULED,
    late,
    late_groups,
    read_groups,
)
from orthanc_ups.projection.projection import Projection
from tests.support.projections import EVERYTHING, put, stored_workitem

NOW = 1_790_000_000.0
POLICY = LatePolicy(900, 7200, (Grace("Slow", "", 90_000), Grace("Second reading", "NIGHT", 30)))
STATES = ("SCHEDULED", "IN PROGRESS", "COMPLETED", "CANCELED")
COUNT = 300


def dt(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%d%H%M%S+0000")


def workitem(number: int, chance: random.Random) -> Workitem:
    def near() -> float:
        return NOW + chance.choice((-200_000, -8000, -1000, -100, -10, 10, 5000))

    state = chance.choice(STATES)
    claimed = NOW - chance.choice((60, 3000, 9000, 50_000))
    history = [HistoryEntry(claimed - 100, "RIS by DIMSE", "created")]
    if state != "SCHEDULED":
        history.append(
            HistoryEntry(claimed, chance.choice(("CAD1 by DIMSE", "x as CAD2 by UPS-RS")), "claimed")
        )
        if chance.random() < 0.5:
            history.append(HistoryEntry(claimed + 50, "CAD1 by DIMSE", "updated"))
        history.append(HistoryEntry(NOW - 1, "RIS by DIMSE", "asked the performer to cancel"))
    item = stored_workitem(
        number, state, history=tuple(history), ended=NOW - 5 if state in STATES[2:] else None
    )
    changes: dict[str, Any] = {
        tags.START: element("DT", dt(near())),
        tags.EXPECTED_COMPLETION: element("DT", *([dt(near())] if chance.random() < 0.7 else [])),
        tags.EXPIRATION: element("DT", *([dt(near())] if chance.random() < 0.5 else [])),
        tags.READINESS: element("CS", chance.choice(("READY", "INCOMPLETE", "UNAVAILABLE"))),
        tags.LABEL: element("LO", chance.choice(("Slow", "Second reading"))),
        tags.WORKLIST_LABEL: element("LO", chance.choice(("DAY", "NIGHT"))),
    }
    return replace(item, attributes={**item.attributes, **changes})


@pytest.fixture(scope="module")
def worklist() -> list[Workitem]:
    chance = random.Random(13)
    return [workitem(number, chance) for number in range(1, COUNT + 1)]


@pytest.fixture(scope="module")
def projection(worklist: list[Workitem], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Projection]:
    file: Path = tmp_path_factory.mktemp("late") / "projection.sqlite"
    projection = Projection.open(file)
    put(projection, *worklist)
    yield projection
    projection.close()


def kinds(item: Workitem, policy: LatePolicy = POLICY) -> tuple[LateKind, ...]:
    return late_kinds(item, policy, NOW, UTC)


def test_every_kind_of_lateness_occurs(worklist: list[Workitem]) -> None:
    assert {kind for item in worklist for kind in kinds(item)} == set(LateKind)


@pytest.mark.parametrize("order", ["start", "-created", "urgency", "-claimed", "duration"])
@pytest.mark.parametrize("chosen", [tuple(LateKind), *((kind,) for kind in LateKind)])
def test_a_list_holds_what_the_rule_calls_late(
    projection: Projection, worklist: list[Workitem], chosen: tuple[LateKind, ...], order: str
) -> None:
    rows, total = asyncio.run(projection.search(EVERYTHING, order=order, also=(late(POLICY, NOW, chosen),)))
    expected = sorted(item.uid for item in worklist if set(kinds(item)) & set(chosen))
    assert sorted(text(row, tags.SOP_INSTANCE_UID) for row in rows) == expected
    assert total == len(expected)


@pytest.mark.parametrize("policy", [POLICY, LatePolicy(0, 0)], ids=["with graces", "without"])
def test_groups_count_them_by_worklist_and_station(
    projection: Projection, worklist: list[Workitem], policy: LatePolicy
) -> None:
    groups = read_groups(asyncio.run(projection.read(late_groups(policy, NOW))))
    for kind in LateKind:
        assert sum(group.by_kind[kind] for group in groups) == sum(
            kind in kinds(item, policy) for item in worklist
        )
    rows = asyncio.run(projection.read(vocabulary.uids([group.example for group in groups])))
    examples = {row: projection.get(str(uid)) for row, uid in rows}
    for group in groups:
        stored = examples[group.example]
        assert stored is not None and first_station(stored.workitem).casefold() == group.station
    night = sum(group.total for group in groups if group.worklist == "NIGHT")
    assert night == sum(
        bool(kinds(item, policy)) and text(item.attributes, tags.WORKLIST_LABEL) == "NIGHT"
        for item in worklist
    )


def test_the_oldest_and_the_longest(projection: Projection, worklist: list[Workitem]) -> None:
    ((_, start),) = asyncio.run(projection.read(OLDEST_SCHEDULED))
    ((_, claimed),) = asyncio.run(projection.read(LONGEST_IN_PROGRESS))
    assert claimed == min(item.history[1].at for item in worklist if item.state.value == "IN PROGRESS")
    assert isinstance(start, int)


def test_matches_are_counted_by_state(projection: Projection, worklist: list[Workitem]) -> None:
    expected = {
        state: sum(item.state.value == state and bool(kinds(item)) for item in worklist)
        for state in STATES[:2]
    }
    assert asyncio.run(projection.tally(EVERYTHING, also=(late(POLICY, NOW),))) == expected


def test_names_of_claimers_are_counted(projection: Projection, worklist: list[Workitem]) -> None:
    rows = asyncio.run(projection.read(vocabulary.names("claimer", 10)))
    assert {name for name, _, _ in rows} == {"CAD1", "CAD2"}
    assert sum(number for _, number, _ in rows) == sum(len(item.history) > 2 for item in worklist)  # type: ignore[misc]


def test_a_word_of_others_is_no_word_of_the_performer(worklist: list[Workitem]) -> None:
    working = [item for item in worklist if item.state.value == "IN PROGRESS"]
    assert any(LateKind.SILENT in kinds(item) for item in working)
