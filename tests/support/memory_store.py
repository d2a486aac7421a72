# SPDX-License-Identifier: AGPL-3.0-or-later
"""A store in memory, with failures that a test can switch on."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Final, Self

from orthanc_ups.store import keys
from orthanc_ups.store.port import Entry, EntryConflict, EntryExists, ShelvesLost, StoreUnavailable

_CHUNK: Final = 64


@dataclass
class SharedEntries:
    """What several adapters share: documents by key, each with the number of its write."""

    documents: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    writes: int = 0
    lost: bool = False

    def put(self, key: str, document: bytes) -> str:
        self.writes += 1
        self.documents[key] = (document, self.writes)
        return str(self.writes)


class InMemoryEntries:
    """Entries in memory.

    Attributes:
        unavailable: while True, every call fails and certainly changes nothing.
        lost_requests: how many of the next writes are not done, without anybody knowing.
        lost_answers: how many of the next writes are done, without anybody knowing.
        conflicts: how many of the next replaces and removes find that somebody else was first.
        calls: how often each method was called.
    """

    name: Final = "memory"
    location: Final = "the memory of a test"
    exposed: bool = True

    def __init__(self, beside: InMemoryEntries | None = None) -> None:
        """``beside``: a further adapter on the same store."""
        self.shared: SharedEntries = SharedEntries() if beside is None else beside.shared
        self.unavailable = False
        self.lost_requests = 0
        self.lost_answers = 0
        self.conflicts = 0
        self.calls: dict[str, int] = {}

    def another(self) -> Self:
        """A second adapter on the same store, without failures."""
        return type(self)(self)

    async def load(self) -> AsyncIterator[list[Entry]]:
        """Every entry, in chunks."""
        self._called("load")
        entries = [
            Entry(key, *_document_and_version(stored)) for key, stored in self.shared.documents.items()
        ]
        for start in range(0, len(entries), _CHUNK):
            yield entries[start : start + _CHUNK]

    async def load_others(self) -> AsyncIterator[list[Entry]]:
        """See ``Entries``."""
        self._called("load_others")
        yield [
            Entry(key, *_document_and_version(stored))
            for key, stored in self.shared.documents.items()
            if not keys.is_of_workitem(key)
        ]

    async def scan(self) -> AsyncGenerator[list[Entry], None]:
        """Like ``load``."""
        async for chunk in self.load():
            yield chunk

    async def read(self, key: str) -> Entry | None:
        """One entry. Raises StoreUnavailable, or ShelvesLost if it was lost."""
        self._called("read")
        stored = self.shared.documents.get(key)
        if stored is None:
            self._refuse_if_lost()
            return None
        return Entry(key, *_document_and_version(stored))

    async def create(self, key: str, document: bytes) -> str:
        """See ``Entries``."""
        self._called("create")
        self._refuse_if_lost()
        if key in self.shared.documents:
            raise EntryExists(key)
        return self._write(key, document)

    async def replace(self, key: str, document: bytes, version: str) -> str:
        """See ``Entries``."""
        self._called("replace")
        self._refuse_if_lost()
        self._compare(key, version)
        return self._write(key, document)

    async def remove(self, key: str, version: str) -> None:
        """See ``Entries``."""
        self._called("remove")
        self._refuse_if_lost()
        self._compare(key, version)
        self._write(key, None)

    def _called(self, name: str) -> None:
        self.calls[name] = self.calls.get(name, 0) + 1
        if self.unavailable:
            raise StoreUnavailable("switched off by a test", certain=True)

    def _compare(self, key: str, version: str) -> None:
        stored = self.shared.documents.get(key)
        if self.conflicts:
            self.conflicts -= 1
            if stored is not None:
                self.shared.put(key, stored[0])
            raise EntryConflict(key)
        if stored is None or str(stored[1]) != version:
            raise EntryConflict(key)

    def _write(self, key: str, document: bytes | None) -> str:
        if self.lost_requests:
            self.lost_requests -= 1
            raise StoreUnavailable("request lost by a test", certain=False)
        if document is None:
            del self.shared.documents[key]
            version = ""
        else:
            version = self.shared.put(key, document)
        if self.lost_answers:
            self.lost_answers -= 1
            raise StoreUnavailable("answer lost by a test", certain=False)
        return version

    # --- shelves that somebody deletes ------------------------------------------------------------

    def lose(self) -> None:
        """Somebody deletes everything."""
        self.shared.documents.clear()
        self.shared.lost = True

    def _refuse_if_lost(self) -> None:
        if self.shared.lost:
            raise ShelvesLost("deleted by a test")

    @property
    def incomplete(self) -> frozenset[int]:
        """See ``missing``."""
        return frozenset({0}) if self.shared.lost else frozenset()

    async def missing(self) -> frozenset[int]:
        """One shelf, number 0, if everything was lost."""
        self._called("missing")
        return self.incomplete

    async def restore(self, entries: AsyncIterator[Entry]) -> int:
        """Take back what was lost, with its versions."""
        self._called("restore")
        if not self.shared.lost:
            return 0
        written = 0
        async for entry in entries:
            if entry.key not in self.shared.documents:
                version = int(entry.version) if entry.version.isdigit() else 1
                self.shared.documents[entry.key] = (entry.document, version)
                written += 1
        self.shared.lost = False
        return written


def _document_and_version(stored: tuple[bytes, int]) -> tuple[bytes, str]:
    return stored[0], str(stored[1])
