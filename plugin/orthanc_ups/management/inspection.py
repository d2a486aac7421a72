# SPDX-License-Identifier: AGPL-3.0-or-later
"""Reads the running service and Orthanc for the management API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, TypeVar

from ..core.events import Event
from ..core.statuses import GONE, UpsError
from ..core.workitem import HistoryEntry, Subscription, Workitem
from ..orthanc.loopback import Loopback
from ..projection import vocabulary
from ..service import UpsService
from ..worklist.late_watch import LateSummary, LateWatch
from ..worklist.workitem_store import Changes
from .ports import MAXIMUM_LATE_GROUPS, DeliveryState, Listing, SubscriberSummary
from .views import first_station

_ORDERS: Final = {
    "modified": "modification",
    "worklist": "worklist_label",
    "patient": "patient_name",
    "expected": "completion",
    "expires": "expiration",
}
_MAXIMUM_NAMES: Final = 300
_T = TypeVar("_T")


class ServiceInspection:
    """Implements ``management.ports.Inspection``. Called on the loop."""

    def __init__(self, service: UpsService, late: LateWatch) -> None:
        self._service = service
        self._late = late

    async def workitem(self, uid: str) -> Workitem:
        """One workitem. Raises UpsError (C307; 404, or 410 with who deleted it, when and why)."""
        tombstone = self._service.workitems.tombstones.get(uid)
        if tombstone is not None:
            raise UpsError(GONE, _deletion_sentence(tombstone.last))
        return self._service.worklist.workitem(uid)

    def subscribers(self, workitem: Workitem) -> Sequence[tuple[str, Subscription]]:
        """Every AE that is subscribed to a workitem, and how; by AE title."""
        subscribers = self._service.subscriptions.subscribers(workitem)
        return [(ae, state) for ae, state in subscribers if state is not Subscription.NONE]

    def subscriber_aes(self) -> Sequence[str]:
        """Every AE that ever subscribed, sorted."""
        return sorted(self._service.subscriptions.aes())

    def subscriber(self, ae: str) -> SubscriberSummary:
        """An AE's acts; empty for one that never subscribed."""
        subscriptions = self._service.subscriptions
        return SubscriberSummary(
            subscriptions.log(ae), subscriptions.specifics.count(ae), subscriptions.specifics.locks(ae)
        )

    def specific(self, ae: str, offset: int, limit: int) -> Sequence[tuple[str, Subscription]]:
        """Some of the workitems that an AE subscribed to individually, the latest first."""
        return self._service.subscriptions.specifics.page(ae, offset, limit)

    async def page(self, listing: Listing) -> tuple[Sequence[Workitem], int]:
        """One page, and the total number of matches."""
        return await self._service.workitems.page(
            listing.query,
            listing.offset,
            listing.limit,
            _order(listing),
            listing.words,
            listing.narrowing.tests(),
        )

    async def walk(
        self, listing: Listing, form: Callable[[Workitem], _T]
    ) -> tuple[AsyncIterator[list[_T]], int]:
        """The results of ``form`` for the listed workitems, computed in another thread, in chunks; and the
        total number.
        """
        return await self._service.workitems.walk(
            listing.query,
            range(listing.offset, listing.offset + listing.limit),
            _order(listing),
            listing.words,
            listing.narrowing.tests(),
            form,
        )

    async def counts(self) -> Sequence[tuple[str, str, int]]:
        """The number of workitems per Worklist Label and Procedure Step State."""
        counts = await self._service.projection.counts()
        by_worklist = counts.by_worklist.items()
        return [(label, state, n) for label, states in by_worklist for state, n in states.items()]

    async def tally(self, listing: Listing) -> Mapping[str, int]:
        """The number of matches per Procedure Step State."""
        return await self._service.projection.tally(listing.query, listing.words, listing.narrowing.tests())

    async def late(self) -> LateSummary:
        """A summary of the late workitems, with the station names of the largest groups as they were sent."""
        summary = await self._late.latest()
        shown = [group for group in summary.groups[:MAXIMUM_LATE_GROUPS] if group.station]
        rows: list[Any] = await self._service.projection.read(
            vocabulary.uids([group.example for group in shown])
        )
        examples = {row: self._example(uid) for row, uid in rows}
        groups = (
            replace(group, station=first_station(examples.get(group.example)) or group.station)
            for group in summary.groups
        )
        return replace(summary, groups=tuple(groups))

    async def names(self, column: str) -> Sequence[tuple[str, int, Workitem | None]]:
        """The values of a column, their numbers, and their latest workitems."""
        rows: list[Any] = await self._service.projection.read(vocabulary.names(column, _MAXIMUM_NAMES))
        return [(name, number, self._example(uid)) for name, number, uid in rows]

    def _example(self, uid: str) -> Workitem | None:
        stored = self._service.workitems.get(uid)
        return stored.workitem if stored else None

    async def event_log(self, uid: str) -> Sequence[Event]:
        """The events of a workitem in the event log, oldest first. Raises UpsError like ``workitem``."""
        logged = await self._service.projection.events_of(uid)
        stored = (await self.workitem(uid)).events
        events = {event.sequence: event for event in (*logged, *stored)}
        return [events[sequence] for sequence in sorted(events)]

    def delivered(self, event: Event, ae: str) -> DeliveryState:
        """The state of an event at one of its receivers."""
        delivery = self._service.delivery
        if any(
            event.sequence in delivery.dead.sequences(endpoint) for endpoint in delivery.dead.endpoints(ae)
        ):
            return "dead"
        return "delivered" if event.sequence <= delivery.settled_through(ae) else "waiting"

    def changes(self, since: int) -> Changes:
        """Workitems that changed after the number of an earlier answer."""
        return self._service.changes.since(since)


def _order(listing: Listing) -> str:
    order = _ORDERS.get(listing.order, listing.order)
    return f"-{order}" if listing.descending else order


def _deletion_sentence(last: HistoryEntry) -> str:
    when = datetime.fromtimestamp(last.at).astimezone().isoformat(" ", "seconds")
    who = f" by {last.who}" if last.who else ""
    return f"the workitem was deleted on {when}{who}{f': {last.why}' if last.why else ''}"


class LoopbackResources:
    """Orthanc's own REST API, read only, for prefilled workitems and links."""

    def __init__(self, loopback: Loopback) -> None:
        self._loopback = loopback

    async def get(self, path: str) -> Any:
        """The JSON of a path; None if there is no such resource."""
        reply = await self._loopback.request("GET", path)
        return reply.json() if reply.status == 200 else None

    async def lookup(self, uid: str) -> Sequence[tuple[str, str]]:
        """Type and Orthanc identifier of the resources with a DICOM UID."""
        reply = await self._loopback.request("POST", "/tools/lookup", uid.encode())
        matches = reply.json() if reply.status == 200 else []
        return [(match["Type"], match["ID"]) for match in matches]
