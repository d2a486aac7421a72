# SPDX-License-Identifier: AGPL-3.0-or-later
"""Creating workitems by hand: plain values, templates, and references to data in Orthanc."""

from __future__ import annotations

from typing import Any

import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import element
from tests.support.fake_management import FakeOrthanc
from tests.support.management_rig import ManagementRig


@pytest.fixture
def rig() -> ManagementRig:
    return ManagementRig()


def test_a_few_plain_values_make_a_workitem(rig: ManagementRig) -> None:
    answer = rig.ask(
        "POST", "/workitems", {"attributes": {"ProcedureStepLabel": "Check", "PatientName": "Doe^Jane"}}
    )
    stored = rig.worklist.workitems[answer["uid"]].attributes
    assert stored[tags.PATIENT_NAME] == element("PN", {"Alphabetic": "Doe^Jane"})
    assert stored[tags.START]["Value"] == ["20261122183000.000000+0000"]
    assert stored["00404025"] == element("SQ")


def test_the_history_names_the_operator(rig: ManagementRig) -> None:
    answer = rig.ask("POST", "/workitems", {"attributes": {"ProcedureStepLabel": "Check"}})
    assert rig.worklist.workitems[answer["uid"]].history[0].who == "anna as UPSWORKLIST by page"


def test_what_the_rules_refuse_names_the_attribute(rig: ManagementRig) -> None:
    refusal = rig.refused(400, "POST", "/workitems", {"attributes": {"PatientID": "7"}})
    assert refusal["attribute"] == "ProcedureStepLabel"
    assert refusal["status"] == "MISSING_ATTRIBUTE"
    assert not rig.worklist.workitems


@pytest.mark.parametrize(
    ("attributes", "word"),
    [
        ({"PatientShoeSize": 9}, "PatientShoeSize"),
        ({"ProcedureStepLabel": {"a": 1}}, "ProcedureStepLabel"),
        ({"ProcedureStepLabel": "x", "PatientName": 7}, "PatientName"),
        (
            {"ProcedureStepLabel": "x", "ScheduledWorkitemCodeSequence": "code"},
            "ScheduledWorkitemCodeSequence",
        ),
        ({"ProcedureStepLabel": "x", "ScheduledProcedureStepPriority": "URGENT"}, "Priority"),
    ],
)
def test_wrong_attributes_are_named(rig: ManagementRig, attributes: Any, word: str) -> None:
    assert word in rig.refused(400, "POST", "/workitems", {"attributes": attributes})["error"]


def test_performers_need_only_a_name_and_their_organization(rig: ManagementRig) -> None:
    person = {"HumanPerformerName": "Reader^Rita", "HumanPerformerOrganization": "Harbour Clinic"}
    attributes = {"ProcedureStepLabel": "x", "ScheduledHumanPerformersSequence": [person]}
    answer = rig.ask("POST", "/workitems", {"attributes": attributes})
    row = rig.ask("GET", "/workitems")["workitems"][0]
    assert row["uid"] == answer["uid"]
    assert row["performers"] == ["Reader, Rita"]


TEMPLATE = {
    "Name": "Second reading",
    "Attributes": {
        "ProcedureStepLabel": {"Default": "Second reading", "Fixed": True},
        "ScheduledProcedureStepPriority": {"Choices": ["HIGH", "LOW"], "Default": "LOW"},
        "ScheduledProcedureStepExpirationDateTime": {"Default": "now+2h"},
        "PatientID": {"Required": True},
    },
}


def test_a_template_gives_defaults_for_now() -> None:
    shown = ManagementRig(templates=[TEMPLATE]).ask("GET", "/templates")["templates"]
    assert [template["name"] for template in shown] == ["Second reading", "Blank"]
    assert shown[0]["fields"]["ScheduledProcedureStepExpirationDateTime"]["default"] == "20261122203000+0000"
    assert shown[0]["fields"]["ScheduledProcedureStepPriority"]["choices"] == ["HIGH", "LOW"]


def test_a_workitem_from_a_template_keeps_what_is_fixed() -> None:
    rig = ManagementRig(templates=[TEMPLATE])
    attributes = {"ProcedureStepLabel": "Mine", "PatientID": "P1"}
    answer = rig.ask("POST", "/workitems", {"template": "Second reading", "attributes": attributes})
    stored = rig.worklist.workitems[answer["uid"]].attributes
    assert stored[tags.LABEL]["Value"] == ["Second reading"]
    assert stored[tags.PRIORITY]["Value"] == ["LOW"]
    assert stored[tags.EXPIRATION]["Value"] == ["20261122203000+0000"]


def test_what_a_template_requires_must_be_given() -> None:
    rig = ManagementRig(templates=[TEMPLATE])
    assert "PatientID" in rig.refused(400, "POST", "/workitems", {"template": "Second reading"})["error"]
    assert "Blank" in rig.refused(400, "POST", "/workitems", {"template": "Third"})["error"]


def study() -> FakeOrthanc:
    """A study of one patient with two series in Orthanc."""
    ids = {name: f"{number:08x}" + "-00000000" * 4 for number, name in enumerate(("p", "s", "a", "b"), 1)}
    patient = {
        "PatientName": "Doe^Jane",
        "PatientID": "P1",
        "PatientBirthDate": "19700101",
        "PatientSex": "F",
    }
    main = {"StudyInstanceUID": "1.2.1", "StudyDescription": "Thorax", "AccessionNumber": "A1"}
    resources: dict[str, Any] = {
        f"/patients/{ids['p']}": {"ID": ids["p"], "MainDicomTags": patient},
        f"/studies/{ids['s']}": {"ID": ids["s"], "ParentPatient": ids["p"], "MainDicomTags": main},
    }
    series = []
    for name in ("a", "b"):
        content = {
            "ID": ids[name],
            "ParentStudy": ids["s"],
            "MainDicomTags": {"Modality": "CT", "SeriesInstanceUID": f"1.2.2.{name == 'b':d}"},
            "Instances": ["x"],
        }
        series.append(content)
        resources[f"/series/{ids[name]}"] = content
        instance = {
            "ID": "x",
            "MainDicomTags": {"SOPInstanceUID": f"1.2.3.{name == 'b':d}"},
            "RequestedTags": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"},
        }
        resources[f"/series/{ids[name]}/instances?expand&requestedTags=SOPClassUID"] = [instance]
    resources[f"/studies/{ids['s']}/series"] = series
    return FakeOrthanc(resources)


STUDY = "00000002" + "-00000000" * 4
SERIES = "00000003" + "-00000000" * 4


def test_a_study_in_orthanc_fills_the_form_in_advance() -> None:
    answer = ManagementRig(orthanc=study()).ask("GET", "/prefill", query=f"level=study&id={STUDY}")
    assert answer["attributes"]["PatientName"] == "Doe^Jane"
    assert answer["attributes"]["ReferencedRequestSequence.AccessionNumber"] == "A1"
    assert [row["chosen"] for row in answer["inputs"]] == [True, True]
    assert answer["study"] == "1.2.1"


def test_of_a_series_only_it_is_chosen() -> None:
    answer = ManagementRig(orthanc=study()).ask("GET", "/prefill", query=f"level=series&id={SERIES}")
    assert [(row["id"] == SERIES, row["chosen"]) for row in answer["inputs"]] == [
        (True, True),
        (False, False),
    ]


def test_inputs_become_references_with_every_instance() -> None:
    rig = ManagementRig(orthanc=study())
    prefill = rig.ask("GET", "/prefill", query=f"level=study&id={STUDY}")
    content = {
        "attributes": {**prefill["attributes"], "ProcedureStepLabel": "Read"},
        "inputs": [{"level": "study", "id": STUDY}],
    }
    answer = rig.ask("POST", "/workitems", content)
    inputs = rig.ask("GET", f"/workitems/{answer['uid']}")["inputs"]
    assert [(row["study"], row["series"], row["instance"]) for row in inputs] == [
        ("1.2.1", "1.2.2.0", "1.2.3.0"),
        ("1.2.1", "1.2.2.1", "1.2.3.1"),
    ]
    assert inputs[0]["sources"] == ["ORTHANC"]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("level=study&id=../../tools/shutdown", 400),
        ("level=shoe&id=x", 400),
        (f"level=study&id={'0' * 8 + '-00000000' * 4}", 404),
    ],
)
def test_only_resources_of_orthanc_can_be_asked_for(query: str, status: int) -> None:
    ManagementRig(orthanc=study()).refused(status, "GET", "/prefill", query=query)


def test_links_point_into_the_viewers_that_are_there(rig: ManagementRig) -> None:
    rig.orthanc.located["1.2.1"] = [("Study", STUDY)]
    links = rig.ask("GET", "/links", query="study=1.2.1")["links"]
    assert links == [{"name": "Orthanc Explorer", "url": f"app/explorer.html#study?uuid={STUDY}"}]
    assert rig.ask("GET", "/links", query="study=1.9")["links"] == []
