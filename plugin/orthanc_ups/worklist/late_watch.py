# SPDX-License-Identifier: AGPL-3.0-or-later
"""How much work is late, for the overview and the metrics. The larger the worklist, the less often it is computed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

from ..core.date_times import since_epoch
from ..core.lateness import LateKind, LatePolicy
from ..projection.late import LONGEST_IN_PROGRESS, OLDEST_SCHEDULED, LateGroup, late_groups, read_groups
from ..projection.projection import Projection
from ..projection.sparing import Sparing

_FRESH_FOR: Final = 5.0


@dataclass(frozen=True, slots=True)
class LateSummary:
    """What is late. Times are seconds since the epoch.

    Attributes:
        groups: by worklist and scheduled station, the greatest first.
        oldest_scheduled: UID and start of the SCHEDULED workitem with the earliest start, None without any.
        longest_in_progress: UID and time of the claim of the IN PROGRESS workitem that was claimed first.
    """

    groups: tuple[LateGroup, ...] = ()
    oldest_scheduled: tuple[str, float] | None = None
    longest_in_progress: tuple[str, float] | None = None

    @property
    def total(self) -> int:
        """Late workitems."""
        return sum(group.total for group in self.groups)

    def by_kind(self) -> dict[LateKind, int]:
        """Late workitems of each kind; a workitem may be late in several ways."""
        return {kind: sum(group.by_kind[kind] for group in self.groups) for kind in LateKind}

    def by_worklist(self) -> dict[str, int]:
        """Late workitems of each worklist that has any, the greatest first."""
        totals: dict[str, int] = {}
        for group in self.groups:
            totals[group.worklist] = totals.get(group.worklist, 0) + group.total
        return dict(sorted(totals.items(), key=lambda pair: (-pair[1], pair[0])))


class LateWatch:
    """Asks the projection. Lives on the loop."""

    def __init__(self, projection: Projection, policy: LatePolicy, now: Callable[[], float]) -> None:
        self.policy = policy
        self._projection = projection
        self._now = now
        self._summary = Sparing(self._read, _FRESH_FOR, now)

    async def summary(self) -> LateSummary:
        """What is late. Some seconds old; up to ten minutes with a million workitems. Raises as ``latest``."""
        return await self._summary.get()

    async def latest(self) -> LateSummary:
        """What is late now. Raises ProjectionBroken, UpsError."""
        return await self._read()

    async def _read(self) -> LateSummary:
        groups = await self._projection.read(late_groups(self.policy, self._now()))
        oldest = cast("list[tuple[str, int]]", await self._projection.read(OLDEST_SCHEDULED))
        longest: list[Any] = await self._projection.read(LONGEST_IN_PROGRESS)
        return LateSummary(
            tuple(read_groups(groups)),
            (oldest[0][0], since_epoch(oldest[0][1])) if oldest else None,
            (longest[0][0], longest[0][1]) if longest and math.isfinite(longest[0][1]) else None,
        )
