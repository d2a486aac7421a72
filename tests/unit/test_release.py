# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a release is made of: one version, pinned and hashed dependencies, the same bytes from the same files."""

from __future__ import annotations

import os
import re
import tomllib
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from orthanc_ups import __version__
from orthanc_ups.orthanc.dependencies import PACKAGES
from tests.unit.test_architecture import CHECKOUT
from tools import dist, lock

PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
LICENCES = (CHECKOUT / "docs" / "licences.md").read_text()


def test_the_version_is_written_in_one_file() -> None:
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert __version__ == dist.VERSION


def test_the_changelog_speaks_of_what_is_coming_or_of_this_version() -> None:
    """Keep a Changelog: newest first, each with its date."""
    heads = re.findall(r"^## (.+)$", (CHECKOUT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heads[0] == "[Unreleased]" or heads[0].startswith(f"[{__version__}] - ")
    assert all(re.fullmatch(r"\[[\w.]+\] - \d{4}-\d\d-\d\d", head) for head in heads[1:])


def test_the_lock_is_that_of_the_requirements() -> None:
    """If this fails: ``make lock``."""
    locked = re.findall(r"^(\w.*?)(?: \\)?$", lock.LOCK.read_text(), re.MULTILINE)
    assert locked == lock.lines()


def test_every_locked_requirement_has_a_hash() -> None:
    assert [
        block for block in dist.locked_blocks() if not re.search(r"--hash=sha256:[0-9a-f]{64}", block)
    ] == []


@pytest.mark.parametrize("name", PACKAGES)
def test_the_wheel_asks_for_what_is_pinned(name: str) -> None:
    requirements = {
        requirement.name: requirement for requirement in map(Requirement, PROJECT["project"]["dependencies"])
    }
    pins = {pin.name: pin for pin in map(Requirement, lock.lines())}
    (version,) = pins[name].specifier
    assert requirements[name].specifier.contains(version.version)


def test_markers_are_decided_for_the_python_that_is_aimed_at() -> None:
    """Pip would decide them for the Python that runs it."""
    assert not any("typing_extensions" in requirement for requirement in lock.requirements("3.14"))
    assert any("typing_extensions" in requirement for requirement in lock.requirements("3.11"))


def test_an_archive_does_not_depend_on_times_and_modes_of_this_host(tmp_path: Path) -> None:
    archives = []
    for order, mode in ((("b", "a"), 0o600), (("a", "b"), 0o755)):
        root = tmp_path / str(mode) / "release-1"
        root.mkdir(parents=True)
        for name in order:
            (root / name).write_text(name)
            (root / name).chmod(mode)
            os.utime(root / name, (mode, mode))
        archives.append(dist.tarball(root))
    assert archives[0] == archives[1]


@pytest.mark.parametrize("pin", lock.lines())
def test_the_licence_of_each_dependency_stands_in_the_table(pin: str) -> None:
    """Its licence allows to ship it with a work under AGPL-3.0-or-later."""
    requirement = Requirement(pin)
    row = re.search(rf"^\| {re.escape(requirement.name)} \| (.+?) \|", LICENCES, re.MULTILINE)
    assert row, f"{requirement.name} is missing in docs/licences.md"
    if requirement.marker is None or requirement.marker.evaluate():
        assert row[1] == dist.licence_of(metadata(requirement.name))  # type: ignore[arg-type]


def test_the_list_of_parts_names_each_with_its_version_and_hash() -> None:
    """CycloneDX 1.5."""
    parts = [(Path(), metadata(name)) for name in PACKAGES]
    bill = dist.bill_of_materials(parts)  # type: ignore[arg-type]
    assert [component["name"] for component in bill["components"]] == list(PACKAGES)
    assert all(component["version"] and component["properties"] for component in bill["components"])
    assert bill["metadata"]["component"]["version"] == __version__


def _steps(job: dict[str, Any]) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = job["steps"]
    return steps


def test_the_workflow_is_yaml_and_runs_what_is_there() -> None:
    """A colon that ends a word of a command starts a mapping: ``--only-binary=:all: x`` needs a block."""
    workflow = yaml.safe_load((CHECKOUT / ".github" / "workflows" / "ci.yml").read_text())
    commands = [step["run"] for job in workflow["jobs"].values() for step in _steps(job) if "run" in step]
    assert "bash .ci/run" in commands
    targets = set(re.findall(r"^([a-z]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    called = set(re.findall(r"\bmake ([a-z]+)\b", "\n".join(commands)))
    assert called and called <= targets
    tools = re.findall(r"-m (tools\.\w+)", "\n".join(commands))
    assert tools and all((CHECKOUT / f"{name.replace('.', '/')}.py").exists() for name in tools)


def test_what_calls_native_sh_in_the_workflow_runs_in_a_debian_container() -> None:
    """``docker/native.sh`` takes mirror and keys of the host's apt: on Ubuntu there are none of Debian."""
    workflow = yaml.safe_load((CHECKOUT / ".github" / "workflows" / "ci.yml").read_text())
    for name, job in workflow["jobs"].items():
        commands = " ".join(step.get("run", "") for step in _steps(job))
        if re.search(r"\.ci/run|tools\.|make (test|dist)", commands):
            assert re.fullmatch(r"(debian:|python:.+-slim-)trixie", job["container"]), name


@pytest.mark.parametrize(
    "file", sorted((CHECKOUT / "docker").glob("compose*.yml")), ids=lambda file: file.name
)
def test_containers_have_no_more_rights_than_they_need(file: Path) -> None:
    services = yaml.safe_load(file.read_text())["services"]
    ours = [service for service in services.values() if "build" in service]
    for service in ours:
        assert service["read_only"] and service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
