# SPDX-License-Identifier: AGPL-3.0-or-later
"""Writing the projection: changes of workitems and events, many at a time. May raise ``sqlite3.Error``.

A batch is a handful of statements that take their rows as JSON, however many workitems it has: each statement gives
Python's lock free once and for all its rows, so that the thread that writes hardly ever waits for the event loop, nor
the loop for it.

Only rows that differ are written. Table ``rows`` holds what a workitem has in ``code`` and ``key``, so the difference
is worked out without reading those two.

Example: a claim changes the state of a workitem and nothing that is searched for by value. Its row in ``workitem`` and
its document in ``body`` are updated. Its rows in ``code`` are deleted and inserted again, as each bears the state and
start of its workitem. ``key``, ``words`` and ``rows`` stay untouched.
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
    """The rows of a workitem to be written; ``facts`` is None if only the volatile columns differ from the file."""

    uid: str
    created: int
    version: str
    digest: str
    volatile: Volatile
    facts: WorkitemFacts | None
    document: bytes


class RowsRemoval(NamedTuple):
    """A workitem to be removed."""

    uid: str


class TombstoneRow(NamedTuple):
    """The entry of a purged workitem; ``version`` None if it is gone."""

    uid: str
    version: str | None = None
    document: bytes = b""


@dataclass(slots=True)
class ProjectionBatch:
    """What one transaction writes: changes, at most one per workitem, tombstones, and logged events."""

    changes: list[WorkitemRows | RowsRemoval] = field(default_factory=list)
    events: list[_Row] = field(default_factory=list)
    tombstones: list[TombstoneRow] = field(default_factory=list)


def change_of(
    workitem: Workitem, version: str, document: bytes, local: Zone, before: Workitem | None
) -> WorkitemRows:
    """The rows of a workitem to be written.

    ``before`` is its state in the file by the time these are written, None if unknown. An element that is the same
    object in both has not changed.
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
    """A row of the log of events. No AE title holds a backslash, so it separates and encloses them."""
    titles = "".join(f"\\{name}" for name in event.receivers) + "\\"
    information = orjson.dumps(event.information).decode()
    return event.sequence, event.uid, int(event.type), information, titles, *_exact(event.at)


# --- rows as JSON ---


def _exact(number: float | None) -> tuple[int | None, int]:
    """Numerator and denominator: SQLite reads decimal fractions in JSON only nearly as they are meant.

    Infinity, which JSON does not have, has the denominator 0; None, which becomes NULL, has no numerator.
    """
    if number is None:
        return None, 1
    return (None, 0) if math.isinf(number) else number.as_integer_ratio()


def _real(at: int) -> str:
    """What turns that back into a number."""
    return f"CASE value->>{at + 1} WHEN 0 THEN 9e999 ELSE CAST(value->>{at} AS REAL) / (value->>{at + 1}) END"


def _of_row(*columns: str) -> str:
    """The columns of a row, each ``""`` or what its value becomes, with ``{}`` for the value."""
    return ", ".join((form or "{}").format(f"value->>{at}") for at, form in enumerate(columns))


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
"""Where each column stands in the JSON of a row."""
_BLOB: Final = "CAST({} AS BLOB)"


def _columns(change: WorkitemRows) -> list[Any]:
    volatile = change.volatile._asdict()
    reals = [part for name in _REALS for part in _exact(volatile[name])]
    return [change.version, change.digest, *(volatile[name] for name in _EXACT[2:]), *reals]


def _updating(names: Iterable[str]) -> str:
    sets = ", ".join(f"{name} = {_AT[name]}" for name in names)
    return f"UPDATE workitem SET {sets} FROM json_each(?) WHERE workitem.id = {_AT['id']}"  # noqa: S608


_UPDATE: Final = _updating(_COLUMNS)
_UPDATE_ALL: Final = _updating((*_COLUMNS, *_LASTING))
"""Every index holds ``created``; naming it, even unchanged, has all of them rewritten."""
_INSERTED: Final = ("id", *_COLUMNS, *_LASTING, "uid")
_INSERT: Final = (
    f"INSERT INTO workitem({', '.join(_INSERTED)}) "  # noqa: S608
    f"SELECT {', '.join(_AT[name] for name in _INSERTED)} FROM json_each(?)"
)
_DOCUMENT: Final = "substr(?2, value->>1, value->>2)"
"""Compressed they are no text: all of a statement come as one blob, and each row says where its own begins."""
_INSERT_BODY: Final = f"INSERT INTO body SELECT value->>0, {_DOCUMENT} FROM json_each(?1)"  # noqa: S608
_UPDATE_BODY: Final = f"UPDATE body SET document = {_DOCUMENT} FROM json_each(?1) WHERE body.id = value->>0"  # noqa: S608
_INSERT_ROWS: Final = f"INSERT INTO rows SELECT value->>0, {_DOCUMENT} FROM json_each(?1)"  # noqa: S608
_UPDATE_ROWS: Final = f"UPDATE rows SET rows = {_DOCUMENT} FROM json_each(?1) WHERE rows.id = value->>0"  # noqa: S608
_INSERT_WORDS: Final = "INSERT INTO words SELECT value->>0, value->>1 FROM json_each(?)"
_UPDATE_WORDS: Final = "UPDATE words SET text = value->>1 FROM json_each(?) WHERE words.id = value->>0"
_CODE: Final = ("kind", "text", "scheme", "again", "state", "start", "created", "id")
_INSERT_CODES: Final = (
    f"INSERT INTO code({', '.join(_CODE)}) SELECT {_of_row(*([''] * len(_CODE)))} FROM json_each(?)"  # noqa: S608
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
    FROM json_each(?) wanted CROSS JOIN workitem m ON m.uid = wanted.value CROSS JOIN rows r ON r.id = m.id
"""
_VERSIONS: Final = """
    SELECT json_group_array(json_array(m.uid, m.id, m.version, m.digest))
    FROM json_each(?) wanted CROSS JOIN workitem m ON m.uid = wanted.value
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
    gone: list[int] = field(default_factory=list)


class ProjectionWriter:
    """Keeps the tables in step with the documents. May be used by one thread at a time."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute
        self._executemany = connection.executemany
        self._connection = connection
        self._began_empty = False
        self._seen: bytearray | None = None
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

    def bear(self, mark: str) -> None:
        """Write a mark beside the former one: everything that came before it has been written (store/journal.py)."""
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
        if self._seen is not None and any(isinstance(change, RowsRemoval) for change in changes):
            self._write_staged()
        uids = [change.uid for change in changes]
        stored = {row[0]: row[1:] for row in self._read(_STORED, uids)} if self._next_row > 1 else {}
        into = _Statements()
        for change in changes:
            row = stored.get(change.uid)
            if isinstance(change, RowsRemoval):
                _remove(row, into)
            elif row is None:
                self._insert(change, into)
            else:
                _update(change, row, into)
        self._carry_out(into)
        for row in stored.values():
            self._mark_seen(row[0])

    def _insert(self, change: WorkitemRows, into: _Statements) -> None:
        facts = change.facts
        if facts is None:
            raise sqlite3.IntegrityError(f"workitem {change.uid} is not there, but was to be changed")
        row, self._next_row = self._next_row, self._next_row + 1
        self._mark_seen(row)
        into.inserted.append([row, *_columns(change), change.created, *facts.lasting, change.uid])
        into.new_bodies.append((row, change.document))
        into.new_rows.append((row, _texts_of(facts)))
        into.new_words.append([row, facts.words])
        into.codes += _placed(facts.codes, change, row)
        into.keys += [(kind, text, row) for kind, text in facts.keys]

    def _carry_out(self, into: _Statements) -> None:
        if into.old_codes or into.old_keys or into.updated or into.updated_all:
            self._write_staged()
        for statement, rows in (
            (_DELETE_CODES, into.old_codes),
            (_DELETE_KEYS, into.old_keys),
            (_INSERT, into.inserted),
            (_UPDATE, into.updated),
            (_UPDATE_ALL, into.updated_all),
            (_INSERT_WORDS, into.new_words),
            (_UPDATE_WORDS, into.words),
        ):
            if rows:
                self._rows(statement, rows)
        for statement, texts in (
            (_INSERT_BODY, into.new_bodies),
            (_UPDATE_BODY, into.bodies),
            (_INSERT_ROWS, into.new_rows),
            (_UPDATE_ROWS, into.rows),
        ):
            if texts:
                self._blobs(statement, texts)
        if into.gone:
            for table in ("words", "rows", "body", "workitem"):
                self._rows(f"DELETE FROM {table} WHERE id IN (SELECT value FROM json_each(?))", into.gone)  # noqa: S608
        self._staged_codes += into.codes
        self._staged_keys += into.keys
        if self._seen is None or len(self._staged_keys) > ROWS_STAGED:
            self._write_staged()

    def _write_staged(self) -> None:
        """Insert the staged rows in order and in bulk, which is much faster."""
        for statement, rows in ((_INSERT_CODES, self._staged_codes), (_INSERT_KEYS, self._staged_keys)):
            if rows:
                self._rows(statement, sorted(rows) if self._seen is not None else rows)
                rows.clear()

    def _rows(self, statement: str, rows: Sequence[Any]) -> None:
        self._execute(statement, (orjson.dumps(rows).decode(),))

    def _blobs(self, statement: str, texts: Sequence[tuple[int, bytes]]) -> None:
        rows, together = [], bytearray()
        for row, text in texts:
            compressed = packed(text)
            rows.append((row, len(together) + 1, len(compressed)))
            together += compressed
        self._execute(statement, (orjson.dumps(rows).decode(), bytes(together)))

    def _read(self, statement: str, keys: Sequence[str]) -> list[list[Any]]:
        rows: list[list[Any]] = orjson.loads(
            self._execute(statement, (orjson.dumps(keys).decode(),)).fetchone()[0]
        )
        return rows

    # --- the log of events ---

    def respell_receivers(self, titles: Mapping[str, str]) -> None:
        """Write AE titles (keys) in the log of events as other ones (values)."""
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
        """Remove up to ``limit`` events from before a time; return how many."""
        chosen = "SELECT sequence FROM event WHERE at < ? ORDER BY at LIMIT ?"
        with self._transaction():
            return self._execute(f"DELETE FROM event WHERE sequence IN ({chosen})", (before, limit)).rowcount  # noqa: S608

    # --- all of them ---

    def begin(self) -> None:
        """Start to rebuild; until ``finish`` writes are gathered into large transactions."""
        self._seen = bytearray(self._next_row)
        self._began_empty = self._next_row == 1
        if self._began_empty:
            self._journal("OFF")
            for statement in drop_indexes():
                self._execute(statement)
        self._execute("BEGIN IMMEDIATE")
        self._execute("DELETE FROM tombstone")
        self._execute("DELETE FROM meta WHERE name = 'marks'")

    def _journal(self, mode: str) -> None:
        """Set the journal mode: an empty file needs none. (While somebody is reading, WAL stays on.)"""
        with suppress(sqlite3.OperationalError):
            self._execute(f"PRAGMA journal_mode = {mode}")

    def _mark_seen(self, row: int) -> None:
        if self._seen is not None:
            self._seen.extend(bytes(max(0, row + 1 - len(self._seen))))
            self._seen[row] = 1

    def unchanged(self, entries: Sequence[tuple[str, str, bytes]]) -> set[str]:
        """The UIDs of those (uid, version, document) that are stored already with the very same document."""
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
            self._mark_seen(row)
            same.add(uid)
        self._executemany("UPDATE workitem SET version = ? WHERE id = ?", reversioned)
        return same

    def spare(self, uid: str) -> None:
        """Do not remove this workitem at the end, if present."""
        for (row,) in self._execute("SELECT id FROM workitem WHERE uid = ?", (uid,)):
            self._mark_seen(row)

    def finish(self, *, complete: bool) -> int:
        """Remove what was not seen since ``begin`` if all was seen; return how many were removed."""
        seen = self._seen or bytearray()
        gone = [
            RowsRemoval(uid)
            for row, uid in self._execute(
                "SELECT id, uid FROM workitem" if complete else "SELECT 0, '' LIMIT 0"
            )
            if row >= len(seen) or not seen[row]
        ]
        if gone:
            self._write_changes(gone)
        self._write_staged()
        self._seen = None
        for statement in make_indexes():
            self._execute(statement)
        self._execute("COMMIT")
        self._journal("WAL")
        return len(gone)

    @contextmanager
    def _transaction(self, changes: int = 0) -> Iterator[None]:
        if self._seen is not None:
            yield
            self._commit_now_and_then(changes)
            return
        self._execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.rollback()
            raise
        self._execute("COMMIT")

    def _commit_now_and_then(self, changes: int) -> None:
        self._uncommitted += changes
        if self._uncommitted >= WORKITEMS_PER_COMMIT:
            self._uncommitted = 0
            self._execute("COMMIT")
            self._execute("BEGIN IMMEDIATE")


def _update(change: WorkitemRows, stored: _Row, into: _Statements) -> None:
    row, created, state, start, texts = stored
    facts = change.facts
    codes, keys = orjson.loads(unpacked(bytes.fromhex(texts)))
    into.bodies.append((row, change.document))
    new_codes: Iterable[_Row] = codes
    if facts is None:
        into.updated.append([row, *_columns(change)])
    else:
        new_codes = facts.codes
        into.updated_all.append([row, *_columns(change), change.created, *facts.lasting])
        into.rows.append((row, _texts_of(facts)))
        into.words.append([row, facts.words])
        before, after = {tuple(key) for key in keys}, set(facts.keys)
        into.old_keys += [(kind, text, row) for kind, text in before - after]
        into.keys += [(kind, text, row) for kind, text in after - before]
    old = [(*code, state, start, created, row) for code in codes]
    new = _placed(new_codes, change, row)
    if old != new:
        into.old_codes += old
        into.codes += new


def _remove(stored: _Row | None, into: _Statements) -> None:
    if stored is not None:
        row, created, state, start, texts = stored
        codes, keys = orjson.loads(unpacked(bytes.fromhex(texts)))
        into.old_codes += [(*code, state, start, created, row) for code in codes]
        into.old_keys += [(*key, row) for key in keys]
        into.gone.append(row)


def _placed(codes: Iterable[_Row], change: WorkitemRows, row: int) -> list[_Row]:
    """The rows of codes with the position of their workitem."""
    volatile = change.volatile
    return [(*code, volatile.state, volatile.start, change.created, row) for code in codes]


def _texts_of(facts: WorkitemFacts) -> bytes:
    rows: tuple[Sequence[CodeRow], Sequence[KeyRow]] = facts.codes, facts.keys
    return orjson.dumps(rows)
