# SPDX-License-Identifier: AGPL-3.0-or-later
"""``If``: equality, list, wildcard, range, absence, nesting; sender, origin, labels, weekdays and hours."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import pytest

from orthanc_ups.management.keyword_form import tag_of, vr_of
from orthanc_ups.rules.causes import Cause, When
from orthanc_ups.rules.conditions import read_condition
from orthanc_ups.rules.faults import InvalidRuleValue
from orthanc_ups.rules.texts import filled, names_in

MONDAY_EVENING: Final = datetime(2026, 11, 23, 20, 30, tzinfo=UTC)
CONTENT: Final[dict[str, Any]] = {
    "Modality": "CT",
    "BodyPartExamined": "CHEST",
    "PatientName": "Yamada^Tarou=山田^太郎",
    "PatientID": "P1",
    "ReferringPhysicianName": "Müller^Jörg",
    "PatientAge": "045Y",
    "StudyDate": "20261123",
    "StudyTime": "203000.5",
    "SeriesNumber": "3",
    "SliceThickness": "1.50",
    "ImageType": "ORIGINAL\\PRIMARY\\AXIAL",
    "StudyDescription": "",
    "RequestAttributesSequence": [
        {
            "AccessionNumber": "A7",
            "RequestedProcedureCodeSequence": [{"CodeValue": "X1"}, {"CodeValue": "X2"}],
        }
    ],
}


def cause(content: dict[str, Any] | None = None, at: datetime = MONDAY_EVENING) -> Cause:
    return Cause(
        When.STABLE_SERIES,
        "series/1",
        "series 1.2 is stable",
        CONTENT if content is None else content,
        at,
        calling_ae="CT1",
        origin="DicomProtocol",
        labels=("urgent", "ward-7"),
    )


@pytest.mark.parametrize(
    ("key", "wanted", "fits"),
    [
        ("Modality", "CT", True),
        ("Modality", "MR", False),
        ("Modality", "ct", True),
        ("0008,0060", "CT", True),
        ("00080060", "CT", True),
        ("0040,0275.AccessionNumber", "A7", True),
        ("Modality", ["MR", "CT"], True),
        ("Modality", {"Not": ["CT", "MR"]}, False),
        ("Modality", {"Not": "MR"}, True),
        ("BodyPartExamined", "CHEST*", True),
        ("BodyPartExamined", "CH?ST", True),
        ("BodyPartExamined", "*", True),
        ("Laterality", "*", False),
        ("Laterality", None, True),
        ("Laterality", ["L", None], True),
        ("StudyDescription", None, True),
        ("StudyDescription", {"Not": None}, False),
        ("Modality", None, False),
        ("PatientName", "yamada*", True),
        ("PatientName", "山田*", True),
        ("PatientName", "Yamada^Tarou^^", True),
        ("ReferringPhysicianName", "muller*", True),
        ("PatientName", "Suzuki*", False),
        ("PatientAge", "018Y-065Y", True),
        ("PatientAge", "024M-030M", False),
        ("PatientAge", {"From": "046Y"}, False),
        ("PatientAge", "40-50", True),
        ("PatientAge", "46Y-", False),
        ("PatientAge", "-600m", True),
        ("PatientAge", 45, True),
        ("PatientAge", "540M", True),
        ("PatientAge", "04?Y", True),
        ("PatientAge", {"From": 40, "To": 44}, False),
        ("StudyDate", "20261101-20261130", True),
        ("StudyDate", "20261123", True),
        ("StudyDate", "-20261122", False),
        ("StudyTime", "2000-2100", True),
        ("SeriesNumber", 3, True),
        ("SeriesNumber", "03", True),
        ("SeriesNumber", "1-5", True),
        ("SeriesNumber", {"From": 4}, False),
        ("SliceThickness", 1.5, True),
        ("SliceThickness", {"To": 1.0}, False),
        ("SliceThickness", "-2", False),
        ("ImageType", "AXIAL", True),
        ("ImageType", "LOCALIZER", False),
        ("RequestAttributesSequence", "*", True),
        ("RequestAttributesSequence", None, False),
        ("ReferencedRequestSequence", None, True),
        ("RequestAttributesSequence.AccessionNumber", "A*", True),
        ("RequestAttributesSequence.RequestedProcedureCodeSequence.CodeValue", "X2", True),
        ("RequestAttributesSequence.RequestedProcedureCodeSequence.CodeValue", "X3", False),
        ("CallingAet", "ct*", True),
        ("CallingAet", ["CT2", "CT3"], False),
        ("CallingAet", None, False),
        ("Origin", ["DicomProtocol", "RestApi"], True),
        ("Origin", "Plugins", False),
        ("Origin", {"Not": "Lua"}, True),
        ("Origin", None, False),
        ("Labels", "ward-*", True),
        ("Labels", {"Not": "urgent"}, False),
        ("Labels", None, False),
        ("Schedule", {"Days": ["Mon", "Tuesday"], "From": "18:00", "To": "24:00"}, True),
        ("Schedule", {"Days": ["Tue"]}, False),
        ("Schedule", [{"Days": ["Sat"]}, {"From": "20:00", "To": "21:00"}], True),
        ("Schedule", {"From": "08:00", "To": "20:30"}, False),
    ],
)  # fmt: skip
def test_a_condition_fits_what_it_says(key: str, wanted: Any, fits: bool) -> None:
    objection = read_condition(key, wanted).objection(cause())
    assert (objection == "") is fits, objection


def test_a_window_over_midnight_belongs_to_the_day_on_which_it_opens() -> None:
    night = read_condition("Schedule", {"Days": ["Mon"], "From": "18:00", "To": "07:00"})
    assert not night.objection(cause(at=datetime(2026, 11, 24, 6, 59, tzinfo=UTC)))
    assert night.objection(cause(at=datetime(2026, 11, 23, 6, 59, tzinfo=UTC)))
    assert night.objection(cause(at=datetime(2026, 11, 24, 7, 0, tzinfo=UTC)))


def test_an_objection_names_what_is_there_and_what_is_expected() -> None:
    assert (
        read_condition("BodyPartExamined", "HEAD*").objection(cause())
        == 'BodyPartExamined is "CHEST", expected "HEAD*"'
    )
    assert (
        read_condition("Laterality", ["L", "R"]).objection(cause())
        == 'Laterality is absent, expected "L" or "R"'
    )


@pytest.mark.parametrize(
    ("keyword", "text", "value"),
    [
        ("ProcedureStepLabel", "Lung nodules of {PatientID}", "Lung nodules of P1"),
        ("ProcedureStepLabel", "{{{Modality}}} from {CallingAet}", "{CT} from CT1"),
        ("ProcedureStepLabel", "{Laterality}", ""),
        ("ProcedureStepLabel", "of {0010,0020}", "of P1"),
        ("ProcedureStepLabel", "{ImageType} first", "ORIGINAL first"),
        ("ProcedureStepLabel", "x" * 60 + "{PatientID}{PatientID}{PatientID}", "x" * 60 + "P1P1"),
        ("AccessionNumber", "{RequestAttributesSequence.AccessionNumber}", "A7"),
        ("PatientName", "{PatientName}", CONTENT["PatientName"]),
        ("RequestAttributesSequence", "{RequestAttributesSequence}", CONTENT["RequestAttributesSequence"][0]),
        ("Modality", ["{Modality}", "SR"], ["CT", "SR"]),
        ("ScheduledWorkitemCodeSequence", [{"CodeMeaning": "for {PatientID}"}], [{"CodeMeaning": "for P1"}]),
        ("SeriesNumber", 7, 7),
    ],
)
def test_names_in_braces_stand_for_what_the_cause_has(keyword: str, text: Any, value: Any) -> None:
    assert filled(keyword, text, cause()) == value


def test_braces_that_are_doubled_hold_no_name() -> None:
    assert list(names_in({"a": ["{{no}} {yes}"], "b": "{Sequence.Other}"})) == ["yes", "Sequence.Other"]


SAMPLES: Final[dict[str, tuple[str, str]]] = {
    "AE": ("StationAETitle", "CT1"),
    "AS": ("PatientAge", "045Y"),
    "AT": ("SelectorATValue", "0020,000D"),
    "CS": ("Modality", "CT"),
    "DA": ("StudyDate", "20261123"),
    "DS": ("SliceThickness", "1.50"),
    "DT": ("AcquisitionDateTime", "20261123203000"),
    "FD": ("ExposureTimeInms", "0.1"),
    "FL": ("SelectorFLValue", "0.100000001490116"),
    "IS": ("SeriesNumber", "3"),
    "LO": ("PatientID", "P 1"),
    "LT": ("PatientComments", "first line"),
    "PN": ("PatientName", "Doe^Jane"),
    "SH": ("StudyID", "S-1"),
    "SL": ("SelectorSLValue", "-3"),
    "SS": ("SelectorSSValue", "-3"),
    "ST": ("InstitutionAddress", "High Street"),
    "SV": ("SelectorSVValue", "-3"),
    "TM": ("StudyTime", "203000"),
    "UC": ("LongCodeValue", "LONG-1"),
    "UI": ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.2"),
    "UL": ("SelectorULValue", "3"),
    "UR": ("RetrieveURL", "https://host/a"),
    "US": ("Rows", "512"),
    "UT": ("LabelText", "a text"),
    "UV": ("SelectorUVValue", "3"),
}  # fmt: skip
"""Per VR an attribute, and a value of it as Orthanc's JSON has it."""


def fits_or_is_refused(keyword: str, expected: Any, value: str) -> bool | None:
    """Whether the value fits; None if the rule is refused with words of what is expected."""
    try:
        condition = read_condition(keyword, expected)
    except InvalidRuleValue as error:
        assert error.expected
        return None
    return not condition.objection(cause({keyword: value}))


@pytest.mark.parametrize("vr", SAMPLES)
def test_every_vr_takes_a_value_a_list_and_absence(vr: str) -> None:
    keyword, value = SAMPLES[vr]
    assert vr_of(tag_of(keyword) or "") == vr
    fitting: list[Any] = [value, [value], "*", {"Not": None}, [None, value]]
    for expected in fitting:
        assert fits_or_is_refused(keyword, expected, value) is True, expected
    unfitting: list[Any] = [None, {"Not": value}, {"Not": "*"}]
    for expected in unfitting:
        assert fits_or_is_refused(keyword, expected, value) is False, expected


@pytest.mark.parametrize("vr", SAMPLES)
def test_ranges_and_wildcards_fit_or_stop_the_start_but_are_never_taken_in_vain(vr: str) -> None:
    keyword, value = SAMPLES[vr]
    for expected in (
        f"{value[:2]}*", f"*{value[-2:]}", f"?{value[1:]}", {"From": value, "To": value}, {"From": value},
        {"To": value}, {"Not": {"From": "", "To": ""}}, f"{value}\\{value}",
    ):  # fmt: skip
        assert fits_or_is_refused(keyword, expected, value) is not False, expected


@pytest.mark.parametrize(
    ("keyword", "expected"),
    [
        ("PatientAge", "old"),
        ("PatientAge", "070Y-060Y"),
        ("PatientAge", "-"),
        ("SliceThickness", "NaN"),
        ("SliceThickness", "thin"),
        ("SliceThickness", "3-1"),
        ("SliceThickness", {"From": 3, "To": 1}),
        ("StudyDate", "20261231-20260101"),
        ("StudyDate", "yesterday"),
        ("Modality", "CT\\MR"),
        ("Modality", {"From": "CT", "To": "MR"}),
        ("Modality", {"from": 1}),
        ("Modality", []),
        ("Modality", True),
        ("SOPClassUID", "CT Image Storage"),
        ("SelectorATValue", "PatientName"),
        ("PixelData", "*"),
        ("PixelData", None),
        ("RequestAttributesSequence", "A7"),
        ("RequestAttributesSequence", {"From": "A7"}),
        ("CallingAet", "A title with too many letters"),
        ("Labels", "has a space"),
        ("Origin", "STOW"),
        ("Schedule", {"Days": ["Monkey"]}),
        ("Schedule", {"Days": []}),
        ("Schedule", {"From": "25:00"}),
    ],
)
def test_what_can_never_fit_is_refused_with_what_is_expected(keyword: str, expected: Any) -> None:
    with pytest.raises(InvalidRuleValue) as refusal:
        read_condition(keyword, expected)
    assert refusal.value.expected
