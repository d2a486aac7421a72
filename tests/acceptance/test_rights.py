# SPDX-License-Identifier: AGPL-3.0-or-later
"""Attacks on the rights in a real Orthanc: users, a request filter that decides by workitem UID, ``Ups.Users``.

Every interface is tried as an administrator, as a user who is named for AE titles, as one who is not named, and
without credentials.
"""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote

import pytest
import requests
from websockets.exceptions import InvalidStatus

from orthanc_ups.codecs import dicom_json
from orthanc_ups.core import tags
from orthanc_ups.management.permissions import RIGHTS, Right
from tests.support.orthanc import RealOrthanc
from tests.support.ports import free_port
from tests.support.web_client import TIMEOUT, WebClient, basic, new_uid, state
from tests.support.workitems import minimal

PASSWORDS = {"admin": "first", "ai": "second", "viewer": "third", "filtered": "fourth"}
USERS = {"admin": ["*"], "ai": ["AI1", "AI2"], "filtered": ["*"]}
EVERYBODY = ("admin", "ai", "viewer", None)
LOCKED = "1.2.826.0.1.3680043.10.1999.77.1"
GLOBAL = tags.GLOBAL_SUBSCRIPTION

# Nobody writes to one workitem; user "filtered" does not subscribe or act for RIS, export, or see that workitem.
FILTER = f"""
function IncomingHttpRequestFilter(method, uri, ip, username, httpHeaders)
  if method ~= 'GET' and string.find(uri, '{LOCKED}', 1, true) then
    return false
  end
  if username == 'filtered' then
    if uri == '/ups/api/export' then return false end
    if string.find(uri, '/ups/api/subscribers/RIS/', 1, true) then return false end
    if uri == '/dicom-web/workitems/{LOCKED}' then return false end
    if string.find(uri, '/subscribers/RIS$') then return false end
    if string.find(uri, '/subscribers/[^/]*$') and string.find(uri, '{GLOBAL}', 1, true) then return false end
  end
  return true
end
"""


@pytest.fixture(scope="module")
def guarded(suite: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealOrthanc]:
    script = tmp_path_factory.mktemp("lua") / "filter.lua"
    script.write_text(FILTER)
    overrides: dict[str, Any] = {
        "AuthenticationEnabled": True,
        "RemoteAccessAllowed": True,
        "RegisteredUsers": PASSWORDS,
        "DicomModalities": {"ris": ["RIS", "127.0.0.1", free_port()]},
        "LuaScripts": [str(script)],
        "Ups": {"Users": USERS, "AuthorizationCache": 5},
    }
    with RealOrthanc(suite, overrides) as orthanc:
        yield orthanc


def headers_of(user: str | None) -> dict[str, str]:
    return {"Authorization": basic(user, PASSWORDS[user])} if user else {}


class Caller:
    """One user at every interface.

    Attributes:
        ports: base of the DICOMweb service at the plugin's port and at Orthanc's.
    """

    def __init__(self, orthanc: RealOrthanc, user: str | None) -> None:
        self.orthanc = orthanc
        self.headers = headers_of(user)
        own = f"http://127.0.0.1:{orthanc.ups_http_port}/dicom-web"
        self.ports = (own, f"{orthanc.base_url}/dicom-web")
        self.service = WebClient(own)
        self.service.session.headers.update(self.headers)

    def api(self, method: str, path: str, content: Any = None, **headers: str) -> requests.Response:
        """A request of the management API."""
        kind = "application/x-ndjson" if isinstance(content, bytes) else "application/json"
        body = content if isinstance(content, bytes) or content is None else json.dumps(content).encode()
        shown = {**self.headers, **({"Content-Type": kind} if body is not None else {}), **headers}
        url = f"{self.orthanc.base_url}/ups/api{path}"
        return requests.request(method, url, headers=shown, data=body, timeout=TIMEOUT)

    def raw(self, base: str, method: str, path: str, body: bytes | None = None, **headers: str) -> int:
        """The status of a request whose path is sent as it stands: other clients resolve dots."""
        host, port, root = re.fullmatch(r"http://([^:/]+):(\d+)(.*)", base).groups()  # type: ignore[union-attr]
        connection = http.client.HTTPConnection(host, int(port), timeout=TIMEOUT)
        shown = {**self.headers, **({"Content-Type": "application/dicom+json"} if body else {}), **headers}
        try:
            connection.request(method, root + path, body, shown)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()

    def listens(self, ae: str, since: int | None = None) -> int:
        """The status of a notification connection."""
        try:
            with self.service.socket(ae, since, additional_headers=self.headers):
                return 101
        except InvalidStatus as refusal:
            return refusal.response.status_code


def subscribers(orthanc: RealOrthanc) -> set[str]:
    result = Caller(orthanc, "admin").api("GET", "/subscribers").json()["subscribers"]
    return {row["ae"] for row in result}


# --- the page and its API ---------------------------------------------------------------------------


@pytest.mark.parametrize("user", EVERYBODY)
def test_every_route_of_the_management_api_holds_the_rights(guarded: RealOrthanc, user: str | None) -> None:
    caller = Caller(guarded, user)
    uid = Caller(guarded, "admin").service.create()
    wrong = []
    for route, right in RIGHTS.items():
        method, path = route.split(" ")
        for ae in ("AI2", "RIS"):
            content: Any = {} if method in ("POST", "PUT") else None
            content = b"no line\n" if path == "/import" and content == {} else content
            status = caller.api(method, path.replace("{uid}", uid).replace("{ae}", ae), content).status_code
            allowed = right is Right.LOOK or user == "admin" or (
                user == "ai" and (right is Right.ACT or (right is Right.ACT_FOR_AE and ae == "AI2"))
            )  # fmt: skip
            refusal = 403 if user else 401
            if (status == refusal) is (allowed and user is not None) or (not user and status != 401):
                wrong.append((route, ae, status))
    assert wrong == []


def test_who_is_not_named_changes_nothing_by_the_page(guarded: RealOrthanc) -> None:
    viewer, uid = Caller(guarded, "viewer"), Caller(guarded, "admin").service.create()
    attributes = {"attributes": {"ProcedureStepLabel": "x"}}
    for method, path, content in (
        ("POST", "/workitems", {**attributes, "user": "admin", "ae": "AI1", "requester": "AI1"}),
        ("PUT", f"/workitems/{uid}", attributes),
        ("POST", f"/workitems/{uid}/claim", {"user": "admin"}),
        ("POST", f"/workitems/{uid}/request-cancel", {}),
        ("POST", "/subscribers/AI1/subscribe", {"scope": "global"}),
        ("GET", "/export", None),
        ("DELETE", f"/workitems/{uid}", None),
    ):
        answer = viewer.api(
            method, path, content, **{"X-UPS-Query": "user=admin", "X-Forwarded-User": "admin"}
        )
        assert answer.status_code == 403, (method, path)
        assert "Ups.Users" in answer.json()["error"]
    assert viewer.api("GET", f"/workitems/{uid}").json()["state"] == "SCHEDULED"
    assert viewer.api("GET", "/system").json()["rights"] == {
        "act": False,
        "administer": False,
        "ae_titles": [],
    }


def test_a_named_user_acts_for_their_ae_titles(guarded: RealOrthanc) -> None:
    ai, admin = Caller(guarded, "ai"), Caller(guarded, "admin")
    uid = ai.api("POST", "/workitems", {"attributes": {"ProcedureStepLabel": "x"}}).json()["uid"]
    assert ai.api("POST", f"/workitems/{uid}/claim", {}).status_code == 200
    history = ai.api("GET", f"/workitems/{uid}").json()["history"]
    assert {entry["who"] for entry in history} == {"ai as AI1 by page"}
    assert ai.api("POST", f"/workitems/{uid}/cancel", {}).status_code == 200
    others = admin.service.create()
    answer = admin.service.put(f"/workitems/{others}/state?requester=RIS", state("IN PROGRESS", new_uid()))
    assert answer.status_code == 200
    assert ai.api("POST", f"/workitems/{others}/cancel", {}).status_code == 403
    assert ai.api("GET", f"/workitems/{others}").json()["actions"] == ["request-cancel"]
    assert admin.api("POST", f"/workitems/{others}/cancel", {}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
def test_pages_of_other_origins_change_nothing_on_any_port(guarded: RealOrthanc, origin: str) -> None:
    admin = Caller(guarded, "admin")
    uid = admin.service.create()
    for method, path, content in (
        ("POST", "/workitems", {"attributes": {}}),
        ("POST", f"/workitems/{uid}/claim", {}),
        ("DELETE", f"/workitems/{uid}", None),
        ("POST", "/import", b"\n"),
        ("POST", "/subscribers/AI1/subscribe", {"scope": "global"}),
    ):
        assert admin.api(method, path, content, Origin=origin).status_code == 403
    for base in admin.ports:
        assert admin.raw(base, "POST", f"/workitems/{uid}/cancelrequest", b"[{}]", Origin=origin) == 403
    assert admin.raw(f"{guarded.base_url}/ups/app", "POST", "/index.html", b"x", Origin=origin) == 403
    own = guarded.base_url
    assert admin.api("POST", f"/workitems/{uid}/claim", {}, Origin=own).status_code == 200


# --- UPS-RS on both ports, WebSockets ---------------------------------------------------------------


@pytest.mark.parametrize("port", [0, 1])
@pytest.mark.parametrize("user", EVERYBODY)
def test_every_transaction_of_ups_rs_holds_the_rights(
    guarded: RealOrthanc, user: str | None, port: int
) -> None:
    caller, admin = Caller(guarded, user), Caller(guarded, "admin")
    base, uid = caller.ports[port], admin.service.create()
    body = dicom_json.encode(minimal())
    claim = json.dumps([state("IN PROGRESS", new_uid())]).encode()

    def status(method: str, path: str, content: bytes | None = None, query: str = "") -> int:
        on_ours = f"{path}?{query}" if query and port == 0 else path
        return caller.raw(base, method, on_ours, content, **({"X-Ups-Query": query} if query else {}))

    looking = [status("GET", "/workitems"), status("GET", f"/workitems/{uid}")]
    acting = [
        status("POST", "/workitems", body, f"workitem={new_uid()}"),
        status("POST", f"/workitems/{uid}", b'[{"00741204":{"vr":"LO","Value":["x"]}}]'),
        status("PUT", f"/workitems/{uid}/state", claim),
        status("POST", f"/workitems/{uid}/cancelrequest", b"[{}]"),
    ]
    for_others = [
        status("PUT", f"/workitems/{uid}/state/RIS", claim),
        status("POST", f"/workitems/{uid}/cancelrequest/RIS", b"[{}]"),
        status("POST", f"/workitems/{uid}/cancelrequest", b"[{}]", "requester=RIS"),
        status("POST", f"/workitems/{GLOBAL}/subscribers/RIS"),
        status("DELETE", f"/workitems/{uid}/subscribers/RIS"),
        status("POST", f"/workitems/{GLOBAL}/subscribers/RIS/suspend"),
    ]
    if user is None:
        assert {*looking, *acting, *for_others} == {401}
        return
    assert {*looking} <= {200, 204}
    assert (403 in acting) is (user == "viewer") and ({*acting} == {403}) is (user == "viewer")
    assert ({*for_others} == {403}) if user != "admin" else 403 not in for_others


@pytest.mark.parametrize(
    ("user", "ae", "status"),
    [("ai", "AI2", 101), ("ai", "ai2", 101), ("ai", "RIS", 403), ("viewer", "AI1", 403), (None, "AI1", 401),
     ("admin", "RIS", 101), ("filtered", "RIS", 403), ("filtered", "CT1", 101)],
)  # fmt: skip
def test_notification_connections_hold_the_rights_with_a_replay_too(
    guarded: RealOrthanc, user: str | None, ae: str, status: int
) -> None:
    caller = Caller(guarded, user)
    assert [caller.listens(ae), caller.listens(ae, since=0)] == [status, status]


# --- what Orthanc is asked about --------------------------------------------------------------------

DECEPTIVE = ("%2E%2E", "..", "...", ".%2e", "%2e", "..%2F..%2FX", "..%2FX", "..%5CX", "%252E%252E", "..%252FX",
             "X%2F..%2FY", "A%00", "A%0A", "%20..%20", "..%3Bx")  # fmt: skip


@pytest.mark.parametrize("user", ["filtered", "ai", "viewer"])
@pytest.mark.parametrize("ae", DECEPTIVE)
def test_no_ae_title_makes_orthanc_judge_another_path(guarded: RealOrthanc, user: str, ae: str) -> None:
    caller = Caller(guarded, user)
    before = subscribers(guarded)
    for port, base in enumerate(caller.ports):
        for path in (
            f"/workitems/{GLOBAL}/subscribers/{ae}",
            f"/workitems/{GLOBAL}/subscribers/{ae}/suspend",
        ):
            for method in ("POST", "DELETE"):
                status = caller.raw(base, method, path)
                assert 400 <= status < 500, (base, path)
                assert port or status == 400 or ae == "..%3Bx"
        assert 400 <= caller.raw(base, "GET", f"/subscribers/{ae}") < 500
    assert subscribers(guarded) == before


@pytest.mark.parametrize("ae", ["RIS", "ris", "RIS%20", "%20RIS", "RIS/", "R%49S", "./RIS", "x/../RIS"])
def test_no_spelling_of_an_ae_title_evades_a_filter(guarded: RealOrthanc, ae: str) -> None:
    caller = Caller(guarded, "filtered")
    uid = Caller(guarded, "admin").service.create()
    for base in caller.ports:
        assert caller.raw(base, "POST", f"/workitems/{uid}/subscribers/{ae}") in (400, 403, 404)
    assert "RIS" not in {
        subscriber["ae"] for subscriber in caller.api("GET", f"/workitems/{uid}").json()["subscribers"]
    }


@pytest.mark.parametrize(
    "ae", ["A B", "A+B", "50%", "A&B=C", "A;B", "A#B", "'A'", "A~B", "A.B", ".A", "A..B", "..A"]
)
def test_plain_ae_titles_are_admitted(guarded: RealOrthanc, ae: str) -> None:
    caller = Caller(guarded, "admin")
    uid = caller.service.create()
    encoded = quote(ae, safe="")
    for base in caller.ports:
        assert caller.raw(base, "POST", f"/workitems/{uid}/subscribers/{encoded}") == 201
        assert caller.raw(base, "DELETE", f"/workitems/{uid}/subscribers/{encoded}") == 200


@pytest.mark.parametrize("ae", ["A.", "A.."])
def test_an_ae_title_that_orthanc_cannot_be_asked_about_is_refused(guarded: RealOrthanc, ae: str) -> None:
    caller = Caller(guarded, "admin")
    assert caller.raw(caller.ports[0], "POST", f"/workitems/{GLOBAL}/subscribers/{ae}") == 400


@pytest.mark.parametrize(
    "path", ["/export", "/export/", "//export", "/./export", "/x/../export", "/%65xport"]
)
def test_no_spelling_of_a_path_of_the_management_api_evades_a_filter(guarded: RealOrthanc, path: str) -> None:
    assert Caller(guarded, "filtered").raw(f"{guarded.base_url}/ups/api", "GET", path) == 403


@pytest.mark.parametrize("ae", ["RIS", "ris", "%20RIS", "RIS%20", "/RIS", "x/../RIS"])
def test_no_spelling_of_an_ae_title_evades_a_filter_of_the_management_api(
    guarded: RealOrthanc, ae: str
) -> None:
    caller = Caller(guarded, "filtered")
    base = f"{guarded.base_url}/ups/api"
    assert (
        caller.raw(base, "POST", f"/subscribers/{ae}/retry", b"{}", **{"Content-Type": "application/json"})
        == 403
    )


@pytest.mark.parametrize("mark", ["%3F", "%3fx=1"])
def test_no_question_mark_evades_a_filter(guarded: RealOrthanc, mark: str) -> None:
    """On Orthanc's port it begins the query, on the plugin's it belongs to the AE title."""
    caller = Caller(guarded, "filtered")
    uid = Caller(guarded, "admin").service.create()
    assert caller.raw(caller.ports[1], "POST", f"/workitems/{uid}/subscribers/RIS{mark}") == 403
    assert caller.raw(caller.ports[0], "POST", f"/workitems/{uid}/subscribers/RIS{mark}") == 201
    subscribed = {
        subscriber["ae"] for subscriber in caller.api("GET", f"/workitems/{uid}").json()["subscribers"]
    }
    assert subscribed == {f"RIS{unquote(mark)}"}


def test_a_verdict_about_one_workitem_admits_to_no_other(guarded: RealOrthanc) -> None:
    admin = Caller(guarded, "admin")
    assert admin.service.get(f"/workitems/{LOCKED}").status_code in (200, 404)
    unguarded = admin.service.create()
    change = {"00741204": {"vr": "LO", "Value": ["x"]}}
    for _ in range(2):
        assert admin.service.post(f"/workitems/{unguarded}", change).status_code == 200
        assert admin.service.post(f"/workitems/{LOCKED}", change).status_code == 403
        assert admin.service.put(f"/workitems/{LOCKED}/state", state("IN PROGRESS", "1.2")).status_code == 403
        assert admin.service.post(f"/workitems/{LOCKED}/subscribers/CT1").status_code == 403
    filtered = Caller(guarded, "filtered")
    assert filtered.service.get(f"/workitems/{unguarded}").status_code == 200
    assert filtered.service.get(f"/workitems/{LOCKED}").status_code == 403


@pytest.mark.parametrize("hidden", ["%2Fcancelrequest", "%2F..%2F", "%3Fx", "/../1.2", "%00", "%2e", ";x"])
def test_no_uid_makes_orthanc_judge_another_path(guarded: RealOrthanc, hidden: str) -> None:
    admin = Caller(guarded, "admin")
    for base in admin.ports:
        assert admin.raw(base, "POST", f"/workitems/{LOCKED}{hidden}", b"[{}]") in (400, 403, 404)
