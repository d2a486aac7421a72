# SPDX-License-Identifier: AGPL-3.0-or-later
"""The one matching engine: C-FIND, Search and filtered subscriptions (PS3.4 C.2.2.2, CC.2.8; PS3.18 §11.9)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import tzinfo
from typing import Any, Final

from . import tags
from .dataset import DataSet, Element, text
from .date_times import UTC, Zone, zone
from .dictionary import VR_OF
from .key_tests import TEXT_VRS, Asked, KeyTest, Test, compile_key, is_matchable, plain
from .query_conditions import Clause, Condition
from .refusals import Trail, refusal
from .rules import RULES
from .selection import NEVER_RETURNED, Selection, Wanted, search_selection
from .statuses import IDENTIFIER_MISMATCH

_NO_KEYS: Final = NEVER_RETURNED | {tags.TIMEZONE_OFFSET}


class Query:
    """A compiled identifier. Immutable; may be shared between threads.

    Attributes:
        has_keys: False if nothing in it can be a matching key; C-FIND then answers no match. A zero-length
            key is a key.
        unsupported: True if some key with a value is not used for matching (C-FIND answers FF01).
        clauses: what the keys ask, for an index; all of them must hold.
        exact: True if the clauses say all that the keys say.
        zone: where date-times without offset belong, of keys and of stored values.
        identity: equal for queries that match the same workitems.
    """

    __slots__ = (
        "_dated",
        "_returns",
        "_selection",
        "_tests",
        "_vr_of",
        "_wanted",
        "clauses",
        "exact",
        "has_keys",
        "identity",
        "unsupported",
        "zone",
    )

    def __init__(self, identifier: DataSet, compiler: _Compiler, local: Zone) -> None:
        keys = compiler.level(identifier, (), True)
        self._tests: tuple[Test, ...] = tuple(key.test for key in keys)
        self._dated = any(key.dated for key in keys)
        self._wanted, self._vr_of = _wanted(identifier)
        self._selection = Selection(self._wanted, self._vr_of)
        self._returns: dict[tuple[frozenset[str], bool], Selection] = {}
        self.has_keys = compiler.has_keys
        self.unsupported = compiler.unsupported
        self.clauses = tuple(Clause(key.conditions, key.complete) for key in keys)
        self.exact = all(clause.complete for clause in self.clauses)
        self.zone = local
        self.identity = repr((identifier, compiler, local))

    @classmethod
    def of(
        cls,
        identifier: DataSet,
        *,
        fuzzy: bool = False,
        timezone: str | tzinfo | None = None,
        multiple: bool = False,
    ) -> Query:
        """Compile an identifier.

        Args:
            identifier: in the inner form. Timezone Offset From UTC (0008,0201) in it holds for its date-times.
            fuzzy: True if fuzzy semantic matching of person names was negotiated or asked for.
            timezone: the local zone: ``+0100`` or a ``tzinfo``; without it UTC. It holds for keys and stored
                values that have neither an offset nor (0008,0201).
            multiple: True lets a key have several values of which any may match (PS3.4 C.2.2.2.8).

        Raises:
            UpsError: A900 if a key is malformed; ``detail`` and ``tag`` name it.
            ValueError: ``timezone`` is none.
        """
        local = _local_zone(timezone)
        return cls(identifier, _Compiler(_request_zone(identifier, local), fuzzy, multiple), local)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """All conditions of all clauses; each is necessary."""
        return tuple(condition for clause in self.clauses for condition in clause.conditions)

    def matches(self, attributes: DataSet) -> bool:
        """True if a workitem fits every key."""
        local = _stored_zone(attributes, self.zone) if self._dated else self.zone
        return all(test(attributes, local) for test in self._tests)

    def select(self, attributes: DataSet) -> DataSet:
        """The answer of C-FIND: exactly the attributes asked for, empty if absent (PS3.4 CC.2.8).

        Of a sequence every item with the nested keys asked for, or the whole if none was. Timezone Offset From
        UTC (0008,0201) is added where it applies; Transaction UID is never there.
        """
        return self._selection.of(attributes)

    def select_with_returns(
        self, attributes: DataSet, include: frozenset[str] | None = None, all: bool = False
    ) -> DataSet:
        """The answer of a Search: return keys 1 and 2, 1C and 2C if present, match attributes, ``include``.

        ``include`` holds paths of tags joined by dots; ``all`` returns everything but Transaction UID.
        """
        return self.returns(include, all).of(attributes)

    def returns(self, include: frozenset[str] | None = None, all: bool = False) -> Selection:
        """What ``select_with_returns`` picks."""
        form = (include or frozenset(), all)
        selection = self._returns.get(form)
        if selection is None:
            selection = search_selection(self._wanted, self._vr_of, form[0], everything=all)
            self._returns[form] = selection
        return selection


@dataclass(slots=True)
class _Compiler:
    """Compiles the keys of an identifier, sequences recursively, and notes what it met on the way."""

    local: Zone
    fuzzy: bool
    multiple: bool
    has_keys: bool = False
    unsupported: bool = False

    def level(self, dataset: DataSet, trail: Trail, above: bool) -> list[KeyTest]:
        """The tests of all keys that are not universal.

        ``above`` is False in a sequence that is no matching key; attributes of the table have their own say.
        """
        keys = [self._key(tag, found, trail, above) for tag, found in dataset.items()]
        return [key for key in keys if key is not None]

    def _key(self, tag: str, found: Element, trail: Trail, above: bool) -> KeyTest | None:
        if tag in _NO_KEYS:
            self.unsupported |= tag == tags.TRANSACTION_UID
            return None
        rule = RULES.get(_path(trail, tag))
        usable = rule.match != "-" if rule else above
        self.has_keys |= usable
        _check_vr(tag, found, trail)
        if found["vr"] == "SQ":
            return self._sequence(tag, found, trail, usable)
        test = self._value(tag, found, trail)
        if usable or test is None:
            return test
        self.unsupported = True
        return None

    def _value(self, tag: str, found: Element, trail: Trail) -> KeyTest | None:
        values = [one for one in found.get("Value", ()) if not _is_empty(one)]
        if not values and not found.get("InlineBinary"):
            return None
        if not is_matchable(found["vr"]):
            self.unsupported = True
            return None
        try:
            self._check_count(found["vr"], values)
            asked = Asked(_path(trail, tag), tag, found["vr"], values, self.local, self.fuzzy)
            return compile_key(asked)
        except ValueError as error:
            raise refusal(IDENTIFIER_MISMATCH, trail, tag, f"is not valid as a key: {error}") from None

    def _check_count(self, vr: str, values: list[Any]) -> None:
        if len(values) > 1 and vr != "UI" and not self.multiple:
            raise ValueError(f"expected one value, found {len(values)}")

    def _sequence(self, tag: str, found: Element, trail: Trail, usable: bool) -> KeyTest | None:
        given = found.get("Value") or []
        if len(given) > 1:
            raise refusal(IDENTIFIER_MISMATCH, trail, tag, f"has {len(given)} items, expected one")
        if not given:
            return None
        tests = self.level(given[0], (*trail, (tag, 1)), usable)
        return _item_test(tag, tests) if tests else None


def _path(trail: Trail, tag: str) -> str:
    return ".".join((*(above for above, _ in trail), tag))


def _check_vr(tag: str, found: Element, trail: Trail) -> None:
    expected, vr = VR_OF.get(tag), found["vr"]
    if expected and vr != expected and not {expected, vr} <= TEXT_VRS:
        raise refusal(IDENTIFIER_MISMATCH, trail, tag, f"has VR {vr}, expected {expected}")


def _item_test(tag: str, tests: list[KeyTest]) -> KeyTest:
    """One stored item must satisfy all keys of the item (PS3.4 C.2.2.2.6)."""
    inner: tuple[Test, ...] = tuple(one.test for one in tests)

    def test(dataset: DataSet, local: Zone) -> bool:
        for item in dataset.get(tag, {}).get("Value", ()):
            if isinstance(item, dict) and all(one(item, local) for one in inner):
                return True
        return False

    conditions = tuple(condition for one in tests for condition in one.conditions)
    return KeyTest(test, conditions, all(one.complete for one in tests), any(one.dated for one in tests))


def _is_empty(one: Any) -> bool:
    if isinstance(one, dict):
        return not any(map(plain, one.values()))
    return one is None or (isinstance(one, str) and not plain(one))


def _wanted(identifier: DataSet) -> tuple[Wanted, dict[str, str]]:
    """What is asked for, and the VRs that were sent."""
    wanted: Wanted = {}
    vr_of: dict[str, str] = {}
    for tag, found in identifier.items():
        if tag == tags.TIMEZONE_OFFSET:
            continue
        vr_of[tag] = found["vr"]
        item = (found.get("Value") or [{}])[0] if found["vr"] == "SQ" else {}
        wanted[tag], below = _wanted(item) if item else (None, {})
        vr_of.update(below)
    return wanted, vr_of


def _local_zone(timezone: str | tzinfo | None) -> Zone:
    if not isinstance(timezone, str):
        return UTC if timezone is None else timezone
    found = zone(timezone)
    if found is None:
        raise ValueError(f"{timezone!r} is no offset from UTC such as +0100")
    return found


def _request_zone(identifier: DataSet, local: Zone) -> Zone:
    given = text(identifier, tags.TIMEZONE_OFFSET)
    if not given:
        return local
    found = zone(given)
    if found is None:
        what = "is not valid: expected an offset from UTC such as +0100"
        raise refusal(IDENTIFIER_MISMATCH, (), tags.TIMEZONE_OFFSET, what)
    return found


def _stored_zone(attributes: DataSet, local: Zone) -> Zone:
    given = text(attributes, tags.TIMEZONE_OFFSET)
    found = zone(given) if given else None
    return local if found is None else found
