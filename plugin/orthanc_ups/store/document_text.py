# SPDX-License-Identifier: AGPL-3.0-or-later
"""Picks attributes out of a document without reading them: a page of JSON is a matter of cutting and joining text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec
import orjson

from ..core.dataset import Element
from ..core.selection import Selection
from .document import FORMAT, attributes_of


class _InParts(msgspec.Struct):
    format: int
    attributes: dict[str, msgspec.Raw]


class _InOne(msgspec.Struct):
    format: int
    attributes: msgspec.Raw


_T = TypeVar("_T", _InParts, _InOne)
_IN_PARTS: Final = msgspec.json.Decoder(_InParts)
_IN_ONE: Final = msgspec.json.Decoder(_InOne)


def selected(document: bytes, selection: Selection) -> bytes:
    """The attributes of an answer as JSON text of the inner form (core/dataset.py). Raises UnreadableDocument."""
    workitem = _read(_IN_PARTS, document)
    chosen = None if workitem is None else selection.of_members(workitem.attributes, _empty)
    if chosen is None:
        return orjson.dumps(selection.of(attributes_of(document)))
    return _joined(chosen)


def whole(document: bytes) -> bytes:
    """All attributes as JSON text of the inner form. Raises UnreadableDocument."""
    workitem = _read(_IN_ONE, document)
    text = b"" if workitem is None else bytes(workitem.attributes)
    return text if text.startswith(b"{") else orjson.dumps(attributes_of(document))


def _read(reader: msgspec.json.Decoder[_T], document: bytes) -> _T | None:
    """None if it takes more to understand the document."""
    try:
        workitem = reader.decode(document)
    except msgspec.MsgspecError:
        return None
    return workitem if workitem.format == FORMAT else None


def _empty(element: Element) -> msgspec.Raw:
    return msgspec.Raw(orjson.dumps(element))


def _joined(members: Mapping[str, msgspec.Raw]) -> bytes:
    return b"{%b}" % b",".join([b'"%b":%b' % (tag.encode(), text) for tag, text in members.items()])
