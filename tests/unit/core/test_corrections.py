# SPDX-License-Identifier: AGPL-3.0-or-later
"""What is corrected while a data set is read is reported like what the rules correct (PS3.4 CC.2.5.4, CC.2.6.4)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import pytest

from orthanc_ups.core import statuses, tags
from orthanc_ups.core.closing import refuse_unmet
from orthanc_ups.core.commands import Create, RequestCancel, Requester, Update
from orthanc_ups.core.dataset import DataSet, Element, element, is_empty, ordered
from orthanc_ups.core.decide import Circumstances, decide
from orthanc_ups.core.dictionary import keyword
from orthanc_ups.core.states import State
from orthanc_ups.core.statuses import UpsError
from orthanc_ups.core.workitem import Workitem
from tests.support.preparing import create, refused_create, update
from tests.support.workitems import code, full, minimal, performed, station, stored

AROUND: Final = Circumstances(datetime(2026, 12, 1, 12, tzinfo=UTC))
WHO: Final = Requester("SCU1", "DIMSE")
SENTENCE: Final = ("CodeValue (0008,0100) was decoded from UN",)


def test_cc_2_5_4_a_correction_of_the_codec_makes_a_creation_b300() -> None:
    decision = decide(None, Create(WHO, "2.25.1", full(), SENTENCE), AROUND)
    assert (decision.status, decision.details) == (statuses.CREATED_MODIFIED, SENTENCE)


def test_cc_2_6_4_a_correction_of_the_codec_makes_an_update_b305() -> None:
    decision = decide(
        Workitem("2.25.1", 1, stored()), Update(WHO, "2.25.1", {}, corrections=SENTENCE), AROUND
    )
    assert (decision.status, decision.details) == (statuses.UPDATED_MODIFIED, SENTENCE)


def test_a_correction_of_the_codec_is_reported_with_a_cancellation() -> None:
    decision = decide(
        Workitem("2.25.1", 1, stored()), RequestCancel(WHO, "2.25.1", corrections=SENTENCE), AROUND
    )
    assert (decision.status, decision.details) == (statuses.SUCCESS, SENTENCE)


# --- What the rules correct themselves --------------------------------------------------------------


def type_1_only() -> DataSet:
    """What a scheduler cannot leave out even if the worklist means well."""
    return {tag: value for tag, value in minimal().items() if not is_empty(value)}


def test_cc_2_5_absent_type_2_attributes_are_added_empty_and_each_is_named() -> None:
    decision = decide(None, Create(WHO, "2.25.1", type_1_only()), AROUND)
    absent = minimal().keys() - type_1_only().keys() - {tags.WORKLIST_LABEL}
    assert decision.status is statuses.CREATED_MODIFIED
    assert all(keyword(tag) in decision.details[0] for tag in absent)
    assert {tag for tag in absent if is_empty(decision.workitem.attributes[tag])} == absent
    assert absent | {tags.WORKLIST_LABEL} == decision.modified.keys()


def test_cc_2_5_strict_absent_type_2_attributes_are_refused_all_at_once() -> None:
    error = refused_create(type_1_only(), strict=True)
    assert error.status is statuses.MISSING_ATTRIBUTE
    assert {fault.path for fault in error.faults} == minimal().keys() - type_1_only().keys()


def test_cc_2_6_absent_type_2_attributes_of_items_are_added_empty() -> None:
    prepared = update(stored(), performed(t00404033=None))
    assert prepared.attributes["00741216"]["Value"][0]["00404033"] == element("SQ")
    assert prepared.modifications == (
        "OutputInformationSequence (0040,4033) was added empty, in item 1 of "
        "UnifiedProcedureStepPerformedProcedureSequence (0074,1216)",
    )


def test_cc_2_5_type_1_attributes_are_never_invented() -> None:
    error = refused_create({tags.STATE: element("CS", "SCHEDULED")})
    assert error.status is statuses.MISSING_ATTRIBUTE
    assert {fault.path for fault in error.faults} == {tags.START, tags.READINESS, tags.PRIORITY, tags.LABEL}


SIBLINGS: Final = {
    "a label as SH": (tags.LABEL, element("SH", "Read"), element("LO", "Read")),
    "a label as UT": (tags.LABEL, element("UT", "Read"), element("LO", "Read")),
    "a label as UN": (tags.LABEL, {"vr": "UN", "InlineBinary": "UmVhZA=="}, element("LO", "Read")),
    "a priority as text": (tags.PRIORITY, element("LO", "high"), element("CS", "HIGH")),
    "a sex in lower case": ("00100040", element("CS", "f"), element("CS", "F")),
    "a name as text": (
        "00100010",
        element("LO", "A^B=C"),
        element("PN", {"Alphabetic": "A^B", "Ideographic": "C"}),
    ),
    "an ID as a name": ("00100020", element("PN", {"Alphabetic": "X1"}), element("LO", "X1")),
    "an empty sequence as text": ("00404025", element("LO"), element("SQ")),
    "a moment as ISO 8601": (
        tags.START,
        element("DT", "2026-12-01T12:00:00.5+01:00"),
        element("DT", "20261201120000.5+0100"),
    ),
    "a moment whose offset has a colon": (
        tags.START,
        element("DT", "20261201120000+01:00"),
        element("DT", "20261201120000+0100"),
    ),
    "a moment in UTC": (tags.START, element("LO", "2026-12-01T12:00Z"), element("DT", "202612011200+0000")),
    "a day with dots": ("00100030", element("DA", "1973.02.28"), element("DA", "19730228")),
    "a day as a moment": (tags.START, element("DA", "20261201"), element("DT", "20261201")),
    "a weight with the digits of a float": (
        "00101030",
        element("DS", "70.12345678901235"),
        element("DS", "70.1234567890124"[:16]),
    ),
    "a weight as FD": ("00101030", element("FD", 70.5), element("DS", "70.5")),
    "a pregnancy as text": ("001021C0", element("IS", "1"), element("US", 1)),
    "allergies in one text": ("00102000", element("UT", "Latex\\Nuts"), element("LO", "Latex", "Nuts")),
}


@pytest.mark.parametrize("case", SIBLINGS)
def test_ps3_5_6_2_a_value_of_a_neighbouring_vr_is_taken_and_reported(case: str) -> None:
    tag, sent, expected = SIBLINGS[case]
    prepared = create({**minimal(), tag: sent})
    assert prepared.attributes[tag] == expected
    assert keyword(tag) in prepared.modifications[0]
    assert tag in prepared.modified
    error = refused_create({**minimal(), tag: sent}, strict=True)
    assert (error.status, error.tag) == (statuses.INVALID_VALUE, tag)


@pytest.mark.parametrize(
    ("tag", "sent"),
    [
        (tags.LABEL, element("US", 1)),
        (tags.LABEL, element("UT", "x" * 65)),
        (tags.LABEL, {"vr": "UN", "InlineBinary": "/w=="}),
        (tags.LABEL, {"vr": "OB", "InlineBinary": "UmVhZA=="}),
        (tags.START, element("DT", "12/01/2026")),
        (tags.START, element("DT", "2026-13-01")),
        ("001021C0", element("LO", "yes")),
        ("00101030", element("DS", "heavy")),
        ("00404025", element("LO", "STN1")),
    ],
    ids=repr,
)
def test_a_value_without_a_clear_meaning_is_refused(tag: str, sent: Element) -> None:
    error = refused_create({**minimal(), tag: sent})
    assert (error.status, error.tag) == (statuses.INVALID_VALUE, tag)


def test_ps3_7_command_and_file_meta_elements_are_left_out_of_a_data_set() -> None:
    foreign = {"00000002": element("UI", tags.PUSH), "00020010": element("UI", "1.2.840.10008.1.2")}
    item = {**code(), "00001000": element("UI", "1.2")}
    prepared = create(ordered({**minimal(), **foreign, tags.WORKITEM_CODE: element("SQ", ordered(item))}))
    assert not prepared.attributes.keys() & foreign.keys()
    assert prepared.attributes[tags.WORKITEM_CODE] == element("SQ", code())
    named = " ".join(prepared.modifications)
    assert all(tag in named for tag in ("(0000,0002)", "(0002,0010)", "(0000,1000)"))
    error = refused_create({**foreign, **minimal()}, strict=True)
    assert [fault.path for fault in error.faults] == list(foreign)


def test_other_groups_that_are_no_content_are_refused() -> None:
    assert refused_create({"00041130": element("CS", "X"), **minimal()}).status is statuses.NO_SUCH_ATTRIBUTE


def test_items_without_any_value_are_left_out() -> None:
    empty_code = {tag: element(value["vr"]) for tag, value in code().items()}
    sent = {"00404025": element("SQ", {}), "00404026": element("SQ", empty_code, station())}
    prepared = create(minimal() | sent)
    assert prepared.attributes["00404025"] == element("SQ")
    assert prepared.attributes["00404026"] == element("SQ", station())
    assert len(prepared.modifications) == 1
    assert {fault.path[:8] for fault in refused_create(minimal() | sent, strict=True).faults} == sent.keys()


def test_cc_2_5_an_empty_replaced_step_is_left_out_and_that_is_reported() -> None:
    sent = minimal(t00741224=element("SQ"))
    prepared = create(sent)
    assert "00741224" not in prepared.attributes
    assert prepared.modifications == (
        "ReplacedProcedureStepSequence (0074,1224) was left out: it has no value",
    )
    assert refused_create(sent, strict=True).status is statuses.MISSING_VALUE


def test_cc_2_5_3_a_wrong_state_has_c309_and_all_other_faults_are_named() -> None:
    error = refused_create(minimal(t00741000=element("CS", "IN PROGRESS"), t00741204=None))
    assert error.status is statuses.NOT_SCHEDULED
    assert [fault.path for fault in error.faults] == [tags.STATE, tags.LABEL]


def test_cc_2_5_a_state_in_lower_case_is_scheduled() -> None:
    prepared = create(minimal(t00741000=element("CS", "scheduled")))
    assert prepared.attributes[tags.STATE] == element("CS", "SCHEDULED")
    assert prepared.modifications == ("ProcedureStepState (0074,1000) was set in upper case",)
    assert (
        refused_create(minimal(t00741000=element("CS", "scheduled")), strict=True).status
        is statuses.NOT_SCHEDULED
    )


def test_blanks_around_a_value_are_not_called_lower_case() -> None:
    prepared = create(minimal(t00741200=element("CS", "\n  MEDIUM\n ")))
    assert prepared.attributes[tags.PRIORITY] == element("CS", "MEDIUM")
    assert prepared.modifications == (
        "ScheduledProcedureStepPriority (0074,1200) was cleared of blanks and line ends around it",
    )


def test_cc_2_1_3_every_unmet_final_state_requirement_is_named() -> None:
    with pytest.raises(UpsError) as caught:
        refuse_unmet(update(stored(), performed(t00404051=None, t00404019=None)).attributes, State.COMPLETED)
    assert caught.value.status is statuses.FINAL_STATE_UNMET
    assert [fault.path for fault in caught.value.faults] == ["00741216.00404019", "00741216.00404051"]


def test_a_data_set_full_of_faults_does_not_make_a_refusal_without_end() -> None:
    codes = element("SQ", *({"00080100": element("SH", "X")} for _ in range(1000)))
    error = refused_create(minimal(t00404025=codes))
    assert len(error.faults) == 100
    assert len(error.detail) < 4000
    assert error.detail.endswith("more attributes are at fault")


def test_corrections_are_not_counted_as_faults() -> None:
    codes = element("SQ", *({**code(), "00080100": element("LO", f"X{number}")} for number in range(150)))
    assert "50 more corrections" in create(minimal(t00404025=codes)).modifications[-1]
    error = refused_create(minimal(t00404025=codes, t00741200=element("CS", "URGENT")))
    assert (
        error.detail
        == "ScheduledProcedureStepPriority (0074,1200) is 'URGENT', expected HIGH or MEDIUM or LOW"
    )
