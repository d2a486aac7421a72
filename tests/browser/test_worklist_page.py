# SPDX-License-Identifier: AGPL-3.0-or-later
"""The worklist as an operator sees it: searching, sorting, paging, selecting, and live updates."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import CODE, STATION, Management, Screen, address

OUR_PAGE = pytest.mark.one_suite("the page is the same files in the same browser")
COUNT = 60
FAMILIES = ("Fairweather", "Aokawa", "Lindqvist", "Okonkwo")


@pytest.fixture(scope="module", autouse=True)
def workitems(api: Management) -> list[str]:
    """Sixty workitems: every third HIGH, every fourth in worklist NIGHT."""
    return [
        api.make(
            f"Step {number:02}",
            PatientName=f"{FAMILIES[number % 4]}^Given{number:02}",
            PatientID=f"HC-{number:04}",
            WorklistLabel="NIGHT" if number % 4 == 0 else "DAY",
            ScheduledProcedureStepPriority="HIGH" if number % 3 == 0 else "LOW",
            ScheduledProcedureStepStartDateTime=f"202611{1 + number % 28:02}0800+0000",
            ScheduledWorkitemCodeSequence=[CODE],
            ScheduledStationNameCodeSequence=[STATION],
        )
        for number in range(COUNT)
    ]


def labels(page: Page) -> list[str]:
    return page.locator("tbody td.label a").all_inner_texts()


def total(page: Page, words: str) -> None:
    expect(page.locator(".foot")).to_contain_text(words)


def test_open_work_comes_first_by_priority_and_start_and_a_row_has_the_essentials(screen: Screen) -> None:
    page = screen.open()
    total(page, f"of {COUNT} workitems")
    expect(page).to_have_url(re.compile("order=urgency"))
    row = page.locator("tbody tr").first
    for words in ("Scheduled", "High", "Step 00", "NIGHT", "Fairweather, Given00", "Reading room 7"):
        expect(row).to_contain_text(words)


def test_search_covers_every_field_and_is_part_of_the_address(screen: Screen) -> None:
    page = screen.open()
    page.get_by_role("searchbox").fill("lindqvist given3")
    total(page, "of 3 workitems")
    expect(page.locator("tbody tr")).to_have_count(3)
    assert sorted(labels(page)) == ["Step 30", "Step 34", "Step 38"]
    expect(page).to_have_url(re.compile(r"text=lindqvist\+given3"))
    page.reload()
    total(page, "of 3 workitems")
    expect(page.get_by_role("searchbox")).to_have_value("lindqvist given3")


@OUR_PAGE
def test_a_search_without_matches_offers_to_show_all(screen: Screen) -> None:
    page = screen.open(address("worklist", text="nobody has this name"))
    expect(page.locator(".empty")).to_contain_text("No workitems match")
    page.get_by_role("button", name="Show all").click()
    total(page, f"of {COUNT} workitems")


@OUR_PAGE
def test_states_and_worklists_filter_with_a_click(screen: Screen) -> None:
    page = screen.open()
    page.get_by_label("Worklist", exact=True).select_option("NIGHT")
    total(page, "of 15 workitems")
    page.get_by_role("group", name="State").get_by_role("button", name="Completed 0").click()
    expect(page.locator(".empty")).to_be_visible()
    expect(page).to_have_url(re.compile("ProcedureStepState=COMPLETED"))
    expect(page).to_have_url(re.compile("WorklistLabel=NIGHT"))


@OUR_PAGE
def test_a_filter_by_any_key_is_a_chip_that_can_be_changed_and_removed(screen: Screen) -> None:
    page = screen.open()
    page.get_by_role("button", name="Filter").click()
    page.get_by_label("Attribute").select_option(label="Patient ID")
    page.get_by_label("Text").fill("HC-001")
    page.get_by_role("button", name="Apply").click()
    total(page, "of 10 workitems")
    chip = page.get_by_label("Filters")
    expect(chip).to_contain_text("Patient ID contains “HC-001”")
    page.reload()
    total(page, "of 10 workitems")
    chip.get_by_role("button", name="Remove Patient ID").click()
    total(page, f"of {COUNT} workitems")


@OUR_PAGE
def test_a_filter_by_time_is_in_the_zone_of_the_user(screen: Screen) -> None:
    page = screen.open()
    page.get_by_role("button", name="Filter").click()
    page.get_by_label("Attribute").select_option(label="Scheduled start")
    page.get_by_label("From").fill("2026-11-03T00:00")
    page.get_by_label("To").fill("2026-11-03T23:59")
    page.get_by_role("button", name="Apply").click()
    total(page, "of 3 workitems")
    expect(page.get_by_label("Filters")).to_contain_text("3 Nov 00:00 to 3 Nov 23:59")
    expect(page.locator("tbody td.start").first).to_contain_text("3 Nov 09:00")


@OUR_PAGE
def test_a_filter_by_choice_takes_several(screen: Screen) -> None:
    page = screen.open()
    page.get_by_role("button", name="Filter").click()
    page.get_by_label("Attribute").select_option(label="Priority")
    page.get_by_label("High").check()
    page.get_by_role("button", name="Apply").click()
    total(page, "of 20 workitems")


@OUR_PAGE
def test_headings_sort_on_the_server_in_both_directions(screen: Screen) -> None:
    page = screen.open(address("worklist", order="created"))
    expect(page.locator("tbody td.label").first).to_have_text("Step 00")
    heading = page.get_by_role("columnheader", name="Patient")
    heading.get_by_role("button").click()
    expect(heading).to_have_attribute("aria-sort", "ascending")
    expect(page.locator("tbody td.patient").first).to_contain_text("Aokawa")
    heading.get_by_role("button").click()
    expect(heading).to_have_attribute("aria-sort", "descending")
    expect(page.locator("tbody td.patient").first).to_contain_text("Okonkwo")


@OUR_PAGE
def test_pages_are_turned_and_kept_in_the_address(screen: Screen) -> None:
    page = screen.open(address("worklist", order="created"))
    page.get_by_label("Page size").select_option("25")
    total(page, f"1–25 of {COUNT}")
    page.get_by_role("button", name="Next page").click()
    total(page, f"26–50 of {COUNT}")
    expect(page.locator("tbody td.label a").first).to_have_text("Step 25")
    page.get_by_label("Page, of 3").fill("3")
    page.keyboard.press("Enter")
    total(page, f"51–60 of {COUNT}")
    page.reload()
    total(page, f"51–60 of {COUNT}")
    expect(page.get_by_role("button", name="Next page")).to_be_disabled()


def test_matches_can_be_saved_as_csv(screen: Screen, tmp_path: Path) -> None:
    page = screen.open(address("worklist", WorklistLabel="NIGHT"))
    with page.expect_download() as waiting:
        page.get_by_role("button", name="CSV").click()
    file = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(file)
    lines = file.read_text("utf-8-sig").splitlines()
    assert file.name == "workitems.csv"
    assert len(lines) == 16
    assert lines[0].startswith("State,Priority,Label,Worklist,Patient name")


def test_changes_appear_without_reloading(screen: Screen, api: Management) -> None:
    page = screen.open(address("worklist", PatientID="LIVE"))
    expect(page.locator(".empty")).to_be_visible()
    uid = api.make("Fresh", PatientID="LIVE")
    row = page.locator("tbody tr")
    expect(row).to_contain_text("Fresh")
    expect(row).to_contain_text("Scheduled")
    api.act(uid, "claim")
    expect(row).to_contain_text("In progress")
    api.act(uid, "complete")
    expect(row).to_contain_text("Completed")
    api.ask("DELETE", f"/workitems/{uid}")
    expect(page.locator(".empty")).to_be_visible()


def test_several_workitems_are_canceled_at_once_each_by_its_own_rules(
    screen: Screen, api: Management
) -> None:
    uids = [api.make(f"Bulk {number}", PatientID="BULK") for number in range(3)]
    api.act(uids[0], "claim")
    api.act(uids[0], "complete")
    page = screen.open(address("worklist", PatientID="BULK", order="created"))
    page.get_by_label("Select all on this page").check()
    expect(page.locator(".selection")).to_contain_text("3 workitems selected")
    page.get_by_role("button", name="Request cancellation").click()
    page.get_by_label("Reason", exact=True).select_option(label="Duplicate order")
    page.get_by_role("dialog").get_by_role("button", name="Request cancellation").click()
    batch = page.get_by_role("dialog")
    expect(batch).to_contain_text("2 canceled, 1 refused")
    expect(batch).to_contain_text("Bulk 0 – The UPS is already COMPLETED")
    batch.get_by_role("button", name="Close").click()
    expect(page.locator("tbody")).to_contain_text("Canceled")
    assert [api.workitem(uid)["state"] for uid in uids] == ["COMPLETED", "CANCELED", "CANCELED"]
    screen.expect_problem("409")


@OUR_PAGE
def test_final_workitems_are_deleted_after_a_confirmation(screen: Screen, api: Management) -> None:
    uids = [api.make("Gone", PatientID="PURGE") for _ in range(2)]
    for uid in uids:
        api.act(uid, "request-cancel")
    page = screen.open(address("worklist", PatientID="PURGE"))
    page.get_by_label("Select all on this page").check()
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("dialog")).to_contain_text("This cannot be undone")
    page.get_by_role("dialog").get_by_role("button", name="Back").click()
    assert api.get("/workitems", PatientID="PURGE")["total"] == 2
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("dialog")).to_contain_text("2 deleted")
    page.get_by_role("dialog").get_by_role("button", name="Close").click()
    expect(page.locator(".empty")).to_be_visible()
    assert api.get("/workitems", PatientID="PURGE")["total"] == 0


def test_sorting_by_station_performer_and_progress(screen: Screen, api: Management) -> None:
    """Rows without a value come last in both directions."""
    for number, (station_name, percent) in enumerate((("Room B", "9.5"), (None, None), ("room a", "70")), 1):
        station = {"CodeValue": str(number), "CodingSchemeDesignator": "99ST", "CodeMeaning": station_name}
        person = {"HumanPerformerName": f"{station_name}^X", "HumanPerformerOrganization": "Harbour Clinic"}
        uid = api.make(
            f"Sorted {number}",
            PatientID="SORTED",
            ScheduledStationNameCodeSequence=[station] if station_name else [],
            ScheduledHumanPerformersSequence=[person] if station_name else [],
        )
        if percent:
            progress = {"ProcedureStepProgressInformationSequence": [{"ProcedureStepProgress": percent}]}
            api.ask("PUT", f"/workitems/{uid}", {"attributes": progress})
    page = screen.open(address("worklist", PatientID="SORTED", order="created"))
    labels = page.locator("tbody td.label a")

    def sort(heading: str, *expected: int, by: str) -> None:
        page.get_by_role("button", name=heading, exact=True).click()
        expect(labels).to_have_text([f"Sorted {number}" for number in expected])
        expect(page.get_by_role("columnheader", name=heading)).to_have_attribute("aria-sort", by)

    sort("Station", 3, 1, 2, by="ascending")
    sort("Station", 1, 3, 2, by="descending")
    sort("Performer", 3, 1, 2, by="ascending")
    sort("Performer", 1, 3, 2, by="descending")
    sort("Progress", 3, 1, 2, by="descending")
    sort("Progress", 1, 3, 2, by="ascending")
