# SPDX-License-Identifier: AGPL-3.0-or-later
"""PS3.18 §8.9 Retrieve Capabilities, Annex H, and what §8.5 says of resources and methods."""

from xml.etree import ElementTree

import pytest

from tests.support.web_client import WebClient, new_uid

WADL = "{http://wadl.dev.java.net/2009/02}"


def resources(node: ElementTree.Element, above: str = "") -> dict[str, set[str]]:
    result: dict[str, set[str]] = {}
    for child in node.findall(f"{WADL}resource"):
        path = f"{above}/{child.get('path')}"
        result[path] = {str(method.get("name")) for method in child.findall(f"{WADL}method")}
        result |= resources(child, path)
    return result


def test_8_9_4_wadl_names_every_resource_with_its_methods(service: WebClient) -> None:
    answer = service.request("OPTIONS", "/")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/vnd.sun.wadl+xml"
    root = ElementTree.fromstring(answer.content)
    (base,) = root.findall(f"{WADL}resources")
    assert base.get("base") == service.url
    result = resources(base)
    well_known = "/workitems/1.2.840.10008.5.1.4.34.5"
    assert result["/workitems"] == {"GET", "POST"}
    assert result["/workitems/{Workitem}"] == {"GET", "POST"}
    assert result["/workitems/{Workitem}/state"] == {"PUT"}
    assert result["/workitems/{Workitem}/cancelrequest"] == {"POST"}
    assert result["/workitems/{Workitem}/subscribers/{AETitle}"] == {"POST", "DELETE"}
    for uid in (well_known, f"{well_known}.1"):
        assert result[f"{uid}/subscribers/{{AETitle}}"] == {"POST", "DELETE"}
        assert result[f"{uid}/subscribers/{{AETitle}}/suspend"] == {"POST"}


def test_8_9_4_web_sockets_and_extended_matching_are_told(service: WebClient) -> None:
    text = service.request("OPTIONS", "/").text
    assert f"{service.web_sockets}/subscribers/{{AETitle}}" in text
    for matching in ("FuzzyMatching", "EmptyValueMatching", "MultipleValueMatching"):
        assert matching in text
        assert text.count(f'name="{matching.lower()}"') == 2


@pytest.mark.parametrize("accept", ["application/json", "application/dicom+json"])
def test_8_9_4_json_says_the_same(service: WebClient, accept: str) -> None:
    answer = service.request("OPTIONS", "/", headers={"Accept": accept})
    assert answer.headers["Content-Type"] == accept
    described = answer.json()["application"]["resources"]
    assert described["base"] == service.url
    assert described["resource"][0]["path"] == "workitems"


def test_8_9_3_unchanged_is_304(service: WebClient) -> None:
    entity_tag = service.request("OPTIONS", "/").headers["ETag"]
    answer = service.request("OPTIONS", "/", headers={"If-None-Match": f'"other", W/{entity_tag}'})
    assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", entity_tag)
    assert service.request("OPTIONS", "/", headers={"If-None-Match": '"other"'}).status_code == 200
    assert service.request("OPTIONS", "/", headers={"If-None-Match": "*"}).status_code == 304


def test_8_9_3_nothing_acceptable_is_406(service: WebClient) -> None:
    assert service.request("OPTIONS", "/", headers={"Accept": "image/png"}).status_code == 406


@pytest.mark.parametrize("path", ["", "/", "/workitems", "/workitems/1.2.3/state"])
def test_8_9_options_of_every_resource(service: WebClient, path: str) -> None:
    answer = service.request("OPTIONS", path)
    assert answer.status_code == 200
    assert "OPTIONS" in answer.headers["Allow"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/workitems", "GET, POST, HEAD, OPTIONS"),
        ("DELETE", "/workitems/{uid}", "GET, POST, HEAD, OPTIONS"),
        ("PATCH", "/workitems/{uid}", "GET, POST, HEAD, OPTIONS"),
        ("POST", "/workitems/{uid}/state", "PUT, OPTIONS"),
        ("GET", "/workitems/{uid}/cancelrequest", "POST, OPTIONS"),
        ("GET", "/workitems/{uid}/subscribers/A", "POST, DELETE, OPTIONS"),
        ("GET", "/workitems/{uid}/subscribers/A/suspend", "POST, OPTIONS"),
        ("POST", "/", "GET, OPTIONS"),
        ("POST", "/subscribers/A", "GET, OPTIONS"),
    ],
)
def test_8_5_other_methods_are_405_with_allow(
    service: WebClient, method: str, path: str, allowed: str
) -> None:
    answer = service.request(method, path.format(uid=new_uid()))
    assert answer.status_code == 405
    assert answer.headers["Allow"] == allowed


@pytest.mark.parametrize(
    "path", ["/nothing", "/workitems/1.2/nothing", "/workitems/1.2/subscribers", "/workitems/1/2/3/4/5"]
)
def test_8_5_unknown_resources_are_404(service: WebClient, path: str) -> None:
    assert service.get(path).status_code == 404
