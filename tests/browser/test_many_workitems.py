# SPDX-License-Identifier: AGPL-3.0-or-later
"""The worklist page with a hundred thousand workitems."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import Screen, place
from tests.support.many import fill
from tests.support.orthanc import RealOrthanc

COUNT = 100_000
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def suite() -> str:
    """One suite is enough for a matter of numbers."""
    return "forky"


@pytest.fixture(scope="module")
def orthanc(suite: str) -> Iterator[RealOrthanc]:
    with RealOrthanc(suite) as running:
        fill(running, COUNT)
        yield running


def found(page: Page, words: str) -> None:
    expect(page.locator(".foot")).to_contain_text(words)


def first(page: Page, label: str) -> None:
    expect(page.locator("tbody td.label").first).to_have_text(label)


def test_pages_of_a_hundred_thousand_workitems_are_turned(screen: Screen) -> None:
    page = screen.open(place("worklist", order="created"))
    found(page, "1–50 of 100,000 workitems")
    first(page, "Step 000001")
    page.get_by_label("Page, of 2000").fill("2000")
    page.keyboard.press("Enter")
    found(page, "99,951–100,000 of 100,000")
    first(page, "Step 099951")
    expect(page.locator("tbody tr")).to_have_count(50)
    page.get_by_role("button", name="Previous page").click()
    first(page, "Step 099901")


def test_they_are_sorted_searched_and_counted(screen: Screen) -> None:
    page = screen.open(place("worklist", order="patient"))
    first(page, "Step 000005")
    page.get_by_role("columnheader", name="Patient").get_by_role("button").click()
    first(page, "Step 099999")
    page.get_by_role("searchbox").fill("lindqvist 0777")
    found(page, "of 32 workitems")
    page.get_by_role("searchbox").fill("")
    page.get_by_role("group", name="State").get_by_role("button", name="Completed 25,000").click()
    found(page, "of 25,000 workitems")
    page.reload()
    found(page, "of 25,000 workitems")


def test_one_of_them_is_opened_and_come_back_from(screen: Screen) -> None:
    page = screen.open(place("worklist", order="created", page="1234"))
    first(page, "Step 061651")
    page.locator("tbody tr").first.click()
    expect(page.get_by_role("heading", name="Step 061651")).to_be_visible()
    page.locator(".back").click()
    found(page, "61,651–61,700 of 100,000")
