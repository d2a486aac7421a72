# SPDX-License-Identifier: AGPL-3.0-or-later
"""Why something was done, in the words of who did it: bounded, on one line, without patient or Transaction UID.

A reason is written down in histories, log lines and audit records. These promise to hold no patient data, and a
person who types a reason does not know that. So what the workitem calls its patient is blotted out of it.
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
"""Characters of a reason."""

_BLOT: Final = "[…]"
_LEAST: Final = 2
_UID: Final = re.compile(r"\d+(?:\.\d+)+")
_COMPONENTS: Final = re.compile(r"[\s^=]+")


def reason_of(command: Command, *workitems: Workitem) -> str:
    """The reason of a command as it may be written down (``discreet``); empty if it gives none.

    That of a cancellation request is in its information (PS3.4 CC.2.2.2).
    """
    reason = command.requester.reason
    if isinstance(command, RequestCancel):
        reason = in_words(command.information)
    return discreet(reason, *workitems) if reason else ""


def in_words(information: DataSet) -> str:
    """Reason For Cancellation (0074,1238) behind the meaning of its code, each if it is there."""
    codes = items(information, tags.DISCONTINUATION_REASONS)
    meanings = [text(code, tags.CODE_MEANING) for code in codes]
    return ": ".join(part for part in (*meanings, text(information, tags.REASON_FOR_CANCELLATION)) if part)


def discreet(reason: str, *workitems: Workitem) -> str:
    """A reason as it may be written down: printable, on one line, at most MAXIMUM characters long.

    Names and ID of the patient of these workitems and their Transaction UID are blotted out of it.
    """
    if not reason:
        return ""
    words = "".join(letter if letter.isprintable() else " " for letter in reason)
    for workitem in workitems:
        words = _without_transaction(_without_patient(words, workitem.attributes), workitem.owner)
    words = " ".join(words.split())
    return words if len(words) <= MAXIMUM else words[: MAXIMUM - 1] + "…"


def _without_transaction(words: str, owner: str | None) -> str:
    return _UID.sub(lambda match: _BLOT if digest(match[0]) == owner else match[0], words)


def _without_patient(words: str, attributes: DataSet) -> str:
    names = sorted(set(_names(attributes)), key=len, reverse=True)
    if not names:
        return words
    return re.sub("|".join(map(_whole_word, names)), _BLOT, words, flags=re.IGNORECASE)


def _names(attributes: DataSet) -> Iterator[str]:
    for name in values(attributes, tags.PATIENT_NAME):
        for group in name.values() if isinstance(name, dict) else ():
            yield from (part for part in _COMPONENTS.split(str(group)) if len(part) >= _LEAST)
    if len(identifier := text(attributes, tags.PATIENT_ID).strip()) >= _LEAST:
        yield identifier


def _whole_word(name: str) -> str:
    """ASCII names as whole words only: ``Art`` is no part of ``start``. Other scripts may have no blanks."""
    escaped = re.escape(name)
    return rf"(?<!\w){escaped}(?!\w)" if name.isascii() else escaped
