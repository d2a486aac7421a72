# SPDX-License-Identifier: AGPL-3.0-or-later
"""What every test has: one profile of Hypothesis, and a real Orthanc of each suite for those that ask for one."""

import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings

from orthanc_ups.projection.projection import Projection
from orthanc_ups.store.copy import EntriesCopy
from tests.support.examples import examples
from tests.support.orthanc import PYTHON_PLUGIN, SUITES, RealOrthanc, merged
from tests.support.postgresql import INDEX_PLUGIN, PostgreSql
from tests.support.sharing import RealOnesBesideOthers

POSTGRESQL = "PostgreSQL"

# How long an example takes says more about the machine than about the code. CI repeats the same examples each time.
settings.register_profile(
    "tests", max_examples=examples(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("ci", settings.get_profile("tests"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "tests")


# What ``Ups.Store`` is without the setting.
DEFAULT_STORES: Final = {"forky": "key-value", "trixie": "metadata"}


def _wanted_suites() -> list[str]:
    return os.environ.get("ORTHANC_UPS_SUITES", " ".join(SUITES)).replace(",", " ").split()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever runs on a suite is marked `real`; what one suite or store can show is `torture` on all others."""
    first = _wanted_suites()[0]
    for item in items:
        if "suite" not in getattr(item, "fixturenames", ()):
            continue
        item.add_marker("real")
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        chosen = parameters.get("suite", first)
        if chosen != first and item.get_closest_marker("one_suite"):
            item.add_marker("torture")
        default = DEFAULT_STORES[chosen]
        if parameters.get("store", default) != default and item.get_closest_marker("one_store"):
            item.add_marker("torture")
        if parameters.get("index") == POSTGRESQL and (
            chosen != first or not item.get_closest_marker("postgresql")
        ):
            item.add_marker("torture")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> RealOnesBesideOthers:
    """With `--numprocesses 3` two processes drive a real Orthanc each while the third computes."""
    return RealOnesBesideOthers(config, log)


@pytest.fixture(scope="session", params=_wanted_suites())
def suite(request: pytest.FixtureRequest) -> str:
    """Debian suite of the real Orthanc: each of ORTHANC_UPS_SUITES (default: forky and trixie) in turn."""
    name: str = request.param
    return name


@pytest.fixture(scope="session", params=["key-value", "metadata"])
def store(request: pytest.FixtureRequest, suite: str) -> str:
    """Where the worklist is kept (``Ups.Store``): each that the Orthanc of the suite has."""
    name: str = request.param
    if name == "key-value" and suite == "trixie":
        pytest.skip("Orthanc 1.12.7 has no key-value stores")
    return name


@pytest.fixture(scope="module")
def orthanc_overrides() -> dict[str, Any]:
    """Settings for `orthanc` beside the base configuration; a module may define its own."""
    return {}


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSql]:
    """A PostgreSQL server for all modules that want one."""
    with PostgreSql() as server:
        yield server


@pytest.fixture(scope="module", params=["SQLite", POSTGRESQL])
def index(request: pytest.FixtureRequest) -> str:
    """What Orthanc's index is kept in.

    PostgreSQL is `torture` but for modules that are marked `postgresql`, on the first suite.
    """
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def orthanc(
    suite: str, index: str, orthanc_overrides: dict[str, Any], request: pytest.FixtureRequest
) -> Iterator[RealOrthanc]:
    """A running Orthanc with the plugin, shared by the tests of a module."""
    environment: dict[str, str] = {}
    overrides = orthanc_overrides
    if index == POSTGRESQL:
        if orthanc_overrides.get("Ups", {}).get("Store") == "key-value":
            pytest.skip("key-value stores are in SQLite only")
        server: PostgreSql = request.getfixturevalue("postgresql")
        environment = server.environment()
        overrides = merged(server.new_index(), overrides)
        overrides["Plugins"] = [INDEX_PLUGIN, *orthanc_overrides.get("Plugins", [PYTHON_PLUGIN])]
    with RealOrthanc(suite, overrides, environment=environment) as running:
        yield running


@pytest.fixture
def path_with_curl(tmp_path: Path) -> str:
    """A PATH whose curl is ours, as a fresh machine has none."""
    curl = tmp_path / "curl"
    curl.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tests.support.curl "$@"\n')
    curl.chmod(0o755)
    return f"{tmp_path}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture(autouse=True)
def closed_databases(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Closes what a test has opened: Python 3.13 and later report a database that is left to the garbage collector.

    A test that lets a process crash leaves its databases open, as the crash does.
    """
    opened: list[Projection | EntriesCopy] = []
    open_projection, open_copy = Projection.open, EntriesCopy.__init__

    def noted_projection(*path: Any, **more: Any) -> Projection:
        projection = open_projection(*path, **more)
        opened.append(projection)
        return projection

    def noted_copy(self: EntriesCopy, path: str) -> None:
        opened.append(self)
        open_copy(self, path)

    monkeypatch.setattr(Projection, "open", noted_projection)
    monkeypatch.setattr(EntriesCopy, "__init__", noted_copy)
    yield
    for database in opened:
        database.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows the end of the log of each Orthanc that it used."""
    report = yield
    if report.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            if isinstance(value, RealOrthanc):
                report.sections.append((f"end of the log of {name}", value.log_tail()))
    return report
