# SPDX-License-Identifier: AGPL-3.0-or-later
"""``Ups.Rules``: what docs/rules.md writes is taken, and a mistake is one line that names rule and key."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import pytest

from orthanc_ups.config import ConfigurationError
from orthanc_ups.management.templates import Template, read_templates
from orthanc_ups.rules.causes import When
from orthanc_ups.rules.definitions import (
    CancelEffect,
    CompleteEffect,
    CreateEffect,
    SiteRule,
    UpdateEffect,
    check_loops,
    read_rules,
)

DOCS: Final = (Path(__file__).resolve().parents[3] / "docs" / "rules.md").read_text()
TEMPLATES: Final = read_templates(
    [
        {
            "Name": "Second reading",
            "Attributes": {"ProcedureStepLabel": "Second reading", "WorklistLabel": "SECOND"},
        }
    ]
)
CREATE: Final[dict[str, Any]] = {
    "Name": "AI",
    "When": "StableSeries",
    "If": {"Modality": "CT"},
    "Create": {"Attributes": {"ProcedureStepLabel": "AI"}},
}


def example() -> list[dict[str, Any]]:
    written = re.search(r'```json\n"Ups": (\{ "Rules".*?)\n```', DOCS, re.DOTALL)
    assert written
    rules: list[dict[str, Any]] = json.loads(written[1])["Rules"]
    return rules


def read(*entries: Any, templates: tuple[Template, ...] = TEMPLATES, url: str = "") -> tuple[SiteRule, ...]:
    return read_rules(list(entries), templates, url)


def changed(path: str, value: Any) -> dict[str, Any]:
    rule = deepcopy(CREATE)
    level: Any = rule
    *above, last = path.split("/")
    for name in above:
        level = level.setdefault(name, {})
    if value is ...:
        del level[last]
    else:
        level[last] = value
    return rule


def test_the_rules_of_the_documentation_are_taken() -> None:
    ai, plan, second, report = read(*example())
    assert (ai.name, ai.when) == ("AI on chest CT", When.STABLE_SERIES)
    assert [condition.key for condition in ai.conditions] == ["Modality", "BodyPartExamined", "CallingAet"]
    (create,) = ai.effects
    assert isinstance(create, CreateEffect) and create.inputs == "series" and not create.replaces
    (update,) = plan.effects
    assert isinstance(update, UpdateEffect) and update.add_inputs == "instance"
    (again,) = second.effects
    assert isinstance(again, CreateEffect) and again.inputs == "outputs"
    assert again.fields[0].keyword == "ProcedureStepLabel"
    (complete,) = report.effects
    assert isinstance(complete, CompleteEffect) and complete.outputs == "instance"


def test_tags_may_be_written_in_place_of_keywords() -> None:
    attributes = {
        "0074,1204": "AI of {0010,0020}",
        "00404025.00080100": "L",
        "0040,4025.CodingSchemeDesignator": "99A",
    }
    (rule,) = read(changed("Create/Attributes", {**attributes, "00404025.00080104": "Lung AI"}))
    (create,) = rule.effects
    assert isinstance(create, CreateEffect)
    assert [*create.attributes] == [
        "ProcedureStepLabel",
        "ScheduledStationNameCodeSequence.CodeValue",
        "ScheduledStationNameCodeSequence.CodingSchemeDesignator",
        "ScheduledStationNameCodeSequence.CodeMeaning",
    ]


def test_several_effects_are_carried_out_in_one_order_however_they_are_written() -> None:
    matching = {"Matching": {"WorklistLabel": "X"}}
    rule = {"Cancel": matching, "Complete": matching, **CREATE}
    (read_rule,) = read(rule)
    assert [type(effect) for effect in read_rule.effects] == [CreateEffect, CompleteEffect, CancelEffect]


MISTAKES: Final[list[tuple[str, Any, str]]] = [
    ("Name", "", "Name"),
    ("Name", 'a "b"', "without quotation marks"),
    ("When", "StableSerie", 'did you mean "StableSeries"?'),
    ("Wen", "x", 'unknown setting "Ups.Rules[0].Wen" of the rule "AI"; did you mean "When"?'),
    ("If/Modalty", "CT", 'did you mean "Modality"?'),
    ("If/Modality", [], "expected at least one value"),
    ("If/Modality", True, "expected a text, a number, null"),
    ("If/StudyDate", "yesterday", "expected a date such as 20260131"),
    ("If/SeriesNumber", "many", 'expected a number, or a range such as "10-20"'),
    ("If/Modality.CodeValue", "CT", "expected a sequence before the dot"),
    ("If/RequestAttributesSequence", "x", 'RequestAttributesSequence.CodeValue"'),
    ("If/Origin", "DICOM", "expected one of DicomProtocol"),
    ("If/Schedule", {"Days": ["Someday"]}, "If.Schedule.Days"),
    ("If/Schedule", {"From": "8"}, 'a time such as "18:30"'),
    ("If/PatientID", {"Like": "x"}, '{"Not": …}'),
    ("Create", ..., "has no effect, expected Create, Update, Complete or Cancel"),
    ("Create/Inputs", "serie", 'expected "series", "study" or "none"; did you mean "series"?'),
    ("Create/Inputs", "instance", 'expected "series", "study" or "none"'),
    ("Create/Template", "Second read", 'did you mean "Second reading"?'),
    ("Create/LateInstances", "new", 'expected "nothing" or "replace"'),
    ("Create/Attributes", {"WorklistLabel": "AI"}, "has no ProcedureStepLabel"),
    ("Create/Attributes/ProcedureStepLable", "x", 'did you mean "ProcedureStepLabel"?'),
    ("Create/Attributes/ScheduledProcedureStepPriority", "URGENT", 'expected "HIGH", "MEDIUM" or "LOW"'),
    ("Create/Attributes/ProcedureStepLabel", "of {PatientId}", 'did you mean "PatientID"?'),
    ("Create/Attributes/ScheduledWorkitemCodeSequence", "X", "expected items of a sequence"),
    ("Create/Attributes/ProcedureStepLabel", "of {PatientID", "expected braces in pairs"),
    ("Create/Attributes/ProcedureStepLabel", "x" * 65, "at most 64 characters"),
    ("Create/Attributes/ProcedureStepState", "COMPLETED", "is set by the worklist"),
    ("Create/Attributes/SOPInstanceUID", "1.2.3", "is set by the worklist"),
    ("Create/Attributes/ScheduledProcedureStepStartDateTime", "tomorrow", "expected a date-time"),
    ("Create/Attributes/ScheduledProcedureStepStartDateTime", "now+1x", "expected a date-time"),
    ("Create/Attributes/ScheduledStationNameCodeSequence", [{"CodeValue": "L"}], "CodingSchemeDesignator"),
    ("Create/Attributes/ScheduledStationNameCodeSequence.CodeValue", "L", "CodingSchemeDesignator"),
    ("If/Modality", "!CT", 'a list such as ["CT", "MR"]'),
    ("If/Modality", "CT|MR", 'a list such as ["CT", "MR"]'),
    ("If/0008,006", "CT", "not a keyword of the DICOM dictionary"),
    ("Cancel", {"Matching": {"PatientID": "1"}, "Code": {"CodeValue": "110513"}}, "Cancel.Code"),
    ("Retrieve", "WADO-RS", 'which needs "Ups.PublicUrl"'),
    ("Retrieve", "ftp", 'expected "DICOM", "WADO-RS", or a URL'),
    ("Enable", "yes", "expected true or false"),
    ("Update", {"Matching": {}}, "Update.Matching"),
    ("Update", {"Matching": {"PatientID": "{PatientID}"}}, "changes nothing"),
    (
        "Update",
        {"Matching": {"PatientID": "{PatientID}"}, "Attributes": {"PatientName": "X"}},
        "cannot be updated",
    ),
    ("Complete", {"Matching": {"PatientID": "1"}, "Outputs": "outputs"}, '"series", "study" or "none"'),
    ("Cancel", {"Matching": {"PatientID": "1"}, "Reason": 7}, "expected a string"),
]


@pytest.mark.parametrize(
    ("path", "value", "words"), MISTAKES, ids=[f"{path} {value}"[:60] for path, value, _ in MISTAKES]
)
def test_a_mistake_is_one_line_with_rule_key_and_expectation(path: str, value: Any, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(changed(path, value))
    message = str(caught.value)
    assert words in message
    assert "Ups.Rules[0]" in message and "\n" not in message
    assert path.startswith("Name") or 'rule "AI"' in message


def test_the_sender_of_images_is_no_condition_of_a_workitems_end() -> None:
    rule = {**changed("If", {"CallingAet": "CT1"}), "When": "Completed"}
    with pytest.raises(ConfigurationError, match="is not available when"):
        read(rule)


def test_a_name_is_given_once() -> None:
    with pytest.raises(ConfigurationError, match='two rules with the name "AI"'):
        read(CREATE, CREATE)


def test_wado_rs_takes_the_public_url() -> None:
    (rule,) = read(changed("Retrieve", "WADO-RS"), url="https://pacs.example/dicom-web/")
    assert rule.retrieve == "https://pacs.example/dicom-web"


def ending(name: str, wanted: dict[str, Any], created: dict[str, Any]) -> dict[str, Any]:
    attributes = {"ProcedureStepLabel": name, **created}
    return {"Name": name, "When": "Completed", "If": wanted, "Create": {"Attributes": attributes}}


def loops(*entries: dict[str, Any]) -> None:
    check_loops(read(*entries), "DEFAULT")


def test_a_rule_that_feeds_itself_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigurationError, match='rule "A" feeds itself'):
        loops(ending("A", {"WorklistLabel": "READ*"}, {"WorklistLabel": "READING"}))
    with pytest.raises(ConfigurationError, match="feeds itself"):
        loops(ending("A", {}, {}))
    with pytest.raises(ConfigurationError, match="feeds itself"):
        loops(ending("A", {"WorklistLabel": "DEFAULT", "ScheduledProcedureStepPriority": "MEDIUM"}, {}))


def test_rules_that_feed_each_other_are_refused_at_the_start() -> None:
    first = ending("A", {"WorklistLabel": "X"}, {"WorklistLabel": "Y"})
    second = ending("B", {"WorklistLabel": "Y"}, {"WorklistLabel": "X"})
    with pytest.raises(ConfigurationError, match='feeds itself by way of "B"'):
        loops(first, second)


def test_rules_that_come_to_an_end_are_taken() -> None:
    loops(ending("A", {"WorklistLabel": "X"}, {"WorklistLabel": "Y"}))
    loops(ending("A", {"WorklistLabel": "X"}, {"WorklistLabel": "{ScheduledProcedureStepPriority}"}))
    loops(ending("A", {"PatientSex": "F"}, {}))
    loops(*example_without_templates())


def example_without_templates() -> list[dict[str, Any]]:
    return [rule for rule in example() if "Template" not in rule.get("Create", {})]
