# SPDX-License-Identifier: AGPL-3.0-or-later
"""Interned sequences: equal sequences are the same object, and results that are computed from it are stored with it.

Workitems of a site share most of their sequences: codes of procedures, stations and performers. Readers of data sets
intern top-level sequences by the bytes that they were read from. Because data sets are never changed in place, the
rules and the search index can store their results with such an element instead of computing them again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Final

from .dataset import Element

LONGEST: Final = 2048
"""Bytes of the longest sequence to intern: longer ones are seldom equal."""
_MAXIMUM: Final = 1_000

Notes = dict[Hashable, Any]

_notes: dict[int, tuple[Element, Notes]] = {}
"""By the ``id`` of an interned element; the entry has a reference to it, so that the id is not reused."""


def notes_of(element: Element) -> Notes | None:
    """The results that are stored with an interned element, to read and to add to; None if it is not interned."""
    entry = _notes.get(id(element))
    return entry[1] if entry is not None and entry[0] is element else None


class Interned:
    """The latest elements, by the bytes that they were read from. Not thread-safe."""

    def __init__(self, maximum: int = _MAXIMUM) -> None:
        self._maximum = maximum
        self._elements: OrderedDict[Hashable, tuple[Element, Any]] = OrderedDict()

    def get(self, key: Hashable) -> tuple[Element, Any] | None:
        """The element, and the value that was added with it; None if there is none for the key."""
        entry = self._elements.get(key)
        if entry is not None:
            self._elements.move_to_end(key)
        return entry

    def add(self, key: Hashable, element: Element, source: Any = None) -> None:
        """Intern an element under a key, with any value."""
        self._elements[key] = element, source
        _notes[id(element)] = element, {}
        if len(self._elements) > self._maximum:
            _, (oldest, _) = self._elements.popitem(last=False)
            _forget(oldest)

    def clear(self) -> None:
        """Forget all."""
        while self._elements:
            _, (oldest, _) = self._elements.popitem()
            _forget(oldest)


_DERIVED: Final = "derived"


def derive(notes: Notes, element: Element) -> None:
    """Intern an element that was derived from another, whose notes have it, for as long as that is interned."""
    if notes_of(element) is None:
        notes.setdefault(_DERIVED, []).append(element)
        _notes[id(element)] = element, {}


def _forget(element: Element) -> None:
    _, notes = _notes.pop(id(element), (element, {}))
    for derived in notes.get(_DERIVED, ()):
        _forget(derived)
