# SPDX-License-Identifier: AGPL-3.0-or-later
"""The internal form of a data set: the DICOM JSON model (PS3.18 Annex F) as plain Python values.

A data set maps 8 upper-case hex digits to ``{"vr": "CS", "Value": [...]}``, ascending by tag:

- an empty element has only ``vr``; an empty value among others is ``None``;
- text VRs hold ``str``; DS and IS hold ``str`` too, exactly as written (``"1.50"``), so nothing is rounded;
- US SS UL SL SV UV hold ``int``; FL FD hold ``float`` or ``"NaN"``, ``"Infinity"``, ``"-Infinity"``;
- AT holds 8 hex digits; PN holds ``{"Alphabetic": str, "Ideographic": str, "Phonetic": str}`` (absent if empty);
- SQ holds data sets; OB OW OD OF OL OV UN hold ``"InlineBinary"`` (base64) instead of ``Value``;
- group length elements and (0008,0005) are never in it: text is Unicode, and the interfaces encode it.

Data sets are shared freely and **never changed in place**.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

Element: TypeAlias = dict[str, Any]
DataSet: TypeAlias = dict[str, Element]

BINARY_VRS: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
INTEGER_VRS: Final = frozenset({"SL", "SS", "SV", "UL", "US", "UV"})
FLOAT_VRS: Final = frozenset({"FD", "FL"})
SINGLE_TEXT_VRS: Final = frozenset({"LT", "ST", "UR", "UT"})
"""VRs with a single value, in which a backslash is an ordinary character (PS3.5 §6.2)."""
NAME_GROUPS: Final = ("Alphabetic", "Ideographic", "Phonetic")
"""The component groups of a PN value, in the order in which ``=`` separates them as text (PS3.5 §6.2)."""


def element(vr: str, *values: Any) -> Element:
    """Build an element; without values it is empty."""
    return {"vr": vr, "Value": list(values)} if values else {"vr": vr}


def values(dataset: DataSet, tag: str) -> list[Any]:
    """All values of an attribute; an absent or empty one has none."""
    attribute = dataset.get(tag)
    return attribute.get("Value", []) if attribute else []


def value(dataset: DataSet, tag: str) -> Any:
    """The first value of an attribute, or None."""
    attribute = dataset.get(tag)
    listed = attribute.get("Value") if attribute else None
    return listed[0] if listed else None


def text(dataset: DataSet, tag: str) -> str:
    """The first value of a text attribute, or the empty string."""
    content = value(dataset, tag)
    return content if isinstance(content, str) else ""


def plain(content: Any) -> str:
    """A text in the form that is compared: without padding, in Unicode NFC; empty for anything but text."""
    if not isinstance(content, str):
        return ""
    stripped = content.strip(" \0")
    return stripped if stripped.isascii() else unicodedata.normalize("NFC", stripped)


def items(dataset: DataSet, tag: str) -> list[DataSet]:
    """The items of a sequence; an absent or empty one has none."""
    return [item for item in values(dataset, tag) if isinstance(item, dict)]


def is_empty(attribute: Element | None) -> bool:
    """True if an element is absent, has no value, or has only empty values."""
    if not attribute:
        return True
    if attribute.get("InlineBinary"):
        return False
    if attribute["vr"] == "SQ":
        return not attribute.get("Value")
    return all(value is None or value == "" or value == {} for value in attribute.get("Value", ()))


def ordered(dataset: DataSet) -> DataSet:
    """The same data set with its tags ascending (sequence items are left as they are)."""
    return dict(sorted(dataset.items()))


def patched(dataset: DataSet, changes: Mapping[str, Element | None]) -> DataSet:
    """The data set with elements replaced, added, or (None) removed; the same object if there are no changes."""
    if not changes:
        return dataset
    merged = {**dataset, **changes}
    return ordered({tag: attribute for tag, attribute in merged.items() if attribute is not None})


def walk(dataset: DataSet, path: str = "") -> Iterator[tuple[str, Element]]:
    """Every element with its path (tags joined by ``.``), depth first, sequence items included."""
    for tag, attribute in dataset.items():
        attribute_path = f"{path}.{tag}" if path else tag
        yield attribute_path, attribute
        if attribute.get("vr") == "SQ":
            for item in items(dataset, tag):
                yield from walk(item, attribute_path)
