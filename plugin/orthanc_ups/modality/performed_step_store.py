# SPDX-License-Identifier: AGPL-3.0-or-later
"""The performed procedure steps of the worklist: stored as notes, with an index in memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from ..core.statuses import RESOURCE_LIMITATION, UpsError
from ..store import keys
from ..store.documents import UnreadableDocument
from ..store.notes import Notes
from ..store.port import StoreUnavailable
from .performed_steps import PerformedStep

_log = logging.getLogger("orthanc_ups.modality")
_PREFIX: Final = "mpps/"
_MAXIMUM: Final = 100_000


class PerformedSteps:
    """All stored steps; used on the loop only."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._order: dict[str, float] = {}  # time of the last change by UID
        self._is_sorted = True  # the oldest first
        self._workitems: dict[str, tuple[str, ...]] = {}

    def load(self) -> None:
        """Read the stored steps. Entries that cannot be read are logged and left alone."""
        steps: list[PerformedStep] = []
        for entry in self._notes.stored():
            if entry.key.startswith(keys.note(_PREFIX)):
                try:
                    steps.append(PerformedStep.of_document(entry.document))
                except UnreadableDocument as error:
                    _log.error(
                        "Entry %s of the store is not readable; it is left alone: %s", entry.key, error
                    )
        self._order = {step.uid: step.changed for step in sorted(steps, key=lambda step: step.changed)}
        self._workitems = {step.uid: step.workitems for step in steps}

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, uid: str) -> bool:
        return uid in self._order

    def get(self, uid: str) -> PerformedStep | None:
        """The step with a UID; None if there is none."""
        if uid not in self._order:
            return None
        return PerformedStep.of_document(self._notes.note(_PREFIX + uid).document)

    def newest(self) -> Iterator[str]:
        """UIDs of all steps, the most recently changed first."""
        if not self._is_sorted:  # an import brought old ones
            self._order = dict(sorted(self._order.items(), key=lambda item: item[1]))
            self._is_sorted = True
        return reversed(list(self._order))

    def of_workitem(self, workitem: str) -> list[str]:
        """UIDs of the steps of a workitem, the most recently changed first."""
        return [uid for uid in self.newest() if workitem in self._workitems[uid]]

    async def write(self, step: PerformedStep) -> PerformedStep:
        """Store a new or changed step; returns it as it is stored.

        Raises:
            UpsError: 0213 if it cannot be stored now; the request can be sent again.
        """
        if step.uid not in self._order and len(self._order) >= _MAXIMUM:
            raise UpsError(RESOURCE_LIMITATION, f"there are {_MAXIMUM} performed procedure steps")
        stored = replace(step, revision=step.revision + 1)
        document = stored.document()
        try:
            await self._notes.note(_PREFIX + step.uid).write(lambda _: document)
        except StoreUnavailable as error:
            raise UpsError(RESOURCE_LIMITATION, f"Orthanc cannot store it now: {error}") from error
        self._order.pop(step.uid, None)
        newest = next(reversed(self._order.values()), step.changed)
        self._is_sorted = self._is_sorted and newest <= step.changed
        self._order[step.uid] = step.changed
        self._workitems[step.uid] = step.workitems
        return stored

    async def forget(self, final_before: float, any_before: float) -> None:
        """Delete steps that ended, or that were left IN PROGRESS, before a time. May raise StoreUnavailable."""
        for uid, changed in list(self._order.items()):
            step = self.get(uid) if changed < final_before else None
            if step is not None and (step.status.is_final or changed < any_before):
                await self._notes.note(_PREFIX + uid).remove()
                del self._order[uid], self._workitems[uid]
