# SPDX-License-Identifier: AGPL-3.0-or-later
"""Picks attributes out of a document without reading them: a page of JSON is a matter of cutting and joining text."""

from __future__ import annotations

from typing import Final

import msgspec
import orjson

from ..core.dataset import Element
from ..core.selection import Selection
from .document import FORMAT, attributes_of


class _Document(msgspec.Struct):
    format: int
    attributes: dict[str, msgspec.Raw]


class _Whole(msgspec.Struct):
    format: int
    attributes: msgspec.Raw


_READER: Final = msgspec.json.Decoder(_Document)
_WHOLE_READER: Final = msgspec.json.Decoder(_Whole)


def selected(document: bytes, selection: Selection) -> bytes:
    """The attributes of an answer as JSON text of the inner form (core/dataset.py). Raises UnreadableDocument."""
    members = _members(document)
    chosen = None if members is None else selection.of_members(members, _empty)
    if chosen is None:
        return orjson.dumps(selection.of(attributes_of(document)))
    return b"{%b}" % b",".join([b'"%b":%b' % (tag.encode(), text) for tag, text in chosen.items()])


def whole(document: bytes) -> bytes:
    """All attributes as JSON text of the inner form. Raises UnreadableDocument."""
    try:
        found = _WHOLE_READER.decode(document)
    except msgspec.MsgspecError:
        return orjson.dumps(attributes_of(document))
    text = bytes(found.attributes)
    is_understood = found.format == FORMAT and text.startswith(b"{")
    return text if is_understood else orjson.dumps(attributes_of(document))


def _members(document: bytes) -> dict[str, msgspec.Raw] | None:
    """The attributes by tag; None if it takes more to understand the document."""
    try:
        found = _READER.decode(document)
    except msgspec.MsgspecError:
        return None
    return found.attributes if found.format == FORMAT else None


def _empty(element: Element) -> msgspec.Raw:
    return msgspec.Raw(orjson.dumps(element))
