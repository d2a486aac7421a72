# SPDX-License-Identifier: AGPL-3.0-or-later
"""Periodic changes: workitems and tombstones go, old locks are released, expired workitems canceled (PS3.4 CC.1.1)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from ..core import tags
from ..core.commands import Command, Purge, ReleaseLock, RequestCancel, Requester
from ..core.dataset import DataSet, element, text
from ..core.matching import Query
from ..core.states import State
from ..core.statuses import UpsError
from ..core.workitem import Subscription, Workitem
from ..settings import Settings
from .subscriptions import Subscriptions
from .workitem_store import WorkitemStore
from .worklist import Worklist

_log = logging.getLogger("orthanc_ups.worklist")
RETENTION: Final = "retention"
_BEGINNING: Final = (0.0, 0)
PAGE: Final = 100
PAGES: Final = 50
_EXPIRED: Final = "The expiration date-time of the scheduled procedure step has passed"


class Retention:
    """Goes through the worklist periodically; every change it makes is a command like any other."""

    def __init__(
        self,
        settings: Settings,
        worklist: Worklist,
        workitems: WorkitemStore,
        subscriptions: Subscriptions,
        own_ae: str,
        now: Callable[[], datetime],
    ) -> None:
        self._settings = settings
        self._worklist = worklist
        self._workitems = workitems
        self._subscriptions = subscriptions
        self._requester = Requester(own_ae, RETENTION)
        self._now = now
        self._unlocking = _Position(*_BEGINNING)
        self._purging = _Position(*_BEGINNING)

    async def run_once(self) -> None:
        """One round. If a command on a workitem is refused, that is logged and the round continues."""
        now = self._now()
        if self._settings.cancel_expired:
            await self._cancel_expired(now)
        at = now.timestamp()
        if self._settings.maximum_lock_age:
            await self._release_locks(at)
        await self._purge(at)
        await self._workitems.tombstones.forget(at - self._settings.remember_purged)
        await self._forget_events(at - self._settings.replay_window)

    async def _forget_events(self, before: float) -> None:
        """Remove the events that are too old to be replayed from the event log."""
        forgotten = self._workitems.forget_events(before)
        while forgotten:
            await asyncio.sleep(0)
            forgotten = self._workitems.forget_events(before)

    async def _cancel_expired(self, now: datetime) -> None:
        until = now.strftime("%Y%m%d%H%M%S%z")
        identifier: DataSet = {
            tags.SOP_INSTANCE_UID: element("UI"),
            tags.EXPIRATION: element("DT", f"-{until}"),
            tags.STATE: element("CS", State.SCHEDULED.value),
        }
        information: DataSet = {tags.REASON_FOR_CANCELLATION: element("LT", _EXPIRED)}
        async for chunk in self._workitems.stream(Query.of(identifier, timezone=now.tzinfo)):
            for attributes in chunk:
                uid = text(attributes, tags.SOP_INSTANCE_UID)
                await self._try(RequestCancel(self._requester, uid, information, only_scheduled=True))

    async def _release_locks(self, at: float) -> None:
        """Release Deletion Locks on final workitems, if lock and final state are older than ``MaximumLockAge``."""
        before = at - self._settings.maximum_lock_age
        async for workitem in self._round(self._unlocking, before):
            for ae, state in list(self._subscriptions.subscribers(workitem)):
                if state is Subscription.LOCK and self._subscriptions.locked_at(ae, workitem) < before:
                    _log.warning("The Deletion Lock of %s on %s is too old; releasing it", ae, workitem.uid)
                    await self._try(ReleaseLock(self._requester, workitem.uid, ae))

    async def _purge(self, at: float) -> None:
        async for workitem in self._round(self._purging, at - self._settings.retain_final):
            if self._subscriptions.lock_holders(workitem):
                continue
            await self._try(Purge(self._requester, workitem.uid))

    async def _round(self, position: _Position, before: float) -> AsyncIterator[Workitem]:
        """A number of the workitems that ended before a time, continuing where the last round stopped.

        So the workitems that cannot be purged, however many, do not keep later ones from being reached.
        """
        for _ in range(PAGES):
            page = self._workitems.ended((position.ended, position.created), before, PAGE)
            for workitem in page:
                position.ended, position.created = workitem.ended or 0.0, workitem.created
                yield workitem
            if len(page) < PAGE:
                position.ended, position.created = _BEGINNING
                return
            await asyncio.sleep(0)

    async def _try(self, command: Command) -> None:
        try:
            await self._worklist.execute(command)
        except UpsError as error:
            _log.info("%s is postponed: %s", command.uid, error.detail)


@dataclass(slots=True)
class _Position:
    """How far a round has come: when its last workitem ended, and the creation number of that workitem."""

    ended: float
    created: int
