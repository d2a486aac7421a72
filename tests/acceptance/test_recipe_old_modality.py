# SPDX-License-Identifier: AGPL-3.0-or-later
"""docs/recipes/old-modality.md, typed exactly as printed, on a real Orthanc."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from typing import Any

import pytest

from tests.support import dcmtk
from tests.support.orthanc import CHECKOUT, RealOrthanc
from tests.support.recipes import Recipe, with_ports
from tests.support.waiting import wait_until

RECIPE = Recipe("old-modality.md")


@pytest.fixture(scope="module")
def orthanc_overrides() -> dict[str, Any]:
    (configuration,) = map(json.loads, RECIPE.blocks("json"))
    return dict(configuration)


def typed(command: list[str], path: str) -> str:
    done = subprocess.run(
        command, cwd=CHECKOUT, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_from_the_order_to_the_reading_list(orthanc: RealOrthanc, path_with_curl: str) -> None:
    order, find, steps, reading = (with_ports(block, orthanc) for block in RECIPE.blocks("sh"))
    (scanner,) = (with_ports(block, orthanc) for block in RECIPE.blocks("python"))
    typed(["bash", "-euc", order], path_with_curl)

    answers = dcmtk.run("findscu", *shlex.split(find.replace("\\\n", " "))[1:]).stdout
    assert "P4711" in answers and "ACC4711" in answers

    assert typed([sys.executable, "-c", scanner], path_with_curl).split("\n")[:2] == [
        "N-CREATE 0000",
        "N-SET 0000",
    ]

    [step] = json.loads(typed(["bash", "-euc", steps], path_with_curl))["steps"]
    assert (step["status"], step["accession"]) == ("COMPLETED", "ACC4711")
    assert [workitem["state"] for workitem in step["workitems"]] == ["COMPLETED"]
    assert step["patient"]["name"].startswith("Müller^Jörg") or "Müller" in step["patient"]["name"]

    def reading_list() -> list[dict[str, Any]]:
        output = typed(["bash", "-euc", reading], path_with_curl)
        tasks: list[dict[str, Any]] = json.loads(output) if output.strip() else []
        return tasks

    wait_until(lambda: bool(reading_list()), lambda: "the reading task is there")
    [task] = reading_list()
    assert task["00741204"]["Value"] == ["Read: CT thorax"]
    assert task["00100020"]["Value"] == ["P4711"]
    [series] = task["00404021"]["Value"]
    assert len(series["00081199"]["Value"]) == 2
