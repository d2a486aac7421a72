# SPDX-License-Identifier: AGPL-3.0-or-later
"""The server's messages to people, which the page translates into the language of its user.

A sentence is an English text with ``{name}`` in place of values. The text is the key of its translation in
``explorer/languages``. All sentences are here, and a test compares them with every language.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from . import answers

_PLACEHOLDER: Final = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class TimeSpan:
    """A duration in seconds."""

    seconds: float

    def __str__(self) -> str:
        """In words, such as ``3 minutes``."""
        for size, unit in ((86_400, "day"), (3600, "hour"), (60, "minute")):
            if self.seconds >= size:
                return _counted(int(self.seconds // size), unit)
        return _counted(int(self.seconds), "second")


def _counted(count: int, unit: str) -> str:
    return f"{count} {unit}{'' if count == 1 else 's'}"


Value: TypeAlias = "str | int | TimeSpan | Sentence"


@dataclass(frozen=True, slots=True)
class Sentence:
    """Words for people.

    Attributes:
        words: one of the constants of this module, or any text that has no translation.
        values: the values for ``{name}``. If ``words`` depend on a number, ``n``, they have ``|`` between singular
            and plural.
    """

    words: str
    values: Mapping[str, Value] = field(default_factory=dict)

    def __str__(self) -> str:
        """In English."""
        form = self.words
        if "n" in self.values:
            singular, _, plural = self.words.partition("|")
            form = singular if self.values["n"] == 1 else plural or singular
        return _PLACEHOLDER.sub(lambda match: _english(self.values.get(match[1], match[0])), form)

    def described(self) -> answers.SentenceJson:
        """As JSON, for the page."""
        return {"words": self.words, "values": {name: _json(value) for name, value in self.values.items()}}


def _english(value: Value) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _json(value: Value) -> object:
    if isinstance(value, Sentence):
        return value.described()
    return {"seconds": value.seconds} if isinstance(value, TimeSpan) else value


# --- warnings of the overview ---

THREADS_OFF: Final = (
    '"Python.AllowThreads" is off in orthanc.json, so Orthanc responds more slowly than it could. '
    "Set it to true."
)
EVERYBODY_ANONYMOUS: Final = (
    '"Ups.Users" names users, but "AuthenticationEnabled" is off in orthanc.json: everybody is anonymous.'
)
OTHER_PLUGIN: Final = (
    "Another plugin answers the worklist queries on Orthanc's DICOM port, so modalities do not see the "
    "workitems. List the Python plugin before it in Plugins of orthanc.json."
)
DISK_FULL: Final = (
    "The disk of {folder} is full: {free} kB are free, expected at least {least} MB. Free some space."
)
PORT_CLOSED: Final = (
    "The {name} port {port} is not open, perhaps because another program is using it; see Orthanc's log."
)
NO_COUNTS: Final = "Workitems cannot be counted or listed now: {why}."
STORE_SILENT: Final = "Nothing can be stored now: {why}."
CLOCK_BACK: Final = (
    "The clock of this server jumped back by {span}. Times in histories and retention may be off; check its time "
    "synchronisation."
)
CLOCK_FORWARD: Final = (
    "The clock of this server jumped forward by {span}. Times in histories and retention may be off; check its "
    "time synchronisation."
)
UNREACHABLE: Final = (
    "{ae} is subscribed, but is not in DicomModalities and has no WebSocket open, so no events can be delivered "
    "to it."
)
UPLOADS_REFUSED: Final = (
    "{n} upload of a UPS object was refused in the last day. Workitems are created by N-CREATE or UPS-RS, not by "
    "C-STORE, STOW-RS or REST. Orthanc's log shows who sent it.|"
    "{n} uploads of UPS objects were refused in the last day. Workitems are created by N-CREATE or UPS-RS, not by "
    "C-STORE, STOW-RS or REST. Orthanc's log shows who sent them."
)
NO_ADDRESS: Final = (
    "{n} event is waiting for {ae}, but no address is configured for it. Add it to DicomModalities, or have it "
    "open its WebSocket.|"
    "{n} events are waiting for {ae}, but no address is configured for it. Add it to DicomModalities, or have it "
    "open its WebSocket."
)
EVENTS_WAIT: Final = (
    "{n} event has been waiting for {ae} for {span}.|{n} events are waiting for {ae}, the oldest for {span}."
)
EVENTS_WAIT_AS: Final = (
    "{n} event has been waiting for {ae} for {span}: {why}.|"
    "{n} events are waiting for {ae}, the oldest for {span}: {why}."
)
REFUSES: Final = "{ae} refuses events: {why}."
OUTBOX_FULL: Final = (
    "The outbox for {ae} is nearly full: {pending} of {maximum}. "
    "Beyond that, the oldest events become dead letters."
)
DEAD_LETTERS: Final = (
    "{ae} has {n} dead letter ({channel}): send it again or drop it.|"
    "{ae} has {n} dead letters ({channel}): send them again or drop them."
)
NO_STANDBY: Final = "No other Orthanc is on standby: if this one stops, the worklist is unavailable."
THIS_STANDS_BY: Final = "This Orthanc is on standby: {leader} leads the worklist and answers requests."

# --- health of a channel ---

NO_WAY: Final = "Not in DicomModalities, and no WebSocket is open"
ENDED: Final = "Has unsubscribed"
GIVEN_UP: Final = "Gave up delivering the last event: {why}"
SEE_DEAD_LETTERS: Final = "see the dead letters"
LAST_FAILED: Final = "The last attempt failed"
ON_THEIR_WAY: Final = "Events are on their way"
NOTHING_YET: Final = "No events sent yet"
HAS_EVERYTHING: Final = "All events delivered"

ALL: Final = tuple(
    text
    for name, text in globals().items()
    if name.isupper() and isinstance(text, str) and not name.startswith("_")
)
"""Every sentence that has a translation."""
