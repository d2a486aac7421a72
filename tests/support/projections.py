# SPDX-License-Identifier: AGPL-3.0-or-later
"""Filling and querying a projection."""

from __future__ import annotations

import asyncio
import dataclasses
from contextlib import suppress

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import element, text
from orthanc_ups.core.matching import Query
from orthanc_ups.core.workitem import Workitem
from orthanc_ups.projection.projection import Projection, ProjectionBroken
from orthanc_ups.store.documents import encode
from orthanc_ups.store.port import Entry
from tests.support import workitems

EVERYTHING = Query.of({tags.SOP_INSTANCE_UID: element("UI")})
FULL = workitems.stored(base=workitems.full())


def stored_workitem(number: int, state: str = "SCHEDULED", **more: object) -> Workitem:
    """A well-filled workitem; ``more`` are its fields."""
    attributes = FULL | {
        tags.SOP_INSTANCE_UID: element("UI", workitems.uid(number)),
        tags.STATE: element("CS", state),
    }
    return dataclasses.replace(Workitem(workitems.uid(number), number, attributes), **more)  # type: ignore[arg-type]


def entry(workitem: Workitem, version: str = "1") -> Entry:
    """The entry of a workitem in the store."""
    return Entry(f"workitem/{workitem.uid}", encode(workitem), version)


def put(projection: Projection, *items: Workitem, version: str = "1") -> None:
    """Write workitems down."""
    for workitem in items:
        projection.put(workitem, version, encode(workitem))


def rows_in(projection: Projection, *tables: str) -> list[int]:
    """The number of rows in tables of its file."""
    projection.flush()
    return [projection.file.writer.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in tables]


def break_projection(projection: Projection) -> None:
    """Delete its file and let the projection notice."""
    projection.file.path.unlink()
    with suppress(ProjectionBroken):
        projection.check()


def matching_numbers(
    projection: Projection, query: Query = EVERYTHING, words: tuple[str, ...] = ()
) -> list[int]:
    """The numbers of the matches, ordered by start."""
    rows, total = asyncio.run(projection.search(query, words=words))
    assert len(rows) == total
    return [int(text(row, tags.SOP_INSTANCE_UID).rpartition(".")[2]) for row in rows]


def key(tag: str, vr: str, value: object) -> Query:
    """A query with one key."""
    return Query.of({tag: element(vr, value)})
