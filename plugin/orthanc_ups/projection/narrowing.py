# SPDX-License-Identifier: AGPL-3.0-or-later
"""Filters of the operator's list that are not matching keys of PS3.4, such as claimer, duration and lateness."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from ..core.lateness import LateKind, LatePolicy
from .late import late
from .queries import Column, Ids, Sql
from .schema import NO_TIME

Span: TypeAlias = tuple[float, float]
"""From and to, both inclusive, in seconds; times are since the epoch."""


@dataclass(frozen=True, slots=True)
class Narrowing:
    """Filters beyond the matching keys; empty ones are ignored.

    Attributes:
        late: kinds of lateness; at least one must apply.
        claimers: AE titles; one of them must have claimed the workitem.
        station: the name of the first scheduled station, ignoring case.
        performed: part of the name of the performed station, ignoring case.
        claimed, ended: when the workitem was claimed or ended.
        duration: seconds from claim to end.
        policy, now: decide what is late.
    """

    late: frozenset[LateKind] = frozenset()
    claimers: tuple[str, ...] = ()
    station: str = ""
    performed: str = ""
    claimed: Span | None = None
    ended: Span | None = None
    duration: Span | None = None
    policy: LatePolicy = field(default_factory=LatePolicy)
    now: float = 0.0

    def tests(self) -> tuple[Column | Ids, ...]:
        """The tests to pass to ``Projection.search``."""
        return tuple(self._tests())

    def _tests(self) -> Iterator[Column | Ids]:
        if self.late:
            yield late(self.policy, self.now, self.late)
        if self.claimers:
            marks = ", ".join("?" * len(self.claimers))
            yield Column("claimer", Sql(f"{{row}}.claimer IN ({marks})", self.claimers))
        if self.station:
            yield Column("station", Sql("{row}.station = ?", (self.station.casefold(),)))
        if self.performed:
            text = "instr({row}.performed, ?) > 0"
            yield Column("performed", Sql(text, (self.performed.casefold(),)))
        for name, span in (("claimed", self.claimed), ("ended", self.ended), ("duration", self.duration)):
            if span is not None:
                text = f"{{row}}.{name} BETWEEN ? AND ? AND {{row}}.{name} < ?"
                yield Column(name, Sql(text, (*span, NO_TIME)))
