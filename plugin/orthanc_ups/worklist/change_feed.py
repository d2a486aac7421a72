# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which workitems changed lately: a page asks for what is new since it last asked."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

_KEPT: Final = 2_000


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened behind a number.

    Attributes:
        number: ask with it next time.
        uids: the workitems that changed, the latest last, each once.
        complete: False if more happened than is remembered; then everything may have changed.
    """

    number: int
    uids: tuple[str, ...]
    complete: bool


class ChangeFeed:
    """Remembers the last changes. Lives on the loop."""

    def __init__(self, first: int = 0) -> None:
        """``first`` should grow from start to start (milliseconds since the epoch, say), so that a page
        that outlives a restart notices it.
        """
        self._number = first
        self._oldest = first
        self._latest: deque[tuple[int, str]] = deque(maxlen=_KEPT)

    @property
    def number(self) -> int:
        """The number of the last change."""
        return self._number

    def note(self, uid: str) -> None:
        """A workitem was written or forgotten."""
        if len(self._latest) == _KEPT:
            self._oldest = self._latest[0][0]
        self._number += 1
        self._latest.append((self._number, uid))

    def since(self, number: int) -> Changes:
        """What changed after a number that was given out before."""
        if not self._oldest <= number <= self._number:
            return Changes(self._number, (), False)
        uids: dict[str, None] = {}
        for at, uid in reversed(self._latest):
            if at <= number:
                break
            uids.setdefault(uid)
        return Changes(self._number, tuple(reversed(uids)), True)
