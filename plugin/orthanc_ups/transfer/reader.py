# SPDX-License-Identifier: AGPL-3.0-or-later
"""Reads the lines of an export; a mistake names the field, what it is and what is expected."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any, Final, TypeVar

from ..codecs import dicom_json
from ..codecs.element_values import Number
from ..core import tags
from ..core.dataset import DataSet, text
from ..core.decide import is_uid
from ..core.events import Event, EventType
from ..core.matching import Query
from ..core.mechanisms import Mechanisms
from ..core.numbers import Numbers
from ..core.reasons import discreet
from ..core.representations import REPRESENTATIONS
from ..core.states import State
from ..core.statuses import UpsError
from ..core.subscriptions import ActKind, GlobalAct, Log
from ..core.value_rules import check_values
from ..core.workitem import HistoryEntry, SpecificAct, Subscription, Workitem
from ..delivery.documents import Batch, Progress
from ..delivery.port import Burst, Endpoint
from ..delivery.queue import BurstAt, Waiting
from .records import Head, Purged, Reach, Record, Tail
from .writer import FORMAT, PRODUCT

_GREATEST: Final = 2**53
_T = TypeVar("_T")


class WrongField(ValueError):
    """A field is absent or not what it must be; the text names it."""


class Fields:
    """An object as ``dicom_json.parsed`` gives it. Every method raises WrongField."""

    def __init__(self, value: object, path: str = "") -> None:
        if not isinstance(value, dict):
            raise WrongField(f"{path or 'the line'} is no JSON object")
        self._found: Mapping[str, Any] = value
        self._path = path

    def _name(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name

    def _get(self, name: str) -> Any:
        if name not in self._found:
            raise WrongField(f"{self._name(name)} is missing")
        return self._found[name]

    def _wrong(self, name: str, expected: str) -> WrongField:
        return WrongField(f"{self._name(name)} is {_shown(self._found[name])}, expected {expected}")

    def text(self, name: str) -> str:
        """A text."""
        value = self._get(name)
        if type(value) is not str:
            raise self._wrong(name, "a text")
        return value

    def maybe_text(self, name: str) -> str | None:
        """A text or null."""
        return None if self._get(name) is None else self.text(name)

    def number(self, name: str, low: int = 0) -> int:
        """A whole number."""
        value = _whole(self._get(name))
        if value is None or not low <= value <= _GREATEST:
            raise self._wrong(name, f"a whole number from {low}")
        return value

    def maybe_number(self, name: str) -> int | None:
        """A whole number or null."""
        return None if self._get(name) is None else self.number(name)

    def time(self, name: str) -> float:
        """Seconds since the epoch."""
        value = _real(self._get(name))
        if value is None or value < 0:
            raise self._wrong(name, "seconds since the epoch")
        return value

    def maybe_time(self, name: str) -> float | None:
        """Seconds since the epoch, or null."""
        return None if self._get(name) is None else self.time(name)

    def numbers(self, name: str) -> tuple[int, ...]:
        """A list of whole numbers."""
        numbers = [_whole(number) for number in self._list(name)]
        if any(number is None or not 0 <= number <= _GREATEST for number in numbers):
            raise self._wrong(name, "a list of whole numbers")
        return tuple(number for number in numbers if number is not None)

    def _list(self, name: str) -> list[Any]:
        values = self._get(name)
        if not isinstance(values, list):
            raise self._wrong(name, "a list")
        return values

    def uid(self, name: str) -> str:
        """A UID."""
        value = self.text(name)
        if not is_uid(value):
            raise self._wrong(name, "a UID")
        return value

    def ae(self, name: str) -> str:
        """An AE title."""
        return _ae(self.text(name), self._name(name))

    def aes(self, name: str) -> tuple[str, ...]:
        """A list of AE titles."""
        return tuple(_ae(title, self._name(name)) for title in self._list(name))

    def choice(self, name: str, make: Callable[[Any], _T]) -> _T:
        """One of the values of an enumeration, given as text or number."""
        value = self._get(name)
        whole = _whole(value)
        try:
            return make(value if whole is None else whole)
        except (ValueError, KeyError, TypeError):
            raise self._wrong(name, "one of the values that an export writes") from None

    def objects(self, name: str) -> Iterator[Fields]:
        """A list of objects."""
        for index, value in enumerate(self._list(name)):
            yield Fields(value, f"{self._name(name)}[{index}]")

    def object(self, name: str) -> Fields:
        """An object."""
        return Fields(self._get(name), self._name(name))

    def counts(self, name: str) -> dict[str, int]:
        """An object of whole numbers."""
        own = self.object(name)
        return {key: own.number(key) for key in own._found}

    def flag(self, name: str) -> bool:
        """A truth value."""
        value = self._get(name)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false")
        return value

    def by_name(self, name: str) -> Iterator[tuple[str, Fields]]:
        """The values of an object, which are objects."""
        members = self._get(name)
        if not isinstance(members, dict):
            raise self._wrong(name, "an object")
        for key, value in members.items():
            yield key, Fields(value, f"{self._name(name)}.{key}")

    def by_ae(self, name: str) -> Iterator[tuple[str, Fields]]:
        """The same, with AE titles as names."""
        for key, fields in self.by_name(name):
            yield _ae(key, self._name(name)), fields

    def data_set(self, name: str, *, is_filter: bool = False) -> DataSet:
        """A data set in DICOM JSON, whose values are checked. Raises UpsError or MalformedJson too."""
        value = dicom_json.data_set(self._get(name))
        if not is_filter:
            check_values(value)
        return value

    def has(self, name: str) -> bool:
        """True if there is such a field and it is not null."""
        return self._found.get(name) is not None


def _whole(value: object) -> int | None:
    return (
        int(value)
        if type(value) is Number and value.removeprefix("-").isdigit() and len(value) < 20
        else None
    )


def _real(value: object) -> float | None:
    value = float(value) if type(value) is Number else math.nan
    return value if math.isfinite(value) else None


def _ae(value: object, name: str) -> str:
    if type(value) is not str or not REPRESENTATIONS["AE"].valid(value) or not value.strip():
        raise WrongField(f"{name} is {_shown(value)}, expected an AE title")
    return value


def _shown(value: object) -> str:
    text = str(value) if type(value) is Number else repr(value)
    return text if len(text) <= 40 else text[:37] + "…"


_DIGEST: Final = re.compile("[0-9a-f]{64}")
_CHANNEL: Final = re.compile(r"[!-~][ -~]{0,199}")


class NotALine(ValueError):
    """A line cannot be read; the text says why."""


def decode(line: bytes) -> Record | None:
    """The record of a line; None for one that ends a page. Raises NotALine."""
    try:
        fields = Fields(dicom_json.parsed(line))
        kind = fields.text("kind")
        if kind == "next":
            return None
        if kind not in _READERS:
            raise WrongField(f"kind is {kind[:40]!r}, expected one of {', '.join(_READERS)}")
        return _READERS[kind](fields)
    except UpsError as error:
        raise NotALine(error.detail) from error
    except ValueError as error:
        raise NotALine(str(error)) from error


def _head(fields: Fields) -> Head:
    if fields.text("product") != PRODUCT:
        raise WrongField(f"this is not an export of {PRODUCT}")
    version = fields.number("format")
    if version != FORMAT:
        raise WrongField(
            f"the format is {version}, expected {FORMAT}: the export is of another version of {PRODUCT}"
        )
    return Head(
        fields.text("identity"),
        fields.number("next_sequence", 1),
        fields.number("next_creation", 1),
        fields.time("at"),
        fields.counts("counts"),
    )


def _tail(fields: Fields) -> Tail:
    return Tail(fields.number("next_sequence", 1), fields.number("next_creation", 1))


# --- subscribers ---


def _log(fields: Fields) -> Log:
    acts = tuple(_global_act(act) for act in fields.objects("acts"))
    sequences = [act.sequence for act in acts]
    if sequences != sorted(set(sequences)):
        raise WrongField("acts are not in growing sequence")
    return Log(fields.ae("ae"), acts, fields.number("revision"))


def _global_act(fields: Fields) -> GlobalAct:
    filtered = fields.flag("filtered")
    act_filter = fields.data_set("filter", is_filter=True) if fields.has("filter") else None
    kind = fields.choice("act", ActKind)
    mechanisms = Mechanisms.NONE
    if fields.has("mechanisms"):
        mechanisms = fields.choice("mechanisms", Mechanisms.of_words)
    if act_filter is not None:
        Query.of(act_filter, mechanisms=mechanisms)
    elif filtered and kind.subscribes:
        raise WrongField("a filtered subscription has no filter")
    matched = fields.choice("matched", Numbers.read) if filtered else Numbers()
    through, at = fields.number("through"), fields.time("at")
    return GlobalAct(
        fields.number("sequence", 1), kind, through, filtered, act_filter, matched, at, mechanisms
    )


def _reach(fields: Fields) -> Reach:
    return Reach(
        fields.ae("ae"), {name: _progress(progress) for name, progress in fields.by_name("channels")}
    )


def _progress(fields: Fields) -> Progress:
    tally = fields.object("tally")
    restored: dict[str, Any] = {name: tally.number(name) for name in ("delivered", "failed", "dead")}
    restored |= {name: tally.maybe_time(name) for name in ("last_success_at", "last_error_at")}
    restored["last_error"] = tally.text("last_error")
    return Progress(fields.maybe_number("cursor"), fields.numbers("dropped"), restored)


# --- workitems ---


def _workitem(fields: Fields) -> Workitem:
    uid, attributes = fields.uid("uid"), fields.data_set("attributes")
    if text(attributes, tags.SOP_INSTANCE_UID) != uid:
        raise WrongField("attributes have another SOP Instance UID (0008,0018) than the workitem")
    if text(attributes, tags.STATE) not in {state.value for state in State}:
        raise WrongField("attributes have no valid Procedure Step State (0074,1000)")
    owner = fields.maybe_text("owner")
    if owner is not None and not _DIGEST.fullmatch(owner):
        raise WrongField("owner is not a digest of a Transaction UID")
    return Workitem(
        uid=uid,
        created=fields.number("created", 1),
        attributes=attributes,
        owner=owner,
        acts={ae: _specific_act(item) for ae, item in fields.by_ae("acts")},
        filtered=fields.numbers("filtered"),
        events=_events(fields, uid),
        history=tuple(_entry(item) for item in fields.objects("history")),
        ended=fields.maybe_time("ended"),
        revision=fields.number("revision"),
    )


def _specific_act(fields: Fields) -> SpecificAct:
    return SpecificAct(fields.number("sequence", 1), fields.choice("state", Subscription), fields.time("at"))


def _entry(fields: Fields) -> HistoryEntry:
    return HistoryEntry(fields.time("at"), fields.text("who"), fields.text("what"), _why(fields))


def _why(fields: Fields) -> str:
    """Exports of before there were reasons have none."""
    return discreet(fields.text("why")) if fields.has("why") else ""


def _events(fields: Fields, uid: str) -> tuple[Event, ...]:
    """By sequence. There are exports that have them in another order."""
    events = sorted(
        (_event(event, uid) for event in fields.objects("events")), key=lambda event: event.sequence
    )
    if any(event.sequence == other.sequence for event, other in pairwise(events)):
        raise WrongField("two events have the same sequence")
    return tuple(events)


def _event(fields: Fields, uid: str) -> Event:
    return Event(
        fields.number("sequence", 1),
        fields.choice("type", EventType),
        uid,
        fields.data_set("information"),
        fields.aes("receivers"),
        fields.time("at"),
    )


def _purged(fields: Fields) -> Purged:
    who = fields.text("who") if fields.has("who") else ""
    return Purged(fields.uid("uid"), HistoryEntry(fields.time("at"), who, "purged", _why(fields)))


# --- dead letters ---


def _batch(fields: Fields) -> Batch:
    channel = fields.text("channel")
    if not _CHANNEL.fullmatch(channel):
        raise WrongField("channel is not the name of a channel")
    endpoint = Endpoint(fields.ae("ae"), channel)
    letters = tuple(_letter(letter, endpoint) for letter in fields.objects("letters"))
    if not letters:
        raise WrongField("letters is empty")
    return Batch(endpoint, letters, fields.text("reason"), fields.time("at"))


def _letter(fields: Fields, endpoint: Endpoint) -> Waiting:
    if not fields.has("burst"):
        return _event(fields, fields.uid("uid"))
    first, through, act = fields.number("burst", 1), fields.number("through"), fields.number("act", 1)
    burst = Burst(endpoint.receiving_ae, first, through, act, fields.time("at"))
    return BurstAt(burst, fields.number("after"))


_READERS: Final[dict[str, Callable[[Fields], Record]]] = {
    "header": _head,
    "subscriber": _log,
    "delivery": _reach,
    "workitem": _workitem,
    "purged": _purged,
    "dead_letters": _batch,
    "end": _tail,
}
