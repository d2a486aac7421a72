# SPDX-License-Identifier: AGPL-3.0-or-later
"""Picks attributes out of a document without reading them: a page of JSON is a matter of cutting and joining text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
import orjson

from ..core.dataset import Element
from ..core.selection import Selection
from .document import FORMAT, attributes_of


class _Document(msgspec.Struct):
    format: int
    attributes: dict[str, msgspec.Raw]


_READER: Final = msgspec.json.Decoder(_Document)


def selected(document: bytes, selection: Selection) -> bytes:
    """The attributes of an answer as JSON text of the inner form (core/dataset.py). Raises UnreadableDocument."""
    members = _members(document)
    chosen = None if members is None else selection.of_members(members, _empty)
    if chosen is None:
        return orjson.dumps(selection.of(attributes_of(document)))
    return _joined(chosen)


def whole(document: bytes) -> bytes:
    """All attributes as JSON text of the inner form. Raises UnreadableDocument."""
    members = _members(document)
    return orjson.dumps(attributes_of(document)) if members is None else _joined(members)


def _members(document: bytes) -> dict[str, msgspec.Raw] | None:
    """The attributes by tag; None if it takes more to understand the document."""
    try:
        found = _READER.decode(document)
    except msgspec.MsgspecError:
        return None
    return found.attributes if found.format == FORMAT else None


def _empty(element: Element) -> msgspec.Raw:
    return msgspec.Raw(orjson.dumps(element))


def _joined(members: Mapping[str, msgspec.Raw]) -> bytes:
    return b"{%b}" % b",".join([b'"%b":%b' % (tag.encode(), text) for tag, text in members.items()])
