# SPDX-License-Identifier: AGPL-3.0-or-later
"""The changes that a writer makes to each workitem, and how each appears in an event report.

A workitem is created, claimed, makes progress some times, and is completed. Each of these changes has a name that is
unique within the workitem: its state, or ``P`` and a percentage. So an event tells which change it is about.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import orjson

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import DataSet, element, items, ordered, text, values
from tests.support.workitems import UID_ROOT, minimal, performed, progress

CREATED, CLAIMED, COMPLETED = "SCHEDULED", "IN PROGRESS", "COMPLETED"
WRITERS = f"{UID_ROOT}.7."
"""What the UIDs of the writers' workitems begin with."""
STATE_REPORT, PROGRESS_REPORT, STATUS_CHANGE = 1, 3, 4


@dataclass(frozen=True)
class Change:
    """One change of a workitem.

    Attributes:
        name: as above.
        attributes: the data set that is sent, without Transaction UID.
    """

    name: str
    attributes: DataSet

    @property
    def is_state(self) -> bool:
        """True for a change made by Change State."""
        return self.name in (CLAIMED, COMPLETED)


def changes(reports: int) -> tuple[Change, ...]:
    """The changes of a workitem with a number of Progress Reports."""
    plan = [Change(CREATED, minimal()), Change(CLAIMED, {tags.STATE: element("CS", CLAIMED)})]
    for number in range(1, reports + 1):
        done = performed() if number == 1 else {}
        plan.append(Change(f"P{number}", ordered({**done, **progress(str(number))})))
    plan.append(Change(COMPLETED, {tags.STATE: element("CS", COMPLETED)}))
    return tuple(plan)


def uids(writer: int) -> Iterator[tuple[str, str]]:
    """UID and Transaction UID of each workitem of a writer."""
    number = 0
    while True:
        number += 1
        yield f"{WRITERS}{writer}.{number}", f"{UID_ROOT}.8.{writer}.{number}"


def with_transaction(attributes: DataSet, transaction: str) -> DataSet:
    """The data set with a Transaction UID."""
    return ordered({**attributes, tags.TRANSACTION_UID: element("UI", transaction)})


def has_happened(workitem: DataSet | None, change: Change) -> bool:
    """Whether a workitem (None: there is none) shows a change."""
    if workitem is None or change.name == CREATED:
        return workitem is not None
    if change.is_state:
        return text(workitem, tags.STATE) == change.name
    return change.name == progress_of(workitem)


def state_of(dataset: DataSet) -> str:
    """Procedure Step State."""
    return text(dataset, tags.STATE)


def progress_of(dataset: DataSet) -> str:
    """The name of the change to which the progress in a data set belongs; empty if there is none.

    A decimal string is a number in the DICOM JSON of the web.
    """
    result = [
        value for item in items(dataset, tags.PROGRESS_INFORMATION) for value in values(item, tags.PROGRESS)
    ]
    return f"P{result[0]}" if result else ""


def change_in(event_type: int, information: DataSet) -> str:
    """The name of the change that an event report reports; for an SCP Status Change its status."""
    if event_type == STATE_REPORT:
        return state_of(information)
    if event_type == PROGRESS_REPORT:
        return progress_of(information)
    return text(information, tags.SCP_STATUS) if event_type == STATUS_CHANGE else f"type {event_type}"


def as_json(dataset: DataSet) -> bytes:
    """A data set as the body of a request."""
    return orjson.dumps(dataset)
