# SPDX-License-Identifier: AGPL-3.0-or-later
"""Where to go on after a start: from which events on they may not have arrived, and behind which numbers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from ..delivery.documents import decode_progress
from ..delivery.subscriber import PREFIX
from ..projection.projection import Projection
from ..store.document import UnreadableDocument
from ..store.port import Entry
from .loader import Stored
from .worklist_entry import CREATIONS, SEQUENCES


def slowest_cursor(entries: Iterable[Entry], titles: Collection[str]) -> int:
    """The sequence up to which every AE has everything; 0 if it is not known of some.

    Args:
        entries: those of delivery.
        titles: every AE that may have been told anything.
    """
    reached = dict(_cursors(entries))
    if not reached or not reached.keys() >= set(titles):
        return 0
    return min(reached.values())


def _cursors(entries: Iterable[Entry]) -> Iterator[tuple[str, int]]:
    for entry in entries:
        if not entry.key.startswith(PREFIX):
            continue
        try:
            receiving_ae, _, channels = decode_progress(entry.document)
        except UnreadableDocument:
            continue
        reached = [progress.cursor for progress in channels.values() if progress.cursor is not None]
        yield receiving_ae, min(reached, default=0)


def numbers_in_use(projection: Projection, stored: Stored) -> tuple[int, int]:
    """A sequence and a creation number behind all that are found, for when the header is lost. Slow.

    A whole block behind, as the last numbers may have left no trace.
    """
    sequences, creations = {0, *(at for _, at in _cursors(stored.delivery))}, {0}
    for log, _ in stored.logs:
        sequences.update(act.sequence + act.through for act in log.acts)
        creations.update(act.through for act in log.acts)
    for overflows in stored.overflows.values():
        sequences.update(event.sequence for overflow in overflows for event in overflow.events)
    for workitem in (*projection.with_acts(), *projection.with_events_after(0)):
        sequences.update(act.sequence for act in workitem.acts.values())
        sequences.update(event.sequence for event in workitem.events)
        creations.add(workitem.created)
    creations.add(_last_created(projection))
    if max(sequences) == max(creations) == 0:
        return 1, 1
    return max(sequences) + SEQUENCES, max(creations) + CREATIONS


def _last_created(projection: Projection) -> int:
    last = 0
    while workitems := projection.created(last, _MOST, _AT_ONCE):
        last = workitems[-1].created
    return last


_MOST = 2**62
_AT_ONCE = 500
