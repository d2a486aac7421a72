# SPDX-License-Identifier: AGPL-3.0-or-later
"""Query parameters of UPS-RS (PS3.18 §8.3, §11.4.1, §11.6.1, §11.9.1, §11.10.1)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthanc_ups.core.dataset import element
from orthanc_ups.core.mechanisms import Mechanisms
from orthanc_ups.dicomweb.parameters import (
    Parameters,
    filter_arguments,
    ignored_warning,
    search_arguments,
)
from orthanc_ups.dicomweb.response import HttpProblem


def identifier_of(query: str) -> object:
    return search_arguments(Parameters.of(query), 1000).identifier


@pytest.mark.parametrize(
    ("query", "uid"),
    [
        ("1.2.3", "1.2.3"),
        ("accept=x&1.2.3", "1.2.3"),
        ("1.2.3=", "1.2.3"),
        ("", None),
        ("workitem=1.2", None),
    ],
)
def test_uid_may_stand_bare(query: str, uid: str | None) -> None:
    assert Parameters.of(query).bare_uid() == uid


def test_names_compare_without_case_and_equal_repeats_are_one() -> None:
    given_ = Parameters.of("Transaction-UID=1.2&transaction-uid=1.2")
    assert given_.value("transaction-uid") == "1.2"
    with pytest.raises(HttpProblem, match="more than once"):
        Parameters.of("workitem=1.2&workitem=1.3").value("workitem")


def test_percent_encoding_and_plus() -> None:
    assert list(Parameters.of("a%20b=c%2Bd+e&f")) == [("a b", "c+d e"), ("f", None)]
    with pytest.raises(HttpProblem, match="UTF-8"):
        Parameters.of("a=%ff")


def test_plus_of_a_media_type_need_not_be_encoded() -> None:
    accept = "application/dicom+json,multipart/related;type=application/dicom+xml"
    assert Parameters.of(f"accept={accept}").media_types() == accept
    assert Parameters.of("x=1").media_types() is None


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("00741000=SCHEDULED", {"00741000": element("CS", "SCHEDULED")}),
        ("ProcedureStepState=SCHEDULED", {"00741000": element("CS", "SCHEDULED")}),
        ("PatientID=", {"00100020": {"vr": "LO"}}),
        ("PatientID", {"00100020": {"vr": "LO"}}),
        ("PatientName=Doe*", {"00100010": element("PN", {"Alphabetic": "Doe*"})}),
        (
            "PatientName=A*%3D%E5%B1%B1*",
            {"00100010": element("PN", {"Alphabetic": "A*", "Ideographic": "山*"})},
        ),
        ("SOPInstanceUID=1.2,1.3", {"00080018": element("UI", "1.2", "1.3")}),
        ("SOPInstanceUID=1.2%5C1.3", {"00080018": element("UI", "1.2", "1.3")}),
        ("PregnancyStatus=4", {"001021C0": element("US", 4)}),
        ("00404005=20260101-20260131", {"00404005": element("DT", "20260101-20260131")}),
        ("00404005=20260101+0100", {"00404005": element("DT", "20260101+0100")}),
        (
            "00404005=20260101+0100-20260131+0100",
            {"00404005": element("DT", "20260101+0100-20260131+0100")},
        ),
        ("TimezoneOffsetFromUTC=%2B0100", {"00080201": element("SH", "+0100")}),
        ("TimezoneOffsetFromUTC=+0100", {"00080201": element("SH", "+0100")}),
        (
            "ScheduledWorkitemCodeSequence.CodeValue=1&00404018.00080102=DCM",
            {"00404018": element("SQ", {"00080100": element("SH", "1"), "00080102": element("SH", "DCM")})},
        ),
        ("00404018=", {"00404018": {"vr": "SQ"}}),
        ("00404018=&00404018.00080100=1", {"00404018": element("SQ", {"00080100": element("SH", "1")})}),
        ("00091001=x&00090010=ACME", {"00090010": element("LO", "ACME"), "00091001": element("LO", "x")}),
    ],
)
def test_match_parameters_are_an_identifier(query: str, expected: object) -> None:
    assert identifier_of(query) == expected


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("PatientName.CodeValue=1", "PatientName.CodeValue"),
        ("00404018=1", "00404018"),
        ("PregnancyStatus=x", "PregnancyStatus"),
        ("PatientID=1&PatientID=2", "PatientID"),
        ("PatientID=1&00100020=1", "00100020"),
        ("limit=-1", "limit"),
        ("limit=x", "limit"),
        ("limit=1&limit=2", "limit"),
        ("offset=1.5", "offset"),
        ("offset=99999999999999999999", "offset"),
        ("fuzzymatching=maybe", "fuzzymatching"),
        ("includefield=Nonsense", "Nonsense"),
    ],
)
def test_bad_parameters_are_named(query: str, named: str) -> None:
    with pytest.raises(HttpProblem) as problem:
        search_arguments(Parameters.of(query), 1000)
    assert problem.value.status == 400
    assert named in problem.value.detail


@pytest.mark.parametrize(
    ("query", "ignored"),
    [
        ("Nonsense=1", ("Nonsense",)),
        ("ScheduledWorkitemCodeSequence.Nonsense=1", ("ScheduledWorkitemCodeSequence.Nonsense",)),
        ("0040401=1&%C3%A9=1", ("0040401", "é")),
        ("_=1732&foo&requester=X&deletion-lock=true", ("_", "foo", "requester", "deletion-lock")),
    ],
)
def test_8_3_1_parameters_that_are_not_supported_are_ignored_and_named(
    query: str, ignored: tuple[str, ...]
) -> None:
    result = search_arguments(Parameters.of(f"PatientID=1&{query}"), 1000)
    assert result.identifier == {"00100020": element("LO", "1")}
    assert result.ignored == ignored
    found_in_filter = filter_arguments(
        Parameters.of(f"filter=PatientID=1&{query.partition('&requester')[0]}")
    )
    assert found_in_filter.identifier == result.identifier
    assert found_in_filter.ignored == tuple(name for name in ignored if name in ignored[:2])


def test_a_warning_about_names_is_a_header_whatever_the_names_are() -> None:
    assert ignored_warning(()) == ""
    text = ignored_warning(["a\r\nSet-Cookie: x", "é", "x" * 1000, *map(str, range(30)), "é"])
    assert text.isascii() and text.isprintable()
    assert text.endswith(" and 13 more")
    assert len(text) < 700


def test_paging_and_fuzzy_matching() -> None:
    result = search_arguments(Parameters.of("limit=5&offset=10&fuzzymatching=true"), 1000)
    assert (result.limit, result.offset, result.mechanisms) == (5, 10, Mechanisms.FUZZY)
    result = search_arguments(Parameters.of("limit=5000"), 1000)
    assert (result.limit, result.offset, result.mechanisms) == (1000, 0, Mechanisms.NONE)


@pytest.mark.parametrize(
    ("query", "include", "everything"),
    [
        ("includefield=all", frozenset(), True),
        (
            "includefield=PatientID,00741204&includefield=WorklistLabel",
            {"00100020", "00741204", "00741202"},
            False,
        ),
        ("includefield=ScheduledWorkitemCodeSequence.CodeValue", {"00404018.00080100"}, False),
    ],
)
def test_includefield_may_be_repeated_a_list_or_all(query: str, include: object, everything: bool) -> None:
    result = search_arguments(Parameters.of(query), 1000)
    assert (result.include, result.everything) == (include, everything)


def test_tokens_of_an_authorization_plugin_are_no_match_parameters() -> None:
    assert search_arguments(Parameters.of("Token=abc&PatientID=1"), 10, {"token"}).identifier == {
        "00100020": element("LO", "1")
    }


@pytest.mark.parametrize(
    "query",
    [
        "filter=ProcedureStepState%3DSCHEDULED%2CSOPInstanceUID%3D1.2%2C1.3",
        "filter=ProcedureStepState=SCHEDULED,SOPInstanceUID=1.2,1.3",
        "ProcedureStepState=SCHEDULED&SOPInstanceUID=1.2,1.3&deletionlock=true&accept=x",
        "filter=ProcedureStepState=SCHEDULED&SOPInstanceUID=1.2,1.3",
    ],
)
def test_filter_of_a_subscription_in_both_forms(query: str) -> None:
    assert filter_arguments(Parameters.of(query)).identifier == {
        "00080018": element("UI", "1.2", "1.3"),
        "00741000": element("CS", "SCHEDULED"),
    }


def test_filter_value_with_a_comma_is_encoded_twice() -> None:
    result = filter_arguments(Parameters.of("filter=ProcedureStepLabel%3Da%252Cb%253Dc")).identifier
    assert result == {"00741204": element("LO", "a,b=c")}


def test_filter_without_attribute_is_refused() -> None:
    with pytest.raises(HttpProblem, match="expected attribute=value"):
        filter_arguments(Parameters.of("filter=SCHEDULED"))


@given(st.text(alphabet=st.sampled_from("abcPatientID0123456789.=&%+-*,\\ é"), max_size=80))
def test_any_query_is_read_or_refused(query: str) -> None:
    try:
        search_arguments(Parameters.of(query), 10)
        filter_arguments(Parameters.of(query))
    except HttpProblem as problem:
        assert problem.status == 400


@pytest.mark.parametrize("suffix", ["json", "xml"])
def test_a_plus_sign_that_was_not_encoded_is_one_again(suffix: str) -> None:
    for name in ("application/dicom", "application/vnd.sun.wadl"):
        assert Parameters.of(f"accept={name}+{suffix};q=0.5").media_types() == f"{name}+{suffix};q=0.5"
