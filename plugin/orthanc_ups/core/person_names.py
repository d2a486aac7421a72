# SPDX-License-Identifier: AGPL-3.0-or-later
"""How person names are compared (PS3.4 C.2.2.2.1, C.2.2.2.4: the SCP decides, and docs/conformance.md says how).

- Case is ignored, and so are accents of Latin and Greek letters: ``muller`` finds ``Müller``; ``ß``
  is ``ss``, ``ø`` is ``o``, ``ё`` is ``е``. Full-width and half-width forms are equal (Unicode NFKC).
  The voicing marks of kana count, because they make different letters.
- Blanks around components, and empty components at the end, are ignored.
- A key in the alphabetic group is compared with all three groups of a stored name, because many clients put
  any typed text there; a key in the ideographic or phonetic group only with the same group.
- A key that ends in ``^*`` also finds names without those components: ``yamada^*`` finds ``Yamada``.
- Fuzzy matching, if requested: each word of the key must be the beginning of a word of the name or sound like one,
  in any order and component. The sound of a word is its first sound and its consonants; similar ones are equal.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from .dataset import NAME_GROUPS

_WITHOUT_MARK: Final = str.maketrans(
    {"ø": "o", "đ": "d", "ð": "d", "ł": "l", "ħ": "h", "ŧ": "t", "ı": "i", "æ": "ae", "œ": "oe", "þ": "th"}
)
_END_OF_GREEK: Final = "\u0400"
_DIAERESIS: Final = "\u0308"
_CYRILLIC_YE: Final = "е"
_WORD: Final = re.compile(r"[^\W_]+")
_LATIN: Final = re.compile(r"[a-z]{3,}")
_DIGRAPHS: Final = tuple(
    (re.compile(pattern), sound)
    for pattern, sound in (
        ("^kn", "n"),
        ("^wr", "r"),
        ("sch|sh|cz|tz|ts", "s"),
        ("ph", "f"),
        ("th|dt", "t"),
        ("ch|ck|qu", "k"),
    )
)
_SIMILAR: Final[Mapping[int, str]] = MappingProxyType(
    str.maketrans({"b": "p", "v": "f", "w": "f", "d": "t", "z": "s"} | dict.fromkeys("cgjqx", "k"))
)
_SILENT: Final = re.compile(r"(?<!^)[aeiouyh]")
_FIRST_VOWEL: Final = re.compile(r"^[aeiouyh]")
_REPEATED: Final = re.compile(r"(.)\1+")


@lru_cache(maxsize=8192)
def fold(text: str) -> str:
    """A component group as it is compared. Wildcards stay."""
    folded = text.casefold() if text.isascii() else _folded(text)
    if "^" not in folded:
        return " ".join(folded.split())
    components = (" ".join(component.split()) for component in folded.split("^"))
    return "^".join(components).rstrip("^")


def _folded(text: str) -> str:
    letters = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", text).casefold())
    base, folded = "", []
    for letter in letters:
        if not unicodedata.combining(letter):
            base = letter
        elif _is_accent(base, letter):
            continue
        folded.append(letter)
    return unicodedata.normalize("NFC", "".join(folded)).translate(_WITHOUT_MARK)


def _is_accent(base: str, mark: str) -> bool:
    """True for marks that do not make another letter: all on Latin and Greek letters, and the diaeresis of ё."""
    return base < _END_OF_GREEK or (base == _CYRILLIC_YE and mark == _DIAERESIS)


def groups(name: Any) -> dict[str, str]:
    """The folded component groups of a PN value, without empty ones."""
    if not isinstance(name, dict):
        return {}
    folded = {group: fold(name[group]) for group in NAME_GROUPS if isinstance(name.get(group), str)}
    return {group: text for group, text in folded.items() if text}


def words(name: Any) -> frozenset[str]:
    """The folded words of all groups of a PN value."""
    return words_of(groups(name))


def words_of(folded: Mapping[str, str]) -> frozenset[str]:
    """The words of folded component groups."""
    return frozenset(word for text in folded.values() for word in _WORD.findall(text))


@lru_cache(maxsize=8192)
def sound(word: str) -> str:
    """How a folded word sounds: its first sound and its consonants; empty for short and non-Latin words."""
    if not _LATIN.fullmatch(word):
        return ""
    for pattern, similar in _DIGRAPHS:
        word = pattern.sub(similar, word)
    word = _FIRST_VOWEL.sub("a", word.translate(_SIMILAR))
    return _REPEATED.sub(r"\1", _SILENT.sub("", word))


def resembles(word: str, name_words: frozenset[str]) -> bool:
    """True if a word of a key is the beginning of a word of the name, or sounds like one."""
    heard = sound(word)
    return any(
        candidate.startswith(word) or (heard and sound(candidate) == heard) for candidate in name_words
    )
