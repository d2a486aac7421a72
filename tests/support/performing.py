# SPDX-License-Identifier: AGPL-3.0-or-later
"""A modality that performs procedure steps without a network, on a service in memory."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from orthanc_ups.core.ae_titles import AeTitles
from orthanc_ups.core.commands import Requester
from orthanc_ups.core.dataset import DataSet, Element, element
from orthanc_ups.core.statuses import Status, UpsError
from orthanc_ups.dimse.message import CommandField
from orthanc_ups.modality.performances import ImageArchive, Performances
from orthanc_ups.modality.performed_step_service import PerformedStepService
from orthanc_ups.modality.scheduled_steps import step_id
from orthanc_ups.modality.stations import Stations
from orthanc_ups.settings import ModalityWorklist, Settings
from tests.support import workitems
from tests.support.modality import STUDY, begun, scheduled
from tests.support.service import ServiceRig

STEP = "2.25.501"
STATIONS = Stations(ModalityWorklist(stations={"CT1": "CTROOM1"}), AeTitles())


class Request:
    """An exchange whose data set has already arrived."""

    def __init__(self, field: CommandField, instance: str, dataset: DataSet, calling: str) -> None:
        self.field, self.instance, self.calling = field, instance, calling
        self._dataset = dataset
        self.answers: list[tuple[int, str]] = []

    @property
    def requester(self) -> Requester:
        return Requester(self.calling, "DIMSE")

    async def corrected_data_set(self) -> tuple[DataSet, tuple[str, ...]]:
        return self._dataset, ()

    async def answer(
        self, status: Status, instance: str = "", attributes: DataSet | None = None, comment: str = ""
    ) -> None:
        self.answers.append((status.code, comment))


class Modality:
    """MPPS on a service in memory."""

    def __init__(
        self,
        rig: ServiceRig,
        settings: Settings = Settings(),  # noqa: B008 - frozen
        archive: ImageArchive | None = None,
    ) -> None:
        self.rig = rig
        service = rig.service
        self.steps = service.performed_steps
        self.performances = Performances(
            service.worklist, service.workitems, STATIONS, service.identity, "ORTHANC", 0, archive
        )
        self.service = PerformedStepService(
            self.steps,
            self.performances,
            settings,
            lambda: datetime.fromtimestamp(service.clock.now(), UTC),
        )

    async def begin(self, *scheduled_steps: DataSet, uid: str = STEP, calling: str = "CT1") -> int:
        return await self._do(CommandField.N_CREATE, uid, begun(*scheduled_steps), calling)

    async def report(self, attributes: DataSet, uid: str = STEP) -> int:
        return await self._do(CommandField.N_SET, uid, attributes, "CT1")

    async def _do(self, field: CommandField, uid: str, dataset: DataSet, calling: str) -> int:
        request: Any = Request(field, uid, dataset, calling)
        task = self.service.serve(request)
        try:
            await task
        except UpsError as error:
            return error.status.code
        return int(request.answers[0][0])

    def note(self, workitem: str | None = None, uid: str = STEP) -> str:
        step = self.steps.get(uid)
        assert step is not None
        return step.notes.get(workitems.uid(1) if workitem is None else workitem, "")


async def scheduled_workitem(rig: ServiceRig, number: int = 1, **changes: Element | None) -> DataSet:
    """Create a workitem at CT1; return its step as a worklist query shows it."""
    station = element("SQ", workitems.code("CTROOM1", "99H", "CT"))
    await rig.create(
        number,
        workitems.minimal(
            t00404025=station, t0020000D=element("UI", STUDY), t00100020=element("LO", "P1"), **changes
        ),
    )
    return scheduled(t00400009=element("SH", step_id(rig.workitem(number).created)))
