# SPDX-License-Identifier: AGPL-3.0-or-later
"""The stored form of workitems and events: JSON documents with a format version.

Events mostly have the same receivers, so a document lists each set of receivers once and events refer to it.
A document of an older format is upgraded when it is read; one of a newer format is refused, so that
a downgrade of the plugin destroys nothing.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, TypeVar

import msgspec
import orjson

from ..core.dataset import DataSet, Element
from ..core.events import Event, EventType
from ..core.interned import LONGEST, Interned
from ..core.mechanisms import Mechanisms
from ..core.numbers import Numbers
from ..core.selection import Selection
from ..core.subscriptions import ActKind, GlobalAct, Log
from ..core.workitem import HistoryEntry, SpecificAct, Subscription, Workitem

FORMAT: Final = 1

UPGRADES: Final[Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]]] = {}
"""For each older format, a function that turns a document of any kind into one of the next format (1 is the first).

An upgrade distinguishes the kinds by their keys: only a workitem has ``attributes``, only a log ``acts`` without
``uid``, a delivery state ``channels``, dead letters ``letters``, the worklist entry ``sequences``. It may raise
KeyError, TypeError or ValueError for a document that is none of them.
"""


class UnreadableDocument(Exception):
    """The bytes are not a document of this plugin, or are one of a newer version. The text says which."""


_LONGEST_CACHED: Final = 64 * 1024


def packed(document: bytes) -> bytes:
    """A document compressed for the disk, to about a quarter of its size.

    The key-value store and the search index write the same document shortly after each other, so recent results are
    cached.
    """
    return _cached_deflated(document) if len(document) < _LONGEST_CACHED else _deflated(document)


def _deflated(document: bytes) -> bytes:
    return zlib.compress(document, 1, -zlib.MAX_WBITS)


_cached_deflated: Final = lru_cache(128)(_deflated)


def unpacked(stored: bytes) -> bytes:
    """The document in a compressed one. Raises UnreadableDocument."""
    try:
        return zlib.decompress(stored, -zlib.MAX_WBITS)
    except zlib.error as error:
        raise UnreadableDocument(f"not compressed: {error}") from error


def digest_of(document: bytes) -> str:
    """The digest of a document, in 32 hexadecimal digits."""
    return hashlib.blake2b(document, digest_size=16).hexdigest()


def encode(workitem: Workitem) -> bytes:
    """The document of a workitem (UTF-8 JSON)."""
    receivers: dict[tuple[str, ...], int] = {}
    content: dict[str, Any] = {
        "format": FORMAT,
        "uid": workitem.uid,
        "created": workitem.created,
        "revision": workitem.revision,
        "owner": workitem.owner,
        "ended": workitem.ended,
        "acts": {ae: [act.sequence, act.state.value, act.at] for ae, act in workitem.acts.items()},
        "filtered": workitem.filtered,
        "spilled": workitem.spilled,
        "history": [_entry_out(entry) for entry in workitem.history],
        "events": [_event_out(event, receivers) for event in workitem.events],
        "receivers": list(receivers),
        "attributes": workitem.attributes,
    }
    return orjson.dumps(content)


def decode(document: bytes) -> Workitem:
    """Read a workitem back. Raises UnreadableDocument."""
    return _workitem_in(read(document))


def decode_interned(document: bytes, interned: Interned) -> Workitem:
    """Like ``decode``, but short sequences that were decoded before become the same objects, to save memory.

    Raises UnreadableDocument.
    """
    try:
        content = msgspec.structs.asdict(_WITH_TEXTS.decode(document))
    except msgspec.MsgspecError:
        content = {}
    if content.get("format") != FORMAT:
        return decode(document)  # of another format, or unreadable
    content["attributes"] = _with_interned(content["attributes"], interned)
    return _workitem_in(content)


def _with_interned(texts: dict[str, msgspec.Raw], interned: Interned) -> DataSet:
    separate: dict[str, msgspec.Raw] = {}
    sequences: DataSet = {}
    for tag, raw in texts.items():
        text = bytes(raw)
        if len(text) > LONGEST or not text.startswith(_SEQUENCE):
            separate[tag] = raw
            continue
        entry = interned.get((tag, text))
        if entry is None:
            sequences[tag] = orjson.loads(text)
            interned.add((tag, text), sequences[tag])
        else:
            sequences[tag] = entry[0]
    elements: DataSet = orjson.loads(_joined(separate))
    return {tag: sequences[tag] if tag in sequences else elements[tag] for tag in texts}


def _workitem_in(content: dict[str, Any]) -> Workitem:
    try:
        return Workitem(
            uid=content["uid"],
            created=content["created"],
            attributes=content["attributes"],
            owner=content["owner"],
            acts={ae: SpecificAct(a[0], Subscription(a[1]), a[2]) for ae, a in content["acts"].items()},
            filtered=tuple(content["filtered"]),
            events=_events_in(content),
            spilled=tuple(content["spilled"]),
            history=tuple(HistoryEntry(*entry) for entry in content["history"]),
            ended=content["ended"],
            revision=content["revision"],
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise UnreadableDocument(f"not a workitem document: {error!r}") from error


def encode_events(uid: str, events: Iterable[Event]) -> bytes:
    """The document of an overflow entry: older waiting events of one workitem."""
    receivers: dict[tuple[str, ...], int] = {}
    content = {
        "format": FORMAT,
        "uid": uid,
        "events": [_event_out(event, receivers) for event in events],
        "receivers": list(receivers),
    }
    return orjson.dumps(content)


def decode_events(document: bytes) -> tuple[Event, ...]:
    """Read an overflow entry back. Raises UnreadableDocument."""
    content = read(document)
    try:
        return _events_in(content)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise UnreadableDocument(f"not an events document: {error!r}") from error


def read(document: bytes) -> dict[str, Any]:
    """The content of any document, upgraded to the current format. Raises UnreadableDocument."""
    try:
        content = orjson.loads(document)
    except orjson.JSONDecodeError as error:
        raise UnreadableDocument(f"not JSON: {error}") from error
    format_number = content.get("format") if isinstance(content, dict) else None
    if type(format_number) is not int:
        raise UnreadableDocument("no format version")
    if format_number > FORMAT:
        raise UnreadableDocument(f"format {format_number} is newer than this plugin's {FORMAT}")
    return content if format_number == FORMAT else _upgraded(content, format_number)


def is_tombstone(document: bytes) -> bool:
    """True for the document that replaces a purged workitem (worklist/workitem_store.py)."""
    return b'"gone":' in document[:200]


def attributes_of(document: bytes) -> DataSet:
    """The data set in a document. Raises UnreadableDocument."""
    attributes = read(document).get("attributes")
    if not isinstance(attributes, dict):
        raise UnreadableDocument("not a workitem document: no attributes")
    return attributes


def _upgraded(content: dict[str, Any], format_number: int) -> dict[str, Any]:
    for older in range(format_number, FORMAT):
        if older not in UPGRADES:
            raise UnreadableDocument(f"format {format_number} is older than what this plugin can read")
        try:
            content = {**UPGRADES[older](content), "format": older + 1}
        except (KeyError, TypeError, ValueError) as error:
            raise UnreadableDocument(f"not a document of format {older}: {error!r}") from error
    return content


def _entry_out(entry: HistoryEntry) -> list[Any]:
    """A history entry as JSON; most have no reason, which is then left out."""
    return [entry.at, entry.who, entry.what, *([entry.why] if entry.why else [])]


def _event_out(event: Event, receivers: dict[tuple[str, ...], int]) -> list[Any]:
    index = receivers.setdefault(event.receivers, len(receivers))
    return [event.sequence, int(event.type), event.information, index, event.at]


def _events_in(content: dict[str, Any]) -> tuple[Event, ...]:
    receivers = [tuple(names) for names in content["receivers"]]
    uid = content["uid"]
    return tuple(
        Event(sequence, EventType(kind), uid, information, receivers[index], at)
        for sequence, kind, information, index, at in content["events"]
    )


class _WithTexts(msgspec.Struct):
    """A document of a workitem whose attributes are not parsed."""

    format: int
    uid: Any
    created: Any
    revision: Any
    owner: Any
    ended: Any
    acts: Any
    filtered: Any
    spilled: Any
    history: Any
    events: Any
    receivers: Any
    attributes: dict[str, msgspec.Raw]


class _AsTexts(msgspec.Struct):
    format: int
    attributes: dict[str, msgspec.Raw]


class _AsText(msgspec.Struct):
    format: int
    attributes: msgspec.Raw


_T = TypeVar("_T", _AsTexts, _AsText)
_SEQUENCE: Final = b'{"vr":"SQ"'
_WITH_TEXTS: Final = msgspec.json.Decoder(_WithTexts)
_AS_TEXTS: Final = msgspec.json.Decoder(_AsTexts)
_AS_TEXT: Final = msgspec.json.Decoder(_AsText)


def selected(document: bytes, selection: Selection) -> bytes:
    """The attributes of an answer as JSON text of the inner form (core/dataset.py). Raises UnreadableDocument."""
    workitem = _read(_AS_TEXTS, document)
    chosen = None if workitem is None else selection.of_members(workitem.attributes, _empty)
    if chosen is None:
        return orjson.dumps(selection.of(attributes_of(document)))
    return _joined(chosen)


def whole(document: bytes) -> bytes:
    """All attributes as JSON text of the inner form. Raises UnreadableDocument."""
    workitem = _read(_AS_TEXT, document)
    text = b"" if workitem is None else bytes(workitem.attributes)
    return text if text.startswith(b"{") else orjson.dumps(attributes_of(document))


def _read(reader: msgspec.json.Decoder[_T], document: bytes) -> _T | None:
    """The parsed document, None if it has another format."""
    try:
        workitem = reader.decode(document)
    except msgspec.MsgspecError:
        return None
    return workitem if workitem.format == FORMAT else None


def _empty(element: Element) -> msgspec.Raw:
    return msgspec.Raw(orjson.dumps(element))


def _joined(members: Mapping[str, msgspec.Raw]) -> bytes:
    return b"{%b}" % b",".join([b'"%b":%b' % (tag.encode(), text) for tag, text in members.items()])


def encode_log(log: Log) -> bytes:
    """The document of the entry ``subscriber/<AE>``."""
    return orjson.dumps(
        {
            "format": FORMAT,
            "ae": log.receiving_ae,
            "revision": log.revision,
            "acts": [_act_out(act) for act in log.acts],
        }
    )


def decode_log(document: bytes) -> Log:
    """Read a log back. Raises UnreadableDocument."""
    content = read(document)
    try:
        acts = tuple(_act_in(act) for act in content["acts"])
        return Log(content["ae"], acts, content["revision"])
    except (KeyError, TypeError, ValueError) as error:
        raise UnreadableDocument(f"not a subscriber document: {error!r}") from error


def _act_out(act: GlobalAct) -> dict[str, Any]:
    content: dict[str, Any] = {
        "sequence": act.sequence,
        "kind": act.kind.value,
        "through": act.through,
        "at": act.at,
    }
    if act.filtered:
        content |= {"filter": act.filter, "matched": act.matched.text()}
    if act.mechanisms:
        content["mechanisms"] = act.mechanisms.words()
    return content


def _act_in(content: dict[str, Any]) -> GlobalAct:
    filtered = "matched" in content
    return GlobalAct(
        content["sequence"],
        ActKind(content["kind"]),
        content["through"],
        filtered,
        content["filter"] if filtered else None,
        Numbers.read(content["matched"]) if filtered else Numbers(),
        content["at"],
        Mechanisms.of_words(content.get("mechanisms", ())),
    )
