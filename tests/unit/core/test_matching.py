# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a query returns, what it tells an index, and that hostile keys cost little."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta, timezone
from types import FrameType
from zoneinfo import ZoneInfo

import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import DataSet, Element, element
from orthanc_ups.core.matching import Query
from orthanc_ups.core.query_conditions import Clause, Condition, Operator
from orthanc_ups.core.rules import RETURN_KEYS
from orthanc_ups.core.statuses import UpsError
from orthanc_ups.core.wildcards import wildcard_test
from tests.support import workitems


def full(**changes: Element) -> DataSet:
    return workitems.changed(workitems.stored(base=workitems.full()), **changes)


# --- C-FIND answers (PS3.4 CC.2.8) ---


def test_select_returns_exactly_what_was_asked_for_and_empty_what_is_absent() -> None:
    query = Query.of(
        {tags.LABEL: element("LO"), tags.PRIORITY: element("CS", "HIGH"), "00380060": element("LO")}
    )
    assert query.select(full()) == {
        "00380060": {"vr": "LO"},
        tags.PRIORITY: element("CS", "HIGH"),
        tags.LABEL: element("LO", "Second reading"),
    }


def test_select_returns_every_item_with_the_nested_keys_only() -> None:
    item = {"00080050": element("SH", "A-4712"), "00321033": element("LO"), "00401400": element("LT")}
    selected = Query.of({"0040A370": element("SQ", item)}).select(full())
    assert selected == {
        "0040A370": element(
            "SQ",
            *(
                {
                    "00080050": element("SH", accession),
                    "00321033": element("LO", "Pulmonology"),
                    "00401400": {"vr": "LT"},
                }
                for accession in ("A-4711", "A-4712")
            ),
        )
    }


@pytest.mark.parametrize("key", [element("SQ"), element("SQ", {})])
def test_select_returns_the_complete_sequence_for_an_empty_key(key: Element) -> None:
    stored = full()
    assert Query.of({"0040A370": key}).select(stored) == {"0040A370": stored["0040A370"]}


def test_select_returns_an_empty_sequence_for_an_absent_one() -> None:
    key = element("SQ", {"00080050": element("SH")})
    assert Query.of({"0040A370": key}).select(workitems.stored()) == {"0040A370": {"vr": "SQ"}}


def test_select_never_returns_the_transaction_uid() -> None:
    stored = full(t00081195=element("UI", "1.2.3"))
    query = Query.of({tags.TRANSACTION_UID: element("UI"), tags.LABEL: element("LO")})
    assert query.select(stored).keys() == {tags.LABEL}
    for every in (False, True):
        chosen = query.returns(frozenset({tags.TRANSACTION_UID}), every).of(stored)
        assert tags.TRANSACTION_UID not in chosen


def test_select_adds_the_zone_where_times_are_returned() -> None:
    stored = full(t00080201=element("SH", "+0100"))
    assert Query.of({tags.START: element("DT")}).select(stored).keys() == {tags.TIMEZONE_OFFSET, tags.START}
    assert Query.of({"0040A370": element("SQ")}).select(stored).keys() == {tags.TIMEZONE_OFFSET, "0040A370"}
    assert Query.of({tags.LABEL: element("LO")}).select(stored).keys() == {tags.LABEL}
    assert tags.TIMEZONE_OFFSET not in Query.of({tags.START: element("DT")}).select(full())


def test_select_leaves_the_workitem_as_it_is() -> None:
    stored = full()
    Query.of({"0040A370": element("SQ", {"00080050": element("SH")})}).select(stored)
    assert stored == full()


# --- Search answers (PS3.18 §11.9.3) ---


def test_search_returns_type_1_and_2_always_and_1c_if_present() -> None:
    query = Query.of({})
    always = {path for path, kind in RETURN_KEYS.items() if "." not in path and kind in ("1", "2")}
    bare = query.returns().of({tags.STATE: element("CS", "SCHEDULED")})
    assert bare.keys() == always
    assert bare["00100020"] == {"vr": "LO"}
    result = query.returns().of(full())
    assert result.keys() == always | {"00102000", "001021C0", "00380050"}
    assert list(result) == sorted(result)


def test_search_returns_match_attributes_and_included_ones() -> None:
    query = Query.of(
        {"00404070": element("SQ", {"00404071": element("SQ", {"21000140": element("AE", "ARCHIVE")})})}
    )
    include = frozenset({"00400400", "00101100.0020000D", "00321032"})
    result = query.returns(include).of(full())
    assert result["00404070"] == element(
        "SQ", {"00404071": element("SQ", {"21000140": element("AE", "ARCHIVE")})}
    )
    assert result["00400400"] == full()["00400400"]
    assert result["00101100"] == {"vr": "SQ"}
    assert result["00321032"] == {"vr": "PN"}
    assert "00101030" not in result


def test_search_merges_nested_requests_and_the_whole_wins() -> None:
    nested = {tags.HUMAN_PERFORMERS: element("SQ", {"00404037": element("PN", {"Alphabetic": "*"})})}
    assert Query.of(nested).returns().of(full())[tags.HUMAN_PERFORMERS] == full()[tags.HUMAN_PERFORMERS]
    output = {"00404070": element("SQ", {"00081150": element("UI")})}
    selected = Query.of(output).returns(frozenset({"00404070.00404071.21000140"})).of(full())
    item = {"00081150": {"vr": "UI"}, "00404071": element("SQ", {"21000140": element("AE", "ARCHIVE")})}
    assert selected["00404070"] == element("SQ", item)
    whole = Query.of(output).returns(frozenset({"00404070"})).of(full())
    assert whole["00404070"] == full()["00404070"]


def test_a_private_attribute_comes_with_what_tells_whose_it_is() -> None:
    """PS3.5 §7.8.1"""
    item = {"00290010": element("LO", "OTHERS"), "00291001": element("DS", "2")}
    private = {
        "00090010": element("LO", "OURS"),
        "00090011": element("LO", "THEIRS"),
        "00091001": element("DS", "1"),
    }
    stored = {**private, "00404070": element("SQ", item)}
    result = Query.of({}).returns(frozenset({"00091001", "00404070.00291001"})).of(stored)
    assert result["00090010"] == private["00090010"] and result["00091001"] == private["00091001"]
    assert "00090011" not in result
    assert result["00404070"] == element("SQ", item)
    selected = Query.of({"00091001": element("DS"), "00291001": element("DS")}).select(stored)
    assert selected == {
        "00090010": private["00090010"], "00091001": private["00091001"], "00291001": {"vr": "DS"},
    }  # fmt: skip


def test_ps3_5_7_8_1_a_private_creator_by_itself_asks_for_nothing() -> None:
    creator, key = {"00090010": element("LO", "OURS")}, {"00091001": element("LO", "red")}
    assert Query.of({**creator, "00091001": element("LO")}).matches(full())
    assert Query.of({**key, **creator}).matches({**creator, **key})
    assert not Query.of({**key, **creator}).matches({"00090010": element("LO", "THEIRS"), **key})
    assert not Query.of({**key, **creator}).matches(full())


def test_ps3_7_c_a_refusal_names_every_malformed_key() -> None:
    nested = {
        "00404011": element("DT", "soon"),
        "0040A370": element("SQ", {"0020000D": element("UI", "a.b")}),
    }
    with pytest.raises(UpsError) as caught:
        Query.of({"00100030": element("DA", "xx"), **nested})
    assert [fault.path for fault in caught.value.faults] == ["00100030", "00404011", "0040A370.0020000D"]


def test_c_2_2_2_1_a_sop_class_that_no_workitem_has_is_told() -> None:
    assert Query.of({tags.SOP_CLASS_UID: element("UI", tags.PUSH)}).unmatchable == ()
    ((path, reason),) = Query.of({tags.SOP_CLASS_UID: element("UI", tags.PULL)}).unmatchable
    assert path == tags.SOP_CLASS_UID and tags.PUSH in reason


def test_search_with_all_returns_everything() -> None:
    stored = full()
    result = Query.of({}).returns(everything=True).of(stored)
    assert stored.items() <= result.items()
    assert list(result) == sorted(result)


# --- what an index is told ---


def test_conditions_of_single_keys_say_all() -> None:
    query = Query.of(
        {
            tags.STATE: element("CS", "SCHEDULED"),
            tags.LABEL: element("LO", "Chest*"),
            tags.START: element("DT", "00010101-0001010100"),
        }
    )
    assert query.exact
    assert query.conditions == (
        Condition(tags.STATE, Operator.EQUALS, ("SCHEDULED",)),
        Condition(tags.LABEL, Operator.LIKE, ("Chest*",)),
        Condition(tags.START, Operator.WITHIN, ((0, 3_600_000_000 - 1),)),
    )


def test_conditions_of_a_sequence_stay_together() -> None:
    key = {tags.STATION_NAME: element("SQ", {"00080100": element("SH", "A"), "00080102": element("SH", "B")})}
    assert Query.of(key).clauses == (
        Clause(
            (
                Condition("00404025.00080100", Operator.EQUALS, ("A",)),
                Condition("00404025.00080102", Operator.EQUALS, ("B",)),
            ),
            complete=True,
        ),
    )


def test_what_no_index_can_know_is_not_complete() -> None:
    query = Query.of({"00101030": element("DS", "70"), tags.STATE: element("CS", "SCHEDULED")})
    assert query.unsupported
    assert query.exact
    assert not Query.of({"00101022": element("DS", "70")}).exact


# --- zones with rules of their own ---


def test_a_zone_with_summer_time_is_followed() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    summer = workitems.stored(t00404005=element("DT", "20260701120000"))
    winter = workitems.stored(t00404005=element("DT", "20260101120000"))
    at_ten = Query.of({tags.START: element("DT", "202607011000+0000")}, timezone=berlin)
    at_eleven = Query.of({tags.START: element("DT", "202601011100+0000")}, timezone=berlin)
    assert at_ten.matches(summer)
    assert at_eleven.matches(winter)
    assert not at_eleven.matches(summer)


def test_a_fixed_zone_may_come_as_tzinfo() -> None:
    query = Query.of({tags.START: element("DT", "202611221730+0000")}, timezone=timezone(timedelta(hours=1)))
    assert query.matches(workitems.stored())


def test_the_ends_of_time_do_no_harm() -> None:
    stored = workitems.stored(t00404005=element("DT", "99991231235960"))
    assert Query.of({tags.START: element("DT", "9999-")}, timezone=ZoneInfo("Asia/Tokyo")).matches(stored)
    first = workitems.stored(t00404005=element("DT", "0001+1400"))
    assert Query.of({tags.START: element("DT", "-0001")}).matches(first)


@pytest.mark.parametrize("zone", ["", "Z", "0100", "+25", "+1500"])
def test_a_malformed_zone_is_refused(zone: str) -> None:
    with pytest.raises(ValueError, match="not an offset from UTC"):
        Query.of({}, timezone=zone)
    if zone:
        with pytest.raises(UpsError, match="TimezoneOffsetFromUTC"):
            Query.of({tags.TIMEZONE_OFFSET: element("SH", zone)})


# --- hostile keys ---


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Fail instead of hanging for years; no measurement."""

    def late(signal_number: int, frame: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("pattern", ["*a" * 30 + "*b", "a*" * 40 + "b", "*" + "?" * 60 + "*" * 60 + "b"])
def test_a_hostile_pattern_ends_soon(pattern: str) -> None:
    with at_most(20):
        assert not wildcard_test(pattern)("a" * 10_000)


def test_values_of_a_wrong_kind_never_match_and_never_fail() -> None:
    stored: DataSet = {
        tags.LABEL: {"vr": "LO", "Value": [None, 5, {"Alphabetic": "x"}]},
        tags.PATIENT_NAME: {"vr": "PN", "Value": ["text", None]},
        tags.START: {"vr": "DT", "Value": [20260101, "20269999", None]},
        "0040A370": {"vr": "SQ", "Value": ["no item"]},
        "00101022": {"vr": "DS", "Value": [None, "x", "NaN"]},
    }
    keys: DataSet = {
        tags.LABEL: element("LO", "x"),
        tags.PATIENT_NAME: element("PN", {"Alphabetic": "t*"}),
        tags.START: element("DT", "2026"),
        "0040A370": element("SQ", {"00080050": element("SH", "A")}),
        "00101022": element("DS", "1"),
    }
    for tag, key in keys.items():
        assert not Query.of({tag: key}).matches(stored)


def test_a_key_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(UpsError, match="valid Unicode"):
        Query.of({tags.LABEL: element("LO", "a\ud800")})


def test_refusals_hold_no_patient_data() -> None:
    with pytest.raises(UpsError) as refused:
        Query.of({"00100030": element("DA", "28 Feb 1973")})
    assert "1973" not in refused.value.detail
