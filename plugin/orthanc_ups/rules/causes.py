# SPDX-License-Identifier: AGPL-3.0-or-later
"""The causes that rules react to, with their attributes in keyword form (``management/keyword_form.py``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from ..core.workitem import Workitem
from ..management.keyword_form import tag_of, vr_of


class When(StrEnum):
    """The kinds of causes. ``level`` is the kind of resource that each is about."""

    STORED_INSTANCE = "StoredInstance"
    STABLE_SERIES = "StableSeries"
    STABLE_STUDY = "StableStudy"
    STABLE_PATIENT = "StablePatient"
    COMPLETED = "Completed"
    CANCELED = "Canceled"
    DELETED = "Deleted"

    @property
    def level(self) -> str:
        """``instance``, ``series``, ``study``, ``patient`` or ``workitem``."""
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
"""The last words in the descriptions of causes that are about images."""


@dataclass(frozen=True, slots=True)
class Cause:
    """An event that rules react to.

    Attributes:
        when: its kind.
        key: tells it from every other cause, also after a restart: ``series/<Orthanc identifier>``,
            ``workitem/<UID>``, ``study/<Orthanc identifier> workitem/<UID>``.
        words: what happened, for histories; without patient data.
        content: attributes in keyword form: of an instance of it, or of the workitem.
        at: when, in the zone of the server.
        identifier: of the resource in Orthanc; empty for a workitem.
        calling_ae: who sent the instance by C-STORE; ``origin``: how it came, in Orthanc's words.
        labels: those of the resource and of all above it in Orthanc.
        workitem: whose end it was, or whose input is gone.
    """

    when: When
    key: str
    words: str
    content: Mapping[str, Any]
    at: datetime
    identifier: str = ""
    calling_ae: str = ""
    origin: str = ""
    labels: Sequence[str] = field(default=())
    workitem: Workitem | None = None


_LONG_TEXTS: Final = frozenset({"LT", "ST", "UT", "UR"})


def values_of(content: Mapping[str, Any], path: Sequence[str]) -> list[Any]:
    """The values of an attribute that is nested in the items of sequences; empty values are left out."""
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
        if isinstance(member, str) and "\\" in member and vr_of(tag_of(name) or "") not in _LONG_TEXTS:
            yield from member.split("\\")
        else:
            yield member
