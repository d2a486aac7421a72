# SPDX-License-Identifier: AGPL-3.0-or-later
"""One workitem on the page: created, watched, edited, claimed, completed, canceled; and refusals in plain words."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import CODE, STATION, Management, Screen, address

pytestmark = pytest.mark.one_suite("the page is the same files in the same browser")

TEMPLATE = {
    "Name": "Second reading",
    "Description": "A radiologist reads a study again",
    "Attributes": {
        "ProcedureStepLabel": "Second reading",
        "WorklistLabel": {"Choices": ["READING", "NIGHT SHIFT"], "Default": "READING"},
        "ScheduledProcedureStepPriority": {"Choices": ["HIGH", "MEDIUM"], "Default": "MEDIUM"},
        "ScheduledProcedureStepExpirationDateTime": "now+7d",
        "ScheduledWorkitemCodeSequence": {"Default": [CODE], "Fixed": True},
        "ScheduledStationNameCodeSequence": {"Choices": [STATION]},
        "PatientID": {"Required": True},
    },
}


@pytest.fixture(scope="module")
def orthanc_overrides() -> dict[str, Any]:
    return {
        "DicomModalities": {"watcher": ["WATCHER", "127.0.0.1", 9]},
        "Ups": {"Templates": [TEMPLATE]},
    }


def confirm(page: Page, name: str) -> None:
    page.get_by_role("dialog").get_by_role("button", name=name, exact=True).click()


def expect_history(page: Page, *acts: str) -> None:
    expect(page.locator(".timeline b")).to_have_text(acts)


def test_from_a_template_to_completion(screen: Screen, api: Management) -> None:
    page = screen.open()
    page.get_by_role("link", name="New workitem").click()
    page.get_by_role("button", name="Second reading").click()
    expect(page.get_by_label("Label")).to_have_value("Second reading")
    expect(page.get_by_text("Interpretation")).to_be_visible()
    page.get_by_label("Reading room 7").check()
    page.get_by_label("Name", exact=True).fill("Doe^Jane")
    page.get_by_label("Patient ID", exact=False).first.fill("HC-1")
    page.get_by_role("button", name="Create workitem").click()
    expect(page.get_by_role("heading", name="Second reading", exact=True)).to_be_visible()
    expect(page.locator(".head")).to_contain_text("Scheduled")
    expect(page.locator(".workitem")).to_contain_text("Doe, Jane")
    expect(page.locator(".workitem")).to_contain_text("Reading room 7")
    page.get_by_role("button", name="Claim").click()
    confirm(page, "Claim")
    expect(page.locator(".head")).to_contain_text("In progress")
    page.get_by_role("button", name="Complete", exact=True).click()
    expect(page.get_by_role("dialog").get_by_label("Code").first).to_have_value("110005")
    page.get_by_role("dialog").get_by_label("What was done").fill("Read twice")
    confirm(page, "Complete on behalf")
    expect(page.locator(".head")).to_contain_text("Completed")
    expect_history(page, "completed on behalf", "claimed", "created")
    uid = page.url.rpartition("/")[2]
    workitem = api.workitem(uid)
    assert (workitem["state"], workitem["worklist"], workitem["patient"]["id"]) == (
        "COMPLETED",
        "READING",
        "HC-1",
    )
    assert "Read twice" in str(workitem["groups"])


def test_a_refusal_is_shown_beside_its_field(screen: Screen, api: Management) -> None:
    before = api.get("/workitems")["total"]
    page = screen.open("/new")
    page.get_by_role("button", name="Blank").click()
    page.get_by_label("Label").fill("")
    page.get_by_role("button", name="Create workitem").click()
    expect(page.locator(".field.wrong")).to_contain_text("Label is missing")
    page.get_by_label("Label").fill("Bad name")
    page.get_by_label("Name", exact=True).fill("a=b=c=d")
    page.get_by_role("button", name="Create workitem").click()
    expect(page.locator(".field.wrong")).to_contain_text("PatientName")
    assert api.get("/workitems")["total"] == before
    screen.expect_problem("400")


def test_fields_that_a_template_requires_are_required(screen: Screen) -> None:
    page = screen.open("/new")
    page.get_by_role("button", name="Second reading").click()
    page.get_by_role("button", name="Create workitem").click()
    expect(page.get_by_role("alert").filter(has_text="PatientID is required")).to_be_visible()
    screen.expect_problem("400")


def test_another_template_keeps_the_users_input(screen: Screen) -> None:
    page = screen.open("/new")
    page.get_by_role("button", name="Second reading").click()
    page.get_by_label("Name", exact=True).fill("Doe^Jane")
    page.get_by_role("button", name="Blank").click()
    expect(page.get_by_label("Name", exact=True)).to_have_value("Doe^Jane")
    expect(page.get_by_label("Label")).to_have_value("")


def test_a_scheduled_workitem_is_edited(screen: Screen, api: Management) -> None:
    uid = api.make("Draft", ScheduledProcedureStepPriority="LOW", ScheduledWorkitemCodeSequence=[CODE])
    page = screen.open(address("workitem", uid))
    page.get_by_role("link", name="Edit").click()
    page.get_by_label("Label").fill("Final")
    page.get_by_label("Priority").select_option(label="High")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", name="Final")).to_be_visible()
    workitem = api.workitem(uid)
    assert (workitem["label"], workitem["priority"], workitem["code"]) == ("Final", "HIGH", "Interpretation")
    expect_history(page, "updated Scheduled Procedure Step Priority, Procedure Step Label", "created")


def test_a_cancellation_has_its_reason(screen: Screen, api: Management) -> None:
    uid = api.make("Superfluous")
    page = screen.open(address("workitem", uid))
    page.get_by_role("button", name="Request cancellation").click()
    page.get_by_label("Reason", exact=True).select_option(label="Equipment failure")
    page.get_by_label("Details").fill("The scanner is down")
    confirm(page, "Cancel the workitem")
    expect(page.locator(".head")).to_contain_text("Canceled")
    assert "The scanner is down" in str(api.workitem(uid)["groups"])


def test_the_reason_of_an_action_is_in_the_history_as_text(screen: Screen, api: Management) -> None:
    uid = api.make("Explained", PatientName="Doe^Jane")
    page = screen.open(address("workitem", uid))
    page.get_by_role("button", name="Claim").click()
    page.get_by_role("dialog").get_by_label("Reason (optional)").fill("<img src=x onerror=hacked()> for Jane")
    confirm(page, "Claim")
    expect(page.locator(".timeline .why")).to_have_text("<img src=x onerror=hacked()> for […]")
    assert page.locator("main img").count() == 0
    api.act(uid, "complete")
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_label("Reason (optional)").fill("Entered twice: ä, &, +")
    confirm(page, "Delete")
    expect(page.get_by_role("button", name="Columns")).to_be_visible()
    screen.open(address("workitem", uid))
    expect(page.get_by_role("alert")).to_contain_text("by page: Entered twice: ä, &, +")
    screen.expect_problem("410")


def test_the_dialog_shows_that_the_performer_cannot_be_reached(screen: Screen, api: Management) -> None:
    uid = api.make("Lonely")
    api.act(uid, "claim")
    page = screen.open(address("workitem", uid))
    page.get_by_role("button", name="Request cancellation").click()
    confirm(page, "Request cancellation")
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("No AE is subscribed")
    confirm(page, "Back")
    page.get_by_role("button", name="Cancel on behalf").click()
    confirm(page, "Cancel on behalf")
    expect(page.locator(".head")).to_contain_text("Canceled")
    screen.expect_problem("409")


def test_an_outdated_page_shows_why_it_is_refused(screen: Screen, api: Management) -> None:
    uid = api.make("Raced")
    page = screen.open(address("workitem", uid, "edit"))
    api.act(uid, "claim")
    page.get_by_label("Label").fill("Too late")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert").filter(has_text="Transaction UID")).to_be_visible()
    screen.expect_problem("400")


def test_subscribers_and_locks_are_shown_and_released(screen: Screen, api: Management) -> None:
    uid = api.make("Watched")
    page = screen.open(address("workitem", uid))
    page.get_by_role("button", name="Subscribe", exact=True).click()
    page.get_by_label("AE title").fill("NOBODY")
    confirm(page, "Subscribe")
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("NOBODY is not")
    page.get_by_label("AE title").fill("WATCHER")
    page.get_by_label("With Deletion Lock").check()
    confirm(page, "Subscribe")
    watchers = page.get_by_role("region", name="Subscribers")
    expect(watchers).to_contain_text("WATCHER")
    events = page.get_by_role("region", name="Events and deliveries")
    expect(events).to_contain_text("Scheduled, Inputs ready")
    watchers.get_by_role("button", name="Lock").click()
    confirm(page, "Release the lock")
    expect(watchers.get_by_role("button", name="Lock")).to_have_count(0)
    expect(watchers).to_contain_text("WATCHER")
    screen.expect_problem("404")


def test_every_attribute_is_shown_with_its_tag_on_demand(screen: Screen, api: Management) -> None:
    uid = api.make("Readable", ScheduledStationNameCodeSequence=[STATION], PatientName="Doe^Jane=青川^春香")
    page = screen.open(address("workitem", uid))
    attributes = page.get_by_role("region", name="All attributes")
    attributes.get_by_role("button", name="Expand all").click()
    expect(attributes).to_contain_text("Scheduled Station Name Code Sequence")
    expect(attributes).to_contain_text("Reading room 7 R7, 99STATIONS")
    expect(attributes).to_contain_text("青川 春香")
    expect(attributes.get_by_text("(0040,4025)")).to_be_hidden()
    attributes.get_by_label("Tags").check()
    expect(attributes.get_by_text("(0040,4025)")).to_be_visible()


def test_markup_in_names_stays_text(screen: Screen, api: Management) -> None:
    label = '<img src="x" onerror="window.hacked=1">'
    name = "<script>window.hacked(1)</script>^<b>Bold</b>"
    station = {"CodeValue": "<i>", "CodingSchemeDesignator": "99<u>", "CodeMeaning": "<svg onload=hacked()>"}
    uid = api.make(label, PatientName=name, PatientID="<hr>", ScheduledStationNameCodeSequence=[station])
    api.post("/subscribers/WATCHER/subscribe", {"scope": "filtered", "filter": {"PatientID": "<b>*"}})
    page = screen.open(address("worklist", PatientID="<hr>"))
    expect(page.locator("tbody td.label")).to_have_text(label)
    expect(page.locator("tbody td.patient")).to_contain_text("<script>window.hacked(1)</script>, <b>Bold</b>")
    page.locator("tbody tr").click()
    expect(page.get_by_role("heading", name=label)).to_be_visible()
    page.get_by_role("button", name="Expand all").click()
    expect(page.locator("main")).to_contain_text("<svg onload=hacked()>")
    screen.open(address("workitem", uid, "edit"))
    expect(page.get_by_label("Label")).to_have_value(label)
    screen.open("/subscribers")
    expect(page.locator("main")).to_contain_text("Patient ID matches <b>*")
    assert page.evaluate("window.hacked") is None
    assert page.locator("main img, main script, main hr, main u").count() == 0


def test_a_workitem_that_is_gone_says_so(screen: Screen) -> None:
    page = screen.open(address("workitem", "1.2.3"))
    expect(page.get_by_role("alert")).to_contain_text("does not exist")
    expect(page.get_by_role("link", name="Back to the worklist")).to_be_visible()
    screen.expect_problem("404")


def test_two_tabs_see_the_same_at_once(screen: Screen, api: Management) -> None:
    uid = api.make("Shared")
    page = screen.open(address("workitem", uid))
    api.act(uid, "claim")
    expect(page.locator(".head")).to_contain_text("In progress")
    expect_history(page, "claimed", "created")
