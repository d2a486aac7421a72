# SPDX-License-Identifier: AGPL-3.0-or-later
"""One key against one workitem, for tests of matching."""

from __future__ import annotations

from typing import Any

from orthanc_ups.core.dataset import DataSet, Element, element
from orthanc_ups.core.matching import Query
from tests.support import workitems


def matches(key: DataSet, stored: DataSet, **options: Any) -> bool:
    """Whether a workitem fits an identifier."""
    return Query.of(key, **options).matches(stored)


def with_one(tag: str, value: Element) -> DataSet:
    """A stored workitem with that attribute."""
    return workitems.changed(workitems.stored(), **{f"t{tag}": value})


def name(text: str, **groups: str) -> Element:
    """A person name with that alphabetic group, if it is not empty, and others."""
    return element("PN", {"Alphabetic": text, **groups} if text else groups)
