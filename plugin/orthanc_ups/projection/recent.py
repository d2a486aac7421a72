# SPDX-License-Identifier: AGPL-3.0-or-later
"""A cache of the workitems read or written last: those in progress are requested again and again."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from ..core.workitem import Workitem

_LARGEST: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class StoredWorkitem:
    """A workitem with the version of its entry in the store, and the document as it stands there."""

    workitem: Workitem
    version: str
    document: bytes = field(default=b"", compare=False, repr=False)


class Recent:
    """Holds the latest workitems whose documents are at most ``size`` bytes together; several times that in memory."""

    def __init__(self, size: int = _LARGEST) -> None:
        self._maximum = size
        self._size = 0
        self._entries: OrderedDict[str, tuple[StoredWorkitem, int]] = OrderedDict()

    def get(self, uid: str) -> StoredWorkitem | None:
        """The workitem, if it is cached."""
        entry = self._entries.get(uid)
        if entry is None:
            return None
        self._entries.move_to_end(uid)
        return entry[0]

    def keep(self, workitem: StoredWorkitem, size: int) -> None:
        """Add a workitem that was read or written; its document has ``size`` bytes."""
        uid = workitem.workitem.uid
        self.forget(uid)
        self._entries[uid] = workitem, size
        self._size += size
        while self._size > self._maximum:
            self.forget(next(iter(self._entries)))

    def forget(self, uid: str) -> None:
        """Remove a workitem that was deleted, or whose cached state may be wrong."""
        entry = self._entries.pop(uid, None)
        if entry is not None:
            self._size -= entry[1]

    def clear(self) -> None:
        """Remove all workitems."""
        self._entries.clear()
        self._size = 0
