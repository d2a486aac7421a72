# SPDX-License-Identifier: AGPL-3.0-or-later
"""How an AE's log of global subscription acts is written down, and the worklist's header."""

from __future__ import annotations

from typing import Any

import orjson

from ..core.mechanisms import Mechanisms
from ..core.numbers import Numbers
from ..core.subscriptions import GlobalAct, Kind, Log
from .document import FORMAT, UnreadableDocument, read


def encode_log(log: Log) -> bytes:
    """The document of entry ``subscriber/<AE>``."""
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
        Kind(content["kind"]),
        content["through"],
        filtered,
        content["filter"] if filtered else None,
        Numbers.read(content["matched"]) if filtered else Numbers(),
        content["at"],
        Mechanisms.of_words(content.get("mechanisms", ())),
    )
