# SPDX-License-Identifier: AGPL-3.0-or-later
"""A page cut from stored text equals one made from data sets."""

import json
import re

import orjson
import pytest

from orthanc_ups.codecs import dicom_json
from orthanc_ups.core import tags
from orthanc_ups.core.dataset import DataSet, element
from orthanc_ups.core.free_text import searchable
from orthanc_ups.core.interned import Interned, notes_of
from orthanc_ups.core.matching import Query
from orthanc_ups.core.workitem import Workitem
from orthanc_ups.store.documents import UnreadableDocument, decode, decode_interned, encode, selected, whole
from tests.support.workitems import full, minimal, stored, uid

ASKED: dict[str, DataSet] = {
    "nothing": {},
    "a top-level attribute": {"00400400": element("LT", "*")},
    "a part of a returned sequence": {
        tags.STATION_NAME: element("SQ", {tags.CODE_VALUE: element("SH", "A")})
    },
    "a part of another": {"00404070": element("SQ", {"00081150": element("UI")})},
}
INCLUDED: tuple[frozenset[str], ...] = (
    frozenset(),
    frozenset({"00400400"}),
    frozenset({"00101100.0020000D"}),
    frozenset({"00321032", "00091001"}),
)
WORKITEMS = {
    "full": stored(base=full()),
    "minimal": stored(base=minimal()),
    "private, awkward": {
        **stored(base=minimal()),
        "00090010": element("LO", 'a "quoted", {braced} \\ one'),
        "00091001": element("DS", "1.50", "+2"),
        tags.PATIENT_NAME: element("PN", {"Alphabetic": "Müller^Jürgen", "Ideographic": "山田^太郎"}),
    },
}


@pytest.mark.parametrize("attributes", WORKITEMS.values(), ids=WORKITEMS)
@pytest.mark.parametrize("everything", [False, True], ids=["some", "all"])
@pytest.mark.parametrize("include", INCLUDED)
@pytest.mark.parametrize("keys", ASKED.values(), ids=ASKED)
def test_text_and_data_set_say_the_same(
    keys: DataSet, include: frozenset[str], everything: bool, attributes: DataSet
) -> None:
    query = Query.of(keys)
    expected = query.returns(include, everything).of(attributes)
    text = selected(encode(Workitem("1.2", 1, attributes)), query.returns(include, everything))
    assert text == orjson.dumps(expected)
    assert dicom_json.from_text(text) == dicom_json.encode(expected)
    assert whole(encode(Workitem("1.2", 1, attributes))) == orjson.dumps(attributes)


def test_a_document_that_somebody_wrote_by_hand_is_understood() -> None:
    query, attributes = Query.of({}), stored(base=minimal())
    by_hand = json.dumps({"attributes": attributes, "format": 1, "note": [1, {}]}, indent=2).encode()
    assert orjson.loads(selected(by_hand, query.returns())) == query.returns().of(attributes)
    assert orjson.loads(dicom_json.from_text(whole(by_hand))) == attributes


@pytest.mark.parametrize(
    "document",
    [b"", b"{", b"[]", b'{"format":1}', b'{"format":1,"attributes":[]}', b'{"format":99,"attributes":{}}'],
)
def test_what_is_no_document_is_told(document: bytes) -> None:
    with pytest.raises(UnreadableDocument):
        selected(document, Query.of({}).returns())
    with pytest.raises(UnreadableDocument):
        whole(document)


def test_a_document_read_with_interned_sequences_is_the_same_workitem() -> None:
    interned = Interned()
    first, second = (encode(Workitem(uid(number), number, stored(number, base=full()))) for number in (1, 2))
    workitems = [decode_interned(document, interned) for document in (first, second)]
    assert workitems == [decode(first), decode(second)]
    stations = [workitem.attributes[tags.STATION_NAME] for workitem in workitems]
    assert stations[0] is stations[1]
    assert searchable(workitems[0].attributes) == searchable(decode(first).attributes)
    assert searchable(workitems[1].attributes) == searchable(decode(second).attributes)
    interned.clear()
    assert notes_of(stations[0]) is None


@pytest.mark.parametrize(
    "document", [b"garbage", b"{}", b'{"format": 99}', b'{"format": 1, "uid": "2.25.1"}']
)
def test_what_is_no_document_is_refused_with_interned_sequences_as_without(document: bytes) -> None:
    with pytest.raises(UnreadableDocument) as expected:
        decode(document)
    with pytest.raises(UnreadableDocument, match=re.escape(str(expected.value))):
        decode_interned(document, Interned())
