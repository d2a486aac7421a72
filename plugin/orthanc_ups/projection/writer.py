# SPDX-License-Identifier: AGPL-3.0-or-later
"""Writing changes of workitems and events to the projection, in batches. Functions may raise ``sqlite3.Error``.

A batch takes a handful of statements, however many workitems it has, each with its rows as JSON. Each statement
releases Python's global lock once for all its rows, so that the writing thread and the event loop hardly ever wait for
each other.

Only changed rows are written. Table ``rows`` holds the rows of a workitem in ``code`` and ``key``, so the difference is
computed without reading these tables.

Example: a claim changes the state of a workitem and nothing else that is indexed by value. Its row in ``workitem`` and
its document in ``body`` are updated. Its rows in ``code`` are deleted and inserted again, because each has the state
and start of the workitem. ``key``, ``words`` and ``rows`` are not touched.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias, get_args, get_type_hints

import orjson

from ..core.date_times import Zone
from ..core.events import Event
from ..core.workitem import Workitem
from ..store.documents import digest_of, packed, unpacked
from .facts import CodeRow, KeyRow, Lasting, Volatile, WorkitemFacts, facts_of, same_lasting, volatile_of
from .schema import drop_indexes, make_indexes

WORKITEMS_PER_COMMIT: Final = 20_000
ROWS_STAGED: Final = 100_000
_Row: TypeAlias = Sequence[Any]


class WorkitemRows(NamedTuple):
    """The rows of a workitem to write; ``facts`` is None if only the volatile columns and the document changed."""

    uid: str
    created: int
    version: str
    digest: str
    volatile: Volatile
    facts: WorkitemFacts | None
    document: bytes


class RowsRemoval(NamedTuple):
    """A workitem to remove."""

    uid: str


class TombstoneRow(NamedTuple):
    """The entry of a purged workitem; ``version`` is None to remove it."""

    uid: str
    version: str | None = None
    document: bytes = b""


@dataclass(slots=True)
class ProjectionBatch:
    """The contents of a transaction: changes (at most one per workitem), logged events and tombstones."""

    changes: list[WorkitemRows | RowsRemoval] = field(default_factory=list)
    events: list[_Row] = field(default_factory=list)
    tombstones: list[TombstoneRow] = field(default_factory=list)


def change_of(
    workitem: Workitem, version: str, document: bytes, local: Zone, before: Workitem | None
) -> WorkitemRows:
    """The rows of a workitem to write.

    ``before`` is its state in the file when they will be written, None if unknown. Elements count as unchanged if
    they are the same object in both states.
    """
    unchanged = (
        before is not None
        and before.created == workitem.created
        and same_lasting(before.attributes, workitem.attributes)
    )
    facts = None if unchanged else facts_of(workitem, local)
    volatile = volatile_of(workitem, local) if facts is None else facts.volatile
    return WorkitemRows(
        workitem.uid, workitem.created, version, digest_of(document), volatile, facts, document
    )


def event_row(event: Event) -> _Row:
    """A row of the event log. Backslashes, which AE titles cannot contain, separate and enclose the receivers."""
    titles = "".join(f"\\{name}" for name in event.receivers) + "\\"
    information = orjson.dumps(event.information).decode()
    return event.sequence, event.uid, int(event.type), information, titles, *_exact(event.at)


# --- rows as JSON ---


def _exact(number: float | None) -> tuple[int | None, int]:
    """Numerator and denominator, because SQLite does not read decimal fractions in JSON exactly.

    Infinity, which JSON lacks, has the denominator 0; None, which becomes NULL, has the numerator None.
    """
    if number is None:
        return None, 1
    return (None, 0) if math.isinf(number) else number.as_integer_ratio()


def _real(at: int) -> str:
    """SQL for the number whose numerator and denominator (see ``_exact``) are at ``at`` in a row."""
    return f"CASE value->>{at + 1} WHEN 0 THEN 9e999 ELSE CAST(value->>{at} AS REAL) / (value->>{at + 1}) END"


_REALS: Final = tuple(
    name for name, kind in get_type_hints(Volatile).items() if float in (kind, *get_args(kind))
)
_EXACT: Final = ("version", "digest", *(name for name in Volatile._fields if name not in _REALS))
_COLUMNS: Final = (*_EXACT, *_REALS)
_LASTING: Final = ("created", *Lasting._fields)
_FIRST_REAL: Final = 1 + len(_EXACT)
_FIRST_LASTING: Final = _FIRST_REAL + 2 * len(_REALS)
_AT: Final = {
    **{name: f"value->>{at}" for at, name in enumerate(("id", *_EXACT))},
    **{name: _real(_FIRST_REAL + 2 * at) for at, name in enumerate(_REALS)},
    **{name: f"value->>{_FIRST_LASTING + at}" for at, name in enumerate((*_LASTING, "uid"))},
}
"""SQL for each column in the JSON of a row."""


def _columns(change: WorkitemRows) -> list[Any]:
    volatile = change.volatile._asdict()
    reals = [part for name in _REALS for part in _exact(volatile[name])]
    return [change.version, change.digest, *(volatile[name] for name in _EXACT[2:]), *reals]


def _updating(names: Iterable[str]) -> str:
    sets = ", ".join(f"{name} = {_AT[name]}" for name in names)
    return f"UPDATE workitem SET {sets} FROM json_each(?) WHERE workitem.id = {_AT['id']}"  # noqa: S608


_UPDATE: Final = _updating(_COLUMNS)
_UPDATE_ALL: Final = _updating((*_COLUMNS, *_LASTING))
"""Only for changes of lasting columns: every index contains ``created``, and setting it rewrites them all."""
_INSERTED: Final = ("id", *_COLUMNS, *_LASTING, "uid")
_INSERT: Final = (
    f"INSERT INTO workitem({', '.join(_INSERTED)}) "  # noqa: S608
    f"SELECT {', '.join(_AT[name] for name in _INSERTED)} FROM json_each(?)"
)
_DOCUMENT: Final = "substr(?2, value->>1, value->>2)"
"""Compressed documents are not text, so those of a statement are one blob, and each row has offset and length."""
_INSERT_BODY: Final = f"INSERT INTO body SELECT value->>0, {_DOCUMENT} FROM json_each(?1)"  # noqa: S608
_UPDATE_BODY: Final = f"UPDATE body SET document = {_DOCUMENT} FROM json_each(?1) WHERE body.id = value->>0"  # noqa: S608
_INSERT_ROWS: Final = f"INSERT INTO rows SELECT value->>0, {_DOCUMENT} FROM json_each(?1)"  # noqa: S608
_UPDATE_ROWS: Final = f"UPDATE rows SET rows = {_DOCUMENT} FROM json_each(?1) WHERE rows.id = value->>0"  # noqa: S608
_INSERT_WORDS: Final = "INSERT INTO words SELECT value->>0, value->>1 FROM json_each(?)"
_UPDATE_WORDS: Final = "UPDATE words SET text = value->>1 FROM json_each(?) WHERE words.id = value->>0"
_CODE: Final = ("kind", "text", "scheme", "again", "state", "start", "created", "id")
_INSERT_CODES: Final = (
    f"INSERT INTO code({', '.join(_CODE)}) "  # noqa: S608
    f"SELECT {', '.join(f'value->>{at}' for at in range(len(_CODE)))} FROM json_each(?)"
)
_DELETE_CODES: Final = (
    "DELETE FROM code WHERE (kind, text, state, start, created, id, scheme) IN "
    "(SELECT value->>0, value->>1, value->>4, value->>5, value->>6, value->>7, value->>2 FROM json_each(?))"
)
_INSERT_KEYS: Final = (
    "INSERT OR IGNORE INTO key(kind, text, id) SELECT value->>0, value->>1, value->>2 FROM json_each(?)"
)
_DELETE_KEYS: Final = (
    "DELETE FROM key WHERE (kind, text, id) IN (SELECT value->>0, value->>1, value->>2 FROM json_each(?))"
)
_INSERT_EVENTS: Final = """
    INSERT OR REPLACE INTO event
    SELECT value->>0, value->>1, value->>2, CAST(value->>3 AS BLOB), value->>4, CAST(value->>5 AS REAL) / (value->>6)
    FROM json_each(?)
"""
_STORED: Final = """
    SELECT json_group_array(json_array(m.uid, m.id, m.created, m.state, m.start, hex(r.rows)))
    FROM json_each(?) u CROSS JOIN workitem m ON m.uid = u.value CROSS JOIN rows r ON r.id = m.id
"""
_VERSIONS: Final = """
    SELECT json_group_array(json_array(m.uid, m.id, m.version, m.digest))
    FROM json_each(?) u CROSS JOIN workitem m ON m.uid = u.value
"""


@dataclass(slots=True)
class _Statements:
    """The rows of a batch, by statement."""

    inserted: list[_Row] = field(default_factory=list)
    updated: list[_Row] = field(default_factory=list)
    updated_all: list[_Row] = field(default_factory=list)
    new_bodies: list[tuple[int, bytes]] = field(default_factory=list)
    bodies: list[tuple[int, bytes]] = field(default_factory=list)
    new_rows: list[tuple[int, bytes]] = field(default_factory=list)
    rows: list[tuple[int, bytes]] = field(default_factory=list)
    new_words: list[_Row] = field(default_factory=list)
    words: list[_Row] = field(default_factory=list)
    codes: list[_Row] = field(default_factory=list)
    old_codes: list[_Row] = field(default_factory=list)
    keys: list[_Row] = field(default_factory=list)
    old_keys: list[_Row] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)


class ProjectionWriter:
    """Writes the tables. For use by one thread at a time."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute
        self._executemany = connection.executemany
        self._connection = connection
        self._began_empty = False
        self._confirmed: bytearray | None = None
        self._uncommitted = 0
        self._staged_codes: list[_Row] = []
        self._staged_keys: list[_Row] = []
        self._next_row = 1 + int(self._execute("SELECT COALESCE(MAX(id), 0) FROM workitem").fetchone()[0])

    def write(self, batch: ProjectionBatch) -> None:
        """Write a batch: all of it or nothing."""
        with self._transaction(len(batch.changes)):
            if batch.changes:
                self._write_changes(batch.changes)
            if batch.events:
                self._rows(_INSERT_EVENTS, batch.events)
            if batch.tombstones:
                self._write_tombstones(batch.tombstones)

    def write_mark(self, mark: str) -> None:
        """Write a mark after everything that it covers, and keep the former one (``store/journal.py``)."""
        with self._transaction():
            former = self.marks()[-1:]
            self._execute("INSERT OR REPLACE INTO meta VALUES ('marks', ?)", (" ".join((*former, mark)),))

    def marks(self) -> Sequence[str]:
        """The last two marks, the later one last."""
        return [mark for (text,) in self._execute("SELECT value FROM meta WHERE name = 'marks'")
                for mark in text.split()]  # fmt: skip

    def _write_tombstones(self, rows: Sequence[TombstoneRow]) -> None:
        self._executemany("DELETE FROM tombstone WHERE uid = ?", [(row.uid,) for row in rows])
        purged = [row for row in rows if row.version is not None]
        self._executemany("INSERT INTO tombstone VALUES (?, ?, ?)", purged)

    # --- changes ---

    def _write_changes(self, changes: Sequence[WorkitemRows | RowsRemoval]) -> None:
        if self._confirmed is not None and any(isinstance(change, RowsRemoval) for change in changes):
            self._write_staged()
        uids = [change.uid for change in changes]
        stored = {row[0]: row[1:] for row in self._read(_STORED, uids)} if self._next_row > 1 else {}
        statements = _Statements()
        for change in changes:
            row = stored.get(change.uid)
            if isinstance(change, RowsRemoval):
                _remove(row, statements)
            elif row is None:
                self._insert(change, statements)
            else:
                _update(change, row, statements)
        self._execute_all(statements)
        for row in stored.values():
            self._confirm(row[0])

    def _insert(self, change: WorkitemRows, statements: _Statements) -> None:
        facts = change.facts
        if facts is None:
            raise sqlite3.IntegrityError(f"cannot change workitem {change.uid}: it is missing")
        row, self._next_row = self._next_row, self._next_row + 1
        self._confirm(row)
        statements.inserted.append([row, *_columns(change), change.created, *facts.lasting, change.uid])
        statements.new_bodies.append((row, change.document))
        statements.new_rows.append((row, _texts_of(facts)))
        statements.new_words.append([row, facts.words])
        statements.codes += _code_rows(facts.codes, change, row)
        statements.keys += [(kind, text, row) for kind, text in facts.keys]

    def _execute_all(self, statements: _Statements) -> None:
        if statements.old_codes or statements.old_keys or statements.updated or statements.updated_all:
            self._write_staged()
        for statement, rows in (
            (_DELETE_CODES, statements.old_codes),
            (_DELETE_KEYS, statements.old_keys),
            (_INSERT, statements.inserted),
            (_UPDATE, statements.updated),
            (_UPDATE_ALL, statements.updated_all),
            (_INSERT_WORDS, statements.new_words),
            (_UPDATE_WORDS, statements.words),
        ):
            if rows:
                self._rows(statement, rows)
        for statement, texts in (
            (_INSERT_BODY, statements.new_bodies),
            (_UPDATE_BODY, statements.bodies),
            (_INSERT_ROWS, statements.new_rows),
            (_UPDATE_ROWS, statements.rows),
        ):
            if texts:
                self._blobs(statement, texts)
        if statements.removed:
            for table in ("words", "rows", "body", "workitem"):
                statement = f"DELETE FROM {table} WHERE id IN (SELECT value FROM json_each(?))"  # noqa: S608
                self._rows(statement, statements.removed)
        self._staged_codes += statements.codes
        self._staged_keys += statements.keys
        if self._confirmed is None or len(self._staged_keys) > ROWS_STAGED:
            self._write_staged()

    def _write_staged(self) -> None:
        """Insert the staged rows in bulk; while rebuilding they are sorted, which is much faster."""
        for statement, rows in ((_INSERT_CODES, self._staged_codes), (_INSERT_KEYS, self._staged_keys)):
            if rows:
                self._rows(statement, sorted(rows) if self._confirmed is not None else rows)
                rows.clear()

    def _rows(self, statement: str, rows: Sequence[Any]) -> None:
        self._execute(statement, (orjson.dumps(rows).decode(),))

    def _blobs(self, statement: str, texts: Sequence[tuple[int, bytes]]) -> None:
        rows, blob = [], bytearray()
        for row, text in texts:
            compressed = packed(text)
            rows.append((row, len(blob) + 1, len(compressed)))
            blob += compressed
        self._execute(statement, (orjson.dumps(rows).decode(), bytes(blob)))

    def _read(self, statement: str, keys: Sequence[str]) -> list[list[Any]]:
        rows: list[list[Any]] = orjson.loads(
            self._execute(statement, (orjson.dumps(keys).decode(),)).fetchone()[0]
        )
        return rows

    # --- the event log ---

    def respell_receivers(self, titles: Mapping[str, str]) -> None:
        """Replace AE titles (the keys) in the event log by others (the values)."""
        with self._transaction():
            rows = self._execute("SELECT DISTINCT receivers FROM event").fetchall()
            for (receivers,) in rows:
                names = [titles.get(name, name) for name in receivers.split("\\") if name]
                respelled = "".join(f"\\{name}" for name in sorted(set(names))) + "\\"
                if respelled != receivers:
                    self._execute(
                        "UPDATE event SET receivers = ? WHERE receivers = ?", (respelled, receivers)
                    )

    def forget_events(self, before: float, limit: int) -> int:
        """Remove up to ``limit`` events committed before a time; return how many."""
        chosen = "SELECT sequence FROM event WHERE at < ? ORDER BY at LIMIT ?"
        with self._transaction():
            return self._execute(f"DELETE FROM event WHERE sequence IN ({chosen})", (before, limit)).rowcount  # noqa: S608

    # --- rebuilding ---

    def begin(self) -> None:
        """Start to rebuild: until ``finish``, writes are combined into large transactions."""
        self._confirmed = bytearray(self._next_row)
        self._began_empty = self._next_row == 1
        if self._began_empty:
            self._journal("OFF")
            for statement in drop_indexes():
                self._execute(statement)
        self._execute("BEGIN IMMEDIATE")
        self._execute("DELETE FROM tombstone")
        self._execute("DELETE FROM meta WHERE name = 'marks'")

    def _journal(self, mode: str) -> None:
        """Set the journal mode; an empty file needs no journal. (While there are readers, the mode stays as it is.)"""
        with suppress(sqlite3.OperationalError):
            self._execute(f"PRAGMA journal_mode = {mode}")

    def _confirm(self, row: int) -> None:
        if self._confirmed is not None:
            self._confirmed.extend(bytes(max(0, row + 1 - len(self._confirmed))))
            self._confirmed[row] = 1

    def unchanged(self, entries: Sequence[tuple[str, str, bytes]]) -> set[str]:
        """The UIDs of those (uid, version, document) whose stored document is the same; their versions are updated."""
        if self._began_empty:
            return set()
        stored = {row[0]: row[1:] for row in self._read(_VERSIONS, [uid for uid, _, _ in entries])}
        same, reversioned = set(), []
        for uid, version, document in entries:
            row, stored_version, digest = stored.get(uid, (0, "", ""))
            if not row or digest != digest_of(document):
                continue
            if stored_version != version:
                reversioned.append((version, row))
            self._confirm(row)
            same.add(uid)
        self._executemany("UPDATE workitem SET version = ? WHERE id = ?", reversioned)
        return same

    def spare(self, uid: str) -> None:
        """Let ``finish`` keep a workitem, if present."""
        for (row,) in self._execute("SELECT id FROM workitem WHERE uid = ?", (uid,)):
            self._confirm(row)

    def finish(self, *, complete: bool) -> int:
        """End rebuilding; if ``complete``, remove the workitems not passed since ``begin``, and return how many."""
        confirmed = self._confirmed or bytearray()
        removals = [
            RowsRemoval(uid)
            for row, uid in self._execute(
                "SELECT id, uid FROM workitem" if complete else "SELECT 0, '' LIMIT 0"
            )
            if row >= len(confirmed) or not confirmed[row]
        ]
        if removals:
            self._write_changes(removals)
        self._write_staged()
        self._confirmed = None
        for statement in make_indexes():
            self._execute(statement)
        self._execute("COMMIT")
        self._journal("WAL")
        return len(removals)

    @contextmanager
    def _transaction(self, changes: int = 0) -> Iterator[None]:
        if self._confirmed is not None:
            yield
            self._commit_if_large(changes)
            return
        self._execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.rollback()
            raise
        self._execute("COMMIT")

    def _commit_if_large(self, changes: int) -> None:
        self._uncommitted += changes
        if self._uncommitted >= WORKITEMS_PER_COMMIT:
            self._uncommitted = 0
            self._execute("COMMIT")
            self._execute("BEGIN IMMEDIATE")


def _update(change: WorkitemRows, stored: _Row, statements: _Statements) -> None:
    row, created, state, start, texts = stored
    facts = change.facts
    codes, keys = orjson.loads(unpacked(bytes.fromhex(texts)))
    statements.bodies.append((row, change.document))
    new_codes: Iterable[_Row] = codes
    if facts is None:
        statements.updated.append([row, *_columns(change)])
    else:
        new_codes = facts.codes
        statements.updated_all.append([row, *_columns(change), change.created, *facts.lasting])
        statements.rows.append((row, _texts_of(facts)))
        statements.words.append([row, facts.words])
        before, after = {tuple(key) for key in keys}, set(facts.keys)
        statements.old_keys += [(kind, text, row) for kind, text in before - after]
        statements.keys += [(kind, text, row) for kind, text in after - before]
    old = [(*code, state, start, created, row) for code in codes]
    new = _code_rows(new_codes, change, row)
    if old != new:
        statements.old_codes += old
        statements.codes += new


def _remove(stored: _Row | None, statements: _Statements) -> None:
    if stored is not None:
        row, created, state, start, texts = stored
        codes, keys = orjson.loads(unpacked(bytes.fromhex(texts)))
        statements.old_codes += [(*code, state, start, created, row) for code in codes]
        statements.old_keys += [(*key, row) for key in keys]
        statements.removed.append(row)


def _code_rows(codes: Iterable[_Row], change: WorkitemRows, row: int) -> list[_Row]:
    """The rows of a workitem in table ``code``."""
    volatile = change.volatile
    return [(*code, volatile.state, volatile.start, change.created, row) for code in codes]


def _texts_of(facts: WorkitemFacts) -> bytes:
    rows: tuple[Sequence[CodeRow], Sequence[KeyRow]] = facts.codes, facts.keys
    return orjson.dumps(rows)
