# SPDX-License-Identifier: AGPL-3.0-or-later
"""The names of stations, performers and kinds of work in the worklist, for an operator to choose from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .queries import Sql
from .schema import NO_WORDS

COLUMNS: Final = ("station", "performer", "work", "claimer", "performed")
"""Columns of table ``workitem`` that hold names in the form for sorting."""


def uids(ids: Sequence[int]) -> Sql:
    """The id and UID of each of these workitems that exists."""
    return Sql(
        "SELECT m.id, m.uid FROM json_each(?) i CROSS JOIN workitem m ON m.id = i.value",
        (f"[{','.join(map(str, ids))}]",),
    )


def names(column: str, limit: int) -> Sql:
    """The most frequent names in a column of COLUMNS, each with its number of workitems and the UID of the latest.

    Raises ValueError for any other column.
    """
    if column not in COLUMNS:
        raise ValueError(f"{column!r} holds no names")
    grouped = (
        f"SELECT {column} AS name, COUNT(*) AS number, MAX(id) AS id FROM workitem "  # noqa: S608
        f"WHERE {column} < ? GROUP BY {column} ORDER BY number DESC LIMIT ?"
    )
    text = f"SELECT g.name, g.number, m.uid FROM ({grouped}) g CROSS JOIN workitem m ON m.id = g.id ORDER BY g.number DESC"  # noqa: S608, E501
    return Sql(text, (NO_WORDS, limit))
