# SPDX-License-Identifier: AGPL-3.0-or-later
"""How person names compare (PS3.4 C.2.2.2.1, C.2.2.2.4: the choice is the SCP's, and is told to users).

- Case is ignored, and so are accents of Latin and Greek letters: ``muller`` finds ``Müller``; ``ß``
  is ``ss``, ``ø`` is ``o``, ``ё`` is ``е``. Full-width and half-width forms are equal (Unicode NFKC).
  The voicing marks of kana count, as they make other letters.
- Blanks around components, and empty components at the end, are ignored.
- A key in the alphabetic group is looked for in all three groups of a stored name, since many clients put
  whatever was typed there; a key in the ideographic or phonetic group only in its own.
- A key that ends in ``^*`` also finds names without those components: ``yamada^*`` finds ``Yamada``.
- Fuzzy matching, if asked for: each word of the key must begin a word of the name or sound like one, in any
  order and component. The sound of a word is its chain of consonants, similar ones made one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

GROUPS: Final = ("Alphabetic", "Ideographic", "Phonetic")

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
    """One component group without what is ignored. Wildcards stay."""
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
    """True for marks that do not change the letter: all on Latin and Greek ones, and that of Cyrillic ё."""
    return base < _END_OF_GREEK or (base == _CYRILLIC_YE and mark == _DIAERESIS)


def groups(name: Any) -> dict[str, str]:
    """The folded component groups of a PN value that hold something."""
    if not isinstance(name, dict):
        return {}
    folded = {group: fold(name[group]) for group in GROUPS if isinstance(name.get(group), str)}
    return {group: text for group, text in folded.items() if text}


def words(name: Any) -> frozenset[str]:
    """The folded words of all groups of a PN value."""
    return words_of(groups(name))


def words_of(folded: Mapping[str, str]) -> frozenset[str]:
    """The words of component groups that ``groups`` made."""
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
    """True if a word of a key begins some word of a name or sounds like it."""
    heard = sound(word)
    return any(
        candidate.startswith(word) or (heard and sound(candidate) == heard) for candidate in name_words
    )
