# SPDX-License-Identifier: AGPL-3.0-or-later
"""Character repertoires of incoming text (PS3.5 §6.1.2, PS3.3 §C.12.1.1.2). What goes out is UTF-8."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from pydicom.charset import CODES_TO_ENCODINGS, STAND_ALONE_ENCODINGS, python_encoding

Encodings = tuple[str, ...]
"""Python's names of the encodings that (0008,0005) declares; the first one is that without escape sequence."""

UTF8_TERM: Final = "ISO_IR 192"

_LINE_ENDS: Final = frozenset(b"\r\n\f\t")
IN_TEXT: Final = _LINE_ENDS
IN_VALUES: Final = _LINE_ENDS | frozenset(b"\\")
IN_NAMES: Final = IN_VALUES | frozenset(b"^=")
"""What brings an ISO 2022 text back to its first encoding, by kind of VR (PS3.5 §6.1.2.5.3)."""

_LATIN_9: Final = "iso8859_15"
_PYTHON_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {**python_encoding, "ISO_IR 203": _LATIN_9, "ISO 2022 IR 203": _LATIN_9}
)
"""Python's name of each defined term, with those that are newer than pydicom's."""

_AFTER_ESCAPE: Final[Mapping[bytes, str]] = MappingProxyType({**CODES_TO_ENCODINGS, b"\x1b-b": _LATIN_9})
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
    """What non-ASCII text without Specific Character Set is taken for: Orthanc's ``DefaultEncoding``."""
    return (_ORTHANC_NAMES.get(orthanc_name.lower(), "latin_1"),)


@lru_cache(maxsize=256)
def declared(terms: str, otherwise: Encodings) -> Encodings:
    """The encodings that a value of (0008,0005) means; ``otherwise`` if it declares only ASCII.

    Raises:
        LookupError: a term is unknown; the text names it.
    """
    known = [_known(term) for term in terms.split("\\")]
    if known in (["ISO_IR 6"], [""]):
        return otherwise
    if known[0] in STAND_ALONE_ENCODINGS:  # without code extensions (PS3.3 Table C.12-5)
        known = known[:1]
    return tuple(
        _PYTHON_NAMES[term] for term in known if term not in STAND_ALONE_ENCODINGS or len(known) == 1
    )


def _known(term: str) -> str:
    """The defined term; widely seen misspellings are put right."""
    plain = re.sub(r"^ISO.IR.(?=\d)", "ISO_IR ", re.sub(r"^ISO.2022.IR.(?=\d)", "ISO 2022 IR ", term.strip()))
    if plain not in _PYTHON_NAMES:
        raise LookupError(f"{plain[:24]!r} is no character set of DICOM")
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
    """What stands from one escape sequence to the next (PS3.5 §6.1.2.5.3)."""
    if not part.startswith(_ESCAPE):
        return part.decode(encodings[0])
    code = part[:4] if part[1:3] in (b"$(", b"$)") else part[:3]
    encoding = _AFTER_ESCAPE.get(code)
    if encoding is None:
        raise UnicodeError("unknown escape sequence")
    if encoding in _ESCAPED_BY_PYTHON:
        return part.decode(encoding)
    text = part[len(code) :]
    end = next((place for place, one in enumerate(text) if one in delimiters), len(text))
    return text[:end].decode(encoding) + text[end:].decode(encodings[0])
