# SPDX-License-Identifier: AGPL-3.0-or-later
"""Links from Orthanc Explorer to the page: home page, resources and Plugins, and the buttons of Explorer 2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Page, expect
from pydicom.data import get_testdata_file

from orthanc_ups.management.explorer_files import explorer_files
from tests.support.browser import Management, Screen, uploaded_study
from tests.support.orthanc import RealOrthanc

OUR_PAGE = pytest.mark.one_suite("the page is the same files in the same browser")
LEVELS = ("patient", "study", "series", "instance")


@pytest.fixture(scope="module")
def ids(orthanc: RealOrthanc) -> dict[str, str]:
    """A CT image in Orthanc."""
    file = get_testdata_file("CT_small.dcm")
    assert isinstance(file, str)
    return uploaded_study(orthanc, Path(file))


@pytest.fixture(scope="module")
def study_uid(orthanc: RealOrthanc, ids: dict[str, str]) -> str:
    content = requests.get(f"{orthanc.base_url}/studies/{ids['study']}", timeout=60).json()
    return str(content["MainDicomTags"]["StudyInstanceUID"])


def explorer(screen: Screen, fragment: str = "") -> Page:
    screen.page.goto("about:blank")  # a change of the fragment alone would not load the page
    screen.page.goto(f"{screen.base_url}/app/explorer.html{fragment}")
    return screen.page


def test_the_home_page_of_orthanc_explorer_has_a_button(screen: Screen) -> None:
    page = explorer(screen)
    page.get_by_role("link", name="UPS worklist").click()
    expect(page.get_by_role("searchbox", name="Search")).to_be_visible()


@pytest.mark.parametrize("level", LEVELS)
def test_each_resource_leads_to_its_workitems_and_to_a_new_one(
    screen: Screen, ids: dict[str, str], study_uid: str, level: str
) -> None:
    page = explorer(screen, f"#{level}?uuid={ids[level]}")
    kind = "patient" if level == "patient" else "study"
    buttons = page.locator(f"#ups-{level}")
    more = ["New workitem for each study"] if level == "patient" else []
    expect(buttons.get_by_role("link")).to_have_text(
        [f"Workitems of this {kind}", f"New workitem for this {kind}", *more]
    )
    buttons.get_by_role("link", name="Workitems").click()
    expect(page.get_by_role("searchbox", name="Search")).to_be_visible()
    assert ("PatientID=1CT1" if level == "patient" else f"study={study_uid}") in page.url
    explorer(screen, f"#{level}?uuid={ids[level]}")
    if level == "patient":
        buttons.get_by_role("link", name="New workitem for each study").click()
        expect(page.get_by_role("region", name="Preview")).to_contain_text("CompressedSamples")
        explorer(screen, f"#{level}?uuid={ids[level]}")
    buttons.get_by_role("link", name="New workitem for this").click()
    expect(page.get_by_label("Name", exact=True)).to_have_value("CompressedSamples^CT1")
    expect(page.locator(".inputs input:checked")).to_have_count(0 if level == "patient" else 1)


def test_a_button_appears_once_after_repeated_visits(screen: Screen, ids: dict[str, str]) -> None:
    page = explorer(screen, f"#study?uuid={ids['study']}")
    expect(page.locator("#ups-study")).to_have_count(1)
    page.goto(f"{screen.base_url}/app/explorer.html#series?uuid={ids['series']}")
    expect(page.locator("#ups-series")).to_be_visible()
    page.go_back()
    expect(page.locator("#ups-study")).to_have_count(1)
    expect(page.locator("#ups-study")).to_be_visible()


@OUR_PAGE
def test_a_workitem_created_for_a_study_refers_to_its_images(
    screen: Screen, api: Management, ids: dict[str, str], study_uid: str
) -> None:
    page = screen.open(f"/new?for=study/{ids['study']}")
    expect(page.locator(".inputs")).to_contain_text("CT")
    page.get_by_label("Label").fill("Read this study")
    page.get_by_role("button", name="Create workitem").click()
    expect(page.get_by_role("heading", name="Read this study")).to_be_visible()
    inputs = page.get_by_role("region", name="Inputs and outputs")
    expect(inputs).to_contain_text("1 instance from ORTHANC")
    link = inputs.get_by_role("link", name="Orthanc Explorer")
    expect(link).to_have_attribute("href", f"{screen.base_url}/app/explorer.html#series?uuid={ids['series']}")
    answer = api.get("/workitems", study=study_uid)
    assert [workitem["label"] for workitem in answer["workitems"]] == ["Read this study"]
    created = api.workitem(answer["workitems"][0]["uid"])
    assert created["inputs"][0]["study"] == study_uid
    assert created["patient"]["id"] == "1CT1"


def test_the_plugins_page_links_to_the_worklist(screen: Screen) -> None:
    page = explorer(screen, "#plugins")
    entry = page.get_by_role("listitem").filter(has_text="UPS worklist")
    with page.expect_popup() as opened:
        entry.get_by_role("heading").click()
    expect(opened.value.get_by_role("searchbox", name="Search")).to_be_visible()


def buttons_of_explorer_2() -> list[tuple[str, dict[str, Any]]]:
    content = json.loads(explorer_files()["custom-buttons.json"])
    buttons = content["OrthancExplorer2"]["UiOptions"]["CustomButtons"]
    return [(level, button) for level, several in buttons.items() for button in several]


@OUR_PAGE
@pytest.mark.parametrize(
    ("level", "button"), buttons_of_explorer_2(), ids=lambda parameter: str(parameter)[:40]
)
def test_buttons_of_orthanc_explorer_2_lead_to_the_page(
    screen: Screen, ids: dict[str, str], level: str, button: dict[str, Any]
) -> None:
    assert button.keys() == {"HttpMethod", "Id", "Tooltip", "Icon", "Target", "Url"}
    study = ids["study"]
    address = button["Url"].replace("{UUID}", ids.get(level, study)).replace("{CommaSeparatedUUIDs}", study)
    screen.page.goto(f"{screen.base_url}/ups/app/{address}")  # as from /ui/app/
    if "#/many" in address:
        expect(screen.page.get_by_role("region", name="Preview")).to_contain_text("CompressedSamples")
    elif "/new?" in address:
        expect(screen.page.get_by_role("heading", name="New workitem for")).to_be_visible()
    else:
        expect(screen.page.get_by_label("Filters")).to_be_visible()


@OUR_PAGE
def test_a_resource_that_is_gone_says_so(screen: Screen) -> None:
    page = screen.open("/new?for=study/" + "-".join(["00000000"] * 5))
    expect(page.get_by_role("alert")).to_contain_text("Orthanc has no such study")
    screen.expect_problem("404")
