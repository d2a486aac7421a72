# SPDX-License-Identifier: AGPL-3.0-or-later
"""The worklist page with five thousand workitems; with a hundred thousand in torture, as filling takes minutes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import Screen, address
from tests.support.many import fill
from tests.support.orthanc import RealOrthanc

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def suite() -> str:
    """One suite is enough, because only the number of workitems matters."""
    return "forky"


@pytest.fixture(scope="module", params=[2_000, pytest.param(100_000, marks=pytest.mark.torture)])
def count(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


@pytest.fixture(scope="module")
def orthanc(suite: str, count: int) -> Iterator[RealOrthanc]:
    with RealOrthanc(suite, {"Ups": {"Store": "metadata"}}) as running:
        fill(running, count)
        yield running


def expect_count(page: Page, words: str) -> None:
    expect(page.locator(".foot")).to_contain_text(words)


def first(page: Page, label: str) -> None:
    expect(page.locator("tbody td.label").first).to_have_text(label)


def test_pages_of_many_workitems_are_turned(screen: Screen, count: int) -> None:
    page = screen.open(address("worklist", order="created"))
    expect_count(page, f"1–50 of {count:,} workitems")
    first(page, "Step 000001")
    page.get_by_label(f"Page, of {count // 50}").fill(str(count // 50))
    page.keyboard.press("Enter")
    expect_count(page, f"{count - 49:,}–{count:,} of {count:,}")
    first(page, f"Step {count - 49:06}")
    expect(page.locator("tbody tr")).to_have_count(50)
    page.get_by_role("button", name="Previous page").click()
    first(page, f"Step {count - 99:06}")


def test_many_workitems_are_sorted_searched_and_counted(screen: Screen, count: int) -> None:
    page = screen.open(address("worklist", order="patient"))
    first(page, "Step 000005")
    page.get_by_role("columnheader", name="Patient").get_by_role("button").click()
    first(page, f"Step {count - 1:06}")
    page.get_by_role("searchbox").fill("lindqvist 077")
    fitting = sum(number % 5 == 2 and "077" in f"{number:06}" for number in range(1, count + 1))
    expect_count(page, f"of {fitting} workitems")
    page.get_by_role("searchbox").fill("")
    page.get_by_role("group", name="State").get_by_role("button", name=f"Completed {count // 4:,}").click()
    expect_count(page, f"of {count // 4:,} workitems")
    page.reload()
    expect_count(page, f"of {count // 4:,} workitems")


def test_a_workitem_is_opened_and_back_returns_to_its_page(screen: Screen, count: int) -> None:
    number = count * 4 // 5 + 1
    page = screen.open(address("worklist", order="created", page=f"{number // 50 + 1}"))
    first(page, f"Step {number:06}")
    page.locator("tbody tr").first.click()
    expect(page.get_by_role("heading", name=f"Step {number:06}")).to_be_visible()
    page.locator(".back").click()
    expect_count(page, f"{number:,}–{number + 49:,} of {count:,}")
