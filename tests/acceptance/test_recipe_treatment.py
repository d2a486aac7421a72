# SPDX-License-Identifier: AGPL-3.0-or-later
"""docs/recipes/treatment-delivery.md works as it is written (IHE-RO TDW-II over DIMSE)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orthanc_ups.core.dataset import items, text
from orthanc_ups.rules.effects import INPUT, REPLACED
from tests.support.images import by_c_store, image
from tests.support.orthanc import RealOrthanc
from tests.support.recipes import Recipe, run
from tests.support.waiting import wait_until
from tests.support.web_client import WebClient

RECIPE = Recipe("treatment-delivery.md")
PATIENT = "FRACTION1"


@pytest.fixture(scope="module")
def orthanc(suite: str) -> Iterator[RealOrthanc]:
    with RealOrthanc(suite, {**RECIPE.configuration(), "DicomAlwaysAllowStore": True}) as running:
        yield running


def test_a_fraction_waits_for_its_plan_and_what_is_interrupted_is_continued(orthanc: RealOrthanc) -> None:
    client = WebClient(f"http://127.0.0.1:{orthanc.ups_http_port}/dicom-web")
    tms, tdd = RECIPE.program(orthanc, 0), RECIPE.program(orthanc, 1)
    uid = run(tms, PATIENT).strip()
    assert run(tdd, "complete", PATIENT, code=1).strip() == "nothing is ready"
    plan = image("rtplan.dcm", PatientID=PATIENT)
    by_c_store(orthanc, "TMS", plan)
    wait_until(lambda: text(client.retrieve(uid), "00404041") == "READY", "the plan makes it ready")
    assert run(tdd, "interrupt", PATIENT).strip() == uid
    assert text(client.retrieve(uid), "00741000") == "CANCELED"
    query = {"PatientID": PATIENT, "WorklistLabel": "RT CONTINUATION", "includefield": "all"}
    wait_until(lambda: client.get("/workitems", params=query).status_code == 200, "a continuation")
    (continuation,) = client.get("/workitems", params=query).json()
    assert text(items(continuation, REPLACED)[0], "00081155") == uid
    assert text(items(items(continuation, INPUT)[0], "00081199")[0], "00081155") == plan.SOPInstanceUID
    assert text(items(continuation, "00741210")[0], "0040A160") == "CONTINUATION"
    assert run(tdd, "complete", PATIENT).strip() == text(continuation, "00080018")
