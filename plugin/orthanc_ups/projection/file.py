# SPDX-License-Identifier: AGPL-3.0-or-later
"""The file of the projection: used if it is intact, otherwise set aside and created anew."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ..core.statuses import RESOURCE_LIMITATION, UpsError
from ..store.documents import UnreadableDocument, digest_of, unpacked
from .schema import fingerprint, make_indexes, tables

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_CLEAN: Final = "clean"
_OLD_DOCUMENTS: Final = """
    SELECT m.uid, m.version, m.digest, b.document FROM workitem m JOIN body b ON b.id = m.id
"""
_WRITER_CACHE: Final = 64_000
_READER_CACHE: Final = 16_000
_PAGES_BEFORE_CHECKPOINT: Final = 4_000


_log = logging.getLogger("orthanc_ups.store")


class ProjectionBroken(UpsError):
    """The projection cannot be used; ``str`` says why. Nothing is lost: it can be rebuilt from the store.

    Writes continue without it. Requests that need to read are refused as temporarily out of resources (A700, 0213;
    HTTP 503).
    """

    def __init__(self, why: object) -> None:
        super().__init__(RESOURCE_LIMITATION, "the search index is being rebuilt; try again in a few seconds")
        self._why = str(why)

    def __str__(self) -> str:
        return self._why


class ProjectionFile:
    """A file that no other process has open.

    Attributes:
        path: the file itself.
        writer: the connection that writes.
        renewed: why a file was created, None if the existing content is used.
    """

    def __init__(self, path: str | Path, zone: object, *, rebuild: bool = False) -> None:
        """``:memory:`` means a temporary file; ``rebuild`` deletes an existing file.

        Raises ProjectionBroken if the file cannot be created or another process uses it.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="ups-") if path == ":memory:" else None
        self.path = Path(self._folder.name) / "projection.sqlite" if self._folder else Path(path)
        self._fingerprint = fingerprint(zone)
        self._rebuild = rebuild
        self._lock: int | None = None
        try:
            self._lock = self._locked()
            self.writer, self.renewed = self._opened()
        except (sqlite3.Error, OSError) as error:
            self._unlock()
            raise ProjectionBroken(f"{self.path}: {error}") from error
        self._identity = _identity(self.path)

    def _locked(self) -> int:
        lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise ProjectionBroken(f"{self.path} is in use by another process") from None
        return lock

    def _opened(self) -> tuple[sqlite3.Connection, str | None]:
        fault = self._fault() if self.path.exists() else "it is new"
        if self._rebuild:
            fault = fault or "on request"
        if fault:
            self._set_aside()
        connection = _connection(self.path, _WRITER_CACHE)
        with _closed_on_error(connection):
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute(f"PRAGMA wal_autocheckpoint = {_PAGES_BEFORE_CHECKPOINT}")
            if fault:
                self._make(connection)
            connection.execute("PRAGMA synchronous = FULL")
            self._mark(connection, boot_id())
            connection.execute("PRAGMA synchronous = OFF")
        return connection, fault

    def _fault(self) -> str | None:
        """Why the existing file cannot be used, or None."""
        try:
            with contextlib.closing(_connection(self.path, _READER_CACHE)) as connection:
                meta = dict(connection.execute("SELECT name, value FROM meta"))
        except sqlite3.Error as error:
            return str(error)
        if meta.get("fingerprint") != self._fingerprint:
            return "it was created by another version or for another time zone"
        if meta.get("used_since_boot") not in (_CLEAN, boot_id() or None):
            return "the machine went down while it was in use"
        return None

    def _set_aside(self) -> None:
        """Rename the file: it may hold the last copy of workitems that were deleted from the store."""
        if not self._rebuild and self.path.exists() and not self._old("").exists():
            for ending in ("-wal", ""):
                with contextlib.suppress(FileNotFoundError):
                    Path(f"{self.path}{ending}").rename(self._old(ending))
        self._delete()

    def _old(self, ending: str) -> Path:
        return Path(f"{self.path}.old{ending}")

    def old_documents(self) -> Iterator[tuple[str, str, bytes]]:
        """SOP Instance UID, version and document of each readable workitem in the file that was set aside."""
        if not self._old("").exists():
            return
        try:
            with contextlib.closing(_connection(self._old(""), _READER_CACHE)) as connection:
                for uid, version, digest, stored in connection.execute(_OLD_DOCUMENTS):
                    document = stored if stored.startswith(b"{") else unpacked(stored)
                    # Earlier versions stored the digest as bytes, and the document without compression.
                    expected = digest_of(document)
                    if digest in (expected, bytes.fromhex(expected)):
                        yield uid, version, document
        except (sqlite3.Error, TypeError, UnreadableDocument) as error:
            _log.error("Cannot read %s to the end: %s", self._old(""), error)

    def forget_old(self) -> None:
        """Delete the file that was set aside."""
        for ending in ("", "-wal", "-shm", "-journal"):
            self._old(ending).unlink(missing_ok=True)

    def _delete(self) -> None:
        for ending in ("", "-wal", "-shm", "-journal"):
            Path(f"{self.path}{ending}").unlink(missing_ok=True)

    def _make(self, connection: sqlite3.Connection) -> None:
        connection.executescript(tables())
        for statement in make_indexes():
            connection.execute(statement)
        connection.execute("INSERT INTO meta VALUES ('fingerprint', ?)", (self._fingerprint,))

    @staticmethod
    def _mark(connection: sqlite3.Connection, used: str) -> None:
        """Store the boot in which the file is used: what is written without fsync is lost if the machine crashes."""
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('used_since_boot', ?)", (used,))

    def reader(self) -> sqlite3.Connection:
        """A new read-only connection."""
        connection = _connection(self.path, _READER_CACHE)
        with _closed_on_error(connection):
            connection.execute("PRAGMA query_only = ON")
        return connection

    def is_there(self) -> bool:
        """False if the file was deleted or replaced, which the open connections do not notice."""
        return _identity(self.path) == self._identity

    def close(self, *, keep: bool) -> None:
        """Write everything to the file and close it, or close and delete it. May be called twice."""
        if self._lock is None:
            return
        with contextlib.suppress(sqlite3.Error):
            if keep:
                self.writer.execute("PRAGMA synchronous = NORMAL")
                self._mark(self.writer, _CLEAN)
                self.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.writer.close()
        with contextlib.suppress(OSError):
            if not keep:
                self._delete()
        self._unlock()
        if self._folder:
            self._folder.cleanup()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _connection(path: Path, cache: int) -> sqlite3.Connection:
    """A connection with a page cache of ``cache`` KiB."""
    connection = sqlite3.connect(
        path, timeout=5.0, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    with _closed_on_error(connection):
        connection.execute(f"PRAGMA cache_size = -{cache}")
    return connection


@contextlib.contextmanager
def _closed_on_error(connection: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        connection.close()
        raise


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def boot_id() -> str:
    """The ID of the current boot of the machine (proc(5)); "" if unknown."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return ""
