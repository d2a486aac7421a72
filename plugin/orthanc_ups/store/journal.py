# SPDX-License-Identifier: AGPL-3.0-or-later
"""The journal of the search index: which workitems were written since the index was last known to have everything.

A start that trusts the index reads no workitems but these. It may if three marks are equal:

========================  ================================================================================
where the mark is         what it means
========================  ================================================================================
the index, in its file    it has everything that the store had when the mark was made
the journal, first line   it names each workitem that the store was asked to write since then
the store, ``index``      the mark is the last that was made
========================  ================================================================================

So **the index is used only if store, index and journal have the same mark**; what the journal names is read again,
everything else is equal. In any other case (a file is missing, old or restored from a backup, the store was restored
or moved, the index is of another version) the whole store is read. A new mark is made every ten seconds in which
anything is written, at each start, and when the plugin stops.

The journal is not forced to the disk: it survives the process, not the machine. After a power loss the index is
rebuilt anyway (``projection/file.py``).

While the mark changes there are two journals, and both are written: ``begin`` opens the second one, then the index gets
the new mark, then the store; ``complete`` replaces the first journal by the second.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Final

import orjson

from . import keys
from .documents import FORMAT
from .port import Entry

_NEW_FILE_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
_log = logging.getLogger("orthanc_ups.store")


def document_of(mark: str) -> bytes:
    """The document of the store's entry ``index``."""
    return orjson.dumps({"format": FORMAT, "mark": mark})


def mark_in(entry: Entry | None) -> str:
    """The mark in the store's entry ``index``, "" if there is none."""
    try:
        content = {} if entry is None else orjson.loads(entry.document)
        return str(content.get("mark", ""))
    except (orjson.JSONDecodeError, AttributeError):
        return ""


def path_beside(projection: str | Path) -> Path | None:
    """Path of the journal; None beside an index in memory."""
    return None if str(projection) == ":memory:" else Path(f"{projection}.journal")


class IndexJournal:
    """The journal; used on the loop only.

    A workitem is *open* from ``note``, before it is written, until ``indexed``, when the write has reached the index.
    """

    def __init__(self, path: Path) -> None:
        """Prepare, without touching the file."""
        self._path = path
        self._next_path = Path(f"{path}.next")
        self._file: int | None = None
        self._next: int | None = None
        self._noted: set[str] = set()
        self._is_empty = True
        self._open: Counter[str] = Counter()

    def read(self, mark: str) -> frozenset[str] | None:
        """UIDs of the workitems that were written since this mark was made; None if no journal has this mark."""
        for path in (self._path, self._next_path):
            with suppress(OSError, UnicodeDecodeError):
                lines = path.read_text("utf-8").splitlines()
                if lines[:1] == [mark]:
                    return frozenset(lines[1:])
        return None

    @property
    def is_empty(self) -> bool:
        """True if nothing has been noted since the mark was made, apart from what was open then."""
        return self._is_empty

    def note(self, key: str) -> None:
        """Note that an entry is about to be written."""
        if not keys.is_of_workitem(key):
            return
        uid = keys.uid_of(key)
        self._open[uid] += 1
        self._is_empty = False
        if uid not in self._noted:
            self._noted.add(uid)
            self._append(f"{uid}\n".encode())

    def indexed(self, uid: str) -> None:
        """A write of a workitem has reached the index."""
        if self._open[uid] > 1:
            self._open[uid] -= 1
        else:
            del self._open[uid]

    def begin(self, mark: str, *, whole: bool) -> None:
        """Write a second journal too from now on. It begins with what is open; ``whole``: nothing is open."""
        if whole:
            self._open.clear()
        self._noted = set(self._open)
        self._is_empty = True
        text = "".join(f"{line}\n" for line in (mark, *self._open))
        try:
            if self._next is not None:
                os.close(self._next)
            self._next = os.open(self._next_path, _NEW_FILE_FLAGS, 0o600)
            _write(self._next, text.encode())
        except OSError as error:
            self._delete(error)

    def complete(self) -> None:
        """The store has the mark of the second journal, which becomes the only one."""
        if self._next is None:
            return
        try:
            self._next_path.replace(self._path)
        except OSError as error:
            self._delete(error)
            return
        previous, self._file, self._next = self._file, self._next, None
        if previous is not None:
            os.close(previous)

    def close(self) -> None:
        """Close the files."""
        files, self._file, self._next = (self._file, self._next), None, None
        for file in files:
            if file is not None:
                os.close(file)

    def _append(self, line: bytes) -> None:
        try:
            for file in (self._file, self._next):
                if file is not None:
                    _write(file, line)
        except OSError as error:
            self._delete(error)

    def _delete(self, error: OSError) -> None:
        """Delete the journals: one that lacks a workitem must have no mark, and deleting needs no disk space."""
        _log.warning("The journal of the search index %s cannot be written (%s); the next start reads everything",
                     self._path, error)  # fmt: skip
        self.close()
        for path in (self._path, self._next_path):
            path.unlink(missing_ok=True)


def _write(file: int, text: bytes) -> None:
    if os.write(file, text) != len(text):
        raise OSError("incomplete write")
