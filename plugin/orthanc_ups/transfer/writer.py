# SPDX-License-Identifier: AGPL-3.0-or-later
"""Writes the lines of an export: each a JSON object with its ``kind``, data sets in DICOM JSON (PS3.18 Annex F).

The first line names the format. A line ``{"kind": "next", "after": …}`` ends a page that is not the last one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Final

import orjson

from .. import __version__
from ..codecs import dicom_json
from ..core.dataset import DataSet
from ..core.events import Event
from ..core.subscriptions import Log
from ..core.workitem import Workitem
from ..delivery.documents import Batch
from ..delivery.queue import Waiting
from .records import Head, Purged, Reach, Record, Tail

FORMAT: Final = 1
PRODUCT: Final = "orthanc-ups"


def encode(record: Record) -> bytes:
    """A record as one line, with its line feed."""
    return orjson.dumps(_WRITERS[type(record)](record), option=orjson.OPT_APPEND_NEWLINE)


def next_page(after: str) -> bytes:
    """The line that ends a page."""
    return orjson.dumps({"kind": "next", "after": after}, option=orjson.OPT_APPEND_NEWLINE)


def _dicom(dataset: DataSet) -> orjson.Fragment:
    return orjson.Fragment(dicom_json.encode(dataset))


def _head_out(head: Head) -> dict[str, Any]:
    return {
        "kind": "header",
        "product": PRODUCT,
        "version": __version__,
        "format": FORMAT,
        **dataclasses.asdict(head),
    }


def _log_out(log: Log) -> dict[str, Any]:
    acts = [
        {
            "sequence": act.sequence,
            "act": act.kind.value,
            "through": act.through,
            "at": act.at,
            "filtered": act.filtered,
            "filter": None if act.filter is None else _dicom(act.filter),
            "matched": act.matched.text() if act.filtered else None,
            **({"mechanisms": act.mechanisms.words()} if act.mechanisms else {}),
        }
        for act in log.acts
    ]
    return {"kind": "subscriber", "ae": log.receiving_ae, "revision": log.revision, "acts": acts}


def _reach_out(reach: Reach) -> dict[str, Any]:
    channels = {
        name: {"cursor": progress.cursor, "dropped": progress.dropped, "tally": dict(progress.tally)}
        for name, progress in reach.channels.items()
    }
    return {"kind": "delivery", "ae": reach.receiving_ae, "channels": channels}


def _workitem_out(workitem: Workitem) -> dict[str, Any]:
    return {
        "kind": "workitem",
        "uid": workitem.uid,
        "created": workitem.created,
        "revision": workitem.revision,
        "owner": workitem.owner,
        "ended": workitem.ended,
        "acts": {
            ae: {"sequence": act.sequence, "state": act.state.value, "at": act.at}
            for ae, act in workitem.acts.items()
        },
        "filtered": workitem.filtered,
        "events": [_event_out(event) for event in workitem.events],
        "history": [dataclasses.asdict(entry) for entry in workitem.history],
        "attributes": _dicom(workitem.attributes),
    }


def _event_out(event: Event) -> dict[str, Any]:
    return {
        "sequence": event.sequence,
        "type": int(event.type),
        "receivers": event.receivers,
        "at": event.at,
        "information": _dicom(event.information),
    }


def _purged_out(purged: Purged) -> dict[str, Any]:
    last = purged.last
    return {"kind": "purged", "uid": purged.uid, "at": last.at, "who": last.who, "why": last.why}


def _batch_out(batch: Batch) -> dict[str, Any]:
    return {
        "kind": "dead_letters",
        "ae": batch.endpoint.receiving_ae,
        "channel": batch.endpoint.channel,
        "reason": batch.reason,
        "at": batch.at,
        "letters": [_letter_out(letter) for letter in batch.letters],
    }


def _letter_out(letter: Waiting) -> dict[str, Any]:
    if isinstance(letter, Event):
        return {"uid": letter.uid, **_event_out(letter)}
    burst = letter.burst
    return {
        "burst": burst.first,
        "through": burst.through,
        "act": burst.act,
        "after": letter.after,
        "at": burst.at,
    }


def _tail_out(tail: Tail) -> dict[str, Any]:
    return {"kind": "end", **dataclasses.asdict(tail)}


_WRITERS: Final[dict[type, Callable[[Any], dict[str, Any]]]] = {
    Head: _head_out,
    Log: _log_out,
    Reach: _reach_out,
    Workitem: _workitem_out,
    Purged: _purged_out,
    Batch: _batch_out,
    Tail: _tail_out,
}
