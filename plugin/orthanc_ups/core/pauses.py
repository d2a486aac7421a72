# SPDX-License-Identifier: AGPL-3.0-or-later
"""How long to wait between attempts at what does not work yet."""

from __future__ import annotations

from collections.abc import Iterator


def growing(first: float, longest: float) -> Iterator[float]:
    """Seconds, without end: each twice the one before, up to ``longest``.

    Delivery has pauses of its own (``Backoff``), which the settings govern and a receiver may shorten.
    """
    pause = first
    while True:
        yield pause
        pause = min(pause * 2, longest)
