# SPDX-License-Identifier: AGPL-3.0-or-later
"""``Ups.Users`` and ``Ups.AllowedOrigins`` on the page and the management API: who may do what."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from orthanc_ups.core.ae_titles import AeTitles
from orthanc_ups.core.commands import ChangeState, Requester
from orthanc_ups.core.dataset import text
from orthanc_ups.core.events import EventType
from orthanc_ups.core.tags import REQUESTING_AE
from orthanc_ups.dicomweb.origins import Origins
from orthanc_ups.dicomweb.request import WebRequest
from orthanc_ups.dicomweb.response import HttpProblem
from orthanc_ups.dicomweb.rights import Rights
from orthanc_ups.management.api import ManagementApi
from orthanc_ups.management.operating import start_warnings
from orthanc_ups.management.permissions import RIGHTS, Right
from orthanc_ups.management.routing import Route, Router
from orthanc_ups.settings import OrthancSettings, Settings
from tests.support.management_rig import JSON, ManagementRig
from tests.unit.management.test_openapi import routes

USERS = {"ris": ("RIS", "RIS2"), "admin": ("*",), "viewer": ()}
NOBODIES = ("eve", "viewer", None)
ROUTES = tuple(RIGHTS.items())
CHANGING = [route for route, right in ROUTES if right is not Right.LOOK]


def rig_of(user: str | None, **more: Any) -> ManagementRig:
    rig = ManagementRig(users=USERS, user=user, **more)
    rig.have(1)
    return rig


def response(rig: ManagementRig, route: str, ae: str = "RIS") -> tuple[int, dict[str, Any]]:
    """Status and content of a request with a body that is empty."""
    method, path = route.split(" ")
    path = path.replace("{uid}", next(iter(rig.worklist.workitems))).replace("{ae}", ae)
    body: Any = {} if method in ("POST", "PUT") else None
    answer = rig.answer(method, path, body)
    return answer.status, json.loads(answer.body) if answer.content_type == "application/json" else {}


def test_every_route_has_a_right_and_every_right_a_route() -> None:
    assert {f"{route.method} {route.path}" for route in routes()} == RIGHTS.keys()


def test_a_route_without_a_right_cannot_be_registered() -> None:
    async def handler(call: Any) -> Any:
        raise AssertionError

    with pytest.raises(KeyError):
        Router([Route("POST", "/anything", handler)], "WORKLIST", Rights({}, AeTitles()), Origins(()))


def test_what_changes_something_or_exports_needs_a_right() -> None:
    harmless = {route for route, right in ROUTES if right is Right.LOOK}
    assert [route for route in harmless if not route.startswith("GET ")] == ["POST /workitems.csv"]
    assert {"GET /export", "GET /import", "POST /import"} <= {*CHANGING}


@pytest.mark.parametrize("user", NOBODIES)
def test_who_is_not_named_may_look_and_nothing_else(user: str | None) -> None:
    for route in CHANGING:
        assert is_refused(user, route), route


def is_refused(user: str | None, route: str) -> bool:
    """Whether the answer is 403 and names the setting."""
    router = Router(routes(), "WORKLIST", Rights(USERS, AeTitles()), Origins(()))
    method, path = route.split(" ")
    request = WebRequest(
        method, path.replace("{uid}", "1.2").replace("{ae}", "RIS"), "", JSON, b"{}", user=user
    )
    answer = asyncio.run(router.answer(request))
    content = json.loads(answer.body)
    return (answer.status, content["status"]) == (403, "NOT_AUTHORIZED") and "Ups.Users" in content["error"]


@pytest.mark.parametrize("user", [*NOBODIES, "ris", "admin"])
def test_everybody_may_look(user: str | None) -> None:
    rig = rig_of(user)
    for route, right in ROUTES:
        assert right is not Right.LOOK or response(rig, route)[0] != 403, route


@pytest.mark.parametrize("route", [route for route in CHANGING if "port" not in route])
def test_the_right_of_a_route_decides_for_those_who_are_named(route: str) -> None:
    own, others = (response(rig_of("ris"), route, ae)[0] != 403 for ae in ("RIS2", "AI"))
    expected = {Right.ACT: (True, True), Right.ACT_FOR_AE: (True, False), Right.ADMINISTER: (False, False)}
    assert (own, others) == expected[RIGHTS[route]]


@pytest.mark.parametrize("route", [route for route in CHANGING if "port" not in route])
def test_any_ae_title_may_do_anything(route: str) -> None:
    assert response(rig_of("admin"), route, "AI")[0] != 403


@pytest.mark.parametrize("route", [route for route in CHANGING if "port" not in route])
def test_without_users_everybody_may_do_anything(route: str) -> None:
    rig = ManagementRig(user=None)
    rig.have(1)
    assert response(rig, route)[0] != 403


@pytest.mark.parametrize("spelling", ["ris2", "Ris2", "%20RIS2", "RIS2%20"])
def test_an_ae_title_is_the_same_in_every_spelling(spelling: str) -> None:
    assert response(rig_of("ris"), "POST /subscribers/{ae}/retry", spelling)[0] == 200
    assert response(rig_of("eve"), "POST /subscribers/{ae}/retry", spelling)[0] == 403


@pytest.mark.parametrize("ae", ["..", ".", "%2E%2E", "..%2FX", "A%5CB", "A%00", "%252E%252E"])
def test_ae_titles_that_a_path_could_take_for_something_else_are_refused(ae: str) -> None:
    rig = rig_of("admin")
    for route, _ in ROUTES:
        assert "{ae}" not in route or response(rig, route, ae)[0] == 400, route


def test_orthanc_is_asked_about_the_plain_path_before_anything_is_done() -> None:
    asked_about: list[str] = []

    class Closed:
        async def admit(self, request: WebRequest, path: str) -> None:
            asked_about.append(f"{request.method} {path}")
            raise HttpProblem(403, "Orthanc does not allow this")

        async def may_read(self, request: WebRequest, path: str) -> bool:
            raise AssertionError

    rig = rig_of("admin")
    rig.api = ManagementApi(replace(rig.ports, admission=Closed()))
    rig.refused(403, "POST", "/subscribers/%20A%20B/retry/", {})
    rig.refused(403, "PUT", "//workitems/1.2/subscribers/AI", {})
    assert asked_about == ["POST /subscribers/A%20B/retry", "PUT /workitems/1.2/subscribers/AI"]


@pytest.mark.parametrize("user", ["admin", "viewer"])
def test_nobody_reads_by_a_new_workitem_what_orthanc_does_not_let_them_read(user: str) -> None:
    asked_about: list[str] = []

    class Open:
        async def admit(self, request: WebRequest, path: str) -> None:
            pass

        async def may_read(self, request: WebRequest, path: str) -> bool:
            asked_about.append(path)
            return False

    rig = rig_of(user)
    rig.api = ManagementApi(replace(rig.ports, admission=Open()))
    study = "6b9e19d9-62094390-5f9ddb01-4a191ae7-9766b715"
    rig.refused(403, "GET", "/prefill", query=f"level=study&id={study}")
    rig.refused(403, "POST", "/workitems", {"inputs": [{"level": "study", "id": study}]})
    assert asked_about == [f"/studies/{study}"] * (2 if user == "admin" else 1)


# --- who they act as --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "who"),
    [("ris", "ris as RIS by page"), ("admin", "admin as UPSWORKLIST by page")],
)
def test_users_act_as_their_first_ae_title(user: str, who: str) -> None:
    rig = rig_of(user)
    uid = next(iter(rig.worklist.workitems))
    rig.ask("POST", f"/workitems/{uid}/claim", {})
    assert rig.worklist.workitems[uid].history[-1].who == who


def test_nothing_in_a_request_makes_its_sender_somebody_else() -> None:
    spoofs = {"user": "admin", "ae": "AI", "requester": "AI", "requesting_ae": "AI"}
    rig = rig_of("ris")
    uid = next(iter(rig.worklist.workitems))
    rig.refused(400, "POST", f"/workitems/{uid}/claim", spoofs)
    rig.ask("POST", f"/workitems/{uid}/claim", {}, query="user=admin&requester=AI&ae=AI")
    assert rig.worklist.workitems[uid].history[-1].who == "ris as RIS by page"
    rig.refused(403, "POST", "/subscribers/AI/subscribe", {"scope": "global"}, query="ae=RIS&user=admin")
    headers = {**JSON, "x-ups-query": "user=admin", "x-forwarded-user": "admin", "remote-user": "admin"}
    rig.refused(403, "DELETE", f"/workitems/{uid}", headers=headers, query="user=admin")


def test_a_cancellation_is_requested_by_the_ae_title_of_the_user() -> None:
    rig = rig_of("ris")
    uid = next(iter(rig.worklist.workitems))
    rig.worklist.known_aes = ("RIS", "AI")
    rig.ask("PUT", f"/workitems/{uid}/subscribers/RIS", {})
    claimed(rig, Requester("AI", "DIMSE"))
    rig.ask("POST", f"/workitems/{uid}/request-cancel", {"reason": "twice"})
    (request,) = (event for event in rig.worklist.event_logs[uid] if event.type is EventType.CANCEL_REQUESTED)
    assert text(request.information, REQUESTING_AE) == "RIS"


# --- closing on behalf of a performer ---------------------------------------------------------------


def claimed(rig: ManagementRig, requester: Requester) -> str:
    uid = next(iter(rig.worklist.workitems))
    asyncio.run(rig.worklist.execute(ChangeState(requester, uid, "IN PROGRESS", "1.2.3.4")))
    return uid


@pytest.mark.parametrize(
    ("performer", "user", "allowed"),
    [
        (Requester("RIS2", "DIMSE"), "ris", True),
        (Requester("RIS", "UPS-RS", "another as X"), "ris", True),
        (Requester("AI", "DIMSE"), "ris", False),
        (Requester("AI", "UPS-RS", "x as RIS by page"), "ris", False),
        (Requester("UPS-RS", "UPS-RS"), "ris", False),
        (Requester("AI", "DIMSE"), "admin", True),
        (Requester("UPS-RS", "UPS-RS"), "admin", True),
    ],
)
@pytest.mark.parametrize("action", ["complete", "cancel"])
def test_closing_without_a_transaction_uid_takes_the_right_to_act_for_the_performer(
    performer: Requester, user: str, allowed: bool, action: str
) -> None:
    rig = rig_of(user)
    uid = claimed(rig, performer)
    assert (action in rig.ask("GET", f"/workitems/{uid}")["actions"]) is allowed
    answer = rig.answer("POST", f"/workitems/{uid}/{action}", {})
    assert answer.status == (200 if allowed else 403), answer.body


# --- what the page is told --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "act", "administer", "ae_titles", "actions"),
    [
        ("ris", True, False, ["RIS", "RIS2"], ["edit", "claim", "request-cancel"]),
        ("admin", True, True, [], ["edit", "claim", "request-cancel"]),
        ("eve", False, False, [], []),
        (None, False, False, [], []),
    ],
)
def test_the_page_is_told_what_the_user_may_do(
    user: str | None, act: bool, administer: bool, ae_titles: list[str], actions: list[str]
) -> None:
    rig = rig_of(user)
    expected = {"act": act, "administer": administer, "ae_titles": ae_titles}
    assert rig.ask("GET", "/system")["rights"] == expected
    uid = next(iter(rig.worklist.workitems))
    assert rig.ask("GET", f"/workitems/{uid}")["actions"] == actions


# --- pages of other origins -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://pacs:9999", "host": "pacs:8042"},
        {"origin": ""},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
@pytest.mark.parametrize(
    "route", [route for route, _ in ROUTES if not route.startswith("GET ") and "port" not in route]
)
def test_pages_of_other_origins_change_nothing(route: str, headers: dict[str, str]) -> None:
    rig = rig_of("admin")
    method, path = route.split(" ")
    path = path.replace("{uid}", "1.2").replace("{ae}", "RIS")
    rig.refused(403, method, path, {}, headers={**JSON, **headers})
    assert len(rig.worklist.commands) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://pacs:8042", "host": "pacs:8042"},
        {"origin": "https://pacs.example", "host": "10.0.0.1:8042", "x-forwarded-host": "pacs.example"},
        {"origin": "https://viewer.example", "sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-origin"},
        {},
    ],
)
def test_pages_of_ones_own_and_of_allowed_origins_do(headers: dict[str, str]) -> None:
    rig = rig_of("admin", allowed_origins=("https://viewer.example",))
    rig.ask("POST", "/subscribers/RIS/retry", {}, headers={**JSON, **headers})


# --- at the start -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("users", "checked", "warned"),
    [(USERS, False, True), (USERS, True, False), ({"*": ("*",)}, False, False)],
)
def test_users_without_authentication_are_warned_about(users: Any, checked: bool, warned: bool) -> None:
    orthanc_settings = OrthancSettings(allow_threads=True, authentication_enabled=checked)
    warnings = start_warnings(Settings(users=users), orthanc_settings)
    assert any("everybody is anonymous" in warning for warning in warnings) is warned
