# SPDX-License-Identifier: AGPL-3.0-or-later
"""Sequences that come again are the same object, and what was found in them is found again."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime

import pytest

from orthanc_ups.codecs import dicom_json
from orthanc_ups.codecs.corrections import Corrections
from orthanc_ups.core import tags
from orthanc_ups.core.attributes import prepare_create
from orthanc_ups.core.dataset import DataSet, element
from orthanc_ups.core.date_times import UTC as ZONE
from orthanc_ups.core.interned import Interned, notes_of
from orthanc_ups.core.statuses import UpsError
from orthanc_ups.core.workitem import Workitem
from orthanc_ups.dimse.data_sets import EXPLICIT, IMPLICIT, Bounds, Syntax, decode, encode
from orthanc_ups.projection.facts import facts_of
from tests.support.workitems import full, minimal, uid

NOW = datetime(2026, 11, 27, tzinfo=UTC)


def read(
    dataset: DataSet, interned: Interned | None, syntax: Syntax = EXPLICIT, parts: int = 10_000
) -> DataSet:
    return decode(
        encode(dataset, syntax), syntax, Bounds(parts=parts), 1_000_000, ("ascii",), Corrections(), interned
    )


def test_json_reads_alike_with_and_without_what_was_read_before() -> None:
    interned = Interned()
    for separators in ((",", ":"), (", ", ": ")):
        body = json.dumps(full(), separators=separators).encode()
        plain = dicom_json.decode(body, corrections=Corrections())
        first, second = (dicom_json.decode(body, 50, Corrections(), interned) for _ in range(2))
        assert first == second == plain
        assert list(first[0]) == list(plain[0])
        assert first[0][tags.STATION_NAME] is second[0][tags.STATION_NAME]


@pytest.mark.parametrize(
    "body",
    [
        b'{"00741204":{"vr":"LO"},"00741204":{"vr":"LO"}}',
        b'{"00404018":{"vr":"SQ","Value":[{"00080100":{"vr":"SH"},"00080100":{"vr":"SH"}}]}}',
        b'{"00404018":{"vr":"SQ","Value":[7]}}',
        b'{"00404018":{"vr":"SQ","Value":[{"00080100":{"vr":"SH","Value":7}}]},"nonsense":{}}',
        b'{"00404018":{"vr":"SQ","Value":[{"0008":{}}]},"00741204":7}',
    ],
)
def test_what_is_wrong_with_json_is_refused_alike(body: bytes) -> None:
    interned, refusals = Interned(), []
    for memory in (None, interned, interned):
        with pytest.raises((UpsError, dicom_json.MalformedJson)) as caught:
            dicom_json.decode(body, 50, Corrections(lenient=False), memory)
        refusals.append((type(caught.value), str(caught.value)))
    assert len(set(refusals)) == 1


def stored(dataset: DataSet) -> DataSet:
    return prepare_create(dataset, NOW, "DEFAULT").attributes


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_what_is_read_checked_and_indexed_is_the_same_the_second_time(syntax: Syntax) -> None:
    interned, sent = Interned(), full()
    plain = stored(read(sent, None, syntax))
    first, second = (stored(read(sent, interned, syntax)) for _ in range(2))
    assert first == second == plain
    assert first[tags.STATION_NAME] is second[tags.STATION_NAME]
    facts = [facts_of(Workitem(uid(1), 1, attributes), ZONE) for attributes in (plain, first, second)]
    assert facts[0] == facts[1] == facts[2]


def test_nothing_of_what_is_shared_is_changed_by_rules_and_index() -> None:
    interned = Interned()
    first = read(full(), interned)
    before = copy.deepcopy(first)
    for _ in range(2):
        facts_of(Workitem(uid(1), 1, stored(read(full(), interned))), ZONE)
    assert first == before


def test_a_fault_in_a_sequence_is_found_each_time() -> None:
    interned = Interned()
    wrong = {**minimal(), tags.STATION_NAME: element("SQ", {tags.CODE_VALUE: element("SH", "x" * 17)})}
    refusals = []
    for _ in range(2):
        with pytest.raises(UpsError) as caught:
            stored(read(wrong, interned))
        refusals.append((caught.value.status, caught.value.detail))
    assert refusals[0] == refusals[1]


def test_equal_sequences_cost_the_same_of_what_a_data_set_may_have() -> None:
    interned = Interned()
    read(full(), interned)
    with pytest.raises(UpsError) as caught:
        read(full(), interned, parts=100)
    with pytest.raises(UpsError) as plain:
        read(full(), None, parts=100)
    assert caught.value.status is plain.value.status


def test_the_oldest_are_forgotten_with_all_that_was_noted() -> None:
    interned = Interned(maximum=2)
    first, second, third = ({"vr": "SQ", "Value": [{}]} for _ in range(3))
    for number, text in enumerate((first, second)):
        interned.add(number, text)
    assert interned.get(0) is not None
    interned.add(2, third)
    assert (notes_of(first), notes_of(second), notes_of(third)) == ({}, None, {})
    assert interned.get(1) is None
