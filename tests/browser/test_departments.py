# SPDX-License-Identifier: AGPL-3.0-or-later
"""What departments need of the page: late work, bulk actions, copies, saved views, languages, administration."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import CODE, STATION, Management, Screen, address, context
from tests.support.orthanc import RealOrthanc

pytestmark = pytest.mark.one_suite("the page is the same files in the same browser")

PAST = "20260101080000+0000"


@pytest.fixture(scope="module")
def orthanc_overrides() -> dict[str, Any]:
    return {
        "DicomModalities": {"linac": ["LINAC1", "127.0.0.1", 9]},
        "OrthancExplorer2": {"UiOptions": {"DefaultLanguage": "de"}},
        "Ups": {"LateAfter": "1h"},
    }


@pytest.fixture
def browser_options() -> dict[str, Any]:
    """The language is English in these tests; the configuration says German."""
    return {"storage_state": None}


@pytest.fixture
def screen(chromium: Browser, orthanc: RealOrthanc) -> Iterator[Screen]:
    user = context(chromium)
    user.add_init_script(
        "if (!localStorage.getItem('OE2.languageKey')) localStorage.setItem('OE2.languageKey', 'en')"
    )
    shown = Screen(user.new_page(), orthanc.base_url)
    yield shown
    user.close()
    assert not shown.problems


def total(page: Page, words: str) -> None:
    expect(page.locator(".foot")).to_contain_text(words)


def dialog(page: Page, name: str) -> None:
    page.get_by_role("dialog").get_by_role("button", name=name, exact=True).click()


def test_late_work_has_a_segment_and_a_tile(screen: Screen, api: Management) -> None:
    for number in range(3):
        api.make(
            f"Late {number}",
            PatientID="LATE",
            WorklistLabel="NIGHT",
            ScheduledProcedureStepStartDateTime=PAST,
            ScheduledStationNameCodeSequence=[STATION],
        )
    api.make("Just now", PatientID="LATE")
    page = screen.open(address("worklist", PatientID="LATE"))
    page.get_by_role("group", name="State").get_by_role("button", name="Late 3").click()
    total(page, "of 3 workitems")
    expect(page).to_have_url(re.compile("late=yes"))
    expect(page.get_by_role("img", name="Late: start has passed").first).to_be_visible()
    screen.open("/overview")
    card = page.get_by_role("region", name="Late or stuck")
    card.get_by_role("link", name="NIGHT · Reading room 7", exact=True).click()
    total(page, "of 3 workitems")
    expect(page.get_by_label("Filters")).to_contain_text("First station is Reading room 7")


def test_relative_times_stay_relative_in_the_address(screen: Screen, api: Management) -> None:
    api.make("Today", PatientID="TODAY")
    page = screen.open(address("worklist", PatientID="TODAY"))
    page.get_by_role("button", name="Filter").click()
    page.get_by_label("Attribute").select_option(label="Scheduled start")
    page.get_by_role("button", name="Today", exact=True).click()
    dialog(page, "Apply")
    expect(page.get_by_label("Filters")).to_contain_text("Scheduled start Today")
    expect(page).to_have_url(re.compile(r"ScheduledProcedureStepStartDateTime=today\.\.today%2B1d"))
    total(page, "of 1 workitem")


def test_stations_are_suggested_by_their_meaning(screen: Screen, api: Management) -> None:
    api.make("Where", PatientID="WHERE", ScheduledStationNameCodeSequence=[STATION])
    page = screen.open(address("worklist", PatientID="WHERE"))
    page.get_by_role("button", name="Filter").click()
    page.get_by_label("Attribute").select_option(label="Station")
    page.get_by_role("combobox", name="Station", exact=True).fill("reading room 7")
    dialog(page, "Apply")
    expect(page.get_by_label("Filters")).to_contain_text("Station is Reading room 7")
    total(page, "of 1 workitem")


def test_all_matches_are_selected_and_the_outcome_is_reported(screen: Screen, api: Management) -> None:
    uids = [api.make(f"Many {number:02}", PatientID="MANY") for number in range(30)]
    api.act(uids[0], "claim")
    api.post("/subscribers/LINAC1/subscribe", {"scope": "global"})
    page = screen.open(address("worklist", PatientID="MANY", order="created"))
    page.get_by_label("Page size").select_option("25")
    total(page, "1–25 of 30 workitems")
    page.get_by_label("Select all on this page").check()
    page.get_by_role("button", name="Select all 30 matching workitems").click()
    expect(page.locator(".selection")).to_contain_text("All 30 matching workitems are selected")
    page.get_by_role("button", name="Priority").last.click()
    dialog(page, "Set priority")
    expect(page.get_by_role("dialog")).to_contain_text("29 changed, 1 refused")
    dialog(page, "Close")
    expect(page.locator(".selection")).to_contain_text("1 workitem selected")
    page.get_by_label("Select all on this page").check()
    page.get_by_role("button", name="Select all 30 matching workitems").click()
    page.locator(".selection").get_by_role("button", name="Request cancellation").click()
    dialog(page, "Request cancellation")
    batch = page.get_by_role("dialog")
    expect(batch).to_contain_text("29 canceled")
    expect(batch).to_contain_text("1 asked to cancel")
    dialog(page, "Close")
    assert api.get("/counts", PatientID="MANY")["matches"]["CANCELED"] == 29
    screen.expect_problem("4")


def test_several_workitems_are_rescheduled_and_reassigned(screen: Screen, api: Management) -> None:
    uids = [api.make(f"Move {number}", PatientID="MOVE") for number in range(2)]
    page = screen.open(address("worklist", PatientID="MOVE"))
    page.get_by_label("Select all on this page").check()
    page.get_by_role("button", name="Reschedule").click()
    page.get_by_label("Start", exact=True).fill("2031-05-06T07:08")
    dialog(page, "Reschedule")
    expect(page.get_by_role("dialog")).to_contain_text("2 rescheduled")
    dialog(page, "Close")
    expect(page.locator(".selection")).to_be_hidden()
    page.get_by_label("Select all on this page").check()
    page.get_by_role("button", name="Reassign").click()
    page.get_by_role("dialog").get_by_role("button", name="Station").click()
    page.get_by_label("Meaning").fill("Room 9")
    page.get_by_label("Code", exact=True).fill("R9")
    page.get_by_label("Scheme").fill("99ST")
    dialog(page, "Reassign")
    expect(page.get_by_role("dialog")).to_contain_text("2 reassigned")
    dialog(page, "Close")
    for uid in uids:
        workitem = api.workitem(uid)
        assert (workitem["stations"], workitem["start"][:10]) == (["Room 9"], "2031-05-06")


def test_back_undoes_each_step_and_a_selection_survives_opening_a_row(
    screen: Screen, api: Management
) -> None:
    for number in range(2):
        api.make(f"Back {number}", PatientID="BACK", WorklistLabel="BACKLIST")
    page = screen.open(address("worklist", PatientID="BACK", order="created"))
    page.locator("tbody .choose input").first.check()
    page.get_by_role("group", name="State").get_by_role("button", name="Completed 0").click()
    expect(page.locator(".empty")).to_be_visible()
    page.go_back()
    total(page, "of 2 workitems")
    page.locator("tbody tr").last.click()
    expect(page.get_by_role("heading", name="Back 1")).to_be_visible()
    page.go_back()
    expect(page.locator(".selection")).to_contain_text("1 workitem selected")


def test_leaving_unsaved_input_is_confirmed_and_back_skips_a_sent_form(
    screen: Screen, api: Management
) -> None:
    page = screen.open(address("worklist", order="created"))
    page.get_by_role("link", name="New workitem").click()
    page.get_by_label("Label").fill("Halftyped")
    page.get_by_role("link", name="Overview").click()
    expect(page.get_by_role("dialog", name="Leave without saving?")).to_be_visible()
    dialog(page, "Stay")
    expect(page.get_by_label("Label")).to_have_value("Halftyped")
    page.get_by_role("button", name="Create workitem").click()
    expect(page.get_by_role("heading", name="Halftyped", exact=True)).to_be_visible()
    page.go_back()
    expect(page.get_by_role("searchbox", name="Search")).to_be_visible()
    assert api.get("/workitems", text="Halftyped")["total"] == 1


def test_a_workitem_is_copied_and_repeated(screen: Screen, api: Management) -> None:
    uid = api.make("Fraction 3", PatientID="AGAIN", ScheduledWorkitemCodeSequence=[CODE])
    api.act(uid, "request-cancel")
    page = screen.open(address("workitem", uid))
    page.get_by_role("link", name="Repeat").click()
    expect(page.get_by_role("heading", name="Repeat of Fraction 3")).to_be_visible()
    page.get_by_role("button", name="Create workitem").click()
    expect(page.get_by_role("heading", name="Fraction 3", exact=True)).to_be_visible()
    (repeated,) = api.get("/workitems", **{"ReplacedProcedureStepSequence.ReferencedSOPInstanceUID": uid})[
        "workitems"
    ]
    assert (repeated["state"], repeated["code"]) == ("SCHEDULED", "Interpretation")
    page.get_by_role("link", name="Duplicate").click()
    page.get_by_label("Label").fill("Fraction 4")
    page.get_by_role("button", name="Create workitem").click()
    expect(page.get_by_role("heading", name="Fraction 4", exact=True)).to_be_visible()
    assert api.get("/workitems", PatientID="AGAIN")["total"] == 3


def test_workitems_are_created_from_a_csv_after_a_preview(
    screen: Screen, api: Management, tmp_path: Path
) -> None:
    file = tmp_path / "order.csv"
    file.write_text(
        'Label;Name;Patient ID;Start;Odd\n"Line; one";Doe^Jane;CSV;2031-01-02 03:04;x\nLine two;Roe^Jo;CSV;;y\n'
    )
    page = screen.open("/many")
    page.get_by_label("File", exact=True).set_input_files(file)
    preview = page.get_by_role("region", name="Preview")
    expect(preview).to_contain_text("Line; one")
    expect(preview).to_contain_text("are ignored: Odd")
    page.get_by_role("button", name="Create 2 workitems").click()
    expect(page.get_by_role("dialog")).to_contain_text("2 created")
    rows = api.get("/workitems", PatientID="CSV", order="created")["workitems"]
    assert sorted(row["label"] for row in rows) == ["Line two", "Line; one"]


def test_values_that_an_export_protected_from_spreadsheets_are_restored(
    screen: Screen, api: Management, tmp_path: Path
) -> None:
    """The apostrophe before a formula is added by the export and is no part of the value."""
    api.make("=SUM(A1)", PatientID="FORMULA", PatientName="-Doe^@Jane")
    page = screen.open(address("worklist", PatientID="FORMULA"))
    total(page, "of 1 workitem")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="CSV", exact=True).click()
    file = tmp_path / "workitems.csv"
    waiting.value.save_as(file)
    content = file.read_bytes()
    assert b",'=SUM(A1)," in content and b"'-Doe" in content
    screen.open("/many")
    page.get_by_label("File", exact=True).set_input_files(file)
    expect(
        page.get_by_role("region", name="Preview").get_by_role("cell", name="=SUM(A1)", exact=True)
    ).to_be_visible()
    page.get_by_role("button", name="Create 1 workitem").click()
    expect(page.get_by_role("dialog")).to_contain_text("1 created")
    rows = api.get("/workitems", PatientID="FORMULA")["workitems"]
    assert [(row["label"], row["patient"]["name"]) for row in rows] == [("=SUM(A1)", "-Doe, @Jane")] * 2


def test_a_claim_on_behalf_names_the_performer(screen: Screen, api: Management) -> None:
    uid = api.make("Treated", PatientID="WHOM")
    page = screen.open(address("workitem", uid))
    page.get_by_role("button", name="Claim").click()
    page.get_by_label("Performer (AE title)").fill("LINAC1")
    dialog(page, "Claim")
    expect(page.get_by_role("region", name="Summary")).to_contain_text("LINAC1")
    assert api.workitem(uid)["claimed"]["ae"] == "LINAC1"
    screen.open(address("worklist", claimer="LINAC1"))
    total(page, "of 1 workitem")
    expect(page.locator("td.claimer")).to_contain_text("LINAC1")


def test_columns_and_views_are_stored_per_user(screen: Screen, api: Management) -> None:
    api.make("Mine", PatientID="MINE")
    page = screen.open(address("worklist", PatientID="MINE", order="created"))
    page.get_by_role("button", name="Columns").click()
    page.get_by_label("Accession number", exact=True).check()
    page.get_by_label("Priority", exact=True).uncheck()
    dialog(page, "Apply")
    expect(page.get_by_role("columnheader", name="Accession number")).to_be_visible()
    expect(page.get_by_role("columnheader", name="Priority")).to_have_count(0)
    page.get_by_role("button", name="Views").click()
    page.get_by_label("Save the current view as").fill("My patient")
    dialog(page, "Save")
    page.get_by_role("button", name="Use My patient as default view").click()
    dialog(page, "Close")
    screen.open("/overview")
    page.get_by_role("link", name="Worklist", exact=True).first.click()
    page.goto(f"{screen.base_url}/ups/app/icon.svg")
    screen.open("")
    total(page, "of 1 workitem")


def test_the_language_is_chosen_as_in_orthanc_explorer_2(chromium: Browser, orthanc: RealOrthanc) -> None:
    user = context(chromium, locale="fr-FR")
    page = Screen(user.new_page(), orthanc.base_url).open()
    expect(page.get_by_role("link", name="Arbeitsliste").first).to_be_visible()  # DefaultLanguage
    page.get_by_title("Benutzer und Sprache").click()
    page.get_by_label("Sprache", exact=True).select_option("fr")
    expect(page.get_by_role("link", name="Synthèse")).to_be_visible()
    expect(page.locator("html")).to_have_attribute("lang", "fr")
    page.wait_for_function("localStorage.getItem('OE2.languageKey') === 'fr'")
    user.close()


def test_everything_is_exported_and_imported_with_progress(
    screen: Screen, api: Management, tmp_path: Path
) -> None:
    api.make("Exported")
    page = screen.open("/administration")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Export everything").click()
    file = tmp_path / "worklist.ndjson"
    waiting.value.save_as(file)
    expect(page.get_by_role("region", name="Export")).to_contain_text(re.compile(r"Complete: \d+ lines"))
    assert '"kind":"end"' in file.read_text().splitlines()[-1].replace(" ", "")
    page.get_by_label("File").set_input_files(file)
    page.get_by_role("region", name="Import").get_by_role("button", name="Import file").click()
    dialog(page, "Import file")
    expect(page.get_by_role("region", name="Import")).to_contain_text("0 conflicts")
    page.get_by_role("button", name="Count").click()
    expect(page.get_by_role("region", name="Storage")).to_contain_text("workitem")


def test_an_unknown_subscriber_can_be_opened(screen: Screen) -> None:
    page = screen.open("/subscriber/NOBODY")
    expect(page.get_by_role("heading", name="NOBODY")).to_be_visible()
    expect(page.get_by_role("button", name="C-ECHO")).to_have_count(0)
    expect(page.locator("main")).to_have_text(
        re.compile(r"(Subscribe|No global or filtered subscriptions\.)\s*$")
    )
