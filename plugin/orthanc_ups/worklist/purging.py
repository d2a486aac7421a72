# SPDX-License-Identifier: AGPL-3.0-or-later
"""Forgetting a final workitem, as soon as nobody needs it any more (PS3.4 CC.1.1)."""

from __future__ import annotations

import logging

from ..core import statuses
from ..core.commands import Purge
from ..core.outcome import Outcome
from ..core.reasons import discreet, reason_of
from ..core.statuses import UpsError
from ..core.workitem import HistoryEntry, Workitem
from .commits import Commits
from .state import WorklistState
from .workitem_store import StoredWorkitem

_log = logging.getLogger("orthanc_ups.worklist")


class Purging:
    """Carries out Purge. The caller holds the lock of the workitem."""

    def __init__(self, state: WorklistState, commits: Commits) -> None:
        self._state = state
        self._commits = commits

    async def carry_out(self, command: Purge, stored: StoredWorkitem, at: float) -> Outcome:
        """Put a tombstone where the workitem is. Raises UpsError, Conflict or StoreUnavailable.

        ``at`` in seconds since the epoch.
        """
        workitem, who = stored.workitem, str(command.requester)
        self._check(workitem)
        why = discreet(reason_of(command), workitem)
        await self._commits.sweep_one(workitem.uid)
        await self._state.workitems.purge(stored, HistoryEntry(at, who, "purged", why))
        self._state.subscriptions.forget(workitem)
        suffix = f" ({why})" if why else ""
        _log.info("%s: purged%s; workitem %s was %s", who, suffix, workitem.uid, workitem.state.value)
        return Outcome(statuses.SUCCESS, workitem.uid, reason=why)

    def _check(self, workitem: Workitem) -> None:
        if not workitem.state.is_final:
            detail = f"the UPS is {workitem.state.value}, not in a final state"
            raise UpsError(statuses.MAY_NOT_UPDATE, detail)
        holders = self._state.subscriptions.lock_holders(workitem)
        if holders:
            raise UpsError(statuses.MAY_NOT_UPDATE, f"held by a Deletion Lock of {', '.join(holders)}")
        if self._commits.waits(workitem):
            raise UpsError(statuses.MAY_NOT_UPDATE, "events of it are not delivered yet")
