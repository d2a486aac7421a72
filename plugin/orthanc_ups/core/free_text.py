# SPDX-License-Identifier: AGPL-3.0-or-later
"""Free-text search for people: every word must occur somewhere in what a person would look for.

Not part of DICOM: interfaces offer it beside the matching of PS3.4. An index stores ``searchable(attributes)`` and
looks for each of ``words(text)`` in it as a substring.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from . import tags
from .dataset import DataSet, items, text, values
from .person_names import GROUPS, fold

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
_MOST_REFERENCES: Final = 32


def words(text: str) -> tuple[str, ...]:
    """What to look for: the words of a text, as ``searchable`` spells them."""
    return tuple(fold(text.replace("^", " ")).split())


def searchable(attributes: DataSet) -> str:
    """One text per workitem: patient, labels, UIDs, accession numbers, stations, performers, and codes."""
    texts = dict.fromkeys(text.strip() for text in _texts(attributes) if text.strip())
    return "\n".join(fold(text.replace("^", " ")) for text in texts)


def fits(attributes: DataSet, folded_words: tuple[str, ...]) -> bool:
    """True if each of ``words`` occurs."""
    where = searchable(attributes) if folded_words else ""
    return all(word in where for word in folded_words)


def _texts(attributes: DataSet) -> Iterator[str]:
    yield from _names(attributes, tags.PATIENT_NAME)
    for tag in _TEXTS:
        yield text(attributes, tag)
    for tag in _CODES:
        yield from _codes(attributes, tag)
    for person in items(attributes, tags.HUMAN_PERFORMERS):
        yield from _names(person, _PERFORMER_NAME)
        yield from _codes(person, tags.HUMAN_PERFORMER_CODES)
    for sequence in _REFERENCES:
        for reference in items(attributes, sequence)[:_MOST_REFERENCES]:
            yield from (text(reference, tag) for tag in _OF_REFERENCE)


def _names(item: DataSet, tag: str) -> Iterator[str]:
    for name in values(item, tag):
        if isinstance(name, dict):
            yield from (name.get(group, "") for group in GROUPS)


def _codes(item: DataSet, tag: str) -> Iterator[str]:
    for code in items(item, tag):
        yield text(code, tags.CODE_VALUE)
        yield text(code, tags.CODE_MEANING)
