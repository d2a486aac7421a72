# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a store can do beside the port: notice that entries were taken away, and take them back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, Protocol

from .port import Entries, Entry, StoreUnavailable

_CHUNK: Final = 256


class ShelvesLost(StoreUnavailable):
    """Shelves were deleted or emptied under us: nothing was written, and an absent entry proves nothing.

    Lasts until ``restore``.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason, certain=True)


class RestorableEntries(Entries, Protocol):
    """Entries on shelves that somebody may delete.

    ``load`` also finds out which shelves are incomplete; ``missing`` looks at any later time.
    """

    @property
    def exposed(self) -> bool:
        """True if somebody can take entries away behind our back, so that a copy of them is worth keeping."""
        ...

    @property
    def incomplete(self) -> frozenset[int]:
        """The shelves that ``load`` found without all their entries, or whoever looked since."""
        ...

    async def missing(self) -> frozenset[int]:
        """Numbers of the shelves that are gone or not filled yet; reads from or writes to them raise ShelvesLost.

        Raises:
            StoreUnavailable: nobody can tell now.
        """
        ...

    async def restore(self, entries: AsyncIterator[Entry]) -> int:
        """Make the missing shelves anew and write back what stood there; return how many entries that were.

        ``entries`` gives everything that is known, in any order; what stands on the other shelves is left as it
        is. Versions stay valid. May be called again after a failure or a crash; nothing is overwritten.

        Raises:
            StoreMisconfigured: they are deleted whenever they were made; calling again is of no use.
            StoreUnavailable: not finished; the shelves stay missing.
        """
        ...


async def chunks(entries: AsyncIterator[Entry]) -> AsyncIterator[list[Entry]]:
    """The entries, some hundreds at a time."""
    chunk: list[Entry] = []
    async for entry in entries:
        chunk.append(entry)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
