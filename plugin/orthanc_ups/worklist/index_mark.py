# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whether a start may trust the search index: the mark that store, index and journal share (``store/journal.py``)."""

from __future__ import annotations

import secrets
from collections.abc import Collection

from ..projection.projection import Projection
from ..store.journal import KEY, IndexJournal, document_of, mark_in
from ..store.port import Entries
from ..store.writer import Writer


class IndexMark:
    """Reads the mark at a start, and makes it anew. ``journal`` is None where no index can be trusted."""

    def __init__(
        self, entries: Entries, writer: Writer, projection: Projection, journal: IndexJournal | None
    ) -> None:
        self._entries = entries
        self._writer = writer
        self._projection = projection
        self._journal = journal
        self._is_whole = False

    async def changed(self) -> Collection[str] | None:
        """UIDs of the workitems that the index may not have as they are; None if the whole store must be read.

        Raises StoreUnavailable.
        """
        self._is_whole = False
        if self._journal is None:
            return None
        mark = mark_in(await self._entries.read(KEY))
        return self._journal.read(mark) if mark and mark in self._projection.marks() else None

    def taken(self, uid: str) -> None:
        """The index has taken over what was written of a workitem."""
        if self._journal is not None:
            self._journal.taken(uid)

    async def begin(self) -> None:
        """The store has been read, nobody is writing, and the index has everything. Raises as ``renew``."""
        self._is_whole = True
        await self._renewed(whole=True)

    async def renew(self) -> None:
        """Make the mark anew if anything was written, so that less is left to be read at the next start.

        Raises:
            StoreUnavailable: the former mark is still good, or none is; call again.
            ProjectionBroken: the index has to be made anew first.
        """
        if self._journal is not None and not self._journal.is_empty:
            await self._renewed(whole=False)

    async def _renewed(self, *, whole: bool) -> None:
        if self._journal is None or not self._is_whole:
            return
        mark = secrets.token_hex(16)
        self._journal.begin(mark, whole=whole)
        await self._projection.bear(mark)  # in the same turn of the loop what is not open is handed over
        await self._writer.overwrite(KEY, document_of(mark))
        self._journal.complete()

    def close(self) -> None:
        """Let go of the journal."""
        if self._journal is not None:
            self._journal.close()
