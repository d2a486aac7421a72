# SPDX-License-Identifier: AGPL-3.0-or-later
"""The first workitem of README, typed exactly as printed, twice."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid

import pytest
import requests

from tests.support.orthanc import CHECKOUT, RealOrthanc

pytestmark = pytest.mark.one_suite("README starts one version")

README = (CHECKOUT / "README.md").read_text()
EXPECTED = [201, 200, 201, 200, 200, 200, 200]


def code(language: str, containing: str) -> str:
    """The block of code of README that contains a text."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    (block,) = [block for block in blocks if containing in block]
    return str(block)


def typed(script: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-euc", script],
        cwd=CHECKOUT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_commands_of_the_first_workitem_can_be_repeated(
    orthanc: RealOrthanc, path_with_curl: str
) -> None:
    script = code("sh", "Claim it").replace(
        "http://127.0.0.1:8043", f"http://127.0.0.1:{orthanc.ups_http_port}"
    )
    script = script.replace('curl "$S', 'curl -i "$S').replace("$(date +%s)", "${RANDOM}${RANDOM}")
    for _ in range(2):
        output = typed(script, {"PATH": path_with_curl})
        statuses = [int(status) for status in re.findall(r"HTTP/1.1 (\d{3})", output)]
        assert statuses == EXPECTED, output


def test_the_claim_over_dimse_prints_success(suite: str) -> None:
    peers = {"demo-performer": ["DEMO_PERFORMER", "127.0.0.1", 104]}
    with RealOrthanc(suite, {"DicomModalities": peers}) as orthanc:
        uid = f"2.25.{uuid.uuid4().int}"
        created = requests.post(
            f"http://127.0.0.1:{orthanc.ups_http_port}/dicom-web/workitems?workitem={uid}",
            (CHECKOUT / "tools" / "workitem.json").read_bytes(),
            headers={"Content-Type": "application/dicom+json"},
            timeout=30,
        )
        assert created.status_code == 201, created.text
        snippet = code("python", "send_n_action")
        called = orthanc.configuration["DicomAet"]
        snippet = snippet.replace("4243", str(orthanc.ups_dicom_port)).replace('"ORTHANC"', repr(called))
        done = subprocess.run(
            [sys.executable, "-c", snippet, uid], capture_output=True, text=True, timeout=60
        )
        assert done.stdout == f"Change UPS State of {uid}: 0000\n", done.stderr
