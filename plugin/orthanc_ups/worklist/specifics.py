# SPDX-License-Identifier: AGPL-3.0-or-later
"""The subscriptions to single workitems, per AE: their number is known at any time, without reading workitems."""

from __future__ import annotations

from typing import NamedTuple

from ..core.subscriptions import Log, left_of
from ..core.workitem import SpecificAct, Subscription, Workitem


class _SpecificAct(NamedTuple):
    """An AE's last act on a workitem, and what decides whether a global act has ended it since."""

    act: SpecificAct
    created: int
    filtered: tuple[int, ...]


class _SubscriberActs(dict[str, _SpecificAct]):
    """Those of one AE by SOP Instance UID, how many hold a lock, and their order once it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.locks = 0
        self.ordered: list[str] | None = None

    def take(self, uid: str, own: _SpecificAct) -> None:
        self.locks += _locks(own) - _locks(self.get(uid))
        if uid not in self:
            self.ordered = None
        self[uid] = own

    def drop(self, uid: str) -> None:
        own = self.pop(uid, None)
        self.locks -= _locks(own)
        if own is not None:
            self.ordered = None

    def in_order(self) -> list[str]:
        """The latest workitems first."""
        if self.ordered is None:
            self.ordered = sorted(self, key=lambda uid: self[uid].created, reverse=True)
        return self.ordered


class SpecificSubscriptions:
    """What is left of the acts on single workitems (PS3.4 Table CC.2.3-2, rows "specifically")."""

    def __init__(self) -> None:
        self._of: dict[str, _SubscriberActs] = {}

    def note(self, log: Log, workitem: Workitem) -> None:
        """Remember what the log's AE did to this very workitem."""
        act = workitem.acts[log.receiving_ae]
        subscriptions = self._of.setdefault(log.receiving_ae, _SubscriberActs())
        own = _SpecificAct(act, workitem.created, workitem.filtered)
        if _left(log, own) is Subscription.NONE:
            subscriptions.drop(workitem.uid)
        else:
            subscriptions.take(workitem.uid, own)

    def logged(self, log: Log) -> None:
        """The AE unsubscribed globally: some may have ended by that."""
        subscriptions = self._of.get(log.receiving_ae, _SubscriberActs())
        for uid in [uid for uid, own in subscriptions.items() if _left(log, own) is Subscription.NONE]:
            subscriptions.drop(uid)

    def forget(self, workitem: Workitem) -> None:
        """The workitem was purged."""
        for ae in workitem.acts:
            if ae in self._of:
                self._of[ae].drop(workitem.uid)

    def aes(self) -> frozenset[str]:
        """Every AE that ever acted on a single workitem."""
        return frozenset(self._of)

    def count(self, receiving_ae: str) -> int:
        """To how many workitems the AE is subscribed one by one."""
        return len(self._of.get(receiving_ae, ()))

    def locks(self, receiving_ae: str) -> int:
        """How many of them it holds by a Deletion Lock of its own."""
        return self._of[receiving_ae].locks if receiving_ae in self._of else 0

    def page(self, receiving_ae: str, offset: int, limit: int) -> list[tuple[str, Subscription]]:
        """Some of them, the latest workitems first."""
        subscriptions = self._of.get(receiving_ae, _SubscriberActs())
        return [
            (uid, subscriptions[uid].act.state) for uid in subscriptions.in_order()[offset : offset + limit]
        ]


def _left(log: Log, own: _SpecificAct) -> Subscription:
    return left_of(own.act, log, own.created, own.filtered)


def _locks(own: _SpecificAct | None) -> int:
    return int(own is not None and own.act.state is Subscription.LOCK)
