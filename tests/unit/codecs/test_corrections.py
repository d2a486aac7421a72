# SPDX-License-Identifier: AGPL-3.0-or-later
"""What well-meaning clients write otherwise than DICOM JSON and XML have it is taken, and each change is named."""

import json
from typing import Any

import pytest

from orthanc_ups.codecs import dicom_json, dicom_xml
from orthanc_ups.codecs.corrections import Corrections
from orthanc_ups.codecs.dicom_xml import NAMESPACE
from orthanc_ups.core.dataset import DataSet, Element, element
from orthanc_ups.core.refusals import Findings
from orthanc_ups.core.statuses import UpsError
from orthanc_ups.core.value_rules import check_values, checked

NAME = {"Alphabetic": "Kim^Min"}


def read(content: Any, *, lenient: bool = True) -> tuple[DataSet, tuple[str, ...]]:
    corrections = Corrections(lenient=lenient)
    text = content if isinstance(content, str) else json.dumps(content)
    (dataset,) = dicom_json.decode(text.encode(), corrections=corrections)
    return dataset, corrections.sentences


def attribute(tag: str, sent: Any) -> tuple[Element, tuple[str, ...]]:
    """What an attribute is to the rules, and what reader and rules say of it."""
    return judged(*read({tag: sent}))[tag], judged_sentences(*read({tag: sent}))


def judged(dataset: DataSet, _: tuple[str, ...]) -> DataSet:
    findings = Findings()
    sound = checked(dataset, findings)
    findings.refuse()
    return sound


def judged_sentences(dataset: DataSet, sentences: tuple[str, ...]) -> tuple[str, ...]:
    findings = Findings()
    checked(dataset, findings)
    return (*sentences, *findings.corrections)


VALUES = [
    ("00101030", {"vr": "DS", "Value": ["70.12345678901235"]}, element("DS", "70.1234567890124"), "rounded"),
    ("00101030", {"vr": "DS", "Value": ["+70.12345678901231"]}, element("DS", "70.1234567890123"), "rounded"),
    ("00201209", {"vr": "IS", "Value": ["40.0"]}, element("IS", "40"), "IS"),
    ("00100030", {"vr": "DA", "Value": ["1970-01-31"]}, element("DA", "19700131"), "YYYYMMDD"),
    ("00100030", {"vr": "DA", "Value": ["1970.01.31"]}, element("DA", "19700131"), "YYYYMMDD"),
    ("00100030", {"vr": "DA", "Value": [19700131]}, element("DA", "19700131"), "JSON number"),
    ("00100032", {"vr": "TM", "Value": ["09:30:15.1234567"]}, element("TM", "093015.123456"), "HHMMSS"),
    (
        "00404005",
        {"vr": "DT", "Value": ["2026-12-01T12:00:00.5+01:00"]},
        element("DT", "20261201120000.5+0100"),
        "YYYYMMDDHHMMSS",
    ),
    ("00404005", {"vr": "DT", "Value": ["2026-12-01T12:00:00Z"]}, element("DT", "20261201120000+0000"), "YYYYMM"),
    ("00404005", {"vr": "DT", "Value": ["20261201120000.1234567"]},
     element("DT", "20261201120000.123456"), "YYYYMMDDHHMMSS"),
    ("00404005", {"vr": "DT", "Value": ["2026-12-01 12:00"]}, element("DT", "202612011200"), "YYYYMMDDHHMMSS"),
    ("00100040", {"vr": "CS", "Value": ["f"]}, element("CS", "F"), "upper case"),
    ("00101010", {"vr": "AS", "Value": ["42Y"]}, element("AS", "042Y"), "three digits"),
    ("00100020", {"vr": "LO", "Value": [4711]}, element("LO", "4711"), "JSON number"),
    ("00100020", {"vr": "LO", "Value": ["A\n1"]}, element("LO", "A 1"), "one line"),
    ("00102000", {"vr": "LO", "Value": ["A\\B"]}, element("LO", "A", "B"), "rewritten"),
    ("0020000D", {"vr": "UI", "Value": ["urn:oid:1.2.3"]}, element("UI", "1.2.3"), "not part of the UID"),
    ("00100010", {"vr": "PN", "Value": ["Kim^Min"]}, element("PN", NAME), "PN"),
    ("00100010", {"vr": "PN", "Value": [{"alphabetic": "Kim^Min"}]}, element("PN", NAME), "component groups"),
    ("00280009", {"vr": "AT", "Value": ["(0018,1063)"]}, element("AT", "00181063"), "8 hexadecimal digits"),
]  # fmt: skip

NOTATIONS = [
    ("00100020", "4711", element("LO", "4711"), "not an object"),
    ("00100020", ["4711"], element("LO", "4711"), "not an object"),
    ("00100020", {"vr": "LO", "Value": "4711"}, element("LO", "4711"), "not an object"),
    ("00100020", {"VR": "LO", "value": ["4711"]}, element("LO", "4711"), "not an object"),
    ("00100020", {"Name": "PatientID", "Type": "String", "Value": "4711"}, element("LO", "4711"), "not an object"),
    ("00100010", {"Alphabetic": "Kim^Min"}, element("PN", NAME), "not an object"),
    ("00404018", [{"00080100": {"vr": "SH", "Value": ["X"]}}],
     element("SQ", {"00080100": element("SH", "X")}), "not an object"),
    ("00404018", {"vr": "SQ", "Value": {"00080100": {"vr": "SH", "Value": ["X"]}}},
     element("SQ", {"00080100": element("SH", "X")}), "not an object"),
    ("00404018", {"vr": "SQ", "Value": [None]}, {"vr": "SQ"}, "not an object"),
    ("00100020", {"vr": "lo", "Value": ["4711"]}, element("LO", "4711"), "had VR lo and now has LO"),
    ("00100010", {"vr": "LO", "Value": ["Kim^Min"]}, element("PN", NAME), "PN instead of LO"),
    ("00100030", {"vr": "LO", "Value": ["19700131"]}, element("DA", "19700131"), "DA instead of LO"),
    ("00101030", {"vr": "FD", "Value": [70.5]}, element("DS", "70.5"), "DS instead of FD"),
    ("00100020", {"vr": "UN", "InlineBinary": "RVgtMQ=="}, element("LO", "EX-1"), "had VR UN and now has LO"),
    ("00100020", {"vr": "UN", "Value": ["EX-1"]}, element("LO", "EX-1"), "had VR UN and now has LO"),
    ("00100020", {"vr": "LO", "InlineBinary": "RVgtMQ"}, element("LO", "EX-1"), "InlineBinary"),
    ("00280010", {"vr": "UN", "InlineBinary": "AAI="}, element("US", 512), "had VR UN and now has US"),
    ("00280010", {"vr": "US or SS", "Value": [512]}, element("US", 512), "had VR US or SS and now has US"),
]  # fmt: skip


@pytest.mark.parametrize(("tag", "sent", "expected", "words"), [*VALUES, *NOTATIONS])
def test_it_is_taken_and_the_change_is_named(tag: str, sent: Any, expected: Element, words: str) -> None:
    value, sentences = attribute(tag, sent)
    assert value == expected
    assert words in "; ".join(sentences)
    assert all(f"({tag[:4]},{tag[4:]})" in sentence for sentence in sentences)


@pytest.mark.parametrize(
    ("tag", "sent"), [case[:2] for case in (*VALUES, *NOTATIONS) if case[0] != "00280010"]
)
def test_strict_takes_none_of_it(tag: str, sent: Any) -> None:
    with pytest.raises(UpsError):  # by the reader, or by the rules of the core
        check_values(read({tag: sent}, lenient=False)[0])


SAME = [
    ("00280010", {"vr": "US", "Value": ["512"]}, element("US", 512)),
    ("00280010", {"vr": "US", "Value": [512.0]}, element("US", 512)),
    ("00280010", {"vr": "US", "Value": ["512.0"]}, element("US", 512)),
    ("00280010", {"Value": [512]}, element("US", 512)),
    ("00100020", {"vr": "LO", "Value": ["EX-1\0"]}, element("LO", "EX-1")),
    ("00100020", {"vr": "LO", "Value": None}, {"vr": "LO"}),
    ("00100020", {"vr": "LO", "Value": []}, {"vr": "LO"}),
    ("00100020", {"vr": "LO", "Value": [None]}, {"vr": "LO"}),
    ("00100020", {"vr": "LO", "Value": [""]}, {"vr": "LO"}),
    ("00404018", {"vr": "SQ", "Value": []}, {"vr": "SQ"}),
    ("00101030", {"vr": "DS", "Value": [70.5]}, element("DS", "70.5")),
    ("00201209", {"vr": "IS", "Value": [40.0]}, element("IS", "40")),
    ("00291010", {"vr": "OB", "InlineBinary": "AAEC"}, {"vr": "OB", "InlineBinary": "AAEC"}),
]  # fmt: skip


@pytest.mark.parametrize(("tag", "sent", "expected"), SAME)
def test_another_spelling_of_the_same_is_no_change(tag: str, sent: Any, expected: Element) -> None:
    assert attribute(tag, sent) == (expected, ())


REFUSED = [
    ("00101030", {"vr": "DS", "Value": ["heavy"]}),
    ("00101030", {"vr": "DS", "Value": [True]}),
    ("00201209", {"vr": "IS", "Value": [40.5]}),
    ("00201209", {"vr": "IS", "Value": [2147483648]}),
    ("00280010", {"vr": "US", "Value": [70000]}),
    ("00280010", {"vr": "US", "Value": [-1]}),
    ("00280010", {"vr": "US", "Value": [1.5]}),
    ("00280010", {"vr": "US", "Value": [True]}),
    ("00189323", {"vr": "FL", "Value": [3.5e38]}),
    ("00181271", {"vr": "FD", "Value": ["fast"]}),
    ("00100020", {"vr": "LO", "Value": [True]}),
    ("00100020", {"vr": "LO", "Value": ["x" * 65]}),
    ("00100030", {"vr": "DA", "Value": ["01/31/1970"]}),
    ("00100030", {"vr": "DA", "Value": ["1970-02-31"]}),
    ("00404005", {"vr": "DT", "Value": ["tomorrow"]}),
    ("0020000D", {"vr": "UI", "Value": ["1.02.3"]}),
    ("00100010", {"vr": "PN", "Value": ["a=b=c=d"]}),
    ("00100020", {"vr": "UN", "InlineBinary": "gYGB"}),
]


@pytest.mark.parametrize(("tag", "sent"), REFUSED)
def test_what_means_nothing_is_left_to_the_rules_which_refuse_it(tag: str, sent: Any) -> None:
    dataset, _ = read({tag: sent})
    with pytest.raises(UpsError) as refused:
        judged(dataset, ())
    assert refused.value.tag == tag


@pytest.mark.parametrize("name", ["PatientID", "(0010,0020)", "0010,0020", "0x00100020", "0010x0020"])
def test_an_attribute_may_be_named_by_keyword(name: str) -> None:
    dataset, sentences = read({name: {"vr": "LO", "Value": ["EX-1"]}})
    assert dataset == {"00100020": element("LO", "EX-1")}
    assert sentences == ("PatientID (0010,0020) was not named by 8 hexadecimal digits",)
    with pytest.raises(UpsError):
        read({name: {"vr": "LO", "Value": ["EX-1"]}}, lenient=False)


def test_an_attribute_by_keyword_and_by_tag_stands_twice() -> None:
    with pytest.raises(UpsError, match="occurs twice"):
        read({"PatientID": {"vr": "LO"}, "00100020": {"vr": "LO"}})


def test_keyword_form_is_read_down_to_items() -> None:
    dataset, sentences = read(
        {"ScheduledWorkitemCodeSequence": [{"CodeValue": "X", "CodingSchemeDesignator": "99Y"}]}
    )
    assert dataset["00404018"] == element(
        "SQ", {"00080100": element("SH", "X"), "00080102": element("SH", "99Y")}
    )
    assert any(
        "CodeValue (0008,0100)" in sentence and "ScheduledWorkitemCodeSequence" in sentence
        for sentence in sentences
    )


def test_lower_case_tags_group_lengths_and_character_sets_say_nothing() -> None:
    dataset, sentences = read(
        {"0020000d": {"vr": "UI", "Value": ["1.2"]}, "00080000": {"vr": "UL", "Value": [9]},
         "00080005": {"vr": "CS", "Value": ["ISO_IR 100"]}}
    )  # fmt: skip
    assert (dataset, sentences) == ({"0020000D": element("UI", "1.2")}, ())


def test_a_byte_order_mark_in_front_is_no_content() -> None:
    assert dicom_json.decode(b'\xef\xbb\xbf[{"00100020":{"vr":"LO"}}]') == [{"00100020": {"vr": "LO"}}]


@pytest.mark.parametrize("lenient", [True, False])
def test_ps3_5_6_2_a_number_too_long_for_a_ds_is_rounded_and_named(lenient: bool) -> None:
    dataset, sentences = read('{"00101030":{"vr":"DS","Value":[70.12345678901235]}}', lenient=lenient)
    assert dataset == {"00101030": element("DS", "70.1234567890124")}
    assert sentences == ("PatientWeight (0010,1030) was rounded to the 16 characters of VR DS",)


def test_a_number_too_long_for_an_fd_is_rounded_and_named() -> None:
    _, sentences = read('{"00181271":{"vr":"FD","Value":[0.12345678901234567890]}}')
    assert sentences == ("WaterEquivalentDiameter (0018,1271) was rounded to the 64 bits of VR FD",)
    assert read('{"00181271":{"vr":"FD","Value":[0.1]}}')[1] == ()


def test_matching_keys_and_arguments_are_never_corrected() -> None:
    (dataset,) = dicom_json.decode(b'{"00100030":{"vr":"DA","Value":["1970.01.31"]}}')
    assert dataset == {"00100030": element("DA", "1970.01.31")}


# --- XML ---


def xml(attributes: str) -> tuple[DataSet, tuple[str, ...]]:
    corrections = Corrections()
    body = f'<NativeDicomModel xmlns="{NAMESPACE}">{attributes}</NativeDicomModel>'
    return dicom_xml.decode(body.encode(), corrections=corrections), corrections.sentences


XML = [
    ('tag="00101030" vr="DS"', "<Value>70.12345678901235</Value>", element("DS", "70.1234567890124"), "rounded"),
    ('tag="00404005" vr="DT"', "<Value>2026-12-01T12:00:00</Value>", element("DT", "20261201120000"), "YYYYMMDDHHMMSS"),
    ('tag="00100020" vr="UN"', "<InlineBinary>RVgtMQ==</InlineBinary>", element("LO", "EX-1"), "had VR UN"),
    ('tag="00100020" vr="LO"', "<InlineBinary>RVgtMQ==</InlineBinary>", element("LO", "EX-1"), "InlineBinary"),
    ('tag="00100010" vr="PN"', "<Value>Kim^Min</Value>", element("PN", NAME), "PN"),
    ('tag="00100020" vr="lo"', "<Value>EX-1</Value>", element("LO", "EX-1"), "had VR lo"),
    ('keyword="PatientID" vr="LO"', "<Value>EX-1</Value>", element("LO", "EX-1"), "by 8 hexadecimal digits"),
]  # fmt: skip


@pytest.mark.parametrize(("head", "content", "expected", "words"), XML)
def test_xml_is_taken_alike(head: str, content: str, expected: Element, words: str) -> None:
    dataset, sentences = xml(f"<DicomAttribute {head}>{content}</DicomAttribute>")
    assert list(judged(dataset, ()).values()) == [expected]
    assert words in "; ".join(judged_sentences(dataset, sentences))


def test_xml_without_vr_takes_that_of_the_dictionary() -> None:
    assert xml('<DicomAttribute tag="00100020"><Value>EX-1</Value></DicomAttribute>') == (
        {"00100020": element("LO", "EX-1")},
        (),
    )
