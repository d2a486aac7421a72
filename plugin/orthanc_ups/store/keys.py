# SPDX-License-Identifier: AGPL-3.0-or-later
"""Keys of the entries in the store: every kind of entry, in one list."""

from __future__ import annotations

from typing import Final

WORKLIST: Final = "worklist"
"""Reserved numbers and the identity of the worklist."""
NODE: Final = "node"
"""Which Orthanc has the worklist open."""
INDEX_MARK: Final = "index"
"""Which search index a start may trust."""
WORKITEM: Final = "workitem/"
SUBSCRIBER: Final = "subscriber/"
OVERFLOW: Final = "events/"
PROGRESS: Final = "delivery/"
DEAD_LETTERS: Final = "dead/"
NOTE: Final = "note/"


def workitem(uid: str) -> str:
    """Key of a workitem, or of its tombstone."""
    return WORKITEM + uid


def is_of_workitem(key: str) -> bool:
    """True for the key of a workitem or tombstone."""
    return key.startswith(WORKITEM)


def uid_of(key: str) -> str:
    """SOP Instance UID in the key of a workitem or tombstone."""
    return key.removeprefix(WORKITEM)


def subscriber(receiving_ae: str) -> str:
    """Key of the global acts of an AE."""
    return SUBSCRIBER + receiving_ae


def overflow(uid: str, first: int) -> str:
    """Key of undelivered events of a workitem, of which the first has the sequence ``first``."""
    return f"{OVERFLOW}{uid}/{first}"


def progress(receiving_ae: str) -> str:
    """Key of what an AE has received so far."""
    return PROGRESS + receiving_ae


def dead_letters(receiving_ae: str, channel: str, first: int) -> str:
    """Key of dead letters that were given up together, of which the first has the sequence ``first``."""
    return f"{DEAD_LETTERS}{receiving_ae}/{channel}/{first}"


def note(name: str) -> str:
    """Key of a note of another part of the plugin."""
    return NOTE + name
