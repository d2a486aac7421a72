# SPDX-License-Identifier: AGPL-3.0-or-later
"""A workitem that is asked for again is not written out again, and never as it was before a change."""

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import DataSet, element
from orthanc_ups.wires import dicom_json
from orthanc_ups.wires.spelled_out import SpelledOut


def labelled(text: str) -> DataSet:
    return {tags.LABEL: element("LO", text)}


def test_the_text_is_that_of_dicom_json_and_made_once() -> None:
    spelled, attributes = SpelledOut(), labelled("Köln")
    first = spelled.of("1", attributes)
    assert first == dicom_json.encode_all([attributes])
    assert spelled.of("1", attributes) is first


def test_a_change_is_told_and_so_is_the_way_back() -> None:
    spelled, before, after = SpelledOut(), labelled("before"), labelled("after")
    texts = [spelled.of("1", one) for one in (before, after, before)]
    assert texts == [dicom_json.encode_all([one]) for one in (before, after, before)]


def test_equal_data_sets_of_two_workitems_do_not_share_a_text() -> None:
    spelled = SpelledOut()
    assert spelled.of("1", labelled("a")) == spelled.of("2", labelled("a"))
    assert spelled.of("1", labelled("b")) != spelled.of("2", labelled("a"))


def test_the_one_not_asked_for_goes_when_room_is_short() -> None:
    sets = {uid: labelled(uid) for uid in "123"}
    size = len(dicom_json.encode_all([sets["1"]]))
    spelled = SpelledOut(most=2 * size)
    first, second = spelled.of("1", sets["1"]), spelled.of("2", sets["2"])
    assert spelled.of("1", sets["1"]) is first
    spelled.of("3", sets["3"])
    assert spelled.of("1", sets["1"]) is first
    assert spelled.of("2", sets["2"]) is not second


def test_what_is_larger_than_the_room_is_told_all_the_same() -> None:
    spelled, attributes = SpelledOut(most=10), labelled("a")
    assert spelled.of("1", attributes) == dicom_json.encode_all([attributes])
    assert not spelled._texts
    assert spelled._size == 0
