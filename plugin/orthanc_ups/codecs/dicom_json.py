# SPDX-License-Identifier: AGPL-3.0-or-later
"""Data sets as DICOM JSON text (PS3.18 Annex F) and back, without loss.

- DS and IS leave as JSON numbers that show every digit of the stored text, or as strings where that text is
  no JSON number (``+1.5``, ``007``); SV and UV beyond 2^53 leave as strings (PS3.18 Table F.2.3-1).
- (0008,0005) leaves as ISO_IR 192 in data sets that need it. In what comes it says nothing, as JSON is always
  UTF-8, and is left out, like group lengths.
- All values are inline: a BulkDataURI is refused.
"""

from __future__ import annotations

import json
import math
import re
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from operator import itemgetter
from types import NoneType
from typing import Any, Final

import orjson

from ..core import tags
from ..core.dataset import DataSet, Element, element
from ..core.refusals import refusal_of
from ..core.statuses import INVALID_VALUE, NO_SUCH_ATTRIBUTE, Fault, UpsError
from ..core.value_rules import DEEPEST, USUAL
from .attribute_names import vr_of
from .corrections import Corrections, right_vr, tag_of_name, unpacked
from .element_values import Number, inner_values
from .encoded_values import NAME_GROUPS

_TAG: Final = re.compile(r"[0-9A-F]{8}")
_UTF_8: Final = element("CS", "ISO_IR 192")
_CHARACTER_SET_TAG: Final = tags.SPECIFIC_CHARACTER_SET.encode()
_CHARACTER_SET: Final = orjson.dumps({tags.SPECIFIC_CHARACTER_SET: _UTF_8})[:-1] + b","
_STRING: Final = rb'"(?:[^"\\]|\\.)*"'
_NUMERIC: Final = re.compile(rb'r":"(?:(DS|IS)|SV|UV)","Value":\[((?:[^"\]]|' + _STRING + rb")+)")  # of "vr"
_TEXT_VALUE: Final = re.compile(_STRING)
_JSON_NUMBER: Final = re.compile(rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_WHOLE: Final = re.compile(rb"-?[0-9]{16,}")
_EXACT_IN_DOUBLES: Final = 2**53
_SPELLINGS: Final = {
    "vr": "vr",
    "value": "Value",
    "inlinebinary": "InlineBinary",
    "bulkdatauri": "BulkDataURI",
}
_MEMBERS: Final = frozenset(_SPELLINGS.values())
_PARTS: Final = "elements, items and values"
_MOST_NODES: Final = (
    4 * USUAL.parts
)  # the rules count an element once; in JSON it has a name, a VR and an array


class MalformedJson(ValueError):
    """The text is no JSON, or not the JSON of a data set; the message says where."""


# --- writing ----------------------------------------------------------------------------------------


def encode(dataset: DataSet) -> bytes:
    """One data set as a JSON object."""
    return from_text(orjson.dumps(dataset))


def from_text(text: bytes) -> bytes:
    """The same for a data set that is JSON text already, compact, of the inner form (core/dataset.py)."""
    if not text.isascii():
        text = _with_character_set(text)
    return _NUMERIC.sub(_numbers, text)


def _with_character_set(text: bytes) -> bytes:
    if text[2:10] > _CHARACTER_SET_TAG:  # the usual case: it comes first
        return _CHARACTER_SET + text[1:]
    return orjson.dumps(dict(sorted({**orjson.loads(text), tags.SPECIFIC_CHARACTER_SET: _UTF_8}.items())))


def encode_all(datasets: Iterable[DataSet]) -> bytes:
    """Data sets as a JSON array."""
    return b"[%b]" % b",".join(map(encode, datasets))


def from_texts(texts: Iterable[bytes]) -> bytes:
    """The same for texts as ``from_text`` takes them."""
    return b"[%b]" % b",".join(map(from_text, texts))


def _numbers(found: re.Match[bytes]) -> bytes:
    written_as_text, listed = found.groups()
    head = found[0][: -len(listed)]
    if written_as_text:
        return head + _TEXT_VALUE.sub(_as_number, listed)
    return head + _WHOLE.sub(_as_exact, listed)


def _as_number(found: re.Match[bytes]) -> bytes:
    digits = found[0][1:-1]
    if _JSON_NUMBER.fullmatch(digits) and math.isfinite(float(digits)):
        return digits
    return found[0]


def _as_exact(found: re.Match[bytes]) -> bytes:
    return found[0] if abs(int(found[0])) <= _EXACT_IN_DOUBLES else b'"%b"' % found[0]


# --- reading ----------------------------------------------------------------------------------------


def decode(body: bytes, nesting: int = DEEPEST, corrections: Corrections | None = None) -> list[DataSet]:
    """Read an array of data sets, or a bare one.

    ``nesting`` is the greatest depth of sequences within sequences. With ``corrections`` much is taken that is not
    as PS3.18 Annex F has it, and noted there; without, nothing is corrected.

    Raises:
        MalformedJson: no JSON, a name twice in one object, or neither array nor object.
        UpsError: 0105 or 0106 with the paths of all attributes that cannot be read; values are left to the rules of
            the core.
    """
    found = parsed(body, _MOST_NODES)
    listed = found if isinstance(found, list) else [found]
    if not all(isinstance(one, dict) for one in listed):
        raise MalformedJson("expected a JSON object, or an array of them, with tags as names")
    reader = _Reader(corrections)
    data_sets = [reader.data_set(one, "", nesting) for one in listed]
    reader.refuse()
    return data_sets


def data_set(found: object, nesting: int = DEEPEST) -> DataSet:
    """A data set that stands somewhere in what ``parsed`` gave. Raises as ``decode``."""
    if not isinstance(found, dict):
        raise MalformedJson("expected a JSON object with tags as names")
    reader = _Reader(None)
    read = reader.data_set(found, "", nesting)
    reader.refuse()
    return read


def parsed(body: bytes, most: int | None = None) -> Any:
    """Any JSON as Python values, with every number as a Number.

    Raises MalformedJson; UpsError (0106) for more than ``most`` values and names in all.
    """
    body = body.removeprefix(BOM_UTF8)
    try:
        # Refuses what is too deep for the parser that keeps the digits of numbers.
        quickly = orjson.loads(body)
        if most is not None and len(body) > most and not _is_within(quickly, most):
            raise UpsError(INVALID_VALUE, f"the data set is too much: at most {USUAL.parts} {_PARTS} in all")
        return json.loads(body.decode(), parse_float=Number, parse_int=Number, object_pairs_hook=_unambiguous)
    except MalformedJson:
        raise
    except (ValueError, RecursionError) as error:
        raise MalformedJson(f"not JSON: {error}") from None


def _is_within(found: Any, left: int) -> bool:
    waiting = [found]
    while waiting:
        one = waiting.pop()
        if isinstance(one, (dict, list)):
            left -= len(one)
            if left < 0:
                return False
            waiting += one.values() if isinstance(one, dict) else one
    return True


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise MalformedJson(f"{twice[:64]!r} stands twice in one object")
    return made


_MOST_FAULTS: Final = 100


class _Reader:
    """Turns parsed JSON into data sets; what cannot be read is left out and held against them by ``refuse``."""

    def __init__(self, corrections: Corrections | None) -> None:
        self._corrections = corrections
        self._lenient = corrections if corrections and corrections.lenient else None
        self._faults: list[Fault] = []
        self._more_faults = 0

    def refuse(self) -> None:
        """Raise UpsError if there is a fault: one refusal that names all of them."""
        if self._faults:
            raise refusal_of(self._faults, self._more_faults)

    def _fault(self, error: UpsError) -> None:
        if len(self._faults) < _MOST_FAULTS:
            self._faults.append(Fault(error.status, error.tag or "", error.detail))
        else:
            self._more_faults += 1

    def data_set(self, found: dict[str, Any], path: str, nesting: int) -> DataSet:
        made: DataSet = {}
        for tag, given in sorted(self._named(found, path), key=itemgetter(0)):
            here = f"{path}.{tag}" if path else tag
            try:
                if tag in made:
                    raise _refused(tag, here, "stands twice")
                if tag != tags.SPECIFIC_CHARACTER_SET and not tag.endswith("0000"):
                    made[tag] = self._element(given, tag, here, nesting)
            except UpsError as error:
                self._fault(error)
        return made

    def _named(self, found: dict[str, Any], path: str) -> Iterator[tuple[str, Any]]:
        for name, given in found.items():
            try:
                yield self._tag(name, path), given
            except UpsError as error:
                self._fault(error)

    def _tag(self, name: str, path: str) -> str:
        tag = name.upper()
        if _TAG.fullmatch(tag):
            return tag
        meant = tag_of_name(name) if self._lenient else None
        if meant is None or self._lenient is None:
            what = f"{name[:64]!r} is no tag: expected 8 hexadecimal digits"
            raise UpsError(NO_SUCH_ATTRIBUTE, what, path or None)
        self._lenient.note(f"{path}.{meant}" if path else meant, "was not named by 8 hexadecimal digits")
        return meant

    def _element(self, given: Any, tag: str, path: str, nesting: int) -> Element:
        if self._lenient:
            given = _well_formed(given, tag, path, self._lenient)
        if not isinstance(given, dict):
            raise _refused(tag, path, 'is no object with "vr" and "Value"')
        if "BulkDataURI" in given:
            raise _refused(tag, path, "has a BulkDataURI: values must be inline (PS3.18 §11.1.4)")
        vr = given.get("vr") or vr_of(tag)
        if not isinstance(vr, str):
            raise _refused(tag, path, 'has no "vr"')
        if self._lenient and (meant := right_vr(tag, vr)) != vr:
            taken = self._of_vr(meant, given, path, nesting)
            if "InlineBinary" not in taken:
                self._lenient.note(path, f"had VR {vr[:16]}, which is {meant} now")
                return taken
        return self._of_vr(vr, given, path, nesting)

    def _of_vr(self, vr: str, given: dict[str, Any], path: str, nesting: int) -> Element:
        made: Element = {"vr": vr, **{key: given[key] for key in given if key not in ("vr", "Value")}}
        binary = made.get("InlineBinary")
        if isinstance(binary, str):
            binary = made["InlineBinary"] = "".join(binary.split())
            if self._lenient:
                binary = made["InlineBinary"] = _in_plain_base64(binary)
        if binary == "":
            del made["InlineBinary"]
        elif isinstance(binary, str) and self._lenient and not given.get("Value"):
            text = unpacked(vr, binary)
            if text:
                self._lenient.note(path, "had its value as InlineBinary")
                return text
        return self._with_values(made, given.get("Value"), path, nesting)

    def _with_values(self, made: Element, listed: Any, path: str, nesting: int) -> Element:
        if listed is None:
            return made
        if not isinstance(listed, list):
            raise _refused(path[-8:], path, 'has a "Value" that is no array')
        vr = made["vr"]
        if vr == "SQ":
            found = [self._item(one, path, nesting) for one in listed]
        elif vr == "PN":
            found = [self._name(one, path) for one in listed]
        else:
            found = inner_values(vr, listed, path, self._corrections)
        return {"vr": vr, "Value": found, **made} if found and found != [None] else made

    def _name(self, found: Any, path: str) -> Any:
        if not isinstance(found, dict):
            return None if found == "" else found
        named = {group: found[group] for group in found if found[group] not in ("", None)}
        if self._lenient and not named.keys() <= set(NAME_GROUPS):
            named = {group.capitalize(): one for group, one in named.items()}
            self._lenient.note(path, "had other names of groups")
        return named or None

    def _item(self, found: Any, path: str, nesting: int) -> Any:
        if not isinstance(found, dict):
            raise _refused(path[-8:], path, "has an item that is no object")
        if nesting < 1:
            raise _refused(path[-8:], path, "is nested too deeply")
        return self.data_set(found, path, nesting - 1)


def _refused(tag: str, path: str, what: str) -> UpsError:
    return UpsError(INVALID_VALUE, f"({tag[:4]},{tag[4:]}) {what}", path)


# --- what is no DICOM JSON ---


def _well_formed(given: Any, tag: str, path: str, corrections: Corrections) -> Any:
    """An element as PS3.18 F.2.2 has it, made of a bare value or an object with other members."""
    if type(given) is dict and given.keys() <= _MEMBERS and isinstance(given.get("Value"), (list, NoneType)):
        value = given.get("Value")
        if not value or (value[0] is not None and value[0] != "") or vr_of(tag) != "SQ":
            return given
    made = _members(given, tag)
    if made is None:
        made = {"Value": given if isinstance(given, list) else [given]}
    if made.get("Value") is None:
        made.pop("Value", None)
    elif not isinstance(made["Value"], list):
        made["Value"] = [made["Value"]]
    if vr_of(tag) == "SQ" and "Value" in made:
        made["Value"] = [one for one in made["Value"] if one is not None and one != ""]
    if made != given:
        corrections.note(path, 'was no object with "vr" and an array "Value"')
    return made


def _members(given: Any, tag: str) -> dict[str, Any] | None:
    """The members of an element whatever their case, or None if an object is a value itself."""
    if not isinstance(given, dict):
        return None
    named = {_SPELLINGS[key.lower()]: one for key, one in given.items() if key.lower() in _SPELLINGS}
    return named if named or (not given and vr_of(tag) != "SQ") else None


def _in_plain_base64(text: str) -> str:
    """The alphabet of URLs and padding that is left out are base64 all the same."""
    plain = text.replace("-", "+").replace("_", "/")
    return plain + "=" * (-len(plain) % 4)
