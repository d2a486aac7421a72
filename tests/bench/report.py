# SPDX-License-Identifier: AGPL-3.0-or-later
"""The results as a table: each figure beside the floor measured in the same run, and the aim."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

MET, MISSED, NO_AIM = "yes", "**no**", ""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what: what was measured.
        ours, floor: the figures in words with their units; ``floor`` may be empty.
        result: the ratio or difference that counts.
        aim: what it should be.
        is_met: None where there is no aim.
    """

    what: str
    ours: str
    floor: str = ""
    result: str = ""
    aim: str = ""
    is_met: bool | None = None

    def cells(self) -> tuple[str, ...]:
        """As strings."""
        met = NO_AIM if self.is_met is None else MET if self.is_met else MISSED
        return (self.what, self.ours, self.floor, self.result, self.aim, met)


@dataclass(frozen=True)
class Part:
    """A table with its title and a sentence on how it was measured."""

    title: str
    how: str
    rows: Sequence[Row]
    head: Sequence[str] = ("", "ours", "floor", "result", "aim", "met")

    def __str__(self) -> str:
        lines = [f"### {self.title}", "", self.how, "", _line(self.head), _line(["---"] * len(self.head))]
        return "\n".join([*lines, *(_line(row.cells()) for row in self.rows), ""])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def at_least(what: str, ours: float, floor: float, unit: str, aim: float | None = None) -> Row:
    """A rate against that of the floor: the greater the better."""
    ratio = ours / floor
    words = "" if aim is None else f"≥ {aim:g}"
    return Row(
        what,
        f"{ours:,.0f} {unit}",
        f"{floor:,.0f} {unit}",
        f"{ratio:.2f}",
        words,
        None if aim is None else ratio >= aim,
    )


def at_most(what: str, ours: str, floor: str, result: float, unit: str, aim: float | None = None) -> Row:
    """A cost: the smaller the better."""
    words = "" if aim is None else f"≤ {aim:g} {unit}".strip()
    return Row(
        what, ours, floor, f"{result:.2f} {unit}".strip(), words, None if aim is None else result <= aim
    )


def milliseconds(seconds: float) -> str:
    """A duration in words."""
    return f"{seconds * 1000:.2f} ms"


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` (0 to 1) of all lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return statistics.median(values)
