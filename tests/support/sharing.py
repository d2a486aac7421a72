# SPDX-License-Identifier: AGPL-3.0-or-later
"""How two processes share the tests: one has all that drive a real Orthanc, the other does what needs none."""

from __future__ import annotations

import re
from typing import Final

from xdist.scheduler import LoadScopeScheduling

from tests.support.orthanc import SUITES

_REAL: Final = re.compile(rf"tests/(acceptance|browser|torture)/|\b({'|'.join(SUITES)})\b")


class RealOnesTogether(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Two Orthancs under load at once would only disturb each other, and a change of process would start more."""

    def _split_scope(self, nodeid: str) -> str:
        return "real" if _REAL.search(nodeid) else nodeid
