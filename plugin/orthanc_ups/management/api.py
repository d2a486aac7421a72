# SPDX-License-Identifier: AGPL-3.0-or-later
"""The management API ``/ups/api``: all routes of its handlers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..dicomweb.origins import Origins
from ..dicomweb.request import WebRequest
from ..dicomweb.response import WebResponse
from ..dicomweb.rights import Rights
from .activity import Activity
from .alerts import Alert
from .lists import Lists
from .openapi import description
from .overview import Overview
from .ports import (
    Commands,
    DeliveryControl,
    Dimse,
    Inspection,
    ManagementClock,
    Modalities,
    OrthancResources,
    ServerFacts,
)
from .resources import Resources
from .routing import Admission, Call, Route, Router
from .starting import Starting
from .subscribers import Subscribers
from .workitems import Workitems


@dataclass(frozen=True, slots=True)
class Ports:
    """The interfaces that the API uses."""

    commands: Commands
    inspection: Inspection
    delivery: DeliveryControl
    dimse: Dimse
    orthanc: OrthancResources
    modalities: Modalities
    activity: Activity
    clock: ManagementClock
    facts: ServerFacts
    rights: Rights
    origins: Origins
    admission: Admission | None = None
    more_alerts: Callable[[], Sequence[Alert]] = tuple


class ManagementApi:
    """Answers requests below ``/ups/api``. ``more`` are further routes, such as those of export and import."""

    def __init__(self, ports: Ports, more: Iterable[Route] = ()) -> None:
        routes = (Route("GET", "/openapi.json", self.openapi), *_routes(ports), *more)
        self._router = Router(routes, ports.facts.ae_title, ports.rights, ports.origins, ports.admission)

    @property
    def routes(self) -> tuple[Route, ...]:
        """All routes, from which openapi.json is generated."""
        return self._router.routes

    async def answer(self, request: WebRequest) -> WebResponse:
        """Answer a request, whose path is relative to ``/ups/api``. Never raises."""
        return await self._router.answer(request)

    async def openapi(self, call: Call) -> dict[str, Any]:
        """The description of this API in OpenAPI 3.1."""
        return description(self.routes)


def _routes(ports: Ports) -> tuple[Route, ...]:
    resources = Resources(ports.orthanc, ports.facts)
    starting = Starting(ports.clock, ports.facts)
    lists = Lists(ports.inspection, ports.clock, ports.facts.late)
    workitems = Workitems(
        ports.commands,
        ports.inspection,
        ports.delivery,
        resources,
        starting,
        ports.clock,
        ports.facts,
        ports.rights,
    )
    subscribers = Subscribers(
        ports.commands, ports.inspection, ports.delivery, ports.dimse, ports.modalities, ports.facts
    )
    overview = Overview(
        ports.inspection,
        lists,
        ports.delivery,
        ports.modalities,
        ports.activity,
        ports.clock,
        ports.facts,
        ports.rights,
        ports.more_alerts,
    )
    handlers = (overview, lists, workitems, subscribers, starting, resources)
    return tuple(route for handler in handlers for route in handler.routes())
