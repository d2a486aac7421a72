# SPDX-License-Identifier: AGPL-3.0-or-later
"""From version 1.0.0.dev0 to this one in place, and back by export, as docs/deployment.md describes it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import workitems
from tests.support.orthanc import CHECKOUT, RealOrthanc
from tests.support.web_client import WebClient, next_event, state

pytestmark = pytest.mark.torture

LAST_OF_1_0_0_DEV0 = "cad9207~1"  # before the worklist moved to the key-value store


@pytest.fixture(scope="session")
def old_script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin of version 1.0.0.dev0, from the history of this checkout."""
    folder = tmp_path_factory.mktemp("old")
    packed = subprocess.run(
        ["git", "archive", LAST_OF_1_0_0_DEV0, "plugin"], cwd=CHECKOUT, capture_output=True, check=False
    )
    if packed.returncode:
        pytest.skip(f"the history of this checkout does not hold {LAST_OF_1_0_0_DEV0}")
    subprocess.run(["tar", "-x", "-C", folder], input=packed.stdout, check=True)
    return folder / "plugin" / "ups_plugin.py"


def client(orthanc: RealOrthanc) -> WebClient:
    return WebClient(f"http://127.0.0.1:{orthanc.ups_http_port}/dicom-web")


def transfer(action: str, orthanc: RealOrthanc, file: Path) -> None:
    words = [sys.executable, "-m", "tools.transfer", action, orthanc.base_url, str(file)]
    ended = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_an_upgrade_keeps_everything_and_an_export_takes_it_back(
    suite: str, old_script: Path, tmp_path: Path
) -> None:
    file = tmp_path / "worklist.ndjson"
    with RealOrthanc(suite, script=old_script, folder=tmp_path / "upgraded") as orthanc:
        web = client(orthanc)
        scheduled, claimed = web.create(), web.create()
        assert web.post(f"/workitems/{claimed}/subscribers/AI").status_code == 201
        transaction = web.claim(claimed)
        before = {uid: web.retrieve(uid) for uid in (scheduled, claimed)}
        assert orthanc.stop() == 0

    with RealOrthanc(suite, folder=tmp_path / "upgraded") as orthanc:
        web = client(orthanc)
        assert {uid: web.retrieve(uid) for uid in (scheduled, claimed)} == before
        with web.socket("AI") as socket:  # what waited before the upgrade
            states = [next_event(socket)["00741000"]["Value"][0] for _ in range(2)]
        assert states == ["SCHEDULED", "IN PROGRESS"]
        added = web.create()
        transfer("export", orthanc, file)
        assert orthanc.stop() == 0

    with RealOrthanc(suite, script=old_script, folder=tmp_path / "downgraded") as orthanc:
        transfer("import", orthanc, file)
        web = client(orthanc)
        assert {uid: web.retrieve(uid) for uid in (scheduled, claimed)} == before
        assert web.retrieve(added)
        body = workitems.performed()
        assert web.post(f"/workitems/{claimed}?transaction-uid={transaction}", body).status_code == 200
        with web.socket("AI") as socket:
            assert web.put(f"/workitems/{claimed}/state", state("COMPLETED", transaction)).status_code == 200
            assert next_event(socket)["00741000"]["Value"] == ["COMPLETED"]
