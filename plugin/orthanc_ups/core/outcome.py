# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the worklist answers to a command or a search."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from .dataset import DataSet
from .statuses import Status

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer to a command that was not refused (a refusal is a raised UpsError).

    Attributes:
        status: success or one of the warnings.
        uid: the workitem or well-known UID it was about.
        attributes: what the SCP set or coerced, if the status says so; else empty.
        details: one sentence per modification, naming the attribute.
        reason: why it was done, as in the history; empty if no reason was given.
    """

    status: Status
    uid: str
    attributes: DataSet = field(default_factory=dict)
    details: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Paging:
    """Which page of a search, and which attributes beside those that are always returned (PS3.18 §11.9.1).

    Attributes:
        offset: matches to be skipped; ``limit`` is their greatest number on the page, None for all.
        include: paths of tags joined by dots; ``everything`` returns all attributes.
    """

    offset: int = 0
    limit: int | None = None
    include: frozenset[str] = frozenset()
    everything: bool = False


WHOLE: Final = Paging()
"""All matches on one page."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a search.

    Attributes:
        workitems: the returned attributes of each, as data sets or in another form, in stable order.
        total: number of all matches; ``remaining`` of those after this page.
    """

    workitems: tuple[T, ...]
    total: int
    remaining: int
