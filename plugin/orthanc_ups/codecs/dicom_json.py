# SPDX-License-Identifier: AGPL-3.0-or-later
"""Data sets as DICOM JSON text (PS3.18 Annex F) and back, without loss.

- DS and IS are written as JSON numbers with every digit of the stored text, or as strings if that text is
  not a JSON number (``+1.5``, ``007``); SV and UV beyond 2^53 are written as strings (PS3.18 Table F.2.3-1).
- (0008,0005) is written as ISO_IR 192 in data sets that need it. When reading it is dropped, as JSON is always
  UTF-8; so are group lengths.
- All values are inline: a BulkDataURI is refused.
"""

from __future__ import annotations

import json
import math
import re
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Mapping
from operator import itemgetter
from types import NoneType
from typing import Any, Final

import msgspec
import orjson

from ..core import tags
from ..core.dataset import NAME_GROUPS, DataSet, Element, element
from ..core.interned import LONGEST, Interned
from ..core.refusals import FaultList
from ..core.statuses import INVALID_VALUE, NO_SUCH_ATTRIBUTE, UpsError
from ..core.value_rules import DEEPEST, USUAL
from .attribute_names import right_vr, tag_of_name, vr_of
from .corrections import Corrections
from .element_values import Number, inner_values, refused
from .encoded_values import unpacked

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
_MAX_NODES: Final = 4 * USUAL.parts
"""The rules count an element as one part; in JSON it has a name, a VR and an array."""

_SHORT: Final = 32 * 1024
_SEQUENCE: Final = b'"SQ"'
_HEAD: Final = 12
_MEMBERS_AS_TEXT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class MalformedJson(ValueError):
    """The text is not JSON, or not the JSON of a data set; the message says where."""


# --- writing ----------------------------------------------------------------------------------------


def encode(dataset: DataSet) -> bytes:
    """One data set as a JSON object."""
    return from_text(orjson.dumps(dataset))


def from_text(text: bytes) -> bytes:
    """Like ``encode``, for a data set that is already compact JSON text of the inner form (core/dataset.py)."""
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
    """Like ``encode_all``, for texts as in ``from_text``."""
    return b"[%b]" % b",".join(map(from_text, texts))


def _numbers(match: re.Match[bytes]) -> bytes:
    written_as_text, listed = match.groups()
    head = match[0][: -len(listed)]
    if written_as_text:
        return head + _TEXT_VALUE.sub(_as_number, listed)
    return head + _WHOLE.sub(_as_exact, listed)


def _as_number(match: re.Match[bytes]) -> bytes:
    digits = match[0][1:-1]
    if _JSON_NUMBER.fullmatch(digits) and math.isfinite(float(digits)):
        return digits
    return match[0]


def _as_exact(match: re.Match[bytes]) -> bytes:
    return match[0] if abs(int(match[0])) <= _EXACT_IN_DOUBLES else b'"%b"' % match[0]


# --- reading ----------------------------------------------------------------------------------------


def decode(
    body: bytes,
    nesting: int = DEEPEST,
    corrections: Corrections | None = None,
    interned: Interned | None = None,
) -> list[DataSet]:
    """Read an array of data sets, or a single one.

    Args:
        body: JSON text in UTF-8.
        nesting: the greatest allowed depth of nested sequences.
        corrections: many deviations from PS3.18 Annex F are corrected and noted here; if None, all are refused.
        interned: a cache of sequences that were decoded before.

    Raises:
        MalformedJson: not JSON, a name twice in one object, or neither an array nor an object.
        UpsError: 0105 or 0106 with the paths of all attributes that cannot be read. Values are left to the rules of
            the core.
    """
    has_parts = _SEQUENCE in body and len(body) <= _SHORT
    texts = None if interned is None or not has_parts else _members_of(body)
    if texts is not None and interned is not None:
        text_reader = _Reader(corrections)
        data_sets = [text_reader.of_texts(texts, nesting, interned)]
        text_reader.faults.refuse()
        return data_sets
    document = parsed(body, _MAX_NODES)
    items = document if isinstance(document, list) else [document]
    if not all(isinstance(item, dict) for item in items):
        raise MalformedJson("expected a JSON object, or an array of them, with tags as names")
    reader = _Reader(corrections)
    data_sets = [reader.data_set(item, "", nesting) for item in items]
    reader.faults.refuse()
    return data_sets


def _members_of(body: bytes) -> dict[str, bytes] | None:
    """The members of the only data set in a body, as text by tag; None if the body is more complicated.

    They must equal the body when joined again, which proves that no name occurs twice.
    """
    bare = body[1:-1] if body.startswith(b"[") and body.endswith(b"]") else body
    try:
        raw = _MEMBERS_AS_TEXT.decode(bare)
    except msgspec.MsgspecError:
        return None
    texts = {name: bytes(text) for name, text in raw.items()}
    is_whole = bare in (_joined(texts, b",", b":"), _joined(texts, b", ", b": "))
    return texts if is_whole and all(map(_TAG.fullmatch, texts)) else None


def _joined(texts: Mapping[str, bytes], comma: bytes = b",", colon: bytes = b":") -> bytes:
    return b"{%b}" % comma.join([b'"%b"%b%b' % (name.encode(), colon, text) for name, text in texts.items()])


def data_set(value: object, nesting: int = DEEPEST) -> DataSet:
    """A data set that is part of a result of ``parsed``. Raises the same as ``decode``."""
    if not isinstance(value, dict):
        raise MalformedJson("expected a JSON object with tags as names")
    reader = _Reader(None)
    dataset = reader.data_set(value, "", nesting)
    reader.faults.refuse()
    return dataset


def parsed(body: bytes, max_nodes: int | None = None) -> Any:
    """Any JSON as Python values, with every number as a Number.

    Raises:
        MalformedJson: not JSON in UTF-8, or a name twice in one object.
        UpsError: 0106; there are more than ``max_nodes`` names and values in total.
    """
    body = body.removeprefix(BOM_UTF8)
    try:
        document = body.decode()
    except UnicodeDecodeError as error:
        raise MalformedJson(f"not UTF-8: byte {error.start + 1} is not part of a character") from None
    try:
        # Refuses text that is nested too deeply for the parser that keeps the digits of numbers.
        plain = orjson.loads(body)
        if max_nodes is not None and len(body) > max_nodes and not _is_within(plain, max_nodes):
            raise UpsError(INVALID_VALUE, f"the data set is too large: at most {USUAL.parts} {_PARTS} in all")
        return _READER.decode(document)
    except MalformedJson:
        raise
    except (ValueError, RecursionError) as error:
        raise MalformedJson(f"not JSON: {error}") from None


def _is_within(document: Any, nodes: int) -> bool:
    stack = [document]
    while stack:
        node = stack.pop()
        if isinstance(node, (dict, list)):
            nodes -= len(node)
            if nodes < 0:
                return False
            stack += node.values() if isinstance(node, dict) else node
    return True


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise MalformedJson(f"{repeated[:64]!r} occurs twice in one object")
    return members


_READER: Final = json.JSONDecoder(parse_float=Number, parse_int=Number, object_pairs_hook=_unambiguous)
"""A parser that keeps the digits of numbers."""


class _Reader:
    """Turns parsed JSON into data sets. Attributes that cannot be read are omitted and noted in ``faults``."""

    def __init__(self, corrections: Corrections | None) -> None:
        self._corrections = corrections
        self._lenient = corrections if corrections and corrections.lenient else None
        self.faults = FaultList()

    def of_texts(self, texts: Mapping[str, bytes], nesting: int, interned: Interned) -> DataSet:
        """A data set from JSON text by tag. Short sequences that were decoded before come from ``interned``."""
        dataset: DataSet = {}
        rest: dict[str, bytes] = {}
        for tag, text in texts.items():
            if len(text) > LONGEST or _SEQUENCE not in text[:_HEAD]:
                rest[tag] = text
                continue
            key = tag, text, nesting, self._lenient is None
            entry = interned.get(key)
            if entry is not None:
                dataset[tag] = entry[0]
                continue
            counts = self._counts
            sequence = self.data_set(parsed(b'{"%b":%b}' % (tag.encode(), text)), "", nesting)
            if self._counts == counts and tag in sequence:
                interned.add(key, sequence[tag])
            dataset |= sequence
        dataset |= self.data_set(parsed(_joined(rest)), "", nesting)
        return dict(sorted(dataset.items()))

    @property
    def _counts(self) -> tuple[int, int]:
        """The number of faults and corrections so far."""
        return self.faults.count, self._corrections.count if self._corrections else 0

    def data_set(self, members: dict[str, Any], path: str, nesting: int) -> DataSet:
        dataset: DataSet = {}
        for tag, member in sorted(self._named(members, path), key=itemgetter(0)):
            attribute_path = f"{path}.{tag}" if path else tag
            try:
                if tag in dataset:
                    raise refused(attribute_path, "occurs twice")
                if tag != tags.SPECIFIC_CHARACTER_SET and not tag.endswith("0000"):
                    dataset[tag] = self._element(member, tag, attribute_path, nesting)
            except UpsError as error:
                self.faults.add(error)
        return dataset

    def _named(self, members: dict[str, Any], path: str) -> Iterator[tuple[str, Any]]:
        for name, member in members.items():
            try:
                yield self._tag(name, path), member
            except UpsError as error:
                self.faults.add(error)

    def _tag(self, name: str, path: str) -> str:
        tag = name.upper()
        if _TAG.fullmatch(tag):
            return tag
        named_tag = tag_of_name(name) if self._lenient else None
        if named_tag is None or self._lenient is None:
            detail = f"{name[:64]!r} is not a tag: expected 8 hexadecimal digits"
            raise UpsError(NO_SUCH_ATTRIBUTE, detail, path or None)
        self._lenient.note(
            f"{path}.{named_tag}" if path else named_tag, "was not named by 8 hexadecimal digits"
        )
        return named_tag

    def _element(self, member: Any, tag: str, path: str, nesting: int) -> Element:
        if self._lenient:
            member = _well_formed(member, tag, path, self._lenient)
        if not isinstance(member, dict):
            raise refused(path, 'is not an object with "vr" and "Value"')
        if "BulkDataURI" in member:
            raise refused(path, "has a BulkDataURI: values must be inline (PS3.18 §11.1.4)")
        vr = member.get("vr") or vr_of(tag)
        if not isinstance(vr, str):
            raise refused(path, 'has no "vr"')
        if self._lenient and (dictionary_vr := right_vr(tag, vr)) != vr:
            corrected = self._of_vr(dictionary_vr, member, path, nesting)
            if "InlineBinary" not in corrected:
                self._lenient.note(path, f"had VR {vr[:16]} and now has {dictionary_vr}")
                return corrected
        return self._of_vr(vr, member, path, nesting)

    def _of_vr(self, vr: str, member: dict[str, Any], path: str, nesting: int) -> Element:
        element: Element = {"vr": vr, **{key: member[key] for key in member if key not in ("vr", "Value")}}
        binary = element.get("InlineBinary")
        if isinstance(binary, str):
            binary = element["InlineBinary"] = "".join(binary.split())
            if self._lenient:
                binary = element["InlineBinary"] = _in_plain_base64(binary)
        if binary == "":
            del element["InlineBinary"]
        elif isinstance(binary, str) and self._lenient and not member.get("Value"):
            text = unpacked(vr, binary)
            if text:
                self._lenient.note(path, "had its value as InlineBinary")
                return text
        return self._with_values(element, member.get("Value"), path, nesting)

    def _with_values(self, element: Element, listed: Any, path: str, nesting: int) -> Element:
        if listed is None:
            return element
        if not isinstance(listed, list):
            raise refused(path, 'has a "Value" that is not an array')
        vr = element["vr"]
        if vr == "SQ":
            values = [self._item(value, path, nesting) for value in listed]
        elif vr == "PN":
            values = [self._name(value, path) for value in listed]
        else:
            values = inner_values(vr, listed, path, self._corrections)
        return {"vr": vr, "Value": values, **element} if values and values != [None] else element

    def _name(self, name: Any, path: str) -> Any:
        if not isinstance(name, dict):
            return None if name == "" else name
        groups = {group: name[group] for group in name if name[group] not in ("", None)}
        if self._lenient and not groups.keys() <= set(NAME_GROUPS):
            groups = {group.capitalize(): text for group, text in groups.items()}
            self._lenient.note(path, "had misspelled component groups")
        return groups or None

    def _item(self, item: Any, path: str, nesting: int) -> Any:
        if not isinstance(item, dict):
            raise refused(path, "has an item that is not an object")
        if nesting < 1:
            raise refused(path, "is nested too deeply")
        return self.data_set(item, path, nesting - 1)


# --- deviations from DICOM JSON ---


def _well_formed(member: Any, tag: str, path: str, corrections: Corrections) -> Any:
    """An element in the form of PS3.18 F.2.2, from a bare value or from an object with other members."""
    if (
        type(member) is dict
        and member.keys() <= _MEMBERS
        and isinstance(member.get("Value"), (list, NoneType))
    ):
        value = member.get("Value")
        if not value or (value[0] is not None and value[0] != "") or vr_of(tag) != "SQ":
            return member
    element = _members(member, tag)
    if element is None:
        element = {"Value": member if isinstance(member, list) else [member]}
    if element.get("Value") is None:
        element.pop("Value", None)
    elif not isinstance(element["Value"], list):
        element["Value"] = [element["Value"]]
    if vr_of(tag) == "SQ" and "Value" in element:
        element["Value"] = [item for item in element["Value"] if item is not None and item != ""]
    if element != member:
        corrections.note(path, 'was not an object with "vr" and an array "Value"')
    return element


def _members(member: Any, tag: str) -> dict[str, Any] | None:
    """The members of an element, regardless of case; None if the object itself is a value."""
    if not isinstance(member, dict):
        return None
    members = {_SPELLINGS[key.lower()]: value for key, value in member.items() if key.lower() in _SPELLINGS}
    return members if members or (not member and vr_of(tag) != "SQ") else None


def _in_plain_base64(text: str) -> str:
    """Standard base64, from base64 with the URL alphabet or without padding."""
    plain = text.replace("-", "+").replace("_", "/")
    return plain + "=" * (-len(plain) % 4)
