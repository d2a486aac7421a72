# SPDX-License-Identifier: AGPL-3.0-or-later
"""Placeholders in the values of a rule: ``{Keyword}`` is replaced by an attribute of the cause.

- ``{Sequence.Keyword}`` is an attribute in the items of a sequence; ``{CallingAet}`` and ``{Origin}`` are those of
  the cause.
- A text that consists of ``{Keyword}`` alone becomes the whole attribute: all values, or the items of a sequence.
- ``{{`` and ``}}`` are braces. An attribute that the cause does not have is replaced by nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ..management.keyword_form import tag_of, vr_of
from .causes import Cause, values_of
from .conditions import attribute_path

_PART: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")
_WHOLE: Final = re.compile(r"\{([^{}]+)\}")
OF_CAUSE: Final = ("CallingAet", "Origin")
_LONGEST: Final = {"AE": 16, "CS": 16, "LO": 64, "SH": 16, "PN": 64, "ST": 1024, "LT": 10_240}


def names_in(value: object) -> Iterator[str]:
    """The names in braces anywhere in a value."""
    if isinstance(value, str):
        yield from (part[1] for part in _PART.finditer(value) if part[1] is not None)
    elif isinstance(value, Mapping):
        for member in value.values():
            yield from names_in(member)
    elif isinstance(value, (list, tuple)):
        for member in value:
            yield from names_in(member)


def has_single_brace(value: object) -> bool:
    """True if a value has a brace without its counterpart."""
    if isinstance(value, str):
        return not {"{", "}"}.isdisjoint(_PART.sub("", value))
    if isinstance(value, Mapping):
        return any(map(has_single_brace, value.values()))
    return isinstance(value, (list, tuple)) and any(map(has_single_brace, value))


def check_name(name: str, *, of_images: bool) -> None:
    """Raise LookupError for a placeholder that is not a keyword, InvalidRuleValue for a path without a sequence."""
    if name in OF_CAUSE and of_images:
        return
    attribute_path(name)


def filled(keyword: str, value: object, cause: Cause) -> Any:
    """A value with its placeholders replaced, also in items of sequences; truncated to the length of its VR."""
    if isinstance(value, (list, tuple)):
        return [filled(keyword, member, cause) for member in value]
    if isinstance(value, Mapping):
        return {name: filled(str(name), member, cause) for name, member in value.items()}
    if not isinstance(value, str):
        return value
    whole = _WHOLE.fullmatch(value)
    if whole is not None and whole[1] not in OF_CAUSE:
        return _attribute(whole[1], cause)
    longest = _LONGEST.get(vr_of(tag_of(keyword) or ""))
    text = _PART.sub(lambda part: _replacement(part, cause), value).strip()
    return text[:longest] if longest else text


def _replacement(part: re.Match[str], cause: Cause) -> str:
    if part[1] is None:
        return part[0][0]
    if part[1] == "CallingAet":
        return cause.calling_ae
    if part[1] == "Origin":
        return cause.origin
    values = values_of(cause.content, attribute_path(part[1]))
    return str(values[0]) if values and not isinstance(values[0], Mapping) else ""


def _attribute(name: str, cause: Cause) -> Any:
    values = values_of(cause.content, attribute_path(name))
    return values[0] if len(values) == 1 else values or ""


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Make ``Sequence.Keyword`` an attribute of the sequence's single item."""
    content = {key: value for key, value in flat.items() if "." not in key}
    below: dict[str, dict[str, Any]] = {}
    for key, value in flat.items():
        name, dot, rest = key.partition(".")
        if dot:
            below.setdefault(name, {})[rest] = value
    for name, inner in below.items():
        present = content.get(name)
        first = present[0] if isinstance(present, list) and present else present
        content[name] = {**(first if isinstance(first, Mapping) else {}), **nested(inner)}
    return content
