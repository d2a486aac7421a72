# SPDX-License-Identifier: AGPL-3.0-or-later
"""Interned sequences: equal ones are the same object, and results that are worked out from one are kept with it.

Workitems of a site share most of their sequences: codes of procedures, stations and performers. Whoever reads data
sets interns the sequences of the top level by the bytes that they were read from. As data sets are never changed in
place, the rules and the search index may keep their results with such an element, and need not work them out again.
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
"""By the identity of an interned element, which lives as long as its entry."""


def notes_of(element: Element) -> Notes | None:
    """The results kept with an interned element, to be added to; None if it is not interned."""
    entry = _notes.get(id(element))
    return entry[1] if entry is not None and entry[0] is element else None


class Interned:
    """The latest elements, by the bytes that they were read from. For use on one thread."""

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
    """Intern an element that is derived from an interned one and kept in its notes, for as long as that."""
    if notes_of(element) is None:
        notes.setdefault(_DERIVED, []).append(element)
        _notes[id(element)] = element, {}


def _forget(element: Element) -> None:
    _, notes = _notes.pop(id(element), (element, {}))
    for derived in notes.get(_DERIVED, ()):
        _forget(derived)
