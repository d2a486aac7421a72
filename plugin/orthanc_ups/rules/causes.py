# SPDX-License-Identifier: AGPL-3.0-or-later
"""The causes that rules react to, with their attributes in keyword form (``management/keyword_form.py``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from ..core.dataset import SINGLE_TEXT_VRS
from ..core.workitem import Workitem
from ..management.keyword_form import tag_of, vr_of


class When(StrEnum):
    """The kinds of causes."""

    STORED_INSTANCE = "StoredInstance"
    STABLE_SERIES = "StableSeries"
    STABLE_STUDY = "StableStudy"
    STABLE_PATIENT = "StablePatient"
    COMPLETED = "Completed"
    CANCELED = "Canceled"
    DELETED = "Deleted"

    @property
    def level(self) -> str:
        """The kind of resource: ``instance``, ``series``, ``study``, ``patient`` or ``workitem``."""
        return _LEVELS[self]

    @property
    def is_of_images(self) -> bool:
        """True if the cause is a resource in Orthanc's archive."""
        return self.level != "workitem"


_LEVELS: Final = {
    When.STORED_INSTANCE: "instance",
    When.STABLE_SERIES: "series",
    When.STABLE_STUDY: "study",
    When.STABLE_PATIENT: "patient",
    When.COMPLETED: "workitem",
    When.CANCELED: "workitem",
    When.DELETED: "workitem",
}
STABLE: Final = {
    "series": When.STABLE_SERIES,
    "study": When.STABLE_STUDY,
    "patient": When.STABLE_PATIENT,
}


ARRIVED: Final = "arrived"
IS_STABLE: Final = "is stable"
"""How the descriptions of causes in the archive end."""


@dataclass(frozen=True, slots=True)
class Cause:
    """An event that rules react to.

    Attributes:
        when: its kind.
        key: identifies the cause, also after a restart: ``series/<Orthanc identifier>``, ``workitem/<UID>``,
            ``study/<Orthanc identifier> workitem/<UID>``.
        description: what happened, for histories; without patient data.
        content: attributes in keyword form, of an instance of the resource or of the workitem.
        at: when it happened, in the server's time zone.
        identifier: Orthanc's identifier of the resource; empty for a workitem.
        calling_ae: AE title that sent the instance by C-STORE; ``origin``: Orthanc's metadata ``Origin``.
        labels: labels in Orthanc of the resource and of all that contain it.
        workitem: the workitem that ended, or whose input was deleted.
    """

    when: When
    key: str
    description: str
    content: Mapping[str, Any]
    at: datetime
    identifier: str = ""
    calling_ae: str = ""
    origin: str = ""
    labels: Sequence[str] = field(default=())
    workitem: Workitem | None = None


def values_of(content: Mapping[str, Any], path: Sequence[str]) -> list[Any]:
    """The values of an attribute, which may be nested in items of sequences; without empty values."""
    return [value for value in _values(content, path) if value not in (None, "", [], {})]


def _values(content: Mapping[str, Any], path: Sequence[str]) -> Iterator[Any]:
    name, *below = path
    value = content.get(name)
    listed = value if isinstance(value, list) else [value]
    if below:
        for item in listed:
            if isinstance(item, Mapping):
                yield from _values(item, below)
        return
    for member in listed:
        if isinstance(member, str) and "\\" in member and vr_of(tag_of(name) or "") not in SINGLE_TEXT_VRS:
            yield from member.split("\\")
        else:
            yield member
