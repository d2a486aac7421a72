# SPDX-License-Identifier: AGPL-3.0-or-later
"""How the projection is brought in step with the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..store.port import Entry


class Rebuild:
    """Takes the entries of the store while the projection is brought in step with it."""

    def __init__(self, take: Callable[[Sequence[Entry]], list[Entry]]) -> None:
        self._take = take

    def take(self, entries: Sequence[Entry]) -> list[Entry]:
        """Take over entries of workitems; documents that are here already are not read again.

        Returns the entries that are no documents of workitems; what is here of them stays, as it may be the
        only copy. Raises ProjectionBroken.
        """
        return self._take(entries)
