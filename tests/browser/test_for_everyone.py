# SPDX-License-Identifier: AGPL-3.0-or-later
"""The page without a mouse, in both colour schemes, on a tablet, with long names, and when Orthanc goes away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import CODE, STATION, Management, Screen, address, context
from tests.support.orthanc import RealOrthanc

pytestmark = pytest.mark.one_suite("the page is the same files in the same browser")

LONG = "Wolfeschlegelsteinhausenbergerdorff^Hubert Maximilian"
CONTRAST = Path(__file__).with_name("contrast.js").read_text()


@pytest.fixture(scope="module")
def orthanc_overrides() -> dict[str, Any]:
    return {"DicomModalities": {"down": ["DOWN", "127.0.0.1", 9]}}


@pytest.fixture(scope="module", autouse=True)
def workitems(api: Management) -> list[str]:
    """One workitem in each state, one of them with a lock and one with a very long name."""
    api.post("/subscribers/DOWN/subscribe", {"scope": "global", "lock": True})
    more: dict[str, Any] = {
        "ScheduledWorkitemCodeSequence": [CODE],
        "ScheduledStationNameCodeSequence": [STATION],
        "PatientName": LONG,
        "PatientID": "HC-0001",
    }
    uids = [api.make(f"Step {number} " + "of a very long protocol " * 2, **more) for number in range(4)]
    for uid in uids[1:3]:
        api.act(uid, "claim")
    api.act(uids[2], "complete")
    api.act(uids[3], "request-cancel")
    return uids


def expect_focus(page: Page, words: str) -> None:
    """Wait until an element with these words has the focus."""
    expect(page.locator(":focus")).to_contain_text(words)


def expect_list(page: Page) -> None:
    """Wait until the worklist is shown, by its search field: other views have tables too."""
    expect(page.get_by_role("searchbox", name="Search")).to_be_visible()
    expect(page.locator("tbody tr").first).to_be_visible()


def test_the_main_path_without_a_mouse(screen: Screen, api: Management) -> None:
    page = screen.open()
    expect_list(page)
    page.keyboard.press("n")
    expect(page.get_by_role("button", name="Create workitem")).to_be_visible()
    expect(page.get_by_label("Label")).to_be_focused()
    page.keyboard.type("By keyboard")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="By keyboard")).to_be_visible()
    page.keyboard.press("Escape")
    expect_list(page)
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("keyboard")
    expect(page.locator(".foot")).to_contain_text("of 1 workitem")
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    expect_focus(page, "By keyboard")
    page.keyboard.press("x")
    expect(page.locator(".selection")).to_contain_text("1 workitem selected")
    page.keyboard.press("Escape")
    expect(page.locator(".selection")).to_be_hidden()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="By keyboard")).to_be_visible()
    page.keyboard.press("e")
    expect(page.get_by_label("Label")).to_have_value("By keyboard")
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Claim")).to_be_visible()
    page.keyboard.press("2")
    expect(page.get_by_role("heading", name="Subscribers", level=1)).to_be_visible()
    page.keyboard.press("3")
    expect(page.get_by_role("heading", name="Overview", level=1)).to_be_visible()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_the_keyboard_moves_between_rows_and_back_returns_to_the_row(
    screen: Screen, workitems: list[str]
) -> None:
    page = screen.open(address("worklist", PatientID="HC-0001", order="created"))
    expect_list(page)
    for _ in range(3):
        page.keyboard.press("j")
    expect_focus(page, "Step 2")
    page.keyboard.press("k")
    expect_focus(page, "Step 1")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Step 1")).to_be_visible()
    page.keyboard.press("Escape")
    expect_list(page)
    page.keyboard.press("j")
    expect_focus(page, "Step 1")


def test_a_dialog_traps_the_focus_and_returns_it(screen: Screen, workitems: list[str]) -> None:
    page = screen.open(address("workitem", workitems[0]))
    button = page.get_by_role("button", name="Claim")
    button.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("n")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(button).to_be_focused()


PLACES = ("/worklist", "/subscribers", "/subscriber/DOWN", "/overview", "/new")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_both_schemes(
    chromium: Browser, orthanc: RealOrthanc, workitems: list[str], scheme: str
) -> None:
    user = context(chromium, color_scheme=scheme)
    screen = Screen(user.new_page(), orthanc.base_url)
    for where in (*PLACES, *(address("workitem", uid) for uid in workitems)):
        page = screen.open(where)
        assert page.evaluate(CONTRAST) == [], where
    dark = screen.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, dark[4:-1].split(","))) < 200) == (scheme == "dark")
    user.close()
    assert not screen.problems


def test_states_and_health_have_words_and_a_sign(screen: Screen) -> None:
    page = screen.open(address("worklist", PatientID="HC-0001"))
    for words in ("Scheduled", "In progress", "Completed", "Canceled"):
        badge = page.locator("tbody .state").filter(has_text=words)
        expect(badge.locator("svg")).to_have_count(1)
    screen.open("/subscribers")
    expect(page.locator(".health svg")).to_have_count(1)


def test_nothing_overflows_a_wide_screen(screen: Screen, workitems: list[str]) -> None:
    """For narrower screens see test_narrow_screens."""
    for where in (*PLACES, address("workitem", workitems[1]), address("workitem", workitems[0], "edit")):
        page = screen.open(where)
        width = page.evaluate("innerWidth")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, where
        assert page.evaluate("document.querySelector('main').scrollWidth") <= width, where


def test_a_lost_and_restored_connection_is_shown(
    chromium: Browser, orthanc: RealOrthanc, api: Management
) -> None:
    user = context(chromium)
    page = Screen(user.new_page(), orthanc.base_url).open()
    expect(page.locator(".live")).to_have_text("Live")
    orthanc.kill()
    expect(page.locator(".live")).to_have_text("No connection")
    orthanc.start()
    api.make("Made after the restart")
    expect(page.locator(".live")).to_have_text("Live")
    expect(page.locator("tbody")).to_contain_text("Made after the restart")
    user.close()
