# SPDX-License-Identifier: AGPL-3.0-or-later
"""Free-text search for the page: every word must occur in the texts that people search for.

Not part of DICOM; offered beside the matching of PS3.4. An index stores ``searchable(attributes)`` and
looks for each of ``words(text)`` in it as a substring.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

from . import tags
from .dataset import NAME_GROUPS, DataSet, Element, items, text, values
from .interned import notes_of
from .person_names import fold

_TEXTS: Final = (
    tags.LABEL,
    tags.WORKLIST_LABEL,
    tags.PATIENT_ID,
    tags.SOP_INSTANCE_UID,
    "00380010",
    "0020000D",
)
_CODES: Final = (tags.STATION_NAME, "00404026", "00404027", tags.WORKITEM_CODE)
_REFERENCES: Final = ("00404021", "0040A370")
_OF_REFERENCE: Final = ("0020000D", "00080050", "00401001", "00321060")
_PERFORMER_NAME: Final = "00404037"
_MAXIMUM_REFERENCES: Final = 32


def words(text: str) -> tuple[str, ...]:
    """The words of a search text, folded as in ``searchable``."""
    return tuple(fold(text.replace("^", " ")).split())


def searchable(attributes: DataSet) -> str:
    """The text of a workitem: patient, labels, UIDs, accession numbers, stations, performers, and codes."""
    texts = _folded(_of_workitem(attributes))
    for tag, texts_of in _SEQUENCES.items():
        if tag in attributes:
            texts += _of_sequence(attributes[tag], tag, texts_of)
    return "\n".join(dict.fromkeys(texts))


def fits(attributes: DataSet, folded_words: tuple[str, ...]) -> bool:
    """True if each word, as returned by ``words``, occurs in the workitem."""
    content = searchable(attributes) if folded_words else ""
    return all(word in content for word in folded_words)


def _folded(texts: Iterable[str]) -> list[str]:
    return [fold(text.replace("^", " ")) for text in dict.fromkeys(map(str.strip, texts)) if text]


def _of_sequence(element: Element, tag: str, texts_of: Callable[[list[DataSet]], Iterator[str]]) -> list[str]:
    """The searchable text of a sequence; computed once for an interned one."""
    notes = notes_of(element)
    if notes is None:
        return _folded(texts_of(_items(element)))
    texts: list[str] | None = notes.get(("searchable", tag))
    if texts is None:
        texts = notes["searchable", tag] = _folded(texts_of(_items(element)))
    return texts


def _items(element: Element) -> list[DataSet]:
    return [item for item in element.get("Value", ()) if isinstance(item, dict)]


def _of_workitem(attributes: DataSet) -> Iterator[str]:
    yield from _names(attributes, tags.PATIENT_NAME)
    for tag in _TEXTS:
        yield text(attributes, tag)


def _of_performers(performers: list[DataSet]) -> Iterator[str]:
    for person in performers:
        yield from _names(person, _PERFORMER_NAME)
        yield from _of_codes(items(person, tags.HUMAN_PERFORMER_CODES))


def _of_references(references: list[DataSet]) -> Iterator[str]:
    for reference in references[:_MAXIMUM_REFERENCES]:
        yield from (text(reference, tag) for tag in _OF_REFERENCE)


def _of_codes(codes: list[DataSet]) -> Iterator[str]:
    for code in codes:
        yield text(code, tags.CODE_VALUE)
        yield text(code, tags.CODE_MEANING)


def _names(item: DataSet, tag: str) -> Iterator[str]:
    for name in values(item, tag):
        if isinstance(name, dict):
            yield from (name.get(group, "") for group in NAME_GROUPS)


_SEQUENCES: Final[Mapping[str, Callable[[list[DataSet]], Iterator[str]]]] = MappingProxyType(
    {
        **dict.fromkeys(_CODES, _of_codes),
        tags.HUMAN_PERFORMERS: _of_performers,
        **dict.fromkeys(_REFERENCES, _of_references),
    }
)
