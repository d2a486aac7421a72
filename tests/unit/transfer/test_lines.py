# SPDX-License-Identifier: AGPL-3.0-or-later
"""The lines of an export are DICOM JSON, are read back unchanged, and are refused whole if they are wrong."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import element
from orthanc_ups.core.mechanisms import Mechanisms
from orthanc_ups.core.numbers import Numbers
from orthanc_ups.core.subscriptions import ActKind, GlobalAct, Log
from orthanc_ups.core.workitem import HistoryEntry, SpecificAct, Subscription, Workitem, digest
from orthanc_ups.delivery.documents import Batch, Progress
from orthanc_ups.delivery.port import Burst, Endpoint
from orthanc_ups.delivery.queue import BurstAt
from orthanc_ups.transfer.lines import FORMAT, NotALine, decode, encode, next_page
from orthanc_ups.transfer.records import AeCursors, Head, Purged, Record, Tail
from tests.support.delivery import event
from tests.support.examples import examples
from tests.support.workitems import full, stored, uid

IDENTIFIER = {tags.PRIORITY: element("CS", "HIGH"), tags.START: element("DT", "20261122-20261123")}
WORKITEM = Workitem(
    uid=uid(1),
    created=17,
    attributes=stored(1, "IN PROGRESS", full("japanese")),
    owner=digest("1.2.3"),
    acts={"AI": SpecificAct(5, Subscription.LOCK, 12.5), "RIS": SpecificAct(9, Subscription.NONE)},
    filtered=(3, 8),
    events=(event(11, "AI", "RIS", uid=uid(1)), event(12, uid=uid(1))),
    history=(HistoryEntry(1.25, "SCHEDULER by DIMSE", "created"),),
    ended=None,
    revision=4,
)
RECORDS: tuple[Record, ...] = (
    Head("identity", 40, 18, 1795376841.5, {"workitems": 1}),
    Log(
        "RIS",
        (
            GlobalAct(3, ActKind.LOCK, 12, at=1.5),
            GlobalAct(8, ActKind.NO_LOCK, 12, True, IDENTIFIER, Numbers.of([1, 2, 900]), 2.5),
            GlobalAct(
                9, ActKind.LOCK, 12, True, IDENTIFIER, Numbers(), 2.5, Mechanisms.EMPTY | Mechanisms.MULTIPLE
            ),
            GlobalAct(20, ActKind.SUSPEND, 17, True),
        ),
        revision=3,
    ),
    AeCursors(
        "AI",
        {
            "dimse": Progress(
                10,
                (12,),
                {
                    "delivered": 9,
                    "failed": 1,
                    "dead": 0,
                    "last_success_at": 5.5,
                    "last_error": "no route",
                    "last_error_at": None,
                },
            )
        },
    ),
    WORKITEM,
    Purged(uid(2), HistoryEntry(99.5, "anna as WORKLIST by page", "purged", "Ordered twice")),
    Batch(
        Endpoint("AI", "webhook:PACS"),
        (event(4, "AI", uid=uid(1)), BurstAt(Burst("AI", 20, 17, 20, 3.5), 25)),
        "not delivered within 7 days",
        7.5,
    ),
    Tail(41, 18),
)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_comes_back_as_it_was(record: Record) -> None:
    line = encode(record)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert decode(line) == record


def test_a_workitem_stands_in_its_line_as_dicom_json() -> None:
    """PS3.18 Annex F: numbers are numbers, with every digit that was stored, and text is UTF-8."""
    line = encode(WORKITEM)
    attributes = orjson.loads(line)["attributes"]
    assert attributes["00080005"] == {"vr": "CS", "Value": ["ISO_IR 192"]}
    assert b'"00101030":{"vr":"DS","Value":[71.50]}' in line
    assert attributes["00100010"]["Value"][0]["Ideographic"] == "青川^春香"


def test_events_may_stand_in_any_order_and_come_back_by_sequence() -> None:
    record = decode(orjson.dumps({**_WORKITEM, "events": _WORKITEM["events"][::-1]}))
    assert isinstance(record, Workitem) and record.events == WORKITEM.events


def test_the_line_that_ends_a_page_is_passed_over() -> None:
    assert decode(next_page("workitems/12")) is None


def without(content: dict[str, Any], *path: str) -> dict[str, Any]:
    if len(path) > 1:
        return {**content, path[0]: without(content[path[0]], *path[1:])}
    return {key: value for key, value in content.items() if key != path[0]}


def with_attribute(tag: str, value: Any) -> dict[str, Any]:
    content = orjson.loads(encode(WORKITEM))
    return {**content, "attributes": {**content["attributes"], tag: value}}


_HEAD = orjson.loads(encode(RECORDS[0]))
_WORKITEM = orjson.loads(encode(WORKITEM))
_LOG = orjson.loads(encode(RECORDS[1]))
WRONG: dict[str, tuple[Any, str]] = {
    "no object": ([], "the line is not a JSON object"),
    "no kind": ({}, '"kind" is missing'),
    "unknown kind": ({"kind": "patient"}, "\"kind\" is 'patient', expected one of header, subscriber"),
    "another product": ({**_HEAD, "product": "x"}, "this is not an export of orthanc-ups"),
    "a newer format": ({**_HEAD, "format": FORMAT + 1}, f"the format is {FORMAT + 1}, expected {FORMAT}"),
    "a newer format with other fields": (
        {"kind": "header", "product": _HEAD["product"], "format": FORMAT + 1},
        f"the format is {FORMAT + 1}, expected {FORMAT}",
    ),
    "no format": (without(_HEAD, "format"), '"format" is missing'),
    "a number as text": (
        {**_HEAD, "next_sequence": "7"},
        "\"next_sequence\" is '7', expected a whole number",
    ),
    "a fraction": ({**_HEAD, "next_creation": 1.5}, '"next_creation" is 1.5, expected a whole number'),
    "a huge number": ({**_HEAD, "next_creation": 2**60}, '"next_creation" is'),
    "no UID": ({**_WORKITEM, "uid": "1.02"}, "\"uid\" is '1.02', expected a UID"),
    "two UIDs": ({**_WORKITEM, "uid": "1.2"}, "another SOP Instance UID"),
    "no state": (without(_WORKITEM, "attributes", tags.STATE), "no valid Procedure Step State"),
    "an unknown state": (
        with_attribute(tags.STATE, {"vr": "CS", "Value": ["WAITING"]}),
        "ProcedureStepState (0074,1000) is 'WAITING', expected",
    ),
    "a wrong VR": (with_attribute("00100020", {"vr": "ZZ", "Value": ["x"]}), "PatientID (0010,0020)"),
    "a wrong value": (with_attribute("00100030", {"vr": "DA", "Value": ["yesterday"]}), "(0010,0030)"),
    "bulk data": (with_attribute("00091001", {"vr": "OB", "BulkDataURI": "http://x"}), "BulkDataURI"),
    "no tag": (with_attribute("PatientName", {"vr": "PN"}), "is not a tag"),
    "no attributes": (without(_WORKITEM, "attributes"), '"attributes" is missing'),
    "an owner in clear": ({**_WORKITEM, "owner": "1.2.3"}, '"owner" is not a digest'),
    "an unknown subscription": (
        {**_WORKITEM, "acts": {"AI": {"sequence": 1, "state": "maybe", "at": 1}}},
        "\"acts.AI.state\" is 'maybe', expected one of",
    ),
    "no AE title": (
        {**_WORKITEM, "acts": {"A" * 17: {"sequence": 1, "state": "lock", "at": 1}}},
        "expected an AE title",
    ),
    "an event twice": (
        {**_WORKITEM, "events": _WORKITEM["events"][:1] * 2},
        "two events have the same sequence",
    ),
    "an unknown event": (
        {**_WORKITEM, "events": [{**_WORKITEM["events"][0], "type": 9}]},
        '"events[0].type" is 9',
    ),
    "acts out of order": ({**_LOG, "acts": _LOG["acts"][::-1]}, "not in ascending order"),
    "a filter that is none": (
        {**_LOG, "acts": [{**_LOG["acts"][1], "filter": {"00404005": {"vr": "DT", "Value": ["soon"]}}}]},
        "(0040,4005) is not valid as a key",
    ),
    "matches that are none": ({**_LOG, "acts": [{**_LOG["acts"][1], "matched": "%"}]}, "matched\" is '%'"),
    "no letters": (
        {**orjson.loads(encode(RECORDS[5])), "letters": []},
        '"letters" is [], expected a list',
    ),
    "a time that is none": ({**orjson.loads(encode(RECORDS[4])), "at": "today"}, "\"at\" is 'today'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_line_is_refused_in_words(name: str) -> None:
    content, words = WRONG[name]
    with pytest.raises(NotALine) as refused:
        decode(orjson.dumps(content))
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "line", [b"{", b"garbage", b"\xff\xfe", b'{"kind": NaN}', b"[" * 5_000, encode(WORKITEM)[:-100]]
)
def test_what_is_no_json_is_refused(line: bytes) -> None:
    with pytest.raises(NotALine, match="not JSON"):
        decode(line)


@given(st.sampled_from(RECORDS), st.data())
@settings(max_examples=examples(80))
def test_no_damage_of_a_line_does_more_than_refuse_it(record: Record, data: st.DataObject) -> None:
    line = bytearray(encode(record))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(line) - 1))
        line[at : at + data.draw(st.integers(0, 6))] = data.draw(st.binary(max_size=6))
    try:
        decode(bytes(line))
    except NotALine as refused:
        assert str(refused)
