# SPDX-License-Identifier: AGPL-3.0-or-later
"""Subscribers on the page: who receives which events, who did not, and why."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import Management, Screen, address
from tests.support.event_receiver import EventReceiver
from tests.support.ports import free_port
from tests.support.waiting import wait_until

pytestmark = pytest.mark.one_suite("the page is the same files in the same browser")

DOWN_PORT = free_port()
SCP_STATUS_CHANGE = 4


@pytest.fixture(scope="module")
def watcher() -> Iterator[EventReceiver]:
    """A subscriber that accepts every event."""
    with EventReceiver("WATCHER") as receiver:
        yield receiver


@pytest.fixture(scope="module")
def orthanc_overrides(watcher: EventReceiver) -> dict[str, Any]:
    modalities = {
        "watcher": ["WATCHER", "127.0.0.1", watcher.port],
        "down": ["DOWN", "127.0.0.1", DOWN_PORT],
        "paged": ["PAGED", "127.0.0.1", 9],
    }
    return {"DicomModalities": modalities}


def confirm(page: Page, name: str) -> None:
    page.get_by_role("dialog").get_by_role("button", name=name, exact=True).click()


def row(page: Page, ae: str) -> Any:
    return page.locator(f'tr[data-ae="{ae}"]')


def test_subscribing_to_everything_and_to_a_filter(screen: Screen, api: Management) -> None:
    page = screen.open("/subscribers")
    page.get_by_role("button", name="New subscription").click()
    page.get_by_label("AE title").fill("WATCHER")
    page.get_by_label("With Deletion Lock").check()
    confirm(page, "Subscribe")
    expect(row(page, "WATCHER")).to_contain_text("Everything")
    expect(row(page, "WATCHER")).to_contain_text("lock")
    page.get_by_role("button", name="New subscription").click()
    page.get_by_label("AE title").fill("DOWN")
    page.get_by_label("Subscribe to").select_option("filtered")
    page.get_by_label("Attribute").select_option(label="Worklist")
    page.get_by_label("Value").fill("AI")
    confirm(page, "Subscribe")
    expect(row(page, "DOWN")).to_contain_text("Worklist is AI")
    assert api.get("/subscribers/DOWN")["filters"][0]["filter"] == {"WorklistLabel": "AI"}


def test_deliveries_and_failures_are_shown_for_each_receiver(screen: Screen, api: Management) -> None:
    api.post("/subscribers/WATCHER/subscribe", {"scope": "global"})
    api.post("/subscribers/DOWN/subscribe", {"scope": "filtered", "filter": {"WorklistLabel": "AI"}})
    uid = api.make("For AI", WorklistLabel="AI")
    page = screen.open(address("workitem", uid))
    watchers = page.get_by_role("region", name="Subscribers")
    expect(watchers).to_contain_text("DOWN by its filter: Worklist is AI")
    expect(watchers).to_contain_text("WATCHER by a global subscription")
    events = page.get_by_role("region", name="Events and deliveries")
    receiver = events.locator(".receivers li").filter(has_text="WATCHER").first
    waiting = events.locator(".receivers li").filter(has_text="DOWN").first
    expect(receiver).to_contain_text("delivered")
    expect(waiting).to_contain_text("waiting")
    expect(waiting).to_contain_text("127.0.0.1")
    waiting.get_by_role("link", name="DOWN").click()
    expect(page.get_by_role("heading", name="DOWN", exact=True)).to_be_visible()
    expect(page.locator("main")).to_contain_text("Trouble")


def test_echo_shows_whether_the_subscriber_answers(screen: Screen) -> None:
    page = screen.open(address("subscriber", "WATCHER"))
    page.get_by_role("button", name="C-ECHO").click()
    expect(page.locator(".toast").first).to_contain_text("WATCHER answered the C-ECHO in")
    screen.open(address("subscriber", "DOWN"))
    expect(page.get_by_role("heading", name="DOWN", exact=True)).to_be_visible()
    page.get_by_role("button", name="C-ECHO").click()
    expect(page.locator(".toast.bad").first).to_contain_text("DOWN")
    screen.expect_problem("502")


def test_a_test_event_reaches_the_subscriber(screen: Screen, watcher: EventReceiver, api: Management) -> None:
    api.post("/subscribers/WATCHER/subscribe", {"scope": "global"})
    page = screen.open(address("subscriber", "WATCHER"))
    page.get_by_role("button", name="Test event").click()
    confirm(page, "Send")
    expect(page.locator(".toast")).to_contain_text("Test event queued on 1 channel")
    # Reports come one by one until that one is there, or the receiver loses patience.
    assert SCP_STATUS_CHANGE in (watcher.wait_for(number)[-1].type for number in count(1))


def test_subscriptions_are_suspended_resumed_and_ended(screen: Screen, api: Management) -> None:
    api.post("/subscribers/WATCHER/unsubscribe", {"scope": "global"})
    api.post("/subscribers/WATCHER/subscribe", {"scope": "global", "lock": True})
    page = screen.open(address("subscriber", "WATCHER"))
    page.get_by_title("Suspend").click()
    expect(page.locator(".watchers")).to_contain_text("Suspended: Everything")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator(".watchers")).not_to_contain_text("Suspended")
    wait_until(
        lambda: api.get("/subscribers/WATCHER")["everything"] == {"lock": True}, "the subscription is resumed"
    )
    page.get_by_role("button", name="Unsubscribe from everything").click()
    confirm(page, "Unsubscribe")
    expect(page.locator("main")).to_contain_text("No global or filtered subscriptions")
    wait_until(lambda: api.get("/subscribers/WATCHER")["everything"] is None, "it has no subscription")


def test_waiting_events_are_dropped_after_a_confirmation(screen: Screen, api: Management) -> None:
    api.post("/subscribers/DOWN/subscribe", {"scope": "global"})
    api.make("Never delivered")
    wait_until(lambda: pending(api, "DOWN"), "an event waits")
    page = screen.open(address("subscriber", "DOWN"))
    page.get_by_role("button", name="Drop pending").click()
    expect(page.get_by_role("dialog")).to_contain_text("will never receive them")
    confirm(page, "Drop them")
    expect(page.get_by_role("button", name="Drop pending")).to_be_disabled()
    wait_until(lambda: not pending(api, "DOWN"), "nothing waits")


def pending(api: Management, ae: str) -> int:
    return sum(channel["pending"] for channel in api.get(f"/subscribers/{ae}")["channels"])


def test_an_unknown_ae_is_refused_with_a_reason(screen: Screen) -> None:
    page = screen.open("/subscribers")
    page.get_by_role("button", name="New subscription").click()
    page.get_by_label("AE title").fill("STRANGER")
    confirm(page, "Subscribe")
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("STRANGER is not")
    screen.expect_problem("404")


def test_the_overview_counts_and_warns(screen: Screen, api: Management) -> None:
    api.make("Counted", WorklistLabel="RARE")
    page = screen.open("/overview")
    expect(page.get_by_role("region", name="Worklists")).to_contain_text("RARE")
    expect(page.get_by_role("region", name="Where to connect")).to_contain_text("ORTHANC@127.0.0.1:")
    expect(page.get_by_role("img", name="Workitems per minute")).to_be_visible()
    page.get_by_role("button", name="Last 24 hours").click()
    expect(page.get_by_role("img", name="Workitems per 15 minutes")).to_be_visible()
    page.get_by_role("region", name="Worklists").get_by_role("link", name="RARE").click()
    expect(page.locator(".foot")).to_contain_text("1 workitem")


def test_individual_workitems_of_a_subscriber_are_paged(screen: Screen, api: Management) -> None:
    for number in range(1, 53):
        uid = api.make(f"Watched {number}")
        api.ask("PUT", f"/workitems/{uid}/subscribers/PAGED", {"lock": number == 52})
    page = screen.open("/subscribers")
    expect(page.locator('tr[data-ae="PAGED"]')).to_contain_text("52 workitems")
    page.get_by_role("link", name="PAGED").click()
    single = page.get_by_role("region", name="Individual workitems")
    expect(single.locator("li").first).to_contain_text("Watched 52")
    expect(single.locator("li").first).to_contain_text("lock")
    expect(single).to_contain_text("1–50 of 52")
    single.get_by_role("button", name="Next page").click()
    expect(single).to_contain_text("51–52 of 52")
    expect(single.locator("li").last).to_contain_text("Watched 1")
