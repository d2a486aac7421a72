# SPDX-License-Identifier: AGPL-3.0-or-later
"""A page that is cut out of stored text says the same as one that is made of data sets."""

import json

import orjson
import pytest

from orthanc_ups.codecs import dicom_json
from orthanc_ups.core import tags
from orthanc_ups.core.dataset import DataSet, element
from orthanc_ups.core.matching import Query
from orthanc_ups.core.workitem import Workitem
from orthanc_ups.store.documents import UnreadableDocument, encode, selected, whole
from tests.support.workitems import full, minimal, stored

ASKED: dict[str, DataSet] = {
    "nothing": {},
    "a top-level attribute": {"00400400": element("LT", "*")},
    "a part of a returned sequence": {
        tags.STATION_NAME: element("SQ", {tags.CODE_VALUE: element("SH", "A")})
    },
    "a part of another": {"00404070": element("SQ", {"00081150": element("UI")})},
}
INCLUDED = (
    None,
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
@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_text_and_data_set_say_the_same(
    asked: DataSet, include: frozenset[str] | None, everything: bool, attributes: DataSet
) -> None:
    query = Query.of(asked)
    expected = query.select_with_returns(attributes, include, everything)
    text = selected(encode(Workitem("1.2", 1, attributes)), query.returns(include, everything))
    assert text == orjson.dumps(expected)
    assert dicom_json.from_text(text) == dicom_json.encode(expected)
    assert whole(encode(Workitem("1.2", 1, attributes))) == orjson.dumps(attributes)


def test_a_document_that_somebody_wrote_by_hand_is_understood() -> None:
    query, attributes = Query.of({}), stored(base=minimal())
    by_hand = json.dumps({"attributes": attributes, "format": 1, "note": [1, {}]}, indent=2).encode()
    assert orjson.loads(selected(by_hand, query.returns())) == query.select_with_returns(attributes)
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
