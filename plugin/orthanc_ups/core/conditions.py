# SPDX-License-Identifier: AGPL-3.0-or-later
"""When a type 1C attribute is required, as far as the data set shows.

A condition is a column of ``attributes.csv``. It refers to the attributes on the same level:

- ``if 0040A040=TEXT``: required if that attribute has this value (content items, PS3.3 §10.2);
- ``above 0040E020=CDA``: the same, one level up (referenced instances, PS3.3 §10.26);
- ``with 00080100 00080119``: required if any of these has a value;
- ``without 00080119 00080120``: required if none of these has a value.

Conditions that the data set does not show ("if known", "if it replaces another step") cannot be checked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from .dataset import DataSet, is_empty, text


@dataclass(frozen=True, slots=True)
class AttributeCondition:
    """A condition on the attributes ``tags``; ``value`` is that of ``if`` and ``above``."""

    kind: str
    tags: tuple[str, ...]
    value: str = ""

    def holds(self, item: DataSet, above: DataSet) -> bool:
        """True if the attribute is required in ``item``; ``above`` is the level that contains its sequence."""
        return _KINDS[self.kind](self, item, above)


def condition(line: str) -> AttributeCondition | None:
    """Read a condition, in the form of the column; None for an empty line."""
    if not line:
        return None
    kind, _, operands = line.partition(" ")
    names, _, value = operands.partition("=")
    return AttributeCondition(kind, tuple(names.split()), value)


def _equals(condition: AttributeCondition, item: DataSet) -> bool:
    return text(item, condition.tags[0]).strip(" ").upper() == condition.value


def _any(condition: AttributeCondition, item: DataSet) -> bool:
    return any(not is_empty(item.get(tag)) for tag in condition.tags)


_KINDS: Final[dict[str, Callable[[AttributeCondition, DataSet, DataSet], bool]]] = {
    "if": lambda condition, item, above: _equals(condition, item),
    "above": lambda condition, item, above: _equals(condition, above),
    "with": lambda condition, item, above: _any(condition, item),
    "without": lambda condition, item, above: not _any(condition, item),
}
