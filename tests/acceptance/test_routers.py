# SPDX-License-Identifier: AGPL-3.0-or-later
"""Routers that delete what they have forwarded: they never see a worklist in key-value, and are named in metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import requests

from orthanc_ups.store import shelves
from tests.support.orthanc import RealOrthanc
from tests.support.waiting import wait_until
from tests.support.web_client import WebClient

ROUTERS = {
    "deletes": "Delete(instance)",
    "sends and deletes": "Delete(SendToModality(instance, 'pacs'))",
}
RECOGNIZED = "was deleted 3 times within ten minutes"


def routed(folder: Path, store: str, action: str) -> dict[str, Any]:
    script = folder / "router.lua"
    script.write_text(f"function OnStoredInstance(instance, tags, metadata)\n{action}\nend\n")
    modalities = {"pacs": ["PACS", "127.0.0.1", 1]}
    return {"LuaScripts": [str(script)], "DicomModalities": modalities, "Ups": {"Store": store}}


def client(orthanc: RealOrthanc) -> WebClient:
    return WebClient(f"http://127.0.0.1:{orthanc.ups_http_port}/dicom-web")


def last_change(orthanc: RealOrthanc) -> int:
    return int(requests.get(f"{orthanc.base_url}/changes?last", timeout=30).json()["Last"])


def names_the_router(orthanc: RealOrthanc, within: float = 60) -> None:
    wait_until(lambda: RECOGNIZED in orthanc.log_text(), lambda: f"it is named\n{orthanc.log_tail()}", within)
    assert f'exclude the Patient ID "{shelves.PATIENT_ID}"' in orthanc.log_text()


def test_a_router_that_deletes_everything_is_named_and_gets_no_more_shelves(
    suite: str, tmp_path: Path
) -> None:
    orthanc = RealOrthanc(suite, routed(tmp_path, "metadata", ROUTERS["deletes"]), folder=tmp_path)
    try:
        orthanc.launch()
        names_the_router(orthanc)
        health = requests.get(f"http://127.0.0.1:{orthanc.ups_http_port}/ups/health", timeout=30)
        assert health.status_code == 503
        assert RECOGNIZED in health.text
        before = last_change(orthanc)
        assert client(orthanc).get("/workitems").status_code == 503
        assert last_change(orthanc) == before
        orthanc.configuration["LuaScripts"] = []
        orthanc.kill()
        orthanc.start()
        assert client(orthanc).create()
    finally:
        orthanc.discard()


@pytest.mark.parametrize("action", ROUTERS.values(), ids=list(ROUTERS))
def test_a_router_never_sees_a_worklist_in_the_key_value_store(action: str, tmp_path: Path) -> None:
    with RealOrthanc("forky", routed(tmp_path, "key-value", action), folder=tmp_path) as orthanc:
        uid = client(orthanc).create()
        client(orthanc).claim(uid)
        assert last_change(orthanc) == 0
        assert requests.get(f"{orthanc.base_url}/jobs", timeout=30).json() == []


def test_a_script_that_deletes_the_running_worklist_again_and_again_is_named_and_nothing_is_lost(
    suite: str, tmp_path: Path
) -> None:
    with RealOrthanc(suite, {"Ups": {"Store": "metadata"}}, folder=tmp_path) as orthanc:
        uid = client(orthanc).create()
        patient = f"{orthanc.base_url}/patients/{shelves.PATIENT}"
        for number in (1, 2, 3):
            requests.delete(patient, timeout=30).raise_for_status()
            if number < 3:
                lines = number
                wait_until(
                    lambda: orthanc.log_text().count("nothing is lost") == lines,  # noqa: B023
                    lambda: f"it is written back\n{orthanc.log_tail()}",
                    60,
                )
        names_the_router(orthanc)
        assert requests.get(patient, timeout=30).status_code == 404
        wait_until(lambda: orthanc.health() == 503, "the health says so before anybody writes", 20)
        refusal = client(orthanc).post(f"/workitems/{uid}/subscribers/WATCHER")
        assert refusal.status_code == 503, refusal.text
        assert RECOGNIZED in refusal.text
        assert orthanc.log_text().count("Nothing can be stored any more") == 1
        assert orthanc.health() == 503
        orthanc.kill()
        orthanc.start()
        client(orthanc).claim(uid)
