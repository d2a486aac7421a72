# SPDX-License-Identifier: AGPL-3.0-or-later
"""The answers of the worklist to a command or a search."""

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
        uid: the workitem, or the well-known UID of a global subscription.
        attributes: what the SCP set or coerced, if the status says so; else empty.
        details: a sentence for each correction, which names the attribute.
        reason: as in the history; empty if the requester gave none.
    """

    status: Status
    uid: str
    attributes: DataSet = field(default_factory=dict)
    details: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Paging:
    """The requested page of a search, and the attributes beside those that are always returned (PS3.18 §11.9.1).

    Attributes:
        offset: number of matches to skip.
        limit: greatest number of matches on the page, None for all.
        include: paths of tags joined by dots.
        everything: True to return all attributes.
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
        total: number of all matches.
        remaining: number of matches after this page.
    """

    workitems: tuple[T, ...]
    total: int
    remaining: int
