# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whether values are valid in themselves, whatever the request: VR, multiplicity, form."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from .dataset import BINARY_VRS, DataSet
from .dictionary import VR_OF
from .refusals import Trail, refusal
from .representations import FORMS, REPRESENTATIONS
from .rules import ROOT, Contents, Rule
from .statuses import INVALID_VALUE, NO_SUCH_ATTRIBUTE

_TAG: Final = re.compile(r"[0-9A-F]{8}")
_KEYS: Final = frozenset({"vr", "Value", "InlineBinary"})
_ONE_VALUE_VRS: Final = frozenset({"LT", "ST", "UR", "UT"})
_LONGEST_QUOTE: Final = 24
DEEPEST: Final = 50
"""Greatest depth of sequences within sequences that any setting allows.

orjson writes 254 levels of JSON. A sequence takes three in the store and in DICOM JSON, four in the page's view.
"""
_PLAINLY_VALID: Final = {
    vr: (lambda _: False) if vr in BINARY_VRS else one.valid for vr, one in REPRESENTATIONS.items()
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a data set may ask of us.

    Attributes:
        nesting: greatest depth of sequences within sequences.
        parts: greatest number of elements, items and values, all counted together.
    """

    nesting: int = DEEPEST
    parts: int = 100_000


USUAL: Final = Limits()


def check_values(dataset: DataSet, *, limits: Limits = USUAL) -> None:
    """Refuse a data set of which some value is invalid (PS3.5 §6.2, PS3.4 Table CC.2.5-3).

    Rows of the table must come with their VR (or the one of earlier editions) and multiplicity, other tags
    with any VR of PS3.5. Not for identifiers of queries: matching keys have forms of their own.

    Raises:
        UpsError: 0106 for an invalid value, 0105 for a tag that is none; ``tag`` is the path.
    """
    _Check(limits).level(dataset, ROOT, ())


def value_fault(found: Any, tag: str, rule: Rule | None) -> str | None:
    """What is wrong with an element, in words after its name, or None. Items are not looked into."""
    vr = found.get("vr") if isinstance(found, dict) else None
    if not isinstance(vr, str) or vr not in REPRESENTATIONS or not found.keys() <= _KEYS:
        return "is no element with a VR of DICOM and its values"
    expected = rule.vr if rule else VR_OF.get(tag, vr)
    if vr != expected and not (rule and vr == rule.former_vr):
        return f"has VR {vr}, expected {expected}"
    if vr in BINARY_VRS:
        return _binary_fault(found, vr)
    if "InlineBinary" in found:
        return f"has binary content, which VR {vr} cannot have"
    given = found.get("Value")
    return None if given is None else _given_fault(given, expected, rule)


def _is_plainly_right(found: Any, rule: Rule) -> bool:
    """True for what nearly all elements are: one valid value of the row's VR, or none. False says nothing yet."""
    if type(found) is not dict or found.get("vr") != rule.vr:
        return False
    given = found.get("Value")
    if given is None:
        return len(found) == 1
    if type(given) is not list or len(given) != 1 or len(found) != 2 or rule.form:
        return False
    return given[0] in rule.values if rule.values else _PLAINLY_VALID[rule.vr](given[0])


def _binary_fault(found: dict[str, Any], vr: str) -> str | None:
    representation = REPRESENTATIONS[vr]
    if found.get("Value"):
        return f"has values, expected InlineBinary for VR {vr}"
    if representation.valid(found.get("InlineBinary", "")):
        return None
    return f"is not valid: expected {representation.form}"


def _given_fault(given: Any, vr: str, rule: Rule | None) -> str | None:
    if not isinstance(given, list):
        return "has no list of values"
    if len(given) > 1 and (vr in _ONE_VALUE_VRS or (rule and rule.single)):
        return f"has {len(given)} {'items' if vr == 'SQ' else 'values'}, expected one"
    if rule and (rule.values or rule.form):
        return next(filter(None, (_row_fault(one, rule) for one in given)), None)
    valid = REPRESENTATIONS[vr].valid
    for one in given:
        if not valid(one) and (vr == "SQ" or (one is not None and one != "")):
            return f"is not valid for VR {vr}: expected {REPRESENTATIONS[vr].form}"
    return None


def _row_fault(one: Any, rule: Rule) -> str | None:
    if one is None or one == "":
        return None
    if rule.form:
        return None if FORMS[rule.form].valid(one) else f"is not valid: expected {FORMS[rule.form].form}"
    if isinstance(one, str) and one.strip(" ").upper() in rule.values:
        return None
    return f"is {quoted(one)}, expected {' or '.join(rule.values)}"


def quoted(one: Any) -> str:
    """A value of an enumerated attribute for an error text, cut if long."""
    if not isinstance(one, str):
        return "no text"
    return repr(one if len(one) <= _LONGEST_QUOTE else one[:_LONGEST_QUOTE] + "…")


class _Check:
    """One pass over a data set, with its budget."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._left = limits.parts

    def level(self, dataset: DataSet, contents: Contents | None, trail: Trail) -> None:
        rules = contents.rules if contents else {}
        for tag, found in dataset.items():
            rule = rules.get(tag)
            fault = self._excess(found)
            if not fault and not (rule and _is_plainly_right(found, rule)):
                fault = value_fault(found, tag, rule)
            if fault or not (rule or _is_tag(tag)):
                raise _fault(trail, tag, fault)
            if found["vr"] == "SQ":
                self._items(tag, found.get("Value", ()), rule.contents if rule else None, trail)

    def _items(self, tag: str, found: list[DataSet], contents: Contents | None, trail: Trail) -> None:
        if found and len(trail) >= self._limits.nesting:
            most = f"is nested too deeply: at most {self._limits.nesting} sequences within one another"
            raise refusal(INVALID_VALUE, trail[:1], tag, most)
        for number, item in enumerate(found, 1):
            self.level(item, contents, (*trail, (tag, number)))

    def _excess(self, found: Any) -> str | None:
        given = found.get("Value") if type(found) is dict else None
        self._left -= 1 + len(given) if type(given) is list else 1
        if self._left >= 0:
            return None
        return f"is too much: at most {self._limits.parts} elements, items and values in all"


def _is_tag(tag: Any) -> bool:
    """Groups 0000 to 0007 are commands, file meta information and directories; FFFE delimits items."""
    return tag in VR_OF or (
        isinstance(tag, str) and _TAG.fullmatch(tag) is not None and "00080000" <= tag < "FFFE0000"
    )


def _fault(trail: Trail, tag: Any, fault: str | None) -> Exception:
    if not _is_tag(tag):
        return refusal(NO_SUCH_ATTRIBUTE, trail, _shown(tag), "is no tag of content: expected 8 hex digits")
    return refusal(INVALID_VALUE, trail, tag, fault or "")


def _shown(tag: Any) -> str:
    return tag if isinstance(tag, str) and _TAG.fullmatch(tag) else "FFFFFFFF"
