# SPDX-License-Identifier: AGPL-3.0-or-later
"""docs/recipes/ai-on-chest-ct.md works as it is written (IHE AIW-I, pull and triggered pull)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from tests.support.images import by_c_store, by_rest, series
from tests.support.orthanc import RealOrthanc
from tests.support.recipes import Recipe, begun, run
from tests.support.waiting import wait_until

RECIPE = Recipe("ai-on-chest-ct.md")


@pytest.fixture(scope="module")
def orthanc(suite: str) -> Iterator[RealOrthanc]:
    more = {"StableAge": 1, "DicomAlwaysAllowStore": True}
    with RealOrthanc(suite, {**RECIPE.configuration(), **more}) as running:
        yield running


def tasks(orthanc: RealOrthanc, patient: str) -> list[Any]:
    url = f"http://127.0.0.1:{orthanc.ups_http_port}/dicom-web/workitems"
    reply = requests.get(url, params={"PatientID": patient}, timeout=60)
    return reply.json() if reply.status_code == 200 else []


def state(orthanc: RealOrthanc, patient: str) -> str:
    result = tasks(orthanc, patient)
    return result[0]["00741000"]["Value"][0] if result else ""


def soon(check: Callable[[], bool], what: str) -> None:
    wait_until(check, what, interval=0.2)


def test_a_service_that_asks_completes_the_task_of_a_chest_ct(orthanc: RealOrthanc) -> None:
    by_c_store(orthanc, "CT1", *series(2, PatientID="PULL1", BodyPartExamined="CHEST"))
    by_rest(orthanc, *series(1, PatientID="LEG1", BodyPartExamined="LEG"))
    soon(lambda: state(orthanc, "PULL1") == "SCHEDULED", "a task for the chest CT")
    assert "is completed" in run(RECIPE.program(orthanc), "pull")
    assert state(orthanc, "PULL1") == "COMPLETED"
    assert tasks(orthanc, "LEG1") == []


def test_a_service_that_listens_completes_it_as_soon_as_it_is_told(orthanc: RealOrthanc) -> None:
    service = begun(RECIPE.program(orthanc), "socket")
    try:
        images = series(1, PatientID="SOCKET1", BodyPartExamined="CHEST")
        by_c_store(orthanc, "CT1", *images)
        soon(lambda: state(orthanc, "SOCKET1") == "COMPLETED", "the service was told, and completed it")
    finally:
        service.kill()
        service.communicate()
    content = requests.post(f"{orthanc.base_url}/tools/lookup", images[0].StudyInstanceUID, timeout=60).json()
    study = requests.get(f"{orthanc.base_url}/studies/{content[0]['ID']}", timeout=60).json()
    assert len(study["Series"]) == 2, "the result lies beside the images"
