# SPDX-License-Identifier: AGPL-3.0-or-later
"""The interface of a store: named documents with compare-and-set.

Keys are short texts (``workitem/1.2.3``, ``subscriber/AI``, ``delivery/AI``, ``events/1.2.3/17``,
``dead/AI/17``, ``worklist``); documents are UTF-8 bytes. A version is opaque: a write returns it,
and the next write of that entry must present it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Final, Protocol

from ..core.unavailable import StoreUnavailable as StoreUnavailable


@dataclass(frozen=True, slots=True)
class Entry:
    """A document as it is stored."""

    key: str
    document: bytes
    version: str


class EntryExists(Exception):
    """There is an entry of that key already; nothing was written."""


class EntryConflict(Exception):
    """The entry does not have this version (it was changed or deleted); nothing was written."""


class Entries(Protocol):
    """Compare-and-set over named documents. Every method may raise StoreUnavailable."""

    def load(self) -> AsyncIterator[list[Entry]]:
        """Every entry, in chunks, in arbitrary order."""
        ...

    async def read(self, key: str) -> Entry | None:
        """One entry as the store has it now, None if it does not exist. May be slow: for conflicts and lost answers."""
        ...

    async def create(self, key: str, document: bytes) -> str:
        """Write a new entry and return its version. Raises EntryExists."""
        ...

    async def replace(self, key: str, document: bytes, version: str) -> str:
        """Overwrite an entry that still has this version and return its new one. Raises EntryConflict."""
        ...

    async def remove(self, key: str, version: str) -> None:
        """Delete an entry that still has this version. Raises EntryConflict."""
        ...


_CHUNK: Final = 256


class ShelvesLost(StoreUnavailable):
    """Somebody deleted or emptied shelves: nothing was written, and an absent entry proves nothing.

    Lasts until ``restore``.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason, certain=True)


class RestorableEntries(Entries, Protocol):
    """Entries on shelves that somebody may delete.

    ``load`` also finds out which shelves are incomplete; ``missing`` does so at any later time.
    """

    @property
    def name(self) -> str:
        """The value of ``Ups.Store`` that chooses it."""
        ...

    @property
    def location(self) -> str:
        """Where in Orthanc the entries are, in words."""
        ...

    def load_others(self) -> AsyncIterator[list[Entry]]:
        """Every entry but workitems and tombstones (``workitem/…``), in chunks, in arbitrary order."""
        ...

    def scan(self) -> AsyncGenerator[list[Entry], None]:
        """Every entry, in chunks, without taking them over, unlike ``load``; may be called at any time."""
        ...

    @property
    def exposed(self) -> bool:
        """True if somebody can delete entries in Orthanc, so that a copy of them is worth keeping."""
        ...

    @property
    def incomplete(self) -> frozenset[int]:
        """The shelves that lacked entries when ``load`` or ``missing`` last looked."""
        ...

    async def missing(self) -> frozenset[int]:
        """Numbers of the shelves that are gone or not filled yet; reads from or writes to them raise ShelvesLost.

        Raises:
            StoreUnavailable: Orthanc does not answer.
        """
        ...

    async def restore(self, entries: AsyncIterator[Entry]) -> int:
        """Create the missing shelves again, write their entries back, and return how many those are.

        ``entries`` yields all entries, in any order; those on other shelves are left as they are. Versions stay valid.
        Can be called again after a failure or a crash; nothing is overwritten.

        Raises:
            StoreMisconfigured: they are deleted each time they are created; there is no point in calling again.
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
