# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the worklist does by itself: purge, release forgotten locks, cancel what has expired (PS3.4 CC.1.1)."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Final, Protocol

from ..core import tags
from ..core.commands import Command, Purge, ReleaseLock, RequestCancel, Requester
from ..core.dataset import DataSet, element, text
from ..core.matching import Query
from ..core.states import State
from ..core.statuses import UpsError
from ..core.workitem import Subscription, Workitem
from ..outcome import Outcome
from ..settings import Settings
from .ledger import Ledger

_log = logging.getLogger("orthanc_ups.worklist")
RETENTION: Final = "retention"
_AT_ONCE: Final = 500
_EXPIRED: Final = "The expiration date-time of the scheduled procedure step has passed"


class Door(Protocol):
    """The worklist, as far as retention needs it."""

    async def execute(self, command: Command) -> Outcome:
        """Carry out a command."""
        ...


class Memory(Protocol):
    """The projection, as far as retention needs it."""

    def ended_before(self, at: float, limit: int) -> Sequence[Workitem]:
        """Final workitems that ended before a time (seconds since the epoch), oldest first."""
        ...

    def stream(self, query: Query) -> AsyncIterator[list[DataSet]]:
        """Matches in chunks."""
        ...

    async def forget_tombstones(self, before: float) -> None:
        """Forget workitems purged before a time."""
        ...


class Retention:
    """Goes through the worklist now and then; every change it makes is a command like any other."""

    def __init__(
        self,
        settings: Settings,
        door: Door,
        memory: Memory,
        ledger: Ledger,
        own_ae: str,
        now: Callable[[], datetime],
    ) -> None:
        self._settings = settings
        self._door = door
        self._memory = memory
        self._ledger = ledger
        self._requester = Requester(own_ae, RETENTION)
        self._now = now

    async def run_once(self) -> None:
        """One round. A refusal of one workitem is logged and leaves the others alone."""
        now = self._now()
        if self._settings.cancel_expired:
            await self._cancel_expired(now)
        at = now.timestamp()
        if self._settings.maximum_lock_age:
            await self._release_locks(at)
        await self._purge(at)
        await self._memory.forget_tombstones(at - self._settings.remember_purged)

    async def _cancel_expired(self, now: datetime) -> None:
        until = now.strftime("%Y%m%d%H%M%S%z")
        identifier: DataSet = {
            tags.SOP_INSTANCE_UID: element("UI"),
            tags.EXPIRATION: element("DT", f"-{until}"),
            tags.STATE: element("CS", State.SCHEDULED.value),
        }
        information: DataSet = {tags.REASON_FOR_CANCELLATION: element("LT", _EXPIRED)}
        async for chunk in self._memory.stream(Query.of(identifier)):
            for found in chunk:
                uid = text(found, tags.SOP_INSTANCE_UID)
                await self._try(RequestCancel(self._requester, uid, information))

    async def _release_locks(self, at: float) -> None:
        """A lock of a final workitem is forgotten once it is older than ``MaximumLockAge``."""
        for workitem in self._memory.ended_before(at - self._settings.maximum_lock_age, _AT_ONCE):
            for ae, state in list(self._ledger.subscribers(workitem)):
                if state is Subscription.LOCK:
                    _log.warning("The Deletion Lock of %s on %s is forgotten; releasing it", ae, workitem.uid)
                    await self._try(ReleaseLock(self._requester, workitem.uid, ae))

    async def _purge(self, at: float) -> None:
        for workitem in self._memory.ended_before(at - self._settings.retain_final, _AT_ONCE):
            if not self._ledger.lock_holders(workitem):
                await self._try(Purge(self._requester, workitem.uid))

    async def _try(self, command: Command) -> None:
        try:
            await self._door.execute(command)
        except UpsError as error:
            _log.info("%s waits: %s", command.uid, error.detail)
