# SPDX-License-Identifier: AGPL-3.0-or-later
"""Data sets in keyword form: keywords and plain values.

``{"PatientName": "Doe^Jane", "ScheduledWorkitemCodeSequence": [{"CodeValue": "110005", …}]}``

- A name is a keyword of PS3.6 or 8 hex digits. An element of the DICOM JSON model (with ``vr``) is accepted as it is.
- ``null``, ``""`` and ``[]`` are an empty element; a list has several values; a single item needs no list.
- A person name is a text ``Alphabetic=Ideographic=Phonetic``, or an object with these groups.
- Values of DS and IS may be numbers; as text they keep their digits.
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
from ..core.dataset import BINARY_VRS, NAME_GROUPS, DataSet, Element, element, is_empty, ordered
from ..core.dictionary import KEYWORD_OF, TAG_OF, VR_OF
from ..core.statuses import INVALID_VALUE, NO_SUCH_ATTRIBUTE, UpsError
from ..core.value_rules import DEEPEST

_HEX: Final = re.compile(r"\(?([0-9A-Fa-f]{4}),?([0-9A-Fa-f]{4})\)?")


def to_data_set(content: object, where: str = "", corrections: Corrections | None = None) -> DataSet:
    """Read a data set.

    Args:
        content: an object of attributes by keyword.
        where: precedes names in errors.
        corrections: values are corrected and the corrections recorded here; None to correct nothing.

    Raises:
        UpsError: 0105 for an unknown name, 0106 for a value of the wrong kind.
    """
    return _Reader(corrections).data_set(content, where, DEEPEST)


class _Reader:
    """Converts names and plain values into data sets."""

    def __init__(self, corrections: Corrections | None) -> None:
        self._corrections = corrections

    def data_set(self, content: object, where: str, deepest: int) -> DataSet:
        if not isinstance(content, Mapping):
            raise UpsError(
                INVALID_VALUE, f"{where or 'attributes'} must be an object of attributes by keyword"
            )
        if deepest < 0:
            raise UpsError(INVALID_VALUE, f"sequences are nested too deeply: at most {DEEPEST}")
        attributes: DataSet = {}
        for name, plain in content.items():
            tag = tag_of(str(name))
            if tag is None:
                raise UpsError(
                    NO_SUCH_ATTRIBUTE, f"{_joined(where, str(name))} is not a keyword of the DICOM dictionary"
                )
            attributes[tag] = self._element(plain, tag, _joined(where, str(name)), deepest)
        return ordered(attributes)

    def _element(self, plain: object, tag: str, where: str, deepest: int) -> Element:
        if isinstance(plain, Mapping) and isinstance(plain.get("vr"), str):
            return self._dicom_json(plain, tag, where, deepest)
        return self._of_vr(vr_of(tag), plain, tag, where, deepest)

    def _dicom_json(self, plain: Mapping[str, Any], tag: str, where: str, deepest: int) -> Element:
        if plain["vr"] in BINARY_VRS:
            return {"vr": plain["vr"], **{key: plain[key] for key in ("InlineBinary",) if plain.get(key)}}
        return self._of_vr(plain["vr"], plain.get("Value"), tag, where, deepest)

    def _of_vr(self, vr: str, plain: object, tag: str, where: str, deepest: int) -> Element:
        if plain is None or plain == "" or plain == []:
            return element(vr)
        values = plain if isinstance(plain, list) else [plain]
        if vr == "SQ":
            return element(vr, *(self.data_set(value, where, deepest - 1) for value in values))
        if vr in BINARY_VRS:
            raise UpsError(INVALID_VALUE, f"{where} is binary; use the DICOM JSON model", tag)
        listed = [_value(vr, value, where, tag) for value in values]
        return element(vr, *(listed if vr == "PN" else inner_values(vr, listed, tag, self._corrections)))


def _joined(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _value(vr: str, value: object, where: str, tag: str) -> Any:
    if vr == "PN":
        return _name(value, where, tag)
    if isinstance(value, (bool, Mapping, list)):
        raise UpsError(INVALID_VALUE, f"{where} must be a string or a number", tag)
    if isinstance(value, float):
        short = f"{value:g}"
        text = short if float(short) == value else repr(value)
        return Number(text) if vr in ("DS", "FD", "IS") else text
    return str(value) if isinstance(value, int) else value


def _name(value: object, where: str, tag: str) -> dict[str, str]:
    if isinstance(value, str):
        parts = value.split("=")
        if len(parts) <= len(NAME_GROUPS):
            return {group: part for group, part in zip(NAME_GROUPS, parts, strict=False) if part}
    elif isinstance(value, Mapping) and value.keys() <= set(NAME_GROUPS):
        return {group: str(value[group]) for group in NAME_GROUPS if value.get(group)}
    raise UpsError(INVALID_VALUE, f"{where} must be a person name such as Family^Given", tag)


def to_keywords(dataset: DataSet) -> dict[str, Any]:
    """A data set in keyword form, without attributes that have no keyword, and without binary values."""
    return {
        keyword_of(tag): _plain(attribute)
        for tag, attribute in dataset.items()
        if keyword_of(tag) and attribute["vr"] not in BINARY_VRS
    }


def _plain(attribute: Element) -> Any:
    values = attribute.get("Value", [])
    if attribute["vr"] == "SQ":
        return [to_keywords(item) for item in values]
    texts = [name_text(value) if attribute["vr"] == "PN" else value for value in values]
    return None if is_empty(attribute) else texts[0] if len(texts) == 1 else texts


def name_text(name: object) -> str:
    """A person name as ``Alphabetic=Ideographic=Phonetic``, without trailing empty groups."""
    if not isinstance(name, Mapping):
        return ""
    return "=".join(name.get(group, "") for group in NAME_GROUPS).rstrip("=")


# --- names ---


@lru_cache(4096)
def tag_of(name: str) -> str | None:
    """The tag of a keyword or of hex digits, or None."""
    tag = TAG_OF.get(name)
    if tag:
        return tag
    digits = _HEX.fullmatch(name)
    if digits:
        return (digits[1] + digits[2]).upper()
    try:
        return attribute_names.tag_of(name)
    except UnknownAttribute:
        return None


@lru_cache(4096)
def vr_of(tag: str) -> str:
    """The VR of a tag; UN if the tag is not in the dictionary."""
    return VR_OF.get(tag) or attribute_names.vr_of(tag) or "UN"


@lru_cache(4096)
def keyword_of(tag: str) -> str:
    """The keyword of a tag, or the empty string."""
    return KEYWORD_OF.get(tag) or attribute_names.keyword_of(tag)


@lru_cache(4096)
def name_of(tag: str) -> str:
    """The name of an attribute in PS3.6; its tag in parentheses if it is unknown."""
    return attribute_names.name_of(tag) or f"({tag[:4]},{tag[4:]})"


def keyword_path(path: str | None) -> str | None:
    """A path of tags as keywords, for errors: ``ScheduledStationNameCodeSequence.CodeValue``."""
    if path is None:
        return None
    return ".".join(keyword_of(part) or f"({part[:4]},{part[4:]})" for part in path.split("."))
