# SPDX-License-Identifier: AGPL-3.0-or-later
"""Range Matching of dates, times and date-times with their zones: PS3.4 C.2.2.2.5."""

from __future__ import annotations

import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import element
from orthanc_ups.core.matching import Query
from orthanc_ups.core.statuses import IDENTIFIER_MISMATCH, UpsError
from tests.support.matching import matches, with_one

LABEL = tags.LABEL
BIRTH_DATE = "00100030"
REQUESTS = "0040A370"


# --- C.2.2.2.5 Range Matching ---


@pytest.mark.parametrize(
    ("key", "fits"),
    [
        ("20260101-20261231", True),
        ("20261122183000-20261122183000", True),
        ("20261122-", True),
        ("-20261122", True),
        ("-20261122183000.0", True),
        ("20261122183000.1-", False),
        ("-202611221829", False),
        ("2027-", False),
        ("2025-2026", True),
        ("2025-202610", False),
        ("20261122183000+0000 - 20261122183000+0000", True),
        ("20261122193000+0100-20261122193000+0100", True),
        ("20261122133000-0500-20261122133000-0500", True),
        ("-20261122133000-0500", True),
        ("-20261122133000-0600", True),
        ("-20261122133000-0400", False),
        ("20261122133000-0500-", True),
        ("20261122133000-0600-", False),
        ("20261122-1200", True),
        ("20261121-0500", False),
        ("20261122-0500-20261122-0500", True),
    ],
)
def test_c_2_2_2_5_3_date_time_ranges(key: str, fits: bool) -> None:
    stored = with_one(tags.START, element("DT", "20261122183000"))
    assert matches({tags.START: element("DT", key)}, stored) is fits


@pytest.mark.parametrize(
    ("key", "fits"),
    [
        ("19730228", True),
        ("19730101-19731231", True),
        ("19730228-", True),
        ("-19730228", True),
        ("-19730227", False),
        ("19730301-", False),
    ],
)
def test_c_2_2_2_5_1_date_ranges(key: str, fits: bool) -> None:
    assert matches({BIRTH_DATE: element("DA", key)}, with_one(BIRTH_DATE, element("DA", "19730228"))) is fits


@pytest.mark.parametrize(
    ("key", "fits"),
    [
        ("1430", True),
        ("14", True),
        ("0800-1430", True),
        ("-1429", False),
        ("143001-", False),
        ("1431", False),
    ],
)
def test_c_2_2_2_5_2_time_ranges_within_one_day(key: str, fits: bool) -> None:
    stored = with_one(REQUESTS, element("SQ", {"00402005": element("TM", "143000.25")}))
    assert matches({REQUESTS: element("SQ", {"00402005": element("TM", key)})}, stored) is fits


@pytest.mark.parametrize(
    ("tag", "vr", "key"),
    [
        (tags.START, "DT", "tomorrow"),
        (tags.START, "DT", "20261301"),
        (tags.START, "DT", "20260230"),
        (tags.START, "DT", "2026112218300"),
        (tags.START, "DT", "20260131-20260101"),
        (tags.START, "DT", "20260101-20260102-20260103"),
        (tags.START, "DT", "-"),
        (tags.START, "DT", "*"),
        (tags.START, "DT", "20260101 0500"),
        (BIRTH_DATE, "DA", "1973"),
        (BIRTH_DATE, "DA", "19730228-19720101"),
        ("0040A370.00402005", "TM", "2000-0800"),
        ("0040A370.00402005", "TM", "2500"),
        ("0040A370.00402005", "TM", "12.5"),
    ],
)
def test_c_2_2_2_5_a_malformed_range_is_refused_by_name(tag: str, vr: str, key: str) -> None:
    above, _, last = tag.rpartition(".")
    keys = {last: element(vr, key)}
    with pytest.raises(UpsError, match=r"\([0-9A-F]{4},[0-9A-F]{4}\)") as refused:
        Query.of({above: element("SQ", keys)} if above else keys)
    assert refused.value.status is IDENTIFIER_MISMATCH
    assert refused.value.tag == tag
    assert key not in refused.value.detail or len(key) < 2


@pytest.mark.parametrize(
    ("key_zone", "stored_zone", "local", "key", "fits"),
    [
        (None, None, None, "202611221830", True),
        (None, "+0100", None, "202611221730", True),
        (None, "+0100", None, "202611221830", False),
        ("+0100", None, None, "202611221930", True),
        ("-0500", "+0100", None, "202611221230", True),
        (None, None, "+0900", "202611221830", True),
        ("+0000", None, "+0900", "202611220930", True),
        ("+0000", "-0100", "+0900", "202611221930", True),
        ("+0000", "-0100", "+0900", "202611222130+0200", True),
    ],
)
def test_c_2_2_2_5_3_zones_of_value_then_data_set_then_place(
    key_zone: str | None, stored_zone: str | None, local: str | None, key: str, fits: bool
) -> None:
    identifier = {tags.START: element("DT", key)}
    stored = with_one(tags.START, element("DT", "20261122183000"))
    if key_zone:
        identifier[tags.TIMEZONE_OFFSET] = element("SH", key_zone)
    if stored_zone:
        stored[tags.TIMEZONE_OFFSET] = element("SH", stored_zone)
    assert matches(identifier, stored, timezone=local) is fits
