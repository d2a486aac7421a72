# SPDX-License-Identifier: AGPL-3.0-or-later
"""The DICOMweb port admits exactly those whom the real Orthanc admits: users, and a request filter.

HTTPS is tested in this process only (tests/unit/test_http_listener.py): Debian's Orthanc crashes at its first HTTPS
request, on forky and on trixie, as its HTTP library looks for a function that OpenSSL 3 does not have.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests
from websockets.exceptions import InvalidStatus

from orthanc_ups.core.dataset import DataSet
from tests.support.orthanc import RealOrthanc
from tests.support.web_client import WebClient, basic, new_uid, state
from tests.support.workitems import minimal

USERS = {"ris": "first", "ai": "second", "viewer": "third"}
GLOBAL = "1.2.840.10008.5.1.4.34.5"

# Stands for an authorization plugin: Orthanc asks both in the same place, with method and URI.
FILTER = """
function IncomingHttpRequestFilter(method, uri, ip, username, httpHeaders)
  if username == 'viewer' and method ~= 'GET' then
    return false
  end
  if httpHeaders['x-blocked'] ~= nil then
    return false
  end
  return true
end
"""


@pytest.fixture(scope="module")
def guarded(suite: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebClient]:
    script = tmp_path_factory.mktemp("lua") / "filter.lua"
    script.write_text(FILTER)
    overrides: dict[str, Any] = {
        "AuthenticationEnabled": True,
        "RemoteAccessAllowed": True,
        "RegisteredUsers": USERS,
        "LuaScripts": [str(script)],
        "Ups": {"Users": {"ris": ["RIS"], "ai": ["AI1", "AI2"]}, "AuthorizationCache": 1},
    }
    with RealOrthanc(suite, overrides) as orthanc:
        client = WebClient(f"http://127.0.0.1:{orthanc.ups_http_port}/dicom-web")
        yield client
        client.session.close()


def credentials(user: str) -> tuple[str, str]:
    return user, USERS[user]


def created(service: WebClient, user: str, content: DataSet | None = None) -> requests.Response:
    return service.post(f"/workitems?workitem={new_uid()}", content or minimal(), auth=credentials(user))


def test_nobody_without_credentials(guarded: WebClient) -> None:
    for answer in (
        guarded.get("/workitems"),
        guarded.post("/workitems", minimal()),
        guarded.request("OPTIONS", "/"),
    ):
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Basic")
    assert guarded.get("/workitems", auth=("ris", "wrong")).status_code == 401


def test_registered_users_come_in(guarded: WebClient) -> None:
    answer = created(guarded, "ris")
    assert answer.status_code == 201
    path = answer.headers["Location"].removeprefix(guarded.url)
    for user in USERS:
        assert guarded.get(path, auth=credentials(user)).status_code == 200


def test_whom_orthancs_filter_refuses_is_refused_here(guarded: WebClient) -> None:
    assert created(guarded, "viewer").status_code == 403
    assert guarded.get("/workitems", auth=credentials("viewer")).status_code in (200, 204)


def test_users_listen_only_to_their_own_ae_titles(guarded: WebClient) -> None:
    def opened(user: str | None, ae: str) -> int:
        headers = {"Authorization": basic(*credentials(user))} if user else {}
        try:
            with guarded.socket(ae, additional_headers=headers):
                return 101
        except InvalidStatus as refusal:
            return refusal.response.status_code

    assert [opened("ai", ae) for ae in ("AI1", "AI2", "RIS")] == [101, 101, 403]
    assert [opened("viewer", "AI1"), opened(None, "AI1")] == [403, 401]


def test_users_subscribe_only_their_own_ae_titles(guarded: WebClient) -> None:
    def subscribed(user: str, ae: str) -> int:
        return guarded.post(f"/workitems/{GLOBAL}/subscribers/{ae}", auth=credentials(user)).status_code

    assert [subscribed("ai", "AI1"), subscribed("ai", "RIS"), subscribed("viewer", "AI1")] == [201, 403, 403]


def test_without_a_filter_orthanc_is_asked_about_credentials_and_not_about_each_workitem(suite: str) -> None:
    overrides: dict[str, Any] = {
        "AuthenticationEnabled": True,
        "RemoteAccessAllowed": True,
        "RegisteredUsers": USERS,
    }
    with RealOrthanc(suite, overrides, options=("--verbose",)) as orthanc:
        client = WebClient(f"http://127.0.0.1:{orthanc.ups_http_port}/dicom-web")
        claim = state("IN PROGRESS", new_uid())
        for _ in range(3):
            path = created(client, "ris").headers["Location"].removeprefix(client.url) + "/state"
            assert client.put(path, claim, auth=("ris", "wrong")).status_code == 401
            assert client.put(path, claim).status_code == 401
            assert client.put(path, claim, auth=credentials("ris")).status_code == 200
        assert "/state" not in orthanc.logs("/dicom-web/workitems")
        client.session.close()
