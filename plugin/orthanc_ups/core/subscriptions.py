# SPDX-License-Identifier: AGPL-3.0-or-later
"""Who is subscribed to what, derived from acts (PS3.4 CC.2.3, Table CC.2.3-2).

Each AE has a log of its global acts; each workitem has its creation number and the last specific act of each AE.
``subscribed`` folds both. So a global act on any number of workitems is one write.

Where PS3.4 is silent: several filters of one AE add up; a plain global subscription takes precedence over
a filter; Suspend on …34.5 ends the plain one, on …34.5.1 the filters; Unsubscribe on …34.5 ends
everything of that AE, on …34.5.1 the filters, suspended ones included, and every subscription to a workitem that
one of them made.
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

MAXIMUM_ACTS = 1_000


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


_AS_STATE = {ActKind.LOCK: Subscription.LOCK, ActKind.NO_LOCK: Subscription.NO_LOCK}


_NONE_MATCHED: Final = Numbers()


@dataclass(frozen=True, slots=True)
class GlobalAct:
    """One act of an AE on …34.5 or …34.5.1.

    Attributes:
        sequence: its place in the order of everything.
        kind: what it does.
        through: the highest creation number at that time; workitems above it came later.
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
    """What an AE's global acts amount to for a workitem created now.

    Attributes:
        everything: the plain global subscription.
        filters: the state that each filtered subscribe gives, by its sequence number.
        suspended: filtered subscribes that match no new workitems; subscriptions that they made before remain.
    """

    everything: Subscription = Subscription.NONE
    filters: Mapping[int, Subscription] = field(default_factory=dict)
    suspended: frozenset[int] = frozenset()

    def __bool__(self) -> bool:
        return self.everything is not Subscription.NONE or bool(self.filters)

    def after(self, act: GlobalAct) -> Standing:
        """The standing after one more act (column "Global" of the table)."""
        if act.filtered:
            return self._after_filtered(act)
        if act.kind is ActKind.UNSUBSCRIBE:
            return Standing()
        return replace(self, everything=_AS_STATE.get(act.kind, Subscription.NONE))

    def _after_filtered(self, act: GlobalAct) -> Standing:
        if act.kind.subscribes:
            return replace(self, filters={**self.filters, act.sequence: _AS_STATE[act.kind]})
        suspended = self.suspended | self.filters.keys() if act.kind is ActKind.SUSPEND else frozenset()
        return replace(self, filters={}, suspended=suspended)

    def took(self, act: int) -> bool:
        """True if a filtered subscribe has not been ended by an Unsubscribe on …34.5.1; it may be suspended."""
        return act in self.filters or act in self.suspended

    def at_creation(self, matched: tuple[int, ...]) -> Subscription:
        """The subscription state of a workitem created now whose attributes match the filters ``matched``."""
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
    """Since when the AE has had its present subscription state: seconds since the epoch, 0 if since the creation."""
    return _folded(log, workitem, None)[1]


def _folded(log: Log, workitem: Workitem, before: int | None) -> tuple[Subscription, float]:
    """The state of an AE for one workitem, and since when: all its acts, by sequence, applied one after the other.

    Nothing is stored per AE and workitem but the AE's last act on this very workitem. Global acts that the AE made
    before the workitem was created decide how it begins; an act reaches the workitems up to its ``through``.

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
    """Rows "globally" of Table CC.2.3-2 for a workitem that exists."""
    if act.kind is ActKind.SUSPEND:
        return state
    if act.kind is ActKind.UNSUBSCRIBE:
        return Subscription.NONE if _touches(act, workitem.created, workitem.filtered, now) else state
    if state is Subscription.NONE and (not act.filtered or workitem.created in act.matched):
        return _AS_STATE[act.kind]
    return state


def _touches(act: GlobalAct, created: int, filtered: tuple[int, ...], now: Standing) -> bool:
    """True if an Unsubscribe applies to a workitem: to all, or to those that one of the ended filters matched."""
    if not act.filtered:
        return True
    return created in act.matched or any(map(now.took, filtered))


def still_in_force(act: SpecificAct, log: Log, created: int, filtered: tuple[int, ...]) -> Subscription:
    """The state from an AE's last act on a workitem, unless a later global Unsubscribe has ended it.

    ``created`` and ``filtered`` are those of the workitem. No other global act changes it (Table CC.2.3-2).
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

    It does for each UPS that was Not Subscribed (PS3.4 Table CC.2.3-2) and still is subscribed.
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
    """The log with one more act; an Unsubscribe on …34.5 makes all earlier ones meaningless."""
    acts = () if act.kind is ActKind.UNSUBSCRIBE and not act.filtered else log.acts
    return replace(log, acts=(*acts, act), revision=log.revision + 1)


def emptied(log: Log) -> Log:
    """The log of an AE without any subscription, as one Unsubscribe on …34.5, which says the same."""
    last = log.acts[-1]
    ended = GlobalAct(last.sequence, ActKind.UNSUBSCRIBE, last.through, at=last.at)
    return replace(log, acts=(ended,))


def compacted(log: Log) -> Log:
    """The log without acts that a later, equal one repeats.

    Only for plain logs (at most a leading Unsubscribe, then one way of subscribing and suspends), and only
    when the initial reports of all of its acts are delivered: those are derived from the log as it was.
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
    """One log for an AE that was stored under several titles, subscribed to everything that any of them was.

    An act that ends or suspends a subscription of one title does not end one that was made under another: an event too
    many is better than one too few. A Deletion Lock under any title is one under the joined title.
    """
    filtered = [frozenset(act.sequence for act in log.acts if act.filtered) for log in logs]
    whole = any(all(own >= sequences for sequences in filtered) for own in filtered)
    now = [standing(log) for log in logs]
    plain = max((state.everything for state in now), key=_STRENGTH.__getitem__)
    acts: dict[int, GlobalAct] = {}
    for log, own in zip(logs, now, strict=True):
        for act in log.acts:
            joined_acts = _joined_filter(act, own, whole) if act.filtered else _joined_plain(act, plain)
            if joined_acts is not None:
                acts[act.sequence] = joined_acts
    revision = max(log.revision for log in logs) + 1
    return Log(receiving_ae, tuple(acts[sequence] for sequence in sorted(acts)), revision)


_STRENGTH: Final = {Subscription.NONE: 0, Subscription.NO_LOCK: 1, Subscription.LOCK: 2}


def _joined_filter(act: GlobalAct, own: Standing, whole: bool) -> GlobalAct | None:
    """If only one title had filters, they stay as they are; else those that were not ended."""
    return act if whole or own.took(act.sequence) else None


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
