# SPDX-License-Identifier: AGPL-3.0-or-later
"""A real Orthanc of each suite starts, carries our dependencies and stops."""

import json
from pathlib import Path

import pytest
import requests

from tests.support.orthanc import CHECKOUT, RealOrthanc, merged

# What Orthanc tells about the Python inside it, over a route of the script's own.
REPORTING_SCRIPT = """
import json, sys
import orthanc
import aiohttp, defusedxml.ElementTree, msgspec, orjson, pydicom, pynetdicom

REPORT = {
    "python": list(sys.version_info[:2]),
    "name": json.loads(orthanc.GetConfiguration())["Name"],
    "versions": {module.__name__: module.__version__ for module in (aiohttp, msgspec, orjson, pydicom, pynetdicom)},
}

def answer(output, uri, **request):
    output.AnswerBuffer(json.dumps(REPORT), "application/json")

orthanc.RegisterRestCallback("/report", answer)
"""
VERSIONS = {"forky": "1.13.0", "trixie": "1.12.7"}
PYTHONS = {"forky": [3, 14], "trixie": [3, 13]}


@pytest.fixture
def script(tmp_path: Path) -> Path:
    file = tmp_path / "reporting_script.py"
    file.write_text(REPORTING_SCRIPT)
    return file


def pinned_versions() -> dict[str, str]:
    lines = (CHECKOUT / "requirements.txt").read_text().splitlines()
    pins = (line.split(";")[0].split("==") for line in lines if "==" in line)
    return {name.strip(): version.strip() for name, version in pins}


def test_python_inside_orthanc_has_the_pinned_dependencies(suite: str, script: Path) -> None:
    with RealOrthanc(suite, script=script) as orthanc:
        assert requests.get(f"{orthanc.base_url}/system").json()["Version"] == VERSIONS[suite]
        report = requests.get(f"{orthanc.base_url}/report").json()
    pins = pinned_versions()
    assert report["python"] == PYTHONS[suite]
    assert report["versions"] == {name: pins[name] for name in report["versions"]}


def test_variables_in_the_configuration_are_expanded(suite: str, script: Path) -> None:
    name = {"Name": "${WARD:-somewhere} and ${NOT_SET:-nowhere}"}
    with RealOrthanc(suite, name, script=script, environment={"WARD": "radiology"}) as orthanc:
        report = requests.get(f"{orthanc.base_url}/report").json()
    assert report["name"] == "radiology and nowhere"


def test_data_survives_stop_kill_and_start(suite: str, script: Path) -> None:
    overrides = {"UserMetadata": {"Note": 1024}, "DicomModalitiesInDatabase": True}
    with RealOrthanc(suite, overrides, script=script) as orthanc:
        url = f"{orthanc.base_url}/modalities/PEER"
        peer = {"AET": "PEER", "Host": "127.0.0.1", "Port": 11112}
        requests.put(url, data=json.dumps(peer)).raise_for_status()
        assert orthanc.stop() == 0
        assert not orthanc.is_running()
        orthanc.start()
        assert requests.get(f"{url}/configuration").json()["AET"] == "PEER"
        orthanc.kill()
        orthanc.start()
        assert requests.get(f"{url}/configuration").json()["AET"] == "PEER"
    assert not orthanc.folder.exists()


def test_an_orthanc_that_cannot_start_says_why(suite: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken_script.py"
    broken.write_text("raise RuntimeError('no worklist today')")
    orthanc = RealOrthanc(suite, script=broken)
    with pytest.raises(AssertionError, match="no worklist today"), orthanc:
        pytest.fail("it started")
    assert not orthanc.is_running()


def test_dicomweb_plugin_can_run_beside_ours(suite: str, script: Path) -> None:
    plugins = ["${ORTHANC_PLUGINS}/libOrthancPython.so", "${ORTHANC_PLUGINS}/libOrthancDicomWeb.so"]
    with RealOrthanc(suite, {"Plugins": plugins}, script=script) as orthanc:
        assert requests.get(f"{orthanc.base_url}/dicom-web/studies").json() == []


def test_merged_replaces_values_and_merges_objects() -> None:
    base = {"Ups": {"Enable": True, "Aet": "A"}, "Plugins": ["a"]}
    overrides = {"Ups": {"Aet": "B"}, "Plugins": ["b"], "Name": "n"}
    assert merged(base, overrides) == {"Ups": {"Enable": True, "Aet": "B"}, "Plugins": ["b"], "Name": "n"}
