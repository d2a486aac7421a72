# SPDX-License-Identifier: AGPL-3.0-or-later
"""Error Comment (0000,0902): 64 characters of ASCII, so tags come before words (PS3.7 Annex C)."""

from __future__ import annotations

import re
from typing import Final

from ..core.outcome import Outcome
from ..core.statuses import UpsError

_LONGEST: Final = 64
_SPELLED_TAG: Final = re.compile(r" ?\(([0-9A-F]{4},[0-9A-F]{4})\)")


def comment_of(error: UpsError) -> str:
    """What is wrong: the tags of all attributes at fault as far as they fit, then the first reason."""
    if not error.faults:
        return shortened(error.detail)
    paths = list(dict.fromkeys(fault.path for fault in error.faults))
    return shortened(f"{_spelled(paths)} {_SPELLED_TAG.sub('', error.faults[0].reason)}")


def comment_on(outcome: Outcome) -> str:
    """What was corrected, in the same way; without corrections what the status means."""
    if not outcome.details:
        return shortened(outcome.status.meaning)
    sentences = "; ".join(outcome.details)
    tags = list(dict.fromkeys(found.replace(",", "") for found in _SPELLED_TAG.findall(sentences)))
    return shortened(f"{_spelled(tags)} {_SPELLED_TAG.sub('', sentences)}".strip())


def _spelled(paths: list[str]) -> str:
    """``(0074,1204) (0040,4018)>(0008,0102),(0008,0104)``: neighbours in one sequence share it."""
    text, shared = "", None
    for path in paths:
        above, _, tag = path.rpartition(".")
        if shared is not None and above == shared and above:
            text += f",{_tag(tag)}"
        else:
            text += f" {'>'.join(map(_tag, path.split('.')))}"
        shared = above
    return text.strip()


def _tag(tag: str) -> str:
    return f"({tag[:4]},{tag[4:]})"


def shortened(comment: str) -> str:
    """What fits into Error Comment, cut between words where that loses little."""
    plain = comment.replace("\\", "/").replace("…", "...").encode("ascii", errors="replace").decode("ascii")
    if len(plain) <= _LONGEST:
        return plain
    cut = plain[: _LONGEST - 2]
    words = cut.rpartition(" ")[0]
    return (words if len(words) > _LONGEST // 2 else cut) + ".."
