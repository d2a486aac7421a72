# SPDX-License-Identifier: AGPL-3.0-or-later
"""Code items, content items, references and issuers inside workitems, and what is coerced."""

from __future__ import annotations

from typing import Final

import pytest

from orthanc_ups.core import dictionary, statuses, tags
from orthanc_ups.core.dataset import DataSet, element
from orthanc_ups.core.statuses import Status
from tests.support import workitems
from tests.support.preparing import STAMP, create, refused_create, refused_update, update
from tests.support.workitems import changed, code, minimal, progress, reference, stored

# --- Macros -----------------------------------------------------------------------------------------

LONG: Final = element("UC", "a-code-of-more-than-sixteen-characters")
URN: Final = element("UR", "urn:oid:2.16.840.1.113883.6.96")


@pytest.mark.parametrize(
    ("item", "fault"),
    [
        (code(), None),
        (changed(code(), t00080100=None, t00080119=LONG), None),
        (changed(code(), t00080100=None, t00080102=None, t00080120=URN), None),
        (changed(code(), t00080100=None), (statuses.MISSING_ATTRIBUTE, "00080100")),
        (changed(code(), t00080100=element("SH")), (statuses.MISSING_VALUE, "00080100")),
        (changed(code(), t00080102=None), (statuses.MISSING_ATTRIBUTE, "00080102")),
        (
            changed(code(), t00080100=None, t00080119=LONG, t00080102=None),
            (statuses.MISSING_ATTRIBUTE, "00080102"),
        ),
        (changed(code(), t00080104=element("LO")), (statuses.MISSING_VALUE, "00080104")),
        (changed(code(), t0008010B=element("CS", "YES")), (statuses.INVALID_VALUE, "0008010B")),
        ({}, (statuses.MISSING_ATTRIBUTE, "00080104")),
    ],
)
def test_ps3_3_8_8_code_items(item: DataSet, fault: tuple[Status, str] | None) -> None:
    sent = minimal(t00404018=element("SQ", item))
    if fault is None:
        assert create(sent).attributes["00404018"] == element("SQ", item)
    else:
        error = refused_create(sent, strict=True)
        assert (error.status, error.tag) == (fault[0], f"00404018.{fault[1]}")


def test_a_missing_code_names_the_alternatives() -> None:
    error = refused_create(minimal(t00404018=element("SQ", changed(code(), t00080100=None))))
    assert "CodeValue (0008,0100) is missing, nor is there LongCodeValue or URNCodeValue" in error.detail


def test_an_empty_alternative_is_no_alternative_and_is_not_stored() -> None:
    empty = changed(code(), t00080119=element("UC"), t00080120=element("UR"))
    assert create(minimal(t00404018=element("SQ", empty))).attributes["00404018"] == element("SQ", code())


@pytest.mark.parametrize(
    ("item", "fault"),
    [
        (workitems.text_parameter(), None),
        (workitems.numeric_parameter(), None),
        (changed(workitems.text_parameter(), t0040A160=None), "0040A160"),
        (changed(workitems.numeric_parameter(), t004008EA=None), "004008EA"),
        (changed(workitems.numeric_parameter(), t0040A30A=element("DS")), "0040A30A"),
        (changed(workitems.text_parameter(), t0040A040=element("CS", "DATE")), "0040A121"),
        (changed(workitems.text_parameter(), t0040A040=element("CS", "IMAGE")), "0040A040"),
        (changed(workitems.text_parameter(), t0040A043=element("SQ")), "0040A043"),
    ],
)
@pytest.mark.parametrize("service", ["N-CREATE", "N-SET"])
def test_ps3_3_10_2_content_items(item: DataSet, fault: str | None, service: str) -> None:
    parameters = {"00741210": element("SQ", item)}
    if fault:
        wrong = (
            refused_create(minimal() | parameters) if service == "N-CREATE" else refused_update(parameters)
        )
        assert wrong.tag == f"00741210.{fault}"
    else:
        prepared = create(minimal() | parameters) if service == "N-CREATE" else update(stored(), parameters)
        assert prepared.attributes["00741210"] == parameters["00741210"]


def test_the_kind_of_value_explains_what_is_missing() -> None:
    item = changed(workitems.text_parameter(), t0040A160=None)
    error = refused_create(minimal(t00741210=element("SQ", item)))
    assert error.detail.startswith("TextValue (0040,A160) is missing, though ValueType is TEXT, in item 1")


def test_ps3_3_10_26_references() -> None:
    """DICOM needs a way to get it; CDA its identifier; the study is only known to belong by the sender."""
    loose = element("SQ", changed(reference(), t0020000D=None, t0020000E=None))
    assert create(minimal(t00404021=loose)).attributes["00404021"] == loose
    lost = changed(reference(), t0040E021=None)
    error = refused_create(minimal(t00404021=element("SQ", lost)))
    assert (error.status, error.tag) == (statuses.MISSING_ATTRIBUTE, "00404021.0040E021")
    web = changed(lost, t0040E025=element("SQ", {"00081190": element("UR", "https://harbour.example/rs")}))
    assert create(minimal(t00404021=element("SQ", web))).attributes["00404021"] == element("SQ", web)
    document = changed(reference(), t0040E020=element("CS", "CDA"))
    assert refused_create(minimal(t00404021=element("SQ", document))).tag == "00404021.00081199.0040E001"


def test_ps3_3_10_14_issuers() -> None:
    local, universal = element("UT", "HARBOUR"), element("UT", "1.2.3")
    for item, fault in (
        ({"00400031": local}, None),
        ({"00400032": universal, "00400033": element("CS", "ISO")}, None),
        ({"00400032": universal}, "00400033"),
        ({}, "00400031"),
    ):
        sent = minimal(t00380014=element("SQ", item))
        if fault:
            assert refused_create(sent, strict=True).tag == f"00380014.{fault}"
        else:
            assert create(sent).attributes["00380014"] == element("SQ", item)


# --- Coercion ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tag", "sent", "stored_as", "modified"),
    [
        (tags.PRIORITY, "high", "HIGH", True),
        (tags.PRIORITY, " High ", "HIGH", True),
        (tags.PRIORITY, "HIGH ", "HIGH", False),
        (tags.READINESS, "ready", "READY", True),
    ],
)
def test_b300_b305_enumerated_values_in_lower_case(
    tag: str, sent: str, stored_as: str, modified: bool
) -> None:
    request = {tag: element("CS", sent)}
    for prepared in (create(minimal() | request), update(stored(), request)):
        assert prepared.attributes[tag] == element("CS", stored_as)
        assert [dictionary.KEYWORD_OF[tag] in modification for modification in prepared.modifications] == [
            True
        ] * modified


def test_b300_inside_items_the_sentence_says_where() -> None:
    item = changed(workitems.text_parameter(), t0040A040=element("CS", "text"))
    prepared = create(minimal(t00741210=element("SQ", workitems.numeric_parameter(), item)))
    assert prepared.attributes["00741210"]["Value"][1] == workitems.text_parameter()
    assert prepared.modifications == (
        "ValueType (0040,A040) was set in upper case, in item 2 of ScheduledProcessingParametersSequence "
        "(0074,1210)",
    )


def test_b300_b305_a_modification_date_time_of_the_scu_is_replaced() -> None:
    sent = {tags.MODIFICATION: element("DT", "20200101")}
    for prepared in (create(minimal() | sent), update(stored(), sent)):
        assert prepared.attributes[tags.MODIFICATION] == STAMP
        assert prepared.modifications == (
            "ScheduledProcedureStepModificationDateTime (0040,4010) was set by the worklist",
        )


def test_b300_uris_with_the_vr_of_earlier_editions() -> None:
    access = {"0040E025": element("SQ", {"00081190": element("UT", "https://harbour.example/rs")})}
    prepared = create(minimal(t00404021=element("SQ", changed(reference(), t0040E021=None) | access)))
    result = prepared.attributes["00404021"]["Value"][0]["0040E025"]["Value"][0]["00081190"]
    assert result == element("UR", "https://harbour.example/rs")
    assert len(prepared.modifications) == 1
    assert "RetrieveURL (0008,1190) was given its present VR UR" in prepared.modifications[0]


def test_b305_contact_uri_with_the_vr_of_earlier_editions() -> None:
    contact = element("SQ", {tags.CONTACT_URI: element("ST", "tel:1")})
    prepared = update(stored(), progress(t00741008=contact))
    item = prepared.attributes[tags.PROGRESS_INFORMATION]["Value"][0]
    assert item[tags.COMMUNICATIONS_URIS] == element("SQ", {tags.CONTACT_URI: element("UR", "tel:1")})
    assert len(prepared.modifications) == 1


@pytest.mark.parametrize(
    "request_",
    [
        {tags.PRIORITY: element("CS", "URGENT")},
        {tags.START: element("DT", "tomorrow")},
        {"00404018": element("SQ", code(), code("2"))},
        {"00741204": element("LO", "x" * 65)},
    ],
)
def test_everything_else_is_refused_and_not_coerced(request_: DataSet) -> None:
    assert refused_create(minimal() | request_).status is statuses.INVALID_VALUE
    assert refused_update(request_).status is statuses.INVALID_VALUE
