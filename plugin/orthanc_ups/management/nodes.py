# SPDX-License-Identifier: AGPL-3.0-or-later
"""The Orthancs that share this worklist, and their roles."""

from __future__ import annotations

from collections.abc import Callable

from . import answers
from .routing import Call, Route


class Nodes:
    """Handlers of ``/ups/api/nodes``."""

    def __init__(self, report: Callable[[], answers.NodesJson]) -> None:
        self._report = report

    def routes(self) -> tuple[Route, ...]:
        """The route of the list of nodes."""
        return (Route("GET", "/nodes", self.nodes),)

    async def nodes(self, call: Call) -> answers.NodesJson:
        """The Orthancs that share this worklist, the leader first."""
        return self._report()
