# SPDX-License-Identifier: AGPL-3.0-or-later
"""The records of an export.

An export is a stream of records: ``Head``; then the logs of global acts (``Log``), the cursors of
each AE (``AeCursors``), the workitems (``Workitem``, with all their waiting events), the purged ones (``Purged``), the
performed procedure steps of modalities (``PerformedStep``), the dead letters (``Batch``); finally ``Tail``.

A worklist may change while it is exported. Each record is correct when it is read, and their order ensures that no
event is missed: a waiting event is in its workitem, after the cursor, or later among the dead letters. At worst it is
in both, or was delivered meanwhile and is repeated. Performed steps come after their workitems for the same reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

import orjson

from ..core.subscriptions import GlobalAct, Log, standing
from ..core.workitem import HistoryEntry, Subscription, Workitem
from ..delivery.documents import Batch, Progress
from ..modality.performed_steps import PerformedStep


@dataclass(frozen=True, slots=True)
class Head:
    """The first record.

    Attributes:
        identity: of the exported worklist, see ``WorklistEntry.identity``.
        next_sequence, next_creation: the first numbers that were not in use.
        at: when the export began, seconds since the epoch.
        counts: the number of records of each kind, for a progress bar.
        origins: identities of the worklists that were imported into the exported one.
    """

    identity: str
    next_sequence: int
    next_creation: int
    at: float
    counts: Mapping[str, int] = field(default_factory=dict)
    origins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AeCursors:
    """The delivery cursors of an AE, per channel."""

    receiving_ae: str
    channels: Mapping[str, Progress]


@dataclass(frozen=True, slots=True)
class Purged:
    """The tombstone of a purged workitem, with the last entry of its history: when, by whom and why."""

    uid: str
    last: HistoryEntry


@dataclass(frozen=True, slots=True)
class Tail:
    """The last record: the export is complete. The numbers are those of ``Head`` at the end of the export."""

    next_sequence: int
    next_creation: int


Record: TypeAlias = Head | Log | AeCursors | Workitem | Purged | PerformedStep | Batch | Tail


class ImportOutcome(Enum):
    """What the import did with a record."""

    IMPORTED = "imported"
    UNCHANGED = "unchanged"
    CONFLICT = "conflicts"
    LEFT_OUT = "left_out"


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What the import did with a record, and why it was not imported."""

    outcome: ImportOutcome
    why: str = ""


IMPORTED = ImportResult(ImportOutcome.IMPORTED)
UNCHANGED = ImportResult(ImportOutcome.UNCHANGED)


def conflict(why: str) -> ImportResult:
    """The result for a record that differs from the record here, which is kept."""
    return ImportResult(ImportOutcome.CONFLICT, why)


def _as_requested(state: Subscription) -> Subscription:
    return state


def effective_subscriptions(
    log: Log, granted: Callable[[Subscription], Subscription] = _as_requested
) -> tuple[Subscription, list[tuple[bytes, str]]]:
    """The global subscription and the filters that an AE's acts amount to, regardless of their numbers.

    ``granted`` maps a requested subscription to the one that is granted here, where Deletion Locks may be off.
    """
    current, acts = standing(log), {act.sequence: act for act in log.acts}
    filters = [(_filter(acts[act]), granted(state).value) for act, state in current.filters.items()]
    return granted(current.everything), sorted(filters)


def _filter(act: GlobalAct) -> bytes:
    return orjson.dumps([act.filter, act.mechanisms.words()], option=orjson.OPT_SORT_KEYS)


ENTRY_EXISTS = conflict("the store has an unreadable entry under its key")


def compare(stored: Workitem, exported: Workitem) -> ImportResult:
    """Compare two workitems with the same UID by content, state and owner, but not by events."""
    is_equal = stored.attributes == exported.attributes and stored.owner == exported.owner
    return UNCHANGED if is_equal else conflict("exists here with different content, which is kept")
