# SPDX-License-Identifier: AGPL-3.0-or-later
"""The lines of an export: JSON objects with a ``kind``, and data sets in DICOM JSON (PS3.18 Annex F).

    {"kind": "purged", "uid": "1.2.3", "at": 1795376841.5, "who": "anna as WORKLIST by page", "why": "Ordered twice"}

The first line names the format. Each page but the last ends with a line ``{"kind": "next", "after": …}``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Final, Literal, TypeAlias, get_args

import msgspec
from msgspec import Meta, Raw, Struct

from .. import __version__
from ..codecs import dicom_json
from ..codecs.structs import WrongKeys, check
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
from ..modality.performed_steps import STATUS, PerformedStep, StepStatus
from .records import AeCursors, Head, Purged, Record, Tail

FORMAT: Final = 1
PRODUCT: Final = "orthanc-ups"

Number: TypeAlias = Annotated[int, Meta(ge=0, le=2**53)]
Positive: TypeAlias = Annotated[int, Meta(ge=1, le=2**53)]
Moment: TypeAlias = Annotated[float, Meta(ge=0)]
"""Seconds since the epoch."""
NULL: Final = Raw(b"null")
"""An absent data set."""


class HeaderLine(Struct, tag_field="kind", tag="header"):
    """The first line: the format, and the exported worklist."""

    product: str
    format: int
    identity: str
    next_sequence: Positive
    next_creation: Positive
    at: Moment
    counts: dict[str, Number]
    version: str = ""
    origins: tuple[str, ...] = ()


class ActFields(Struct, omit_defaults=True):
    """A global act. ``filter``, ``matched`` and ``mechanisms`` are those of a filtered one."""

    sequence: Positive
    act: ActKind
    through: Number
    at: Moment
    filtered: bool
    filter: Raw = NULL
    matched: str | None = None
    mechanisms: list[Literal["fuzzy", "empty", "multiple"]] | None = None


class SubscriberLine(Struct, tag_field="kind", tag="subscriber"):
    """The log of an AE's global acts."""

    ae: str
    revision: Number
    acts: list[ActFields]


class TallyFields(Struct):
    """Counters of a channel."""

    delivered: Number
    failed: Number
    dead: Number
    last_success_at: Moment | None
    last_error: str
    last_error_at: Moment | None


class ChannelFields(Struct):
    """The state of a channel: its cursor, the events above it that were dropped, and its counters."""

    cursor: Number | None
    dropped: list[Number]
    tally: TallyFields


class DeliveryLine(Struct, tag_field="kind", tag="delivery"):
    """The state of delivery to an AE, per channel."""

    ae: str
    channels: dict[str, ChannelFields]


class SpecificActFields(Struct):
    """An act on one workitem."""

    sequence: Positive
    state: Subscription
    at: Moment


class HistoryFields(Struct):
    """An entry of a history. Exports of early versions have no ``why``."""

    at: Moment
    who: str
    what: str
    why: str | None = None


class EventFields(Struct):
    """An event of a workitem."""

    sequence: Positive
    type: EventType
    receivers: list[str]
    at: Moment
    information: Raw


class WorkitemLine(Struct, tag_field="kind", tag="workitem"):
    """A workitem with its waiting events."""

    uid: str
    created: Positive
    revision: Number
    owner: str | None
    ended: Moment | None
    acts: dict[str, SpecificActFields]
    filtered: list[Number]
    events: list[EventFields]
    history: list[HistoryFields]
    attributes: Raw


class PurgedLine(Struct, tag_field="kind", tag="purged"):
    """A purged workitem."""

    uid: str
    at: Moment
    who: str | None = None
    why: str | None = None


class PerformedStepLine(Struct, tag_field="kind", tag="performed_step"):
    """A performed procedure step (MPPS); ``notes`` say per workitem why the step was not applied to it."""

    uid: str
    ae: str
    worklist: str
    created: Moment
    changed: Moment
    revision: Number
    workitems: list[str]
    notes: dict[str, str]
    history: list[HistoryFields]
    attributes: Raw


class LetterFields(Struct, omit_defaults=True):
    """A dead letter: an event of any workitem, or the rest of a burst of initial reports (``burst`` …)."""

    at: Moment
    uid: str | None = None
    sequence: Positive | None = None
    type: EventType | None = None
    receivers: list[str] | None = None
    information: Raw = NULL
    burst: Positive | None = None
    through: Number | None = None
    act: Positive | None = None
    after: Number | None = None


class DeadLettersLine(Struct, tag_field="kind", tag="dead_letters"):
    """Events that were given up together."""

    ae: str
    channel: str
    reason: str
    at: Moment
    letters: Annotated[list[LetterFields], Meta(min_length=1)]


class EndLine(Struct, tag_field="kind", tag="end"):
    """The last line, which makes the export complete."""

    next_sequence: Positive
    next_creation: Positive


class NextLine(Struct, tag_field="kind", tag="next"):
    """The last line of a page, unless it is the last page."""

    after: Any = None


Line: TypeAlias = (
    HeaderLine
    | SubscriberLine
    | DeliveryLine
    | WorkitemLine
    | PurgedLine
    | PerformedStepLine
    | DeadLettersLine
    | EndLine
    | NextLine
)


class NotALine(ValueError):
    """A line cannot be read; the text says why."""


_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final[msgspec.json.Decoder[Line]] = msgspec.json.Decoder(Line)


# --- writing ---


def encode(record: Record) -> bytes:
    """A record as one line, with its line feed."""
    return _ENCODER.encode(_WRITERS[type(record)](record)) + b"\n"


def next_page(after: str) -> bytes:
    """The line that ends a page, with the position to continue from."""
    return _ENCODER.encode(NextLine(after)) + b"\n"


def _raw(dataset: DataSet) -> Raw:
    return Raw(dicom_json.encode(dataset))


def _header_line(head: Head) -> HeaderLine:
    counts = dict(head.counts)
    return HeaderLine(
        PRODUCT,
        FORMAT,
        head.identity,
        head.next_sequence,
        head.next_creation,
        head.at,
        counts,
        __version__,
        head.origins,
    )


def _subscriber_line(log: Log) -> SubscriberLine:
    return SubscriberLine(log.receiving_ae, log.revision, [_act_fields(act) for act in log.acts])


def _act_fields(act: GlobalAct) -> ActFields:
    return ActFields(
        sequence=act.sequence,
        act=act.kind,
        through=act.through,
        at=act.at,
        filtered=act.filtered,
        filter=NULL if act.filter is None else _raw(act.filter),
        matched=act.matched.text() if act.filtered else None,
        mechanisms=act.mechanisms.words() or None,  # type: ignore[arg-type]
    )


def _delivery_line(cursors: AeCursors) -> DeliveryLine:
    channels = {
        name: ChannelFields(progress.cursor, list(progress.dropped), TallyFields(**progress.tally))
        for name, progress in cursors.channels.items()
    }
    return DeliveryLine(cursors.receiving_ae, channels)


def _workitem_line(workitem: Workitem) -> WorkitemLine:
    return WorkitemLine(
        uid=workitem.uid,
        created=workitem.created,
        revision=workitem.revision,
        owner=workitem.owner,
        ended=workitem.ended,
        acts={ae: SpecificActFields(act.sequence, act.state, act.at) for ae, act in workitem.acts.items()},
        filtered=list(workitem.filtered),
        events=[_event_fields(event) for event in workitem.events],
        history=_history_fields(workitem.history),
        attributes=_raw(workitem.attributes),
    )


def _history_fields(history: Iterable[HistoryEntry]) -> list[HistoryFields]:
    return [HistoryFields(entry.at, entry.who, entry.what, entry.why) for entry in history]


def _event_fields(event: Event) -> EventFields:
    return EventFields(event.sequence, event.type, list(event.receivers), event.at, _raw(event.information))


def _purged_line(purged: Purged) -> PurgedLine:
    return PurgedLine(purged.uid, purged.last.at, purged.last.who, purged.last.why)


def _performed_step_line(step: PerformedStep) -> PerformedStepLine:
    return PerformedStepLine(
        uid=step.uid,
        ae=step.ae,
        worklist=step.worklist,
        created=step.created,
        changed=step.changed,
        revision=step.revision,
        workitems=list(step.workitems),
        notes=dict(step.notes),
        history=_history_fields(step.history),
        attributes=_raw(step.attributes),
    )


def _dead_letters_line(batch: Batch) -> DeadLettersLine:
    endpoint, letters = batch.endpoint, [_letter_fields(letter) for letter in batch.letters]
    return DeadLettersLine(endpoint.receiving_ae, endpoint.channel, batch.reason, batch.at, letters)


def _letter_fields(letter: Waiting) -> LetterFields:
    if isinstance(letter, Event):
        event = _event_fields(letter)
        return LetterFields(
            event.at, letter.uid, event.sequence, event.type, event.receivers, event.information
        )
    burst = letter.burst
    return LetterFields(burst.at, burst=burst.first, through=burst.through, act=burst.act, after=letter.after)


def _end_line(tail: Tail) -> EndLine:
    return EndLine(tail.next_sequence, tail.next_creation)


# --- reading ---


def decode(line: bytes) -> Record | None:
    """The record of a line; None for a line that ends a page. Raises NotALine, which names every key at fault."""
    try:
        fields = _DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotALine(_fault(line, error)) from None
    try:
        return None if isinstance(fields, NextLine) else _READERS[type(fields)](fields)
    except UpsError as error:
        raise NotALine(error.detail) from error
    except ValueError as error:
        raise NotALine(str(error)) from error


def _fault(line: bytes, error: Exception) -> str:
    """Why msgspec refuses a line."""
    try:
        content = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return f"not JSON: {error}"
    if not isinstance(content, Mapping):
        return "the line is not a JSON object"
    kinds = {str(struct.__struct_config__.tag): struct for struct in get_args(Line)}
    if content.get("kind") not in kinds:
        state = (
            f"is {content['kind']!r:.40}, expected one of {', '.join(kinds)}"
            if "kind" in content
            else "is missing"
        )
        return f'"kind" {state}'
    if content["kind"] == "header" and "product" in content and "format" in content:
        foreign = _foreign(content["product"], content["format"])
        if foreign:
            return foreign  # it may have other fields
    try:
        check(kinds[content["kind"]], content)
    except WrongKeys as wrong:
        return str(wrong)
    return str(error)


def _foreign(product: object, format: object) -> str:
    """Why this version cannot read an export of this product and format; "" if it can."""
    if product != PRODUCT:
        return f"this is not an export of {PRODUCT}"
    if format != FORMAT:
        return f"the format is {format}, expected {FORMAT}: the export is from another version of {PRODUCT}"
    return ""


def _head(line: HeaderLine) -> Head:
    foreign = _foreign(line.product, line.format)
    if foreign:
        raise NotALine(foreign)
    return Head(
        line.identity, line.next_sequence, line.next_creation, line.at, line.counts, tuple(line.origins)
    )


def _tail(line: EndLine) -> Tail:
    return Tail(line.next_sequence, line.next_creation)


def _log(line: SubscriberLine) -> Log:
    acts = tuple(_global_act(fields, f"acts[{index}]") for index, fields in enumerate(line.acts))
    sequences = [act.sequence for act in acts]
    if sequences != sorted(set(sequences)):
        raise NotALine('"acts" are not in ascending order of their sequences')
    return Log(_ae(line.ae, "ae"), acts, line.revision)


def _global_act(fields: ActFields, path: str) -> GlobalAct:
    mechanisms = Mechanisms.of_words(fields.mechanisms or ())
    act_filter = None if fields.filter == NULL else _data_set(fields.filter)
    if act_filter is not None:
        Query.of(act_filter, mechanisms=mechanisms)
    elif fields.filtered and fields.act.subscribes:
        raise NotALine(f'"{path}.filter" is missing; a filtered subscription needs one')
    return GlobalAct(
        fields.sequence,
        fields.act,
        fields.through,
        fields.filtered,
        act_filter,
        _matched(fields, path),
        fields.at,
        mechanisms,
    )


def _matched(fields: ActFields, path: str) -> Numbers:
    if not fields.filtered:
        return Numbers()
    try:
        return Numbers.read(fields.matched or "")
    except ValueError:
        raise NotALine(f'"{path}.matched" is {fields.matched!r:.40}, expected a set of numbers') from None


def _ae_cursors(line: DeliveryLine) -> AeCursors:
    channels = {
        name: Progress(channel.cursor, tuple(channel.dropped), msgspec.structs.asdict(channel.tally))
        for name, channel in line.channels.items()
    }
    return AeCursors(_ae(line.ae, "ae"), channels)


_DIGEST: Final = re.compile("[0-9a-f]{64}")


def _workitem(line: WorkitemLine) -> Workitem:
    attributes = _data_set(line.attributes)
    check_values(attributes)
    if text(attributes, tags.SOP_INSTANCE_UID) != _uid(line.uid):
        raise NotALine('"attributes" have another SOP Instance UID (0008,0018) than the workitem')
    if text(attributes, tags.STATE) not in {state.value for state in State}:
        raise NotALine('"attributes" have no valid Procedure Step State (0074,1000)')
    if line.owner is not None and not _DIGEST.fullmatch(line.owner):
        raise NotALine('"owner" is not a digest of a Transaction UID')
    return Workitem(
        uid=line.uid,
        created=line.created,
        attributes=attributes,
        owner=line.owner,
        acts={_ae(ae, "acts"): SpecificAct(act.sequence, act.state, act.at) for ae, act in line.acts.items()},
        filtered=tuple(line.filtered),
        events=_events(line),
        history=_history(line.history),
        ended=line.ended,
        revision=line.revision,
    )


def _history(listed: Iterable[HistoryFields]) -> tuple[HistoryEntry, ...]:
    return tuple(HistoryEntry(entry.at, entry.who, entry.what, discreet(entry.why or "")) for entry in listed)


def _events(line: WorkitemLine) -> tuple[Event, ...]:
    """The events, sorted by sequence: some exports have them in another order."""
    events = sorted((_event(fields, line.uid) for fields in line.events), key=lambda event: event.sequence)
    if any(event.sequence == following.sequence for event, following in pairwise(events)):
        raise NotALine("two events have the same sequence")
    return tuple(events)


def _event(fields: EventFields, uid: str) -> Event:
    information = _data_set(fields.information)
    check_values(information)
    receivers = tuple(_ae(title, "receivers") for title in fields.receivers)
    return Event(fields.sequence, fields.type, uid, information, receivers, fields.at)


def _purged(line: PurgedLine) -> Purged:
    return Purged(_uid(line.uid), HistoryEntry(line.at, line.who or "", "purged", discreet(line.why or "")))


def _performed_step(line: PerformedStepLine) -> PerformedStep:
    attributes = _data_set(line.attributes)
    if text(attributes, tags.SOP_INSTANCE_UID) != _uid(line.uid):
        raise NotALine('"attributes" have another SOP Instance UID (0008,0018) than the performed step')
    if text(attributes, STATUS) not in {status.value for status in StepStatus}:
        raise NotALine('"attributes" have no valid Performed Procedure Step Status (0040,0252)')
    return PerformedStep(
        uid=line.uid,
        ae=_ae(line.ae, "ae"),
        attributes=attributes,
        created=line.created,
        changed=line.changed,
        workitems=tuple(map(_uid, line.workitems)),
        notes={uid if not uid else _uid(uid): note for uid, note in line.notes.items()},
        history=_history(line.history),
        revision=line.revision,
        worklist=line.worklist,
    )


_CHANNEL: Final = re.compile(r"[!-~][ -~]{0,199}")


def _batch(line: DeadLettersLine) -> Batch:
    if not _CHANNEL.fullmatch(line.channel):
        raise NotALine('"channel" is not the name of a channel')
    endpoint = Endpoint(_ae(line.ae, "ae"), line.channel)
    letters = tuple(_letter(fields, endpoint, f"letters[{at}]") for at, fields in enumerate(line.letters))
    return Batch(endpoint, letters, line.reason, line.at)


def _letter(fields: LetterFields, endpoint: Endpoint, path: str) -> Waiting:
    if fields.burst is None:
        return _event(_event_fields_of(fields, path), _uid(fields.uid or ""))
    if fields.through is None or fields.act is None or fields.after is None:
        raise NotALine(f'"{path}" has no "through", "act" or "after"')
    burst = Burst(endpoint.receiving_ae, fields.burst, fields.through, fields.act, fields.at)
    return BurstAt(burst, fields.after)


def _event_fields_of(fields: LetterFields, path: str) -> EventFields:
    sequence, kind, receivers, information = (
        fields.sequence,
        fields.type,
        fields.receivers,
        fields.information,
    )
    if sequence is None or kind is None or receivers is None or information == NULL:
        raise NotALine(f'"{path}" has no "sequence", "type", "receivers" or "information"')
    return EventFields(sequence, kind, receivers, fields.at, information)


def _data_set(raw: Raw) -> DataSet:
    return dicom_json.data_set(dicom_json.parsed(bytes(raw)))


def _uid(value: str) -> str:
    if not is_uid(value):
        raise NotALine(f'"uid" is {value!r:.60}, expected a UID')
    return value


def _ae(value: str, key: str) -> str:
    if not REPRESENTATIONS["AE"].valid(value) or not value.strip():
        raise NotALine(f'"{key}" is {value!r:.40}, expected an AE title')
    return value


@dataclass(frozen=True, slots=True)
class _Format:
    """A kind of record, its line, and the functions that convert between them."""

    record: type
    line: type[Struct]
    write: Callable[[Any], Struct]
    read: Callable[[Any], Record]


_FORMATS: Final = (
    _Format(Head, HeaderLine, _header_line, _head),
    _Format(Log, SubscriberLine, _subscriber_line, _log),
    _Format(AeCursors, DeliveryLine, _delivery_line, _ae_cursors),
    _Format(Workitem, WorkitemLine, _workitem_line, _workitem),
    _Format(Purged, PurgedLine, _purged_line, _purged),
    _Format(PerformedStep, PerformedStepLine, _performed_step_line, _performed_step),
    _Format(Batch, DeadLettersLine, _dead_letters_line, _batch),
    _Format(Tail, EndLine, _end_line, _tail),
)
_WRITERS: Final[Mapping[type, Callable[[Any], Struct]]] = {
    format_.record: format_.write for format_ in _FORMATS
}
_READERS: Final[Mapping[type[Struct], Callable[[Any], Record]]] = {
    format_.line: format_.read for format_ in _FORMATS
}
