# SPDX-License-Identifier: AGPL-3.0-or-later
"""The answers of ``/ups/api`` as types. mypy checks the handlers against them; openapi.json is generated from them.

Times are ISO 8601 in UTC. A value that is unknown, or does not exist yet, is null.
"""

from __future__ import annotations

from typing import Annotated, Any, NotRequired, TypeAlias, TypedDict

from msgspec import Meta

from .bodies import Attributes

Time: TypeAlias = Annotated[str, Meta(extra_json_schema={"format": "date-time"})] | None


class OutcomeJson(TypedDict):
    """The result of a command."""

    uid: str
    status: str
    warning: str | None
    details: Annotated[list[str], Meta(description="One sentence for each correction.")]


class CancellationJson(OutcomeJson):
    """The result of a cancellation request. ``state`` is still IN PROGRESS if the performer was asked to cancel."""

    state: str


# --- workitems ---


class Patient(TypedDict):
    """The patient of a workitem."""

    name: str
    id: str
    birth_date: str
    sex: str


class ProgressJson(TypedDict):
    """The progress that the performer reported."""

    percent: float | None
    description: str


class Claim(TypedDict):
    """The performer of a workitem, and since when."""

    who: str
    ae: str
    at: Time


class Course(TypedDict):
    """A summary of the history."""

    created: Time
    ended: Time
    claimed: Claim | None
    heard: Annotated[Time, Meta(description="When the performer last changed it.")]
    duration: Annotated[float | None, Meta(description="Seconds from claim to end.")]
    cancel_requested: bool


class Row(Course):
    """A line of the worklist."""

    uid: str
    number: Annotated[int, Meta(description="Creation number.")]
    state: Annotated[
        str, Meta(extra_json_schema={"enum": ["SCHEDULED", "IN PROGRESS", "COMPLETED", "CANCELED"]})
    ]
    priority: str
    readiness: str
    label: str
    worklist: str
    patient: Patient
    code: str
    stations: list[str]
    performers: list[str]
    start: str | None
    expected: str | None
    expires: str | None
    modified: str | None
    progress: ProgressJson
    accession: str
    performed_stations: list[str]
    late: Annotated[
        list[str],
        Meta(
            description="Reasons, of start, inputs, completion, expiration, silent; empty if it is not late."
        ),
    ]


class PageJson(TypedDict):
    """Rows, and the total number of matches."""

    total: int
    offset: int
    workitems: list[Row]


class CodeJson(TypedDict):
    """A coded term."""

    meaning: str
    value: str
    scheme: str


class Item(TypedDict, total=False):
    """An item of a sequence: a coded term, or attributes."""

    code: CodeJson
    nodes: Annotated[list[Any], Meta(description="Attributes, as `Node`.")]


class NodeJson(TypedDict):
    """An attribute in readable form."""

    tag: str
    keyword: str
    name: str
    vr: str
    values: NotRequired[list[str]]
    times: NotRequired[list[str | None]]
    items: NotRequired[list[Item]]


class Group(TypedDict):
    """Attributes under a heading."""

    name: str
    attributes: list[NodeJson]


class Reference(TypedDict):
    """An input or an output, and where it can be retrieved."""

    type: str
    study: str
    series: str
    instances: int
    instance: str
    sources: list[str]


class HistoryEntryJson(TypedDict):
    """An entry of the history: who did what, when and why."""

    at: Time
    who: str
    what: str
    why: NotRequired[Annotated[str, Meta(description="The reason, if there is one.")]]


class WorkitemSubscriber(TypedDict):
    """An AE that is subscribed to a workitem."""

    ae: str
    lock: bool
    specific: Annotated[bool, Meta(description="It subscribed to this workitem individually.")]
    filter: Annotated[str, Meta(description="The filters by which it is subscribed, in words; or empty.")]


class WorkitemJson(Row):
    """One workitem: row, all attributes in groups, history, subscribers, and allowed actions."""

    actions: Annotated[
        list[str], Meta(description="Any of edit, claim, complete, cancel, request-cancel, purge.")
    ]
    groups: list[Group]
    inputs: list[Reference]
    outputs: list[Reference]
    history: list[HistoryEntryJson]
    subscribers: list[WorkitemSubscriber]
    form: Attributes
    closing: Attributes | None


class Receiver(TypedDict):
    """The delivery of an event to one receiver."""

    ae: str
    state: Annotated[str, Meta(extra_json_schema={"enum": ["delivered", "waiting", "dead"]})]
    why: NotRequired[str]
    retry: NotRequired[Time]


class EventJson(TypedDict):
    """An event report."""

    sequence: int
    type: Annotated[int, Meta(ge=1, le=5)]
    name: str
    at: Time
    summary: str
    nodes: list[NodeJson]
    receivers: list[Receiver]


class Events(TypedDict):
    """Event reports, the latest first."""

    events: list[EventJson]


class ChangesJson(TypedDict):
    """The number for the next request, and the workitems that changed."""

    number: int
    uids: list[str]
    complete: Annotated[
        bool, Meta(description="False: more has changed than is listed; read everything again.")
    ]


# --- performed procedure steps of modalities ---


class PerformedWorkitem(TypedDict):
    """A workitem that a performed procedure step refers to."""

    uid: str
    state: Annotated[str | None, Meta(description="Null if the workitem no longer exists.")]
    note: Annotated[str, Meta(description="Why the step was not applied to it; empty if it was.")]


class PerformedStepRow(TypedDict):
    """A performed procedure step (MPPS)."""

    uid: str
    status: Annotated[str, Meta(extra_json_schema={"enum": ["IN PROGRESS", "COMPLETED", "DISCONTINUED"]})]
    ae: Annotated[str, Meta(description="Who created it.")]
    station: str
    modality: str
    description: str
    patient: Patient
    study: str
    accession: str
    series: int
    instances: int
    created: Time
    changed: Time
    workitems: list[PerformedWorkitem]
    note: Annotated[str, Meta(description="Why it refers to no workitem; empty if it refers to one.")]


class PerformedStepsJson(TypedDict):
    """Performed procedure steps, the last changed first, and their total number."""

    total: int
    offset: int
    steps: list[PerformedStepRow]


class PerformedStepJson(PerformedStepRow):
    """One performed procedure step with its attributes and history."""

    history: list[HistoryEntryJson]
    attributes: list[NodeJson]


# --- subscribers ---


class Latency(TypedDict):
    """Seconds from a change to its delivery."""

    median: float | None
    p95: float | None


class ChannelJson(TypedDict):
    """A channel to an AE, and the state of delivery on it."""

    channel: Annotated[str, Meta(description="`dimse`, `websocket` or `webhook:NAME`.")]
    name: Annotated[str, Meta(description="Name of a webhook; else empty.")]
    health: Annotated[
        str, Meta(extra_json_schema={"enum": ["good", "idle", "trouble", "refusing", "unreachable"]})
    ]
    words: str
    sentence: Annotated[SentenceJson, Meta(description="The same sentence, for translation.")]
    durable: bool
    pending: int
    oldest: Time
    last_success: Time
    last_error: str
    last_error_at: Time
    retry: Time
    delivered: int
    failed: int
    dead_letters: int
    per_minute: Annotated[list[int], Meta(description="Deliveries in each of the last 60 minutes.")]
    latency: Latency


class GlobalSubscription(TypedDict):
    """A subscription to every workitem."""

    lock: bool


class Filter(TypedDict):
    """A filtered subscription."""

    sequence: int
    scope: NotRequired[str]
    words: str
    filter: Attributes
    mechanisms: Annotated[
        list[str],
        Meta(description="Any of fuzzy (person names), empty, multiple (Empty and Multiple Value Matching)."),
    ]
    lock: bool
    since: Time


class SpecificSubscription(TypedDict):
    """A subscription to one workitem."""

    uid: str
    lock: bool


class SubscribedWorkitem(SpecificSubscription):
    """A subscription to one workitem, with a summary of the workitem."""

    label: str
    state: str


class SubscriptionsJson(TypedDict):
    """The subscriptions of an AE in words."""

    everything: GlobalSubscription | None
    filters: list[Filter]
    suspended: list[Filter]


class SubscriberJson(SubscriptionsJson):
    """A subscriber: subscriptions in words, and the state of delivery."""

    ae: str
    known: Annotated[bool, Meta(description="It is in DicomModalities.")]
    specific: int
    locks: int
    channels: list[ChannelJson]


class SubscriberPage(SubscriberJson):
    """A subscriber, with a page of the workitems that it subscribed to individually, the latest first."""

    workitems: list[SpecificSubscription]


class SubscribersJson(TypedDict):
    """Every subscriber, by AE title."""

    subscribers: list[SubscriberJson]


class SubscribedWorkitems(TypedDict):
    """A page of the workitems that an AE subscribed to individually, the latest first, and their total number."""

    total: int
    workitems: list[SubscribedWorkitem]


class Seconds(TypedDict):
    """The duration of a C-ECHO."""

    seconds: float


class Channels(TypedDict):
    """The number of channels on which the event is being sent."""

    channels: int


class Pending(TypedDict):
    """The number of waiting events."""

    pending: int


class Dropped(TypedDict):
    """The number of events that were given up."""

    dropped: int


class Resent(TypedDict):
    """The number of events that are being sent again."""

    resent: int


class RangeJson(TypedDict):
    """A range of sequence numbers."""

    first: int
    last: int


class DeadLetterJson(TypedDict):
    """An event that was given up, or several of them."""

    sequence: int
    channel: str
    type: int
    name: str
    uid: str
    at: Time
    died: Time
    reason: str
    count: int


class DeadLettersJson(TypedDict):
    """Events that were given up, oldest first."""

    total: int
    letters: list[DeadLetterJson]


# --- making workitems ---


class TemplateFieldJson(TypedDict):
    """The initial state of a form field."""

    default: Any
    choices: list[Any]
    required: bool
    fixed: bool


class TemplateJson(TypedDict):
    """A template of ``Ups.Templates``."""

    name: str
    description: str
    fields: dict[str, TemplateFieldJson]


class Templates(TypedDict):
    """Every template, with its current default values."""

    templates: list[TemplateJson]


class PossibleInput(TypedDict):
    """A resource of Orthanc that can be an input."""

    level: str
    id: str | None
    label: str
    instances: int
    chosen: bool


class Copy(TypedDict):
    """Initial values for a new workitem, copied from another one."""

    title: str
    attributes: Attributes


class Prefill(TypedDict):
    """Initial values for a new workitem."""

    level: str
    title: str
    study: str
    patient_id: str
    attributes: Attributes
    inputs: list[PossibleInput]


class Link(TypedDict):
    """An address relative to Orthanc's root."""

    name: str
    url: str


class Links(TypedDict):
    """Viewers for a study or series; none if it is not in this Orthanc."""

    links: list[Link]


# --- the overview ---


class WorklistCounts(TypedDict):
    """Workitems of one worklist by state."""

    worklist: str
    states: dict[str, int]


class CountsJson(TypedDict):
    """Workitems by state, and by worklist and state."""

    states: dict[str, int]
    worklists: list[WorklistCounts]
    matches: Annotated[dict[str, int], Meta(description="Number of matches by state.")]
    late: Annotated[int, Meta(description="Number of late matches.")]


class NameInUse(TypedDict):
    """A name that occurs in workitems."""

    name: str
    count: int
    code: NotRequired[Annotated[str, Meta(description="The code that finds all of them.")]]


class Names(TypedDict):
    """Names to choose from, the most frequent first."""

    names: list[NameInUse]


class LateInWorklist(TypedDict):
    """Late workitems of a worklist."""

    worklist: str
    count: int


class LateAtStation(LateInWorklist):
    """Late workitems of a worklist at a scheduled station."""

    station: str


class LateCounts(TypedDict):
    """Numbers of late workitems; one workitem may be late for several reasons."""

    total: int
    kinds: dict[str, int]
    worklists: list[LateInWorklist]
    groups: list[LateAtStation]


class Moment(TypedDict):
    """A workitem and a time."""

    uid: str
    at: Time


class LateJson(TypedDict):
    """Workitems that are late or stuck."""

    late_work: LateCounts
    oldest_scheduled: Moment | None
    longest_in_progress: Moment | None


class LatencyChart(TypedDict):
    """Latencies in seconds in each step; null where nothing was delivered."""

    median: list[float | None]
    p95: list[float | None]


class Chart(TypedDict):
    """Counts in each `step` minutes of the last `minutes`; null before the start."""

    minutes: int
    step: int
    created: list[int | None]
    changed: list[int | None]
    updated: list[int | None]
    delivered: list[int | None]
    latency: LatencyChart


class Charts(TypedDict):
    """Charts of the last hour and the last day."""

    hour: Chart
    day: Chart


class DeliveryCountsJson(TypedDict):
    """Numbers of waiting events, dead letters and subscribers."""

    pending: int
    dead_letters: int
    subscribers: int


class ListenerAddress(TypedDict):
    """An address at which the plugin listens."""

    name: str
    address: str
    note: str


class SentenceJson(TypedDict):
    """A sentence for people, and the values for its `{name}`."""

    words: Annotated[
        str, Meta(description="In English; the singular and the plural (of `n`) are separated by `|`.")
    ]
    values: Annotated[
        dict[str, Any], Meta(description="Texts, numbers, `{seconds}` or further sentences, by name.")
    ]


class AlertJson(TypedDict):
    """A warning."""

    text: Annotated[str, Meta(description="The sentence in English.")]
    sentence: SentenceJson
    level: Annotated[str, Meta(extra_json_schema={"enum": ["warning", "error"]})]
    link: Annotated[str, Meta(description="Address on the page, or empty.")]


class OverviewJson(TypedDict):
    """An overview of the worklist. While the search index is not available, ``counts`` and ``late`` are null."""

    counts: CountsJson | None
    late: LateJson | None
    charts: Charts
    delivery: DeliveryCountsJson
    listeners: list[ListenerAddress]
    started: Time
    warnings: list[AlertJson]


class UserRights(TypedDict):
    """The rights of this user (``Ups.Users``). Administrators may act for any AE title."""

    act: bool
    administer: bool
    ae_titles: list[str]


class FilterKey(TypedDict):
    """A matching key of the list."""

    name: str
    label: str
    kind: Annotated[str, Meta(extra_json_schema={"enum": ["text", "choice", "datetime", "date", "uid"]})]
    choices: list[str]
    wildcards: bool
    usual: bool


class System(TypedDict):
    """Facts that do not change while a page is open: names, versions, rights, and the fields of filters and forms."""

    name: str
    ae: str
    version: str
    orthanc_version: str
    user: str | None
    rights: UserRights
    default_language: Annotated[str, Meta(description="`DefaultLanguage` of Orthanc Explorer 2, or empty.")]
    workitems_url: str
    states: list[str]
    orders: list[str]
    filters: list[FilterKey]
    fields: list[dict[str, Any]]
    reasons: list[dict[str, str]]
    aes: list[str]


# --- what is stored ---


class StoredKind(TypedDict):
    """The entries of one kind; bytes are those of their documents."""

    kind: str
    meaning: str
    entries: int
    bytes: int


class StorageJson(TypedDict):
    """The store, and the number and size of its entries."""

    store: Annotated[str, Meta(extra_json_schema={"enum": ["key-value", "metadata"]})]
    location: Annotated[str, Meta(description="Where in Orthanc, in words.")]
    entries: int
    bytes: int
    kinds: list[StoredKind]
    counted_at: Time


class StoredEntryJson(TypedDict):
    """An entry without its document."""

    key: str
    kind: str
    version: str
    bytes: int


class StoredEntriesJson(TypedDict):
    """Entries of the store."""

    entries: list[StoredEntryJson]
    more: bool


class StoredDocument(StoredEntryJson):
    """An entry: its document as JSON, or as text if it is not JSON."""

    document: Any


# --- transfer ---


class ImportConflict(TypedDict):
    """A record that was not imported because it differs from the record here."""

    kind: str
    name: str
    why: str


ImportState = TypedDict(
    "ImportState",
    {
        "state": str,
        "mode": str,
        "from": str,
        "counts": dict[str, dict[str, int | None]],
        "conflicts": list[ImportConflict],
        "conflicts_listed_at_most": int,
        "conflicts_in_all": int,
    },
)


ImportedLines = TypedDict("ImportedLines", {"lines": int, "import": ImportState})


class OrthancNodeJson(TypedDict):
    """An Orthanc that shares the worklist."""

    name: str
    host: str
    process: int
    version: Annotated[str, Meta(description="Of the plugin.")]
    role: Annotated[str, Meta(extra_json_schema={"enum": ["alone", "leader", "standby"]})]
    since: Time
    seen_before: Annotated[float, Meta(description="Seconds since its last sign of life.")]
    lag: Annotated[
        float,
        Meta(
            description="Seconds by which the search index of a standby is behind the store; 0 for the leader."
        ),
    ]


class NodesJson(TypedDict):
    """The Orthancs that share a worklist."""

    epoch: Annotated[
        int, Meta(description="Increases with each change of the leader; 0 for a single Orthanc.")
    ]
    lease: Annotated[float, Meta(description="Seconds that the leader's lease lasts without renewal.")]
    nodes: list[OrthancNodeJson]
