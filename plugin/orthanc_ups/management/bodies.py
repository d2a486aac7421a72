# SPDX-License-Identifier: AGPL-3.0-or-later
"""What requests to ``/ups/api`` carry: bodies and queries as structs, from which openapi.json is made too."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta, Struct

from ..core.reasons import MAXIMUM as LONGEST_REASON
from .ports import ORDERS

Attributes: TypeAlias = Annotated[
    dict[str, Any],
    Meta(
        description='Attributes by keyword of PS3.6, with plain values: `"PatientName": "Doe^Jane"`, sequences as '
        "lists of items. An element of the DICOM JSON model (with `vr`) is taken too."
    ),
]
Offset: TypeAlias = Annotated[int, Meta(ge=0, le=10**9, description="How many entries are skipped.")]
Sequences: TypeAlias = Annotated[
    list[int] | None, Meta(description="Sequence numbers of events; null or absent: all.")
]
Scope: TypeAlias = Annotated[
    Literal["global", "filtered", "workitem"],
    Meta(description="Everything, what fits a filter, or one workitem."),
]


class Body(Struct, forbid_unknown_fields=True, kw_only=True):
    """What every action takes."""

    reason: Annotated[
        str | None,
        Meta(
            description=f"Why, in the operator's words, at most {LONGEST_REASON} characters; kept in the history of "
            "a single workitem, in the log and in the audit log."
        ),
    ] = None


# --- workitems ---


class Input(Struct, forbid_unknown_fields=True):
    """What Orthanc holds, to be referred to as an input."""

    level: Literal["study", "series", "instance", "patient"]
    id: Annotated[str, Meta(description="Identifier of Orthanc.")]


class CreateWorkitem(Body, kw_only=True):
    """A workitem to create."""

    uid: Annotated[str, Meta(description="Made if absent.")] = ""
    template: Annotated[str, Meta(description="Name of a template of `Ups.Templates`, or `Blank`.")] = ""
    attributes: Attributes | None = None
    inputs: Annotated[list[Input] | None, Meta(description="Where its input is in this Orthanc.")] = None


class UpdateWorkitem(Body, kw_only=True):
    """Attributes to change."""

    attributes: Attributes


class ClaimWorkitem(Body, kw_only=True):
    """A claim on behalf of a performer."""

    performer: Annotated[
        str, Meta(description="AE title of who does the work; the worklist's own if absent.")
    ] = ""


class CompleteWorkitem(Body, kw_only=True):
    """Attributes of the item of Performed Procedure Sequence (0074,1216); absent ones are taken from `closing`."""

    performed: Attributes | None = None


class CancelWorkitem(Body, kw_only=True):
    """Why: `reason` is Reason For Cancellation, in words."""

    code: Annotated[
        dict[str, Any] | None,
        Meta(
            description="Procedure Step Discontinuation Reason Code, an item in keyword form; `system.reasons` lists "
            "usual ones."
        ),
    ] = None


class RequestCancellation(CancelWorkitem, kw_only=True):
    """Why, and whom to ask about it."""

    contact_name: str = ""
    contact_uri: str = ""


class SubscribeToWorkitem(Body, kw_only=True):
    """A subscription to one workitem."""

    lock: Annotated[bool, Meta(description="With Deletion Lock.")] = False


class CsvOfList(Body, kw_only=True):
    """The parameters of the GET; a long list of keys fits the body only."""

    query: dict[str, Any] = {}


class ListQuery(Struct):
    """Order and part of a list. Every other parameter is a matching key by keyword."""

    text: Annotated[
        str,
        Meta(
            description="Words that must all occur: patient, labels, UIDs, accession numbers, stations, performers, "
            "codes."
        ),
    ] = ""
    study: Annotated[
        str, Meta(description="Study Instance UID of the workitem, of one of its inputs, or of its request.")
    ] = ""
    order: Annotated[
        str,
        Meta(
            description="Order; a minus in front: descending. Those without a station, a performer, … stand at "
            "the end either way.",
            extra_json_schema={"enum": [f"{sign}{order}" for order in ORDERS for sign in ("", "-")]},
        ),
    ] = "-created"
    late: Annotated[
        str,
        Meta(
            description="Only late work: `yes`, or some of start, inputs, completion, expiration, silent, separated by "
            "commas."
        ),
    ] = ""
    claimer: Annotated[
        str, Meta(description="AE titles of performers that claimed it, separated by commas.")
    ] = ""
    station: Annotated[str, Meta(description="Name of the first scheduled station.")] = ""
    performed: Annotated[str, Meta(description="Part of the name of the performed station.")] = ""
    claimed: Annotated[
        str, Meta(description="When it was claimed: a DICOM date-time or a range of them.")
    ] = ""
    ended: Annotated[str, Meta(description="When it ended: a DICOM date-time or a range of them.")] = ""
    duration: Annotated[
        str, Meta(description="Seconds from claim to end: a range such as `60-300` or `3600-`.")
    ] = ""
    offset: Offset = 0


class CopyQuery(Struct):
    """What the copy is for."""

    repeats: Annotated[
        bool, Meta(description="It replaces the other one: Replaced Procedure Step Sequence (0074,1224).")
    ] = False


class NamesQuery(Struct):
    """Names of what."""

    of: Literal["station", "performer", "work", "claimer", "performed"]


class PageQuery(ListQuery):
    """One page of a list."""

    limit: Annotated[int, Meta(ge=1, le=500, description="Size of the page.")] = 50


class CsvQuery(ListQuery):
    """A list as a file."""

    limit: Annotated[int, Meta(ge=1, le=10_000_000, description="Rows at most.")] = 10_000_000


class ChangesQuery(Struct):
    """Since when."""

    since: Annotated[int, Meta(ge=0, description="`number` of the last answer, or 0.")]


class PerformedStepsQuery(Struct):
    """A page of performed procedure steps."""

    offset: Annotated[int, Meta(ge=0, description="Steps to be skipped.")] = 0
    limit: Annotated[int, Meta(ge=1, le=500, description="Size of the page.")] = 50
    workitem: Annotated[str, Meta(description="Only those about the workitem of this UID.")] = ""


class ReasonQuery(Struct):
    """Orthanc hands on neither body nor query of a DELETE: send it in the header `X-UPS-Query`."""

    reason: Annotated[str, Meta(description="Why, in the operator's words.")] = ""


# --- subscribers ---


class SubscribeBody(Body, kw_only=True):
    """A subscription."""

    scope: Scope
    uid: Annotated[str, Meta(description="The workitem, for scope `workitem`.")] = ""
    lock: Annotated[bool, Meta(description="With Deletion Lock.")] = False
    filter: Annotated[
        dict[str, Any] | None,
        Meta(description="Matching keys, for scope `filtered`: dotted keywords as in the list, or nested."),
    ] = None
    mechanisms: Annotated[
        list[Literal["fuzzy", "empty", "multiple"]] | None,
        Meta(description="Extended matching: fuzzy names, Empty Value Matching, Multiple Value Matching."),
    ] = None


class UnsubscribeBody(Body, kw_only=True):
    """The end of a subscription."""

    scope: Scope
    uid: Annotated[str, Meta(description="The workitem, for scope `workitem`.")] = ""


class SuspendBody(Body, kw_only=True):
    """A global subscription to suspend: workitems to come are not told."""

    scope: Literal["global", "filtered"]


class SomeEvents(Body, kw_only=True):
    """Events by sequence."""

    sequences: Sequences = None


class EventRange(Body, kw_only=True):
    """A range of sequence numbers."""

    first: Annotated[int, Meta(ge=0)]
    last: Annotated[int, Meta(ge=0)]


class SubscribedQuery(Struct):
    """A page of the workitems that an AE subscribed to individually."""

    offset: Offset = 0
    limit: Annotated[int, Meta(ge=1, le=500, description="Size of the page.")] = 50


class DeadLettersQuery(Struct):
    """Some of the dead letters."""

    offset: Offset = 0
    limit: Annotated[int, Meta(ge=1, le=500, description="The greatest number of entries.")] = 100


# --- Orthanc's resources ---


class ResourceQuery(Struct):
    """A resource of Orthanc."""

    level: Literal["patient", "study", "series", "instance"]
    id: Annotated[str, Meta(description="Identifier of Orthanc.")]


class LinksQuery(Struct):
    """What to look at."""

    study: Annotated[str, Meta(description="Study Instance UID.")] = ""
    series: Annotated[str, Meta(description="Series Instance UID.")] = ""


# --- what is stored ---


class EntriesQuery(Struct):
    """Some of the stored entries."""

    kind: Annotated[str, Meta(description="Only of this kind, such as `dead`.")] = ""
    limit: Annotated[int, Meta(ge=1, le=5_000, description="The greatest number of entries.")] = 100


class EntryQuery(Struct):
    """Which entry."""

    key: Annotated[str, Meta(description="Such as `workitem/2.25.71`.")]
