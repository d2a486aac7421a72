# SPDX-License-Identifier: AGPL-3.0-or-later
"""Processes of one test run share files and ports so that none disturbs another."""

from __future__ import annotations

import pytest

from tests.support.orthanc import CHECKOUT
from tests.support.ports import free_port
from tests.support.sharing import LONG, is_real, seconds, work_unit


@pytest.mark.parametrize(
    ("test", "unit", "real"),
    [
        ("tests/unit/core/test_pauses.py::test_growing", "tests/unit/core/test_pauses.py", False),
        ("tests/contract/test_entries.py::test_load[memory]", "tests/contract/test_entries.py", False),
        ("tests/contract/test_entries.py::test_load[forky]", "tests/contract/test_entries.py on forky", True),
        ("tests/acceptance/test_demo.py::test_it[trixie-1]", "tests/acceptance/test_demo.py on trixie", True),
        ("tests/acceptance/test_demo.py::test_it[lua]", "tests/acceptance/test_demo.py", True),
    ],
)
def test_the_tests_of_a_file_on_one_suite_stay_together(test: str, unit: str, real: bool) -> None:
    """The Orthanc of a module is started once, by one process."""
    assert (work_unit(test), is_real(unit)) == (unit, real)


def test_what_lasts_long_is_begun_early() -> None:
    """Else one process works alone at the end of a run."""
    history, demo = (f"tests/acceptance/test_{name}.py on forky" for name in ("cluster_history", "demo"))
    assert seconds(history, 1) > seconds(demo, 1) > seconds("tests/unit/core/test_pauses.py", 40)
    assert all((CHECKOUT / file).exists() for file in LONG)


def test_two_processes_never_hand_out_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "3")
    remainders = []
    for worker in ("gw0", "gw1", "gw2"):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
        ports = {free_port() for _ in range(20)}
        assert len(ports) == 20
        (remainder,) = {port % 3 for port in ports}
        remainders.append(remainder)
    assert sorted(remainders) == [0, 1, 2]
