# SPDX-License-Identifier: AGPL-3.0-or-later
"""Where the metrics of a running service come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ..core.workitem import Subscription
from ..delivery.line import made_at
from ..delivery.outbox import Delivery
from ..delivery.worker import Worker
from ..service import UpsService
from ..worklist.ledger import Ledger
from .metrics import Sources


@dataclass(frozen=True, slots=True)
class Fare:
    """How an endpoint fares: as much of it as the metrics need (``metrics.Report``)."""

    pending: int
    oldest_at: float | None
    retry_at: float | None
    dead_letters: int
    latency_median: float | None
    latency_p95: float | None


def sources(service: UpsService, meters: Mapping[str, Callable[[], float]]) -> Sources:
    """All sources. ``meters`` are those of the wires; the service has its own."""
    own: dict[str, Callable[[], float]] = {
        "ups_commands_in_flight": lambda: service.in_flight,
        "ups_store_silent": lambda: service.store_is_silent,
        "ups_projection_broken": lambda: service.shadow.broken,
    }
    return Sources(
        counters=service.counters.all,
        deliveries=service.delivery.counts.all,
        reports=lambda: _fares(service.delivery),
        states=lambda: _states(service),
        subscriptions=lambda: subscriptions(service.ledger),
        meters={**own, **meters},
        now=service.clock.now,
    )


async def _states(service: UpsService) -> Mapping[str, int]:
    return (await service.projection.counts()).by_state


def _fares(delivery: Delivery) -> Iterator[Fare]:
    return (_fare(worker, delivery) for worker in list(delivery.workers()))


def _fare(worker: Worker, delivery: Delivery) -> Fare:
    head, left = worker.line.head, worker.backoff.left
    return Fare(
        pending=worker.line.pending,
        oldest_at=(made_at(head) or None) if head else None,
        retry_at=delivery.clock.now() + left if left > 0 else None,
        dead_letters=delivery.dead.count(worker.endpoint),
        latency_median=worker.tally.latency(0.5),
        latency_p95=worker.tally.latency(0.95),
    )


def subscriptions(ledger: Ledger) -> tuple[int, int]:
    """How many subscriptions there are, and how many AEs have at least one."""
    active = [_active(ledger, ae) for ae in ledger.all_known()]
    return sum(active), sum(count > 0 for count in active)


def _active(ledger: Ledger, receiving_ae: str) -> int:
    standing = ledger.standing(receiving_ae)
    globally = standing.everything is not Subscription.NONE
    return globally + len(standing.filters) + ledger.specifics.count(receiving_ae)
