# SPDX-License-Identifier: AGPL-3.0-or-later
"""Checks values, whatever the request: VR, multiplicity, form. Corrects those whose meaning is clear."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from . import value_corrections
from .dataset import BINARY_VRS, SINGLE_TEXT_VRS, DataSet, Element, element, is_empty, patched
from .dictionary import VR_OF
from .interned import notes_of
from .refusals import Findings, Trail, refusal
from .representations import FORMS, REPRESENTATIONS
from .rules import ROOT, Contents, Rule
from .statuses import INVALID_VALUE, NO_SUCH_ATTRIBUTE
from .tags import GROUPS_OF_OTHER_SETS

_TAG: Final = re.compile(r"[0-9A-F]{8}")
_KEYS: Final = frozenset({"vr", "Value", "InlineBinary"})
_LONGEST_QUOTE: Final = 24
DEEPEST: Final = 50
"""Greatest depth of sequences within sequences that any setting allows.

orjson writes 254 levels of JSON. A sequence takes three in the store and in DICOM JSON, four in the page's view.
"""
_PLAINLY_VALID: Final = {
    vr: (lambda _: False) if vr in BINARY_VRS else representation.valid
    for vr, representation in REPRESENTATIONS.items()
}


@dataclass(frozen=True, slots=True)
class DataSetLimits:
    """Limits of a data set.

    Attributes:
        nesting: greatest depth of sequences within sequences.
        parts: greatest number of elements, items and values, all counted together.
    """

    nesting: int = DEEPEST
    parts: int = 100_000


USUAL: Final = DataSetLimits()

FAULTY: Final[Element] = {"vr": "", "Value": [object()]}
"""Replaces a faulty element. It counts as present with a value, so that no second fault is reported."""


def check_values(dataset: DataSet, *, limits: DataSetLimits = USUAL) -> None:
    """Refuse a data set with an invalid value (PS3.5 §6.2, PS3.4 Table CC.2.5-3).

    Attributes of the table must have its VR (or that of earlier editions) and multiplicity, others any VR of PS3.5.
    Not for identifiers of queries, because matching keys have other forms.

    Raises:
        UpsError: 0106 for an invalid value, 0105 for an invalid tag; ``tag`` is the path.
    """
    findings = Findings(strict=True)
    checked(dataset, findings, limits)
    findings.refuse()


def checked(dataset: DataSet, findings: Findings, limits: DataSetLimits = USUAL) -> DataSet:
    """The data set, corrected unless ``findings`` are strict, with FAULTY in place of other faulty elements.

    Raises:
        UpsError: 0106 for a data set beyond the limits, which is not checked further.
    """
    return _Check(limits, findings).level(dataset, ROOT, ())


def value_fault(attribute: Any, tag: str, rule: Rule | None) -> str | None:
    """What is wrong with an element, as the predicate of a sentence, or None. Its items are not checked."""
    vr = attribute.get("vr") if isinstance(attribute, dict) else None
    if not isinstance(vr, str) or vr not in REPRESENTATIONS or not attribute.keys() <= _KEYS:
        return "is not an element with a VR of DICOM and its values"
    expected = rule.vr if rule else VR_OF.get(tag, vr)
    if vr != expected and not (rule and vr == rule.former_vr):
        return f"has VR {vr}, expected {expected}"
    if vr in BINARY_VRS:
        return _binary_fault(attribute, vr)
    if "InlineBinary" in attribute:
        return f"has binary content, which VR {vr} cannot have"
    values = attribute.get("Value")
    return None if values is None else _fault_of_values(values, expected, rule)


def _is_plainly_right(attribute: Any, rule: Rule) -> bool:
    """A quick check that nearly all elements pass: one valid value of the row's VR, or none. False means nothing."""
    if type(attribute) is not dict or attribute.get("vr") != rule.vr:
        return False
    values = attribute.get("Value")
    if values is None:
        return len(attribute) == 1
    if type(values) is not list or len(values) != 1 or len(attribute) != 2 or rule.form:
        return False
    return values[0] in rule.values if rule.values else _PLAINLY_VALID[rule.vr](values[0])


def _binary_fault(attribute: dict[str, Any], vr: str) -> str | None:
    representation = REPRESENTATIONS[vr]
    if attribute.get("Value"):
        return f"has values, expected InlineBinary for VR {vr}"
    if representation.valid(attribute.get("InlineBinary", "")):
        return None
    return f"is not valid: expected {representation.form}"


def _fault_of_values(values: Any, vr: str, rule: Rule | None) -> str | None:
    if not isinstance(values, list):
        return "has no list of values"
    if len(values) > 1 and (vr in SINGLE_TEXT_VRS or (rule and rule.single)):
        return f"has {len(values)} {'items' if vr == 'SQ' else 'values'}, expected one"
    if rule and (rule.values or rule.form):
        return next(filter(None, (_row_fault(value, rule) for value in values)), None)
    valid = REPRESENTATIONS[vr].valid
    for value in values:
        if not valid(value) and (vr == "SQ" or (value is not None and value != "")):
            return f"is not valid for VR {vr}: expected {REPRESENTATIONS[vr].form}"
    return None


def _row_fault(value: Any, rule: Rule) -> str | None:
    if value is None or value == "":
        return None
    if rule.form:
        return None if FORMS[rule.form].valid(value) else f"is not valid: expected {FORMS[rule.form].form}"
    if isinstance(value, str) and value.strip(" ").upper() in rule.values:
        return None
    return f"is {quoted(value)}, expected {' or '.join(rule.values)}"


def quoted(value: Any) -> str:
    """A value of an enumerated attribute for an error text, shortened if long."""
    if not isinstance(value, str):
        return "no text"
    return repr(value if len(value) <= _LONGEST_QUOTE else value[:_LONGEST_QUOTE] + "…")


class _Check:
    """A pass over a data set, with the remaining number of parts."""

    def __init__(self, limits: DataSetLimits, findings: Findings) -> None:
        self._limits = limits
        self._budget = limits.parts
        self._findings = findings

    def level(self, dataset: DataSet, contents: Contents | None, trail: Trail) -> DataSet:
        """The level with its values corrected, and FAULTY in place of faulty elements."""
        rules = contents.rules if contents else {}
        changes: dict[str, Element | None] = {}
        for tag, attribute in dataset.items():
            rule = rules.get(tag)
            self._count(attribute, tag, trail)
            sound: Element | None = attribute
            if not (rule and _is_plainly_right(attribute, rule)):
                sound = self._sound(attribute, tag, rule, trail)
            if sound is not None and sound["vr"] == "SQ":
                sound = self._items(sound, tag, rule, trail)
            if sound is not attribute:
                changes[tag] = sound
        return patched(dataset, changes)

    def _sound(self, attribute: Any, tag: Any, rule: Rule | None, trail: Trail) -> Element | None:
        """The element, corrected, or FAULTY; None if it does not belong in a data set."""
        if not (rule or _is_tag(tag)):
            self._report_foreign(tag, trail)
            return None
        fault = value_fault(attribute, tag, rule)
        if fault is None:
            sound: Element = attribute
            return sound
        corrected = None if self._findings.strict else _corrected(attribute, tag, rule)
        if corrected is None:
            self._findings.fault(INVALID_VALUE, trail, tag, fault)
            return FAULTY
        self._findings.correction(trail, tag, corrected[1])
        return corrected[0]

    def _report_foreign(self, tag: Any, trail: Trail) -> None:
        reported = tag if isinstance(tag, str) and _TAG.fullmatch(tag) else "FFFFFFFF"
        if not self._findings.strict and reported.startswith(GROUPS_OF_OTHER_SETS):
            self._findings.correction(
                trail, reported, "left out: groups 0000 and 0002 are not part of a data set"
            )
        else:
            what = "is not a tag of content: expected 8 hex digits"
            self._findings.fault(NO_SUCH_ATTRIBUTE, trail, reported, what)

    def _items(self, attribute: Element, tag: str, rule: Rule | None, trail: Trail) -> Element:
        """The sequence with its items corrected. An interned sequence without findings is checked only once."""
        notes = None if trail else notes_of(attribute)
        if notes is None:
            return self._checked_items(attribute, tag, rule, trail)
        key = "checked", tag, self._findings.strict, self._limits.nesting
        parts = notes.get(key)
        if parts is not None and parts <= self._budget:
            self._budget -= parts
            return attribute
        budget, count = self._budget, self._findings.count
        sound = self._checked_items(attribute, tag, rule, trail)
        if sound is attribute and self._findings.count == count:
            notes[key] = budget - self._budget
        return sound

    def _checked_items(self, attribute: Element, tag: str, rule: Rule | None, trail: Trail) -> Element:
        values: list[DataSet] = attribute.get("Value") or []
        if values and len(trail) >= self._limits.nesting:
            fault = f"is nested too deeply: at most {self._limits.nesting} sequences within one another"
            raise refusal(INVALID_VALUE, trail[:1], tag, fault)
        contents = rule.contents if rule else None
        sound = [self.level(item, contents, (*trail, (tag, number))) for number, item in enumerate(values, 1)]
        if contents and not self._findings.strict and any(_is_hollow(item, contents) for item in sound):
            self._findings.correction(trail, tag, "cleared of items without any value")
            sound = [item for item in sound if not _is_hollow(item, contents)]
        unchanged = len(sound) == len(values) and all(
            checked is item for checked, item in zip(sound, values, strict=True)
        )
        return attribute if unchanged else element("SQ", *sound)

    def _count(self, attribute: Any, tag: Any, trail: Trail) -> None:
        values = attribute.get("Value") if type(attribute) is dict else None
        self._budget -= 1 + len(values) if type(values) is list else 1
        if self._budget < 0:
            what = f"is too large: at most {self._limits.parts} elements, items and values in all"
            raise refusal(INVALID_VALUE, trail, tag if _is_tag(tag) else "FFFFFFFF", what)


def _corrected(attribute: Any, tag: str, rule: Rule | None) -> tuple[Element, str] | None:
    """The element that a faulty one clearly means, and the correction in words; None if there is no valid one."""
    vr = rule.vr if rule else VR_OF.get(tag) or (attribute.get("vr") if isinstance(attribute, dict) else None)
    if not isinstance(vr, str) or vr not in REPRESENTATIONS:
        return None
    corrected = value_corrections.corrected(attribute, vr)
    return corrected if corrected and value_fault(corrected[0], tag, rule) is None else None


def _is_hollow(item: DataSet, contents: Contents) -> bool:
    """True for an item without elements, or with only empty ones if the table requires values in it."""
    needs_values = contents.update.valued or contents.update.conditional
    return all(map(is_empty, item.values())) if needs_values else not item


def _is_tag(tag: Any) -> bool:
    """True for tags of data sets; not for groups 0000 to 0007 (commands, files, directories) and FFFE (items)."""
    return tag in VR_OF or (
        isinstance(tag, str) and _TAG.fullmatch(tag) is not None and "00080000" <= tag < "FFFE0000"
    )
