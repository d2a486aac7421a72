# SPDX-License-Identifier: AGPL-3.0-or-later
"""A workitem with all that the worklist knows of it, as an immutable value."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from . import tags
from .commands import requesting_ae
from .dataset import DataSet, text
from .events import Event
from .states import State, Transaction


class Subscription(Enum):
    """UPS subscription state of one AE (PS3.4 Table CC.2.3-2)."""

    NONE = "none"
    LOCK = "lock"
    NO_LOCK = "no lock"


@dataclass(frozen=True, slots=True)
class SpecificAct:
    """The last act of one AE on this very workitem; ``sequence`` orders it among that AE's global acts.

    ``at`` is in seconds since the epoch.
    """

    sequence: int
    state: Subscription
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """Who did what when and why: ``at`` in seconds since the epoch, ``what`` and ``why`` in words.

    ``why`` is empty if no reason was given; there is no patient data in it (``core/reasons.py``).
    """

    at: float
    who: str
    what: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Workitem:
    """A workitem as it is stored.

    Attributes:
        uid: SOP Instance UID.
        created: creation number: 1, 2, 3, … in the order of creation.
        attributes: the data set, without Transaction UID.
        owner: digest of the Transaction UID once claimed, kept after closing; else None.
        acts: per AE title its last act on this workitem.
        filtered: sequence numbers of the filtered global acts that matched at creation.
        events: not yet settled events, and the last settled ones, by sequence.
        spilled: first sequence numbers of the overflow entries that hold older unsettled events.
        history: bounded, oldest first.
        ended: when it reached a final state, seconds since the epoch, else None.
        revision: counts the writes, so that no two documents of a workitem are equal.
    """

    uid: str
    created: int
    attributes: DataSet
    owner: str | None = None
    acts: Mapping[str, SpecificAct] = field(default_factory=dict)
    filtered: tuple[int, ...] = ()
    events: tuple[Event, ...] = ()
    spilled: tuple[int, ...] = ()
    history: tuple[HistoryEntry, ...] = ()
    ended: float | None = None
    revision: int = 0

    @property
    def state(self) -> State:
        """Procedure Step State (0074,1000)."""
        return State(text(self.attributes, tags.STATE))

    def compare(self, transaction: str | None) -> Transaction:
        """How a Transaction UID fits: for a SCHEDULED step any does (PS3.4 Table CC.1.1-2)."""
        if not transaction:
            return Transaction.MISSING
        if self.state is State.SCHEDULED or digest(transaction) == self.owner:
            return Transaction.RIGHT
        return Transaction.WRONG

    def having(self, attributes: DataSet) -> Workitem:
        """The same workitem with other attributes."""
        return replace(self, attributes=attributes)


def digest(transaction: str) -> str:
    """What is kept of a Transaction UID: enough to compare it, nothing to steal."""
    return hashlib.sha256(b"UPS Transaction UID\0" + transaction.encode()).hexdigest()


CLAIMED: Final = "claimed"
"""What the history says of a change to IN PROGRESS."""


def claim_of(workitem: Workitem) -> HistoryEntry | None:
    """The last claim; None if nobody claimed the workitem, or if its history no longer reaches back so far."""
    return next((entry for entry in reversed(workitem.history) if entry.what == CLAIMED), None)


def claimer_of(workitem: Workitem) -> str:
    """AE title of the performer that claimed the workitem; "" if nobody did, or if it is no longer known."""
    claim = claim_of(workitem)
    return requesting_ae(claim.who) if claim else ""


def last_word_of(workitem: Workitem) -> float | None:
    """When the performer was last heard of (claim, progress, update), in seconds since the epoch.

    What others do meanwhile, such as asking for its cancellation, is no word of the performer.
    """
    claim = claim_of(workitem)
    if claim is None:
        return None
    performer = requesting_ae(claim.who)
    words = (entry.at for entry in workitem.history if requesting_ae(entry.who) == performer)
    return max(words, default=claim.at)


def duration_of(workitem: Workitem) -> float | None:
    """Seconds from the claim to the final state; None while it is not final, or if nobody claimed it."""
    claim = claim_of(workitem)
    return max(0.0, workitem.ended - claim.at) if claim and workitem.ended is not None else None
