# SPDX-License-Identifier: AGPL-3.0-or-later
"""A workitem that is retrieved again is not encoded again, and is never outdated."""

import orjson
import pytest

from orthanc_ups.codecs import dicom_json
from orthanc_ups.core import tags
from orthanc_ups.core.dataset import DataSet, element
from orthanc_ups.dicomweb.text_cache import TextCache


def of(spelled: TextCache, attributes: DataSet, uid: str = "1") -> bytes:
    document = orjson.dumps({"uid": uid, "attributes": attributes})
    return spelled.of(document, lambda: orjson.dumps(attributes))


def labelled(text: str) -> DataSet:
    return {tags.LABEL: element("LO", text)}


def test_the_text_is_that_of_dicom_json_and_made_once() -> None:
    spelled, attributes = TextCache(), labelled("Köln")
    first = of(spelled, attributes)
    assert first == dicom_json.encode_all([attributes])
    assert of(spelled, attributes) is first


def test_a_change_is_told_and_so_is_the_way_back() -> None:
    spelled, before, after = TextCache(), labelled("before"), labelled("after")
    texts = [of(spelled, dataset) for dataset in (before, after, before)]
    assert texts == [dicom_json.encode_all([dataset]) for dataset in (before, after, before)]


def test_equal_attributes_of_two_workitems_do_not_share_a_text() -> None:
    spelled = TextCache()
    first, second = of(spelled, labelled("a"), "1"), of(spelled, labelled("a"), "2")
    assert first == second
    assert first is not second


def test_the_text_requested_longest_ago_goes_when_the_cache_is_full() -> None:
    oldest, two, three = (labelled(text) for text in "123")
    spelled = TextCache(maximum=2 * len(dicom_json.encode_all([oldest])))
    first, second = of(spelled, oldest), of(spelled, two)
    assert of(spelled, oldest) is first
    of(spelled, three)
    assert of(spelled, oldest) is first
    assert of(spelled, two) is not second


def test_a_text_larger_than_the_cache_is_answered_all_the_same() -> None:
    spelled, attributes = TextCache(maximum=10), labelled("a")
    first = of(spelled, attributes)
    assert first == dicom_json.encode_all([attributes])
    assert of(spelled, attributes) is not first


def test_a_document_that_cannot_be_read_is_not_remembered() -> None:
    spelled = TextCache()

    def unreadable() -> bytes:
        raise ValueError

    with pytest.raises(ValueError):
        spelled.of(b"{}", unreadable)
    assert spelled.of(b"{}", lambda: b"{}") == b"[{}]"
