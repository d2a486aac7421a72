# SPDX-License-Identifier: AGPL-3.0-or-later
"""How the processes of a test run share the tests.

Whoever drives a real Orthanc waits most of the time: for its start, its stop, its answers. So two processes do
that, each with an Orthanc of its own, while a third computes all that needs none; whoever is done first takes what
is left. What lasts longest comes first, so that all are done at about the same time.
"""

from __future__ import annotations

import re
from typing import Any, Final

from xdist.scheduler import LoadScopeScheduling

from tests.support.orthanc import SUITES

_SUITE: Final = re.compile(rf"\b({'|'.join(SUITES)})\b")
_ALWAYS_REAL: Final = re.compile(r"tests/(acceptance|browser|torture)/")

# Rough seconds of files with few but long tests.
LONG: Final = {
    "tests/acceptance/test_cluster.py": 60,
    "tests/acceptance/test_cluster_history.py": 60,
    "tests/acceptance/test_reset.py": 20,
    "tests/acceptance/test_routers.py": 40,
    "tests/acceptance/test_rules_in_every_form.py": 60,
    "tests/acceptance/test_store_choice.py": 60,
    "tests/acceptance/test_transfer.py": 30,
    "tests/browser/test_for_everyone.py": 60,
    "tests/browser/test_many_workitems.py": 40,
    "tests/browser/test_narrow_screens.py": 60,
    "tests/browser/test_screenshots.py": 40,
    "tests/torture/test_away.py": 30,
    "tests/torture/test_fuzz.py": 40,
    "tests/torture/test_kill.py": 40,
    "tests/torture/test_other_faults.py": 60,
    "tests/torture/test_stop.py": 20,
    "tests/torture/test_store_faults.py": 60,
    "tests/unit/projection/test_queries.py": 25,
    "tests/unit/projection/test_reader.py": 20,
    "tests/unit/worklist/test_bounds.py": 15,
    "tests/unit/worklist/test_index_mark.py": 20,
    "tests/unit/worklist/test_model.py": 30,
    "tests/unit/worklist/test_store_failures.py": 15,
}
_SECONDS_OF_A_REAL_TEST: Final = 1.5
_SECONDS_OF_A_TEST: Final = 0.02


def work_unit(nodeid: str) -> str:
    """The tests that one process runs together: those of a file, on one suite of Orthanc if they need one."""
    file, _, _ = nodeid.partition("::")
    suite = _SUITE.search(nodeid)
    return f"{file} on {suite[0]}" if suite else file


def is_real(unit: str) -> bool:
    """Whether a work unit drives a real Orthanc."""
    return bool(_SUITE.search(unit) or _ALWAYS_REAL.match(unit))


def seconds(unit: str, tests: int) -> float:
    """Roughly how long a work unit of a number of tests takes."""
    usual = tests * (_SECONDS_OF_A_REAL_TEST if is_real(unit) else _SECONDS_OF_A_TEST)
    file = unit.partition(" on ")[0]
    in_contract = file.startswith("tests/contract/")  # there a test is a few requests
    return max(LONG.get(file, 0.0), usual / 10 if in_contract else usual)


class RealOnesBesideOthers(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """All processes but the last prefer units on a real Orthanc; the last prefers units without one."""

    def _split_scope(self, nodeid: str) -> str:
        return work_unit(nodeid)

    def _assign_work_unit(self, node: Any) -> None:
        wants_real = node is not self.nodes[-1]
        longest = max(
            self.workqueue,
            key=lambda unit: (is_real(unit) is wants_real, seconds(unit, len(self.workqueue[unit]))),
        )
        self.workqueue.move_to_end(longest, last=False)
        super()._assign_work_unit(node)
