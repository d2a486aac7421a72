# SPDX-License-Identifier: AGPL-3.0-or-later
"""Data sets as people write them: keywords and plain values.

``{"PatientName": "Doe^Jane", "ScheduledWorkitemCodeSequence": [{"CodeValue": "110005", …}]}``

- A name is a keyword of PS3.6 or 8 hex digits; an element of the DICOM JSON model (with ``vr``) is taken as it is.
- ``null``, ``""`` and ``[]`` are an empty element; a list holds several values; one item needs no list.
- A person name is a text ``Alphabetic=Ideographic=Phonetic``, or an object with these groups.
- Numbers of text VRs (DS, IS) may be numbers; as text they keep their digits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from ..codecs import attribute_names
from ..codecs.attribute_names import UnknownAttribute
from ..codecs.corrections import Corrections
from ..codecs.element_values import Number, inner_values
from ..core.dataset import BINARY_VRS, DataSet, Element, element, is_empty, ordered
from ..core.dictionary import KEYWORD_OF, TAG_OF, VR_OF
from ..core.person_names import GROUPS
from ..core.statuses import INVALID_VALUE, NO_SUCH_ATTRIBUTE, UpsError
from ..core.value_rules import DEEPEST

_HEX: Final = re.compile(r"\(?([0-9A-Fa-f]{4}),?([0-9A-Fa-f]{4})\)?")


def to_data_set(content: object, where: str = "", corrections: Corrections | None = None) -> DataSet:
    """Read a data set. ``where`` stands before names in errors.

    ``corrections`` notes what is read otherwise than it stands; without, nothing is.

    Raises:
        UpsError: 0105 for a name that is none, 0106 for a value of the wrong kind.
    """
    return _Reader(corrections).data_set(content, where, DEEPEST)


class _Reader:
    """Turns names and plain values into data sets."""

    def __init__(self, corrections: Corrections | None) -> None:
        self._corrections = corrections

    def data_set(self, content: object, where: str, deepest: int) -> DataSet:
        if not isinstance(content, Mapping):
            raise UpsError(
                INVALID_VALUE, f"{where or 'attributes'} must be an object of attributes by keyword"
            )
        if deepest < 0:
            raise UpsError(INVALID_VALUE, f"sequences are nested too deeply: at most {DEEPEST}")
        made: DataSet = {}
        for name, given in content.items():
            tag = tag_of(str(name))
            if tag is None:
                raise UpsError(
                    NO_SUCH_ATTRIBUTE, f"{_joined(where, str(name))} is not a keyword of the DICOM dictionary"
                )
            made[tag] = self._element(given, tag, _joined(where, str(name)), deepest)
        return ordered(made)

    def _element(self, given: object, tag: str, where: str, deepest: int) -> Element:
        if isinstance(given, Mapping) and isinstance(given.get("vr"), str):
            return self._dicom_json(given, tag, where, deepest)
        return self._of_vr(vr_of(tag), given, tag, where, deepest)

    def _dicom_json(self, given: Mapping[str, Any], tag: str, where: str, deepest: int) -> Element:
        if given["vr"] in BINARY_VRS:
            return {"vr": given["vr"], **{key: given[key] for key in ("InlineBinary",) if given.get(key)}}
        return self._of_vr(given["vr"], given.get("Value"), tag, where, deepest)

    def _of_vr(self, vr: str, given: object, tag: str, where: str, deepest: int) -> Element:
        if given is None or given == "" or given == []:
            return element(vr)
        several = given if isinstance(given, list) else [given]
        if vr == "SQ":
            return element(vr, *(self.data_set(one, where, deepest - 1) for one in several))
        if vr in BINARY_VRS:
            raise UpsError(INVALID_VALUE, f"{where} is binary; use the DICOM JSON model", tag)
        listed = [_value(vr, one, where, tag) for one in several]
        return element(vr, *(listed if vr == "PN" else inner_values(vr, listed, tag, self._corrections)))


def _joined(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _value(vr: str, one: object, where: str, tag: str) -> Any:
    if vr == "PN":
        return _name(one, where, tag)
    if isinstance(one, (bool, Mapping, list)):
        raise UpsError(INVALID_VALUE, f"{where} must be a string or a number", tag)
    if isinstance(one, float):
        short = f"{one:g}"
        text = short if float(short) == one else repr(one)
        return Number(text) if vr in ("DS", "FD", "IS") else text
    return str(one) if isinstance(one, int) else one


def _name(one: object, where: str, tag: str) -> dict[str, str]:
    if isinstance(one, str):
        parts = one.split("=")
        if len(parts) <= len(GROUPS):
            return {group: part for group, part in zip(GROUPS, parts, strict=False) if part}
    elif isinstance(one, Mapping) and one.keys() <= set(GROUPS):
        return {group: str(one[group]) for group in GROUPS if one.get(group)}
    raise UpsError(INVALID_VALUE, f"{where} must be a person name such as Family^Given", tag)


def to_keywords(dataset: DataSet) -> dict[str, Any]:
    """Write a data set in keywords; what has no keyword, and binary values, are left out."""
    return {
        keyword_of(tag): _plain(found)
        for tag, found in dataset.items()
        if keyword_of(tag) and found["vr"] not in BINARY_VRS
    }


def _plain(found: Element) -> Any:
    given = found.get("Value", [])
    if found["vr"] == "SQ":
        return [to_keywords(item) for item in given]
    shown = [name_text(one) if found["vr"] == "PN" else one for one in given]
    return None if is_empty(found) else shown[0] if len(shown) == 1 else shown


def name_text(name: object) -> str:
    """A person name as ``Alphabetic=Ideographic=Phonetic``, without empty groups at the end."""
    if not isinstance(name, Mapping):
        return ""
    return "=".join(name.get(group, "") for group in GROUPS).rstrip("=")


# --- names ---


@lru_cache(4096)
def tag_of(name: str) -> str | None:
    """The tag of a keyword or of hex digits, or None."""
    found = TAG_OF.get(name)
    if found:
        return found
    digits = _HEX.fullmatch(name)
    if digits:
        return (digits[1] + digits[2]).upper()
    try:
        return attribute_names.tag_of(name)
    except UnknownAttribute:
        return None


@lru_cache(4096)
def vr_of(tag: str) -> str:
    """The VR of a tag; UN if the dictionary does not know it."""
    return VR_OF.get(tag) or attribute_names.vr_of(tag) or "UN"


@lru_cache(4096)
def keyword_of(tag: str) -> str:
    """The keyword of a tag, or the empty string."""
    return KEYWORD_OF.get(tag) or attribute_names.keyword_of(tag)


@lru_cache(4096)
def name_of(tag: str) -> str:
    """The name of an attribute in words, as PS3.6 has it; tag in parentheses if it is unknown."""
    return attribute_names.name_of(tag) or f"({tag[:4]},{tag[4:]})"


def spelled(tag: str | None) -> str | None:
    """The path of an attribute at fault for an error: ``ScheduledStationNameCodeSequence.CodeValue``."""
    if tag is None:
        return None
    return ".".join(keyword_of(one) or f"({one[:4]},{one[4:]})" for one in tag.split("."))
