# SPDX-License-Identifier: AGPL-3.0-or-later
"""The reasons that requesters give: of limited length, on one line, without patient data and Transaction UID.

Reasons go into histories, log lines and audit records, which must not contain patient data. People who type a reason
may not know that, so the names and ID of the workitem's patient are removed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from . import tags
from .commands import Command, RequestCancel
from .dataset import DataSet, items, text, values
from .workitem import Workitem, digest

MAXIMUM: Final = 500
"""Greatest length of a reason, in characters."""

_REMOVED: Final = "[…]"
_SHORTEST: Final = 2  # characters of a name or ID that is removed
_UID: Final = re.compile(r"\d+(?:\.\d+)+")
_COMPONENTS: Final = re.compile(r"[\s^=]+")


def reason_of(command: Command, *workitems: Workitem) -> str:
    """The reason of a command, made ``discreet``; empty if it gives none.

    That of a cancellation request is in its information (PS3.4 CC.2.2.2).
    """
    reason = command.requester.reason
    if isinstance(command, RequestCancel):
        reason = in_words(command.information)
    return discreet(reason, *workitems) if reason else ""


def in_words(information: DataSet) -> str:
    """The meanings of the reason codes and Reason For Cancellation (0074,1238), as far as they are present."""
    codes = items(information, tags.DISCONTINUATION_REASONS)
    meanings = [text(code, tags.CODE_MEANING) for code in codes]
    return ": ".join(part for part in (*meanings, text(information, tags.REASON_FOR_CANCELLATION)) if part)


def discreet(reason: str, *workitems: Workitem) -> str:
    """The reason in a form that may be recorded: printable, on one line, of at most MAXIMUM characters.

    The names and ID of these workitems' patients and their Transaction UIDs are replaced by ``[…]``.
    """
    if not reason:
        return ""
    words = "".join(letter if letter.isprintable() else " " for letter in reason)
    for workitem in workitems:
        words = _without_transaction(_without_patient(words, workitem.attributes), workitem.owner)
    words = " ".join(words.split())
    return words if len(words) <= MAXIMUM else words[: MAXIMUM - 1] + "…"


def _without_transaction(words: str, owner: str | None) -> str:
    return _UID.sub(lambda match: _REMOVED if digest(match[0]) == owner else match[0], words)


def _without_patient(words: str, attributes: DataSet) -> str:
    names = sorted(set(_names(attributes)), key=len, reverse=True)
    if not names:
        return words
    return re.sub("|".join(map(_whole_word, names)), _REMOVED, words, flags=re.IGNORECASE)


def _names(attributes: DataSet) -> Iterator[str]:
    for name in values(attributes, tags.PATIENT_NAME):
        for group in name.values() if isinstance(name, dict) else ():
            yield from (part for part in _COMPONENTS.split(str(group)) if len(part) >= _SHORTEST)
    if len(identifier := text(attributes, tags.PATIENT_ID).strip()) >= _SHORTEST:
        yield identifier


def _whole_word(name: str) -> str:
    """A pattern of a name. ASCII names match whole words (``Art`` not ``start``); other scripts may lack blanks."""
    escaped = re.escape(name)
    return rf"(?<!\w){escaped}(?!\w)" if name.isascii() else escaped
