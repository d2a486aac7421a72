# SPDX-License-Identifier: AGPL-3.0-or-later
"""Who is subscribed to what, derived from acts (PS3.4 CC.2.3, Table CC.2.3-2).

Each AE has a log of its global acts; each workitem has its creation number and the last specific act of each AE.
``subscribed`` folds both. So a global act on any number of workitems is a single write.

Where PS3.4 does not say: several filters of an AE add up; a plain global subscription takes precedence over
filters; Suspend on …34.5 ends the plain one, on …34.5.1 the filters; Unsubscribe on …34.5 ends
all subscriptions of the AE, on …34.5.1 the filters, suspended ones included, and every subscription to a workitem
that one of them made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from .dataset import DataSet
from .mechanisms import Mechanisms
from .numbers import Numbers
from .workitem import SpecificAct, Subscription, Workitem

MAXIMUM_ACTS: Final = 1_000
"""Greatest number of acts in a log that subscribes."""


class ActKind(Enum):
    """What a global act does."""

    LOCK = "subscribe with lock"
    NO_LOCK = "subscribe without lock"
    SUSPEND = "suspend"
    UNSUBSCRIBE = "unsubscribe"

    @property
    def subscribes(self) -> bool:
        """True for both ways to subscribe."""
        return self in (ActKind.LOCK, ActKind.NO_LOCK)


_STATE_OF: Final = {ActKind.LOCK: Subscription.LOCK, ActKind.NO_LOCK: Subscription.NO_LOCK}


_NONE_MATCHED: Final = Numbers()


@dataclass(frozen=True, slots=True)
class GlobalAct:
    """An act of an AE on …34.5 or …34.5.1.

    Attributes:
        sequence: its number in the one order of acts and events.
        kind: what it does.
        through: the highest creation number at that time; workitems above it were created later.
        filtered: True if it was made on the Filtered Global Subscription.
        filter: the identifier of a filtered subscribe, else None.
        matched: creation numbers of the workitems that the filter matched at that time.
        at: seconds since the epoch.
        mechanisms: how the filter matches beyond the basic ways.
    """

    sequence: int
    kind: ActKind
    through: int
    filtered: bool = False
    filter: DataSet | None = None
    matched: Numbers = _NONE_MATCHED
    at: float = 0.0
    mechanisms: Mechanisms = Mechanisms.NONE


@dataclass(frozen=True, slots=True)
class Log:
    """The global acts of one AE, by sequence."""

    receiving_ae: str
    acts: tuple[GlobalAct, ...] = ()
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """The combined effect of an AE's global acts on new workitems.

    Attributes:
        everything: the state that the plain global subscription gives.
        filters: the state that each filtered subscribe gives, by its sequence number.
        suspended: filtered subscribes that match no new workitems; subscriptions that they made before remain.
    """

    everything: Subscription = Subscription.NONE
    filters: Mapping[int, Subscription] = field(default_factory=dict)
    suspended: frozenset[int] = frozenset()

    def __bool__(self) -> bool:
        return self.everything is not Subscription.NONE or bool(self.filters)

    def after(self, act: GlobalAct) -> Standing:
        """The standing after another act (PS3.4 Table CC.2.3-2, column "Global")."""
        if act.filtered:
            return self._after_filtered(act)
        if act.kind is ActKind.UNSUBSCRIBE:
            return Standing()
        return replace(self, everything=_STATE_OF.get(act.kind, Subscription.NONE))

    def _after_filtered(self, act: GlobalAct) -> Standing:
        if act.kind.subscribes:
            return replace(self, filters={**self.filters, act.sequence: _STATE_OF[act.kind]})
        suspended = self.suspended | self.filters.keys() if act.kind is ActKind.SUSPEND else frozenset()
        return replace(self, filters={}, suspended=suspended)

    def took(self, act: int) -> bool:
        """True if no Unsubscribe has ended a filtered subscribe; it may be suspended."""
        return act in self.filters or act in self.suspended

    def at_creation(self, matched: tuple[int, ...]) -> Subscription:
        """The AE's state for a new workitem whose attributes match the filters ``matched``."""
        if self.everything is not Subscription.NONE:
            return self.everything
        granted = [self.filters[act] for act in matched if act in self.filters]
        if not granted:
            return Subscription.NONE
        return Subscription.LOCK if Subscription.LOCK in granted else Subscription.NO_LOCK


def standing(log: Log) -> Standing:
    """Fold a log into the standing for new workitems."""
    now = Standing()
    for act in log.acts:
        now = now.after(act)
    return now


def subscribed(log: Log, workitem: Workitem, before: int | None = None) -> Subscription:
    """The UPS subscription state of the log's AE for one workitem.

    ``before`` leaves out acts from that sequence number on.
    """
    return _folded(log, workitem, before)[0]


def subscribed_at(log: Log, workitem: Workitem) -> float:
    """When the AE's present subscription state began: seconds since the epoch, 0 if at the creation."""
    return _folded(log, workitem, None)[1]


def _folded(log: Log, workitem: Workitem, before: int | None) -> tuple[Subscription, float]:
    """The state of an AE for a workitem, and when it began: all acts of the AE, applied in the order of sequences.

    All that is stored per AE and workitem is the AE's last act on this very workitem. Global acts before the creation
    of the workitem decide its initial state; an act applies to the workitems up to its ``through``.

    Example: AI1 subscribes to all (sequence 40), workitem 7 is created, AI1 subscribes to it with lock (sequence 44)
    and unsubscribes globally (sequence 50). Folded: none, then subscribed, then subscribed with lock, then none.
    """
    specific = workitem.acts.get(log.receiving_ae)
    if specific and before is not None and specific.sequence >= before:
        specific = None
    now, state, at = Standing(), None, 0.0
    for act in log.acts:
        if before is not None and act.sequence >= before:
            break
        if state is None and act.through >= workitem.created:
            state = now.at_creation(workitem.filtered)
        if specific and specific.sequence < act.sequence:
            state, at, specific = specific.state, specific.at, None
        if state is not None:
            after = _after(state, act, workitem, now)
            state, at = after, at if after is state else act.at
        now = now.after(act)
    if specific:
        return specific.state, specific.at
    return (now.at_creation(workitem.filtered) if state is None else state), at


def _after(state: Subscription, act: GlobalAct, workitem: Workitem, now: Standing) -> Subscription:
    """Rows "globally" of PS3.4 Table CC.2.3-2, for an existing workitem."""
    if act.kind is ActKind.SUSPEND:
        return state
    if act.kind is ActKind.UNSUBSCRIBE:
        return Subscription.NONE if _touches(act, workitem.created, workitem.filtered, now) else state
    if state is Subscription.NONE and (not act.filtered or workitem.created in act.matched):
        return _STATE_OF[act.kind]
    return state


def _touches(act: GlobalAct, created: int, filtered: tuple[int, ...], now: Standing) -> bool:
    """True if an Unsubscribe applies to a workitem: always, or if one of the ended filters matched it."""
    if not act.filtered:
        return True
    return created in act.matched or any(map(now.took, filtered))


def still_in_force(act: SpecificAct, log: Log, created: int, filtered: tuple[int, ...]) -> Subscription:
    """The state from an AE's last act on a workitem, or NONE if a later global Unsubscribe has ended it.

    ``created`` and ``filtered`` are those of the workitem. No other global act changes it (PS3.4 Table CC.2.3-2).
    """
    now = Standing()
    for earlier in log.acts:
        ends = earlier.kind is ActKind.UNSUBSCRIBE and earlier.sequence > act.sequence
        if ends and _touches(earlier, created, filtered, now):
            return Subscription.NONE
        now = now.after(earlier)
    return act.state


def initial_report_due(log: Log, act: GlobalAct, workitem: Workitem) -> bool:
    """True if a global subscribe with lock owes the AE a State Report for this workitem.

    It does for each UPS that was Not Subscribed (PS3.4 Table CC.2.3-2) and has been subscribed to since.
    """
    if act.kind is not ActKind.LOCK or workitem.created > act.through:
        return False
    if act.filtered and workitem.created not in act.matched:
        return False
    if subscribed(log, workitem, before=act.sequence) is not Subscription.NONE:
        return False
    return subscribed(log, workitem) is not Subscription.NONE


def filters_taken(log: Log) -> Numbers:
    """The workitems that the filters, suspended ones included, matched when they were made."""
    now = standing(log)
    numbers = (n for act in log.acts if now.took(act.sequence) for n in act.matched)
    return Numbers.of(numbers)


def appended(log: Log, act: GlobalAct) -> Log:
    """The log with another act; an Unsubscribe on …34.5 replaces all earlier ones, which no longer have an effect."""
    acts = () if act.kind is ActKind.UNSUBSCRIBE and not act.filtered else log.acts
    return replace(log, acts=(*acts, act), revision=log.revision + 1)


def emptied(log: Log) -> Log:
    """The log of an AE without any subscription, as a single Unsubscribe on …34.5, which is equivalent."""
    last = log.acts[-1]
    ended = GlobalAct(last.sequence, ActKind.UNSUBSCRIBE, last.through, at=last.at)
    return replace(log, acts=(ended,))


def compacted(log: Log) -> Log:
    """The log without acts that a later, equal one repeats.

    Only plain logs are changed (at most a leading Unsubscribe, then one way of subscribing and suspends). Call it only
    once the initial reports of all acts are delivered, because they are derived from the log as it was.
    """
    first = log.acts[:1] if log.acts and log.acts[0].kind is ActKind.UNSUBSCRIBE else ()
    acts = log.acts[len(first) :]
    kinds = {act.kind for act in acts if act.kind.subscribes}
    if any(act.filtered for act in acts) or len(kinds) > 1:
        return log
    last = [at for at, act in enumerate(acts) if act.kind.subscribes][-1:]
    if not last:
        return log
    suspends = acts[last[0] + 1 :][:1]
    return replace(log, acts=(*first, acts[last[0]], *suspends))


def joined(receiving_ae: str, logs: Sequence[Log]) -> Log:
    """The log of an AE that was stored under several titles, subscribed to everything that any of them was.

    An act that ends or suspends a subscription of one title does not end those of other titles: an event too many is
    better than one too few. A Deletion Lock of any title is one of the joined title.
    """
    filtered = [frozenset(act.sequence for act in log.acts if act.filtered) for log in logs]
    whole = any(all(superset >= sequences for sequences in filtered) for superset in filtered)
    standings = [standing(log) for log in logs]
    plain = max((state.everything for state in standings), key=_STRENGTH.__getitem__)
    acts: dict[int, GlobalAct] = {}
    for log, now in zip(logs, standings, strict=True):
        for act in log.acts:
            joined_act = _joined_filter(act, now, whole) if act.filtered else _joined_plain(act, plain)
            if joined_act is not None:
                acts[act.sequence] = joined_act
    revision = max(log.revision for log in logs) + 1
    return Log(receiving_ae, tuple(acts[sequence] for sequence in sorted(acts)), revision)


_STRENGTH: Final = {Subscription.NONE: 0, Subscription.NO_LOCK: 1, Subscription.LOCK: 2}


def _joined_filter(act: GlobalAct, now: Standing, whole: bool) -> GlobalAct | None:
    """The act, if all filtered acts are of one title (``whole``), or if its subscription has not ended; else None."""
    return act if whole or now.took(act.sequence) else None


def _joined_plain(act: GlobalAct, plain: Subscription) -> GlobalAct | None:
    """``plain`` is the strongest plain subscription of all titles."""
    if act.kind is ActKind.UNSUBSCRIBE:
        return None
    if plain is Subscription.LOCK:
        return act if act.kind is ActKind.LOCK else None
    if plain is Subscription.NO_LOCK and act.kind is ActKind.SUSPEND:
        return replace(act, kind=ActKind.NO_LOCK)
    return act


def strongest(receiving_aes: Iterable[str], logs: Mapping[str, Log], workitem: Workitem) -> SpecificAct:
    """The strongest subscription to a workitem of an AE that was stored under several titles (sequence 0)."""
    states = ((subscribed(log, workitem), subscribed_at(log, workitem))
              for log in (logs.get(ae, Log(ae)) for ae in receiving_aes))  # fmt: skip
    state, at = max(states, key=lambda pair: (_STRENGTH[pair[0]], pair[1]))
    return SpecificAct(0, state, at)
