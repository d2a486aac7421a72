# SPDX-License-Identifier: AGPL-3.0-or-later
"""Delivery as the management API and the page show and control it."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from ..core import tags
from ..core.events import Event, scp_status_change
from .dead_letters import DeadLetter
from .outbox import Delivery
from .port import Clock, Endpoint
from .replay import Once, Run
from .worker import Worker


@dataclass(frozen=True, slots=True)
class EndpointReport:
    """The state of one Receiving AE on one channel. Times in seconds since the epoch, latencies in seconds.

    Attributes:
        durable: False for a WebSocket of an AE with another channel: its queue is dropped when it closes.
        serving: True if the channel has an address for the AE now.
        failing: True from a failed attempt to the next that succeeds.
        pending: waiting events, including the greatest possible number of initial State Reports still to be made.
        oldest_at: when the first waiting event was committed; None if none waits or that is unknown.
        retry_at: when the next attempt is due; None if no back-off is running.
        failed: attempts, not events.
        dead: all events that have become dead letters.
        dead_letters: the dead letters that exist now.
        per_minute: deliveries of the last 60 minutes, the current one last.
        latency_median, latency_p95: of the latest deliveries since the start; None if there are none.
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
    """The state of a worker's endpoint."""
    tally, now, pause = worker.tally, clock.now(), worker.backoff.remaining
    return EndpointReport(
        endpoint=worker.endpoint,
        durable=worker.durable,
        serving=worker.channel.serves(worker.endpoint.receiving_ae),
        failing=worker.backoff.failing,
        pending=worker.queue.pending,
        oldest_at=worker.queue.oldest_at,
        last_success_at=tally.last_success_at,
        last_error=tally.last_error,
        last_error_at=tally.last_error_at,
        retry_at=now + pause if pause > 0 else None,
        delivered=tally.delivered,
        failed=tally.failed,
        dead=tally.dead,
        dead_letters=dead_letters,
        per_minute=tally.per_minute(now),
        latency_median=tally.latency(0.5),
        latency_p95=tally.latency(0.95),
    )


_PAGE: Final = 100

_log = logging.getLogger("orthanc_ups.delivery")


class DeliveryManagement:
    """Operations on the outbox. Each applies to every channel of the AE; an unknown AE is not an error."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    def report(self, receiving_ae: str | None = None) -> list[EndpointReport]:
        """The state of every endpoint, or of those of one AE."""
        dead, clock = self._delivery.dead, self._delivery.clock
        return [
            report_on(worker, clock, dead.count(worker.endpoint))
            for worker in self._delivery.workers(receiving_ae)
        ]

    def retry_now(self, receiving_ae: str) -> None:
        """End the pauses after failed attempts."""
        for worker in self._delivery.workers(receiving_ae):
            worker.hurry(now=True)

    async def drop(self, receiving_ae: str, sequences: Collection[int] | None = None) -> int:
        """Discard waiting events, all or some; return how many.

        An event that is being sent right now may still arrive.
        """
        dropped = sum(worker.drop(sequences) for worker in self._delivery.workers(receiving_ae))
        _log.warning("%d waiting events for %s were dropped by an operator", dropped, receiving_ae)
        await self._delivery.flush()
        return dropped

    def resend(self, receiving_ae: str, first: int, last: int) -> None:
        """Resend what was sent between two sequences (inclusive), as far as the log still has it.

        Resent events are sent before waiting ones. What was not resent before a restart is forgotten.
        """
        for worker in self._delivery.route(receiving_ae):
            worker.repeat(Run(self._delivery.sent_events(worker, first, last)))

    def send_test_event(self, receiving_ae: str) -> int:
        """Send an SCP Status Change RESTARTED with both lists warm started; return the number of endpoints.

        It is the only event that is not about a workitem, and at most makes a receiver query the worklist again.
        It is not stored, and has the sequence up to which the endpoint has received everything.
        """
        change = scp_status_change("RESTARTED")
        workers = self._delivery.route(receiving_ae)
        for worker in workers:
            now, through = self._delivery.clock.now(), worker.settled_through(self._delivery.high_water)
            uid, information = tags.GLOBAL_SUBSCRIPTION, change.information
            worker.repeat(Once(Event(through, change.type, uid, information, (receiving_ae,), now)))
        return len(workers)

    # --- dead letters ---

    def dead_letters(self, receiving_ae: str, offset: int = 0, limit: int = _PAGE) -> list[DeadLetter]:
        """A page of an AE's dead letters, by endpoint, oldest first."""
        return self._delivery.dead.listed(receiving_ae, offset, limit)

    def resend_dead(self, receiving_ae: str, sequences: Collection[int] | None = None) -> int:
        """Queue dead letters for resending, all or some; return how many.

        Each stays in the list until it is delivered.
        """
        count = 0
        for endpoint in self._delivery.dead.endpoints(receiving_ae):
            selected = self._delivery.dead.sequences(endpoint)
            if sequences is not None:
                selected &= frozenset(sequences)
            if selected:
                self._worker_for(endpoint).repeat(self._delivery.dead_letter_run(endpoint, selected))
                count += len(selected)
        return count

    def _worker_for(self, endpoint: Endpoint) -> Worker:
        """The worker that resends an endpoint's dead letters: its own, or that of a channel that serves the AE now."""
        workers = {
            worker.endpoint.channel: worker for worker in self._delivery.workers(endpoint.receiving_ae)
        }
        own = workers.get(endpoint.channel)
        if own is not None and own.durable:
            return own
        return self._delivery.route(endpoint.receiving_ae)[0]

    async def drop_dead(self, receiving_ae: str, sequences: Collection[int] | None = None) -> int:
        """Delete dead letters, all or some; return how many. Raises StoreUnavailable."""
        dropped = 0
        for endpoint in self._delivery.dead.endpoints(receiving_ae):
            selected = self._delivery.dead.sequences(endpoint) if sequences is None else sequences
            dropped += await self._delivery.dead.remove(endpoint, selected)
        _log.warning("%d dead letters for %s were deleted by an operator", dropped, receiving_ae)
        return dropped
