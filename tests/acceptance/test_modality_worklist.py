# SPDX-License-Identifier: AGPL-3.0-or-later
"""Modalities ask a real Orthanc for their worklist, with DCMTK's ``findscu -W`` (PS3.4 Annex K)."""

from collections.abc import Sequence
from typing import Any

import pytest
from pydicom import Dataset

from orthanc_ups.core.dataset import DataSet, element
from tests.support import workitems
from tests.support.dcmtk import findscu_worklist
from tests.support.dimse_client import UpsClient
from tests.support.orthanc import RealOrthanc

pytestmark = [
    pytest.mark.one_suite("the DIMSE port is our own"),
    pytest.mark.one_store("the search index answers, not the store"),
]

STEP = "ScheduledProcedureStepSequence[0]"


@pytest.fixture(scope="module")
def orthanc_overrides(store: str) -> dict[str, Any]:
    return {
        "DicomModalities": {"scu": ["SCU", "127.0.0.1", 104], "ct1": ["CT1", "127.0.0.1", 104]},
        "DefaultEncoding": "Utf8",
        "Ups": {
            "Store": store,
            "ModalityWorklist": {
                "Enable": True,
                "Stations": {"CT1": "CTROOM1", "MR1": "MRROOM1^99HOSPITAL"},
                "Modalities": {"MR1": "MR"},
            },
        },
    }


def scheduled(patient: str, name: dict[str, str], start: str, stations: str = "", **more: Any) -> DataSet:
    """A workitem for modalities at stations with these codes."""
    codes = [workitems.code(code, "99HOSPITAL", f"Room of {code[:4]}") for code in stations.split()]
    return workitems.minimal(
        t00100020=element("LO", patient),
        t00100010=element("PN", name),
        t00404005=element("DT", start),
        t00404025=element("SQ", *codes),
        **more,
    )


@pytest.fixture(scope="module")
def filled(orthanc: RealOrthanc) -> RealOrthanc:
    requested = element("SQ", workitems.request("ACC-1"))
    code = element("SQ", workitems.code("RAD7", "99HOSPITAL", "Radiographer 7"))
    name = element("PN", {"Alphabetic": "Åström^Zoë"})
    performer = element("SQ", {"00404009": code, "00404036": element("LO", "Harbour"), "00404037": name})
    with UpsClient(orthanc.ups_dicom_port) as client:
        for attributes in (
            scheduled("P1", {"Alphabetic": "Müller^Jörg"}, "20261201083000", "CTROOM1",
                      t0040A370=requested, t0020000D=element("UI", "2.25.4711"), t00404034=performer),
            scheduled("P2", {"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"},
                      "20261201100000", "MRROOM1 XA2"),
            scheduled("P3", {"Alphabetic": "Smith^Ann"}, "20261202120000", "XA1"),
            scheduled("P4", {"Alphabetic": "Jones^Bob"}, "20261203120000"),
        ):  # fmt: skip
            answer = client.create(attributes)
            assert answer.code in (0, 0xB300), answer
    return orthanc


def patients_found(orthanc: RealOrthanc, *keys: str, charset: str = "ISO_IR 192") -> list[str]:
    """Patient IDs of the answers."""
    answers = ask(orthanc, ["PatientID", *keys], charset)
    return sorted(str(answer.PatientID) for answer in answers)


def ask(orthanc: RealOrthanc, keys: Sequence[str], charset: str = "ISO_IR 192") -> list[Dataset]:
    return findscu_worklist(orthanc.dicom_port, keys, charset=charset)


@pytest.mark.parametrize(
    ("keys", "patients"),
    [
        ([], ["P1", "P2", "P3", "P4"]),
        ([f"{STEP}.ScheduledStationAETitle=CT1"], ["P1"]),
        ([f"{STEP}.ScheduledStationAETitle=ct1"], ["P1"]),
        ([f"{STEP}.ScheduledStationAETitle=XA1"], ["P3"]),
        ([f"{STEP}.ScheduledStationAETitle=CTROOM1"], []),
        ([f"{STEP}.ScheduledStationAETitle=*1"], ["P1", "P2", "P3"]),
        ([f"{STEP}.Modality=MR"], ["P2"]),
        ([f"{STEP}.Modality=CT"], []),
        ([f"{STEP}.ScheduledStationAETitle=CT1", f"{STEP}.Modality=CT"], ["P1"]),
        ([f"{STEP}.ScheduledStationAETitle=MR1", f"{STEP}.Modality=CT"], []),
        ([f"{STEP}.ScheduledProcedureStepStartDate=20261201"], ["P1", "P2"]),
        ([f"{STEP}.ScheduledProcedureStepStartDate=20261202-"], ["P3", "P4"]),
        ([f"{STEP}.ScheduledProcedureStepStartDate=-20261201"], ["P1", "P2"]),
        ([f"{STEP}.ScheduledProcedureStepStartDate=20261201-20261202"], ["P1", "P2", "P3"]),
        ([f"{STEP}.ScheduledProcedureStepStartTime=08-0930"], ["P1"]),
        ([f"{STEP}.ScheduledProcedureStepStartTime=1000"], ["P2"]),
        ([f"{STEP}.ScheduledStationAETitle=CT1", f"{STEP}.ScheduledProcedureStepStartDate=20261202"], []),
        (["PatientName=MÜLLER*"], ["P1"]),
        (["PatientName=muller^j*"], ["P1"]),
        (["PatientName=M?ller^Jörg"], ["P1"]),
        (["PatientName=yamada*"], ["P2"]),
        (["PatientName=*山田*"], ["P2"]),
        (["PatientName==山田^太郎"], ["P2"]),
        (["PatientName===やまだ*"], ["P2"]),
        (["AccessionNumber=ACC-1"], ["P1"]),
        (["AccessionNumber=ACC*"], ["P1"]),
        (["AccessionNumber=acc-1"], []),
        (["StudyInstanceUID=2.25.4711"], ["P1"]),
        (["PatientID=P3"], ["P3"]),
        (["PatientWeight=70"], ["P1", "P2", "P3", "P4"]),
        ([f"{STEP}.ScheduledProcedureStepStartDate=tomorrow"], []),
    ],
    ids=str,
)  # fmt: skip
def test_k_6_1_2_keys_match(filled: RealOrthanc, keys: list[str], patients: list[str]) -> None:
    assert patients_found(filled, *keys) == patients


def test_k_6_1_3_an_answer_has_the_keys_that_were_asked_for(filled: RealOrthanc) -> None:
    step_keys = (
        "ScheduledStationAETitle=CT1", "Modality=CT", "ScheduledProcedureStepStartDate",
        "ScheduledProcedureStepStartTime", "ScheduledProcedureStepID", "ScheduledStationName",
    )  # fmt: skip
    keys = [
        "PatientName",
        "PatientID=P1",
        "AccessionNumber",
        "RequestedProcedureID",
        "StudyInstanceUID",
        "PatientWeight",
    ]
    keys += [f"{STEP}.{name}" for name in step_keys]
    [answer] = ask(filled, keys)
    [step] = answer.ScheduledProcedureStepSequence
    assert str(answer.PatientName) == "Müller^Jörg"
    assert (answer.AccessionNumber, answer.StudyInstanceUID) == ("ACC-1", "2.25.4711")
    assert answer.PatientWeight is None  # asked for, not known
    assert "PatientSex" not in answer
    assert (step.ScheduledStationAETitle, step.Modality) == ("CT1", "CT")
    assert (step.ScheduledProcedureStepStartDate, step.ScheduledProcedureStepStartTime) == (
        "20261201",
        "083000",
    )
    assert step.ScheduledProcedureStepID.startswith("UPS")
    assert step.ScheduledStationName == "Room of CTRO"
    assert "ScheduledProcedureStepStatus" not in step


def test_a_universal_sequence_key_returns_the_whole_step(filled: RealOrthanc) -> None:
    [answer] = ask(filled, ["PatientID=P2", "PatientName", "ScheduledProcedureStepSequence"])
    [step] = answer.ScheduledProcedureStepSequence
    assert (step.Modality, step.ScheduledStationAETitle) == ("MR", ["MR1", "XA2"])
    assert step.ScheduledProcedureStepStatus == "SCHEDULED"
    assert answer.PatientName.ideographic == "山田^太郎"
    assert answer.PatientName.phonetic == "やまだ^たろう"


@pytest.mark.parametrize(
    ("key", "patients"),
    [
        ("ScheduledProtocolCodeSequence[0].CodeValue", ["P1", "P2", "P3", "P4"]),
        ("ScheduledStationAETitle=ct1", ["P1"]),
        ("ScheduledStationAETitle=XA2", ["P2"]),
        ("Modality=CT\\MR", ["P2"]),
        ("ScheduledProcedureStepStartTime=0800-0830", ["P1"]),
        ("ScheduledProcedureStepStartTime=1000", ["P2"]),
        ("ScheduledPerformingPhysicianName=astrom*", ["P1"]),
        ("ScheduledPerformingPhysicianName=ÅSTRÖM^ZOE", ["P1"]),
        ("StationName=nobody maps this*", ["P1", "P2", "P3", "P4"]),
        ("PreMedication=nobody has it", []),
    ],
)
def test_k_6_1_3_no_answer_comes_without_its_step(filled: RealOrthanc, key: str, patients: list[str]) -> None:
    """Orthanc's matcher leaves out items that do not fit by its own measure, which is one of texts."""
    answers = ask(filled, ["PatientID", f"{STEP}.ScheduledProcedureStepID", f"{STEP}.{key}"])
    assert sorted(str(answer.PatientID) for answer in answers) == patients
    for answer in answers:
        [step] = answer.ScheduledProcedureStepSequence
        assert str(step.ScheduledProcedureStepID).startswith("UPS")


def test_a_step_without_a_station_is_answered_to_nobody_in_particular(filled: RealOrthanc) -> None:
    assert patients_found(filled, "PatientID=P4") == ["P4"]
    assert patients_found(filled, "PatientID=P4", f"{STEP}.ScheduledStationAETitle=CT1") == []


def test_k_6_1_2_a_query_in_another_character_set_matches(filled: RealOrthanc) -> None:
    assert patients_found(filled, "PatientName=muller*", charset="ISO_IR 100") == ["P1"]


def test_the_plugin_finds_that_it_is_asked(filled: RealOrthanc) -> None:
    assert "Another plugin answers" not in filled.log_text()
    assert "internal error" not in filled.log_text()
