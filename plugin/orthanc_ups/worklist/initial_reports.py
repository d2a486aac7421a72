# SPDX-License-Identifier: AGPL-3.0-or-later
"""Initial State Reports of a global subscribe with lock, made when they are sent (PS3.4 CC.2.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from ..core.events import Event, state_report
from ..core.workitem import Workitem
from ..delivery.port import Burst
from .ledger import Ledger

_LOOKED_AT: Final = 500


class InitialReports:
    """Turns a burst into events, some at a time, so that an act on 100,000 workitems costs nothing when made."""

    def __init__(self, created: Callable[[int, int, int], Sequence[Workitem]], ledger: Ledger) -> None:
        """Args:
        created: ``(after, through, limit)`` gives workitems in the order of creation numbers.
        """
        self._created = created
        self._ledger = ledger

    async def burst(self, burst: Burst, after: int, limit: int) -> list[Event]:
        """The next reports behind a sequence, with the states of now; empty if there are no more."""
        number = max(0, after - burst.first)
        reports: list[Event] = []
        while len(reports) < limit:
            looked_at = min(_LOOKED_AT, limit - len(reports))
            workitems = self._created(number, burst.through, looked_at)
            if not workitems:
                break
            number = workitems[-1].created
            reports.extend(self._report(burst, one) for one in workitems if self._is_due(burst, one))
        return reports

    def _is_due(self, burst: Burst, workitem: Workitem) -> bool:
        return self._ledger.report_due(burst.receiving_ae, burst.act, workitem)

    @staticmethod
    def _report(burst: Burst, workitem: Workitem) -> Event:
        told = state_report(workitem.attributes, burst.receiving_ae)
        sequence = burst.first + workitem.created
        return Event(sequence, told.type, workitem.uid, told.information, (burst.receiving_ae,), burst.at)
