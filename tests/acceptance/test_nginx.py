# SPDX-License-Identifier: AGPL-3.0-or-later
"""One base URL for Orthanc and the worklist: the nginx site of docker/nginx.conf in front of a real Orthanc."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.support.nginx import Nginx
from tests.support.orthanc import CHECKOUT, DICOMWEB_PLUGIN, PYTHON_PLUGIN, RealOrthanc
from tests.support.web_client import WebClient, new_uid, next_event
from tests.support.workitems import full, minimal

pytestmark = pytest.mark.one_suite("nginx stands before our own port")


@pytest.fixture(scope="module")
def orthanc_overrides() -> dict[str, Any]:
    return {"Plugins": [PYTHON_PLUGIN, DICOMWEB_PLUGIN], "Ups": {"TrustedProxies": ["127.0.0.1"]}}


@pytest.fixture(scope="module")
def proxied(orthanc: RealOrthanc, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebClient]:
    site = (CHECKOUT / "docker" / "nginx.conf").read_text()
    ports = {"8042": orthanc.http_port, "8043": orthanc.ups_http_port}
    with Nginx(tmp_path_factory.mktemp("nginx"), site, ports) as nginx:
        client = WebClient(f"{nginx.url}/dicom-web")
        yield client
        client.session.close()


def test_a_client_that_knows_only_one_base_url_does_it_all(proxied: WebClient) -> None:
    uid = new_uid()
    answer = proxied.post(f"/workitems?workitem={uid}", full("greek"))
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"{proxied.url}/workitems/{uid}"
    with proxied.socket("AI") as socket:
        answer = proxied.post(f"/workitems/{uid}/subscribers/AI")
        assert answer.headers["Content-Location"] == f"{proxied.web_sockets}/subscribers/AI"
        assert next_event(socket)["00741000"]["Value"] == ["SCHEDULED"]
        proxied.complete(uid)
        assert [next_event(socket)["00741000"]["Value"][0] for _ in range(2)] == ["IN PROGRESS", "COMPLETED"]
    (workitem,) = proxied.get(
        f"/workitems?SOPInstanceUID={uid}&includefield=PatientWeight&includefield=00400400"
    ).json()
    assert {"00101030", "00400400"} <= workitem.keys()


def test_orthanc_is_at_the_same_base(proxied: WebClient) -> None:
    assert proxied.get("/studies").status_code in (200, 204)
    base = proxied.url.removesuffix("/dicom-web")
    assert requests.get(f"{base}/system", timeout=60).json()["ApiVersion"]


def test_capabilities_are_those_of_the_worklist(proxied: WebClient) -> None:
    answer = proxied.request("OPTIONS", "/")
    assert answer.status_code == 200
    assert f'base="{proxied.url}"' in answer.text


def test_pages_of_the_proxys_own_origin_may_change_things(proxied: WebClient) -> None:
    origin = proxied.url.removesuffix("/dicom-web")
    assert proxied.post("/workitems", minimal(), headers={"Origin": origin}).status_code == 201
    assert (
        proxied.post("/workitems", minimal(), headers={"Origin": "https://evil.example"}).status_code == 403
    )
