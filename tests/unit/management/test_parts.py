# SPDX-License-Identifier: AGPL-3.0-or-later
"""Small parts under the management API: keyword form, free text, changes, filters in words, the page's files."""

from __future__ import annotations

from typing import Any

import pytest

from orthanc_ups.codecs.corrections import Corrections
from orthanc_ups.core import tags
from orthanc_ups.core.dataset import element
from orthanc_ups.core.free_text import fits, searchable, words
from orthanc_ups.core.statuses import UpsError
from orthanc_ups.dicomweb.request import WebRequest
from orthanc_ups.management.csv_export import escape_formulas, line_of
from orthanc_ups.management.explorer_files import orthanc_explorer_buttons, serve
from orthanc_ups.management.keyword_form import to_data_set, to_keywords
from orthanc_ups.management.queries import in_words
from orthanc_ups.management.views import iso_of, person_text, readable
from orthanc_ups.worklist.workitem_store import ChangeFeed
from tests.support.workitems import full


@pytest.mark.parametrize(
    ("plain", "dataset"),
    [
        ({"PatientName": "Doe^Jane"}, {"00100010": element("PN", {"Alphabetic": "Doe^Jane"})}),
        (
            {"PatientName": "A^B=青川^春香"},
            {"00100010": element("PN", {"Alphabetic": "A^B", "Ideographic": "青川^春香"})},
        ),
        ({"00100020": "P1"}, {"00100020": element("LO", "P1")}),
        ({"PatientID": None}, {"00100020": element("LO")}),
        ({"PatientID": ""}, {"00100020": element("LO")}),
        ({"PatientWeight": 71.5}, {"00101030": element("DS", "71.5")}),
        ({"PatientWeight": "71.50"}, {"00101030": element("DS", "71.50")}),
        ({"PregnancyStatus": 1}, {"001021C0": element("US", 1)}),
        ({"MedicalAlerts": ["a", "b"]}, {"00102000": element("LO", "a", "b")}),
        ({"PatientID": {"vr": "LO", "Value": ["P1"]}}, {"00100020": element("LO", "P1")}),
        (
            {"ScheduledWorkitemCodeSequence": {"CodeValue": "1"}},
            {"00404018": element("SQ", {"00080100": element("SH", "1")})},
        ),
    ],
)
def test_keyword_form_is_read(plain: Any, dataset: Any) -> None:
    assert to_data_set(plain) == dataset


def test_ps3_5_6_2_a_number_with_more_digits_than_a_ds_holds_is_rounded_and_named() -> None:
    corrections = Corrections()
    dataset = to_data_set({"PatientWeight": 70.12345678901235}, "", corrections)
    assert dataset["00101030"] == element("DS", "70.1234567890124")
    assert corrections.sentences == ("PatientWeight (0010,1030) was rounded to the 16 characters of VR DS",)
    assert to_data_set({"PatientWeight": 70.1234567})["00101030"] == element("DS", "70.1234567")


def test_what_is_written_in_keywords_is_read_back() -> None:
    dataset = full("japanese")
    assert to_data_set(to_keywords(dataset)) == dataset


@pytest.mark.parametrize("name", ["Nonsense", "0010", "Patient Name", "", "ÄPFEL"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(UpsError, match="not a keyword"):
        to_data_set({name: "x"})


@pytest.mark.parametrize(
    "typed",
    [
        "fairweather",
        "INES fair",
        "hc-000815",
        "second reads",
        "A-4712",
        "reading room",
        "READING8",
        "rastanides",
    ],
)
def test_free_text_finds_what_people_look_for(typed: str) -> None:
    attributes = full("plain") | {
        "00404027": element("SQ", {tags.CODE_MEANING: element("LO", "Reading room")})
    }
    assert fits(attributes, words(typed)) is (typed != "rastanides")


def test_free_text_ignores_case_and_accents() -> None:
    assert fits(full("latin-1"), words("angstrom-muller zoe"))
    assert fits(full("greek"), words("ΚΑΣΤΑΝΊΔΗΣ"))


def test_the_searchable_text_names_each_thing_once() -> None:
    lines = searchable(full()).split("\n")
    assert len(lines) == len(set(lines))


def test_changes_are_told_once_and_from_a_number_on() -> None:
    feed = ChangeFeed(100)
    for uid in ("a", "b", "a"):
        feed.note(uid)
    assert feed.since(100).uids == ("b", "a")
    assert feed.since(102).uids == ("a",)
    assert (feed.since(103).uids, feed.since(103).complete) == ((), True)


@pytest.mark.parametrize("number", [0, 99, 104])
def test_a_number_that_was_never_given_out_means_look_at_everything(number: int) -> None:
    feed = ChangeFeed(100)
    for uid in ("a", "b", "c"):
        feed.note(uid)
    assert not feed.since(number).complete


def test_more_changes_than_are_remembered_are_not_complete() -> None:
    feed = ChangeFeed(0)
    for number in range(3_000):
        feed.note(str(number))
    assert not feed.since(500).complete
    assert feed.since(2_500).complete
    assert len(feed.since(2_500).uids) == 500


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Doe^Jane^Q^Dr.^MD", "Doe, Dr. Jane Q MD"),
        ("Doe", "Doe"),
        ("^Jane", "Jane"),
        ("", ""),
    ],
)
def test_names_are_told_as_people_write_them(name: str, shown: str) -> None:
    assert person_text({"Alphabetic": name}) == shown


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("20261122183000+0100", "2026-11-22T17:30:00Z"),
        ("20261122183000.250000-0330", "2026-11-22T22:00:00Z"),
        ("202611221830", "2026-11-22T18:30:00Z"),
        ("20261122", "2026-11-22"),
        ("2026", None),
        ("", None),
        ("yesterday", None),
    ],
)
def test_date_times_become_iso(text: str, iso: str | None) -> None:
    assert iso_of(text, 0) == iso


def test_filters_are_told_as_sentences() -> None:
    keys = {
        "PatientName": "doe*",
        "ProcedureStepState": ["SCHEDULED", "IN PROGRESS"],
        "ScheduledProcedureStepStartDateTime": "20260101-20260131",
    }
    sentence = in_words(to_data_set(keys))
    assert "Patient's Name matches doe*" in sentence
    assert "State is SCHEDULED or IN PROGRESS" in sentence
    assert "Scheduled start is from 20260101 to 20260131" in sentence
    assert in_words({}) == "everything"


def test_keywords_in_a_history_become_words() -> None:
    sentence = readable(
        "updated ScheduledProcedureStepPriority, UnifiedProcedureStepPerformedProcedureSequence"
    )
    assert sentence == "updated Scheduled Procedure Step Priority, Unified Procedure Step Performed Procedure"
    assert readable("claimed by McDonald") == "claimed by McDonald"


@pytest.mark.parametrize("sign", list("=+-@\uff1d\uff0b\uff0d\uff20\ufe66\u2212"))
@pytest.mark.parametrize("before", ["", " ", "\u3000", "\xa0", '"', "'", ' "', "\ufeff", "\u200b", "\x00"])
def test_no_cell_is_a_formula(before: str, sign: str) -> None:
    assert escape_formulas(f"{before}{sign}1+1") == f"'{before}{sign}1+1"


def test_a_carriage_return_stands_at_the_end_of_a_csv_line_only() -> None:
    """A client counts lines by it, to see whether a download was cut off (RFC 4180 §2)."""
    assert line_of(["two\r\nlines", "or\rthree", None, 0.5]) == b'"two\nlines","or\nthree",,0.5\r\n'
    assert line_of(["a\r\n=1"]) == b'"a\n\'=1"\r\n'


@pytest.mark.parametrize("cell", ["\tx", "\rx", "\nx"])
def test_no_cell_begins_with_a_control_character(cell: str) -> None:
    assert escape_formulas(cell) == f"'{cell}"


@pytest.mark.parametrize("separator", [";", "\t", "\n", "\r"])
def test_no_part_of_a_cell_is_a_formula_behind_what_ends_a_cell_elsewhere(separator: str) -> None:
    assert escape_formulas(f"x{separator}=1;y") == f"x{separator}'=1;y"
    assert escape_formulas(f"x{separator} \uff1d1") == f"x{separator}' \uff1d1"


def test_plain_cells_stay_as_they_are() -> None:
    assert [escape_formulas(cell) for cell in ("a=b", "A;B-1", 12.5, None, 3)] == [
        "a=b",
        "A;B-1",
        "12.5",
        "",
        "3",
    ]


def page(path: str, method: str = "GET") -> Any:
    return serve(WebRequest(method, path))


def test_the_page_is_served_with_headers_that_keep_it_to_itself() -> None:
    answer = page("/index.html")
    assert (answer.status, answer.content_type) == (200, "text/html; charset=utf-8")
    policy = answer.header("Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page("/app.js").content_type == "text/javascript; charset=utf-8"


@pytest.mark.parametrize(
    "path", ["/../config.py", "/%2e%2e/config.py", "/none.js", "/openapi.json", "//etc/passwd"]
)
def test_nothing_else_is_served(path: str) -> None:
    assert page(path).status == 404


def test_the_root_leads_to_the_page_below_any_prefix() -> None:
    for path in ("", "/"):
        assert (page(path).status, page(path).header("Location")) == (307, "../../ups/app/index.html")
    assert page("/index.html", "POST").status == 405


def test_the_buttons_are_for_a_browser_of_ten_years_ago() -> None:
    script = orthanc_explorer_buttons()
    assert ".live(" in script
    assert not [word for word in ("=>", "`", "const ", "let ", ".on(", ".html(") if word in script]
