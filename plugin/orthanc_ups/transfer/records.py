# SPDX-License-Identifier: AGPL-3.0-or-later
"""What an export consists of.

An export is a stream of records: ``Head``; then the logs of global acts (``Log``), how far delivery is
(``Reach``), the workitems (``Workitem``, with all their waiting events), the purged ones (``Purged``), the performed
procedure steps of modalities (``PerformedStep``), the dead letters (``Batch``); ``Tail``. A worklist may change while
it is exported. Each record is true at its moment, and the order sees to it that no event is missed: an event that
waits is found behind its cursor in the workitem, or later among the dead letters; at worst it is in both, or was
delivered meanwhile and will be repeated. A performed step comes after its workitems for the same reason.
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
        next_sequence, next_creation: no number from these on was in use.
        at: when the export began, seconds since the epoch.
        counts: how many records there were of each kind, for progress.
    """

    identity: str
    next_sequence: int
    next_creation: int
    at: float
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reach:
    """How far delivery is with an AE, per channel."""

    receiving_ae: str
    channels: Mapping[str, Progress]


@dataclass(frozen=True, slots=True)
class Purged:
    """A purged workitem that is remembered, with the last entry of its history: when, by whom and why."""

    uid: str
    last: HistoryEntry


@dataclass(frozen=True, slots=True)
class Tail:
    """The last record: the export is complete. Numbers as in ``Head``, but of the end."""

    next_sequence: int
    next_creation: int


Record: TypeAlias = Head | Log | Reach | Workitem | Purged | PerformedStep | Batch | Tail


class Fate(Enum):
    """What became of a record."""

    IMPORTED = "imported"
    UNCHANGED = "unchanged"
    CONFLICT = "conflicts"
    LEFT_OUT = "left_out"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a record, and why if it was not taken."""

    fate: Fate
    why: str = ""


IMPORTED = Verdict(Fate.IMPORTED)
UNCHANGED = Verdict(Fate.UNCHANGED)


def conflict(why: str) -> Verdict:
    """Ours is kept."""
    return Verdict(Fate.CONFLICT, why)


def _as_it_is(state: Subscription) -> Subscription:
    return state


def meaning(
    log: Log, granted: Callable[[Subscription], Subscription] = _as_it_is
) -> tuple[Subscription, list[tuple[bytes, str]]]:
    """What an AE gets by its global acts, whatever their numbers; ``granted`` says what becomes of a lock."""
    now, acts = standing(log), {act.sequence: act for act in log.acts}
    filters = [(_filter(acts[act]), granted(state).value) for act, state in now.filters.items()]
    return granted(now.everything), sorted(filters)


def _filter(act: GlobalAct) -> bytes:
    return orjson.dumps([act.filter, act.mechanisms.words()], option=orjson.OPT_SORT_KEYS)


TAKEN = conflict("its place in the store is taken by an entry that cannot be read")


def compared(ours: Workitem, theirs: Workitem) -> Verdict:
    """Two workitems of one UID: content, state and owner count; who was told of it does not."""
    same = ours.attributes == theirs.attributes and ours.owner == theirs.owner
    return UNCHANGED if same else conflict("is here with other content; ours is kept")
