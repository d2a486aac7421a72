# SPDX-License-Identifier: AGPL-3.0-or-later
"""The parts of the worklist, as they are shared among themselves."""

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
    """What each part of a worklist may use.

    Attributes:
        counters: counters by metric name, without the prefix ``ups_`` and the suffix ``_total``.
        now: the present moment, in the zone to which date-times without offset belong.
        sleep: waits for a number of seconds.
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
