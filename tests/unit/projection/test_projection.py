# SPDX-License-Identifier: AGPL-3.0-or-later
"""The projection stores and finds workitems, and removes deleted ones."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import DataSet, element, text
from orthanc_ups.core.events import Event, EventType
from orthanc_ups.core.free_text import words
from orthanc_ups.core.matching import Query
from orthanc_ups.core.statuses import OUT_OF_RESOURCES, UpsError
from orthanc_ups.core.workitem import SpecificAct, Subscription
from orthanc_ups.projection import pending
from orthanc_ups.projection import reader as projection_reader
from orthanc_ups.projection.projection import Projection, StoredWorkitem
from orthanc_ups.projection.writer import change_of
from orthanc_ups.store.documents import encode
from tests.support import workitems
from tests.support.projections import EVERYTHING, entry, key, matching_numbers, put, rows_in, stored_workitem

# --- single workitems ---


def test_what_was_put_is_got_again(projection: Projection) -> None:
    assert projection.get(workitems.uid(1)) is None
    put(projection, stored_workitem(1), version="a")
    assert projection.get(workitems.uid(1)) == StoredWorkitem(stored_workitem(1), "a")
    assert projection.count() == 1


def test_a_later_put_replaces_what_is_kept_and_indexed(projection: Projection) -> None:
    put(projection, stored_workitem(1), stored_workitem(2))
    changed = stored_workitem(1, "IN PROGRESS", revision=1)
    changed.attributes[tags.STATION_NAME] = element("SQ", workitems.station("READING9"))
    changed.attributes[tags.PATIENT_ID] = element("LO", "OTHER")
    put(projection, changed, version="2")
    assert projection.get(changed.uid) == StoredWorkitem(changed, "2")
    assert projection.count() == 2
    assert matching_numbers(projection, key(tags.STATE, "CS", "IN PROGRESS")) == [1]
    assert matching_numbers(projection, key(tags.PATIENT_ID, "LO", "OTHER")) == [1]
    assert matching_numbers(projection, key(tags.PATIENT_ID, "LO", "HC-000815")) == [2]
    for station, expected in (("READING7", [2]), ("READING9", [1])):
        item = {tags.CODE_VALUE: element("SH", station)}
        assert matching_numbers(projection, Query.of({tags.STATION_NAME: element("SQ", item)})) == expected


def test_a_put_after_a_get_indexes_what_changed(projection: Projection) -> None:
    """The quick way of a write that leaves most elements as they were."""
    put(projection, stored_workitem(1))
    for turn, (state, patient) in enumerate([("IN PROGRESS", "HC-000815"), ("COMPLETED", "OTHER")]):
        stored = projection.get(workitems.uid(1))
        assert stored
        attributes = {**stored.workitem.attributes, tags.STATE: element("CS", state)}
        if patient == "OTHER":
            attributes[tags.PATIENT_ID] = element("LO", patient)
        put(projection, dataclasses.replace(stored.workitem, attributes=attributes, revision=turn))
        station = {tags.STATION_NAME: element("SQ", {tags.CODE_VALUE: element("SH", "READING7")})}
        keys = {tags.STATE: element("CS", state), tags.PATIENT_ID: element("LO", patient)}
        assert matching_numbers(projection, Query.of(keys)) == [1]
        assert matching_numbers(projection, Query.of({tags.STATE: element("CS", state), **station})) == [1]
        assert (
            matching_numbers(projection, Query.of({tags.STATE: element("CS", "SCHEDULED"), **station})) == []
        )


def test_no_request_waits_for_the_rows_of_many_others(
    projection: Projection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that take long are made in as many turns of the loop as there are workitems."""
    turn, turns = 0, []

    def noted(*arguments: Any) -> Any:
        turns.append(turn)
        time.sleep(0.001)
        return change_of(*arguments)

    async def put_some() -> None:
        nonlocal turn
        put(projection, *map(stored_workitem, range(1, 11)))
        put(projection, stored_workitem(3, "IN PROGRESS", revision=1))
        while len(turns) < 10:
            await asyncio.sleep(0)
            turn += 1
        put(projection, stored_workitem(4, "IN PROGRESS", revision=1))

    monkeypatch.setattr(pending, "change_of", noted)
    asyncio.run(put_some())
    assert len(set(turns)) == len(turns)
    assert matching_numbers(projection, key(tags.STATE, "CS", "IN PROGRESS")) == [3, 4]


def test_a_removed_workitem_is_found_nowhere(projection: Projection) -> None:
    put(projection, stored_workitem(1), stored_workitem(2))
    projection.remove(workitems.uid(1))
    projection.remove(workitems.uid(1))
    assert projection.get(workitems.uid(1)) is None
    assert matching_numbers(projection) == [2]
    assert projection.count() == 1
    rows = rows_in(projection, "code", "key", "body", "rows")
    put(projection, stored_workitem(1))
    projection.remove(workitems.uid(1))
    assert rows_in(projection, "code", "key", "body", "rows") == rows


def test_a_search_sees_every_write_before_it(projection: Projection) -> None:
    for number in range(1, 20):
        put(projection, stored_workitem(number))
        assert matching_numbers(projection) == list(range(1, number + 1))


# --- many workitems ---


def test_created_goes_through_in_the_order_of_creation(projection: Projection) -> None:
    put(projection, *(stored_workitem(number) for number in (5, 2, 9, 3)))
    assert [workitem.created for workitem in projection.created(0, 100, 10)] == [2, 3, 5, 9]
    assert [workitem.created for workitem in projection.created(2, 5, 10)] == [3, 5]
    assert [workitem.created for workitem in projection.created(2, 100, 2)] == [3, 5]


def test_ended_before_gives_the_oldest_first(projection: Projection) -> None:
    put(
        projection,
        stored_workitem(1),
        stored_workitem(2, "COMPLETED", ended=20.0),
        stored_workitem(3, "CANCELED", ended=10.0),
    )
    put(projection, stored_workitem(4, "COMPLETED", ended=30.0))
    assert [workitem.created for workitem in projection.ended((0.0, 0), 30.0, 10)] == [3, 2]
    assert [workitem.created for workitem in projection.ended((0.0, 0), 99.0, 1)] == [3]


def test_pages_of_ended_ones_go_on_behind_the_last_whatever_was_removed(projection: Projection) -> None:
    put(
        projection,
        *(stored_workitem(number, "COMPLETED", ended=10.0 * (number // 3)) for number in range(1, 10)),
    )
    numbers, cursor = [], (0.0, 0)
    while page := projection.ended(cursor, 99.0, 2):
        numbers += [workitem.created for workitem in page]
        cursor = page[-1].ended or 0.0, page[-1].created
        projection.remove(page[0].uid)
    assert numbers == list(range(1, 10))


def test_workitems_with_events_or_acts_are_found_without_reading_the_others(projection: Projection) -> None:
    event = Event(7, EventType.STATE_REPORT, workitems.uid(2), {}, ("AI",), 1.0)
    put(projection, stored_workitem(1), stored_workitem(2, events=(event,)), stored_workitem(4, spilled=(3,)))
    put(projection, *(stored_workitem(number) for number in range(10, 300)))
    put(projection, stored_workitem(300, acts={"AI": SpecificAct(3, Subscription.LOCK)}))
    assert [workitem.created for workitem in projection.with_events_after(6)] == [2]
    assert [workitem.created for workitem in projection.with_events_after(7)] == []
    assert [workitem.created for workitem in projection.with_acts()] == [4, 300]


def test_documents_are_what_was_put(projection: Projection) -> None:
    put(projection, *(stored_workitem(number) for number in range(1, 451)), version="v")
    entries = {(f"workitem/{workitems.uid(n)}", encode(stored_workitem(n)), "v") for n in range(1, 451)}
    assert set(projection.documents()) == entries


def test_counts_per_worklist_and_state(projection: Projection) -> None:
    put(projection, stored_workitem(1), stored_workitem(2), stored_workitem(3, "COMPLETED"))
    unlike = stored_workitem(4)
    unlike.attributes[tags.WORKLIST_LABEL] = element("LO", "MR")
    put(projection, unlike)
    counts = asyncio.run(projection.counts())
    assert counts.by_worklist == {"SECOND READS": {"SCHEDULED": 2, "COMPLETED": 1}, "MR": {"SCHEDULED": 1}}
    assert counts.by_state == {"SCHEDULED": 3, "COMPLETED": 1}
    assert counts.total == 4


# --- searches ---


def test_an_unknown_order_is_an_error_that_names_the_known_ones(projection: Projection) -> None:
    with pytest.raises(ValueError, match="expected one of start, created"):
        asyncio.run(projection.search(EVERYTHING, order="age"))


def test_a_stream_can_be_abandoned(projection: Projection) -> None:
    put(projection, *(stored_workitem(number) for number in range(1, 31)))

    async def first() -> int:
        async for chunk in projection.stream(EVERYTHING, 10):
            return len(chunk)
        return 0

    assert asyncio.run(first()) == 10
    assert matching_numbers(projection) == list(range(1, 31))


def test_a_workitem_that_moves_ahead_during_a_stream_is_told_once(projection: Projection) -> None:
    put(projection, *(stored_workitem(number) for number in range(1, 31)))

    async def uids() -> list[str]:
        result = []
        async for chunk in projection.stream(EVERYTHING, 10):
            result += [text(row, tags.SOP_INSTANCE_UID) for row in chunk]
            moved = stored_workitem(1)
            moved.attributes[tags.START] = element("DT", "2030")
            put(projection, moved)
        return result

    streamed = asyncio.run(uids())
    assert sorted(streamed) == sorted(workitems.uid(number) for number in range(1, 31))


def test_too_many_waiting_searches_are_refused(
    projection: Projection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection_reader, "WAITING_SEARCHES", 3)
    put(projection, stored_workitem(1))

    matched, go_on = projection_reader.Reader.matched, threading.Event()

    def slow(*arguments: Any, **options: Any) -> projection_reader.Matched:
        go_on.wait(30)
        return matched(*arguments, **options)

    monkeypatch.setattr(projection_reader.Reader, "matched", slow)

    async def many() -> list[object]:
        searches = [asyncio.ensure_future(projection.search(EVERYTHING)) for _ in range(5)]
        refused, _ = await asyncio.wait(searches[3:])
        assert len(refused) == 2
        go_on.set()
        return list(await asyncio.gather(*searches, return_exceptions=True))

    outcomes = asyncio.run(many())
    refusals = [outcome for outcome in outcomes if isinstance(outcome, UpsError)]
    assert [refusal.status for refusal in refusals] == [OUT_OF_RESOURCES] * 2
    assert matching_numbers(projection) == [1]


def test_paging_counts_once_as_long_as_nothing_changes(projection: Projection) -> None:
    put(projection, *(stored_workitem(number) for number in range(1, 31)))
    query = key("00400400", "LT", "*last year*")

    async def pages() -> None:
        fetched = [await projection.search(query, offset, 10) for offset in (0, 10, 20)]
        assert [total for _, total in fetched] == [30, 30, 30]
        uids = [text(row, tags.SOP_INSTANCE_UID) for rows, _ in fetched for row in rows]
        assert uids == [workitems.uid(number) for number in range(1, 31)]
        put(projection, stored_workitem(31))
        assert (await projection.search(query, 30, 10))[1] == 31

    asyncio.run(pages())


def test_queries_of_another_zone_find_what_matches_there(path: Path) -> None:
    opened = Projection.open(path, timezone="+0100")
    put(opened, stored_workitem(1))
    for zone, hour in (("+0100", "18"), ("+0900", "18"), (None, "18")):
        query = Query.of({tags.START: element("DT", f"20261122{hour}")}, timezone=zone)
        assert matching_numbers(opened, query) == [1]
    assert matching_numbers(
        opened, Query.of({tags.START: element("DT", "2026112217+0000")}, timezone="+0100")
    ) == [1]
    assert (
        matching_numbers(opened, Query.of({tags.START: element("DT", "2026112217+0000")}, timezone="+0000"))
        == []
    )
    opened.close()


def test_a_long_list_of_uids_is_no_problem(projection: Projection) -> None:
    put(projection, stored_workitem(1), stored_workitem(2), stored_workitem(3))
    listed = element("UI", *(workitems.uid(number) for number in range(2, 60_000)))
    assert matching_numbers(projection, Query.of({tags.SOP_INSTANCE_UID: listed})) == [2, 3]


@pytest.mark.parametrize(
    "identifier",
    [
        {tags.PATIENT_NAME: element("PN", {"Alphabetic": "fairweather" + "^*" * 5_000})},
        {tags.PATIENT_NAME: element("PN", {"Alphabetic": "*a" * 5_000})},
        {tags.PATIENT_ID: element("LO", "?*" * 30_000)},
        {tags.LABEL: element("LO", "x" * 1_000_000)},
        {f"0099{number:04X}": element("LO", "x") for number in range(0x1000, 0x1500)},
    ],
    ids=["components", "stars in a name", "stars", "long", "many keys"],
)
def test_a_monstrous_query_harms_nobody(projection: Projection, identifier: DataSet) -> None:
    put(projection, stored_workitem(1))
    assert matching_numbers(projection, Query.of(identifier)) in ([], [1])
    assert matching_numbers(projection) == [1]


def test_a_query_that_sqlite_refuses_is_refused_and_breaks_nothing(projection: Projection) -> None:
    put(projection, stored_workitem(1))
    with pytest.raises(UpsError, match="too complex") as refused:
        matching_numbers(projection, words=("a",) * 300_000)
    assert refused.value.status is OUT_OF_RESOURCES
    assert matching_numbers(projection) == [1]


# --- free text ---


def test_every_word_must_occur(projection: Projection) -> None:
    second = stored_workitem(2, "IN PROGRESS")
    second.attributes[tags.PATIENT_NAME] = element("PN", workitems.person("latin-1"))
    put(projection, stored_workitem(1), second)
    assert matching_numbers(projection, words=words("ÅNGSTROM read")) == [2]
    assert matching_numbers(projection, words=words("reading7")) == [1, 2]
    assert matching_numbers(projection, words=words("reading7 nobody")) == []
    assert matching_numbers(projection, key(tags.STATE, "CS", "SCHEDULED"), words("fairweather")) == [1]
    assert matching_numbers(projection, words=("\ud800",)) == []


def test_free_text_follows_a_change_and_a_removal(projection: Projection) -> None:
    put(projection, stored_workitem(1), stored_workitem(2))
    changed = stored_workitem(1, revision=1)
    changed.attributes[tags.LABEL] = element("LO", "Zebra")
    put(projection, changed)
    assert matching_numbers(projection, words=words("zebra")) == [1]
    projection.remove(workitems.uid(1))
    assert matching_numbers(projection, words=words("zebra")) == []


# --- the log of events ---


def event(sequence: int, *receivers: str, at: float = 0.0) -> Event:
    information: DataSet = {tags.STATE: element("CS", "SCHEDULED")}
    return Event(sequence, EventType.STATE_REPORT, workitems.uid(sequence), information, receivers, at)


def test_events_are_replayed_in_order(projection: Projection) -> None:
    projection.record_events([event(5, "AI"), event(3, "AI", "PACS")])
    projection.record_events([event(9)])
    assert asyncio.run(projection.events(0, 10)) == [event(3, "AI", "PACS"), event(5, "AI"), event(9)]
    assert asyncio.run(projection.events(3, 1)) == [event(5, "AI")]
    assert asyncio.run(projection.events(0, 10, "PACS")) == [event(3, "AI", "PACS")]
    assert asyncio.run(projection.events(0, 10, "A")) == []


def test_an_event_told_twice_is_kept_once(projection: Projection) -> None:
    projection.record_events([event(5, "AI")])
    projection.record_events([event(5, "AI", "PACS")])
    assert asyncio.run(projection.events(0, 10)) == [event(5, "AI", "PACS")]


def test_old_events_are_forgotten_some_at_a_time(projection: Projection) -> None:
    projection.record_events([event(number, at=float(number)) for number in range(1, 11)])
    assert projection.forget_events(8.0, limit=5) == 5
    assert projection.forget_events(8.0, limit=5) == 2
    assert projection.forget_events(8.0) == 0
    assert [logged.sequence for logged in asyncio.run(projection.events(0, 100))] == [8, 9, 10]


def test_the_log_survives_a_rebuilding(projection: Projection) -> None:
    projection.record_events([event(1, "AI")])
    with projection.rebuilding() as rebuild:
        rebuild.take([entry(stored_workitem(1))])
    assert asyncio.run(projection.events(0, 10)) == [event(1, "AI")]


def test_the_events_of_one_workitem_are_the_last_ones(projection: Projection) -> None:
    events = [
        dataclasses.replace(event(number, "AI"), uid=workitems.uid(number % 2)) for number in range(1, 9)
    ]
    projection.record_events(events)
    assert [logged.sequence for logged in asyncio.run(projection.events_of(workitems.uid(1)))] == [1, 3, 5, 7]
    assert [logged.sequence for logged in asyncio.run(projection.events_of(workitems.uid(1), 2))] == [5, 7]
    assert asyncio.run(projection.events_of(workitems.uid(5))) == []


def test_a_workitem_is_told_as_it_was_stored_whether_it_is_remembered_or_read(
    path: Path,
) -> None:
    for is_remembered in (True, False):
        opened = Projection.open(path)
        if is_remembered:
            put(opened, stored_workitem(1))
        assert opened.document(workitems.uid(1)) == encode(stored_workitem(1))
        assert opened.text(workitems.uid(1)) == orjson.dumps(stored_workitem(1).attributes)
        assert opened.document(workitems.uid(2)) is None
        assert opened.text(workitems.uid(2)) is None
        opened.close()
