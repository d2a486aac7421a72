# SPDX-License-Identifier: AGPL-3.0-or-later
"""The worklist as rules use it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from datetime import datetime

from ..core import tags
from ..core.commands import Command
from ..core.dataset import text
from ..core.matching import Query
from ..core.outcome import Outcome
from ..core.workitem import Workitem
from ..worklist.workitem_store import WorkitemStore
from ..worklist.worklist import Worklist


class WorklistAccess:
    """Commands and queries of rules. Methods that read raise UpsError (0213) while nothing can be read."""

    def __init__(
        self,
        worklist: Worklist,
        workitems: WorkitemStore,
        identities: Callable[[], Sequence[str]],
        now: Callable[[], datetime],
    ) -> None:
        """``now`` returns the current time, aware, in the server's time zone."""
        self._worklist = worklist
        self._workitems = workitems
        self._identities = identities
        self.now = now

    async def execute(self, command: Command) -> Outcome:
        """Carry out a command. Raises UpsError."""
        return await self._worklist.execute(command)

    def workitem(self, uid: str) -> Workitem | None:
        """A workitem; None if it does not exist."""
        stored = self._workitems.get(uid)
        return stored.workitem if stored is not None else None

    def is_gone(self, uid: str) -> bool:
        """True if a workitem was purged, and that is still remembered."""
        return self._workitems.is_gone(uid)

    async def matching(self, query: Query, limit: int) -> Sequence[Workitem]:
        """Workitems that match a query, oldest first."""
        data_sets, _ = await self._workitems.search(query, 0, limit)
        workitems = (self.workitem(text(data_set, tags.SOP_INSTANCE_UID)) for data_set in data_sets)
        return [workitem for workitem in workitems if workitem is not None]

    def ended(self, after: tuple[float, int], before: float, limit: int) -> Sequence[Workitem]:
        """Final workitems that ended before a time (seconds since the epoch), ordered by their end.

        ``after`` is the end and the creation number of the last workitem of the previous page.
        """
        return self._workitems.ended(after, before, limit)

    def new_uid(self) -> str:
        """A new UID (PS3.5 §B.2)."""
        return f"2.25.{uuid.uuid4().int}"

    @property
    def identities(self) -> Sequence[str]:
        """The identity of this worklist, then those of the worklists whose exports were imported."""
        return self._identities()
