# SPDX-License-Identifier: AGPL-3.0-or-later
"""Beside Orthanc's worklists plugin on a real Orthanc, in either order of ``Plugins``."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from orthanc_ups.core.dataset import DataSet, element
from orthanc_ups.modality.worklist_callback import as_file
from tests.support import workitems
from tests.support.dcmtk import findscu_worklist
from tests.support.dimse_client import UpsClient
from tests.support.orthanc import PYTHON_PLUGIN, RealOrthanc
from tests.support.waiting import wait_until

WORKLISTS_PLUGIN = "${ORTHANC_PLUGINS}/libModalityWorklists.so"
STEP = "ScheduledProcedureStepSequence[0]"
WARNING = "Another plugin answers the worklist queries"


def entry(patient: str, title: str) -> DataSet:
    """What a RIS puts into the folder."""
    step: DataSet = {"00400001": element("AE", title), "00400002": element("DA", "20261201")}
    return {
        "00100010": element("PN", {"Alphabetic": f"Folder^{patient}"}),
        "00100020": element("LO", patient),
        "00400100": element("SQ", step),
    }


def configuration(folder: Path, *plugins: str) -> dict[str, Any]:
    for patient, title in (("F1", "CT1"), ("F2", "MR1")):
        (folder / f"{patient}.wl").write_bytes(as_file(entry(patient, title)))
    return {
        "Plugins": list(plugins),
        "Worklists": {"Enable": True, "Database": str(folder)},
        "DicomModalities": {"scu": ["SCU", "127.0.0.1", 104]},
        "Ups": {"ModalityWorklist": {"Enable": True}},
    }


def patients(orthanc: RealOrthanc, *keys: str) -> list[str]:
    answers = findscu_worklist(orthanc.dicom_port, ["PatientID", "PatientName", *keys])
    return sorted(str(answer.PatientID) for answer in answers)


@pytest.fixture(scope="module")
def first(suite: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealOrthanc]:
    """Our plugin comes first."""
    folder = tmp_path_factory.mktemp("worklists")
    with RealOrthanc(suite, configuration(folder, PYTHON_PLUGIN, WORKLISTS_PLUGIN)) as orthanc:
        with UpsClient(orthanc.ups_dicom_port) as client:
            station = element("SQ", workitems.code("CT1", "99X", "CT"))
            answer = client.create(workitems.minimal(t00100020=element("LO", "W1"), t00404025=station))
            assert answer.code in (0, 0xB300)
        yield orthanc


def test_first_in_the_list_both_lists_are_served(first: RealOrthanc) -> None:
    assert patients(first) == ["F1", "F2", "W1"]
    assert patients(first, f"{STEP}.ScheduledStationAETitle=CT1") == ["F1", "W1"]
    assert patients(first, "PatientName=folder*") == ["F1", "F2"]
    assert patients(first, f"{STEP}.ScheduledProcedureStepStartDate=20261201") == ["F1", "F2"]
    assert WARNING not in first.log_text()


def test_behind_the_worklists_plugin_one_line_says_the_order(suite: str, tmp_path: Path) -> None:
    with RealOrthanc(suite, configuration(tmp_path, WORKLISTS_PLUGIN, PYTHON_PLUGIN)) as orthanc:
        assert orthanc.logs(WARNING).count(WARNING) == 1
        assert patients(orthanc) == ["F1", "F2"]
        overview = f"{orthanc.base_url}/ups/api/overview"
        wait_until(
            lambda: WARNING in json.dumps(requests.get(overview, timeout=60).json()["warnings"]),
            "the overview warns of it",
        )
