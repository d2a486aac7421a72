# SPDX-License-Identifier: AGPL-3.0-or-later
"""A workitem that is asked for again is not written out again, and never as it was before a change."""

import orjson

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import DataSet, element
from orthanc_ups.wires import dicom_json
from orthanc_ups.wires.spelled_out import SpelledOut


def of(spelled: SpelledOut, uid: str, attributes: DataSet) -> bytes:
    return spelled.of(uid, attributes, lambda: orjson.dumps(attributes))


def labelled(text: str) -> DataSet:
    return {tags.LABEL: element("LO", text)}


def test_the_text_is_that_of_dicom_json_and_made_once() -> None:
    spelled, attributes = SpelledOut(), labelled("Köln")
    first = of(spelled, "1", attributes)
    assert first == dicom_json.encode_all([attributes])
    assert of(spelled, "1", attributes) is first


def test_a_change_is_told_and_so_is_the_way_back() -> None:
    spelled, before, after = SpelledOut(), labelled("before"), labelled("after")
    texts = [of(spelled, "1", one) for one in (before, after, before)]
    assert texts == [dicom_json.encode_all([one]) for one in (before, after, before)]


def test_equal_data_sets_of_two_workitems_do_not_share_a_text() -> None:
    spelled = SpelledOut()
    assert of(spelled, "1", labelled("a")) == of(spelled, "2", labelled("a"))
    assert of(spelled, "1", labelled("b")) != of(spelled, "2", labelled("a"))


def test_the_one_not_asked_for_goes_when_room_is_short() -> None:
    sets = {uid: labelled(uid) for uid in "123"}
    size = len(dicom_json.encode_all([sets["1"]]))
    spelled = SpelledOut(most=2 * size)
    first, second = of(spelled, "1", sets["1"]), of(spelled, "2", sets["2"])
    assert of(spelled, "1", sets["1"]) is first
    of(spelled, "3", sets["3"])
    assert of(spelled, "1", sets["1"]) is first
    assert of(spelled, "2", sets["2"]) is not second


def test_what_is_larger_than_the_room_is_told_all_the_same() -> None:
    spelled, attributes = SpelledOut(most=10), labelled("a")
    assert of(spelled, "1", attributes) == dicom_json.encode_all([attributes])
    assert not spelled._texts
    assert spelled._size == 0
