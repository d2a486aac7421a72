# SPDX-License-Identifier: AGPL-3.0-or-later
"""Routers that delete what they forwarded never see a worklist in key-value; in metadata the log names them."""

from __future__ import annotations

from collections.abc import Callable
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


def routed(
    folder: Path, store: str, action: str, event: str = "OnStoredInstance(instance, tags, metadata)"
) -> dict[str, Any]:
    script = folder / "router.lua"
    script.write_text(f"function {event}\n{action}\nend\n")
    modalities = {"pacs": ["PACS", "127.0.0.1", 1]}
    return {
        "LuaScripts": [str(script)],
        "DicomModalities": modalities,
        "StableAge": 1,
        "Ups": {"Store": store},
    }


def client(orthanc: RealOrthanc) -> WebClient:
    return WebClient(f"http://127.0.0.1:{orthanc.ups_http_port}/dicom-web")


def last_change(orthanc: RealOrthanc) -> int:
    return int(requests.get(f"{orthanc.base_url}/changes?last", timeout=60).json()["Last"])


def names_the_router(orthanc: RealOrthanc) -> None:
    """In the log, and by its health before anybody writes."""
    orthanc.logs(RECOGNIZED)
    orthanc.logs(f'exclude the Patient ID "{shelves.PATIENT_ID}"')
    wait_until(lambda: orthanc.health() == 503, orthanc.log_tail)


def test_a_router_that_deletes_everything_is_named_and_gets_no_more_shelves(
    suite: str, tmp_path: Path
) -> None:
    orthanc = RealOrthanc(suite, routed(tmp_path, "metadata", ROUTERS["deletes"]), folder=tmp_path)
    try:
        orthanc.launch()
        names_the_router(orthanc)
        health = requests.get(f"http://127.0.0.1:{orthanc.ups_http_port}/ups/health", timeout=60)
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
        assert requests.get(f"{orthanc.base_url}/jobs", timeout=60).json() == []


def test_a_script_that_deletes_the_running_worklist_again_and_again_is_named_and_nothing_is_lost(
    suite: str, tmp_path: Path
) -> None:
    with RealOrthanc(suite, {"Ups": {"Store": "metadata"}}, folder=tmp_path) as orthanc:
        uid = client(orthanc).create()
        patient = f"{orthanc.base_url}/patients/{shelves.PATIENT}"
        for number in (1, 2, 3):
            requests.delete(patient, timeout=60).raise_for_status()
            if number < 3:
                assert orthanc.logs("nothing is lost", number).count("nothing is lost") == number
        names_the_router(orthanc)
        assert requests.get(patient, timeout=60).status_code == 404
        refusal = client(orthanc).post(f"/workitems/{uid}/subscribers/WATCHER")
        assert refusal.status_code == 503, refusal.text
        assert RECOGNIZED in refusal.text
        stops = "Nothing can be stored from now on"
        assert orthanc.logs(stops).count(stops) == 1
        assert orthanc.health() == 503
        orthanc.kill()
        orthanc.start()
        client(orthanc).claim(uid)


# --- routers of stable studies ---


def test_a_lua_router_of_stable_studies_is_named_and_the_worklist_was_open_before(tmp_path: Path) -> None:
    stable = routed(
        tmp_path, "metadata", "RestApiDelete('/studies/' .. study)", "OnStableStudy(study, tags, metadata)"
    )
    with RealOrthanc("trixie", stable, folder=tmp_path) as orthanc:
        uid = client(orthanc).create()
        names_the_router(orthanc)
        assert orthanc.log_text().count("nothing is lost") <= 2
        before = last_change(orthanc)
        refusal = client(orthanc).post(f"/workitems/{uid}/subscribers/WATCHER")
        assert (refusal.status_code, RECOGNIZED in refusal.text) == (503, True)
        assert last_change(orthanc) == before, "nothing goes round in circles"
        orthanc.configuration["LuaScripts"] = []
        orthanc.stop()
        orthanc.start()
        client(orthanc).claim(uid)


def test_a_lua_router_of_stable_studies_never_sees_a_worklist_in_the_key_value_store(tmp_path: Path) -> None:
    stable = routed(
        tmp_path, "key-value", "RestApiDelete('/studies/' .. study)", "OnStableStudy(study, tags, metadata)"
    )
    with RealOrthanc("forky", stable, folder=tmp_path) as orthanc:
        upload(orthanc)
        uid = client(orthanc).create()
        wait_until(lambda: not studies(orthanc), "the router deletes the study of the hospital")
        client(orthanc).claim(uid)


def upload(orthanc: RealOrthanc) -> None:
    """A study of the hospital."""
    tags = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66", "PatientID": "P1", "PatientName": "Doe^Jane"}
    requests.post(
        f"{orthanc.base_url}/tools/create-dicom", json={"Tags": tags}, timeout=30
    ).raise_for_status()


def studies(orthanc: RealOrthanc) -> list[str]:
    answer: list[str] = requests.get(f"{orthanc.base_url}/studies", timeout=60).json()
    return answer


class Forwarder:
    """Does what forwarders do that follow /changes: send each stable study, delete it, and again.

    Attributes:
        sent: Patient ID of each study that was sent.
    """

    def __init__(self, orthanc: RealOrthanc, spares_label: str = "") -> None:
        """``spares_label``: studies with this label are not forwarded."""
        self._url = orthanc.base_url
        self._spares_label = spares_label
        self._since = 0
        self.sent: list[str] = []

    def step(self) -> None:
        """Look at the next changes."""
        changes = requests.get(f"{self._url}/changes?since={self._since}&limit=100", timeout=60).json()
        self._since = changes["Last"]
        for change in changes["Changes"]:
            if change["ChangeType"] == "StableStudy":
                self._forward(f"{self._url}/studies/{change['ID']}")

    def _forward(self, study: str) -> None:
        answer = requests.get(study, timeout=60)
        if not answer.ok or self._spares_label in answer.json()["Labels"]:
            return
        archive = requests.get(f"{study}/archive", timeout=60)
        if archive.ok and requests.delete(study, timeout=60).ok:
            self.sent.append(answer.json()["PatientMainDicomTags"]["PatientID"])


def follow(forwarder: Forwarder, until: Callable[[], bool], what: str, orthanc: RealOrthanc) -> None:
    def step() -> bool:
        forwarder.step()
        return until()

    wait_until(step, lambda: f"{what}\n{forwarder.sent}\n{orthanc.log_tail()}", 60, interval=0.1)


@pytest.mark.parametrize(
    ("suite", "store", "label"),
    [("forky", "key-value", ""), ("trixie", "metadata", ""), ("forky", "metadata", "orthanc-ups")],
)
def test_a_forwarder_that_sends_deletes_and_again(suite: str, store: str, label: str, tmp_path: Path) -> None:
    settings = {"StableAge": 1, "Ups": {"Store": store}}
    with RealOrthanc(suite, settings, folder=tmp_path) as orthanc:
        uid = client(orthanc).create()
        forwarder = Forwarder(orthanc, label)
        if store == "metadata" and not label:
            follow(forwarder, lambda: RECOGNIZED in orthanc.log_text(), "it is named", orthanc)
            assert forwarder.sent == [shelves.PATIENT_ID] * 3
            upload(orthanc)
            follow(forwarder, lambda: "P1" in forwarder.sent, "the hospital's study is sent", orthanc)
            assert forwarder.sent == [*[shelves.PATIENT_ID] * 3, "P1"], "nothing goes round in circles"
        else:
            upload(orthanc)
            follow(forwarder, lambda: "P1" in forwarder.sent, "the hospital's study is sent", orthanc)
            assert forwarder.sent == ["P1"]
            client(orthanc).claim(uid)
