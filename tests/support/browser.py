# SPDX-License-Identifier: AGPL-3.0-or-later
"""Chromium on the page of a running Orthanc, and the management API beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

import requests
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, sync_playwright

from tests.support.orthanc import RealOrthanc
from tests.support.programs import environment_of, program
from tests.support.waiting import PATIENCE, wait_until
from tests.support.workitems import UID_ROOT

TIMEOUT = PATIENCE
_SWITCHES = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def playwright_driver() -> Iterator[Playwright]:
    """Start Playwright. Its driver may need a library of the fetched tree, which no other process may see."""
    with ExitStack() as stack:
        with environment_of("libatomic"):
            playwright = stack.enter_context(sync_playwright())
        yield playwright


def launch(playwright: Playwright, environment: Mapping[str, str] = MappingProxyType({})) -> Browser:
    """Start Chromium: that of $CHROMIUM, else the host's, else the fetched one."""
    chromium = program("chromium")
    variables: dict[str, str | float | bool] = {**os.environ, **chromium.environment, **environment}
    return playwright.chromium.launch(executable_path=chromium.path, args=_SWITCHES, env=variables)


def context(browser: Browser, **more: Any) -> BrowserContext:
    """A user's browser: its own storage, a fixed language and time zone."""
    usual: dict[str, Any] = {
        "locale": "en-GB",
        "timezone_id": "Europe/Berlin",
        "viewport": {"width": 1280, "height": 800},
        "reduced_motion": "reduce",
    }
    user = browser.new_context(**{**usual, **more})
    user.set_default_timeout(TIMEOUT * 1000)
    return user


class Management:
    """The management API of an Orthanc, for tests."""

    def __init__(self, base_url: str, session: requests.Session | None = None) -> None:
        self.url = f"{base_url}/ups/api"
        self._session = session or requests.Session()
        self._session.trust_env = False

    def ask(self, method: str, path: str, content: Any = None, **more: Any) -> Any:
        """The content of an answer, whose status must be a success."""
        self._session.close()  # an idle connection: Orthanc may close it just as it is used again
        answer = self._session.request(method, self.url + path, json=content, timeout=TIMEOUT, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def get(self, path: str, **query: Any) -> Any:
        return self.ask("GET", path, params=query)

    def post(self, path: str, content: Any = None) -> Any:
        return self.ask("POST", path, {} if content is None else content)

    def make(self, label: str = "Second reading", **attributes: Any) -> str:
        """A new workitem; returns its UID."""
        answer = self.post("/workitems", {"attributes": {"ProcedureStepLabel": label, **attributes}})
        return str(answer["uid"])

    def act(self, uid: str, action: str, content: Any = None) -> None:
        """``claim``, ``complete``, ``cancel`` or ``request-cancel``."""
        self.post(f"/workitems/{uid}/{action}", content)

    def workitem(self, uid: str) -> Any:
        return self.get(f"/workitems/{uid}")


class Screen:
    """One tab on the page, which must never show an error on its console.

    Attributes:
        page: Playwright's page.
        problems: errors on the console, and exceptions of scripts.
    """

    def __init__(self, page: Page, base_url: str) -> None:
        self.page = page
        self.base_url = base_url
        self.problems: list[str] = []
        page.on(
            "console", lambda message: self.problems.append(message.text) if message.type == "error" else None
        )
        page.on("pageerror", lambda error: self.problems.append(str(error)))

    def open(self, address: str = "/worklist") -> Page:
        """Go to an address of the page, such as ``/workitem/1.2.3``, and wait until it is shown.

        The page is reloaded: after a mere change of the part after ``#``, a test could still see the previous view.
        """
        is_open = self.page.url.startswith(f"{self.base_url}/ups/app/index.html")
        self.page.goto(f"{self.base_url}/ups/app/index.html#{address}")
        if is_open:
            # A change of the address by the page itself may come in between, and be what ended ``goto``.
            view = "#" + address.partition("?")[0]
            self.page.wait_for_function("view => location.hash.startsWith(view)", arg=view)
            self.page.reload()
        self.page.wait_for_selector("main > *:not(.waiting)")
        return self.page

    def expect_problem(self, words: str) -> None:
        """Wait for an error that the test provokes: the console shows refused requests too."""
        wait_until(lambda: self._has_problem(words), lambda: f"{words!r} among {self.problems}")
        self.problems = [problem for problem in self.problems if words not in problem]

    def _has_problem(self, words: str) -> bool:
        self.page.evaluate("0")  # lets Playwright take what the browser has sent meanwhile
        return any(words in problem for problem in self.problems)


def address(view: str, *parts: str, **query: str) -> str:
    """An address of a view, behind ``#``."""
    search = "&".join(f"{key}={quote(value, safe='')}" for key, value in query.items())
    return "/".join(("", view, *(quote(part, safe="") for part in parts))) + (f"?{search}" if search else "")


def uploaded_study(orthanc: RealOrthanc, file: Path) -> dict[str, str]:
    """Store an instance in Orthanc; return its identifiers by level."""
    answer = requests.post(f"{orthanc.base_url}/instances", data=file.read_bytes(), timeout=TIMEOUT)
    assert answer.status_code == 200, answer.text
    content = answer.json()
    return {
        "instance": content["ID"],
        "series": content["ParentSeries"],
        "study": content["ParentStudy"],
        "patient": content["ParentPatient"],
    }


CODE = {"CodeValue": "110005", "CodingSchemeDesignator": "DCM", "CodeMeaning": "Interpretation"}
STATION = {"CodeValue": "R7", "CodingSchemeDesignator": "99STATIONS", "CodeMeaning": "Reading room 7"}
STUDY_UID = f"{UID_ROOT}.1.1"
