# SPDX-License-Identifier: AGPL-3.0-or-later
"""Keywords, tags, names and VRs of attributes (PS3.6), including some that are newer than pydicom's dictionary."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from functools import cache, lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple

from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import dictionary_description, dictionary_VR, keyword_for_tag, tag_for_keyword

from ..core.dictionary import VR_OF
from ..core.representations import REPRESENTATIONS
from ..core.tags import is_private, is_private_creator

_HEX: Final = re.compile(r"[0-9A-Fa-f]{8}")
_ANY_TAG: Final = re.compile(r"\(?(?:0x)?([0-9A-Fa-f]{4})[,x]?([0-9A-Fa-f]{4})\)?")
_CACHE_SIZE: Final = 4096


class _Entry(NamedTuple):
    vr: str
    name: str

    @property
    def keyword(self) -> str:
        """The name without spaces, each word capitalized, as keywords are formed in PS3.6."""
        return "".join(word[0].upper() + word[1:] for word in self.name.split())


_NEWER: Final[Mapping[str, _Entry]] = MappingProxyType(
    {
        # Supplement 233, Patient Model Gender Harmonization
        "00100011": _Entry("SQ", "Person Names to Use Sequence"),
        "00100012": _Entry("LT", "Name to Use"),
        "00100013": _Entry("UT", "Name to Use Comment"),
        "00100014": _Entry("SQ", "Third Person Pronouns Sequence"),
        "00100015": _Entry("SQ", "Pronoun Code Sequence"),
        "00100016": _Entry("UT", "Pronoun Comment"),
        "00100041": _Entry("SQ", "Gender Identity Sequence"),
        "00100042": _Entry("UT", "Sex Parameters for Clinical Use Category Comment"),
        "00100043": _Entry("SQ", "Sex Parameters for Clinical Use Category Sequence"),
        "00100044": _Entry("SQ", "Gender Identity Code Sequence"),
        "00100045": _Entry("UT", "Gender Identity Comment"),
        "00100046": _Entry("SQ", "Sex Parameters for Clinical Use Category Code Sequence"),
        "00100047": _Entry("UR", "Sex Parameters for Clinical Use Category Reference"),
    }
)
_NEWER_TAGS: Final = MappingProxyType({entry.keyword: tag for tag, entry in _NEWER.items()})


class UnknownAttribute(LookupError):
    """The name is neither a keyword of the data dictionary nor 8 hexadecimal digits."""


@lru_cache(_CACHE_SIZE)
def tag_of(name: str) -> str:
    """The tag (8 upper-case hex digits) of a keyword or of 8 hex digits. Raises UnknownAttribute."""
    if _HEX.fullmatch(name):
        return name.upper()
    number = tag_for_keyword(name) if name.isascii() and name.isalnum() else None
    tag = _NEWER_TAGS.get(name) if number is None else f"{number:08X}"
    if tag is None:
        raise UnknownAttribute(name)
    return tag


@lru_cache(_CACHE_SIZE)
def tag_in_any_case(name: str) -> str:
    """Like ``tag_of``, without regard to the case of the keyword. Raises UnknownAttribute."""
    try:
        return tag_of(name)
    except UnknownAttribute:
        keyword = _keywords_in_lower_case().get(name.lower())
        if keyword is None:
            raise
        return tag_of(keyword)


@cache
def _keywords_in_lower_case() -> Mapping[str, str]:
    keywords = [entry[4] for entry in DicomDictionary.values() if entry[4]]
    return {keyword.lower(): keyword for keyword in [*keywords, *_NEWER_TAGS]}


def tag_of_name(name: str) -> str | None:
    """The tag that a keyword in any case, ``(0010,0020)``, ``0010,0020`` or ``0x00100020`` means, or None."""
    digits = _ANY_TAG.fullmatch(name.strip())
    if digits:
        return (digits[1] + digits[2]).upper()
    try:
        return tag_in_any_case(name.strip())
    except UnknownAttribute:
        return None


@lru_cache(_CACHE_SIZE)
def public_vr(tag: str) -> str | None:
    """The VR of a public tag in PS3.6, such as ``US or SS``; None if the dictionary does not know the tag."""
    if tag in _NEWER:
        return _NEWER[tag].vr
    try:
        return dictionary_VR(int(tag, 16))
    except KeyError:
        return None


@lru_cache(_CACHE_SIZE)
def vr_of(tag: str) -> str | None:
    """The VR of a tag, the first one if PS3.6 allows several; None if the dictionary does not know the tag."""
    if is_private(tag):
        return "LO" if is_private_creator(tag) else None
    vr = public_vr(tag)
    return vr.split(" ")[0] if vr else None


@lru_cache(_CACHE_SIZE)
def right_vr(tag: str, vr: str) -> str:
    """The VR by which to read an element that has ``vr``: that of the dictionary if ``vr`` is UN or not a VR."""
    if vr.upper() in REPRESENTATIONS and vr != "UN":
        return vr.upper()
    return VR_OF.get(tag) or vr_of(tag) or vr


@lru_cache(_CACHE_SIZE)
def keyword_of(tag: str) -> str:
    """The keyword of a tag, or the empty string."""
    if tag in _NEWER:
        return _NEWER[tag].keyword
    return "" if is_private(tag) else keyword_for_tag(int(tag, 16))


@lru_cache(_CACHE_SIZE)
def name_of(tag: str) -> str:
    """The name of an attribute in PS3.6, such as "Patient's Name", or the empty string."""
    if tag in _NEWER:
        return _NEWER[tag].name
    try:
        return dictionary_description(int(tag, 16))
    except KeyError:
        return ""


def similar(name: str) -> str:
    """The keyword that resembles a name most, or the empty string."""
    lowered = _keywords_in_lower_case()
    close = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.75)
    return lowered[close[0]] if close else ""
