# SPDX-License-Identifier: AGPL-3.0-or-later
"""The management API on fakes, with a client."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from orthanc_ups.core.ae_titles import AeTitles
from orthanc_ups.core.commands import Create, Requester
from orthanc_ups.dicomweb.origins import Origins
from orthanc_ups.dicomweb.request import WebRequest
from orthanc_ups.dicomweb.response import WebResponse
from orthanc_ups.dicomweb.rights import Rights
from orthanc_ups.management.api import ManagementApi, Ports
from orthanc_ups.management.nodes import Nodes
from orthanc_ups.management.storage import Storage
from orthanc_ups.management.templates import read_templates
from orthanc_ups.rules.routes import RuleRoutes
from tests.support.fake_management import (
    FakeClock,
    FakeDelivery,
    FakeDimse,
    FakeModalities,
    FakeOrthanc,
    FakeWorklist,
    activity,
    facts,
)
from tests.support.memory_store import InMemoryEntries
from tests.support.workitems import minimal, uid

JSON = {"content-type": "application/json"}


@dataclass
class ManagementRig:
    """The API with its fakes."""

    clock: FakeClock = field(default_factory=FakeClock)
    delivery: FakeDelivery = field(default_factory=FakeDelivery)
    orthanc: FakeOrthanc = field(default_factory=FakeOrthanc)
    templates: list[Any] = field(default_factory=list)
    warnings: tuple[str, ...] = ()
    users: dict[str, tuple[str, ...]] = field(default_factory=dict)
    user: str | None = "anna"
    allowed_origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.worklist = FakeWorklist(self.clock)
        self.activity = activity(self.worklist, self.clock)
        self.ports = Ports(
            self.worklist,
            self.worklist,
            self.delivery,
            FakeDimse(),
            self.orthanc,
            FakeModalities(),
            self.activity,
            self.clock,
            facts(templates=read_templates(self.templates), warnings=self.warnings),
            Rights(self.users, AeTitles()),
            Origins(self.allowed_origins),
        )
        storage = Storage(InMemoryEntries(), self.clock.now)
        nodes = Nodes(lambda: {"epoch": 0, "lease": 0.0, "nodes": []})
        self.api = ManagementApi(self.ports, (*nodes.routes(), *storage.routes(), *RuleRoutes(None).routes()))

    def answer(
        self,
        method: str,
        path: str,
        content: Any = None,
        *,
        query: str = "",
        headers: dict[str, str] | None = None,
    ) -> WebResponse:
        body = b"" if content is None else json.dumps(content).encode()
        shown = JSON if headers is None else headers
        request = WebRequest(method, path, query, shown, body, "http://pacs:8042/dicom-web", user=self.user)
        return asyncio.run(self._whole(request))

    async def _whole(self, request: WebRequest) -> WebResponse:
        return await (await self.api.answer(request)).whole()

    def ask(self, method: str, path: str, content: Any = None, **more: Any) -> Any:
        """The content of an answer, whose status must be a success."""
        answer = self.answer(method, path, content, **more)
        assert answer.status == 200, answer.body
        return json.loads(answer.body)

    def refused(self, status: int, method: str, path: str, content: Any = None, **more: Any) -> Any:
        """The content of an answer, whose status must be an error."""
        answer = self.answer(method, path, content, **more)
        assert answer.status == status, answer.body
        return json.loads(answer.body)

    def have(self, number: int = 1, attributes: Any = None) -> str:
        """Put a workitem into the worklist."""
        requester = Requester("RIS", "DIMSE")
        asyncio.run(self.worklist.execute(Create(requester, uid(number), attributes or minimal())))
        return uid(number)
