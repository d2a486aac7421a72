# SPDX-License-Identifier: AGPL-3.0-or-later
"""The matching engine of C-FIND, Search and filtered subscriptions (PS3.4 C.2.2.2, CC.2.8; PS3.18 §11.9)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Any, Final

from . import tags
from .dataset import DataSet, Element, plain, text
from .date_times import UTC, Zone, zone
from .dictionary import VR_OF
from .key_tests import (
    TEXT_VRS,
    KeyTest,
    MatchingKey,
    Test,
    all_tests,
    any_test,
    compile_key,
    empty_test,
    is_empty_key,
    is_matchable,
    is_universal_value,
    unmatchable,
)
from .mechanisms import Mechanisms
from .query_conditions import Clause, Condition
from .refusals import Trail, path_of_trail, refusal, refusal_of
from .rules import RULES, Rule
from .selection import NEVER_RETURNED, ReturnTree, Selection, search_selection
from .statuses import IDENTIFIER_MISMATCH, Fault, UpsError

_NO_ITEMS: Final[tuple[DataSet, ...]] = ({},)
_NO_KEYS: Final = NEVER_RETURNED | {tags.TIMEZONE_OFFSET}


class Query:
    """A compiled identifier. Immutable; may be shared between threads.

    Attributes:
        has_keys: False if it has no key at all; C-FIND then returns no match. A zero-length key is a key, and so is
            one that no UPS has, which is universal (PS3.4 C.2.2.1.3).
        has_matching_keys: False if none of its keys is a matching key of a UPS.
        unsupported: paths of keys with a value that are not used for matching (C-FIND answers FF01).
        unmatchable: paths of keys that cannot match any workitem, each with the reason in words.
        clauses: the conditions of the keys, for an index; all of them must hold.
        exact: True if the clauses alone decide.
        zone: of date-times without offset, in keys and in stored values.
        identity: equal for queries that match the same workitems.
    """

    __slots__ = (
        "_dated",
        "_returns",
        "_selection",
        "_tests",
        "_tree",
        "_vr_of",
        "clauses",
        "exact",
        "has_keys",
        "has_matching_keys",
        "identity",
        "unmatchable",
        "unsupported",
        "zone",
    )

    def __init__(self, identifier: DataSet, compiler: _Compiler, local: Zone) -> None:
        keys = compiler.level(identifier, (), True)
        if compiler.faults:
            raise refusal_of(compiler.faults)
        self._tests: tuple[Test, ...] = tuple(key.test for key in keys)
        self._dated = any(key.dated for key in keys)
        self._tree, self._vr_of = _return_tree(identifier)
        self._selection = Selection(self._tree, self._vr_of)
        self._returns: dict[tuple[frozenset[str], bool], Selection] = {}
        self.has_keys = compiler.has_keys
        self.has_matching_keys = compiler.has_matching_keys
        self.unsupported = tuple(compiler.unsupported)
        self.unmatchable = tuple(compiler.unmatchable.items())
        self.clauses = tuple(Clause(key.conditions, key.complete) for key in keys)
        self.exact = all(clause.complete for clause in self.clauses)
        self.zone = local
        self.identity = repr((identifier, compiler, local))

    @classmethod
    def of(
        cls,
        identifier: DataSet,
        *,
        mechanisms: Mechanisms = Mechanisms.NONE,
        timezone: str | tzinfo | None = None,
    ) -> Query:
        """Compile an identifier.

        Args:
            identifier: Timezone Offset From UTC (0008,0201) in it applies to its date-times.
            mechanisms: the extended matching mechanisms that were negotiated or requested.
            timezone: the local zone: ``+0100`` or a ``tzinfo``; UTC by default. It applies to keys and stored
                values that have neither an offset nor (0008,0201).

        Raises:
            UpsError: A900 if keys are malformed; its ``faults`` name each of them.
            ValueError: ``timezone`` is not valid.
        """
        local = _local_zone(timezone)
        return cls(identifier, _Compiler(_request_zone(identifier, local), mechanisms), local)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """All conditions of all clauses; each is necessary."""
        return tuple(condition for clause in self.clauses for condition in clause.conditions)

    def matches(self, attributes: DataSet) -> bool:
        """True if a workitem matches every key."""
        local = _stored_zone(attributes, self.zone) if self._dated else self.zone
        return all(test(attributes, local) for test in self._tests)

    def select(self, attributes: DataSet) -> DataSet:
        """The answer of C-FIND: exactly the requested attributes, empty if absent (PS3.4 CC.2.8).

        Of a sequence every item with the requested nested keys, or the whole sequence if there are none. Timezone
        Offset From UTC (0008,0201) is added where it applies; Transaction UID is never returned.
        """
        return self._selection.of(attributes)

    def returns(self, include: frozenset[str] = frozenset(), everything: bool = False) -> Selection:
        """What a Search returns: return keys 1 and 2, 1C and 2C if present, match attributes, ``include``.

        ``include`` has paths of tags joined by dots; with ``everything``, all attributes but Transaction UID.
        """
        selection = self._returns.get((include, everything))
        if selection is None:
            selection = search_selection(self._tree, self._vr_of, include, everything=everything)
            self._returns[include, everything] = selection
        return selection


@dataclass(slots=True)
class _Compiler:
    """Compiles the keys of an identifier, sequences recursively, and collects what a Query says about them."""

    local: Zone
    mechanisms: Mechanisms
    has_keys: bool = False
    has_matching_keys: bool = False
    unsupported: list[str] = field(default_factory=list)
    unmatchable: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def level(self, dataset: DataSet, trail: Trail, above: bool) -> list[KeyTest]:
        """The tests of all keys that are not universal.

        ``above`` is False in a sequence that is no matching key; it does not apply to attributes of the table, whose
        rows decide. A Private Creator is no key by itself: it identifies the private keys of its block (PS3.5 §7.8.1).
        """
        tests: dict[str, KeyTest] = {}
        for tag, attribute in dataset.items():
            try:
                key = self._key(tag, attribute, trail, above)
            except UpsError as error:
                self.faults += error.faults
                continue
            if key is not None:
                tests[tag] = key
        blocks = {tag[:6] for tag in tests if not tags.is_private_creator(tag)}
        return [
            key
            for tag, key in tests.items()
            if not tags.is_private_creator(tag) or f"{tag[:4]}{tag[6:]}" in blocks
        ]

    def _key(self, tag: str, attribute: Element, trail: Trail, above: bool) -> KeyTest | None:
        path = path_of_trail(trail, tag)
        if tag in _NO_KEYS:
            if tag == tags.TRANSACTION_UID:
                self.unsupported.append(path)
            return None
        rule = RULES.get(path)
        foreign = rule is None and _is_foreign(tag, trail)
        usable = rule.match != "-" if rule else above and not foreign
        self.has_keys |= usable or foreign
        self.has_matching_keys |= usable
        _check_vr(tag, attribute, trail)
        if attribute["vr"] == "SQ":
            return self._sequence(tag, attribute, trail, usable)
        values = [value for value in attribute.get("Value", ()) if not _is_empty(value)]
        if not values and not attribute.get("InlineBinary"):
            return None
        if usable and is_matchable(attribute["vr"]):
            return self._value(
                MatchingKey(path, tag, attribute["vr"], values, self.local, self._fuzzy), trail, rule
            )
        if attribute.get("InlineBinary") or not all(map(is_universal_value, values)):
            self.unsupported.append(path)
        return None

    @property
    def _fuzzy(self) -> bool:
        return Mechanisms.FUZZY in self.mechanisms

    def _value(self, key: MatchingKey, trail: Trail, rule: Rule | None) -> KeyTest | None:
        try:
            test = self._test(key, rule)
        except ValueError as error:
            raise refusal(IDENTIFIER_MISMATCH, trail, key.tag, f"is not valid as a key: {error}") from None
        if test is not None:
            reasons = [self._why_unmatchable(key, value, rule) for value in key.values]
            if all(reasons):
                self.unmatchable[key.path] = reasons[0]
        return test

    def _test(self, key: MatchingKey, rule: Rule | None) -> KeyTest | None:
        """Any value of a key may match; but if the attribute can have several values, each value of the key must.

        The latter is Multiple Value Matching (PS3.4 C.2.2.2.8), which leaves open what several values mean for an
        attribute that can have only one.
        """
        if len(key.values) > 1 and key.vr != "UI":
            if Mechanisms.MULTIPLE not in self.mechanisms:
                raise ValueError(f"expected one value, found {len(key.values)}")
            if rule and not rule.single:
                return all_tests([self._alternatives(key.only(value)) for value in key.values])
        return self._alternatives(key)

    def _alternatives(self, key: MatchingKey) -> KeyTest | None:
        literal = [value for value in key.values if not self._is_empty_key(value)]
        tests = [compile_key(key.only(*literal))] if literal else []
        if len(literal) < len(key.values):
            tests.append(empty_test(key))
        return any_test(tests)

    def _is_empty_key(self, value: Any) -> bool:
        return Mechanisms.EMPTY in self.mechanisms and is_empty_key(value)

    def _why_unmatchable(self, key: MatchingKey, value: Any, rule: Rule | None) -> str:
        if self._is_empty_key(value):
            return ""
        if key.path == tags.SOP_CLASS_UID:
            return "" if plain(value) == tags.PUSH else f"the SOP Class UID of each is {tags.PUSH}"
        return unmatchable(key, value, rule.values if rule else ())

    def _sequence(self, tag: str, attribute: Element, trail: Trail, usable: bool) -> KeyTest | None:
        content = attribute.get("Value") or []
        if len(content) > 1:
            raise refusal(IDENTIFIER_MISMATCH, trail, tag, f"has {len(content)} items, expected one")
        if not content:
            return None
        tests = self.level(content[0], (*trail, (tag, 1)), usable)
        return _item_test(tag, tests) if tests else None


def _is_foreign(tag: str, trail: Trail) -> bool:
    """True for an attribute that the table does not have, on a level whose attributes the table lists.

    It is not part of the IOD, though a UPS may have it as an extension. False for private attributes, and in sequences
    whose items the table does not describe.
    """
    if tags.is_private(tag):
        return False
    if not trail:
        return True
    rule = RULES.get(path_of_trail(trail[:-1], trail[-1][0]))
    return rule is not None and rule.contents is not None


def _check_vr(tag: str, attribute: Element, trail: Trail) -> None:
    expected, vr = VR_OF.get(tag), attribute["vr"]
    if expected and vr != expected and not {expected, vr} <= TEXT_VRS:
        raise refusal(IDENTIFIER_MISMATCH, trail, tag, f"has VR {vr}, expected {expected}")


def _item_test(tag: str, tests: list[KeyTest]) -> KeyTest:
    """A single stored item must match all keys of the item (PS3.4 C.2.2.2.6).

    A sequence without items is like one with an empty item: only Empty Value Matching matches it.
    """
    inner: tuple[Test, ...] = tuple(key.test for key in tests)

    def test(dataset: DataSet, local: Zone) -> bool:
        for item in dataset.get(tag, {}).get("Value") or _NO_ITEMS:
            if isinstance(item, dict) and all(fits(item, local) for fits in inner):
                return True
        return False

    conditions = tuple(condition for key in tests for condition in key.conditions)
    return KeyTest(test, conditions, all(key.complete for key in tests), any(key.dated for key in tests))


def _is_empty(value: Any) -> bool:
    if isinstance(value, dict):
        return not any(map(plain, value.values()))
    return value is None or (isinstance(value, str) and not plain(value))


def _return_tree(identifier: DataSet) -> tuple[ReturnTree, dict[str, str]]:
    """The requested attributes, and the VRs that were sent."""
    tree: ReturnTree = {}
    vr_of: dict[str, str] = {}
    for tag, attribute in identifier.items():
        if tag == tags.TIMEZONE_OFFSET:
            continue
        vr_of[tag] = attribute["vr"]
        item = (attribute.get("Value") or [{}])[0] if attribute["vr"] == "SQ" else {}
        tree[tag], below = _return_tree(item) if item else (None, {})
        vr_of.update(below)
    return tree, vr_of


def _local_zone(timezone: str | tzinfo | None) -> Zone:
    if not isinstance(timezone, str):
        return UTC if timezone is None else timezone
    local = zone(timezone)
    if local is None:
        raise ValueError(f"{timezone!r} is not an offset from UTC such as +0100")
    return local


def _request_zone(identifier: DataSet, local: Zone) -> Zone:
    offset = text(identifier, tags.TIMEZONE_OFFSET)
    if not offset:
        return local
    sent = zone(offset)
    if sent is None:
        what = "is not valid: expected an offset from UTC such as +0100"
        raise refusal(IDENTIFIER_MISMATCH, (), tags.TIMEZONE_OFFSET, what)
    return sent


def _stored_zone(attributes: DataSet, local: Zone) -> Zone:
    offset = text(attributes, tags.TIMEZONE_OFFSET)
    stored = zone(offset) if offset else None
    return local if stored is None else stored
