# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which Orthancs are this worklist: their roles, and who leads."""

from __future__ import annotations

from collections.abc import Callable

from . import answers
from .routing import Call, Route


class Nodes:
    """Handlers of ``/ups/api/nodes``."""

    def __init__(self, report: Callable[[], answers.NodesJson]) -> None:
        self._report = report

    def routes(self) -> tuple[Route, ...]:
        """What is offered."""
        return (Route("GET", "/nodes", self.nodes),)

    async def nodes(self, call: Call) -> answers.NodesJson:
        """The Orthancs that are this worklist, the one that leads first."""
        return self._report()
