# SPDX-License-Identifier: AGPL-3.0-or-later
"""The course of a workitem, read from its history: who claimed it, since when, and when they were last heard of."""

from __future__ import annotations

from typing import Final

from .commands import requesting_ae
from .workitem import HistoryEntry, Workitem

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
