# SPDX-License-Identifier: AGPL-3.0-or-later
"""What well-meaning senders write otherwise than DICOM does, and how it is read all the same.

Every reader of a data set (JSON, XML, DIMSE) uses this for the requests whose answer can tell of it. A value is
corrected only if it is not valid as it stands and is valid once corrected; all else is left to the rules of the
core, which refuse it by name. Matching keys and arguments are never corrected.
"""

from __future__ import annotations

import math
import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from pydicom.valuerep import format_number_as_ds

from ..core.dataset import BINARY_VRS, Element
from ..core.dictionary import VR_OF
from ..core.refusals import spelled
from ..core.representations import REPRESENTATIONS
from ..core.rules import RULES
from .attribute_names import UnknownAttribute, public_vr, tag_of
from .encoded_values import NAME_GROUPS, NUMBER_CODES, SINGLE_TEXT_VRS, name_of_text, values_of

SIBLING_VRS: Final = frozenset({"LO", "LT", "SH", "ST", "UC", "UR", "UT"})
"""VRs of free text, which the rules of the core take for one another."""

_UTF_8: Final = ("utf_8",)
_PADDING: Final = " \0\t\r\n"
_SHORT: Final = 64  # characters of a text whose validity is worth remembering
_MOST_SENTENCES: Final = 50
_TAG: Final = re.compile(r"\(?(?:0x)?([0-9A-Fa-f]{4})[,x]?([0-9A-Fa-f]{4})\)?")
_FORMER_VRS: Final = frozenset((rule.tag, rule.former_vr) for rule in RULES.values() if rule.former_vr)


class Corrections:
    """Notes what was corrected while one data set was read, a sentence each.

    Attributes:
        lenient: False where ``Ups.Strict`` holds: then only rounding is noted, and nothing else is corrected.
    """

    def __init__(self, *, lenient: bool = True) -> None:
        self.lenient = lenient
        self._sentences: dict[str, None] = {}

    @property
    def sentences(self) -> tuple[str, ...]:
        """Each names the attribute and holds no value of it."""
        said = tuple(self._sentences)
        if len(said) <= _MOST_SENTENCES:
            return said
        return (*said[:_MOST_SENTENCES], f"{len(said) - _MOST_SENTENCES} more corrections")

    def note(self, path: str, what: str) -> None:
        """``path`` is the attribute, as tags joined by dots; ``what`` goes on behind its name."""
        *above, tag = path.split(".")
        inside = "".join(f", in {spelled(one)}" for one in reversed(above))
        self.say(f"{spelled(tag)} {what}{inside}")

    def say(self, sentence: str) -> None:
        """A correction that is about no single attribute."""
        self._sentences[sentence] = None


# --- names and VRs ----------------------------------------------------------------------------------


def tag_of_name(name: str) -> str | None:
    """The tag that a keyword, ``(0010,0020)``, ``0010,0020`` or ``0x00100020`` means, or None."""
    digits = _TAG.fullmatch(name.strip())
    if digits:
        return (digits[1] + digits[2]).upper()
    try:
        return tag_of(name.strip())
    except UnknownAttribute:
        return None


@lru_cache(4096)
def right_vr(tag: str, vr: str) -> str:
    """The VR that an element should have which came with ``vr``: the same where the rules of the core take it."""
    if int(tag[3], 16) % 2:
        return vr if vr in REPRESENTATIONS else vr.upper()
    allowed = _allowed(tag)
    if not allowed or vr in allowed or (tag, vr) in _FORMER_VRS:
        return vr
    if vr.upper() in allowed:
        return vr.upper()
    if vr in REPRESENTATIONS and vr != "UN" and (tag not in VR_OF or {vr, allowed[0]} <= SIBLING_VRS):
        return vr
    return allowed[0]


def _allowed(tag: str) -> tuple[str, ...]:
    vr = VR_OF.get(tag) or public_vr(tag)
    return tuple(vr.split(" or ")) if vr else ()


# --- values -----------------------------------------------------------------------------------------


def is_usual(vr: str, one: Any) -> bool:
    """True for an empty value and for one that is valid in the inner form."""
    if type(one) is str and len(one) <= _SHORT:
        return _is_usual_text(vr, one)
    return one is None or one == "" or (vr in REPRESENTATIONS and REPRESENTATIONS[vr].valid(one))


@lru_cache(8192)
def _is_usual_text(vr: str, one: str) -> bool:
    """The same codes, dates and UIDs come again and again."""
    return one == "" or (vr in REPRESENTATIONS and REPRESENTATIONS[vr].valid(one))


def are_usual(vr: str, listed: list[Any]) -> bool:
    """True if every value is."""
    for one in listed:  # noqa: SIM110  # in the path of every N-CREATE
        if not is_usual(vr, one):
            return False
    return True


def corrected(vr: str, listed: list[Any], path: str, corrections: Corrections) -> list[Any]:
    """Values of any VR but SQ in the inner form; what is not usual is corrected, if it can be."""
    if are_usual(vr, listed):
        return listed
    split = [part for one in listed for part in _split(vr, one)]
    mended = [one if is_usual(vr, one) else _mended(vr, one) for one in split]
    if not all(is_usual(vr, one) for one in mended):
        return listed
    if len(split) > len(listed):
        corrections.note(path, "had several values in one text")
    if any(_differs(one, before) and vr in _WORDS for one, before in zip(mended, split, strict=True)):
        corrections.note(path, _WORDS[vr])
    return mended


def _differs(one: Any, before: Any) -> bool:
    """Padding is no content."""
    return bool(one != (before.strip(_PADDING) if isinstance(before, str) else before))


def _split(vr: str, one: Any) -> list[Any]:
    if isinstance(one, str) and "\\" in one and vr not in SINGLE_TEXT_VRS:
        return [part.strip(" \0") or None for part in one.split("\\")]
    return [one]


def _mended(vr: str, one: Any) -> Any:
    mend = _MENDERS.get(vr)
    if mend is None:
        return one
    if vr == "PN":
        return mend(one)
    return mend(str(one).strip(_PADDING)) if isinstance(one, str) else one


def _shortened(text: str) -> str:
    try:
        value = float(text)
    except ValueError:
        return text
    return format_number_as_ds(value) if math.isfinite(value) else text


def _whole(text: str) -> str:
    try:
        value = float(text)
    except ValueError:
        return text
    return str(int(value)) if value.is_integer() and abs(value) < 2**31 else text


_ISO_DATE: Final = re.compile(r"(\d{4})([-./])(\d{2})\2(\d{2})")
_ISO_TIME: Final = re.compile(r"(\d{2}):(\d{2})(?::(\d{2})(?:\.(\d+))?)?")
_ISO_DATE_TIME: Final = re.compile(
    r"(?P<date>\d{4}-?\d{2}-?\d{2})(?:[T ]?(?P<time>\d{2}:?\d{2}(?::?\d{2})?)(?:[.,](?P<fraction>\d+))?)?"
    r" ?(?P<offset>Z|[+-]\d{2}(?::?\d{2})?)?"
)
_AGE: Final = re.compile(r"(\d{1,3}) ?([DWMYdwmy])")


def _date(text: str) -> str:
    found = _ISO_DATE.fullmatch(text)
    return f"{found[1]}{found[3]}{found[4]}" if found else text


def _time(text: str) -> str:
    found = _ISO_TIME.fullmatch(text)
    if not found:
        return text
    return f"{found[1]}{found[2]}{found[3] or ''}" + (f".{found[4][:6]}" if found[4] else "")


def _date_time(text: str) -> str:
    found = _ISO_DATE_TIME.fullmatch(text)
    if not found:
        return text
    fraction, offset = found["fraction"], (found["offset"] or "").replace(":", "")
    offset = "+0000" if offset in ("Z", "-0000", "-00") else offset.ljust(5, "0") if offset else ""
    whole = found["date"].replace("-", "") + (found["time"] or "").replace(":", "")
    return whole + (f".{fraction[:6]}" if fraction else "") + offset


def _age(text: str) -> str:
    found = _AGE.fullmatch(text)
    return f"{int(found[1]):03}{found[2].upper()}" if found else text


def _tag(text: str) -> str:
    return tag_of_name(text) or text


def _uid(text: str) -> str:
    return text[len("urn:oid:") :] if text.lower().startswith("urn:oid:") else text


def _line(text: str) -> str:
    return re.sub(r"[\t\r\n\f]+", " ", text)


def _name(one: Any) -> Any:
    """A person name as one text, or with groups in other letters."""
    if isinstance(one, str):
        try:
            return name_of_text(one.strip(" \0"))
        except ValueError:
            return one
    if not isinstance(one, dict):
        return one
    named = {group.capitalize(): text for group, text in one.items() if isinstance(group, str) and text}
    return {group: named[group] for group in NAME_GROUPS if group in named} if len(named) == len(one) else one


_MENDERS: Final[Mapping[str, Callable[[Any], Any]]] = MappingProxyType(
    {
        "AE": str,
        "AS": _age,
        "AT": _tag,
        "CS": str.upper,
        "DA": _date,
        "DS": _shortened,
        "DT": _date_time,
        "IS": _whole,
        "LO": _line,
        "PN": _name,
        "SH": _line,
        "ST": str,
        "LT": str,
        "TM": _time,
        "UC": _line,
        "UI": _uid,
        "UR": str,
        "UT": str,
    }
)
_WORDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "AS": "was written as DICOM writes an age",
        "AT": "was written as 8 hexadecimal digits",
        "CS": "was written in capitals",
        "DA": "was written as DICOM writes a date",
        "DS": "was rounded to the 16 characters of VR DS",
        "DT": "was written as DICOM writes a date-time",
        "IS": "was written as a whole number",
        "LO": "had line ends, which are blanks now",
        "PN": "was read as a person name",
        "SH": "had line ends, which are blanks now",
        "TM": "was written as DICOM writes a time",
        "UC": "had line ends, which are blanks now",
        "UI": "was written without the prefix urn:oid:",
    }
)


def unpacked(vr: str, inline: str) -> Element | None:
    """InlineBinary of an element that the dictionary gives a VR of text or numbers, or None if it is none of that."""
    if vr == "SQ" or vr in BINARY_VRS or vr not in REPRESENTATIONS:
        return None
    try:
        values = values_of(b64decode(inline, validate=True), vr, "<", _UTF_8)
    except (ValueError, KeyError):
        return None
    if vr in NUMBER_CODES or all(is_usual(vr, one) for one in values):
        return {"vr": vr, "Value": values} if values and values != [None] else {"vr": vr}
    return None
