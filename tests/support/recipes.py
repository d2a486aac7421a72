# SPDX-License-Identifier: AGPL-3.0-or-later
"""Runs the configurations, programs and commands of docs/recipes with the ports and paths of a test."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.orthanc import CHECKOUT, PLUGIN, RealOrthanc

RECIPES = CHECKOUT / "docs" / "recipes"


class Recipe:
    """A page of docs/recipes."""

    def __init__(self, name: str) -> None:
        self._text = (RECIPES / name).read_text()

    def blocks(self, language: str) -> list[str]:
        """The fenced blocks in a language, in order."""
        return re.findall(rf"^```{language}\n(.*?)^```$", self._text, re.MULTILINE | re.DOTALL)

    def configuration(self) -> dict[str, Any]:
        """Its orthanc.json, without the paths of plugins and script."""
        content: dict[str, Any] = json.loads(self.blocks("json")[0])
        plugins = content.get("Plugins", [])
        content["Plugins"] = [f"${{ORTHANC_PLUGINS}}/{Path(plugin).name}" for plugin in plugins]
        content["PythonScript"] = str(PLUGIN)
        return content

    def program(self, orthanc: RealOrthanc, number: int = 0) -> Path:
        """One of its Python programs as a file, with the ports of an Orthanc."""
        file = orthanc.folder / f"program{number}.py"
        file.write_text(with_ports(self.blocks("python")[number], orthanc))
        return file


def with_ports(text: str, orthanc: RealOrthanc) -> str:
    """The text with the ports of a test in place of the usual ones."""
    ports = {
        "8042": orthanc.http_port,
        "8043": orthanc.ups_http_port,
        "4242": orthanc.dicom_port,
        "4243": orthanc.ups_dicom_port,
    }
    return re.sub(r"\b(?:8042|8043|4242|4243)\b", lambda port: str(ports[port[0]]), text)


def begun(program: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a program."""
    return subprocess.Popen(
        [sys.executable, str(program), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(program: Path, *arguments: str, code: int = 0) -> str:
    """The output of a program. Raises AssertionError with it if the exit code differs."""
    process = begun(program, *arguments)
    try:
        output, _ = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        raise AssertionError(f"{program.name} does not end:\n{output}") from None
    assert process.returncode == code, output
    return output
