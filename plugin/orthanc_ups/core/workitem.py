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
    """The last act of an AE on this workitem; ``sequence`` orders it among that AE's global acts.

    ``at`` is in seconds since the epoch.
    """

    sequence: int
    state: Subscription
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """Who did what, when and why: ``at`` in seconds since the epoch, ``what`` and ``why`` in words.

    ``why`` is empty if no reason was given; it contains no patient data (``core/reasons.py``).
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
        acts: the last act of each AE on this workitem, by AE title.
        filtered: sequence numbers of the filtered global acts that matched at creation.
        events: the waiting events and the last settled ones, by sequence.
        spilled: first sequence numbers of the overflow entries with older waiting events.
        history: oldest first; bounded by ``Ups.HistoryLength``.
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
        """How a Transaction UID compares: for a SCHEDULED workitem any is right (PS3.4 Table CC.1.1-2)."""
        if not transaction:
            return Transaction.MISSING
        if self.state is State.SCHEDULED or digest(transaction) == self.owner:
            return Transaction.RIGHT
        return Transaction.WRONG

    def having(self, attributes: DataSet) -> Workitem:
        """The same workitem with other attributes."""
        return replace(self, attributes=attributes)


def digest(transaction: str) -> str:
    """The digest that is stored of a Transaction UID: enough to compare it, useless to a thief."""
    return hashlib.sha256(b"UPS Transaction UID\0" + transaction.encode()).hexdigest()


# --- who has claimed it ---

CLAIMED: Final = "claimed"
"""What the history says of a change to IN PROGRESS."""


@dataclass(frozen=True, slots=True)
class LastClaim:
    """The last claim of a workitem, and what became of it. Times are seconds since the epoch.

    Attributes:
        who: the performer, as the history names it.
        ae: its AE title; empty if it has none.
        at: when it claimed the workitem.
        heard: when it was last heard of (claim, progress, update). What others do meanwhile, such as asking for its
            cancellation, does not count.
        duration: seconds from the claim to the final state; None while it is not final.
    """

    who: str
    ae: str
    at: float
    heard: float
    duration: float | None


def claim_of(workitem: Workitem) -> LastClaim | None:
    """The last claim; None if nobody claimed the workitem, or if its history no longer reaches back so far."""
    for entry in reversed(workitem.history):
        if entry.what == CLAIMED:
            break
    else:
        return None
    ae, heard = requesting_ae(entry.who), entry.at
    for word in workitem.history:
        if requesting_ae(word.who) == ae:
            heard = max(heard, word.at)
    duration = None if workitem.ended is None else max(0.0, workitem.ended - entry.at)
    return LastClaim(entry.who, ae, entry.at, heard, duration)


def claimer_of(workitem: Workitem) -> str:
    """AE title of the performer that claimed the workitem; "" if nobody did, or if it is no longer known."""
    claim = claim_of(workitem)
    return claim.ae if claim else ""
