# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which workitems are late or stuck, and why: the only rule, for list, counts and metrics.

``projection/late.py`` has the same rule in SQL.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from . import tags
from .dataset import plain, text, value
from .date_times import Zone, moment, since_epoch, zone
from .states import State
from .workitem import Workitem, claim_of


class LateKind(Enum):
    """Why a workitem is late."""

    START = "start"
    """SCHEDULED, and its start (0040,4005) has passed for longer than the grace."""
    INPUTS = "inputs"
    """SCHEDULED, its start has passed, and its inputs (0040,4041) are INCOMPLETE."""
    COMPLETION = "completion"
    """IN PROGRESS past its expected completion (0040,4011)."""
    EXPIRATION = "expiration"
    """Not final past its expiration (0040,4008)."""
    SILENT = "silent"
    """IN PROGRESS, without any change by its performer for too long."""


@dataclass(frozen=True, slots=True)
class Grace:
    """Workitems of a label (and worklist, unless ``""``) are late ``seconds`` after their start."""

    label: str
    worklist: str
    seconds: float


@dataclass(frozen=True, slots=True)
class LatePolicy:
    """When work is late.

    Attributes:
        grace: seconds after the scheduled start.
        graces: other periods for certain labels and worklists; the first that fits applies.
        silence: seconds without any change by the performer; 0 for never.
    """

    grace: float = 900.0
    silence: float = 4 * 3600.0
    graces: tuple[Grace, ...] = ()

    def grace_of(self, label: str, worklist: str) -> float:
        """Seconds after its start from which such a workitem is late."""
        graces = (grace for grace in self.graces if grace.label == label and grace.worklist in ("", worklist))
        return next((grace.seconds for grace in graces), self.grace)


def late_kinds(workitem: Workitem, policy: LatePolicy, now: float, local: Zone) -> tuple[LateKind, ...]:
    """Why a workitem is late ``now`` (seconds since the epoch); empty if it is not.

    ``local`` is the zone of date-times without offset.
    """
    moments = _Moments(workitem, local)
    if workitem.state is State.SCHEDULED:
        kinds = _scheduled(workitem, policy, now, moments)
    elif workitem.state is State.IN_PROGRESS:
        kinds = _in_progress(workitem, policy, now, moments)
    else:
        kinds = set()
    return tuple(kind for kind in LateKind if kind in kinds)


class _Moments:
    """Date-times of a workitem in seconds since the epoch."""

    def __init__(self, workitem: Workitem, local: Zone) -> None:
        self._attributes = workitem.attributes
        offset = zone(text(self._attributes, tags.TIMEZONE_OFFSET))
        self._zone = local if offset is None else offset

    def of(self, tag: str) -> float | None:
        at = moment("DT", value(self._attributes, tag), self._zone)
        return None if at is None else since_epoch(at)

    def has_passed(self, tag: str, now: float) -> bool:
        at = self.of(tag)
        return at is not None and at < now


def _scheduled(workitem: Workitem, policy: LatePolicy, now: float, moments: _Moments) -> set[LateKind]:
    start, content = moments.of(tags.START), workitem.attributes
    if start is None or start >= now:
        return set()
    grace = policy.grace_of(plain(value(content, tags.LABEL)), plain(value(content, tags.WORKLIST_LABEL)))
    kinds = {
        LateKind.START: start < now - grace,
        LateKind.INPUTS: plain(value(content, tags.READINESS)) == "INCOMPLETE",
        LateKind.EXPIRATION: moments.has_passed(tags.EXPIRATION, now),
    }
    return {kind for kind, holds in kinds.items() if holds}


def _in_progress(workitem: Workitem, policy: LatePolicy, now: float, moments: _Moments) -> set[LateKind]:
    claim = claim_of(workitem)
    kinds = {
        LateKind.COMPLETION: moments.has_passed(tags.EXPECTED_COMPLETION, now),
        LateKind.EXPIRATION: moments.has_passed(tags.EXPIRATION, now),
        LateKind.SILENT: policy.silence > 0 and claim is not None and claim.heard < now - policy.silence,
    }
    return {kind for kind, holds in kinds.items() if holds}
