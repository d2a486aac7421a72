# SPDX-License-Identifier: AGPL-3.0-or-later
"""A real Chromium on the page of a real Orthanc."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.support.browser import TIMEOUT, Management, Screen, context, launch, playwright_driver
from tests.support.orthanc import RealOrthanc

HERE = Path(__file__).parent
expect.set_options(timeout=TIMEOUT * 1000)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder `browser`."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("browser")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The browser, per module: Playwright's event loop would keep other tests of this thread from running their own."""
    with playwright_driver() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture
def browser_options() -> dict[str, Any]:
    """Options of the browser context; a module may override them."""
    return {}


@pytest.fixture
def screen(chromium: Browser, orthanc: RealOrthanc, browser_options: dict[str, Any]) -> Iterator[Screen]:
    """A tab of a new user; no error may be left on its console."""
    user = context(chromium, **browser_options)
    shown = Screen(user.new_page(), orthanc.base_url)
    yield shown
    user.close()
    assert not shown.problems


@pytest.fixture(scope="module")
def api(orthanc: RealOrthanc) -> Management:
    """The management API of that Orthanc."""
    return Management(orthanc.base_url)
