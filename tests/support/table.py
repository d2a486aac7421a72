# SPDX-License-Identifier: AGPL-3.0-or-later
"""The rows of Table CC.2.5-3, read independently of the code under test, and data sets for a row.

``around(row, found, column)`` builds a request in which the row's attribute stands where its path says, inside
sequences with one item each that holds all that the column asks for. Where the row has a condition that a
machine can check, the surroundings meet it, so that the attribute is required there.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

import pytest

from orthanc_ups.core.dataset import DataSet, Element, element, ordered
from tests.support import workitems

CREATE: Final = "n_create"
UPDATE: Final = "n_set"
CREATED_EMPTY: Final = frozenset({"00081195", "00741002", "00741216"})

_SAMPLES: Final[dict[str, object]] = {
    "AE": "ARCHIVE",
    "AS": "042Y",
    "CS": "ISO",
    "DA": "20261122",
    "DS": "1.50",
    "DT": "20261122183000+0100",
    "IS": "3",
    "LO": "Harbour Clinic",
    "LT": "Two lines\r\nof text",
    "PN": {"Alphabetic": "Fairweather^Ines"},
    "SH": "H-1",
    "ST": "Short text",
    "TM": "183000",
    "UC": "Unlimited characters",
    "UI": "1.2.826.0.1.3680043.10.1999.7",
    "UR": "https://harbour.example/wado",
    "US": 3,
    "UT": "Unlimited text",
}


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    cells: dict[str, str]

    @property
    def path(self) -> str:
        return self.cells["path"]

    @property
    def tag(self) -> str:
        return self.path.rpartition(".")[2]

    @property
    def above(self) -> str:
        """Path of the sequence that contains it; empty if none does."""
        return self.path.rpartition(".")[0]

    @property
    def vr(self) -> str:
        return self.cells["vr"]

    @property
    def condition(self) -> tuple[str, list[str], str]:
        """Kind, tags and value of a condition that a machine can check; kind is empty if there is none."""
        kind, _, rest = self.cells["condition"].partition(" ")
        names, _, value = rest.partition("=")
        return kind, names.split(), value

    def usage(self, column: str) -> tuple[str, str]:
        return self.cells[f"{column}_scu"], self.cells[f"{column}_scp"]

    def __str__(self) -> str:
        return f"{self.path} {self.cells['keyword'] or self.cells['module']}"


@cache
def every_line() -> tuple[Row, ...]:
    text = files("orthanc_ups.core").joinpath("attributes.csv").read_text("utf-8")
    return tuple(map(Row, csv.DictReader(text.splitlines()[1:])))


@cache
def rows() -> tuple[Row, ...]:
    """Every row that names an attribute."""
    return tuple(row for row in every_line() if row.path != "*")


def modules() -> tuple[str, ...]:
    """The modules of the table, in the order of the table."""
    return tuple(dict.fromkeys(row.cells["module"] for row in rows()))


def check_rows(module: str, check: Callable[[Row], None]) -> None:
    """Check every row of a module that names an attribute.

    Raises:
        AssertionError: names each row at fault, with what is wrong.
    """
    faults = []
    for row in rows():
        if row.cells["module"] == module:
            try:
                check(row)
            except (AssertionError, pytest.fail.Exception) as fault:
                faults.append(f"{row}: {fault}")
    assert not faults, "\n".join(faults)


@cache
def by_path() -> dict[str, Row]:
    return {row.path: row for row in rows()}


@cache
def below(path: str) -> tuple[Row, ...]:
    return tuple(row for row in rows() if row.above == path)


def enclosing(row: Row) -> Iterator[Row]:
    """The sequences around a row, outermost first."""
    parts = row.path.split(".")
    for depth in range(1, len(parts)):
        yield by_path()[".".join(parts[:depth])]


def sample(row: Row, column: str) -> Element:
    """A valid element for a row, with a value."""
    if row.vr == "SQ":
        return element("SQ", sample_item(row.path, column))
    enumerated = row.cells["values"]
    if enumerated and not enumerated.islower():
        return element(row.vr, enumerated.split("|")[0])
    return element(row.vr, "+0100" if enumerated == "offset" else _SAMPLES[row.vr])


def sample_item(path: str, column: str) -> DataSet:
    """An item for a sequence with exactly what the column requires of both sides."""
    if not below(path):
        return workitems.code()
    item: DataSet = {}
    for row in below(path):
        scu, scp = row.usage(column)
        if scu == "1":
            item[row.tag] = sample(row, column)
        elif scu == "2" or (scu, scp) == ("3", "2"):
            item[row.tag] = element(row.vr)
    return ordered(item | _conditional(path, column))


def _conditional(path: str, column: str) -> DataSet:
    """Values that meet the conditions of the macros: a short code, a DICOM retrieval, a local name."""
    tags = {row.tag: row for row in below(path) if row.usage(column)[0] == "1C"}
    met: DataSet = {}
    if "0040A120" in tags:
        return {"0040A040": element("CS", "DATETIME"), "0040A120": element("DT", "2026")}
    for tag in ("00080100", "00080102", "0040E021", "00400031"):
        if tag in tags:
            met[tag] = sample(tags[tag], column)
    return met


def around(row: Row, value: Element | None, column: str, base: DataSet | None = None) -> DataSet:
    """``base`` with the row's attribute as ``found`` (None: absent), and with what stands around it."""
    attributes = dict(base or {})
    if row.above:
        top = row.path.split(".")[0]
        attributes[top] = element("SQ", _item_around(row, value, column, top))
    else:
        attributes |= _beside(row, column, attributes)
        attributes.pop(row.tag, None)
        attributes |= {row.tag: value} if value is not None else {}
    return ordered(attributes)


def _item_around(row: Row, value: Element | None, column: str, path: str) -> DataSet:
    item = sample_item(path, column)
    if path == row.above:
        item = _beside(row, column, item)
        item.pop(row.tag, None)
        return ordered(item | ({row.tag: value} if value is not None else {}))
    tag = row.path[len(path) + 1 :].split(".")[0]
    kind, tags, condition = row.condition
    if kind == "above" and f"{path}.{tag}" == row.above:
        item[tags[0]] = element("CS", condition)
    item = _beside(by_path()[f"{path}.{tag}"], column, item)
    item[tag] = element("SQ", _item_around(row, value, column, f"{path}.{tag}"))
    return ordered(item)


def _beside(row: Row, column: str, level: DataSet) -> DataSet:
    """Elements beside the row's that meet its condition."""
    kind, tags, condition = row.condition
    attributes = {tag: value for tag, value in level.items() if kind != "without" or tag not in tags}
    if kind == "if":
        attributes = {tag: value for tag, value in attributes.items() if tag not in _CONTENT_VALUES}
        twin = {"0040A30A": "004008EA", "004008EA": "0040A30A"}.get(row.tag)
        beside = by_path().get(f"{row.above}.{twin}")
        attributes |= {tags[0]: element("CS", condition)} | (
            {beside.tag: sample(beside, column)} if beside else {}
        )
    if row.tag == "00400032" and f"{row.above}.00400033" in by_path():
        attributes |= {"00400033": element("CS", "ISO")}
    if kind == "with":
        attributes |= {tags[0]: sample(by_path()[f"{row.above}.{tags[0]}"], column)}
    return attributes


_CONTENT_VALUES: Final = frozenset(
    (
        "0040A120",
        "0040A121",
        "0040A122",
        "0040A123",
        "0040A124",
        "0040A160",
        "0040A168",
        "0040A30A",
        "004008EA",
    )
)


def found_at(dataset: DataSet, path: str) -> Element | None:
    """The element at a path, by way of first items."""
    *above, tag = path.split(".")
    level = dataset
    for sequence in above:
        level = level[sequence]["Value"][0]
    return level.get(tag)
