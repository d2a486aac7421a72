# SPDX-License-Identifier: AGPL-3.0-or-later
"""Problems come first in the Overview, each with a link, in the language of the user."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import pytest
import requests
from playwright.sync_api import Browser, Page, Route, expect

from orthanc_ups.core import tags
from tests.support.browser import Management, Screen, context
from tests.support.faults import limit_file_size
from tests.support.images import file, instance
from tests.support.orthanc import RealOrthanc
from tests.support.waiting import wait_until
from tests.support.web_client import WebClient
from tests.support.workitems import minimal

pytestmark = pytest.mark.one_suite("who finds and shows these faults is ours")


@pytest.fixture(scope="module")
def orthanc(suite: str) -> Iterator[RealOrthanc]:
    """An Orthanc whose DIMSE port is in use by another program, and whose database can be made to stop answering."""
    overrides = {"DicomModalities": {"down": ["DOWN", "127.0.0.1", 9]}}
    orthanc = RealOrthanc(suite, overrides, prefix=("env", "--ignore-signal=XFSZ"))
    with socket.create_server(("127.0.0.1", orthanc.ups_dicom_port)), orthanc:
        yield orthanc


@pytest.fixture(scope="module")
def web(orthanc: RealOrthanc) -> WebClient:
    return WebClient(f"http://127.0.0.1:{orthanc.ups_http_port}/dicom-web", keep_alive=False)


@pytest.fixture
def german(chromium: Browser, orthanc: RealOrthanc) -> Iterator[Screen]:
    user = context(chromium, locale="de-DE")
    screen = Screen(user.new_page(), orthanc.base_url)
    yield screen
    user.close()
    assert not screen.problems


def warning(page: Page, words: str) -> None:
    expect(
        page.get_by_role("list", name="Warnings").get_by_role("listitem").filter(has_text=words)
    ).to_have_count(1)


def test_a_port_in_use_is_a_warning(orthanc: RealOrthanc, screen: Screen, german: Screen) -> None:
    warning(screen.open("/overview"), f"The DIMSE port {orthanc.ups_dicom_port} is not open")
    expect(screen.page.locator(".warnings li").first).to_have_class("error")
    warnings = german.open("/overview").get_by_role("list", name="Warnungen")
    expect(warnings).to_contain_text(f"Der DIMSE-Port {orthanc.ups_dicom_port} ist nicht offen")


def test_an_unknown_subscriber_is_a_warning_with_a_link(web: WebClient, screen: Screen) -> None:
    """UPS-RS accepts subscriptions of any permitted AE, whether or not it opens a WebSocket."""
    assert web.post(f"/workitems/{tags.GLOBAL_SUBSCRIPTION}/subscribers/STRANGER").status_code == 201
    page = screen.open("/overview")
    warning(page, "STRANGER is subscribed, but is not in DicomModalities and has no WebSocket open")
    page.get_by_role("link", name="STRANGER is subscribed").click()
    expect(page.get_by_role("heading", name="STRANGER")).to_be_visible()


def test_refused_uploads_are_a_warning(orthanc: RealOrthanc, screen: Screen, german: Screen) -> None:
    for _ in range(2):
        answer = requests.post(f"{orthanc.base_url}/instances", file(instance(tags.PUSH)), timeout=60)
        assert answer.status_code == 400
    warning(screen.open("/overview"), "2 uploads of UPS objects were refused in the last day")
    warnings = german.open("/overview").get_by_role("list", name="Warnungen")
    expect(warnings).to_contain_text("2 Uploads von UPS-Objekten wurden in den letzten 24 Stunden abgelehnt")


def test_events_for_an_unreachable_ae_are_a_warning(api: Management, screen: Screen, german: Screen) -> None:
    api.post("/subscribers/DOWN/subscribe", {"scope": "global"})
    api.make("Waits")
    wait_until(
        lambda: any(channel["last_error"] for channel in api.get("/subscribers/DOWN")["channels"]),
        "an attempt",
    )
    page = screen.open("/overview")
    expect(page.get_by_role("link", name=re.compile("waiting for DOWN"))).to_be_visible()
    warnings = german.open("/overview").get_by_role("list", name="Warnungen")
    expect(warnings).to_contain_text("auf DOWN")
    expect(warnings).to_contain_text("Wartezeit")


def test_a_refusal_is_in_the_language_of_the_user(api: Management, german: Screen) -> None:
    uid = api.make("Gone soon")
    page = german.open(f"/workitem/{uid}")
    page.get_by_role("button", name="Übernehmen").click()
    api.act(uid, "claim")
    page.get_by_role("dialog").get_by_role("button", name="Übernehmen").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text(
        "Jemand anderes hat diesen Auftrag übernommen."
    )
    german.expect_problem("400")
    page.keyboard.press("Escape")
    german.open(f"/workitem/{uid}")
    expect(page.get_by_role("region", name="Verlauf")).to_contain_text("übernommen")


def test_who_claimed_a_workitem_is_in_the_language_of_the_user(web: WebClient, german: Screen) -> None:
    uid = web.create()
    web.claim(uid)
    page = german.open(f"/workitem/{uid}")
    expect(page.get_by_role("region", name="Kurzinfo")).to_contain_text("jemand über UPS-RS")
    cell = german.open(f"/worklist?SOPInstanceUID={uid}").locator("td.claimer span").first
    expect(cell).to_contain_text("jemand über UPS-RS")
    expect(cell).to_have_attribute("title", re.compile("^jemand über UPS-RS, "))


def test_an_unknown_count_is_a_dash(screen: Screen) -> None:
    """As while the search index is rebuilt, which a full disk may cause."""

    def without_counts(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json={**answer.json(), "counts": None, "late": None})

    screen.page.route("**/ups/api/overview", without_counts)
    page = screen.open("/overview")
    expect(page.get_by_role("link", name="Scheduled", exact=False).first).to_contain_text("–")
    expect(page.get_by_role("link", name="Late or stuck")).to_contain_text("–")
    expect(page.get_by_text("Nothing is late")).to_have_count(0)
    warning(page, "is not open")
    page.unroute_all(behavior="wait")  # the page asks again and again


def test_a_store_that_does_not_answer_is_a_warning(
    orthanc: RealOrthanc, web: WebClient, screen: Screen
) -> None:
    limit_file_size(orthanc.pid, 4096)
    try:
        wait_until(lambda: web.post("/workitems", minimal()).status_code == 503, orthanc.log_tail)
        warning(screen.open("/overview"), "Nothing can be stored now")
        expect(screen.page.locator(".warnings li").filter(has_text="Nothing can be stored")).to_have_class(
            "error"
        )
    finally:
        limit_file_size(orthanc.pid, None)
    wait_until(lambda: orthanc.health() == 200, orthanc.log_tail)
    expect(screen.page.get_by_text("Nothing can be stored now")).to_have_count(0)
