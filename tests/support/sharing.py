# SPDX-License-Identifier: AGPL-3.0-or-later
"""How the processes of one run share the tests.

Whoever drives a real Orthanc waits most of the time: for its start, its stop, its answers. So two processes do
that, each with an Orthanc of its own, while a third computes all that needs none; whoever is done first takes what
is left.
"""

from __future__ import annotations

import re
from typing import Any, Final

from xdist.scheduler import LoadScopeScheduling

from tests.support.orthanc import SUITES

_SUITE: Final = re.compile(rf"\b({'|'.join(SUITES)})\b")
_ALWAYS_REAL: Final = re.compile(r"tests/(acceptance|browser|torture)/")


def work_unit(nodeid: str) -> str:
    """What is run by one process in one go: the tests of a file, on one suite of Orthanc if they need one."""
    file, _, _ = nodeid.partition("::")
    suite = _SUITE.search(nodeid)
    return f"{file} on {suite[0]}" if suite else file


def is_real(unit: str) -> bool:
    """Whether a work unit drives a real Orthanc."""
    return bool(_SUITE.search(unit) or _ALWAYS_REAL.match(unit))


class RealOnesBesideOthers(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """All processes but the last prefer units on a real Orthanc, the last one those that need none."""

    def _split_scope(self, nodeid: str) -> str:
        return work_unit(nodeid)

    def _assign_work_unit(self, node: Any) -> None:
        wants_real = node is not self.nodes[-1]
        preferred = next((unit for unit in self.workqueue if is_real(unit) is wants_real), None)
        if preferred is not None:
            self.workqueue.move_to_end(preferred, last=False)
        super()._assign_work_unit(node)
