# SPDX-License-Identifier: AGPL-3.0-or-later
"""The five event reports as values (PS3.4 Table CC.2.4-1)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from . import tags
from .dataset import DataSet, element, is_empty, items, ordered


class EventType(IntEnum):
    """Event Type ID (0000,1002)."""

    STATE_REPORT = 1
    CANCEL_REQUESTED = 2
    PROGRESS_REPORT = 3
    SCP_STATUS_CHANGE = 4
    ASSIGNED = 5


@dataclass(frozen=True, slots=True)
class Occurrence:
    """An event as the rules decide it, before it has a number and receivers.

    ``only`` names the one Receiving AE of an initial State Report; None means every subscriber.
    """

    type: EventType
    information: DataSet
    only: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """An event report with its receivers.

    Attributes:
        sequence: its number in the one order of acts and events; grows, with gaps.
        type: which of the five.
        uid: the workitem; the Global Subscription UID for SCP Status Change.
        information: the event information, ascending by tag.
        receivers: AE titles that it is sent to.
        at: when it was committed, seconds since the epoch.
    """

    sequence: int
    type: EventType
    uid: str
    information: DataSet
    receivers: tuple[str, ...]
    at: float


def state_report(workitem: DataSet, only: str | None = None) -> Occurrence:
    """Event 1 with the present state, readiness and, if there is one, the reason for discontinuation."""
    information: DataSet = {tag: workitem[tag] for tag in (tags.READINESS, tags.STATE) if tag in workitem}
    for progress in items(workitem, tags.PROGRESS_INFORMATION)[:1]:
        for tag in (tags.DISCONTINUATION_REASONS, tags.REASON_FOR_CANCELLATION):
            if progress.get(tag, {}).get("Value"):
                information[tag] = progress[tag]
    return Occurrence(EventType.STATE_REPORT, ordered(information), only)


def cancel_requested(requesting_ae: str, information: DataSet) -> Occurrence:
    """Event 2 with the AE title, reason and contact of the requester."""
    details = {tag: information[tag] for tag in CANCEL_INFORMATION if information.get(tag, {}).get("Value")}
    details[tags.REQUESTING_AE] = element("AE", requesting_ae)
    return Occurrence(EventType.CANCEL_REQUESTED, ordered(details))


CANCEL_INFORMATION = (
    tags.CONTACT_URI,
    tags.CONTACT_NAME,
    tags.DISCONTINUATION_REASONS,
    tags.REASON_FOR_CANCELLATION,
)
_PROGRESS_CONTENT = (
    tags.PROGRESS,
    tags.PROGRESS_DESCRIPTION,
    tags.PROGRESS_PARAMETERS,
    tags.COMMUNICATIONS_URIS,
)


def progress_report(workitem: DataSet) -> Occurrence | None:
    """Event 3 with the present progress; None without any, because the item of its sequence is type 1."""
    first = items(workitem, tags.PROGRESS_INFORMATION)[:1]
    if not first:
        return None
    progress = [{tag: item[tag] for tag in _PROGRESS_CONTENT if tag in item} for item in first]
    return Occurrence(EventType.PROGRESS_REPORT, {tags.PROGRESS_INFORMATION: element("SQ", *progress)})


def is_assigned(workitem: DataSet) -> bool:
    """True if the workitem is assigned to a station or a human performer."""
    return bool(items(workitem, tags.STATION_NAME) or items(workitem, tags.HUMAN_PERFORMERS))


def assigned(workitem: DataSet) -> Occurrence:
    """Event 5 with the assigned stations and performers (each 1C); with neither if the last assignment was removed."""
    people = items(workitem, tags.HUMAN_PERFORMERS)
    codes = [code for person in people for code in items(person, tags.HUMAN_PERFORMER_CODES)]
    stations = items(workitem, tags.STATION_NAME)
    organizations = [
        person[tags.HUMAN_PERFORMER_ORGANIZATION]
        for person in people
        if not is_empty(person.get(tags.HUMAN_PERFORMER_ORGANIZATION))
    ]
    information: DataSet = {}
    if codes:
        information[tags.HUMAN_PERFORMER_CODES] = element("SQ", *codes)
    if stations:
        information[tags.STATION_NAME] = element("SQ", *stations)
    if organizations:
        information[tags.HUMAN_PERFORMER_ORGANIZATION] = organizations[0]
    return Occurrence(EventType.ASSIGNED, information)


def scp_status_change(status: str, *, cold: bool = False) -> Occurrence:
    """Event 4. ``status`` is ``RESTARTED`` or ``GOING DOWN``.

    Both lists are WARM START, because both survive a restart; ``cold`` is for a new worklist (PS3.4 CC.2.4.3).
    """
    lists = "COLD START" if cold else "WARM START"
    return Occurrence(
        EventType.SCP_STATUS_CHANGE,
        {
            tags.SCP_STATUS: element("CS", status),
            tags.SUBSCRIPTION_LIST_STATUS: element("CS", lists),
            tags.WORKITEM_LIST_STATUS: element("CS", lists),
        },
    )
