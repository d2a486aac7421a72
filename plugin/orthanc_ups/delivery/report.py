# SPDX-License-Identifier: AGPL-3.0-or-later
"""The state of delivery per endpoint, for the management API and the page."""

from __future__ import annotations

from dataclasses import dataclass

from .line import made_at
from .port import Clock, Endpoint
from .worker import Worker


@dataclass(frozen=True, slots=True)
class EndpointReport:
    """How one Receiving AE fares on one channel. Times in seconds since the epoch, latencies in seconds.

    Attributes:
        durable: False for a WebSocket beside another channel: nothing waits for it when it closes.
        serving: True if the channel has an address for the AE now.
        failing: True since an attempt failed, until one succeeds.
        pending: waiting events, with initial reports that are still to be made (at most).
        oldest_at: when the oldest waiting event was committed.
        retry_at: when the next attempt is due, None if it is not in back-off.
        failed: attempts, not events.
        dead: events that ever became dead letters; ``dead_letters``: those there are now.
        per_minute: deliveries of the last 60 minutes, the present one last.
        latency_median, latency_p95: of the latest deliveries since the start, None without any.
    """

    endpoint: Endpoint
    durable: bool
    serving: bool
    failing: bool
    pending: int
    oldest_at: float | None
    last_success_at: float | None
    last_error: str
    last_error_at: float | None
    retry_at: float | None
    delivered: int
    failed: int
    dead: int
    dead_letters: int
    per_minute: tuple[int, ...]
    latency_median: float | None
    latency_p95: float | None


def report_on(worker: Worker, clock: Clock, dead_letters: int) -> EndpointReport:
    """The report of one endpoint."""
    tally, head, now = worker.tally, worker.line.head, clock.now()
    left = worker.backoff.left
    return EndpointReport(
        endpoint=worker.endpoint,
        durable=worker.durable,
        serving=worker.channel.serves(worker.endpoint.receiving_ae),
        failing=worker.backoff.failing,
        pending=worker.line.pending,
        oldest_at=(made_at(head) or None) if head else None,
        last_success_at=tally.last_success_at,
        last_error=tally.last_error,
        last_error_at=tally.last_error_at,
        retry_at=now + left if left > 0 else None,
        delivered=tally.delivered,
        failed=tally.failed,
        dead=tally.dead,
        dead_letters=dead_letters,
        per_minute=tally.per_minute(now),
        latency_median=tally.latency(0.5),
        latency_p95=tally.latency(0.95),
    )
