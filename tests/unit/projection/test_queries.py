# SPDX-License-Identifier: AGPL-3.0-or-later
"""Every plan finds the same: combinations of typical keys over 150 workitems, against the matching engine."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import DataSet, Element, element, items, text
from orthanc_ups.core.date_times import UTC
from orthanc_ups.core.free_text import fits, words
from orthanc_ups.core.matching import Query
from orthanc_ups.core.mechanisms import Mechanisms
from orthanc_ups.core.workitem import Workitem
from orthanc_ups.projection import queries as projection_queries
from orthanc_ups.projection.projection import Projection
from orthanc_ups.projection.queries import Plan, Sql
from orthanc_ups.projection.reader import Reader
from orthanc_ups.store.documents import encode
from tests.support import workitems
from tests.support.pairwise import pairwise

STATIONS = ["ROOM1", "ROOM2", "ROOM3"]
STATES = ["SCHEDULED", "SCHEDULED", "IN PROGRESS", "COMPLETED", "CANCELED"]
FAMILIES = ["Müller", "Mueller", "Muller", "Aokawa", "Журавлёва"]


def codes(chance: random.Random) -> Element:
    schemes = ["99A", "99B"]
    chosen = [(chance.choice(STATIONS), chance.choice(schemes)) for _ in range(chance.randrange(4))]
    return element("SQ", *(workitems.code(code, scheme, "Room") for code, scheme in chosen))


def typical(number: int) -> DataSet:
    chance = random.Random(number)
    name = {"Alphabetic": f"{chance.choice(FAMILIES)}^{chance.choice(['Ines', 'Zoë', 'Tom'])}"}
    start = f"202611{chance.randrange(1, 5):02}{chance.choice(['', '12', '1200', '120000+0100'])}"
    return workitems.stored(
        number,
        chance.choice(STATES),
        workitems.full(),
        t00404005=element("DT", start),
        t00404025=codes(chance),
        t00404018=element("SQ", workitems.code(chance.choice(["W1", "W2"]))),
        t00741200=element("CS", chance.choice(["HIGH", "MEDIUM", "LOW"])),
        t00741202=element("LO", chance.choice(["CT", "MR", "CT reads"])),
        t00741204=element("LO", f"Step {chance.randrange(7)}"),
        t00100010=element("PN", name),
        t00100020=element("LO", f"P{chance.randrange(40)}"),
        t0040A370=element("SQ", *(workitems.request(f"A{chance.randrange(60)}") for _ in range(2))),
    )


def code_key(code: str, scheme: str | None = None) -> Element:
    keys = {tags.CODE_VALUE: element("SH", code)}
    if scheme:
        keys[tags.CODING_SCHEME] = element("SH", scheme)
    return element("SQ", keys)


ASPECTS: list[list[DataSet]] = [
    [{}, {tags.STATE: element("CS", "SCHEDULED")}, {tags.STATE: element("CS", "SCHEDULED", "CANCELED")}],
    [{}, {tags.START: element("DT", "20261102-20261103")}, {tags.START: element("DT", "20261103-")}],
    [{}, {tags.STATION_NAME: code_key("ROOM1")}, {tags.STATION_NAME: code_key("ROOM2", "99A")}],
    [{}, {tags.WORKITEM_CODE: code_key("W1", "DCM")}, {tags.WORKLIST_LABEL: element("LO", "CT*")}],
    [
        {},
        {tags.PATIENT_NAME: element("PN", {"Alphabetic": "mu*"})},
        {tags.PATIENT_NAME: element("PN", {"Alphabetic": "*^Z*"})},
        {tags.PATIENT_ID: element("LO", "P7")},
        {"0040A370": element("SQ", {"00080050": element("SH", "A1*")})},
        {"00400400": element("LT", "*last year*")},
    ],
]


@pytest.fixture(scope="module")
def worklist() -> list[Workitem]:
    return [Workitem(workitems.uid(number), number, typical(number)) for number in range(1, 151)]


@pytest.fixture(scope="module")
def projection(worklist: list[Workitem]) -> Iterator[Projection]:
    opened = Projection.open(":memory:")
    for workitem in worklist:
        opened.put(workitem, "1", encode(workitem))
    yield opened
    opened.close()


PRODUCT: Final = list(itertools.product(*ASPECTS))
SAMPLES: Final[list[Any]] = [pairwise(ASPECTS), pytest.param(PRODUCT, marks=pytest.mark.torture)]


def queries(combinations: Iterable[tuple[DataSet, ...]], fuzzy: bool = False) -> Iterator[Query]:
    mechanisms = Mechanisms.MULTIPLE | (Mechanisms.FUZZY if fuzzy else Mechanisms.NONE)
    for keys in combinations:
        identifier = {tag: key for part in keys for tag, key in part.items()}
        yield Query.of(identifier, mechanisms=mechanisms)


def numbers(workitems: tuple[DataSet, ...] | list[DataSet]) -> list[int]:
    return [int(text(attributes, tags.SOP_INSTANCE_UID).rpartition(".")[2]) for attributes in workitems]


def by_start(worklist: list[Workitem], query: Query) -> list[int]:
    """What the engine finds, in the order of start; it is sorted by ranges of one item each."""
    matching = [workitem for workitem in worklist if query.matches(workitem.attributes)]
    return [workitem.created for workitem in sorted(matching, key=lambda item: (_start(item), item.created))]


def _start(workitem: Workitem) -> int:
    clauses = Query.of({tags.START: element("DT", text(workitem.attributes, tags.START))}).conditions
    low: int = clauses[0].values[0][0]
    return low


@pytest.mark.parametrize("few", [0, 20, 2_000])
@pytest.mark.parametrize("combinations", SAMPLES, ids=["pairwise", "product"])
def test_all_combinations_of_keys_in_order(
    combinations: list[tuple[DataSet, ...]],
    few: int,
    worklist: list[Workitem],
    projection: Projection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(projection_queries, "FEW", few)

    async def compare() -> None:
        for query in queries(combinations, fuzzy=few == 20):
            projection.record_events(())  # after a write, remembered matches are out of date
            expected = by_start(worklist, query)
            page, total = await projection.search(query)
            assert numbers(page) == expected
            assert total == len(expected)
            streamed = [attributes async for chunk in projection.stream(query, 25) for attributes in chunk]
            assert numbers(streamed) == expected
            assert await projection.numbers(query) == sorted(expected)

    asyncio.run(compare())


@pytest.mark.parametrize(
    ("combinations", "few"),
    [
        (pairwise(ASPECTS)[::24], 0),
        (pairwise(ASPECTS)[12::24], 2_000),
        pytest.param(PRODUCT[::10], 0, marks=pytest.mark.torture),
        pytest.param(PRODUCT[5::10], 2_000, marks=pytest.mark.torture),
    ],
    ids=["some pairs", "other pairs", "some of all", "others of all"],
)
def test_every_page_of_every_order(
    combinations: list[tuple[DataSet, ...]], few: int, projection: Projection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection_queries, "FEW", few)

    async def compare() -> None:
        for query, order in itertools.product(queries(combinations), projection_queries.ORDERS):
            whole, total = await projection.search(query, order=order)
            for sign in ("", "-"):
                pages = []
                for offset in range(0, total + 70, 70):
                    page, counted = await projection.search(query, offset, 70, sign + order)
                    assert counted == total
                    pages += numbers(page)
                assert pages == (numbers(whole) if not sign else turned_round(whole, order))

    asyncio.run(compare())


def turned_round(whole: Iterable[DataSet], order: str) -> list[int]:
    """Descending: the other way, but what has no value stays at the end."""
    descending = list(whole)[::-1]
    with_value = numbers([shown for shown in descending if order not in SHOWN or SHOWN[order](shown)])
    return [*with_value, *(number for number in numbers(descending) if number not in with_value)]


SHOWN: dict[str, Callable[[DataSet], Any]] = {
    "station": lambda attributes: items(attributes, tags.STATION_NAME),
    "performer": lambda attributes: items(attributes, tags.HUMAN_PERFORMERS),
    "progress": lambda attributes: items(attributes, tags.PROGRESS_INFORMATION),
}


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("station", [2, 1, 6, 3, 4, 5]),
        ("-station", [3, 6, 1, 2, 5, 4]),
        ("performer", [4, 2, 1, 3, 5, 6]),
        ("-performer", [1, 2, 4, 6, 5, 3]),
        ("progress", [5, 1, 6, 2, 3, 4]),
        ("-progress", [6, 1, 5, 4, 3, 2]),
    ],
)
def test_by_station_performer_and_progress_as_they_are_shown(order: str, expected: list[int]) -> None:
    """Without case, by the meaning of a code or else its value, numbers as numbers; none stand at the end."""
    stations = {1: "room 7", 2: "Room 10", 3: "X-ray", 4: None, 5: None, 6: "Room 7"}
    people = {1: "greek", 2: "latin", 4: "code only"}
    percents = {1: "9.5", 5: "9", 6: "100"}
    opened = Projection.open(":memory:")
    for number, shown in stations.items():
        content = {
            **workitems.stored(number),
            tags.STATION_NAME: element("SQ", *([workitems.code("Z", "99ST", shown)] if shown else [])),
            tags.HUMAN_PERFORMERS: element("SQ", *([person(people[number])] if number in people else [])),
        }
        if number in percents:
            item = {tags.PROGRESS: element("DS", percents[number])}
            content[tags.PROGRESS_INFORMATION] = element("SQ", item)
        workitem = Workitem(workitems.uid(number), number, dict(sorted(content.items())))
        opened.put(workitem, "1", encode(workitem))

    async def compare() -> None:
        everything = Query.of({tags.SOP_INSTANCE_UID: element("UI")})
        page, _ = await opened.search(everything, order=order)
        assert numbers(page) == expected
        pages = [await opened.search(everything, offset, 1, order) for offset in range(6)]
        assert [numbers(page) for page, _ in pages] == [[number] for number in expected]

    try:
        asyncio.run(compare())
    finally:
        opened.close()


def person(who: str) -> DataSet:
    names = {"greek": "Καστανίδης^Ι", "latin": "Zimmer^A", "code only": ""}
    codes = element("SQ", workitems.code("anna", "99ID", "Anna"))
    return {
        tags.HUMAN_PERFORMER_CODES: codes,
        "00404037": element("PN", *([{"Alphabetic": names[who]}] if names[who] else [])),
    }


def explained(
    projection: Projection, query: Query, order: str, statements: Callable[[Plan], Iterable[Sql]]
) -> list[str]:
    """The steps that SQLite takes for statements of a plan."""
    projection.flush()
    with contextlib.closing(projection.file.reader()) as connection:
        plan = Reader(connection, UTC, threading.Event()).planned(query, order)
        return [
            row[3]
            for sql in statements(plan)
            for row in connection.execute(f"EXPLAIN QUERY PLAN {sql.text}", sql.values)
        ]


@pytest.mark.parametrize("order", ["station", "performer", "progress"])
def test_pages_in_these_orders_are_stretches_of_an_index(order: str, projection: Projection) -> None:
    def pages(plan: Plan) -> Iterator[Sql]:
        for part in (*plan.stretches(descending=False), *plan.stretches(descending=True)):
            yield part.ids()
            yield part.ids(descending=True)

    steps = explained(projection, Query.of({tags.SOP_INSTANCE_UID: element("UI")}), order, pages)
    assert len(steps) == 6, "no step of its own for sorting"
    assert all(f"COVERING INDEX workitem_{order}" in step for step in steps)


@pytest.mark.parametrize("looked_for", ["ROOM1", "mueller zoë", "A1 ct", "step 3 room2 журавлева"])
def test_free_text_with_every_plan(looked_for: str, worklist: list[Workitem], projection: Projection) -> None:
    typed = words(looked_for)

    async def compare() -> None:
        for query in queries(pairwise(ASPECTS)):
            fitting = [workitem for workitem in worklist if fits(workitem.attributes, typed)]
            expected = by_start(fitting, query)
            page, total = await projection.search(query, words=typed)
            assert (numbers(page), total) == (expected, len(expected))

    asyncio.run(compare())


def test_the_main_query_is_one_stretch_of_an_index(projection: Projection) -> None:
    query = Query.of(
        {
            tags.STATE: element("CS", "SCHEDULED"),
            tags.START: element("DT", "20261102-20261103"),
            tags.STATION_NAME: code_key("ROOM2", "99A"),
        }
    )

    steps = explained(
        projection, query, "start", lambda plan: (plan.count(), plan.ids(), plan.after((1, 1, 1)))
    )
    assert len(steps) == 3, "no step of its own for sorting"
    for step in steps:
        assert step.startswith("SEARCH d USING PRIMARY KEY (kind=? AND text=? AND state=? AND ")


@pytest.mark.parametrize(
    "key",
    [
        {tags.STATION_NAME: element("SQ", {tags.CODE_VALUE: element("SH", '""')})},
        {
            tags.HUMAN_PERFORMERS: element(
                "SQ", {tags.HUMAN_PERFORMER_CODES: element("SQ", {tags.CODE_VALUE: element("SH", '""')})}
            )
        },
    ],
)
def test_c_2_2_2_7_what_nobody_is_to_perform_is_found_by_an_index(
    projection: Projection, worklist: list[Workitem], key: DataSet
) -> None:
    query = Query.of(key, mechanisms=Mechanisms.EMPTY)
    filters = projection_queries.Translator(dated=True, odd=False).filters(query.clauses)
    assert filters.exact
    assert filters.ids
    page, total = asyncio.run(projection.search(query))
    assert numbers(page) == by_start(worklist, query)
    assert total == len(page)
