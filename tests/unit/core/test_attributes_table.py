# SPDX-License-Identifier: AGPL-3.0-or-later
"""The data file is whole, and its look-ups agree with it."""

from __future__ import annotations

from collections import Counter

import pytest

from orthanc_ups.core import dictionary, rules
from orthanc_ups.core.representations import FORMS, REPRESENTATIONS
from orthanc_ups.core.rules import RULES
from tests.support.table import by_path, every_line, rows


def test_the_file_has_every_row_of_the_table() -> None:
    assert len(every_line()) == 714
    assert len(by_path()) == len(rows()) == len(rules.RULES) == 706
    assert len(rules.CATCH_ALL) == 8


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("n_create_scu", {"3": 312, "1C": 249, "1": 81, "2": 44, "NA": 26, "-": 1, "2C": 1}),
        ("n_create_scp", {"3": 301, "1C": 193, "1": 141, "2": 52, "NA": 25, "SET": 1, "2C": 1}),
        # the printed 1/1 of the 36 content item values is read as 1C/1C
        ("n_set_scu", {"3": 349, "1C": 227, "1": 76, "NA": 57, "2": 4, "-": 1}),
        ("n_set_scp", {"3": 304, "1": 137, "1C": 193, "NA": 57, "2": 23}),
        ("final_state", {"": 507, "O": 187, "R": 7, "P": 6, "RC": 4, "X": 3}),
        ("cfind_match", {"-": 474, "O": 184, "R": 55, "U": 1}),
        ("cfind_return", {"1C": 251, "3": 221, "-": 110, "1": 82, "2": 47, "2C": 3}),
    ],
)
def test_no_code_was_lost(column: str, expected: dict[str, int]) -> None:
    assert Counter(row.cells[column] for row in every_line()) == expected


def test_every_path_hangs_together_and_has_a_known_vr_and_form() -> None:
    for row in rows():
        assert not row.above or by_path()[row.above].vr == "SQ"
        assert row.vr in REPRESENTATIONS
        assert row.cells["values"] in FORMS or not row.cells["values"].islower()


def test_tags_and_keywords_are_one_to_one() -> None:
    assert len(dictionary.TAG_OF) == len(dictionary.KEYWORD_OF) == len(dictionary.VR_OF) == 234
    for row in rows():
        assert dictionary.TAG_OF[row.cells["keyword"]] == row.tag
        assert dictionary.KEYWORD_OF[row.tag] == row.cells["keyword"]
        assert dictionary.VR_OF[row.tag] == row.vr


def test_rules_have_the_rows_and_nothing_else() -> None:
    result = rules.RULES["00404018.00080100"]
    assert (result.keyword, result.vr, result.match, result.returned) == ("CodeValue", "SH", "R", "1C")
    assert "00404018.00100010" not in rules.RULES
    assert "*" not in rules.RULES


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("ScheduledWorkitemCodeSequence.CodeValue", "00404018.00080100"),
        ("00404018.codevalue", None),
        ("00404018.CodeValue", "00404018.00080100"),
        ("0040a370.AccessionNumber", "0040A370.00080050"),
        ("PatientName", "00100010"),
        ("NoSuchKeyword", None),
        ("00404018.", None),
        ("", None),
    ],
)
def test_path_of_reads_keywords_and_tags(name: str, path: str | None) -> None:
    assert dictionary.path_of(name) == path


def test_path_name_is_the_way_back() -> None:
    assert dictionary.path_name("0040A370.00080050") == "ReferencedRequestSequence.AccessionNumber"
    assert dictionary.path_name("00091001") == "(0009,1001)"


@pytest.mark.parametrize(
    ("path", "match"),
    [
        ("00080018", "U"),
        ("00741000", "R"),
        ("0040A370.00080050", "R"),
        ("00741202", "R"),
        ("00404008", "O"),
        ("00404018.00080104", None),  # Code Meaning is never a key
        ("00081195", None),
        ("00741216.00404033.0020000D", None),  # a macro below a sequence that is no key
        ("00101100.0040E020", None),
        ("00741216.00404051", "O"),
        ("00741002", None),
    ],
)
def test_matching_keys(path: str, match: str | None) -> None:
    assert rules.MATCHING_KEYS.get(path) == match


def test_return_keys_of_the_top_level() -> None:
    """PS3.18 §11.9.3: types 1 and 2 always, 1C and 2C if there."""
    top = {path: kind for path, kind in rules.RETURN_KEYS.items() if "." not in path}
    assert sorted(path for path, kind in top.items() if kind == "1") == [
        "00080016",
        "00080018",
        "00404005",
        "00404041",
        "00741000",
        "00741200",
        "00741202",
        "00741204",
    ]
    assert {path for path, kind in top.items() if kind == "2C"} == {"00102000", "001021C0", "00380050"}
    assert top["00741002"] == top["00100010"] == top["0040A370"] == "2"
    assert "00081195" not in rules.RETURN_KEYS


def test_rules_agree_with_their_lines() -> None:
    for row in rows():
        rule = RULES[row.path]
        assert (rule.create, rule.update) == (row.usage("n_create"), row.usage("n_set"))
        assert (rule.final, rule.returned, rule.module) == tuple(
            row.cells[name] for name in ("final_state", "cfind_return", "module")
        )
