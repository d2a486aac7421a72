# SPDX-License-Identifier: AGPL-3.0-or-later
"""Bodies and queries of requests to ``/ups/api`` as structs; openapi.json is generated from them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta, Struct

from ..core.reasons import MAXIMUM as LONGEST_REASON
from .ports import ORDERS

Attributes: TypeAlias = Annotated[
    dict[str, Any],
    Meta(
        description='Attributes by keyword of PS3.6, with plain values: `"PatientName": "Doe^Jane"`, sequences as '
        "lists of items. An element of the DICOM JSON model (with `vr`) is accepted too."
    ),
]
Offset: TypeAlias = Annotated[int, Meta(ge=0, le=10**9, description="Number of entries to skip.")]
Sequences: TypeAlias = Annotated[
    list[int] | None, Meta(description="Sequence numbers of events; null or absent: all.")
]
Scope: TypeAlias = Annotated[
    Literal["global", "filtered", "workitem"],
    Meta(description="Every workitem, those that match a filter, or one workitem."),
]


class Body(Struct, forbid_unknown_fields=True, kw_only=True):
    """The parameters of every action."""

    reason: Annotated[
        str | None,
        Meta(
            description=f"Why, in the operator's words, at most {LONGEST_REASON} characters; kept in the history of "
            "a single workitem, in the log and in the audit log."
        ),
    ] = None


# --- workitems ---


class Input(Struct, forbid_unknown_fields=True):
    """A resource of Orthanc, to be referenced as an input."""

    level: Literal["study", "series", "instance", "patient"]
    id: Annotated[str, Meta(description="Orthanc's identifier.")]


class CreateWorkitem(Body, kw_only=True):
    """A workitem to create."""

    uid: Annotated[str, Meta(description="Generated if absent.")] = ""
    template: Annotated[str, Meta(description="Name of a template of `Ups.Templates`, or `Blank`.")] = ""
    attributes: Attributes | None = None
    inputs: Annotated[list[Input] | None, Meta(description="Inputs in this Orthanc.")] = None


class UpdateWorkitem(Body, kw_only=True):
    """Attributes to change."""

    attributes: Attributes


class ClaimWorkitem(Body, kw_only=True):
    """A claim on behalf of a performer."""

    performer: Annotated[
        str, Meta(description="AE title of the performer; the worklist's own if absent.")
    ] = ""


class CompleteWorkitem(Body, kw_only=True):
    """Attributes of the item of Performed Procedure Sequence (0074,1216); absent ones are taken from `closing`."""

    performed: Attributes | None = None


class CancelWorkitem(Body, kw_only=True):
    """The reason of a cancellation: `reason` is Reason For Cancellation, in words."""

    code: Annotated[
        dict[str, Any] | None,
        Meta(
            description="Procedure Step Discontinuation Reason Code, an item in keyword form; `system.reasons` lists "
            "usual ones."
        ),
    ] = None


class RequestCancellation(CancelWorkitem, kw_only=True):
    """The reason of a cancellation request, and whom to contact."""

    contact_name: str = ""
    contact_uri: str = ""


class SubscribeToWorkitem(Body, kw_only=True):
    """A subscription to this workitem."""

    lock: Annotated[bool, Meta(description="With Deletion Lock.")] = False


class CsvOfList(Body, kw_only=True):
    """The parameters of the GET, for lists of keys that are too long for a URL."""

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
            description="Order; descending with a preceding minus. Workitems without a value (station, performer, …) "
            "are last in both directions.",
            extra_json_schema={"enum": [f"{sign}{order}" for order in ORDERS for sign in ("", "-")]},
        ),
    ] = "-created"
    late: Annotated[
        str,
        Meta(
            description="Only late workitems: `yes`, or any of start, inputs, completion, expiration, silent, "
            "separated by commas."
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
    """The purpose of the copy."""

    repeats: Annotated[
        bool,
        Meta(description="The new workitem replaces this one: Replaced Procedure Step Sequence (0074,1224)."),
    ] = False


class NamesQuery(Struct):
    """Which names to list."""

    of: Literal["station", "performer", "work", "claimer", "performed"]


class PageQuery(ListQuery):
    """One page of a list."""

    limit: Annotated[int, Meta(ge=1, le=500, description="Size of the page.")] = 50


class CsvQuery(ListQuery):
    """A list as a file."""

    limit: Annotated[int, Meta(ge=1, le=10_000_000, description="Maximum number of rows.")] = 10_000_000


class ChangesQuery(Struct):
    """The number from which to list changes."""

    since: Annotated[int, Meta(ge=0, description="`number` of the last answer, or 0.")]


class PerformedStepsQuery(Struct):
    """A page of performed procedure steps."""

    offset: Annotated[int, Meta(ge=0, description="Number of steps to skip.")] = 0
    limit: Annotated[int, Meta(ge=1, le=500, description="Size of the page.")] = 50
    workitem: Annotated[str, Meta(description="Only steps that refer to the workitem with this UID.")] = ""


class ReasonQuery(Struct):
    """Orthanc passes on neither the body nor the query of a DELETE: send it in the header `X-UPS-Query`."""

    reason: Annotated[str, Meta(description="Why, in the operator's words.")] = ""


# --- subscribers ---


class SubscribeBody(Body, kw_only=True):
    """The subscription to create."""

    scope: Scope
    uid: Annotated[str, Meta(description="The workitem, for scope `workitem`.")] = ""
    lock: Annotated[bool, Meta(description="With Deletion Lock.")] = False
    filter: Annotated[
        dict[str, Any] | None,
        Meta(
            description="Matching keys, for scope `filtered`: dotted keywords as in the list, or nested sequences."
        ),
    ] = None
    mechanisms: Annotated[
        list[Literal["fuzzy", "empty", "multiple"]] | None,
        Meta(description="Extended matching: fuzzy names, Empty Value Matching, Multiple Value Matching."),
    ] = None


class UnsubscribeBody(Body, kw_only=True):
    """The subscription to end."""

    scope: Scope
    uid: Annotated[str, Meta(description="The workitem, for scope `workitem`.")] = ""


class SuspendBody(Body, kw_only=True):
    """The global subscription to suspend: new workitems are no longer subscribed to."""

    scope: Literal["global", "filtered"]


class SomeEvents(Body, kw_only=True):
    """Some of the events, by sequence number."""

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
    """A page of the dead letters."""

    offset: Offset = 0
    limit: Annotated[int, Meta(ge=1, le=500, description="Maximum number of entries.")] = 100


# --- Orthanc's resources ---


class ResourceQuery(Struct):
    """A resource of Orthanc."""

    level: Literal["patient", "study", "series", "instance"]
    id: Annotated[str, Meta(description="Orthanc's identifier.")]


class LinksQuery(Struct):
    """The study or series to view."""

    study: Annotated[str, Meta(description="Study Instance UID.")] = ""
    series: Annotated[str, Meta(description="Series Instance UID.")] = ""


# --- what is stored ---


class EntriesQuery(Struct):
    """Which stored entries to list."""

    kind: Annotated[str, Meta(description="Only entries of this kind, such as `dead`.")] = ""
    limit: Annotated[int, Meta(ge=1, le=5_000, description="Maximum number of entries.")] = 100


class EntryQuery(Struct):
    """Which entry to return."""

    key: Annotated[str, Meta(description="Such as `workitem/2.25.71`.")]
