# SPDX-License-Identifier: AGPL-3.0-or-later
"""Writing the projection: one workitem at a time, or all of them in bulk. May raise ``sqlite3.Error``."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import orjson

from ..core.date_times import Zone
from ..core.workitem import Workitem
from ..store.port import Entry
from .facts import CodeRow, Facts, KeyRow, Lasting, Volatile, facts_of, same_lasting, volatile_of
from .file import digest_of
from .recent import Recent, StoredWorkitem
from .schema import drop_indexes, make_indexes

_WORKITEMS_PER_COMMIT: Final = 20_000
_ROWS_STAGED: Final = 100_000

_STORED: Final = """
    SELECT m.id, m.created, m.state, m.start, b.rows
    FROM workitem m JOIN body b ON b.id = m.id WHERE m.uid = ?
"""
_VOLATILE: Final = ", ".join(f"{name} = ?" for name in ("version", "digest", *Volatile._fields))
_LASTING: Final = ", ".join(f"{name} = ?" for name in Lasting._fields)
_UPDATE: Final = f"UPDATE workitem SET {_VOLATILE} WHERE id = ?"  # noqa: S608
_UPDATE_ALL: Final = f"UPDATE workitem SET created = ?, {_VOLATILE}, {_LASTING} WHERE id = ?"  # noqa: S608
"""Every index holds ``created``; naming it, even unchanged, has all of them written anew."""

_COLUMNS: Final = ("uid", "created", "version", "digest", *Volatile._fields, *Lasting._fields)
_INSERT: Final = (
    f"INSERT INTO workitem({', '.join(_COLUMNS)}) "  # noqa: S608
    f"VALUES ({', '.join('?' * len(_COLUMNS))})"
)
_INSERT_CODE: Final = """
    INSERT INTO code(kind, text, scheme, again, state, start, created, id) VALUES (?,?,?,?,?,?,?,?)
"""
_DELETE_CODE: Final = """
    DELETE FROM code
    WHERE kind = ? AND text = ? AND scheme = ? AND state = ? AND start = ? AND created = ? AND id = ?
"""
_INSERT_KEY: Final = "INSERT OR IGNORE INTO key(kind, text, id) VALUES (?,?,?)"
_DELETE_KEY: Final = "DELETE FROM key WHERE kind = ? AND text = ? AND id = ?"


class ProjectionWriter:
    """Keeps the tables in step with the documents. Used by one thread."""

    def __init__(self, connection: sqlite3.Connection, local: Zone, recent: Recent) -> None:
        """``recent`` holds stored workitems: what is still the same object at the next write has not changed."""
        self._execute = connection.execute
        self._executemany = connection.executemany
        self._connection = connection
        self._local = local
        self._recent = recent
        self._unseen: dict[str, tuple[str, bytes]] | None = None
        self._uncommitted = 0
        self._is_gathering = False
        self._staged_codes: list[tuple[Any, ...]] = []
        self._staged_keys: list[tuple[int, str, int]] = []

    # --- one workitem ---

    def put(self, workitem: Workitem, version: str, document: bytes) -> bool:
        """Write a workitem down; True if it was not there."""
        with self._transaction():
            is_new = self._put(workitem, version, document)
        if self._unseen is None:
            self._recent.keep(StoredWorkitem(workitem, version, document), len(document))
        return is_new

    def remove(self, uid: str) -> bool:
        """Forget a workitem; False if it was not there."""
        with self._transaction():
            return self._remove(uid)

    def _put(self, workitem: Workitem, version: str, document: bytes) -> bool:
        if self._unseen is not None:
            self._unseen.pop(workitem.uid, None)
        stored = self._execute(_STORED, (workitem.uid,)).fetchone()
        if stored is None:
            self._insert(workitem, version, document)
            return True
        self._update(stored, workitem, version, document)
        return False

    def _insert(self, workitem: Workitem, version: str, document: bytes) -> None:
        facts = facts_of(workitem, self._local)
        head = workitem.uid, workitem.created, version, digest_of(document)
        row = self._execute(_INSERT, (*head, *facts.volatile, *facts.lasting)).lastrowid
        assert row is not None
        self._execute("INSERT INTO body VALUES (?,?,?)", (row, _packed(facts.codes, facts.keys), document))
        self._execute("INSERT INTO words VALUES (?,?)", (row, facts.words))
        position = facts.volatile.state, facts.volatile.start, workitem.created, row
        self._staged_codes += [(*code, *position) for code in facts.codes]
        self._staged_keys += [(kind, text, row) for kind, text in facts.keys]
        if self._unseen is None or len(self._staged_keys) > _ROWS_STAGED:
            self._write_staged()

    def _write_staged(self) -> None:
        """In bulk, rows go into their tables in order and many at a time, which is much faster."""
        self._executemany(_INSERT_CODE, self._staged_codes)
        self._executemany(_INSERT_KEY, self._staged_keys)
        self._staged_codes.clear()
        self._staged_keys.clear()

    def _update(self, stored: Sequence[Any], workitem: Workitem, version: str, document: bytes) -> None:
        self._write_staged()
        row, created, state, start, rows = stored
        head = version, digest_of(document)
        recent = self._recent.get(workitem.uid) if created == workitem.created else None
        if recent is not None and same_lasting(recent.workitem.attributes, workitem.attributes):
            volatile = volatile_of(workitem, self._local)
            self._execute(_UPDATE, (*head, *volatile, row))
            self._execute("UPDATE body SET document = ? WHERE id = ?", (document, row))
            codes, _ = _unpacked(rows)
            new_codes: Sequence[CodeRow] = codes
        else:
            facts = facts_of(workitem, self._local)
            volatile = facts.volatile
            self._execute(_UPDATE_ALL, (workitem.created, *head, *volatile, *facts.lasting, row))
            codes, new_codes = self._rewrite_body(row, rows, facts, document)
        before = state, start, created, row
        after = volatile.state, volatile.start, workitem.created, row
        if (codes, before) != (list(new_codes), after):
            self._drop_codes(codes, before)
            self._add_codes(new_codes, after)

    def _rewrite_body(
        self, row: int, rows: bytes, facts: Facts, document: bytes
    ) -> tuple[list[CodeRow], Sequence[CodeRow]]:
        """Write the document and the keys that changed; return the codes of before and now."""
        packed = _packed(facts.codes, facts.keys)
        self._execute("UPDATE body SET rows = ?, document = ? WHERE id = ?", (packed, document, row))
        self._execute("UPDATE words SET text = ? WHERE id = ?", (facts.words, row))
        codes, keys = _unpacked(rows)
        before, after = set(keys), set(facts.keys)
        self._executemany(_DELETE_KEY, [(kind, text, row) for kind, text in before - after])
        self._executemany(_INSERT_KEY, [(kind, text, row) for kind, text in after - before])
        return codes, facts.codes

    def _remove(self, uid: str) -> bool:
        self._recent.forget(uid)
        self._write_staged()
        stored = self._execute(_STORED, (uid,)).fetchone()
        if stored is None:
            return False
        row, created, state, start, rows = stored
        codes, keys = _unpacked(rows)
        self._drop_codes(codes, (state, start, created, row))
        self._executemany(_DELETE_KEY, [(kind, text, row) for kind, text in keys])
        for table in ("words", "body", "workitem"):
            self._execute(f"DELETE FROM {table} WHERE id = ?", (row,))  # noqa: S608
        return True

    def _add_codes(self, codes: Iterable[CodeRow], position: tuple[int, int, int, int]) -> None:
        self._executemany(_INSERT_CODE, [(*code, *position) for code in codes])

    def _drop_codes(self, codes: Iterable[CodeRow], position: tuple[int, int, int, int]) -> None:
        self._executemany(_DELETE_CODE, [(kind, text, scheme, *position) for kind, text, scheme, _ in codes])

    # --- the log of events ---

    def record_events(self, rows: Iterable[tuple[object, ...]]) -> None:
        """Add rows to the log of events."""
        with self._transaction():
            self._executemany("INSERT OR REPLACE INTO event VALUES (?,?,?,?,?,?)", rows)

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
        """Start to read all in anew; until ``finish`` writes are gathered into large transactions."""
        self._recent.clear()
        rows = self._execute("SELECT uid, version, digest FROM workitem")
        self._unseen = {uid: (version, digest) for uid, version, digest in rows}
        if not self._unseen:
            self._journal("OFF")
            for statement in drop_indexes():
                self._execute(statement)
        self._execute("BEGIN IMMEDIATE")

    def _journal(self, mode: str) -> None:
        """Nothing in an empty file is worth a journal. (Where somebody is reading, WAL stays on.)"""
        with suppress(sqlite3.OperationalError):
            self._execute(f"PRAGMA journal_mode = {mode}")

    def unchanged(self, entries: Iterable[tuple[str, str, bytes]]) -> set[str]:
        """Of (uid, version, document) those that are here already, byte by byte."""
        assert self._unseen is not None, "between begin() and finish() only"
        same = set()
        for uid, version, document in entries:
            stored = self._unseen.get(uid)
            if stored is None or stored[1] != digest_of(document):
                continue
            if stored[0] != version:
                self._execute("UPDATE workitem SET version = ? WHERE uid = ?", (version, uid))
            del self._unseen[uid]
            same.add(uid)
        return same

    def spare(self, uid: str) -> None:
        """Do not remove this workitem at the end, if it is here."""
        assert self._unseen is not None, "between begin() and finish() only"
        self._unseen.pop(uid, None)

    def finish(self, *, complete: bool) -> int:
        """Remove what was not seen since ``begin`` if all was seen; return how many were removed."""
        gone, self._unseen = list(self._unseen or ()) if complete else [], None
        for uid in gone:
            self._remove(uid)
        self._write_staged()
        for statement in make_indexes():
            self._execute(statement)
        self._execute("COMMIT")
        self._journal("WAL")
        return len(gone)

    def gather(self) -> None:
        """Until ``write_out`` all is one transaction."""
        if self._unseen is None:
            self._execute("BEGIN IMMEDIATE")
            self._is_gathering = True

    def write_out(self) -> None:
        """End of ``gather``."""
        if self._is_gathering:
            self._is_gathering = False
            self._execute("COMMIT")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        if self._is_gathering:
            yield
            return
        if self._unseen is not None:
            yield
            self._commit_now_and_then()
            return
        self._execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.rollback()
            raise
        self._execute("COMMIT")

    def _commit_now_and_then(self) -> None:
        self._uncommitted += 1
        if self._uncommitted >= _WORKITEMS_PER_COMMIT:
            self._uncommitted = 0
            self._execute("COMMIT")
            self._execute("BEGIN IMMEDIATE")


def _packed(codes: Sequence[CodeRow], keys: Sequence[KeyRow]) -> bytes:
    return orjson.dumps((codes, keys))


def _unpacked(rows: bytes) -> tuple[list[CodeRow], list[KeyRow]]:
    codes, keys = orjson.loads(rows)
    return [tuple(row) for row in codes], [tuple(row) for row in keys]


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
