# SPDX-License-Identifier: AGPL-3.0-or-later
"""The page offers what ``Ups.Users`` allows to the user, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import Management, Screen, address, context
from tests.support.orthanc import RealOrthanc
from tests.support.waiting import wait_until

pytestmark = pytest.mark.one_suite("the page is the same files in the same browser")

PASSWORDS = {"admin": "first", "ai": "second", "viewer": "third"}


@pytest.fixture(scope="module")
def orthanc_overrides() -> dict[str, Any]:
    return {
        "AuthenticationEnabled": True,
        "RegisteredUsers": PASSWORDS,
        "DicomModalities": {"ai": ["AI", "127.0.0.1", 9], "ris": ["RIS", "127.0.0.1", 9]},
        "Ups": {"Users": {"admin": ["*"], "ai": ["AI"]}},
    }


@pytest.fixture
def workitem(orthanc: RealOrthanc) -> str:
    """A workitem to which both AEs are subscribed, with locks."""
    session = requests.Session()
    session.auth = ("admin", PASSWORDS["admin"])
    api = Management(orthanc.base_url, session)
    uid = api.make()
    for ae in ("AI", "RIS"):
        api.ask("PUT", f"/workitems/{uid}/subscribers/{ae}", {"lock": True})
    return uid


@pytest.fixture(params=PASSWORDS)
def user(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def page_of(chromium: Browser, orthanc: RealOrthanc, user: str) -> Iterator[Screen]:
    who = context(chromium, http_credentials={"username": user, "password": PASSWORDS[user]})
    shown = Screen(who.new_page(), orthanc.base_url)
    yield shown
    who.close()
    assert not shown.problems


def buttons(page: Page) -> set[str]:
    """The names of buttons that can be pressed."""
    result = page.locator("main button:enabled, main a.button, #top a.button.primary").all()
    return {(button.get_attribute("aria-label") or button.inner_text()).strip() for button in result}


def offers(page: Page, possible: set[str], expected: set[str]) -> None:
    """Wait until exactly these of the possible buttons are shown."""
    wait_until(lambda: buttons(page) & possible == expected, lambda: f"{buttons(page)}")


def test_a_workitem_offers_what_the_user_may_do(page_of: Screen, user: str, workitem: str) -> None:
    page = page_of.open(address("workitem", workitem))
    watchers = page.get_by_role("region", name="Subscribers")
    expect(watchers.get_by_role("link", name="RIS", exact=True)).to_be_visible()
    acting = {"New workitem", "Edit", "Claim", "Request cancellation", "Subscribe", "Unsubscribe AI"}
    administering = {"Unsubscribe RIS", "Lock"}
    expected = {"viewer": set(), "ai": acting, "admin": acting | administering}
    offers(page, acting | administering, expected[user])


@pytest.mark.parametrize("ae", ["AI", "RIS"])
def test_a_subscriber_offers_what_the_user_may_do(page_of: Screen, user: str, workitem: str, ae: str) -> None:
    page = page_of.open(address("subscriber", ae))
    expect(page.get_by_role("heading", name=ae, exact=True)).to_be_visible()
    acting = {"C-ECHO", "Test event", "Resend …", "Subscribe", "Unsubscribe from everything"}
    allowed = user == "admin" or (user, ae) == ("ai", "AI")
    offers(page, acting, acting if allowed else set())


def test_a_form_that_the_user_may_not_send_is_not_shown(page_of: Screen, user: str, workitem: str) -> None:
    page = page_of.open(address("new"))
    if user != "viewer":
        expect(page.get_by_role("button", name="Create workitem")).to_be_visible()
    refused = page.get_by_text("Ups.Users does not allow you to do this")
    expect(refused).to_have_count(1 if user == "viewer" else 0)
