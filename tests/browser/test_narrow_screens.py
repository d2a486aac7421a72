# SPDX-License-Identifier: AGPL-3.0-or-later
"""The page at the widths of a desk, a tablet and a phone: every dialog is visible, and all of it can be reached."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.support.browser import CODE, STATION, Management, Screen, address, context
from tests.support.orthanc import RealOrthanc

pytestmark = pytest.mark.one_suite("the page is the same files in the same browser")

# The other tests of the page have the width of a desk; what fits on a phone is rarely too wide for a tablet.
WIDTHS = (pytest.param(1280, marks=pytest.mark.torture), pytest.param(820, marks=pytest.mark.torture), 390)
TABLET_TOO = pytest.mark.parametrize("narrow", [820, 390], indirect=True)
UNREACHABLE = """(box) => {
  const unreachable = [];
  for (const control of box.querySelectorAll("button, input, select, textarea, a[href], summary")) {
    if (!control.checkVisibility()) continue;
    control.scrollIntoView({ block: "center", inline: "nearest" });
    const area = control.getBoundingClientRect();
    const [x, y] = [area.left + Math.min(area.width / 2, 40), area.top + Math.min(area.height / 2, 40)];
    const hit = document.elementFromPoint(x, y);
    const inside = area.left >= -1 && area.right <= innerWidth + 1 && area.width > 8 && area.height > 8;
    const label = control.closest("label");
    if (!inside || !hit || !(control.contains(hit) || hit.contains(control) || (label && label.contains(hit)))) {
      const words = control.getAttribute("aria-label") || control.textContent || control.id;
      unreachable.push(`${control.tagName} ${words}`.trim());
    }
  }
  return unreachable;
}"""


@pytest.fixture(scope="module")
def orthanc_overrides() -> dict[str, Any]:
    return {"DicomModalities": {"down": ["DOWN", "127.0.0.1", 9]}}


@pytest.fixture(scope="module")
def uids(api: Management) -> dict[str, str]:
    """A workitem in each state with actions of its own, with a subscriber and a Deletion Lock."""
    api.post("/subscribers/DOWN/subscribe", {"scope": "global", "lock": True})
    more: dict[str, Any] = {
        "ScheduledWorkitemCodeSequence": [CODE],
        "ScheduledStationNameCodeSequence": [STATION],
        "PatientName": "Fairweather^Ines",
        "PatientID": "HC-0001",
    }
    by_name = {
        name: api.make(f"Step {name} with a label that is long", **more)
        for name in ("new", "claimed", "done")
    }
    api.act(by_name["claimed"], "claim")
    api.act(by_name["done"], "request-cancel")
    return by_name


@pytest.fixture(params=WIDTHS)
def narrow(request: pytest.FixtureRequest, chromium: Browser, orthanc: RealOrthanc) -> Iterator[Screen]:
    user = context(chromium, viewport={"width": request.param, "height": 844})
    screen = Screen(user.new_page(), orthanc.base_url)
    yield screen
    user.close()
    assert not screen.problems


def press(within: Page | Locator, name: str) -> None:
    within.get_by_role("button", name=re.compile(rf"^{re.escape(name)}( \d+)?$")).first.click()


def check_dialog(page: Page) -> None:
    """Check that the dialog fits the screen and that every control in it can be reached, then close it."""
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    box, size = dialog.bounding_box(), page.viewport_size
    assert box is not None and size is not None
    assert box["width"] > 250 and box["height"] > 80
    assert box["x"] >= 0 and box["x"] + box["width"] <= size["width"] + 1
    assert box["y"] >= 0 and box["y"] + box["height"] <= size["height"] + 1
    assert dialog.evaluate(UNREACHABLE) == []
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)


DIALOGS = {
    "/subscribers": ("New subscription",),
    "/subscriber/DOWN": (
        "Test event",
        "Resend …",
        "Drop pending …",
        "Subscribe",
        "Unsubscribe from everything",
    ),
    "new": ("Claim", "Request cancellation", "Subscribe", "Unsubscribe DOWN", "Lock"),
    "claimed": ("Complete", "Cancel on behalf", "Request cancellation"),
    "done": ("Delete",),
}


@pytest.mark.parametrize("where", DIALOGS)
def test_every_dialog_fits_the_screen(narrow: Screen, uids: dict[str, str], where: str) -> None:
    page = narrow.open(address("workitem", uids[where]) if where in uids else where)
    expect(page.locator("h1")).to_be_visible()
    for name in DIALOGS[where]:
        press(page, name)
        check_dialog(page)


@TABLET_TOO
def test_every_dialog_of_the_worklist_fits_the_screen(narrow: Screen, uids: dict[str, str]) -> None:
    page = narrow.open(address("worklist", PatientID="HC-0001", ended="today..today+1d"))
    for name in ("Views", "Columns", "Filter"):
        press(page, name)
        check_dialog(page)
    page.get_by_label("Filters").get_by_role("button", name="Ended Today").click()
    check_dialog(page)
    narrow.open(address("worklist", PatientID="HC-0001", order="created"))
    page.locator("tbody .choose input").first.check()
    for name in ("Request cancellation", "Priority", "Reassign", "Reschedule", "Delete"):
        press(page.locator(".selection"), name)
        check_dialog(page)
    press(page.locator(".selection"), "Clear selection")
    press(page, "Keyboard shortcuts")
    check_dialog(page)
    page.get_by_title("User and language").click()
    check_dialog(page)


def test_the_edit_form_and_progress_and_import_can_be_used(
    narrow: Screen, uids: dict[str, str], tmp_path: Path
) -> None:
    page = narrow.open(address("workitem", uids["new"], "edit"))
    expect(page.get_by_role("button", name="Save", exact=True)).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= page.evaluate("innerWidth")
    assert page.locator("main").evaluate(UNREACHABLE) == []
    narrow.open(address("worklist", SOPInstanceUID=uids["new"]))
    page.locator("tbody .choose input").first.check()
    press(page.locator(".selection"), "Priority")
    page.get_by_role("dialog").get_by_role("button", name="Set priority", exact=True).click()
    expect(page.get_by_role("dialog")).to_contain_text("1 changed")
    check_dialog(page)
    file = tmp_path / "a-worklist-with-a-rather-long-name-of-a-file-2026-11-27.ndjson"
    file.write_text("{}\n")
    narrow.open("/administration")
    page.get_by_label("File").set_input_files(file)
    page.get_by_role("region", name="Import").get_by_role("button", name="Import file").click()
    check_dialog(page)


@TABLET_TOO
def test_rows_show_patient_and_label_at_every_width(narrow: Screen, uids: dict[str, str]) -> None:
    page = narrow.open(address("worklist", PatientID="HC-0001"))
    row = page.locator("tbody tr").first
    expect(row.locator("td.patient")).to_contain_text("Fairweather, Ines")
    for column, least in (("label", 120), ("patient", 120), ("state", 70), ("start", 30)):
        cell = row.locator(f"td.{column}")
        expect(cell).to_be_visible()
        box, size = cell.bounding_box(), page.viewport_size
        assert box is not None and size is not None
        assert box["width"] >= least, column
        assert box["x"] + box["width"] <= size["width"], column


PLACES = ("/worklist", "/subscribers", "/subscriber/DOWN", "/overview", "/new")


def test_nothing_overflows_and_every_control_can_be_reached(narrow: Screen, uids: dict[str, str]) -> None:
    edited = address("workitem", uids["new"], "edit")
    for where in (*PLACES, *(address("workitem", uid) for uid in uids.values()), edited):
        page = narrow.open(where)
        width = page.evaluate("innerWidth")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, where
        assert page.evaluate("document.querySelector('main').scrollWidth") <= width, where
        top = page.locator("#top")
        assert top.evaluate(UNREACHABLE) == [], where


@pytest.mark.parametrize("language", ["de", "fr"])
@pytest.mark.parametrize(
    "widths", [(1100, 390), pytest.param((1280, 910, 820), marks=pytest.mark.torture)], ids=str
)
def test_longer_languages_fit(
    chromium: Browser, orthanc: RealOrthanc, language: str, widths: tuple[int, ...]
) -> None:
    """Also between the widths at which parts of the page are hidden."""
    user = context(chromium, locale=language)
    screen = Screen(user.new_page(), orthanc.base_url)
    for width in widths:
        screen.page.set_viewport_size({"width": width, "height": 844})
        page = screen.open("/overview")
        expect(page.locator("html")).to_have_attribute("lang", language)
        assert page.locator("#top").evaluate(UNREACHABLE) == [], width
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        cut = "(tiles) => tiles.filter((one) => one.scrollWidth > one.clientWidth + 1).map((one) => one.textContent)"
        assert page.locator(".figure").evaluate_all(cut) == [], width
    user.close()
    assert not screen.problems
