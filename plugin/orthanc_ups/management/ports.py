# SPDX-License-Identifier: AGPL-3.0-or-later
"""The interfaces that the management API uses. Everything is called on the loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, Protocol, TypeVar

from ..core.commands import Command
from ..core.events import Event
from ..core.lateness import LatePolicy
from ..core.matching import Query
from ..core.outcome import Outcome
from ..core.subscriptions import Log
from ..core.workitem import Subscription, Workitem
from ..delivery.dead_letters import DeadLetter
from ..delivery.management import EndpointReport
from ..projection.narrowing import Narrowing
from ..worklist.late_watch import LateSummary
from ..worklist.workitem_store import Changes
from .templates import Template

_T = TypeVar("_T")
DeliveryState = Literal["delivered", "waiting", "dead"]

ORDERS: Final = (
    "created",
    "modified",
    "state",
    "priority",
    "label",
    "worklist",
    "patient",
    "start",
    "station",
    "performer",
    "progress",
    "urgency",
    "work",
    "expected",
    "expires",
    "claimer",
    "claimed",
    "ended",
    "duration",
    "performed",
)
"""The orders of a listing."""
MAXIMUM_LATE_GROUPS: Final = 50
"""The number of groups of late workitems (by worklist and station) that the overview shows."""


class Commands(Protocol):
    """Executes commands (``Worklist``)."""

    async def execute(self, command: Command) -> Outcome:
        """Carry out a command. Raises UpsError."""
        ...


@dataclass(frozen=True, slots=True)
class Listing:
    """A page of the worklist as requested by an operator.

    Attributes:
        query: the matching keys; may be empty, which here means every workitem.
        words: all of them must occur in ``core.free_text.searchable`` of the workitem.
        order: one of ``ORDERS``; equal workitems by creation number. Priority is ordered HIGH, MEDIUM, LOW; state
            SCHEDULED, IN PROGRESS, COMPLETED, CANCELED; urgency by priority, then start; station and performer by the
            first one, as it is shown. From station on, except urgency, workitems without a value are last in both
            directions.
        narrowing: further conditions.
        offset: the number of matches to skip; ``limit`` is the size of the page.
    """

    query: Query
    words: tuple[str, ...] = ()
    order: str = "created"
    descending: bool = True
    offset: int = 0
    limit: int = 50
    narrowing: Narrowing = field(default_factory=Narrowing)


@dataclass(frozen=True, slots=True)
class SubscriberSummary:
    """An AE and its acts.

    Attributes:
        log: its global acts.
        specific: the number of workitems that it subscribed to individually.
        locks: the number of these with a Deletion Lock.
    """

    log: Log
    specific: int = 0
    locks: int = 0


class Inspection(Protocol):
    """Reads the worklist."""

    async def workitem(self, uid: str) -> Workitem:
        """One workitem. Raises UpsError NO_SUCH_WORKITEM or GONE."""
        ...

    def subscribers(self, workitem: Workitem) -> Sequence[tuple[str, Subscription]]:
        """Every AE that is subscribed to a workitem, and how; by AE title."""
        ...

    def subscriber_aes(self) -> Sequence[str]:
        """Every AE that ever subscribed, sorted."""
        ...

    def subscriber(self, ae: str) -> SubscriberSummary:
        """An AE's acts; empty for one that never subscribed."""
        ...

    def specific(self, ae: str, offset: int, limit: int) -> Sequence[tuple[str, Subscription]]:
        """Some of the workitems that an AE subscribed to individually, and how; the latest first."""
        ...

    async def page(self, listing: Listing) -> tuple[Sequence[Workitem], int]:
        """One page, and the total number of matches."""
        ...

    async def walk(
        self, listing: Listing, form: Callable[[Workitem], _T]
    ) -> tuple[AsyncIterator[list[_T]], int]:
        """The results of ``form`` for the listed workitems, computed in another thread, in chunks; and the
        total number.
        """
        ...

    async def counts(self) -> Sequence[tuple[str, str, int]]:
        """The number of workitems per Worklist Label and Procedure Step State."""
        ...

    async def tally(self, listing: Listing) -> Mapping[str, int]:
        """The number of matches per Procedure Step State; order and page are ignored."""
        ...

    async def late(self) -> LateSummary:
        """A summary of the workitems that are late or stuck now."""
        ...

    async def names(self, column: str) -> Sequence[tuple[str, int, Workitem | None]]:
        """The values of a column of ``projection.vocabulary.COLUMNS``, their numbers, and their latest workitems."""
        ...

    async def event_log(self, uid: str) -> Sequence[Event]:
        """The events of a workitem in the event log, oldest first."""
        ...

    def delivered(self, event: Event, ae: str) -> DeliveryState:
        """The state of an event at one of its receivers."""
        ...

    def changes(self, since: int) -> Changes:
        """Workitems that changed after the number of an earlier answer; see ``ChangeFeed``."""
        ...


class DeliveryControl(Protocol):
    """Delivery as operators monitor and control it (``DeliveryManagement``). An unknown AE is not an error."""

    def report(self, receiving_ae: str | None = None) -> Sequence[EndpointReport]:
        """The channels of all AEs that have or had events, or of one AE."""
        ...

    def retry_now(self, receiving_ae: str) -> None:
        """Retry waiting events at once."""
        ...

    async def drop(self, receiving_ae: str, sequences: Collection[int] | None = None) -> int:
        """Give up waiting events (None: all) for good. Returns their number."""
        ...

    def resend(self, receiving_ae: str, first: int, last: int) -> None:
        """Send the events of a range of sequences that are in the event log again."""
        ...

    def send_test_event(self, receiving_ae: str) -> int:
        """Send the AE an SCP Status Change. Returns the number of channels."""
        ...

    def dead_letters(self, receiving_ae: str, offset: int = 0, limit: int = 100) -> Sequence[DeadLetter]:
        """Events that were given up, oldest first."""
        ...

    def resend_dead(self, receiving_ae: str, sequences: Collection[int] | None = None) -> int:
        """Send dead letters again (None: all). Returns their number."""
        ...

    async def drop_dead(self, receiving_ae: str, sequences: Collection[int] | None = None) -> int:
        """Delete dead letters (None: all) for good. Returns their number."""
        ...


class Dimse(Protocol):
    """DIMSE as an SCU."""

    async def echo(self, ae: str) -> float:
        """Send a C-ECHO. Returns its duration in seconds. Raises Unreachable with an explanation."""
        ...


class OrthancResources(Protocol):
    """Orthanc's own REST API, read only."""

    async def get(self, path: str) -> Any:
        """The JSON of a path such as ``/studies/…``; None if there is no such resource."""
        ...

    async def lookup(self, uid: str) -> Sequence[tuple[str, str]]:
        """Type (``Study``, ``Series``, …) and Orthanc identifier of the resources with a DICOM UID."""
        ...


class Modalities(Protocol):
    """The AEs that are configured in Orthanc."""

    def ae_titles(self) -> Sequence[str]:
        """Every AE title of ``DicomModalities``, sorted."""
        ...


@dataclass(frozen=True, slots=True)
class Listener:
    """An address at which the plugin listens.

    Attributes:
        name: its purpose, in words.
        address: ``{host}`` in it stands for the host name by which the browser reaches Orthanc.
    """

    name: str
    address: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """Facts that do not change while the plugin runs.

    Attributes:
        ae_title: of the worklist; ``archive_ae_title``: of Orthanc, from which inputs are retrieved.
        workitems_url: UPS-RS on Orthanc's own port, without host, such as ``/dicom-web/workitems``.
        warnings: sentences about the configuration, such as that AllowThreads is off.
        maximum_pending: ``MaximumPendingPerSubscriber``.
        plugins: names of the loaded plugins of Orthanc, for links to their viewers.
        templates: see ``templates.read_templates``.
        strict: ``Ups.Strict``.
        late: when workitems are late.
        webhook_names: names of the channels of webhooks.
        default_language: of Orthanc Explorer 2, or empty.
    """

    ae_title: str
    archive_ae_title: str = "ORTHANC"
    name: str = "Orthanc"
    version: str = ""
    orthanc_version: str = ""
    listeners: tuple[Listener, ...] = ()
    workitems_url: str = "/dicom-web/workitems"
    warnings: tuple[str, ...] = ()
    maximum_pending: int = 100_000
    plugins: tuple[str, ...] = ()
    templates: tuple[Template, ...] = ()
    strict: bool = False
    late: LatePolicy = field(default_factory=LatePolicy)
    webhook_names: Mapping[str, str] = field(default_factory=dict)
    default_language: str = ""


class ManagementClock(Protocol):
    """Time and new UIDs."""

    def now(self) -> datetime:
        """The aware time, in the local zone of the server."""
        ...

    def new_uid(self) -> str:
        """A new, unique UID."""
        ...
