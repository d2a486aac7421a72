# SPDX-License-Identifier: AGPL-3.0-or-later
"""What an operator sees of delivery and can do to it, for the management API and the page."""

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
from .queue import made_at
from .replay import Once, Run
from .worker import Worker


@dataclass(frozen=True, slots=True)
class EndpointReport:
    """The state of one Receiving AE on one channel. Times in seconds since the epoch, latencies in seconds.

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
    tally, head, now = worker.tally, worker.queue.head, clock.now()
    left = worker.backoff.left
    return EndpointReport(
        endpoint=worker.endpoint,
        durable=worker.durable,
        serving=worker.channel.serves(worker.endpoint.receiving_ae),
        failing=worker.backoff.failing,
        pending=worker.queue.pending,
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


_PAGE: Final = 100

_log = logging.getLogger("orthanc_ups.delivery")


class DeliveryManagement:
    """Operations on the outbox. Each concerns every channel of the AE; an unknown AE is no error."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    def report(self, receiving_ae: str | None = None) -> list[EndpointReport]:
        """The state of every endpoint, or of one AE's."""
        dead, clock = self._delivery.dead, self._delivery.clock
        return [
            report_on(worker, clock, dead.count(worker.endpoint))
            for worker in self._delivery.workers(receiving_ae)
        ]

    def retry_now(self, receiving_ae: str) -> None:
        """End the pause after a failed attempt."""
        for worker in self._delivery.workers(receiving_ae):
            worker.hurry(now=True)

    async def drop(self, receiving_ae: str, sequences: Collection[int] | None = None) -> int:
        """Give up waiting events for good, all or some; return how many.

        An event that is being sent at this moment may still arrive.
        """
        dropped = sum(worker.drop(sequences) for worker in self._delivery.workers(receiving_ae))
        _log.warning("%d waiting events for %s were dropped by an operator", dropped, receiving_ae)
        await self._delivery.flush()
        return dropped

    def resend(self, receiving_ae: str, first: int, last: int) -> None:
        """Send again what was sent between two sequences (both included), as far as the log still has it.

        It goes ahead of what is waiting, and does not survive a restart.
        """
        for worker in self._delivery.route(receiving_ae):
            worker.repeat(Run(self._delivery.past(worker, first, last)))

    def send_test_event(self, receiving_ae: str) -> int:
        """Send an SCP Status Change that says RESTARTED, with both lists kept; return to how many endpoints.

        It is the one event that is about no workitem, and tells a receiver nothing new but to look at the
        worklist again. It is not stored, and carries the sequence up to which the endpoint has everything.
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
        """One page of an AE's dead letters, oldest first."""
        return self._delivery.dead.listed(receiving_ae, offset, limit)

    def resend_dead(self, receiving_ae: str, sequences: Collection[int] | None = None) -> int:
        """Send dead letters again, all or some; return how many are on their way.

        Each is struck from the list when it is delivered; until then it stays there.
        """
        chosen = 0
        for endpoint in self._delivery.dead.endpoints(receiving_ae):
            names = self._delivery.dead.sequences(endpoint)
            selected = names if sequences is None else names & frozenset(sequences)
            if selected:
                self._for(endpoint).repeat(self._delivery.resurrection(endpoint, selected))
                chosen += len(selected)
        return chosen

    def _for(self, endpoint: Endpoint) -> Worker:
        """The worker that can send an endpoint's letters: its own, or that of a channel which serves the AE now."""
        workers = {
            worker.endpoint.channel: worker for worker in self._delivery.workers(endpoint.receiving_ae)
        }
        own = workers.get(endpoint.channel)
        if own is not None and own.durable:
            return own
        return self._delivery.route(endpoint.receiving_ae)[0]

    async def drop_dead(self, receiving_ae: str, sequences: Collection[int] | None = None) -> int:
        """Delete dead letters, all or some, for good; return how many. May raise StoreUnavailable."""
        dropped = 0
        for endpoint in self._delivery.dead.endpoints(receiving_ae):
            selected = self._delivery.dead.sequences(endpoint) if sequences is None else sequences
            dropped += await self._delivery.dead.strike(endpoint, selected)
        _log.warning("%d dead letters for %s were deleted by an operator", dropped, receiving_ae)
        return dropped
