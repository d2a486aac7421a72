# SPDX-License-Identifier: AGPL-3.0-or-later
"""Performed procedure steps of modalities (MPPS), read-only for operators: only modalities change them."""

from __future__ import annotations

from itertools import islice
from typing import Final

from ..core.dataset import items, text
from ..core.date_times import UTC
from ..dicomweb.response import HttpProblem
from ..modality import performed_steps as mpps
from ..modality.performed_step_store import PerformedSteps
from ..modality.performed_steps import PerformedStep
from ..worklist.workitem_store import WorkitemStore
from . import answers, bodies, views
from .routing import Call, Route

_IMAGES: Final = ("00081140", "00400220")
_ACCESSION_NUMBER: Final = "00080050"


class PerformedStepRoutes:
    """Handlers of ``/mpps``. ``steps`` is None while ``Ups.ModalityWorklist`` is not enabled."""

    def __init__(self, steps: PerformedSteps | None, workitems: WorkitemStore) -> None:
        self._steps = steps
        self._workitems = workitems

    def routes(self) -> tuple[Route, ...]:
        """Routes of performed procedure steps."""
        return (Route("GET", "/mpps", self.page), Route("GET", "/mpps/{uid}", self.step))

    async def page(self, call: Call, query: bodies.PerformedStepsQuery) -> answers.PerformedStepsJson:
        """Performed procedure steps of modalities (MPPS), the last changed first."""
        uids = list(self._uids(query.workitem))
        chosen = islice(uids, query.offset, query.offset + query.limit)
        rows = [self._row(step) for uid in chosen if (step := self._step(uid))]
        return {"total": len(uids), "offset": query.offset, "steps": rows}

    def _uids(self, workitem: str) -> list[str]:
        if self._steps is None:
            return []
        if workitem:
            return self._steps.of_workitem(workitem)
        return list(self._steps.newest())

    def _step(self, uid: str) -> PerformedStep | None:
        return None if self._steps is None else self._steps.get(uid)

    async def step(self, call: Call) -> answers.PerformedStepJson:
        """One performed procedure step with its attributes and history."""
        step = self._step(call.uid)
        if step is None:
            raise HttpProblem(404, "there is no performed procedure step with this UID")
        return {
            **self._row(step),
            "history": views.history(step.history),
            "attributes": views.nodes(step.attributes, UTC),
        }

    def _row(self, step: PerformedStep) -> answers.PerformedStepRow:
        content = step.attributes
        scheduled = items(content, mpps.SCHEDULED_ATTRIBUTES)
        series = items(content, mpps.SERIES)
        return {
            "uid": step.uid,
            "status": step.status.value,
            "ae": step.ae,
            "station": text(content, mpps.STATION_AE),
            "modality": text(content, mpps.MODALITY),
            "description": text(content, mpps.DESCRIPTION),
            "patient": views.patient(content),
            "study": next((study for item in scheduled if (study := text(item, mpps.STUDY))), ""),
            "accession": next(
                (number for item in scheduled if (number := text(item, _ACCESSION_NUMBER))), ""
            ),
            "series": len(series),
            "instances": sum(len(items(item, tag)) for item in series for tag in _IMAGES),
            "created": views.iso(step.created),
            "changed": views.iso(step.changed),
            "workitems": [self._workitem(step, uid) for uid in step.workitems],
            "note": step.notes.get("", ""),
        }

    def _workitem(self, step: PerformedStep, uid: str) -> answers.PerformedWorkitem:
        stored = self._workitems.get(uid)
        state = stored.workitem.state.value if stored else None
        return {"uid": uid, "state": state, "note": step.notes.get(uid, "")}
