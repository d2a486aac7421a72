# SPDX-License-Identifier: AGPL-3.0-or-later
"""A release in a real Orthanc: the archive unpacked beside it, the wheel installed for it, and neither of them."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import requests

from tests.support.orthanc import CHECKOUT, NATIVE, PLUGIN, RealOrthanc


def test_a_start_without_dependencies_says_in_one_line_what_is_missing(suite: str, tmp_path: Path) -> None:
    orthanc = RealOrthanc(suite, folder=tmp_path, environment={"ORTHANC_UPS_SITE": ""})
    with pytest.raises(AssertionError), orthanc:
        pytest.fail("it started")
    (line,) = [line for line in orthanc.log.read_text().splitlines() if "packages are missing" in line]
    assert "aiohttp, defusedxml, msgspec, orjson, pydicom, pynetdicom" in line
    assert f"-m pip install --requirement {CHECKOUT / 'requirements.txt'}" in line


@pytest.mark.torture
def test_the_orthanc_of_debian_12_says_in_one_line_that_it_is_too_old(tmp_path: Path) -> None:
    """Orthanc 1.10.1 with Python plugin 4.0."""
    orthanc = RealOrthanc("bookworm", folder=tmp_path)
    with pytest.raises(AssertionError), orthanc:
        pytest.fail("it started")
    (line,) = [line for line in orthanc.log.read_text().splitlines() if "too old" in line]
    assert "SetRootUri2" in line
    assert "Traceback" not in orthanc.log.read_text()


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make dist` leaves."""
    folder = tmp_path_factory.mktemp("dist")
    build(folder)
    return folder


def build(folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "tools.dist", "--into", folder], cwd=CHECKOUT, check=True)


def contents(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


@pytest.mark.torture
def test_two_builds_are_equal_to_the_byte(built: Path, tmp_path: Path) -> None:
    mask = os.umask(0o077)
    try:
        build(tmp_path)
    finally:
        os.umask(mask)
    assert contents(built) == contents(tmp_path)
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=built, check=True)


@pytest.mark.torture
def test_the_archive_is_all_that_an_orthanc_needs(suite: str, built: Path, tmp_path: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    (release,) = tmp_path.iterdir()
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=release, check=True)
    starts(suite, release / "plugin" / "ups_plugin.py", "")


@pytest.mark.torture
def test_the_wheel_is_installed_by_pip(suite: str, built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    shown = subprocess.run(
        ["bash", "-c", f'eval "$({NATIVE} paths --suite {suite})" && echo "$ORTHANC_PIP"'],
        check=True,
        capture_output=True,
        text=True,
    )
    pip = [str(NATIVE), "python", "--suite", suite, shown.stdout.strip()]
    subprocess.run([*pip, "install", "--quiet", "--target", tmp_path, wheel], check=True)
    starts(suite, tmp_path / "ups_plugin.py", str(tmp_path))


def starts(suite: str, script: Path, site: str) -> None:
    """The plugin answers; Python finds nothing but what stands in ``site``."""
    assert script != PLUGIN
    with RealOrthanc(suite, script=script, environment={"ORTHANC_UPS_SITE": site}) as orthanc:
        answer = requests.get(f"http://127.0.0.1:{orthanc.ups_http_port}/ups/health", timeout=60)
        assert answer.json()["State"] in ("starting", "open")
