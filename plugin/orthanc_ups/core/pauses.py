# SPDX-License-Identifier: AGPL-3.0-or-later
"""Pauses between attempts at something that fails."""

from __future__ import annotations

from collections.abc import Iterator


def growing(first: float, longest: float) -> Iterator[float]:
    """An endless series of pauses in seconds: each is twice the last, up to ``longest``.

    Delivery has its own (``delivery/backoff.py``), which settings govern and a receiver may shorten.
    """
    pause = first
    while True:
        yield pause
        pause = min(pause * 2, longest)
