# SPDX-License-Identifier: AGPL-3.0-or-later
"""The list as CSV (RFC 4180, UTF-8 with a byte order mark, so that spreadsheets read it right)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any, Final

HEADINGS: Final = (
    "State",
    "Priority",
    "Label",
    "Worklist",
    "Patient name",
    "Patient ID",
    "Birth date",
    "Sex",
    "Scheduled start",
    "Expected completion",
    "Expiration",
    "Input readiness",
    "Workitem code",
    "Stations",
    "Performers",
    "Progress",
    "Progress description",
    "Created",
    "Ended",
    "Workitem UID",
)
_MARK: Final = "\ufeff"
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def csv_of(rows: Iterable[dict[str, Any]]) -> bytes:
    """Rows of ``views.row`` as a CSV file."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(HEADINGS)
    writer.writerows([harmless(one) for one in _line(row)] for row in rows)
    return (_MARK + out.getvalue()).encode()


def _line(row: dict[str, Any]) -> tuple[Any, ...]:
    patient, progress = row["patient"], row["progress"]
    return (
        row["state"],
        row["priority"],
        row["label"],
        row["worklist"],
        patient["name"],
        patient["id"],
        patient["birth_date"],
        patient["sex"],
        row["start"],
        row["expected"],
        row["expires"],
        row["readiness"],
        row["code"],
        "; ".join(row["stations"]),
        "; ".join(row["performers"]),
        progress["percent"],
        progress["description"],
        row["created"],
        row["ended"],
        row["uid"],
    )


def harmless(one: Any) -> str:
    """A cell that no spreadsheet takes for a formula: those get an apostrophe in front."""
    shown = "" if one is None else f"{one:g}" if isinstance(one, float) else str(one)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown
