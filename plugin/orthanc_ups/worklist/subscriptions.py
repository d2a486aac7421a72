# SPDX-License-Identifier: AGPL-3.0-or-later
"""All subscriptions, in memory: logs of global acts, and the AEs' acts on single workitems (PS3.4 CC.2.3)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import tzinfo
from typing import Final, NamedTuple, TypeAlias

from ..core.dataset import DataSet
from ..core.matching import Query
from ..core.mechanisms import Mechanisms
from ..core.statuses import UpsError
from ..core.subscriptions import (
    ActKind,
    GlobalAct,
    Log,
    Standing,
    appended,
    compacted,
    emptied,
    initial_report_due,
    standing,
    still_in_force,
    subscribed,
    subscribed_at,
)
from ..core.workitem import SpecificAct, Subscription, Workitem

_log = logging.getLogger("orthanc_ups.worklist")
_CACHED: Final = 20_000
_Facts: TypeAlias = tuple[int, int, tuple[int, ...], Mapping[str, SpecificAct]]
"""What the receivers of a workitem depend on."""


class _SpecificAct(NamedTuple):
    """An AE's last act on a workitem, with what is needed to decide whether a later global act ended it."""

    act: SpecificAct
    created: int
    filtered: tuple[int, ...]


class _SubscriberActs(dict[str, _SpecificAct]):
    """The acts of one AE by SOP Instance UID, the number of locks among them, and their order once it is needed."""

    def __init__(self) -> None:
        super().__init__()
        self.locks = 0
        self.ordered: list[str] | None = None

    def take(self, uid: str, specific: _SpecificAct) -> None:
        self.locks += _locks(specific) - _locks(self.get(uid))
        if uid not in self:
            self.ordered = None
        self[uid] = specific

    def drop(self, uid: str) -> None:
        specific = self.pop(uid, None)
        self.locks -= _locks(specific)
        if specific is not None:
            self.ordered = None

    def in_order(self) -> list[str]:
        """The latest workitems first."""
        if self.ordered is None:
            self.ordered = sorted(self, key=lambda uid: self[uid].created, reverse=True)
        return self.ordered


class SpecificSubscriptions:
    """The acts on single workitems that are still in force (PS3.4 Table CC.2.3-2, rows "specifically")."""

    def __init__(self) -> None:
        self._of: dict[str, _SubscriberActs] = {}

    def note(self, log: Log, workitem: Workitem) -> None:
        """Take over the AE's act on this workitem."""
        act = workitem.acts[log.receiving_ae]
        subscriptions = self._of.setdefault(log.receiving_ae, _SubscriberActs())
        specific = _SpecificAct(act, workitem.created, workitem.filtered)
        if _standing_of(log, specific) is Subscription.NONE:
            subscriptions.drop(workitem.uid)
        else:
            subscriptions.take(workitem.uid, specific)

    def unsubscribed(self, log: Log) -> None:
        """Forget the acts that a global Unsubscribe of the AE has ended."""
        subscriptions = self._of.get(log.receiving_ae, _SubscriberActs())
        for uid in [
            uid for uid, specific in subscriptions.items() if _standing_of(log, specific) is Subscription.NONE
        ]:
            subscriptions.drop(uid)

    def forget(self, workitem: Workitem) -> None:
        """The workitem was purged."""
        for ae in workitem.acts:
            if ae in self._of:
                self._of[ae].drop(workitem.uid)

    def aes(self) -> frozenset[str]:
        """Every AE with an act on a single workitem."""
        return frozenset(self._of)

    def count(self, receiving_ae: str) -> int:
        """The number of workitems to which the AE has subscribed individually."""
        return len(self._of.get(receiving_ae, ()))

    def locks(self, receiving_ae: str) -> int:
        """The number of workitems on which the AE has acquired a Deletion Lock individually."""
        return self._of[receiving_ae].locks if receiving_ae in self._of else 0

    def page(self, receiving_ae: str, offset: int, limit: int) -> list[tuple[str, Subscription]]:
        """A page of the workitems to which the AE has subscribed individually, with its state, the latest first."""
        subscriptions = self._of.get(receiving_ae, _SubscriberActs())
        return [
            (uid, subscriptions[uid].act.state) for uid in subscriptions.in_order()[offset : offset + limit]
        ]


def _standing_of(log: Log, specific: _SpecificAct) -> Subscription:
    return still_in_force(specific.act, log, specific.created, specific.filtered)


def _locks(specific: _SpecificAct | None) -> int:
    return int(specific is not None and specific.act.state is Subscription.LOCK)


@dataclass(slots=True)
class _Subscriber:
    log: Log
    standing: Standing
    version: str | None


class Subscriptions:
    """Who is subscribed to what. Only the worklist changes it, after a write has succeeded."""

    def __init__(self, zone: tzinfo | None = None) -> None:
        """``zone``: of date-times without offset, in filters and workitems; UTC if None."""
        self._zone = zone
        self._subscribers: dict[str, _Subscriber] = {}
        self.specifics = SpecificSubscriptions()
        self._filters: dict[int, Query | None] = {}
        self._receivers: dict[str, tuple[_Facts, tuple[str, ...]]] = {}
        self._generation = 0

    def clear(self) -> None:
        """Forget everything, before it is read again."""
        self._subscribers.clear()
        self._filters.clear()
        self._receivers.clear()
        self.specifics = SpecificSubscriptions()
        self._generation += 1

    # --- global acts ---

    def log(self, receiving_ae: str) -> Log:
        """The log of an AE; an empty one if it never acted."""
        subscriber = self._subscribers.get(receiving_ae)
        return subscriber.log if subscriber else Log(receiving_ae)

    def logs(self) -> tuple[Log, ...]:
        """The logs of every AE that ever acted globally."""
        return tuple(subscriber.log for subscriber in self._subscribers.values())

    def version(self, receiving_ae: str) -> str | None:
        """The stored version of an AE's log, None if it was never written."""
        subscriber = self._subscribers.get(receiving_ae)
        return subscriber.version if subscriber else None

    def standing(self, receiving_ae: str) -> Standing:
        """The combined effect of the AE's global acts on new workitems."""
        subscriber = self._subscribers.get(receiving_ae)
        return subscriber.standing if subscriber else Standing()

    def with_act(self, receiving_ae: str, act: GlobalAct, may_compact: bool) -> Log:
        """The AE's log with one more act, ready to be written."""
        log = self.log(receiving_ae)
        if log.acts and not self.is_subscribed(receiving_ae):
            log = emptied(log)
        return appended(compacted(log) if may_compact else log, act)

    def keep(self, log: Log, version: str | None) -> None:
        """Take over a log that was written or read; ``version`` is None if it is not in the store."""
        before = self.log(log.receiving_ae)
        sequences = {act.sequence for act in log.acts}
        for act in before.acts:
            if act.sequence not in sequences:
                self._filters.pop(act.sequence, None)
        before_sequences = {act.sequence for act in before.acts}
        if any(act.kind is ActKind.UNSUBSCRIBE and act.sequence not in before_sequences for act in log.acts):
            self.specifics.unsubscribed(log)
        self._subscribers[log.receiving_ae] = _Subscriber(log, standing(log), version)
        self._generation += 1
        for act in log.acts:
            if act.filter is not None and act.sequence not in self._filters:
                self._filters[act.sequence] = self._compiled(act.filter, act.mechanisms, log.receiving_ae)

    def _compiled(self, identifier: DataSet, mechanisms: Mechanisms, receiving_ae: str) -> Query | None:
        try:
            query = self.query(identifier, mechanisms)
        except UpsError as error:
            _log.error("A stored filter of %s is not valid, so it matches nothing: %s", receiving_ae, error)
            return None
        if not query.has_matching_keys:
            _log.error("A stored filter of %s has no key that a UPS has, so it matches nothing", receiving_ae)
            return None
        return query

    def query(self, identifier: DataSet, mechanisms: Mechanisms = Mechanisms.NONE) -> Query:
        """A filter as a compiled query. Raises UpsError (A900)."""
        return Query.of(identifier, mechanisms=mechanisms, timezone=self._zone)

    def matching_filters(self, attributes: DataSet) -> tuple[int, ...]:
        """Sequence numbers of the filtered acts in force whose filter a new workitem matches."""
        in_force = (act for subscriber in self._subscribers.values() for act in subscriber.standing.filters)
        queries = ((act, self._filters[act]) for act in in_force)
        return tuple(sorted(act for act, query in queries if query and query.matches(attributes)))

    # --- acts on single workitems ---

    def note(self, workitem: Workitem) -> None:
        """Take over the last act of each AE on this very workitem."""
        for ae in workitem.acts:
            self.note_act(ae, workitem)

    def note_act(self, receiving_ae: str, workitem: Workitem) -> None:
        """Take over the last act of an AE on this very workitem."""
        self.specifics.note(self.log(receiving_ae), workitem)

    def forget(self, workitem: Workitem) -> None:
        """The workitem was purged."""
        self._receivers.pop(workitem.uid, None)
        self.specifics.forget(workitem)

    # --- derived ---

    def state(self, receiving_ae: str, workitem: Workitem) -> Subscription:
        """The UPS subscription state (PS3.4 Table CC.2.3-2)."""
        return subscribed(self.log(receiving_ae), workitem)

    def receivers(self, workitem: Workitem) -> tuple[str, ...]:
        """The AEs that receive events of a workitem, sorted."""
        facts = self._generation, workitem.created, workitem.filtered, workitem.acts
        cached = self._receivers.get(workitem.uid)
        if cached and cached[0] == facts:
            return cached[1]
        receivers = tuple(ae for ae, state in self.subscribers(workitem) if state is not Subscription.NONE)
        if len(self._receivers) >= _CACHED:
            self._receivers.clear()
        self._receivers[workitem.uid] = facts, receivers
        return receivers

    def subscribers(self, workitem: Workitem) -> Iterator[tuple[str, Subscription]]:
        """Every AE that may be subscribed to a workitem, with its subscription state."""
        for ae in sorted({*self._subscribers, *workitem.acts}):
            acted_globally = ae in self._subscribers
            yield ae, self.state(ae, workitem) if acted_globally else workitem.acts[ae].state

    def lock_holders(self, workitem: Workitem) -> tuple[str, ...]:
        """The AEs that have a Deletion Lock on a workitem."""
        return tuple(ae for ae, state in self.subscribers(workitem) if state is Subscription.LOCK)

    def locked_at(self, receiving_ae: str, workitem: Workitem) -> float:
        """When an AE's Deletion Lock on a workitem began, in seconds since the epoch; 0 if that is unknown."""
        return subscribed_at(self.log(receiving_ae), workitem)

    def reports_due(self, workitem: Workitem) -> Iterator[tuple[str, int]]:
        """AE and global act of each initial State Report that a workitem owes, sent or not."""
        for log in self.logs():
            for act in log.acts:
                if initial_report_due(log, act, workitem):
                    yield log.receiving_ae, act.sequence

    def report_due(self, receiving_ae: str, act: int, workitem: Workitem) -> bool:
        """True if the global act with that sequence number owes the AE an initial State Report."""
        log = self.log(receiving_ae)
        global_act = next((candidate for candidate in log.acts if candidate.sequence == act), None)
        return global_act is not None and initial_report_due(log, global_act, workitem)

    def is_subscribed(self, receiving_ae: str) -> bool:
        """True if the AE has a global subscription, or may have one to some workitem."""
        return self._subscribed_globally(receiving_ae) or self.specifics.count(receiving_ae) > 0

    def _subscribed_globally(self, receiving_ae: str) -> bool:
        """True even if it is suspended, because existing subscriptions to workitems remain (PS3.4 CC.2.3)."""
        now, acts = self.standing(receiving_ae), self.log(receiving_ae).acts
        plain = any(act.kind.subscribes and not act.filtered for act in acts)
        return plain or bool(now.filters or now.suspended)

    def subscribed_aes(self) -> frozenset[str]:
        """Every AE with any subscription: the receivers of SCP Status Changes."""
        return frozenset(ae for ae in self.aes() if self.is_subscribed(ae))

    def aes(self) -> frozenset[str]:
        """Every AE that has ever subscribed to anything."""
        return frozenset({*self._subscribers, *self.specifics.aes()})
