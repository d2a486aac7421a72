# SPDX-License-Identifier: AGPL-3.0-or-later
"""A copy of every entry that the projection does not hold, in a file beside it.

Somebody may delete the pseudo patient that carries the worklist. The projection has the workitems; the copy has the
other entries: subscriptions, delivery cursors, dead letters, overflow entries, tombstones and the worklist entry. It
is written after the store, so it never has more than the store, and at a start the store wins.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from ..settings import KEY_VALUE, METADATA
from . import keys
from .documents import is_tombstone
from .journal import IndexJournal
from .port import Entry, RestorableEntries, ShelvesLost

_log = logging.getLogger("orthanc_ups.store")
_FORMAT: Final = "1"
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS meta(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entry(key TEXT PRIMARY KEY, version TEXT NOT NULL, document BLOB NOT NULL) WITHOUT ROWID;
"""
_T = TypeVar("_T")


def path_beside(projection: str | Path) -> str:
    """Path of the copy: ``orthanc-ups.sqlite`` has ``orthanc-ups.sqlite.entries`` beside it."""
    return ":memory:" if str(projection) == ":memory:" else f"{projection}.entries"


class EntriesCopy:
    """The file of the copy. Its failures are logged once and stop nothing, because the store has everything.

    Attributes:
        is_new: True if nothing was copied yet, or nothing of it could be read, when it was opened.
        broken: why it is not written, None normally; ``fill`` creates it again.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self.broken: str | None = None
        self.is_new = True
        try:
            self._open()
        except sqlite3.Error as error:
            _log.warning(
                "The copy of the worklist's entries %s is damaged (%s); creating it again", path, error
            )
            self._renew()

    def _open(self) -> None:
        self._connection = connection = sqlite3.connect(
            self._path, timeout=5.0, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(_TABLES)
        if self._meta("format") is None:
            self._set_meta("format", _FORMAT)
        elif self._meta("format") != _FORMAT:
            raise sqlite3.DatabaseError("it has another format")
        self.is_new = self._execute("SELECT 1 FROM entry LIMIT 1").fetchone() is None
        self.broken = None

    def _renew(self) -> None:
        self.close()
        try:
            if self._path != ":memory:":
                for ending in ("", "-wal", "-shm", "-journal"):
                    Path(f"{self._path}{ending}").unlink(missing_ok=True)
            self._open()
        except (sqlite3.Error, OSError) as error:
            self._failed(error)

    def close(self) -> None:
        """Close the file."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def _meta(self, name: str) -> str | None:
        row = self._execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def _set_meta(self, name: str, value: str) -> None:
        self._execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    # --- entries ---

    def _execute(self, statement: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        if self._connection is None:
            raise sqlite3.ProgrammingError("the copy is closed")
        return self._connection.execute(statement, values)

    def put(self, entry: Entry) -> None:
        """Copy an entry as it was written."""
        row = entry.key, entry.version, entry.document
        self._try("INSERT OR REPLACE INTO entry VALUES (?, ?, ?)", row)

    def drop(self, key: str) -> None:
        """Remove an entry from the copy."""
        self._try("DELETE FROM entry WHERE key = ?", (key,))

    def _try(self, statement: str, values: tuple[object, ...]) -> None:
        if self.broken is not None or self._connection is None:
            return
        try:
            self._execute(statement, values)
        except sqlite3.Error as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        if self.broken is None:
            _log.error(
                "The copy of the worklist's entries %s cannot be written (%s): what is deleted in Orthanc "
                "while the plugin is off could not be restored; trying again",
                self._path,
                error,
            )
        self.broken = str(error)

    def entries(self) -> Iterator[Entry]:
        """Every copied entry."""
        try:
            for key, version, document in self._execute("SELECT key, version, document FROM entry"):
                yield Entry(key, document, version)
        except sqlite3.Error as error:
            _log.error("The copy of the worklist's entries cannot be read to its end: %s", error)

    @property
    def is_empty(self) -> bool:
        """True if no entry is copied."""
        return next(self.entries(), None) is None

    def clear(self) -> None:
        """Drop every copied entry."""
        self._try("DELETE FROM entry", ())

    def versions(self) -> dict[str, str]:
        """The version of each copied entry, by key."""
        try:
            return dict(self._execute("SELECT key, version FROM entry"))
        except sqlite3.Error as error:
            self._failed(error)
            return {}

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Copy within one transaction, which is cheaper. Nothing may be awaited within."""
        self._try("BEGIN IMMEDIATE", ())
        try:
            yield
        finally:
            self._try("COMMIT", ())

    def fill(self, entries: Iterable[Entry]) -> None:
        """Create the file again after a failure, with the stored entries."""
        self._renew()
        with self.at_once():
            for entry in entries:
                self.put(entry)


@dataclass(frozen=True, slots=True)
class Copies:
    """All copies of the entries of a store from which somebody may delete them.

    Attributes:
        copy: every entry but workitems.
        workitems: key, document and version of each workitem, from the projection.
    """

    copy: EntriesCopy
    workitems: Callable[[], Iterable[tuple[str, bytes, str]]]

    def entries(self) -> Iterator[Entry]:
        """Every copied entry; none if the store was never copied."""
        if self.copy.is_empty:
            return
        yield from self.copy.entries()
        for key, document, version in self.workitems():
            yield Entry(key, document, version)

    def store(self) -> str:
        """The store that the workitems were read from, by the form of their versions; "" if there are none."""
        for _, _, version in self.workitems():
            if version.isdigit():
                return KEY_VALUE
            if "-" in version:
                return METADATA
        return ""

    def forget(self) -> None:
        """The store was emptied on purpose: forget the copies."""
        self.copy.clear()


class CopiedEntries:
    """The store; copies every entry that the projection does not have, after it was written.

    A store from which nobody can delete entries needs no copy. There the journal notes each workitem before it is
    written, so that a start can trust the projection.
    """

    def __init__(
        self,
        entries: RestorableEntries,
        copy: EntriesCopy,
        on_lost: Callable[[], None] = lambda: None,
        journal: IndexJournal | None = None,
    ) -> None:
        """``on_lost`` is called whenever a call finds that shelves were deleted in Orthanc."""
        self._entries = entries
        self._journal = journal
        self._on_lost = on_lost
        self._is_aligned = False
        self.copy = copy

    async def load(self) -> AsyncIterator[list[Entry]]:
        """See ``Entries``. The first time, before anything is written, the copy is made equal to what is read."""
        if self._is_aligned:
            async for chunk in self._entries.load():
                yield chunk
            return
        copied = self.copy.versions()
        async for chunk in self._entries.load():
            self._align(chunk, copied)
            yield chunk
        if not self._entries.incomplete:
            self._drop_obsolete(copied)

    def take(self, entries: Sequence[Entry]) -> None:
        """Make the copy equal to entries that were read from the store: all but workitems."""
        copied = self.copy.versions()
        self._align(entries, copied)
        self._drop_obsolete(copied)

    def _drop_obsolete(self, obsolete: Iterable[str]) -> None:
        """Drop copies that are not in the store, after which the copy is equal to it."""
        self._is_aligned = True
        with self.copy.at_once():
            for key in obsolete:
                self.copy.drop(key)

    def _align(self, chunk: Iterable[Entry], copied: dict[str, str]) -> None:
        with self.copy.at_once():
            for entry in chunk:
                if (
                    self._is_copied(entry.key, entry.document)
                    and copied.pop(entry.key, None) != entry.version
                ):
                    self.copy.put(entry)

    def load_others(self) -> AsyncIterator[list[Entry]]:
        """See ``RestorableEntries``."""
        return self._entries.load_others()

    def scan(self) -> AsyncGenerator[list[Entry], None]:
        """See ``RestorableEntries``."""
        return self._entries.scan()

    @property
    def name(self) -> str:
        """See ``RestorableEntries``."""
        return self._entries.name

    @property
    def location(self) -> str:
        """See ``RestorableEntries``."""
        return self._entries.location

    async def read(self, key: str) -> Entry | None:
        """See ``Entries``. The entry may be from a write whose answer was lost, so it is copied too."""
        entry = await self._report_loss(self._entries.read(key))
        if entry is None:
            self.copy.drop(key)
        elif self._is_copied(key, entry.document):
            self.copy.put(entry)
        return entry

    async def create(self, key: str, document: bytes) -> str:
        """See ``Entries``."""
        self._note(key)
        version = await self._report_loss(self._entries.create(key, document))
        return self._written(key, document, version)

    async def replace(self, key: str, document: bytes, version: str) -> str:
        """See ``Entries``."""
        self._note(key)
        version = await self._report_loss(self._entries.replace(key, document, version))
        return self._written(key, document, version)

    def _written(self, key: str, document: bytes, version: str) -> str:
        if self._is_copied(key, document):
            self.copy.put(Entry(key, document, version))
        return version

    async def remove(self, key: str, version: str) -> None:
        """See ``Entries``."""
        self._note(key)
        await self._report_loss(self._entries.remove(key, version))
        self.copy.drop(key)

    def _note(self, key: str) -> None:
        """Note in the journal that an entry is about to be written."""
        if self._journal is not None:
            self._journal.note(key)

    async def _report_loss(self, answer: Awaitable[_T]) -> _T:
        """The answer of the store; ``on_lost`` is called if shelves are lost."""
        try:
            return await answer
        except ShelvesLost:
            self._on_lost()
            raise

    @property
    def exposed(self) -> bool:
        """See ``RestorableEntries``."""
        return self._entries.exposed

    @property
    def incomplete(self) -> frozenset[int]:
        """See ``RestorableEntries``."""
        return self._entries.incomplete

    async def missing(self) -> frozenset[int]:
        """See ``RestorableEntries``."""
        return await self._entries.missing()

    async def restore(self, entries: AsyncIterator[Entry]) -> int:
        """See ``RestorableEntries``."""
        return await self._entries.restore(entries)

    def _is_copied(self, key: str, document: bytes) -> bool:
        """True for all entries but workitems, which the projection has, and the node mark."""
        if not self._entries.exposed:
            return False
        return is_tombstone(document) if keys.is_of_workitem(key) else key != keys.NODE
