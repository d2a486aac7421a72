# SPDX-License-Identifier: AGPL-3.0-or-later
"""Keeps Python's garbage collector out of the way of requests.

Data sets are many small objects without cycles, so that reading a page of a worklist starts the collector dozens of
times, and now and then it looks at everything that 100,000 workitems leave in memory: pauses of more than 0.1 s.
"""

from __future__ import annotations

import gc
from typing import Final

_THRESHOLDS: Final = (50_000, 10, 10)


def settle() -> None:
    """Call once all is loaded: that is never looked at again, and what comes later less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
