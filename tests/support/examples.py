# SPDX-License-Identifier: AGPL-3.0-or-later
"""How many examples a property test tries: few in each run, many in torture."""

from __future__ import annotations

import os
from typing import Final

FACTOR: Final = int(os.environ.get("ORTHANC_UPS_EXAMPLES", "1"))
USUAL: Final = 50


def examples(count: int = USUAL) -> int:
    """Examples of a test that tries ``count`` of them in a usual run; ORTHANC_UPS_EXAMPLES multiplies that."""
    return count * FACTOR
