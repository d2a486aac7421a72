# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the management API needs; the composition root plugs it. Everything is called on the loop."""

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
"""By what a listing can be ordered."""


class Commands(Protocol):
    """What takes every command (``Worklist``)."""

    async def execute(self, command: Command) -> Outcome:
        """Carry out a command. Raises UpsError."""
        ...


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of the worklist as an operator asks for it.

    Attributes:
        query: the matching keys; may be empty, which here means everything.
        words: each must occur in ``core.free_text.searchable`` of the workitem.
        order: one of ``ORDERS``; equal ones by creation number. Priority by rank: HIGH, MEDIUM, LOW; state:
            SCHEDULED, IN PROGRESS, COMPLETED, CANCELED; station and performer: by the first one, as it is shown,
            and all after it but urgency: those that have none stand at the end in both directions. Urgency is
            priority, then start.
        narrowing: further tests.
        offset: how many matches are skipped; ``limit`` is the size of the page.
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
        log: of the global ones.
        specific: to how many workitems it subscribed individually; ``locks``: how many of these it holds.
    """

    log: Log
    specific: int = 0
    locks: int = 0


class Inspection(Protocol):
    """Reads what the worklist knows."""

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
        """One page and the number of all matches."""
        ...

    async def walk(
        self, listing: Listing, form: Callable[[Workitem], _T]
    ) -> tuple[AsyncIterator[list[_T]], int]:
        """What ``form`` makes, in another thread, of the listed workitems, some at a time; the number of all."""
        ...

    async def counts(self) -> Sequence[tuple[str, str, int]]:
        """Worklist Label, Procedure Step State, and how many workitems have both."""
        ...

    async def tally(self, listing: Listing) -> Mapping[str, int]:
        """How many matches there are in each Procedure Step State; order and page do not matter."""
        ...

    async def late(self) -> LateSummary:
        """What is late or stuck now."""
        ...

    async def names(self, column: str) -> Sequence[tuple[str, int, Workitem | None]]:
        """What stands in a column of ``projection.vocabulary.COLUMNS``, how often, and the latest example."""
        ...

    async def event_log(self, uid: str) -> Sequence[Event]:
        """The remembered events of a workitem, oldest first."""
        ...

    def delivered(self, event: Event, ae: str) -> DeliveryState:
        """What became of an event at one of its receivers."""
        ...

    def changes(self, since: int) -> Changes:
        """What changed after a number of an earlier answer; see ``ChangeFeed``."""
        ...


class DeliveryDesk(Protocol):
    """Delivery, as an operator sees and steers it (``DeliveryManagement``). An unknown AE is no error."""

    def report(self, receiving_ae: str | None = None) -> Sequence[EndpointReport]:
        """Every channel of every AE that has or had something to be told, or of one AE."""
        ...

    def retry_now(self, receiving_ae: str) -> None:
        """End the pause of a back-off."""
        ...

    async def drop(self, receiving_ae: str, sequences: Collection[int] | None = None) -> int:
        """Give up waiting events (None: all) for good; how many."""
        ...

    def resend(self, receiving_ae: str, first: int, last: int) -> None:
        """Send events of a range of sequences again, as far as they are remembered."""
        ...

    def send_test_event(self, receiving_ae: str) -> int:
        """Tell the AE an SCP Status Change; on how many channels."""
        ...

    def dead_letters(self, receiving_ae: str, offset: int = 0, limit: int = 100) -> Sequence[DeadLetter]:
        """Events that were given up, oldest first."""
        ...

    def resend_dead(self, receiving_ae: str, sequences: Collection[int] | None = None) -> int:
        """Send dead letters again (None: all); how many."""
        ...

    async def drop_dead(self, receiving_ae: str, sequences: Collection[int] | None = None) -> int:
        """Delete dead letters (None: all) for good; how many."""
        ...


class Dimse(Protocol):
    """DIMSE as an SCU."""

    async def echo(self, ae: str) -> float:
        """C-ECHO; how long it took, in seconds. Raises Unreachable with words."""
        ...


class OrthancResources(Protocol):
    """Orthanc's own REST API, read only."""

    async def get(self, path: str) -> Any:
        """The JSON of a path such as ``/studies/…``; None if there is no such resource."""
        ...

    async def lookup(self, uid: str) -> Sequence[tuple[str, str]]:
        """Kind (``Study``, ``Series``, …) and Orthanc identifier of what has a DICOM UID."""
        ...


class Modalities(Protocol):
    """The AEs that Orthanc knows."""

    def ae_titles(self) -> Sequence[str]:
        """Every AE title of ``DicomModalities``, sorted."""
        ...


@dataclass(frozen=True, slots=True)
class Listener:
    """An address at which the plugin listens.

    Attributes:
        name: what for, in words.
        address: ``{host}`` in it stands for the host name by which the browser reaches Orthanc.
    """

    name: str
    address: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What does not change while the plugin runs.

    Attributes:
        ae_title: of the worklist; ``archive_ae_title``: of Orthanc, from which inputs are retrieved.
        workitems_url: UPS-RS on Orthanc's own port, without host, such as ``/dicom-web/workitems``.
        warnings: findings at start, each in words, such as that AllowThreads is off.
        maximum_pending: ``MaximumPendingPerSubscriber``.
        plugins: names of the loaded plugins of Orthanc, for links to their viewers.
        templates: see ``templates.read_templates``.
        strict: ``Ups.Strict``.
        late: when work is late.
        webhook_names: how the channels of webhooks are called.
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
        """Aware, in the local zone of the server."""
        ...

    def new_uid(self) -> str:
        """A UID that nobody has."""
        ...
