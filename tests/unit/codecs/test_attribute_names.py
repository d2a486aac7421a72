# SPDX-License-Identifier: AGPL-3.0-or-later
"""Attributes by keyword and tag (PS3.6)."""

import pytest

from orthanc_ups.codecs import dicom_json
from orthanc_ups.codecs.attribute_names import UnknownAttribute, keyword_of, name_of, tag_of, vr_of
from orthanc_ups.codecs.encoded_values import undeclared
from orthanc_ups.core.dataset import element
from orthanc_ups.dimse.data_sets import IMPLICIT, Bounds, decode, encode

SUPPLEMENT_233 = [
    ("PersonNamesToUseSequence", "00100011", "SQ"),
    ("NameToUse", "00100012", "LT"),
    ("NameToUseComment", "00100013", "UT"),
    ("ThirdPersonPronounsSequence", "00100014", "SQ"),
    ("PronounCodeSequence", "00100015", "SQ"),
    ("PronounComment", "00100016", "UT"),
    ("GenderIdentitySequence", "00100041", "SQ"),
    ("SexParametersForClinicalUseCategoryComment", "00100042", "UT"),
    ("SexParametersForClinicalUseCategorySequence", "00100043", "SQ"),
    ("GenderIdentityCodeSequence", "00100044", "SQ"),
    ("GenderIdentityComment", "00100045", "UT"),
    ("SexParametersForClinicalUseCategoryCodeSequence", "00100046", "SQ"),
    ("SexParametersForClinicalUseCategoryReference", "00100047", "UR"),
]


@pytest.mark.parametrize(("keyword", "tag", "vr"), SUPPLEMENT_233)
def test_ps3_6_attributes_of_supplement_233_are_known(keyword: str, tag: str, vr: str) -> None:
    assert (tag_of(keyword), keyword_of(tag), vr_of(tag)) == (tag, keyword, vr)
    assert name_of(tag).replace(" ", "").lower() == keyword.lower()


def test_attributes_that_pydicom_knows_are_known_and_others_are_not() -> None:
    assert (tag_of("PatientID"), keyword_of("00100020"), vr_of("00100020")) == ("00100020", "PatientID", "LO")
    with pytest.raises(UnknownAttribute):
        tag_of("NoSuchKeyword")
    assert (keyword_of("00100017"), vr_of("00100017"), name_of("00100017")) == ("", None, "")


def test_ps3_18_f_2_2_a_vr_of_supplement_233_may_be_left_out() -> None:
    assert dicom_json.decode(b'{"00100041": {"Value": [{"00100045": {"Value": ["x"]}}]}}') == [
        {"00100041": element("SQ", {"00100045": element("UT", "x")})}
    ]


def test_ps3_5_a_1_implicit_vr_knows_supplement_233() -> None:
    sent = {"00100011": element("SQ", {"00100012": element("LT", "Kim")})}
    encoded = encode(sent, IMPLICIT)
    assert decode(encoded, IMPLICIT, Bounds(), 1000, undeclared("Latin1")) == sent
