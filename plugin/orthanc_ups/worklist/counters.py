# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the plugin counts, for ``/tools/metrics-prometheus`` and the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping


class Counters:
    """Growing numbers by metric name, without the prefix ``ups_``."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, name: str, count: int = 1) -> None:
        """Count something."""
        self._counts[name] += count

    def __getitem__(self, name: str) -> int:
        return self._counts[name]

    def all(self) -> Mapping[str, int]:
        """Every count so far."""
        return dict(self._counts)
