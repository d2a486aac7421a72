# SPDX-License-Identifier: AGPL-3.0-or-later
"""Changes that are not in the file yet: collected on the event loop, written by any thread."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from ..core.date_times import Zone
from ..core.workitem import Workitem
from .recent import StoredWorkitem
from .writer import ProjectionBatch, RowsRemoval, TombstoneRow, WorkitemRows, change_of


class _Collected(NamedTuple):
    """A workitem's current state (None: removed), and its state in the file when this is written, if known."""

    stored: StoredWorkitem | None
    before: Workitem | None


class PendingWrites:
    """Changes in two stages: collected, with the latest state of each workitem, then handed over as batches of rows.

    The rows can be made a few at a time, so that many workitems do not block the event loop. All methods except
    ``handed_over`` must be called on the loop.
    """

    def __init__(self) -> None:
        self._collected: dict[str, _Collected] = {}
        self._without_rows: dict[str, None] = {}
        self._changes: dict[str, WorkitemRows | RowsRemoval] = {}
        self._events: list[Sequence[Any]] = []
        self._tombstones: dict[str, TombstoneRow] = {}
        self._batches: deque[tuple[int, ProjectionBatch]] = deque()
        self._unwritten: dict[str, tuple[int, StoredWorkitem | None]] = {}
        self._last = 0
        self._written = 0

    def __len__(self) -> int:
        """The number of collected workitems, events and tombstones."""
        return len(self._collected) + len(self._events) + len(self._tombstones)

    def put(self, stored: StoredWorkitem, before: Workitem | None) -> None:
        """Collect a workitem that was written to the store; ``before`` is its former state, if known."""
        uid = stored.workitem.uid
        earlier = self._collected.get(uid)
        self._collect(uid, _Collected(stored, earlier.before if earlier else before))

    def remove(self, uid: str) -> None:
        """Collect the removal of a workitem."""
        self._collect(uid, _Collected(None, None))

    def _collect(self, uid: str, collected: _Collected) -> None:
        self._collected[uid] = collected
        self._changes.pop(uid, None)
        self._without_rows[uid] = None

    def record(self, rows: Iterable[Sequence[Any]]) -> None:
        """Collect rows of the event log."""
        self._events.extend(rows)

    def keep_tombstone(self, row: TombstoneRow) -> None:
        """Collect the tombstone of a purged workitem, or its removal."""
        self._tombstones[row.uid] = row

    def get(self, uid: str) -> tuple[bool, StoredWorkitem | None]:
        """Whether a write or removal of a workitem is pending, and the pending state (None: removed)."""
        collected = self._collected.get(uid)
        if collected is not None:
            return True, collected.stored
        number, stored = self._unwritten.get(uid, (0, None))
        return number > self._written, stored

    @property
    def batches_waiting(self) -> int:
        """The number of batches handed over but not yet written."""
        return len(self._batches)

    def make_rows(self, local: Zone, seconds: float) -> bool:
        """Make rows for about ``seconds``; return True if some workitems still have none."""
        until = time.perf_counter() + seconds
        while self._without_rows:
            uid, _ = self._without_rows.popitem()
            stored, before = self._collected[uid]
            self._changes[uid] = (
                RowsRemoval(uid)
                if stored is None
                else change_of(stored.workitem, stored.version, stored.document, local, before)
            )
            if time.perf_counter() >= until:
                break
        return bool(self._without_rows)

    def hand_over(self, local: Zone) -> None:
        """Turn everything collected into a batch of rows, to be written by ``handed_over``."""
        self.make_rows(local, math.inf)
        self._last += 1
        batch = ProjectionBatch(events=self._events, tombstones=list(self._tombstones.values()))
        unwritten = {uid: entry for uid, entry in self._unwritten.items() if entry[0] > self._written}
        for uid, (stored, _) in self._collected.items():
            batch.changes.append(self._changes[uid])
            unwritten[uid] = self._last, stored
        self._unwritten = unwritten
        self._collected, self._changes, self._events, self._tombstones = {}, {}, [], {}
        self._batches.append((self._last, batch))

    def handed_over(self) -> Iterator[ProjectionBatch]:
        """The batches in order; each counts as written once the next is requested. For one thread at a time."""
        while self._batches:
            number, batch = self._batches[0]
            yield batch
            self._batches.popleft()
            self._written = number
