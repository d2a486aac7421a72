# SPDX-License-Identifier: AGPL-3.0-or-later
"""The DICOM conformance statement says what the code does (PS3.2)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.statement import PAGES, TABLES, with_tables

TEXTS = {page: page.read_text() for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_its_tables_are_those_of_the_code(page: Path) -> None:
    """If this fails: ``make statement``."""
    assert TEXTS[page] == with_tables(TEXTS[page])


def test_every_table_stands_in_it_once() -> None:
    names = re.findall(r"<!-- table: ([\w-]+) -->", "".join(TEXTS.values()))
    assert sorted(names) == sorted(TABLES)


def test_it_has_the_parts_that_ps3_2_asks_for() -> None:
    heads = re.findall(r"^## (.+)$", TEXTS[PAGES[0]], re.MULTILINE)
    expected = ["Overview", "Implementation model", "AE specification: UPS SCP", "DICOMweb", "Configuration",
                "Media interchange", "Character sets", "Security"]  # fmt: skip
    assert [head for head in heads if head in expected] == expected
