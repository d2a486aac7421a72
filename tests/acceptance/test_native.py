# SPDX-License-Identifier: AGPL-3.0-or-later
"""docker/native.sh keeps the promises of its header."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import requests

from tests.support.orthanc import NATIVE, RealOrthanc, fetch


def native(*words: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run docker/native.sh to its end."""
    command, environment = [str(NATIVE), *words], {**os.environ, **(environment or {})}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture
def idle_script(tmp_path: Path) -> Path:
    file = tmp_path / "idle_script.py"
    file.write_text("import orthanc\n")
    return file


def test_several_files_are_one_configuration(suite: str, tmp_path: Path, idle_script: Path) -> None:
    extra = tmp_path / "extra.json"
    extra.write_text(json.dumps({"Dictionary": {}, "LimitFindResults": 7, "OverwriteInstances": False}))
    whole = RealOrthanc(suite, script=idle_script, options=(str(extra),))
    del whole.configuration["OverwriteInstances"]
    with whole as orthanc:
        system = requests.get(f"{orthanc.base_url}/system").json()
        assert orthanc.stop() == 0
    assert system["DicomPort"] == orthanc.dicom_port
    assert system["OverwriteInstances"] is False


def test_exit_code_is_that_of_orthanc(suite: str, tmp_path: Path) -> None:
    fetch(suite)
    broken = tmp_path / "broken.json"
    broken.write_text("{ this is not JSON }")
    ended = native("run", "--suite", suite, str(broken))
    assert ended.returncode == 255
    assert "broken.json" in ended.stderr


def test_paths_can_be_evaluated_by_a_shell(suite: str) -> None:
    fetch(suite)
    show = f'eval "$({NATIVE} paths --suite {suite})" && ls "$ORTHANC_PLUGINS" && $ORTHANC_LOADER "$ORTHANC_PYTHON" -V'
    ended = subprocess.run(["bash", "-c", show], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "libOrthancPython.so" in ended.stdout
    assert "libOrthancDicomWeb.so" in ended.stdout


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["run", "--suite", "no such suite"], "code name"),
        (["run", "--suite"], "--suite needs a name"),
        (["walk"], "docker/native.sh run"),
        ([], "docker/native.sh run"),
    ],
)
def test_wrong_words_are_explained(words: list[str], reason: str) -> None:
    ended = native(*words)
    assert ended.returncode != 0
    assert reason in ended.stderr


def test_run_without_a_configuration_is_explained(suite: str) -> None:
    fetch(suite)
    ended = native("run", "--suite", suite)
    assert ended.returncode == 1
    assert "needs a configuration file" in ended.stderr


def test_a_mirror_that_does_not_answer_leaves_nothing_behind(tmp_path: Path) -> None:
    nowhere = {"ORTHANC_UPS_CACHE": str(tmp_path), "DEBIAN_MIRROR": f"file://{tmp_path}/nothing"}
    ended = native("fetch", environment=nowhere)
    assert ended.returncode == 1
    assert "cannot read the package lists of forky" in ended.stderr
    assert not list(tmp_path.rglob("complete"))


@pytest.mark.torture
def test_a_fetch_cut_off_is_done_again(tmp_path: Path) -> None:
    cache = {"ORTHANC_UPS_CACHE": str(tmp_path)}
    process = subprocess.Popen([NATIVE, "fetch"], env={**os.environ, **cache}, start_new_session=True)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=5)
    os.killpg(process.pid, 9)
    process.wait()
    assert not list(tmp_path.rglob("complete"))
    assert native("fetch", environment=cache).returncode == 0
    assert native("python", "-c", "import aiohttp", environment=cache).returncode == 0
