# SPDX-License-Identifier: AGPL-3.0-or-later
"""The list as CSV (RFC 4180, UTF-8 with a byte order mark, so that spreadsheets read it correctly)."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from typing import Any, Final

from . import answers

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
    "Accession number",
    "Created",
    "Claimed by",
    "Claimed at",
    "Ended",
    "Duration (s)",
    "Performed stations",
    "Late",
    "Workitem UID",
)
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
"""The byte order mark, at the beginning of the file."""
_FORMULA_SIGNS: Final = (
    "=+\\-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b\u2212\u207a\u207b\u207c\u208a\u208b\u208c"
)
"""Characters that begin a formula, with full-width, small and superscript forms, which some spreadsheets accept."""
_IGNORED: Final = (
    "\\s\\x00-\\x20\\x7f-\\xa0\"'\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff"
)
_FIRST: Final = re.compile(f"[\t\r\n]|[{_IGNORED}]*[{_FORMULA_SIGNS}]")
_FURTHER: Final = re.compile(f"(?<=[;\t\r\n])(?=[{_IGNORED}]*[{_FORMULA_SIGNS}])")
"""Characters at which spreadsheets of other locales, or with another separator, start a new cell."""
_LINE_END: Final = re.compile("\r\n?")
_SEPARATORS: Final = re.compile("[;\t\r\n]")


def line_of(cells: Iterable[Any]) -> bytes:
    """A line of the file. CR LF occurs only at its end, so lines can be counted."""
    out = io.StringIO()
    csv.writer(out).writerow(map(_cell, cells))
    return out.getvalue().encode("utf-8", "replace")


def cells_of(row: answers.Row) -> tuple[Any, ...]:
    """The cells below ``HEADINGS`` for a row of ``views.row``."""
    patient, progress, claim = row["patient"], row["progress"], row["claimed"]
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
        row["accession"],
        row["created"],
        claim and claim["ae"],
        claim and claim["at"],
        row["ended"],
        row["duration"],
        "; ".join(row["performed_stations"]),
        "; ".join(row["late"]),
        row["uid"],
    )


def _cell(value: Any) -> str:
    if not isinstance(value, str):
        return escape_formulas(value)
    if not value or (value[0].isalnum() and not _SEPARATORS.search(value)):
        return value
    return escape_formulas(_LINE_END.sub("\n", value))


def escape_formulas(value: Any) -> str:
    """A value as a cell that no spreadsheet takes for a formula: an apostrophe is put before what could be one.

    The same holds for parts after a semicolon, a tab or a line end, where a spreadsheet may start another cell.
    """
    text = "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    text = _FURTHER.sub("'", text)
    return f"'{text}" if _FIRST.match(text) else text
