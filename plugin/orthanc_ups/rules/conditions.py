# SPDX-License-Identifier: AGPL-3.0-or-later
"""``If`` of a rule: tests of attributes, of the sender, of labels and of the time of day.

Tests are compiled while the script loads, so that a mistake prevents the start.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from ..core.wildcards import wildcard_test
from ..management.keyword_form import keyword_of, tag_of, vr_of
from .causes import Cause, values_of
from .faults import InvalidRuleValue
from .schedules import read_windows, windows_in_words
from .value_tests import UNREADABLE_VRS, Accepts, range_test, value_test

ORIGINS: Final = ("DicomProtocol", "RestApi", "Plugins", "Lua", "WebDav", "Unknown")
"""Values of Orthanc's metadata ``Origin``: how an instance arrived. STOW counts as Plugins."""

SPECIAL: Final = ("CallingAet", "Origin", "Labels", "Schedule")
"""Keys of ``If`` that are not attributes."""

_TITLE: Final = re.compile(r"[ -\[\]-~]{1,16}")
_LABEL: Final = re.compile(r"[A-Za-z0-9_*?-]{1,64}")


@dataclass(frozen=True, slots=True)
class RuleCondition:
    """One key of ``If``.

    Attributes:
        key: as it is written.
        path: keywords down to the attribute; () if the key is not an attribute.
        expected: the expected values, in words.
        fits: whether the values of the attribute fit, which are () if it is absent or empty.
        of_cause: reads the values from the cause if the key is not an attribute.
    """

    key: str
    path: tuple[str, ...]
    expected: str
    fits: Callable[[Sequence[Any]], bool]
    of_cause: Callable[[Cause], Sequence[Any]] | None = None

    def values(self, cause: Cause) -> Sequence[Any]:
        """The values of the cause for this key."""
        return values_of(cause.content, self.path) if self.of_cause is None else self.of_cause(cause)

    def objection(self, cause: Cause) -> str:
        """Why the cause does not fit, as a phrase; empty if it does."""
        values = self.values(cause)
        if self.fits(values):
            return ""
        texts = ", ".join(f'"{_shown(value)}"' for value in values) or "absent"
        return f"{self.key} is {texts}, expected {self.expected}"


def _shown(value: Any) -> str:
    if isinstance(value, datetime):
        return f"{value:%a %H:%M}"
    text = str(value)
    return text if len(text) <= 64 else text[:61] + "..."


def read_condition(key: str, expected: object) -> RuleCondition:
    """Compile one key of ``If``. Raises InvalidRuleValue, or LookupError with a name that is not a keyword."""
    if key == "Schedule":
        windows = read_windows(expected)
        return RuleCondition(
            key,
            (),
            windows_in_words(expected),
            lambda values: any(window(at) for at in values for window in windows),
            lambda cause: (cause.at,),
        )
    if key in _SPECIAL_TEXTS:
        special = _SPECIAL_TEXTS[key]
        return RuleCondition(key, (), _in_words(expected), _special_test(special, expected), special.of_cause)
    path = attribute_path(key)
    return RuleCondition(key, path, _in_words(expected), _test(path[-1], expected))


def attribute_path(key: str) -> tuple[str, ...]:
    """The keywords of ``Sequence.Keyword``, in which tags may replace keywords.

    Raises LookupError with a name that is not a keyword, InvalidRuleValue if what is before a dot is not a sequence.
    """
    names = key.split(".")
    path = []
    for depth, name in enumerate(names):
        tag = tag_of(name)
        if tag is None or not keyword_of(tag):
            raise LookupError(name)
        if depth < len(names) - 1 and vr_of(tag) != "SQ":
            raise InvalidRuleValue(f"a sequence before the dot, which {name} is not")
        path.append(keyword_of(tag))
    return tuple(path)


# --- tests of attributes ---


def _test(keyword: str, expected: object) -> Callable[[Sequence[Any]], bool]:
    vr = vr_of(tag_of(keyword) or "")
    if vr in UNREADABLE_VRS:
        raise InvalidRuleValue(f"another attribute, because the value of {keyword} is binary (VR {vr})")
    if isinstance(expected, Mapping):
        return _object_test(keyword, vr, expected)
    alternatives = expected if isinstance(expected, list) else [expected]
    if not alternatives:
        raise InvalidRuleValue("at least one value")
    absent_fits = any(value is None or value == "" for value in alternatives)
    tests = [
        _of_sequence(keyword, value) if vr == "SQ" else value_test(vr, value)
        for value in alternatives
        if value is not None and value != ""
    ]

    def fits(values: Sequence[Any]) -> bool:
        if not values:
            return absent_fits
        return any(test(value) for value in values for test in tests)

    return fits


def _of_sequence(keyword: str, expected: object) -> Accepts:
    if expected != "*":
        raise InvalidRuleValue(f'null or "*", or an attribute in it such as "{keyword}.CodeValue"')
    return lambda _: True


def _object_test(keyword: str, vr: str, expected: Mapping[str, Any]) -> Callable[[Sequence[Any]], bool]:
    if set(expected) == {"Not"}:
        inner = _test(keyword, expected["Not"])
        return lambda values: not inner(values)
    if not expected or not set(expected) <= {"From", "To"}:
        raise InvalidRuleValue('a value, a list, null, {"Not": …} or {"From": …, "To": …}')
    if vr == "SQ":
        return _test(keyword, "a range")
    test = range_test(vr, expected)
    return lambda values: any(test(value) for value in values)


# --- tests of keys that are not attributes ---


@dataclass(frozen=True, slots=True)
class _SpecialText:
    """A key that is not an attribute.

    Attributes:
        of_cause: reads its values from a cause.
        is_possible: whether a text is a possible value, perhaps with wildcards.
        expected: the possible values, in words.
        form: makes equal spellings the same text.
    """

    of_cause: Callable[[Cause], Sequence[str]]
    is_possible: Callable[[str], object]
    expected: str
    form: Callable[[str], str] = str


def _single(text: str) -> Sequence[str]:
    return (text,) if text else ()


_SPECIAL_TEXTS: Final[Mapping[str, _SpecialText]] = {
    "CallingAet": _SpecialText(
        lambda cause: _single(cause.calling_ae),
        _TITLE.fullmatch,
        "an AE title of at most 16 characters",
        str.upper,
    ),
    "Origin": _SpecialText(
        lambda cause: _single(cause.origin), ORIGINS.__contains__, f"one of {', '.join(ORIGINS)}"
    ),
    "Labels": _SpecialText(
        lambda cause: cause.labels,
        _LABEL.fullmatch,
        "a label of Orthanc: at most 64 letters, digits, hyphens and underscores",
    ),
}


def _special_test(special: _SpecialText, expected: object) -> Callable[[Sequence[Any]], bool]:
    """Compile texts with wildcards; null matches no value. Raises InvalidRuleValue."""
    if isinstance(expected, Mapping):
        if set(expected) != {"Not"}:
            raise InvalidRuleValue('a text, a list, null or {"Not": …}')
        inner = _special_test(special, expected["Not"])
        return lambda values: not inner(values)
    alternatives = expected if isinstance(expected, list) else [expected]
    if not alternatives:
        raise InvalidRuleValue("a text, a list of texts, or null")
    texts = [value for value in alternatives if value is not None and value != ""]
    absent_fits = len(texts) < len(alternatives)
    for value in texts:
        if not isinstance(value, str) or not (value == "*" or special.is_possible(value.strip())):
            raise InvalidRuleValue(special.expected, value=value)
    tests = [wildcard_test(special.form(str(value).strip())) for value in texts]

    def fits(values: Sequence[Any]) -> bool:
        if not values:
            return absent_fits
        return any(test(special.form(str(value).strip())) for value in values for test in tests)

    return fits


def _in_words(expected: object) -> str:
    if isinstance(expected, Mapping):
        if "Not" in expected:
            return f"anything but {_in_words(expected['Not'])}"
        return " and ".join(
            f'{word} "{expected[name]}"'
            for name, word in (("From", "from"), ("To", "up to"))
            if name in expected
        )
    if isinstance(expected, list):
        return " or ".join(map(_in_words, expected))
    if expected is None or expected == "":
        return "no value"
    return "any value" if expected == "*" else f'"{expected}"'
