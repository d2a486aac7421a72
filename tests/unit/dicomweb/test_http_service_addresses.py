# SPDX-License-Identifier: AGPL-3.0-or-later
"""The listener over the network: under which address it is seen, pages of other origins, HTTPS."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from orthanc_ups.settings import OrthancSettings, Settings
from tests.support.certificates import self_signed
from tests.support.web_client import next_event
from tests.support.web_service import LettingIn, WebService
from tests.support.workitems import minimal

GLOBAL = "1.2.840.10008.5.1.4.34.5"
PASSWORDS = {"bob": "secret"}


def test_public_url_is_what_clients_are_told() -> None:
    with WebService(Settings(public_url="https://ris.example/ups/")) as service:
        answer = service.post("/workitems", minimal())
        assert answer.headers["Location"].startswith("https://ris.example/ups/workitems/")
        answer = service.post(f"/workitems/{GLOBAL}/subscribers/A")
        assert answer.headers["Content-Location"] == "wss://ris.example/ups/subscribers/A"


@pytest.mark.parametrize(
    ("proxies", "trusted"), [((), False), (("127.0.0.1",), True), (("192.0.2.0/24",), False)]
)
def test_forwarded_headers_count_only_from_trusted_proxies(proxies: tuple[str, ...], trusted: bool) -> None:
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "pacs.example"}
    with WebService(Settings(trusted_proxies=proxies)) as service:
        answer = service.post("/workitems", minimal(), headers=headers)
        base = "https://pacs.example/dicom-web" if trusted else service.url
        assert answer.headers["Location"].startswith(f"{base}/workitems/")


@pytest.mark.parametrize("root", ["/", "/ups/rs/", "x"])
def test_root_is_where_it_is_set(root: str) -> None:
    with WebService(Settings(root=root)) as service:
        service.url = f"{service.origin}/{root.strip('/')}".rstrip("/")
        answer = service.post("/workitems", minimal())
        assert answer.status_code == 201
        assert service.session.get(answer.headers["Location"]).status_code == 200


def test_foreign_pages_change_nothing_and_read_nothing() -> None:
    with WebService(Settings(allowed_origins=("https://viewer.example",))) as service:
        uid = service.create()
        foreign = {"Origin": "https://evil.example"}
        assert service.post(f"/workitems/{uid}/cancelrequest", headers=foreign).status_code == 403
        assert service.retrieve(uid)["00741000"]["Value"] == ["SCHEDULED"]
        answer = service.get(f"/workitems/{uid}", headers=foreign)
        assert "Access-Control-Allow-Origin" not in answer.headers
        with pytest.raises(InvalidStatus) as refusal:
            service.socket("AI", origin="https://evil.example")
        assert refusal.value.response.status_code == 403
        good = {"Origin": "https://viewer.example"}
        answer = service.get(f"/workitems/{uid}", headers=good)
        assert answer.headers["Access-Control-Allow-Origin"] == "https://viewer.example"
        with (
            service.socket("AI", origin="https://viewer.example"),
            service.socket("AI", origin=service.origin),
        ):
            pass


def test_preflight_needs_no_credentials() -> None:
    orthanc_settings = OrthancSettings(remote_access_allowed=True, authentication_enabled=True)
    with WebService(Settings(allowed_origins=("*",)), orthanc_settings, LettingIn(PASSWORDS)) as service:
        asking = {"Origin": "https://any.example", "Access-Control-Request-Method": "PUT"}
        answer = service.request("OPTIONS", "/workitems/1.2/state", headers=asking)
        assert answer.status_code == 204
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        refused = service.get("/workitems", headers={"Origin": "https://any.example"})
        assert (refused.status_code, refused.headers["Access-Control-Allow-Origin"]) == (401, "*")


def test_https_and_wss(tmp_path: Path) -> None:
    issued = self_signed(tmp_path, "listener")
    pem = tmp_path / "both.pem"  # Orthanc wants certificate and key in one file
    pem.write_text(Path(issued.certificate).read_text() + Path(issued.key).read_text())
    orthanc_settings = OrthancSettings(remote_access_allowed=True, http_tls=True, ssl_certificate=str(pem))
    with WebService(orthanc_settings=orthanc_settings) as service:
        service.session.verify = issued.certificate
        trusting = ssl.create_default_context(cafile=issued.certificate)
        with service.socket("AI", ssl=trusting) as opened:
            uid = service.create()
            answer = service.post(f"/workitems/{uid}/subscribers/AI")
            assert answer.headers["Content-Location"].startswith("wss://")
            assert next_event(opened)["00001000"]["Value"] == [uid]
