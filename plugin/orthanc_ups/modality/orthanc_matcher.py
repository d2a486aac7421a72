# SPDX-License-Identifier: AGPL-3.0-or-later
"""Answers to worklist queries in a form that Orthanc's own matcher leaves complete (seen on 1.12.7 and 1.13.0).

Orthanc matches each answer of a plugin again. If the query has a sequence with an item, Orthanc removes each item of
that sequence in the answer that does not match as text: the whole Scheduled Procedure Step would be gone because
``093000`` is not within ``-0930``, or because a name is requested without its accents. Such an attribute is answered in
the form of the query.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

from ..core.dataset import NAME_GROUPS, DataSet, Element, element, is_empty, items
from ..core.date_times import DATED_VRS
from ..core.person_names import fold
from ..core.wildcards import is_wild, wildcard_test

_Fits: TypeAlias = Callable[[str], bool]

_WITH_WILDCARDS: Final = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
_TIME_PRECISIONS: Final = (6, 4, 2)
_WILDCARDS: Final = re.compile(r"\*+")


def extractable(answer: DataSet, query: DataSet) -> DataSet:
    """An answer that matches the query, in a form from which Orthanc's matcher removes no matching item."""
    return _extractable(answer, query, fitting=True)


def _extractable(answer: DataSet, query: DataSet, *, fitting: bool) -> DataSet:
    """``fitting``: whether each item of its sequences is known to match, like the step of an answer."""
    return {
        tag: _items_as_asked(attribute, query_item, fitting=fitting)
        if (query_item := _item_of(query, tag))
        else attribute
        for tag, attribute in answer.items()
    }


def _items_as_asked(attribute: Element, query_item: DataSet, *, fitting: bool) -> Element:
    if attribute["vr"] != "SQ" or not attribute.get("Value"):
        return attribute
    return element("SQ", *(_item_as_asked(item, query_item, fitting=fitting) for item in attribute["Value"]))


def _item_as_asked(item: DataSet, query_item: DataSet, *, fitting: bool) -> DataSet:
    """The item in the form of the query; unchanged if it does not match. Empty sequences go: Orthanc matches none."""
    changed: DataSet = {}
    for tag, attribute in _extractable(item, query_item, fitting=False).items():
        if attribute["vr"] == "SQ":
            if attribute.get("Value") or not _item_of(query_item, tag):
                changed[tag] = attribute
            continue
        form = _as_asked(attribute, query_item.get(tag), fitting=fitting)
        if form is None:
            return item
        changed[tag] = form
    return changed


def _item_of(query: DataSet, tag: str) -> DataSet:
    return next(iter(items(query, tag)), {})


def _as_asked(attribute: Element, key: Element | None, *, fitting: bool) -> Element | None:
    """The attribute in a form that matches; None if it has no such form."""
    if key is None or is_empty(key):
        return attribute
    asked = [_written(value) for value in key["Value"]]
    fits = _test(attribute["vr"], asked)
    if fits(_joined(attribute)):
        return attribute
    values = [*_forms(attribute, asked)]
    if fitting or is_empty(attribute):
        values += _as_in_query(attribute["vr"], asked)
    forms = (element(attribute["vr"], value) for value in values)
    return next((form for form in forms if fits(_joined(form))), None)


def _joined(attribute: Element) -> str:
    return "\\".join(_written(value) for value in attribute.get("Value", ()))


def _written(value: Any) -> str:
    """A value as Orthanc compares it."""
    if isinstance(value, dict):
        return "=".join(str(value.get(group) or "") for group in NAME_GROUPS).rstrip("=")
    return "" if value is None else str(value).strip(" ")


def _name(text: str) -> dict[str, str]:
    return {group: part for group, part in zip(NAME_GROUPS, text.split("="), strict=False) if part}


# --- how Orthanc matches ---


def _test(vr: str, asked: list[str]) -> _Fits:
    if vr == "PN":
        upper = _text_test(vr, [text.upper() for text in asked])
        return lambda text: upper(text.upper())
    return _text_test(vr, asked)


def _text_test(vr: str, asked: list[str]) -> _Fits:
    if len(asked) > 1:
        return asked.__contains__
    [key] = asked
    if vr in DATED_VRS and "-" in key:
        low, _, high = key.partition("-")
        return lambda text: (not low or text >= low) and (not high or text <= high)
    return wildcard_test(key) if vr in _WITH_WILDCARDS and is_wild(key) else key.__eq__


# --- other forms of values that match in this plugin ---


def _forms(attribute: Element, asked: list[str]) -> Iterator[Any]:
    """Other forms of each value, the most complete first."""
    vr = attribute["vr"]
    for value in attribute.get("Value", ()):
        yield value
        if vr == "TM":
            yield from (str(value)[:digits] for digits in _TIME_PRECISIONS)
        elif vr == "AE":
            yield from (title for title in asked if title.upper() == str(value).strip().upper())
        elif vr == "PN" and isinstance(value, dict):
            yield from _names(value, asked)


def _as_in_query(vr: str, asked: list[str]) -> Iterator[Any]:
    """The values of the query as values of an answer: a bound of a range, a text without its wildcards."""
    for text in asked:
        for form in text.split("-") if vr in DATED_VRS else (_WILDCARDS.sub("", text), text):
            if form.strip():
                yield _name(form) if vr == "PN" else form.replace("?", "_")


def _names(name: dict[str, Any], asked: list[str]) -> Iterator[dict[str, str]]:
    for index, group in enumerate(NAME_GROUPS):
        text = str(name.get(group) or "")
        if not text:
            continue
        for form in (text, _without_accents(text), *_begun_as_asked(text, asked)):
            yield {group: form}
            if index:
                yield {NAME_GROUPS[0]: form}


def _without_accents(text: str) -> str:
    return "".join(
        letter for letter in unicodedata.normalize("NFD", text) if not unicodedata.combining(letter)
    )


def _begun_as_asked(text: str, asked: list[str]) -> Iterator[str]:
    """The name with its first letters spelled as in a key such as ``Müll*``."""
    for key in asked:
        begin = key.removesuffix("*")
        if not is_wild(begin) and fold(text[: len(begin)]) == fold(begin):
            yield begin + text[len(begin) :]
