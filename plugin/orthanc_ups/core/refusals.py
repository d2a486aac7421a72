# SPDX-License-Identifier: AGPL-3.0-or-later
"""How refusals and corrections name attributes, and how all those of a data set are collected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

from . import statuses, tags
from .dictionary import KEYWORD_OF, keyword
from .statuses import Fault, Status, UpsError

Trail: TypeAlias = tuple[tuple[str, int], ...]
"""The path to an item: tag of the sequence and number of the item, from 1, level by level."""


def spelled(tag: str) -> str:
    """``CodeValue (0008,0100)``; ``(0009,1001)`` for a tag that the table does not have."""
    return f"{keyword(tag)} ({tag[:4]},{tag[4:]})" if tag in KEYWORD_OF else keyword(tag)


def located(trail: Trail) -> str:
    """``, in item 2 of InputInformationSequence (0040,4021)``; empty at the top level."""
    return "".join(f", in item {number} of {spelled(tag)}" for tag, number in reversed(trail))


def path_of_trail(trail: Trail, tag: str) -> str:
    """The tags of the trail and the attribute, joined by dots."""
    return ".".join((*(above for above, _ in trail), tag))


def refusal(status: Status, trail: Trail, tag: str, what: str) -> UpsError:
    """A refusal that names the attribute, what is wrong with it, and the item that contains it.

    ``what`` is the predicate of the sentence that begins with the attribute; it contains no patient data.
    """
    return UpsError(status, f"{spelled(tag)} {what}{located(trail)}", path_of_trail(trail, tag))


_RANKS: Final = (
    statuses.NOT_SCHEDULED,
    statuses.NO_SUCH_ARGUMENT,
    statuses.MISSING_ATTRIBUTE,
    statuses.MISSING_VALUE,
    statuses.NO_SUCH_ATTRIBUTE,
    statuses.INVALID_VALUE,
)
"""The status of a refusal with several faults is the first of these that occurs."""
_MAXIMUM: Final = 100
_MAXIMUM_SENTENCES: Final = 20


class Findings:
    """The findings of the rules in one data set: every fault, and every correction.

    Attributes:
        strict: True to refuse faulty values even if their meaning is clear, and to add nothing (``Ups.Strict``).
        count: the number of findings.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        self.count = 0
        self._faults: list[Fault] = []
        self._at_fault: set[tuple[Trail, str]] = set()
        self._more_faults = 0
        self._corrections: dict[tuple[str, str], list[str]] = {}
        self._corrected: set[str] = set()
        self._more_corrections = 0

    def fault(self, status: Status, trail: Trail, tag: str, what: str) -> None:
        """Note a fault, unless the attribute has one already; parameters as for ``refusal``."""
        self.count += 1
        if (trail, tag) in self._at_fault:
            return
        self._at_fault.add((trail, tag))
        if len(self._faults) < _MAXIMUM:
            reason = f"{spelled(tag)} {what}{located(trail)}"
            self._faults.append(Fault(status, path_of_trail(trail, tag), reason))
        else:
            self._more_faults += 1

    def correction(self, trail: Trail, tag: str, what: str) -> None:
        """Note a correction; ``what`` is a participle: ``added empty``, ``taken as SH``."""
        self.count += 1
        self._corrected.add(trail[0][0] if trail else tag)
        if (what, located(trail)) in self._corrections or len(self._corrections) < _MAXIMUM:
            self._corrections.setdefault((what, located(trail)), []).append(spelled(tag))
        else:
            self._more_corrections += 1

    def refuse(self) -> None:
        """Raise UpsError if there is a fault: one refusal that names all of them."""
        if self._faults:
            raise refusal_of(self._faults, self._more_faults)

    @property
    def corrections(self) -> tuple[str, ...]:
        """One sentence for all attributes of one level that were corrected in the same way."""
        sentences = [
            f"{', '.join(names)} {'was' if len(names) == 1 else 'were'} {what}{where}"
            for (what, where), names in self._corrections.items()
        ]
        if self._more_corrections:
            sentences.append(f"{self._more_corrections} more corrections")
        return tuple(sentences)

    @property
    def corrected(self) -> frozenset[str]:
        """Top-level tags of the attributes that were corrected, or that contain such attributes."""
        return frozenset(self._corrected)


class FaultList:
    """Faults of single attributes, collected while a data set is read."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._more = 0

    @property
    def count(self) -> int:
        """The number of attributes at fault."""
        return len(self._faults) + self._more

    def add(self, error: UpsError) -> None:
        """Add the faults of an error; of an error without any, its detail as the fault of ``error.tag``."""
        if len(self._faults) < _MAXIMUM:
            self._faults += error.faults or (Fault(error.status, error.tag or "", error.detail),)
        else:
            self._more += 1

    def refuse(self) -> None:
        """Raise UpsError if there is a fault: one refusal that names all of them."""
        if self._faults:
            raise refusal_of(self._faults, self._more)


def refusal_of(faults: Sequence[Fault], more: int = 0) -> UpsError:
    """One refusal that names all faults; ``more`` is the number of faults that are not in the list.

    Procedure Step State comes first, then the faults with the status of the refusal.
    """
    ranked = sorted(faults, key=_rank)
    sentences = [fault.reason for fault in ranked[:_MAXIMUM_SENTENCES]]
    unnamed = len(ranked) - len(sentences) + more
    if unnamed:
        sentences.append(f"and {unnamed} more attributes are at fault")
    return UpsError(ranked[0].status, "; ".join(sentences), ranked[0].path or None, ranked)


def _rank(fault: Fault) -> tuple[bool, int]:
    rank = _RANKS.index(fault.status) if fault.status in _RANKS else len(_RANKS)
    return fault.path != tags.STATE, rank
