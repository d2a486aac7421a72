# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the workers of all endpoints share."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..settings import Settings
from .dead_letters import DeadLetters
from .port import BurstSource, Clock, OnDelivered
from .tally import Counts


@dataclass(slots=True)
class DeliveryState:
    """See above; ``observers`` are told of each delivered event."""

    settings: Settings
    clock: Clock
    source: BurstSource
    dead: DeadLetters
    counts: Counts
    observers: list[OnDelivered] = field(default_factory=list)
