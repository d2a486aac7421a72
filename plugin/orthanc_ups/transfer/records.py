# SPDX-License-Identifier: AGPL-3.0-or-later
"""The records of an export.

An export is a stream of records: ``Head``; then the logs of global acts (``Log``), the cursors of
each AE (``AeCursors``), the workitems (``Workitem``, with all their waiting events), the purged ones (``Purged``), the
performed procedure steps of modalities (``PerformedStep``), the dead letters (``Batch``); finally ``Tail``.

A worklist may change while it is exported. Each record is true at its moment, and their order makes sure that no event
is missed: a waiting event is in the workitem, after the cursor, or later among the dead letters. At worst it is in
both, or was delivered meanwhile and is repeated. Performed steps come after their workitems for the same reason.
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
    """How far delivery is with an AE, per channel."""

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
class Verdict:
    """What the import did with a record, and why if it was not imported."""

    outcome: ImportOutcome
    why: str = ""


IMPORTED = Verdict(ImportOutcome.IMPORTED)
UNCHANGED = Verdict(ImportOutcome.UNCHANGED)


def conflict(why: str) -> Verdict:
    """The record differs from what is here, which is kept."""
    return Verdict(ImportOutcome.CONFLICT, why)


def _as_it_is(state: Subscription) -> Subscription:
    return state


def meaning(
    log: Log, granted: Callable[[Subscription], Subscription] = _as_it_is
) -> tuple[Subscription, list[tuple[bytes, str]]]:
    """The global subscription and the filters that an AE's acts amount to, regardless of their numbers.

    ``granted`` maps a requested subscription to the one that is granted here, where Deletion Locks may be off.
    """
    current, acts = standing(log), {act.sequence: act for act in log.acts}
    filters = [(_filter(acts[act]), granted(state).value) for act, state in current.filters.items()]
    return granted(current.everything), sorted(filters)


def _filter(act: GlobalAct) -> bytes:
    return orjson.dumps([act.filter, act.mechanisms.words()], option=orjson.OPT_SORT_KEYS)


ENTRY_EXISTS = conflict("its key in the store has an entry that cannot be read")


def compared(ours: Workitem, theirs: Workitem) -> Verdict:
    """Compare two workitems with the same UID: by content, state and owner, not by events."""
    is_equal = ours.attributes == theirs.attributes and ours.owner == theirs.owner
    return UNCHANGED if is_equal else conflict("exists here with other content, which is kept")
