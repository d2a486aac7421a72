# SPDX-License-Identifier: AGPL-3.0-or-later
"""Initial State Reports of a global subscribe with lock, made when they are sent (PS3.4 CC.2.3)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from ..core.events import Event, state_report
from ..core.statuses import UpsError
from ..core.workitem import Workitem
from ..delivery.port import Burst, Unreachable
from .subscriptions import Subscriptions
from .workitem_store import WorkitemStore

_BATCH: Final = 100


class InitialReports:
    """Turns a burst into events in small batches, so that a subscribe to 100,000 workitems is answered at once."""

    def __init__(self, workitems: WorkitemStore, subscriptions: Subscriptions) -> None:
        self._workitems = workitems
        self._subscriptions = subscriptions

    async def burst(self, burst: Burst, after: int, limit: int) -> list[Event]:
        """The next reports after a sequence, with the present states; empty if there are no more.

        Raises Unreachable while the worklist is being loaded; the reports are sent later.
        """
        number = max(0, after - burst.first)
        reports: list[Event] = []
        while len(reports) < limit:
            workitems = self._workitems_after(number, burst.through, min(_BATCH, limit - len(reports)))
            if not workitems:
                break
            number = workitems[-1].created
            reports.extend(
                self._report(burst, workitem) for workitem in workitems if self._is_due(burst, workitem)
            )
            await asyncio.sleep(0)  # other tasks get a turn, however many workitems owe no report
        return reports

    def _workitems_after(self, number: int, through: int, limit: int) -> Sequence[Workitem]:
        try:
            return self._workitems.created(number, through, limit)
        except UpsError as error:
            raise Unreachable(error.detail) from error

    def _is_due(self, burst: Burst, workitem: Workitem) -> bool:
        return self._subscriptions.report_due(burst.receiving_ae, burst.act, workitem)

    @staticmethod
    def _report(burst: Burst, workitem: Workitem) -> Event:
        report = state_report(workitem.attributes, burst.receiving_ae)
        sequence = burst.first + workitem.created
        return Event(sequence, report.type, workitem.uid, report.information, (burst.receiving_ae,), burst.at)
