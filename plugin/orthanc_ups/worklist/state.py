# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the parts of the worklist share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from ..core.ae_titles import AeTitles
from ..delivery.outbox import Delivery
from ..projection.projection import Projection
from ..settings import Settings
from ..store.writer import Writer
from .locks import CommandLocks
from .order import Order, WorklistEntry
from .overflows import Overflows
from .subscriptions import Subscriptions
from .workitem_store import WorkitemStore


@dataclass(frozen=True, slots=True)
class WorklistState:
    """The parts of one worklist, for each other.

    Attributes:
        counters: growing numbers by metric name, without the prefix ``ups_`` and the ending ``_total``.
        now: the present moment, in the zone to which date-times without offset belong.
        sleep: waits for some seconds.
    """

    settings: Settings
    writer: Writer
    projection: Projection
    workitems: WorkitemStore
    subscriptions: Subscriptions
    overflows: Overflows
    worklist_entry: WorklistEntry
    order: Order
    locks: CommandLocks
    delivery: Delivery
    titles: AeTitles
    counters: Counter[str]
    now: Callable[[], datetime]
    sleep: Callable[[float], Awaitable[None]]
