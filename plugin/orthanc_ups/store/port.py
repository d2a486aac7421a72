# SPDX-License-Identifier: AGPL-3.0-or-later
"""The port to the system of record: named documents with compare-and-set.

Keys are short texts (``workitem/1.2.3``, ``subscriber/AI``, ``delivery/AI``, ``events/1.2.3/17``,
``dead/AI/17``, ``worklist``); documents are UTF-8 bytes. A version is opaque: what a write gives back,
the next write of that entry must show.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from ..core.unavailable import StoreUnavailable as StoreUnavailable


@dataclass(frozen=True, slots=True)
class Entry:
    """A document as it is stored."""

    key: str
    document: bytes
    version: str


class EntryExists(Exception):
    """A create met an entry of that key; nothing was written."""


class EntryConflict(Exception):
    """The entry is not what the version says (changed or gone); nothing was written."""


class Entries(Protocol):
    """Compare-and-set over named documents. Every method may raise StoreUnavailable."""

    def load(self) -> AsyncIterator[list[Entry]]:
        """Every entry, in chunks, in no order."""
        ...

    async def read(self, key: str) -> Entry | None:
        """One entry as the store has it now; may be slow (use only after a conflict or a lost answer)."""
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
