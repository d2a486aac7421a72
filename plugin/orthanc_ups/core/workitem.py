# SPDX-License-Identifier: AGPL-3.0-or-later
"""A workitem as it is stored, with its subscriptions, events and history, as an immutable value."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
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
    """The last act of an AE on this workitem; ``sequence`` orders it among the AE's global acts.

    ``at`` is in seconds since the epoch.
    """

    sequence: int
    state: Subscription
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """A change of a workitem: ``at`` in seconds since the epoch, ``what`` and ``why`` in words.

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
        owner: digest of the Transaction UID from the claim on, also in a final state; else None.
        acts: the last act of each AE on this workitem, by AE title.
        filtered: sequence numbers of the filtered global acts that matched at creation.
        events: the waiting events and the last settled ones, by sequence.
        spilled: first sequence numbers of the overflow entries with older waiting events.
        history: oldest first; bounded by ``Ups.HistoryLength``.
        ended: when it reached a final state, in seconds since the epoch; else None.
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
        """How a Transaction UID compares; any is right for a SCHEDULED workitem (PS3.4 Table CC.1.1-2)."""
        if not transaction:
            return Transaction.MISSING
        if self.state is State.SCHEDULED or digest(transaction) == self.owner:
            return Transaction.RIGHT
        return Transaction.WRONG


def digest(transaction: str) -> str:
    """The digest that is stored instead of a Transaction UID, which cannot be derived from it."""
    return hashlib.sha256(b"UPS Transaction UID\0" + transaction.encode()).hexdigest()


# --- the last claim ---

CLAIMED: Final = "claimed"
"""``what`` of the history entry of a claim."""


@dataclass(frozen=True, slots=True)
class LastClaim:
    """The last claim of a workitem, and the performer's work since. Times are seconds since the epoch.

    Attributes:
        who: the performer, as in the history.
        ae: the AE title of the performer; empty if there is none.
        at: when the performer claimed the workitem.
        heard: the last change by the performer (claim, progress, update). Changes by others, such as a request for
            cancellation, do not count.
        duration: seconds from the claim to the final state; None before that.
    """

    who: str
    ae: str
    at: float
    heard: float
    duration: float | None


def claim_of(workitem: Workitem) -> LastClaim | None:
    """The last claim; None if there is none in the history, which may no longer reach back so far."""
    claim = next((entry for entry in reversed(workitem.history) if entry.what == CLAIMED), None)
    if claim is None:
        return None
    ae = requesting_ae(claim.who)
    heard = max(entry.at for entry in workitem.history if requesting_ae(entry.who) == ae)
    duration = None if workitem.ended is None else max(0.0, workitem.ended - claim.at)
    return LastClaim(claim.who, ae, claim.at, heard, duration)


def claimer_of(workitem: Workitem) -> str:
    """The AE title of the performer that claimed the workitem last; "" if the history does not have it."""
    claim = claim_of(workitem)
    return claim.ae if claim else ""
