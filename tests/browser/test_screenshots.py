# SPDX-License-Identifier: AGPL-3.0-or-later
"""Screenshots of the page for README. With ORTHANC_UPS_SCREENSHOTS=1 they are saved to docs/screenshots.

ORTHANC_UPS_SCREENSHOTS=1 .venv/bin/python -m pytest -m "" tests/browser/test_screenshots.py
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, expect
from pydicom.data import get_testdata_file

from tests.browser.test_workitem_page import TEMPLATE
from tests.support.browser import (
    Management,
    Screen,
    address,
    context,
    launch,
    playwright_driver,
    uploaded_study,
)
from tests.support.event_receiver import EventReceiver
from tests.support.orthanc import CHECKOUT, RealOrthanc
from tests.support.ports import free_port
from tests.support.programs import japanese_fonts
from tests.support.scenery import department
from tests.support.waiting import wait_until
from tests.support.web_client import WebClient

pytestmark = pytest.mark.one_suite("the page is the same files in the same browser")

FOLDER: Final = CHECKOUT / "docs" / "screenshots"
AI_TEMPLATE: Final = {
    "Name": "AI inference",
    "Description": "Lung nodule detection on the GPU nodes",
    "Attributes": {"ProcedureStepLabel": "Lung nodule detection", "WorklistLabel": "AI"},
}
SMALLEST: Final = 20_000  # bytes; an empty page is far below
WATCHED_BY_ALL: Final = 25
SHOWN_IN_README: Final = (
    "explorer-light",
    "worklist-light",
    "worklist-dark",
    "phone-light",
    "workitem-light",
    "new-light",
    "subscribers-light",
    "overview-dark",
)


@pytest.fixture(scope="module")
def receivers() -> Iterator[dict[str, int]]:
    """The ports of subscribers that accept every event, and of one that does not answer."""
    with ExitStack() as running:
        ports = {ae: running.enter_context(EventReceiver(ae)).port for ae in ("RIS", "DASHBOARD")}
        yield {**ports, "AI_SERVER": free_port()}


@pytest.fixture(scope="module")
def chromium_for_names() -> Iterator[Browser]:
    """A browser that shows names in every script."""
    with playwright_driver() as playwright:
        browser = launch(playwright, japanese_fonts())
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def orthanc_overrides(receivers: dict[str, int]) -> dict[str, Any]:
    return {
        "Name": "Harbour Clinic",
        "DicomModalities": {ae.lower(): [ae, "127.0.0.1", port] for ae, port in receivers.items()},
        "Ups": {"Templates": [TEMPLATE, AI_TEMPLATE]},
    }


@pytest.fixture(scope="module")
def uids(orthanc: RealOrthanc, api: Management) -> list[str]:
    """The workitems of a department, all of whose events have been delivered."""
    api.post("/subscribers/RIS/subscribe", {"scope": "global", "lock": True})
    api.post("/subscribers/DASHBOARD/subscribe", {"scope": "global"})
    keys = {"ScheduledWorkitemCodeSequence.CodeValue": "110004"}
    api.post("/subscribers/AI_SERVER/subscribe", {"scope": "filtered", "filter": keys})
    by_name = department(api, WebClient(f"http://127.0.0.1:{orthanc.ups_http_port}/dicom-web"))
    wait_until(
        lambda: _all_delivered(api, "RIS") and _all_delivered(api, "DASHBOARD"), "every event has arrived", 60
    )
    return by_name


def _all_delivered(api: Management, ae: str) -> bool:
    return all(not channel["pending"] for channel in api.get(f"/subscribers/{ae}")["channels"])


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.torture)])
def test_pictures(
    chromium_for_names: Browser, orthanc: RealOrthanc, uids: list[str], tmp_path: Path, scheme: Any
) -> None:
    file = get_testdata_file("CT_small.dcm")
    assert isinstance(file, str)
    study = uploaded_study(orthanc, Path(file))["study"]
    user = context(chromium_for_names, color_scheme=scheme)
    screen = Screen(user.new_page(), orthanc.base_url)
    views = {
        "worklist": "/worklist",
        "workitem": address("workitem", uids[WATCHED_BY_ALL]),
        "new": f"/new?for=study/{study}",
        "subscribers": "/subscribers",
        "subscriber": address("subscriber", "AI_SERVER"),
        "overview": "/overview",
    }
    for name, where in views.items():
        page = screen.open(where)
        expect(page.locator(".live")).to_have_text("Live")
        page.screenshot(path=tmp_path / f"{name}-{scheme}.png")
    phone = context(chromium_for_names, color_scheme=scheme, viewport={"width": 390, "height": 780})
    shown = Screen(phone.new_page(), orthanc.base_url).open("/worklist")
    expect(shown.locator("tbody tr").first).to_be_visible()
    shown.screenshot(path=tmp_path / f"phone-{scheme}.png")
    phone.close()
    page = user.new_page()
    page.goto(f"{orthanc.base_url}/app/explorer.html#study?uuid={study}")
    expect(page.locator("#ups-study")).to_be_visible()
    page.screenshot(path=tmp_path / f"explorer-{scheme}.png")
    user.close()
    assert not screen.problems
    _keep(tmp_path)


def _keep(folder: Path) -> None:
    pictures = list(folder.glob("*.png"))
    assert len(pictures) == 8
    assert all(picture.stat().st_size > SMALLEST for picture in pictures)
    if os.environ.get("ORTHANC_UPS_SCREENSHOTS"):
        FOLDER.mkdir(parents=True, exist_ok=True)
        for file in pictures:
            if file.stem in SHOWN_IN_README:
                shutil.copy(file, FOLDER)
