# SPDX-License-Identifier: AGPL-3.0-or-later
"""Decodes the bytes of a value field to values of the inner form, for each VR (PS3.5 §6.2), with text in any character
repertoire (PS3.5 §6.1.2, PS3.3 §C.12.1.1.2). Only reading is needed here: everything is written in UTF-8.
"""

from __future__ import annotations

import math
import re
import struct
import unicodedata
from base64 import b64decode
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from pydicom.charset import CODES_TO_ENCODINGS, STAND_ALONE_ENCODINGS, python_encoding

from ..core.dataset import BINARY_VRS, NAME_GROUPS, SINGLE_TEXT_VRS, Element
from ..core.representations import REPRESENTATIONS

# --- character repertoires ---

Encodings = tuple[str, ...]
"""Python's names of the encodings that (0008,0005) declares; the first applies without an escape sequence."""

_UTF_8: Final = ("utf_8",)
UTF8_TERM: Final = "ISO_IR 192"

_LINE_ENDS: Final = frozenset(b"\r\n\f\t")
IN_TEXT: Final = _LINE_ENDS
IN_VALUES: Final = _LINE_ENDS | frozenset(b"\\")
IN_NAMES: Final = IN_VALUES | frozenset(b"^=")
"""Characters that return an ISO 2022 text to its first encoding, by kind of VR (PS3.5 §6.1.2.5.3)."""

_LATIN_9: Final = "iso8859_15"
_PYTHON_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {**python_encoding, "ISO_IR 203": _LATIN_9, "ISO 2022 IR 203": _LATIN_9}
)
"""Python's name of each defined term, including some that are newer than pydicom's."""

_AFTER_ESCAPE: Final[Mapping[bytes, str]] = MappingProxyType({**CODES_TO_ENCODINGS, b"\x1b-b": _LATIN_9})
_REPERTOIRE: Final = re.compile(r"ISO[ _-]?(2022[ _-]?)?IR[ _-]?([0-9]+)")
_ESCAPE: Final = b"\x1b"
_PARTS: Final = re.compile(rb"\A[^\x1b]+|\x1b[^\x1b]*")
_ESCAPED_BY_PYTHON: Final = frozenset({"iso2022_jp", "iso2022_jp_2"})

_ORTHANC_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ascii": "latin_1",
        "utf8": "utf_8",
        "latin1": "latin_1",
        "latin2": "iso8859_2",
        "latin3": "iso8859_3",
        "latin4": "iso8859_4",
        "latin5": "iso8859_9",
        "cyrillic": "iso8859_5",
        "windows1251": "cp1251",
        "arabic": "iso8859_6",
        "greek": "iso8859_7",
        "hebrew": "iso8859_8",
        "thai": "tis_620",
        "japanese": "shift_jis",
        "chinese": "gb18030",
        "japanesekanji": "iso2022_jp",
        "korean": "euc_kr",
        "simplifiedchinese": "gb2312",
    }
)


def undeclared(orthanc_name: str) -> Encodings:
    """The encoding of non-ASCII text without Specific Character Set: Orthanc's ``DefaultEncoding``."""
    return (_ORTHANC_NAMES.get(orthanc_name.lower(), "latin_1"),)


@lru_cache(maxsize=256)
def declared(terms: str, otherwise: Encodings) -> Encodings:
    """The encodings that a value of (0008,0005) declares; ``otherwise`` if it declares only ASCII.

    Raises:
        LookupError: a term is unknown; the text names it.
    """
    defined = [_defined_term(term) for term in terms.split("\\")]
    if defined in (["ISO_IR 6"], [""]):
        return otherwise
    if defined[0] in STAND_ALONE_ENCODINGS:  # without code extensions (PS3.3 Table C.12-5)
        defined = defined[:1]
    return tuple(
        _PYTHON_NAMES[term] for term in defined if term not in STAND_ALONE_ENCODINGS or len(defined) == 1
    )


def _defined_term(term: str) -> str:
    """The defined term; common misspellings are accepted."""
    plain = term.strip().upper()
    spelled = _REPERTOIRE.fullmatch(plain)
    if spelled:
        plain = f"{'ISO 2022 IR' if spelled[1] else 'ISO_IR'} {spelled[2]}"
    if plain not in _PYTHON_NAMES:
        raise LookupError(f"{term.strip()[:24]!r} is not a character set of DICOM")
    return plain


def decoded(value: bytes, encodings: Encodings, delimiters: frozenset[int]) -> str:
    """Text as Unicode.

    Raises:
        UnicodeError: the bytes are not in the declared encodings.
    """
    if _ESCAPE not in value:
        return value.decode(encodings[0])
    return "".join(_part(part, encodings, delimiters) for part in _PARTS.findall(value))


def _part(part: bytes, encodings: Encodings, delimiters: frozenset[int]) -> str:
    """Decode the part from one escape sequence to the next (PS3.5 §6.1.2.5.3).

    Example: ``ESC $ ) C`` switches to KS X 1001 until the next delimiter, such as ``^`` in a person name; after that
    the first encoding applies again, even without another escape sequence.
    """
    if not part.startswith(_ESCAPE):
        return part.decode(encodings[0])
    code = part[:4] if part[1:3] in (b"$(", b"$)") else part[:3]
    encoding = _AFTER_ESCAPE.get(code)
    if encoding is None:
        raise UnicodeError("unknown escape sequence")
    if encoding in _ESCAPED_BY_PYTHON:
        return part.decode(encoding)
    text = part[len(code) :]
    end = next((index for index, byte in enumerate(text) if byte in delimiters), len(text))
    return text[:end].decode(encoding) + text[end:].decode(encodings[0])


# --- text of unknown VR ---

_SHORTEST_TEXT: Final = 3
_ASCII_TEXT: Final = re.compile(r"[ -~\r\n\t\f]")
_LAST_OF_LATIN: Final = "\u024f"


def unknown_in_utf_8(raw: bytes, encodings: Encodings) -> bytes | None:
    """The bytes of an element of unknown VR in UTF-8, if they are text in another character set; else None.

    Bytes that may be numbers stay as they are (PS3.5 §6.2.2).
    """
    if encodings[0].lower().replace("-", "_") in ("utf8", "utf_8"):
        return None
    try:
        text = decoded(raw, encodings, IN_VALUES).rstrip(" \0")
    except UnicodeError:
        return None
    if not _looks_like_text(text, len(raw)):
        return None
    utf_8 = text.encode()
    return utf_8 + b" " * (len(utf_8) % 2)


def _looks_like_text(text: str, size: int) -> bool:
    """True for letters and ASCII in a proportion that numbers of 16, 32 or 64 bits hardly ever have.

    Latin text is mostly ASCII; text in other scripts has a blank, or a size that no numbers have.
    """
    ascii_count = len(_ASCII_TEXT.findall(text))
    letters = [character for character in text if not character.isascii()]
    if len(text) < _SHORTEST_TEXT or ascii_count + len(letters) < len(text):
        return False
    if not all(character.isalpha() or unicodedata.combining(character) for character in letters):
        return False
    if max(letters, default="") <= _LAST_OF_LATIN:
        return ascii_count >= len(letters)
    return ascii_count > 0 or size % 4 != 0


# --- values ---

NUMBER_CODES: Final[Mapping[str, str]] = MappingProxyType(
    {"US": "H", "SS": "h", "UL": "L", "SL": "l", "UV": "Q", "SV": "q", "FL": "f", "FD": "d"}
)
"""Format characters of the module struct for VRs of numbers."""


_Values = list[Any]


def values_of(raw: bytes, vr: str, order: str, encodings: Encodings) -> _Values:
    """The values of any VR except SQ and the binary ones; ``order`` is ``<`` (little endian) or ``>``.

    Raises:
        ValueError, struct.error: the bytes are not values of that VR; UnicodeError if they are not text in that
            character set.
    """
    code = NUMBER_CODES.get(vr)
    if code:
        return _numbers(raw, code, order)
    return _READERS[vr](raw, order, encodings)


def name_of_text(text: str) -> dict[str, str] | None:
    """A person name as ``Alphabetic=Ideographic=Phonetic``. Raises ValueError for more groups."""
    groups = [group.rstrip(" \0") for group in text.split("=")]
    if len(groups) > len(NAME_GROUPS):
        raise ValueError("more than three groups")
    return {name: group for name, group in zip(NAME_GROUPS, groups, strict=False) if group} or None


def _numbers(raw: bytes, code: str, order: str) -> _Values:
    count, remainder = divmod(len(raw), struct.calcsize(f"<{code}"))
    if remainder:
        raise ValueError("not a whole number of values")
    numbers = struct.unpack(f"{order}{count}{code}", raw)
    return [_float(number) for number in numbers] if code in "fd" else list(numbers)


def _float(number: float) -> float | str:
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def _attribute_tags(raw: bytes, order: str, encodings: Encodings) -> _Values:
    halves = _numbers(raw, "H", order)
    if len(halves) % 2:
        raise ValueError("half a tag")
    return [f"{group:04X}{number:04X}" for group, number in zip(halves[::2], halves[1::2], strict=True)]


def _plain(raw: bytes, order: str, encodings: Encodings) -> _Values:
    return [text.strip(" \0") or None for text in raw.decode("ascii").split("\\")]


def _dates(raw: bytes, order: str, encodings: Encodings) -> _Values:
    return [text.rstrip(" \0") or None for text in raw.decode("ascii").split("\\")]


def _uri(raw: bytes, order: str, encodings: Encodings) -> _Values:
    return [raw.decode("ascii").rstrip(" \0") or None]


def _texts(raw: bytes, order: str, encodings: Encodings) -> _Values:
    return [text.rstrip(" \0") or None for text in decoded(raw, encodings, IN_VALUES).split("\\")]


def _text(raw: bytes, order: str, encodings: Encodings) -> _Values:
    return [decoded(raw, encodings, IN_TEXT).rstrip(" \0") or None]


def _names(raw: bytes, order: str, encodings: Encodings) -> _Values:
    return [name_of_text(text) for text in decoded(raw, encodings, IN_NAMES).split("\\")]


_READERS: Final[Mapping[str, Callable[[bytes, str, Encodings], _Values]]] = MappingProxyType(
    {
        **dict.fromkeys(("AE", "AS", "CS", "DS", "IS", "UI"), _plain),
        **dict.fromkeys(("DA", "DT", "TM"), _dates),
        **dict.fromkeys(("LO", "SH", "UC"), _texts),
        **dict.fromkeys(SINGLE_TEXT_VRS, _text),
        "AT": _attribute_tags,
        "PN": _names,
        "UR": _uri,
    }
)

TEXTUAL_VRS: Final = frozenset(_READERS) - {"AT"}
"""VRs whose values are characters."""


# --- InlineBinary ---


def unpacked(vr: str, inline: str) -> Element | None:
    """The element with the values of an InlineBinary, if its VR has text or numbers; else None."""
    if vr == "SQ" or vr in BINARY_VRS or vr not in REPRESENTATIONS:
        return None
    try:
        values = values_of(b64decode(inline, validate=True), vr, "<", _UTF_8)
    except (ValueError, KeyError):
        return None
    valid = REPRESENTATIONS[vr].valid
    if vr in NUMBER_CODES or all(value is None or value == "" or valid(value) for value in values):
        return {"vr": vr, "Value": values} if values and values != [None] else {"vr": vr}
    return None
