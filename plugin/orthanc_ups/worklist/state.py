# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the parts of one worklist share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from ..core.ae_titles import AeTitles
from ..delivery.outbox import Delivery
from ..projection.projection import Projection
from ..settings import Settings
from ..store.writer import Writer
from .locks import CommandLocks
from .order import Order
from .subscriptions import Subscriptions
from .workitem_store import WorkitemStore
from .worklist_entry import WorklistEntry


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


@dataclass(frozen=True, slots=True)
class WorklistState:
    """One worklist from inside.

    Attributes:
        now: the present moment, in the zone to which date-times without offset belong.
        sleep: waits for some seconds.
    """

    settings: Settings
    writer: Writer
    projection: Projection
    workitems: WorkitemStore
    subscriptions: Subscriptions
    worklist_entry: WorklistEntry
    order: Order
    locks: CommandLocks
    delivery: Delivery
    titles: AeTitles
    counters: Counters
    now: Callable[[], datetime]
    sleep: Callable[[float], Awaitable[None]]
