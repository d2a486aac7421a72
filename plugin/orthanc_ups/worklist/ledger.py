# SPDX-License-Identifier: AGPL-3.0-or-later
"""All subscriptions, in memory: the logs of global acts and who has acted on single workitems."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from ..core.dataset import DataSet
from ..core.matching import Query
from ..core.subscriptions import (
    GlobalAct,
    Log,
    Standing,
    appended,
    compacted,
    initial_report_due,
    standing,
    subscribed,
)
from ..core.workitem import SpecificAct, Subscription, Workitem

_CACHED: Final = 20_000


@dataclass(slots=True)
class _Subscriber:
    log: Log
    standing: Standing
    version: str | None


class Ledger:
    """Answers who is subscribed to what. Changed only by the worklist, after a write succeeded."""

    def __init__(self) -> None:
        self._subscribers: dict[str, _Subscriber] = {}
        self._specific: dict[str, set[str]] = {}
        self._filters: dict[int, Query] = {}
        self._receivers: dict[str, tuple[int, Mapping[str, SpecificAct], tuple[str, ...]]] = {}
        self._generation = 0

    # --- global acts ---

    def log(self, receiving_ae: str) -> Log:
        """The log of an AE; an empty one if it never acted."""
        found = self._subscribers.get(receiving_ae)
        return found.log if found else Log(receiving_ae)

    def logs(self) -> tuple[Log, ...]:
        """The logs of every AE that ever acted globally."""
        return tuple(found.log for found in self._subscribers.values())

    def version(self, receiving_ae: str) -> str | None:
        """The stored version of an AE's log, None if it was never written."""
        found = self._subscribers.get(receiving_ae)
        return found.version if found else None

    def standing(self, receiving_ae: str) -> Standing:
        """What the AE's global acts mean for new workitems."""
        found = self._subscribers.get(receiving_ae)
        return found.standing if found else Standing()

    def with_act(self, receiving_ae: str, act: GlobalAct, may_compact: bool) -> Log:
        """The AE's log with one more act, ready to be written."""
        log = self.log(receiving_ae)
        return appended(compacted(log) if may_compact else log, act)

    def keep(self, log: Log, version: str) -> None:
        """Take over a log that was written or read."""
        now = standing(log)
        self._subscribers[log.receiving_ae] = _Subscriber(log, now, version)
        self._generation += 1
        for act in log.acts:
            if act.filter is not None and act.sequence not in self._filters:
                self._filters[act.sequence] = Query.of(act.filter)

    def lose_version(self, receiving_ae: str) -> None:
        """The AE's entry vanished from the store; the next write makes it anew."""
        if receiving_ae in self._subscribers:
            self._subscribers[receiving_ae].version = None

    def matching_filters(self, attributes: DataSet) -> tuple[int, ...]:
        """The filtered acts in force whose filter a new workitem fits."""
        in_force = (act for found in self._subscribers.values() for act in found.standing.filters)
        return tuple(sorted(act for act in in_force if self._filters[act].matches(attributes)))

    # --- acts on single workitems ---

    def note(self, workitem: Workitem) -> None:
        """Remember which AEs have subscribed to this very workitem."""
        for ae, act in workitem.acts.items():
            known = self._specific.setdefault(ae, set())
            if act.state is Subscription.NONE:
                known.discard(workitem.uid)
            else:
                known.add(workitem.uid)

    def forget(self, workitem: Workitem) -> None:
        """The workitem was purged."""
        self._receivers.pop(workitem.uid, None)
        for ae in workitem.acts:
            self._specific.get(ae, set()).discard(workitem.uid)

    def specific(self, receiving_ae: str) -> frozenset[str]:
        """The workitems that an AE subscribed to one by one (it may have lost them by a global act since)."""
        return frozenset(self._specific.get(receiving_ae, ()))

    # --- derived ---

    def state(self, receiving_ae: str, workitem: Workitem) -> Subscription:
        """The UPS subscription state (PS3.4 Table CC.2.3-2)."""
        return subscribed(self.log(receiving_ae), workitem)

    def receivers(self, workitem: Workitem) -> tuple[str, ...]:
        """The AEs to be told of events of a workitem, sorted."""
        known = self._receivers.get(workitem.uid)
        if known and known[0] == self._generation and known[1] == workitem.acts:
            return known[2]
        found = tuple(ae for ae, state in self.subscribers(workitem) if state is not Subscription.NONE)
        if len(self._receivers) >= _CACHED:
            self._receivers.clear()
        self._receivers[workitem.uid] = self._generation, workitem.acts, found
        return found

    def subscribers(self, workitem: Workitem) -> Iterator[tuple[str, Subscription]]:
        """Every AE that has to do with a workitem, with its subscription state."""
        for ae in sorted({*self._subscribers, *workitem.acts}):
            yield ae, self.state(ae, workitem)

    def lock_holders(self, workitem: Workitem) -> tuple[str, ...]:
        """The AEs whose Deletion Lock keeps a workitem."""
        return tuple(ae for ae, state in self.subscribers(workitem) if state is Subscription.LOCK)

    def report_due(self, receiving_ae: str, act: int, workitem: Workitem) -> bool:
        """Whether the global act of that sequence number owes the AE an initial State Report."""
        log = self.log(receiving_ae)
        found = next((one for one in log.acts if one.sequence == act), None)
        return found is not None and initial_report_due(log, found, workitem)

    def everyone(self) -> frozenset[str]:
        """Every AE with a global subscription or one to some workitem: who hears of SCP Status Changes."""
        globally = {ae for ae, found in self._subscribers.items() if found.standing}
        return frozenset(globally | {ae for ae, uids in self._specific.items() if uids})

    def all_known(self) -> frozenset[str]:
        """Every AE that ever subscribed to anything."""
        return frozenset({*self._subscribers, *self._specific})
