# SPDX-License-Identifier: AGPL-3.0-or-later
"""What must be there, may be empty, is not allowed, or is set by us, on every level (PS3.4 §5.4.2, CC.2.5).

``arranged`` checks one column of Table CC.2.5-3 and returns the data set as it is to be stored:

- type 1 needs a value, type 2 must be there, a 1C attribute too if its condition holds;
- what an SCU may leave out but an SCP must hold (``3/2``, ``1C/2``) is added empty;
- what an SCU may leave out and an SCP must not hold empty (``3/1``, ``1C/1``), counts as not sent if it comes
  empty: so says type 3 (PS3.5 §7.4.5), and performers do send such elements;
- values with an unmistakable fault are put right, and each of these coercions is told:
  an enumerated value in lower case, and the VR that earlier editions gave a URI. Padding is not told.

The input stays as it is; parts that need no change are shared with the result.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from . import tags
from .conditions import Condition
from .dataset import DataSet, Element, element, is_empty, ordered
from .dictionary import keyword
from .refusals import Trail, located, refusal, spelled
from .rules import Contents, Demands, Rule
from .statuses import MISSING_ATTRIBUTE, MISSING_VALUE, NO_SUCH_ATTRIBUTE, UpsError

_NOTHING: DataSet = {}
_REFUSED: Final = {tags.STATE: "is changed by Change UPS State, not"}


@dataclass(slots=True)
class Arrangement:
    """One pass over a data set.

    Attributes:
        creating: True for column N-CREATE, False for N-SET.
        coercions: one sentence for each value put right.
    """

    creating: bool
    coercions: list[str] = field(default_factory=list)

    def arranged(
        self, item: DataSet, contents: Contents, trail: Trail = (), above: DataSet = _NOTHING
    ) -> DataSet:
        """One level, checked and as it is to be stored; ``above`` is the level that holds its sequence.

        Raises:
            UpsError: 0105 not allowed here, 0120 attribute missing, 0121 value missing.
        """
        demands = contents.create if self.creating else contents.update
        self._check_allowed(item, demands, trail)
        _check_presence(item, demands, trail, above)
        changes = self._changes(item, contents, demands, trail)
        if not changes:
            return item
        merged = {**item, **changes}
        return ordered({tag: found for tag, found in merged.items() if found is not None})

    def _check_allowed(self, item: DataSet, demands: Demands, trail: Trail) -> None:
        if demands.refused.isdisjoint(item):
            return
        tag = min(demands.refused.intersection(item))
        what = _REFUSED.get(tag, "is not allowed") if not trail else "is not allowed"
        when = "at creation" if self.creating else "in an update"
        raise refusal(NO_SUCH_ATTRIBUTE, trail, tag, f"{what} {when}")

    def _changes(
        self, item: DataSet, contents: Contents, demands: Demands, trail: Trail
    ) -> dict[str, Element | None]:
        changes: dict[str, Element | None] = {
            rule.tag: element(rule.vr) for rule in demands.filled if rule.tag not in item
        }
        for tag in item:
            if tag in demands.dropped and _lacks_value(item[tag]):
                changes[tag] = None
            elif tag in contents.adjustable:
                stored = self.stored(item[tag], contents.rules[tag], trail, item)
                if stored is not item[tag]:
                    changes[tag] = stored
        return changes

    def stored(self, found: Element, rule: Rule, trail: Trail, item: DataSet) -> Element:
        """An element as it is to be stored; itself if nothing changes."""
        if is_empty(found):
            return found if found["vr"] == rule.vr else element(rule.vr)
        if rule.contents:
            return self._items(found, rule.tag, rule.contents, trail, item)
        if rule.values:
            return self._canonical(found, rule, trail)
        return self._with_present_vr(found, rule, trail)

    def _items(self, found: Element, tag: str, contents: Contents, trail: Trail, above: DataSet) -> Element:
        given: list[DataSet] = found["Value"]
        made = [
            self.arranged(item, contents, (*trail, (tag, number)), above)
            for number, item in enumerate(given, 1)
        ]
        return found if all(map(_same, made, given)) else element("SQ", *made)

    def _canonical(self, found: Element, rule: Rule, trail: Trail) -> Element:
        given: list[str | None] = found["Value"]
        made = [one.strip(" ").upper() if one else one for one in given]
        if made == given:
            return found
        if any(one and one.strip(" ") != new for one, new in zip(given, made, strict=True)):
            self._tell(rule.tag, "was set in upper case", trail)
        return element(rule.vr, *made)

    def _with_present_vr(self, found: Element, rule: Rule, trail: Trail) -> Element:
        if found["vr"] == rule.vr:
            return found
        self._tell(rule.tag, f"was given its present VR {rule.vr}", trail)
        return element(rule.vr, *found["Value"])

    def _tell(self, tag: str, what: str, trail: Trail) -> None:
        self.coercions.append(f"{spelled(tag)} {what}{located(trail)}")


def _check_presence(item: DataSet, demands: Demands, trail: Trail, above: DataSet) -> None:
    for tag in demands.valued:
        if _lacks_value(item.get(tag)):
            raise _lack(item, tag, trail)
    for tag in demands.present:
        if tag not in item:
            raise _lack(item, tag, trail)
    for rule in demands.conditional:
        if _lacks_value(item.get(rule.tag)) and rule.condition and rule.condition.holds(item, above):
            raise _lack(item, rule.tag, trail, rule.condition)


def _lacks_value(found: Element | None) -> bool:
    given = found.get("Value") if found else None
    return not (given and given[0]) and is_empty(found)  # the first half only spares time


def _lack(item: DataSet, tag: str, trail: Trail, condition: Condition | None = None) -> UpsError:
    if tag in item:
        return refusal(MISSING_VALUE, trail, tag, f"has no value{_because(condition)}")
    return refusal(MISSING_ATTRIBUTE, trail, tag, f"is missing{_because(condition)}")


def _because(condition: Condition | None) -> str:
    if condition is None:
        return ""
    names = " or ".join(map(keyword, condition.tags))
    if condition.kind == "without":
        return f", nor is there {names}"
    return f", though {names} {f'is {condition.wanted}' if condition.wanted else 'is there'}"


def _same(one: object, other: object) -> bool:
    return one is other
