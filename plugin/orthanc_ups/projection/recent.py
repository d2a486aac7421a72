# SPDX-License-Identifier: AGPL-3.0-or-later
"""A cache of the workitems most recently read or written."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from ..core.workitem import Workitem

_LARGEST: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class StoredWorkitem:
    """A workitem with the version and the document of its entry in the store."""

    workitem: Workitem
    version: str
    document: bytes = field(default=b"", compare=False, repr=False)


class Recent:
    """Holds recent workitems whose documents have at most ``size`` bytes in total (several times that in memory)."""

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
        """Add a workitem whose document has ``size`` bytes."""
        uid = workitem.workitem.uid
        self.forget(uid)
        self._entries[uid] = workitem, size
        self._size += size
        while self._size > self._maximum:
            self.forget(next(iter(self._entries)))

    def forget(self, uid: str) -> None:
        """Remove a workitem that was deleted or whose cached state may be outdated."""
        entry = self._entries.pop(uid, None)
        if entry is not None:
            self._size -= entry[1]

    def clear(self) -> None:
        """Empty the cache."""
        self._entries.clear()
        self._size = 0
