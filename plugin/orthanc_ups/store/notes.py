# SPDX-License-Identifier: AGPL-3.0-or-later
"""Small entries of parts of the plugin that the worklist does not know: ``note/NAME``."""

from __future__ import annotations

from collections.abc import Iterator

from . import keys
from .port import Entries, Entry
from .writer import StoredEntry


class Notes:
    """What parts such as rules keep across restarts, each under its own name."""

    def __init__(self, entries: Entries) -> None:
        self._entries = entries
        self._notes: dict[str, StoredEntry] = {}

    def take(self, entry: Entry) -> None:
        """Take over a stored entry."""
        self.note(entry.key.removeprefix(keys.NOTE)).take(entry.document, entry.version)

    def note(self, name: str) -> StoredEntry:
        """The entry of a part; its document is empty if it was never written."""
        key = keys.note(name)
        return self._notes.setdefault(key, StoredEntry(self._entries, key))

    def stored(self) -> Iterator[Entry]:
        """The stored entries, to be written back after a loss."""
        for note in self._notes.values():
            if note.stored is not None:
                yield note.stored
