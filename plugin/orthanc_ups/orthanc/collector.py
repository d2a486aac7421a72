# SPDX-License-Identifier: AGPL-3.0-or-later
"""Keeps Python's garbage collector out of the way of requests.

Data sets are many small objects without cycles. Reading a page of a worklist therefore starts the collector dozens of
times, and now and then it examines everything that 100,000 workitems have in memory: pauses of more than 0.1 s.
"""

from __future__ import annotations

import gc
from typing import Final

_THRESHOLDS: Final = (50_000, 10, 10)


def settle() -> None:
    """Call once the worklist is loaded: existing objects are never examined again, and later ones less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
