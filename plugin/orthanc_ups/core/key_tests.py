# SPDX-License-Identifier: AGPL-3.0-or-later
"""The kinds of matching as compiled tests, chosen by VR (PS3.4 C.2.2.2.1 to C.2.2.2.5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from . import person_names, tags
from .dataset import FLOAT_VRS, INTEGER_VRS, NAME_GROUPS, DataSet, plain
from .date_times import DATED_VRS, Zone, key_interval, moment
from .query_conditions import Condition, Operator
from .representations import REPRESENTATIONS, is_decimal
from .wildcards import is_universal, is_wild, wildcard_test

Test: TypeAlias = Callable[[DataSet, Zone], bool]
"""True if the attributes on one level match; the zone is that of stored values without offset."""

Accept: TypeAlias = Callable[[Any], bool]

TEXT_VRS: Final = frozenset({"AE", "AS", "CS", "LO", "LT", "SH", "ST", "UC", "UR", "UT"})
WILDCARD_VRS: Final = TEXT_VRS - {"AS"}
_LONG_CODE_VALUE: Final = "00080119"
_URN_CODE_VALUE: Final = "00080120"
_COMPONENTS: Final = 5
_PATIENT_SEX: Final = "00100040"
EMPTY_KEY: Final = '""'
"""The value of a key in Empty Value Matching (PS3.4 C.2.2.2.7)."""

SINGLE_VALUE_ONLY: Final = frozenset(
    {tags.PRIORITY, tags.STATE, tags.READINESS, _PATIENT_SEX}
    | {tags.CODE_VALUE, tags.CODING_SCHEME, _LONG_CODE_VALUE, _URN_CODE_VALUE}
)
"""Where PS3.4 Table CC.2.5-3 allows single value matching only, ``*`` and ``?`` are ordinary characters."""


@dataclass(frozen=True, slots=True)
class MatchingKey:
    """A matching key, ready to be compiled.

    Attributes:
        path: tags joined by dots; ``tag`` is the last of them.
        values: the values that were sent, without empty ones; at least one.
        local: the zone of date-times in the key without offset.
        fuzzy: True if person names match fuzzily.
    """

    path: str
    tag: str
    vr: str
    values: Sequence[Any]
    local: Zone
    fuzzy: bool

    def only(self, *values: Any) -> MatchingKey:
        """The same key with these values."""
        return replace(self, values=values)


@dataclass(frozen=True, slots=True)
class KeyTest:
    """A compiled key: the test, and its conditions for an index. ``dated`` if the test needs the zone."""

    test: Test
    conditions: tuple[Condition, ...] = ()
    complete: bool = False
    dated: bool = False


def compile_key(key: MatchingKey) -> KeyTest | None:
    """The test of a key; None if it is universal. Raises ValueError, which says what values are expected."""
    if key.vr in TEXT_VRS:
        return _text(key)
    return _BUILDERS[key.vr](key)


def any_test(tests: Sequence[KeyTest | None]) -> KeyTest | None:
    """A test that holds if any of these does; None, which is universal, if any of them is."""
    present = [key for key in tests if key is not None]
    if len(present) < len(tests) or len(present) == 1:
        return present[0] if len(present) == len(tests) else None
    inner = [key.test for key in present]
    return KeyTest(
        lambda dataset, zone: any(test(dataset, zone) for test in inner),
        dated=any(key.dated for key in present),
    )


def all_tests(tests: Sequence[KeyTest | None]) -> KeyTest | None:
    """A test that holds if all of these do; None, which is universal, if all of them are."""
    present = [key for key in tests if key is not None]
    if len(present) < 2:
        return present[0] if present else None
    inner = [key.test for key in present]
    return KeyTest(
        lambda dataset, zone: all(test(dataset, zone) for test in inner),
        dated=any(key.dated for key in present),
    )


def is_empty_key(value: Any) -> bool:
    """True for the value of Empty Value Matching: two quotation marks (PS3.4 C.2.2.2.7)."""
    if isinstance(value, dict):
        return [plain(text) for text in value.values() if plain(text)] == [EMPTY_KEY]
    return plain(value) == EMPTY_KEY


def empty_test(key: MatchingKey) -> KeyTest:
    """Empty Value Matching: the attribute is absent or has no value (PS3.4 C.2.2.2.7)."""
    tag = key.tag

    def test(dataset: DataSet, _: Zone) -> bool:
        element = dataset.get(tag)
        return element is None or not (
            element.get("InlineBinary") or any(map(_has_content, element.get("Value", ())))
        )

    return KeyTest(test, (Condition(key.path, Operator.EMPTY, ()),), complete=True)


def _has_content(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(plain, value.values()))
    return bool(plain(value)) if isinstance(value, str) else value is not None


def is_universal_value(value: Any) -> bool:
    """True for a value that matches everything: ``*`` (PS3.4 C.2.2.2.4)."""
    texts = value.values() if isinstance(value, dict) else (value,)
    return all(isinstance(text, str) and is_universal(plain(text)) for text in texts)


def unmatchable(key: MatchingKey, value: Any, enumerated: Sequence[str]) -> str:
    """Why a value of a key can match no workitem, in words; empty if it may match one.

    ``enumerated`` are the values that the attribute may have, if they are restricted. A value that may match, but not
    as its sender means it, has a reason too: wildcards where only single value matching applies.
    """
    if not isinstance(value, str) or (key.vr not in TEXT_VRS and key.vr != "IS"):
        return ""
    text = plain(value)
    literally = key.tag in SINGLE_VALUE_ONLY or key.vr not in WILDCARD_VRS
    fits = wildcard_test(text) if is_wild(text) and not literally else text.__eq__
    single = ", as single value matching takes * and ? literally" if literally and is_wild(text) else ""
    if enumerated and not any(map(fits, enumerated)):
        return f"expected {' or '.join(enumerated)}{single}"
    shortest = text if literally else text.replace("*", "").replace("?", "0")
    if not REPRESENTATIONS[key.vr].valid(shortest):
        return f"expected {REPRESENTATIONS[key.vr].form}{single}"
    return single.removeprefix(", as ")


def is_matchable(vr: str) -> bool:
    """False for binary values, for which there is no matching. (Sequences are compiled item by item.)"""
    return vr in TEXT_VRS or vr in _BUILDERS


def _any_value(tag: str, accept: Accept) -> Test:
    """A stored attribute matches if any of its values does; without values it never matches."""

    def test(dataset: DataSet, _: Zone) -> bool:
        attribute = dataset.get(tag)
        if attribute is None:
            return False
        return any(map(accept, attribute.get("Value", ())))

    return test


def _exactly(key: MatchingKey, expected: Sequence[str]) -> KeyTest:
    alternatives = frozenset(expected)
    test = _any_value(key.tag, lambda value: plain(value) in alternatives)
    return KeyTest(test, (Condition(key.path, Operator.EQUALS, tuple(expected)),), complete=True)


def _text(key: MatchingKey) -> KeyTest | None:
    """Single Value and Wild Card Matching (PS3.4 C.2.2.2.1, C.2.2.2.4); universal with nothing but ``*``."""
    expected = [_checked_text(value) for value in key.values]
    if key.tag in SINGLE_VALUE_ONLY or key.vr not in WILDCARD_VRS or not any(map(is_wild, expected)):
        return _exactly(key, expected)
    if any(map(is_universal, expected)):
        return None
    fits = [wildcard_test(value) for value in expected]
    test = _any_value(key.tag, lambda value: bool(text := plain(value)) and any(fit(text) for fit in fits))
    return KeyTest(test, (Condition(key.path, Operator.LIKE, tuple(expected)),), complete=True)


def _checked_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("expected text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("expected valid Unicode") from None
    return plain(value)


def _uid(key: MatchingKey) -> KeyTest:
    """List of UID Matching (PS3.4 C.2.2.2.2)."""
    valid = REPRESENTATIONS["UI"].valid
    if not all(map(valid, key.values)):
        raise ValueError(
            "expected a UID, or several (List of UID matching), each of at most 64 digits and dots"
        )
    return _exactly(key, [plain(value) for value in key.values])


def _dated(key: MatchingKey) -> KeyTest:
    """Range Matching; a single value is the range that its precision leaves open (PS3.4 C.2.2.2.5)."""
    vr, tag = key.vr, key.tag
    intervals = [key_interval(vr, _checked_text(value), key.local) for value in key.values]

    def test(dataset: DataSet, zone: Zone) -> bool:
        for value in dataset.get(tag, {}).get("Value", ()):
            at = moment(vr, value, zone)
            if at is not None and any(interval.low <= at <= interval.high for interval in intervals):
                return True
        return False

    pairs = tuple((interval.low, interval.high) for interval in intervals)
    return KeyTest(test, (Condition(key.path, Operator.WITHIN, pairs),), complete=True, dated=True)


def _decimal(key: MatchingKey) -> KeyTest:
    """Single Value Matching by the number, not by its text: ``1.50`` matches ``1.5`` (PS3.4 C.2.2.2.1)."""
    if not all(map(is_decimal, key.values)):
        raise ValueError("expected a number")
    expected = frozenset(Decimal(value.strip(" ")) for value in key.values)
    return KeyTest(
        _any_value(
            key.tag, lambda value: is_decimal(str(value)) and Decimal(str(value).strip(" ")) in expected
        )
    )


def _number(key: MatchingKey) -> KeyTest:
    expected = frozenset(_checked_number(value, key.vr) for value in key.values)
    return KeyTest(
        _any_value(key.tag, lambda value: isinstance(value, (int, float, str)) and value in expected)
    )


def _checked_number(value: Any, vr: str) -> int | float | str:
    """Numbers may also come as text, as in a URL."""
    number = _read_number(value, vr) if isinstance(value, str) else value
    if not REPRESENTATIONS[vr].valid(number):
        raise ValueError(f"expected {REPRESENTATIONS[vr].form}")
    assert isinstance(number, (int, float, str))
    return number


def _read_number(text: str, vr: str) -> int | float | str:
    try:
        return int(text) if vr in INTEGER_VRS else float(text)
    except ValueError:
        return text


def _tag(key: MatchingKey) -> KeyTest:
    if not all(map(REPRESENTATIONS["AT"].valid, key.values)):
        raise ValueError("expected a tag of 8 hexadecimal digits")
    expected = frozenset(value.upper() for value in key.values)
    return KeyTest(_any_value(key.tag, lambda value: isinstance(value, str) and value.upper() in expected))


def _name(key: MatchingKey) -> KeyTest | None:
    names = [_checked_name(name) for name in key.values]
    build = _fuzzy_name if key.fuzzy else _literal_name
    return any_test([build(key, name) for name in names])


def _checked_name(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not value.keys() <= set(NAME_GROUPS):
        raise ValueError("expected a person name")
    for group in value.values():
        _checked_text(group)
    return person_names.groups(value)


def _literal_name(key: MatchingKey, name: Mapping[str, str]) -> KeyTest | None:
    """Single Value and Wild Card Matching of the folded component groups (PS3.4 C.2.2.2.1, C.2.2.2.4)."""
    expected = {group: _alternatives(text) for group, text in name.items() if not _names_anybody(text)}
    if not expected:
        return None
    fits = {group: [wildcard_test(pattern) for pattern in patterns] for group, patterns in expected.items()}

    def accept(value: Any) -> bool:
        stored = person_names.groups(value)
        return all(any(fit(text) for text in _texts(stored, group) for fit in fits[group]) for group in fits)

    conditions = tuple(
        Condition(_group_path(key.path, group), Operator.LIKE, patterns)
        for group, patterns in expected.items()
    )
    return KeyTest(_any_value(key.tag, accept), conditions, complete=True)


def _names_anybody(pattern: str) -> bool:
    return not pattern.strip("*^")


def _alternatives(pattern: str) -> tuple[str, ...]:
    """``yamada^*`` also means ``yamada``: absent components are empty ones."""
    patterns = [pattern]
    while patterns[-1].endswith("^*") and len(patterns) <= _COMPONENTS:
        patterns.append(patterns[-1][:-2].rstrip("^"))
    return tuple(patterns)


def _texts(stored: Mapping[str, str], group: str) -> Sequence[str]:
    if group == "Alphabetic":
        return tuple(stored.values())
    return (stored[group],) if group in stored else ()


def _group_path(path: str, group: str) -> str:
    return path if group == "Alphabetic" else f"{path}.{group}"


def _fuzzy_name(key: MatchingKey, name: Mapping[str, str]) -> KeyTest | None:
    """Fuzzy semantic matching of person names: every word of the key must resemble a word of the name."""
    expected = sorted(person_names.words(dict(name)))
    if not expected:
        return None

    def accept(value: Any) -> bool:
        stored = person_names.words(value)
        return all(person_names.resembles(word, stored) for word in expected)

    conditions = tuple(
        Condition(key.path, Operator.SOUNDS, ((word, person_names.sound(word)),)) for word in expected
    )
    return KeyTest(_any_value(key.tag, accept), conditions, complete=True)


_BUILDERS: Final[Mapping[str, Callable[[MatchingKey], KeyTest | None]]] = MappingProxyType(
    {"AT": _tag, "DS": _decimal, "IS": _decimal, "PN": _name, "UI": _uid}
    | dict.fromkeys(DATED_VRS, _dated)
    | dict.fromkeys(INTEGER_VRS | FLOAT_VRS, _number)
)
