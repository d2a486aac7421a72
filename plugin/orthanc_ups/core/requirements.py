# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which attributes are required, may be empty, are not allowed, or are set by the SCP (PS3.4 §5.4.2, CC.2.5).

``arranged`` checks one column of Table CC.2.5-3 and returns the data set as it is to be stored:

- type 1 must have a value, and so must type 1C if its condition holds;
- type 2 must be present; if it is not, it is added empty and reported, or refused if the findings are strict;
- an attribute that an SCU may leave out but an SCP must store (``3/2``, ``1C/2``) is added empty;
- an attribute that an SCU may leave out and an SCP must not store empty (``3/1``, ``1C/1``) counts as not sent if it
  is empty, which is reported: an empty type 3 attribute says nothing (PS3.5 §7.4.5), and performers do send them. If
  the findings are strict, empty type 1C is refused;
- an enumerated value in lower case, and the VR that earlier editions gave a URI, are corrected and reported.
  Padding is not reported.

The input is not changed; parts that need no change are shared with the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import is_
from typing import Final

from . import tags
from .conditions import AttributeCondition
from .dataset import DataSet, Element, element, is_empty, patched
from .dictionary import keyword
from .interned import derive, notes_of
from .refusals import Findings, Trail
from .rules import Contents, Demands, Rule
from .statuses import MISSING_ATTRIBUTE, MISSING_VALUE, NO_SUCH_ATTRIBUTE
from .value_rules import FAULTY

_NOTHING: DataSet = {}
_REFUSED: Final = {tags.STATE: "is changed by Change UPS State, not"}


@dataclass(frozen=True, slots=True)
class Arrangement:
    """A pass over a data set whose values have been checked.

    Attributes:
        creating: True for column N-CREATE, False for N-SET.
        findings: collects faults (0105 not allowed here, 0120 attribute missing, 0121 value missing) and
            corrections.
    """

    creating: bool
    findings: Findings

    def arranged(
        self, item: DataSet, contents: Contents, trail: Trail = (), above: DataSet = _NOTHING
    ) -> DataSet:
        """An item, or the workitem itself, as it is to be stored; ``above`` is the level that contains its sequence."""
        demands = contents.create if self.creating else contents.update
        self._check_allowed(item, demands, trail)
        self._check_values(item, demands, trail, above)
        changes = {rule.tag: element(rule.vr) for rule in demands.filled if rule.tag not in item}
        return patched(
            item,
            {
                **changes,
                **self._added(item, contents, demands, trail),
                **self._changes(item, contents, demands, trail),
            },
        )

    def _check_allowed(self, item: DataSet, demands: Demands, trail: Trail) -> None:
        if demands.refused.isdisjoint(item):
            return
        when = "at creation" if self.creating else "in an update"
        for tag in sorted(demands.refused.intersection(item)):
            what = _REFUSED.get(tag, "is not allowed") if not trail else "is not allowed"
            self.findings.fault(NO_SUCH_ATTRIBUTE, trail, tag, f"{what} {when}")

    def _check_values(self, item: DataSet, demands: Demands, trail: Trail, above: DataSet) -> None:
        for tag in demands.valued:
            if _lacks_value(item.get(tag)):
                self._lacks(item, tag, trail)
        for rule in demands.conditional:
            if _lacks_value(item.get(rule.tag)) and rule.condition and rule.condition.holds(item, above):
                self._lacks(item, rule.tag, trail, rule.condition)

    def _lacks(
        self, item: DataSet, tag: str, trail: Trail, condition: AttributeCondition | None = None
    ) -> None:
        status, what = (MISSING_VALUE, "has no value") if tag in item else (MISSING_ATTRIBUTE, "is missing")
        self.findings.fault(status, trail, tag, f"{what}{_because(condition)}")

    def _added(self, item: DataSet, contents: Contents, demands: Demands, trail: Trail) -> DataSet:
        """The missing type 2 attributes, empty."""
        added: DataSet = {}
        for tag in demands.present:
            if tag in item:
                continue
            if self.findings.strict:
                self.findings.fault(MISSING_ATTRIBUTE, trail, tag, "is missing")
            else:
                self.findings.correction(trail, tag, "added empty")
                added[tag] = element(contents.rules[tag].vr)
        return added

    def _changes(
        self, item: DataSet, contents: Contents, demands: Demands, trail: Trail
    ) -> dict[str, Element | None]:
        changes: dict[str, Element | None] = {}
        for tag, attribute in item.items():
            if tag in demands.refused:
                continue
            if tag in demands.dropped and _lacks_value(attribute):
                self._drop(contents.rules[tag], trail)
                changes[tag] = None
            elif tag in contents.adjustable:
                stored = self.stored(attribute, contents.rules[tag], trail, item)
                if stored is not attribute:
                    changes[tag] = stored
        return changes

    def _drop(self, rule: Rule, trail: Trail) -> None:
        usage = rule.create if self.creating else rule.update
        if self.findings.strict and usage.scu == "1C":
            self.findings.fault(MISSING_VALUE, trail, rule.tag, "has no value")
        else:
            self.findings.correction(trail, rule.tag, "left out: it has no value")

    def stored(self, attribute: Element, rule: Rule, trail: Trail, item: DataSet) -> Element:
        """An element as it is to be stored; the same object if nothing changes."""
        if attribute is FAULTY:
            return attribute
        if is_empty(attribute):
            return attribute if attribute["vr"] == rule.vr else element(rule.vr)
        if rule.contents:
            return self._items(attribute, rule.tag, rule.contents, trail, item)
        if rule.values:
            return self._canonical(attribute, rule, trail)
        return self._with_present_vr(attribute, rule, trail)

    def _items(
        self, attribute: Element, tag: str, contents: Contents, trail: Trail, above: DataSet
    ) -> Element:
        """The sequence as it is to be stored. An interned sequence without findings is checked only once."""
        notes = None if trail or contents.looks_above else notes_of(attribute)
        if notes is None:
            return self._arranged_items(attribute, tag, contents, trail, above)
        key = "arranged", tag, self.creating, self.findings.strict
        element: Element | None = notes.get(key)
        if element is not None:
            return element
        count = self.findings.count
        arranged = self._arranged_items(attribute, tag, contents, trail, above)
        if self.findings.count == count:
            notes[key] = arranged
            derive(notes, arranged)
        return arranged

    def _arranged_items(
        self, attribute: Element, tag: str, contents: Contents, trail: Trail, above: DataSet
    ) -> Element:
        values: list[DataSet] = attribute["Value"]
        arranged = [
            self.arranged(item, contents, (*trail, (tag, number)), above)
            for number, item in enumerate(values, 1)
        ]
        return attribute if all(map(is_, arranged, values)) else element("SQ", *arranged)

    def _canonical(self, attribute: Element, rule: Rule, trail: Trail) -> Element:
        values: list[str | None] = attribute["Value"]
        canonical = [text.strip(" ").upper() if text else text for text in values]
        if canonical == values:
            return attribute
        if any(text and text.strip(" ") != new for text, new in zip(values, canonical, strict=True)):
            self.findings.correction(trail, rule.tag, "set in upper case")
        return element(rule.vr, *canonical)

    def _with_present_vr(self, attribute: Element, rule: Rule, trail: Trail) -> Element:
        if attribute["vr"] == rule.vr:
            return attribute
        self.findings.correction(trail, rule.tag, f"given its present VR {rule.vr}")
        return element(rule.vr, *attribute["Value"])


def _lacks_value(attribute: Element | None) -> bool:
    values = attribute.get("Value") if attribute else None
    return not (values and values[0]) and is_empty(attribute)  # the first half only saves time


def _because(condition: AttributeCondition | None) -> str:
    if condition is None:
        return ""
    names = " or ".join(map(keyword, condition.tags))
    if condition.kind == "without":
        return f", nor is there {names}"
    return f", though {names} {f'is {condition.value}' if condition.value else 'is there'}"
