# SPDX-License-Identifier: AGPL-3.0-or-later
"""Table CC.2.5-3 of PS3.4 with its macros, read from ``attributes.csv`` into a tree.

A path is made of tags joined by dots: ``00404018.00080100`` is the Code Value of the Scheduled Workitem Code.
The file has a line for each row of the table. Beside the columns of the table it has:

- ``vm``: ``1`` or ``n`` values, or items of a sequence;
- ``condition``: when a 1C attribute is required, if a program can decide that (``conditions.py``);
- ``values``: the enumerated values separated by ``|``, or the name of a form (``percent``, ``offset``);
- ``former_vr``: the VR that earlier editions of PS3.6 gave the attribute.

For N-SET, the printed table requires every kind of value of a content item (1/1), though they exclude each other;
the file has 1C/1C there, as for N-CREATE.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Final, NamedTuple

from .conditions import AttributeCondition, condition

_Row = dict[str, str]
_CATCH_ALL: Final = "*"


class Usage(NamedTuple):
    """What a column requires of SCU and SCP (PS3.4 §5.4.2.2): ``1``, ``1C``, ``2``, ``2C``, ``3``, ``NA``, ``-``.

    For SOP Class UID, the SCP's is ``SET``: it sets the value.
    """

    scu: str
    scp: str

    @property
    def droppable(self) -> bool:
        """True if the SCU may leave it out and the SCP must not store it empty: if empty, it counts as not sent."""
        return self.scu in ("3", "1C") and self.scp in ("1", "1C")

    @property
    def filled(self) -> bool:
        """True if the SCU may leave it out and the SCP stores it in any case, empty if it has no value."""
        return self.scu in ("3", "1C") and self.scp == "2"


@dataclass(frozen=True, slots=True)
class Demands:
    """What a column requires on one level: of the workitem itself, or of each item of a sequence.

    Attributes:
        valued: tags of type 1: present, with a value.
        present: tags of type 2: present, possibly empty.
        conditional: attributes of type 1C whose condition a program can decide.
        refused: tags that must not be present.
        filled: attributes that are stored empty if they are not sent.
        dropped: tags that count as not sent if they are empty.
    """

    valued: tuple[str, ...]
    present: tuple[str, ...]
    conditional: tuple[Rule, ...]
    refused: frozenset[str]
    filled: tuple[Rule, ...]
    dropped: frozenset[str]


@dataclass(frozen=True, slots=True)
class Contents:
    """The rows of one level by tag, the demands of N-CREATE and N-SET, and the tags of adjustable rows."""

    rules: Mapping[str, Rule]
    create: Demands
    update: Demands
    adjustable: frozenset[str]

    @property
    def looks_above(self) -> bool:
        """True if the requirements on an item depend on the level that contains its sequence."""
        conditional = (*self.create.conditional, *self.update.conditional)
        return any(rule.condition is not None and rule.condition.kind == "above" for rule in conditional)


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table.

    Attributes:
        path: tags joined by dots, or ``*`` for the catch-all row of a module.
        create, update: columns N-CREATE and N-SET.
        final: ``R``, ``RC``, ``P``, ``X``, ``O``, or empty for rows of macros, which follow their parent.
        retrieved: column N-GET, SCP.
        match: ``R``, ``U``, ``O`` or ``-`` in C-FIND; macro rows below a sequence that is no key are not keys.
        returned: return key type ``1``, ``1C``, ``2``, ``2C``, ``3`` or ``-``.
        single: True if it may have only one value or item.
        values: the enumerated values, if there are any.
        form: ``percent``, ``offset`` or empty: a form beyond the VR's.
        contents: the rows of the items of a sequence, or None.
        adjustable: True if its value may be stored in another form than it was sent.
    """

    path: str
    tag: str
    keyword: str
    vr: str
    former_vr: str
    single: bool
    create: Usage
    update: Usage
    final: str
    retrieved: str
    match: str
    returned: str
    module: str
    condition: AttributeCondition | None
    values: tuple[str, ...]
    form: str
    contents: Contents | None
    adjustable: bool


def _rows() -> list[_Row]:
    text = files(__package__).joinpath("attributes.csv").read_text("utf-8")
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))


def _build(rows: Iterable[_Row]) -> Contents:
    below: dict[str, list[_Row]] = {}
    for row in rows:
        below.setdefault(row["path"].rpartition(".")[0], []).append(row)
    return _contents(below, "", "R")


def _contents(below: Mapping[str, list[_Row]], path: str, above: str) -> Contents:
    children = [_rule(row, below, above) for row in below[path] if row["path"] != _CATCH_ALL]
    rules = {rule.tag: rule for rule in sorted(children, key=lambda rule: rule.tag)}
    create = _demands([(rule, rule.create) for rule in rules.values()])
    update = _demands([(rule, rule.update) for rule in rules.values()])
    adjustable = frozenset(rule.tag for rule in rules.values() if rule.adjustable)
    return Contents(MappingProxyType(rules), create, update, adjustable)


def _demands(column: list[tuple[Rule, Usage]]) -> Demands:
    allowed = [(rule, usage) for rule, usage in column if usage.scu != "NA"]
    return Demands(
        valued=tuple(rule.tag for rule, usage in allowed if usage.scu == "1"),
        present=tuple(rule.tag for rule, usage in allowed if usage.scu == "2"),
        conditional=tuple(rule for rule, usage in allowed if usage.scu == "1C" and rule.condition),
        refused=frozenset(rule.tag for rule, usage in column if usage.scu == "NA"),
        filled=tuple(rule for rule, usage in allowed if usage.filled),
        dropped=frozenset(rule.tag for rule, usage in allowed if usage.droppable),
    )


def _rule(row: _Row, below: Mapping[str, list[_Row]], above: str) -> Rule:
    match = "-" if above == "-" and not row["final_state"] else row["cfind_match"]
    form = row["values"] if row["values"].islower() else ""
    contents = _contents(below, row["path"], match) if row["path"] in below else None
    return Rule(
        path=row["path"],
        tag=row["path"].rpartition(".")[2],
        keyword=row["keyword"],
        vr=row["vr"],
        former_vr=row["former_vr"],
        single=row["vm"] == "1",
        create=Usage(row["n_create_scu"], row["n_create_scp"]),
        update=Usage(row["n_set_scu"], row["n_set_scp"]),
        final=row["final_state"],
        retrieved=row["n_get_scp"],
        match=match,
        returned=row["cfind_return"],
        module=row["module"],
        condition=condition(row["condition"]),
        values=tuple(row["values"].split("|")) if row["values"] and not form else (),
        form=form,
        contents=contents,
        adjustable=bool(contents or row["former_vr"] or (row["values"] and not form)),
    )


def _all_rules(contents: Contents) -> Iterator[Rule]:
    for rule in contents.rules.values():
        yield rule
        if rule.contents:
            yield from _all_rules(rule.contents)


_ALL_ROWS: Final = _rows()

ROOT: Final = _build(_ALL_ROWS)
"""The rows of the workitem itself."""

RULES: Final[Mapping[str, Rule]] = MappingProxyType({rule.path: rule for rule in _all_rules(ROOT)})
"""Every row but the catch-alls, by path."""

CATCH_ALL: Final[Mapping[str, Rule]] = MappingProxyType(
    {row["module"]: _rule(row, {}, "R") for row in _ALL_ROWS if row["path"] == _CATCH_ALL}
)
"""The catch-all rows by module; they make attributes without a row of their own type 3."""

MATCHING_KEYS: Final[Mapping[str, str]] = MappingProxyType(
    {rule.path: rule.match for rule in RULES.values() if rule.match != "-"}
)
"""``R``, ``U`` or ``O`` of each path that may be a matching key (column C-FIND)."""

RETURN_KEYS: Final[Mapping[str, str]] = MappingProxyType(
    {rule.path: rule.returned for rule in RULES.values() if rule.returned in ("1", "1C", "2", "2C")}
)
"""``1``, ``1C``, ``2`` or ``2C`` of each path that a Search always returns (PS3.18 §11.9.3).

Types 1C and 2C are returned only if the workitem has them.
"""
