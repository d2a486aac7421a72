# SPDX-License-Identifier: AGPL-3.0-or-later
"""The worklist as the interfaces (DIMSE, UPS-RS, management, rules) see it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from ..core.commands import Command
from ..core.dataset import DataSet
from ..core.matching import Query
from ..core.outcome import WHOLE, Outcome, Page, Paging


class WorklistPort(Protocol):
    """The worklist. Every method must be called on its asyncio loop."""

    async def execute(self, command: Command) -> Outcome:
        """Carry out a command. Raises UpsError if it is refused; then nothing has changed."""
        ...

    async def retrieve(self, uid: str) -> DataSet:
        """The attributes of a workitem, without Transaction UID. Raises UpsError (C307; 404 or 410)."""
        ...

    def document_of(self, uid: str) -> bytes:
        """The stored document of a workitem, which differs after each change.

        Raises UpsError (C307; 404 or 410).
        """
        ...

    def text_of(self, uid: str) -> bytes:
        """The attributes of a workitem as JSON (core/dataset.py).

        Raises UpsError (C307; 404 or 410).
        """
        ...

    def find(self, query: Query) -> AsyncIterator[list[DataSet]]:
        """The answers of a C-FIND in chunks (PS3.4 CC.2.8)."""
        ...

    async def search(self, query: Query, paging: Paging = WHOLE) -> Page[DataSet]:
        """One page of a search (PS3.18 §11.9) with its return attributes."""
        ...

    async def search_texts(self, query: Query, paging: Paging = WHOLE) -> Page[bytes]:
        """As ``search``, but each workitem as JSON (core/dataset.py)."""
        ...
