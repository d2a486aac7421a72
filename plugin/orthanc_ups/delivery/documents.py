# SPDX-License-Identifier: AGPL-3.0-or-later
"""What delivery stores: ``delivery/<AE>`` (cursors and counts) and ``dead/<AE>/…`` (dead letters)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from ..core.events import Event, EventType
from ..store.documents import FORMAT, UnreadableDocument, read
from .port import Burst, Endpoint
from .queue import BurstAt, Waiting


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of one channel of an AE.

    Attributes:
        cursor: everything up to this sequence is delivered, dead or dropped; None for a live-only endpoint.
        dropped: sequences after the cursor that an operator dropped.
        tally: see ``Tally.document``.
    """

    cursor: int | None
    dropped: tuple[int, ...] = ()
    tally: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Batch:
    """Dead letters that were given up together.

    Attributes:
        letters: events and what remains of bursts, by sequence.
        reason: why, as text.
        at: when, in seconds since the epoch.
    """

    endpoint: Endpoint
    letters: tuple[Waiting, ...]
    reason: str
    at: float


def encode_progress(
    receiving_ae: str, revision: int, channels: Mapping[str, Progress], joined: Collection[str] = ()
) -> bytes:
    """The document of ``delivery/<AE>``; ``revision`` makes every write different.

    ``joined``: other spellings of the AE title whose entries have been merged into this one but not deleted yet.
    """
    content: dict[str, Any] = {
        "format": FORMAT,
        "ae": receiving_ae,
        "revision": revision,
        "channels": {
            name: {"cursor": progress.cursor, "dropped": progress.dropped, **progress.tally}
            for name, progress in channels.items()
        },
    }
    if joined:
        content["joined"] = sorted(joined)
    return orjson.dumps(content)


def joined_titles(document: bytes) -> frozenset[str]:
    """The spellings whose progress is merged into a document of ``delivery/<AE>``. Raises UnreadableDocument."""
    return frozenset(map(str, read(document).get("joined", ())))


def decode_progress(document: bytes) -> tuple[str, int, dict[str, Progress]]:
    """AE, revision and channels. Raises UnreadableDocument."""
    content = read(document)
    try:
        channels = {str(name): _progress(progress) for name, progress in content["channels"].items()}
        return str(content["ae"]), int(content["revision"]), channels
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnreadableDocument(f"not a delivery document: {error!r}") from error


def _progress(content: Mapping[str, Any]) -> Progress:
    cursor = content["cursor"]
    tally = {name: value for name, value in content.items() if name not in ("cursor", "dropped")}
    return Progress(None if cursor is None else int(cursor), tuple(map(int, content["dropped"])), tally)


def encode_batch(batch: Batch, revision: int) -> bytes:
    """The document of ``dead/<AE>/…``; ``revision`` as for ``encode_progress``."""
    content = {
        "format": FORMAT,
        "ae": batch.endpoint.receiving_ae,
        "channel": batch.endpoint.channel,
        "revision": revision,
        "reason": batch.reason,
        "at": batch.at,
        "letters": [_encode_letter(letter) for letter in batch.letters],
    }
    return orjson.dumps(content)


def decode_batch(document: bytes) -> Batch:
    """The dead letters of a document. Raises UnreadableDocument."""
    content = read(document)
    try:
        endpoint = Endpoint(str(content["ae"]), str(content["channel"]))
        letters = tuple(_decode_letter(letter, endpoint.receiving_ae) for letter in content["letters"])
        return Batch(endpoint, letters, str(content["reason"]), float(content["at"]))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise UnreadableDocument(f"not a document of dead letters: {error!r}") from error


def _encode_letter(letter: Waiting) -> list[Any]:
    if isinstance(letter, Event):
        return [letter.sequence, int(letter.type), letter.uid, letter.information, letter.at]
    burst = letter.burst
    return [burst.first, burst.through, burst.act, letter.after, burst.at, "burst"]


def _decode_letter(content: Sequence[Any], receiving_ae: str) -> Waiting:
    if content[-1] == "burst":
        first, through, act, after, at, _ = content
        return BurstAt(Burst(receiving_ae, int(first), int(through), int(act), float(at)), int(after))
    sequence, kind, uid, information, at = content
    return Event(int(sequence), EventType(kind), str(uid), information, (receiving_ae,), float(at))
