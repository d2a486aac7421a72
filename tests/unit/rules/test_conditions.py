# SPDX-License-Identifier: AGPL-3.0-or-later
"""``If``: equality, list, wildcard, range, absence, nesting; sender, origin, labels, weekdays and hours."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import pytest

from orthanc_ups.rules.causes import Cause, When
from orthanc_ups.rules.conditions import read_condition
from orthanc_ups.rules.texts import filled, names_in

MONDAY_EVENING: Final = datetime(2026, 11, 23, 20, 30, tzinfo=UTC)
CONTENT: Final[dict[str, Any]] = {
    "Modality": "CT",
    "BodyPartExamined": "CHEST",
    "PatientName": "Yamada^Tarou=山田^太郎",
    "PatientID": "P1",
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
        ("PatientName", "Suzuki*", False),
        ("PatientAge", "018Y-065Y", True),
        ("PatientAge", "024M-030M", False),
        ("PatientAge", {"From": "046Y"}, False),
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
