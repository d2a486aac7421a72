# SPDX-License-Identifier: AGPL-3.0-or-later
"""What an operator sees of delivery and may do: for the management API and the page."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Final

from ..core import tags
from ..core.events import Event, scp_status_change
from .dead_letters import DeadLetter
from .outbox import Delivery
from .port import Endpoint
from .repeats import Once, Run
from .report import EndpointReport, report_on
from .worker import Worker

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
        """End the pause of a back-off."""
        for worker in self._delivery.workers(receiving_ae):
            worker.hurry(now=True)

    async def drop(self, receiving_ae: str, sequences: Collection[int] | None = None) -> int:
        """Give up waiting events, all or some, for good; return how many.

        One that is being told at this moment may still arrive.
        """
        dropped = sum(worker.drop(sequences) for worker in self._delivery.workers(receiving_ae))
        _log.warning("%d waiting events for %s were dropped by an operator", dropped, receiving_ae)
        await self._delivery.flush()
        return dropped

    def resend(self, receiving_ae: str, first: int, last: int) -> None:
        """Send again what was told between two sequences (both included) and the log still has.

        It goes ahead of what waits, and is forgotten by a restart.
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
        """Who can send an endpoint's letters: itself, or what serves the AE now."""
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
