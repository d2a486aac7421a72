# SPDX-License-Identifier: AGPL-3.0-or-later
"""A search by SQL finds what the matching engine finds, on any worklist."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import DataSet, Element, element, items, text, values
from orthanc_ups.core.key_tests import EMPTY_KEY
from orthanc_ups.core.matching import Query
from orthanc_ups.core.mechanisms import Mechanisms
from orthanc_ups.core.workitem import Workitem
from orthanc_ups.projection import queries as projection_queries
from orthanc_ups.projection.projection import Projection
from orthanc_ups.projection.queries import NONE_LAST, ORDERS
from orthanc_ups.projection.schema import COLUMNS
from orthanc_ups.store.documents import encode
from tests.support import workitems
from tests.support.examples import examples

NAMES: list[dict[str, str]] = [
    {"Alphabetic": "Müller^Zoë"},
    {"Alphabetic": "Muller"},
    {"Alphabetic": "MUELLER^Zoe^Q"},
    {"Alphabetic": "Aokawa^Haruka", "Ideographic": "青川^春香", "Phonetic": "あおかわ^はるか"},
    {"Ideographic": "青山"},
    {"Alphabetic": "a[b]*c"},
    {"Alphabetic": "\U0010ffff\U0010ffff"},
]
TEXTS = ["A", "a", "AB", "ABC", "Ä", "B*", "[A]", "A ", "\ud7ff", "\U0010ffff", "A\U0010ffff"]
PATTERNS = [*TEXTS, "A*", "?", "*B*", "*", "[*", "A?*", "\ud7ff*", "\U0010ffff*", "A\U0010ffff*", "*]"]
TIMES = [
    "20260101",
    "2026",
    "20260101120000",
    "20260101120000+0100",
    "20260102-0500",
    "202601011200",
    "19000101",
]
RANGES = [*TIMES, "2026-", "-20260101", "20260101-20260102", "-20260101120000+0100", "20260101-0500-20260102"]
DATES = ["19730228", "19730301", "20000101"]
UIDS = ["1.2.3", "1.2.4", "1.2.5"]


def values_of(vr: str, tag: str) -> list[Any]:
    if vr == "PN":
        return list(NAMES)
    pools = {"DT": TIMES, "DA": DATES, "UI": UIDS, "DS": ["1", "1.0", "2"]}
    enumerated = {
        tags.STATE: ["SCHEDULED", "IN PROGRESS", "COMPLETED", "CANCELED"],
        tags.PRIORITY: ["HIGH", "MEDIUM", "LOW"],
        tags.READINESS: ["READY", "UNAVAILABLE", "INCOMPLETE"],
        "00100040": ["F", "M", "O"],
    }
    return list(enumerated.get(tag) or pools.get(vr) or TEXTS)


def keys_of(vr: str, tag: str) -> list[Any]:
    if vr == "PN":
        typed = [
            "muller",
            "mu*",
            "*zoe",
            "müller^*",
            "青*",
            "*",
            "m?ller^*^*",
            "[*",
            "\U0010ffff*",
            "*q",
            "a[b]*c",
        ]
        grouped: list[Any] = [{"Ideographic": "青*"}, {"Alphabetic": "ao*", "Phonetic": "あおかわ^はるか"}]
        return [{"Alphabetic": name} for name in typed] + grouped
    pools = {"DT": RANGES, "DA": [*DATES, "1973-", "19730101-19731231", "-19730228"], "UI": UIDS}
    if tag in (tags.STATE, tags.PRIORITY, tags.READINESS, "00100040"):
        return [*values_of(vr, tag), "H*", "DONE"]
    return [
        value for value in pools.get(vr, values_of(vr, tag) if vr == "DS" else PATTERNS) if value != "1973-"
    ]


MECHANISMS = [
    Mechanisms.NONE,
    Mechanisms.FUZZY,
    Mechanisms.EMPTY,
    Mechanisms.MULTIPLE,
    Mechanisms.EMPTY | Mechanisms.MULTIPLE,
    Mechanisms.FUZZY | Mechanisms.EMPTY | Mechanisms.MULTIPLE,
]
TOP = {
    tags.STATE: "CS",
    tags.PRIORITY: "CS",
    tags.READINESS: "CS",
    tags.LABEL: "LO",
    tags.WORKLIST_LABEL: "LO",
    tags.PATIENT_NAME: "PN",
    tags.PATIENT_ID: "LO",
    "00100021": "LO",
    "00100030": "DA",
    "00100040": "CS",
    "00380010": "LO",
    "0020000D": "UI",
    tags.START: "DT",
    tags.EXPECTED_COMPLETION: "DT",
    tags.EXPIRATION: "DT",
    tags.MODIFICATION: "DT",
    "00400400": "LT",
    "00101022": "DS",
    "00081080": "LO",
}
CODE = {tags.CODE_VALUE: "SH", tags.CODING_SCHEME: "SH", "00080119": "UC"}
ISSUER = {"00400031": "UT", "00400033": "CS"}
NESTED: dict[str, dict[str, Any]] = {
    tags.STATION_NAME: CODE,
    "00404026": CODE,
    tags.WORKITEM_CODE: CODE,
    tags.HUMAN_PERFORMERS: {tags.HUMAN_PERFORMER_CODES: CODE, tags.HUMAN_PERFORMER_ORGANIZATION: "LO"},
    "0040A370": {"00080050": "SH", "00401001": "SH", "00080051": ISSUER, "00402004": "DA"},
    "00380014": ISSUER,
    "00101002": {"00100020": "LO", "00100021": "LO"},
    "00741224": {"00081155": "UI"},
}


@st.composite
def stored_values(draw: st.DrawFn, vr: str, tag: str) -> Element:
    result = draw(st.lists(st.sampled_from(values_of(vr, tag)), max_size=2))
    if tag in COLUMNS and draw(st.integers(0, 200)):
        result = result[:1]
    if tag == tags.STATE and not result:
        result = ["SCHEDULED"]
    return element(vr, *result)


@st.composite
def stored_level(draw: st.DrawFn, form: dict[str, Any]) -> DataSet:
    level: DataSet = {}
    for tag, vr in form.items():
        if isinstance(vr, dict):
            if draw(st.booleans()):
                level[tag] = element("SQ", *draw(st.lists(stored_level(vr), max_size=2)))
        elif tag == tags.STATE or draw(st.integers(0, 3)):
            level[tag] = draw(stored_values(vr, tag))
    return level


@st.composite
def stored_attributes(draw: st.DrawFn) -> DataSet:
    attributes = draw(stored_level({**TOP, **NESTED}))
    if draw(st.integers(0, 3)) == 0:
        attributes[tags.TIMEZONE_OFFSET] = element("SH", draw(st.sampled_from(["+0100", "-0500"])))
    return attributes


@st.composite
def key_level(draw: st.DrawFn, form: dict[str, Any], maximum: int) -> DataSet:
    keys: DataSet = {}
    for tag in draw(st.lists(st.sampled_from(sorted(form)), min_size=1, max_size=maximum, unique=True)):
        vr = form[tag]
        if isinstance(vr, dict):
            keys[tag] = element("SQ", draw(key_level(vr, 2)))
        elif vr == "UI":
            keys[tag] = element(
                vr, *draw(st.lists(st.sampled_from(keys_of(vr, tag)), min_size=1, max_size=2))
            )
        else:
            keys[tag] = element(vr, draw(st.sampled_from(keys_of(vr, tag))))
    return keys


def as_key(draw: st.DrawFn, value: Element) -> Element | None:
    """A key that the element probably fits: one of its values, sometimes as a wildcard or a range."""
    filled = [item for item in value.get("Value", ()) if item]
    if not filled:
        return None
    item = draw(st.sampled_from(filled))
    if value["vr"] == "SQ":
        chosen = draw(st.lists(st.sampled_from(sorted(item)), min_size=1, max_size=2, unique=True))
        keys = {tag: as_key(draw, item[tag]) for tag in chosen}
        return element("SQ", {tag: key for tag, key in keys.items() if key is not None})
    if value["vr"] == "PN":
        group = draw(st.sampled_from(sorted(item)))
        return element("PN", {group: draw(st.sampled_from([item[group], item[group][0] + "*"]))})
    if value["vr"] == "DT":
        return element("DT", draw(st.sampled_from([item, "2026-", f"-{item}"])))
    if value["vr"] in ("LO", "SH", "UT") and draw(st.booleans()):
        return element(value["vr"], item[:1] + "*")
    return element(value["vr"], item)


@st.composite
def identifiers(draw: st.DrawFn, worklist: list[DataSet]) -> DataSet:
    if not worklist or draw(st.integers(0, 3)) == 0:
        return draw(key_level({**TOP, **NESTED}, 3))
    about = draw(st.sampled_from(worklist))
    present = sorted(about.keys() - {tags.TIMEZONE_OFFSET})
    chosen = draw(st.lists(st.sampled_from(present), min_size=1, max_size=4, unique=True))
    keys = {tag: as_key(draw, about[tag]) for tag in chosen}
    coded = code_key(draw, about) if draw(st.integers(0, 2)) == 0 else {}
    return {tag: key for tag, key in keys.items() if key is not None} | coded


def code_key(draw: st.DrawFn, about: DataSet) -> DataSet:
    """A key for a code of the workitem, with or without its scheme."""
    tag = draw(st.sampled_from([tags.STATION_NAME, tags.WORKITEM_CODE, tags.HUMAN_PERFORMERS, "00404026"]))
    for item in items(about, tag):
        if tag == tags.HUMAN_PERFORMERS:
            below = code_key(draw, {tags.STATION_NAME: item.get(tags.HUMAN_PERFORMER_CODES, element("SQ"))})
            inner = below.get(tags.STATION_NAME)
            return {tag: element("SQ", {tags.HUMAN_PERFORMER_CODES: inner})} if inner else {}
        parts = [tags.CODE_VALUE, *draw(st.sampled_from([[], [tags.CODING_SCHEME]]))]
        key = {tag: element("SH", *item[tag]["Value"][:1]) for tag in parts if values(item, tag)}
        return {tag: element("SQ", key)} if key else {}
    return {}


def extended_level(draw: st.DrawFn, keys: DataSet, mechanisms: Mechanisms) -> DataSet:
    """The keys, some with the value of Empty Value Matching, some with several values."""
    level: DataSet = {}
    for tag, key in keys.items():
        values_ = list(key.get("Value", []))
        if key["vr"] == "SQ":
            values_ = [extended_level(draw, item, mechanisms) for item in values_]
        elif tag not in (tags.TIMEZONE_OFFSET, tags.SOP_INSTANCE_UID):
            if Mechanisms.MULTIPLE in mechanisms and draw(st.integers(0, 3)) == 0:
                values_.append(draw(st.sampled_from(keys_of(key["vr"], tag))))
            if Mechanisms.EMPTY in mechanisms and draw(st.integers(0, 2)) == 0:
                empty = {"Alphabetic": EMPTY_KEY} if key["vr"] == "PN" else EMPTY_KEY
                values_ = [*(values_ if Mechanisms.MULTIPLE in mechanisms else []), empty]
        level[tag] = {**key, "Value": values_} if values_ else key
    return level


@st.composite
def queries(draw: st.DrawFn, worklist: list[DataSet]) -> tuple[Query, int]:
    """A query, and what counts as few."""
    identifier = draw(identifiers(worklist))
    if draw(st.integers(0, 5)) == 0:
        identifier[tags.SOP_INSTANCE_UID] = element("UI", workitems.uid(1), workitems.uid(3))
    if draw(st.integers(0, 5)) == 0:
        identifier[tags.TIMEZONE_OFFSET] = element("SH", "-0500")
    zone = draw(st.sampled_from([None, None, None, "+0900"]))
    mechanisms = draw(st.sampled_from(MECHANISMS))
    extended = extended_level(draw, identifier, mechanisms)
    query = Query.of(extended, mechanisms=mechanisms, timezone=zone)
    return query, draw(st.sampled_from([0, 2, 2_000]))


@st.composite
def cases(draw: st.DrawFn, maximum: int) -> tuple[list[DataSet], list[tuple[Query, int]]]:
    worklist = draw(st.lists(stored_attributes(), max_size=6))
    return worklist, draw(st.lists(queries(worklist), min_size=1, max_size=maximum))


@pytest.fixture(scope="module")
def projection() -> Iterator[Projection]:
    """FEW is lowered in the tests so that small worklists meet the plans of large ones."""
    opened, few = Projection.open(":memory:"), projection_queries.FEW
    yield opened
    opened.close()
    projection_queries.FEW = few


def fill(projection: Projection, worklist: list[DataSet]) -> list[Workitem]:
    for number in range(1, 13):
        projection.remove(workitems.uid(number))
    entries = []
    for number, attributes in enumerate(worklist, 1):
        attributes[tags.SOP_INSTANCE_UID] = element("UI", workitems.uid(number))
        entries.append(Workitem(workitems.uid(number), number, attributes))
        projection.put(entries[-1], "1", encode(entries[-1]))
    return entries


def uids(rows: Any) -> list[str]:
    return [text(row, tags.SOP_INSTANCE_UID) for row in rows]


async def streamed(projection: Projection, query: Query, chunk: int) -> list[DataSet]:
    return [row async for rows in projection.stream(query, chunk) for row in rows]


MANY = settings(
    max_examples=examples(30),
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)


@MANY
@given(cases(maximum=8))
def test_search_stream_and_numbers_find_what_matches(
    projection: Projection, case: tuple[list[DataSet], list[tuple[Query, int]]]
) -> None:
    worklist, asked_queries = case
    stored = fill(projection, worklist)

    async def compare() -> None:
        for query, few in asked_queries:
            projection_queries.FEW = few
            expected = {workitem.uid for workitem in stored if query.matches(workitem.attributes)}
            rows, total = await projection.search(query)
            assert set(uids(rows)) == expected
            assert (len(rows), total) == (len(expected), len(expected))
            in_stream = uids(await streamed(projection, query, 2))
            assert in_stream == uids(rows)
            assert await projection.numbers(query) == [
                workitem.created for workitem in stored if workitem.uid in expected
            ]

    asyncio.run(compare())


@MANY
@given(cases(maximum=1), st.sampled_from(sorted(ORDERS)), st.integers(0, 7), st.integers(0, 7))
def test_pages_are_slices_of_one_order(
    projection: Projection,
    case: tuple[list[DataSet], list[tuple[Query, int]]],
    order: str,
    offset: int,
    limit: int,
) -> None:
    worklist, ((query, few),) = case
    fill(projection, worklist)
    projection_queries.FEW = few

    async def compare() -> None:
        for selection in (query, Query.of({tags.SOP_INSTANCE_UID: element("UI")})):
            whole, total = await projection.search(selection, order=order)
            turned, _ = await projection.search(selection, order=f"-{order}")
            if order not in NONE_LAST:
                assert uids(turned) == uids(whole)[::-1]
            assert sorted(uids(turned)) == sorted(uids(whole))
            page, counted = await projection.search(selection, offset, limit, order)
            assert (uids(page), counted) == (uids(whole)[offset : offset + limit], total)

    asyncio.run(compare())
