# SPDX-License-Identifier: AGPL-3.0-or-later
"""``Ups.Templates``: every mistake is one line that names the key, and placeholders in texts are replaced."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from orthanc_ups.config import ConfigurationError
from orthanc_ups.management.templates import TemplateContext, read_templates, resolved

NOW = datetime(2026, 11, 22, 18, 30, 5, 250_000, timezone(timedelta(hours=1)))
AROUND = TemplateContext(NOW, "anna", lambda: "2.25.7")


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ("x", 'Ups.Templates" is .x., expected a list'),
        ([7], r"Ups.Templates\[0\]. is 7, expected an object"),
        ([{}], r"Ups.Templates\[0\].Name. is missing"),
        ([{"Name": "A", "Tags": {}}], r"unknown setting .Ups.Templates\[0\].Tags."),
        ([{"Name": "A"}, {"Name": "A"}], "two templates with the name .A."),
        ([{"Name": "A", "Attributes": []}], "Attributes. is .*, expected an object"),
        ([{"Name": "A", "Attributes": {"PatientShoe": 1}}], "PatientShoe is not a keyword"),
        (
            [{"Name": "A", "Attributes": {"PatientID": {"Default": 1, "Choise": []}}}],
            "unknown setting .*Choise",
        ),
        ([{"Name": "A", "Attributes": {"PatientID": {"Choices": "x"}}}], "Choices. is .x., expected a list"),
        ([{"Name": "A", "Attributes": {"PatientID": {"Required": "yes"}}}], "true or false"),
        (
            [{"Name": "A", "Attributes": {"ScheduledWorkitemCodeSequence": [{"CodeWord": "x"}]}}],
            "CodeWord is not a keyword",
        ),
    ],
)
def test_a_mistake_is_named(entries: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        read_templates(entries)


def test_a_plain_value_and_an_object_that_says_more() -> None:
    attributes = {
        "ProcedureStepLabel": "Read",
        "PatientID": {"Required": True},
        "ScheduledProcedureStepPriority": {"Choices": ["HIGH", "LOW"], "Default": "LOW", "Fixed": True},
        "PatientName": {"Alphabetic": "Doe^Jane"},
    }
    label, patient, priority, name = read_templates([{"Name": " A ", "Attributes": attributes}])[0].fields
    assert (label.default, label.required, label.fixed, label.choices) == ("Read", False, False, ())
    assert (patient.default, patient.required) == (None, True)
    assert (priority.default, priority.choices, priority.fixed) == ("LOW", ("HIGH", "LOW"), True)
    assert name.default == {"Alphabetic": "Doe^Jane"}


@pytest.mark.parametrize(
    ("keyword", "text", "meant"),
    [
        ("ScheduledProcedureStepStartDateTime", "now", "20261122183005+0100"),
        ("ScheduledProcedureStepStartDateTime", "now + 90m", "20261122200005+0100"),
        ("ScheduledProcedureStepStartDateTime", "today+1d", "20261123000000+0100"),
        ("ScheduledProcedureStepStartDateTime", "20260101", "20260101"),
        ("PatientBirthDate", "today", "20261122"),
        ("StudyInstanceUID", "new-uid", "2.25.7"),
        ("StudyInstanceUID", "1.2.3", "1.2.3"),
        ("ProcedureStepLabel", "now", "now"),
        ("ProcedureStepLabel", "user", "anna"),
    ],
)
def test_texts_stand_for_moments_uids_and_the_user(keyword: str, text: str, meant: str) -> None:
    assert resolved(keyword, text, AROUND) == meant


def test_texts_are_replaced_in_items_too() -> None:
    result = resolved("ReferencedRequestSequence", [{"StudyInstanceUID": "new-uid"}], AROUND)
    assert result == [{"StudyInstanceUID": "2.25.7"}]
