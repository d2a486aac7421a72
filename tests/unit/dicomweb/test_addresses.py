# SPDX-License-Identifier: AGPL-3.0-or-later
"""Base URIs and which headers may set them; what pages of other origins may do."""

from typing import Any

import pytest

from orthanc_ups.dicomweb.addresses import Addresses, is_loopback, web_socket
from orthanc_ups.dicomweb.origins import Origins
from orthanc_ups.dicomweb.response import HttpProblem
from orthanc_ups.settings import Settings

FORWARDED = {"host": "inner:8043", "x-forwarded-proto": "https", "x-forwarded-host": "pacs.example, inner"}


def service(
    headers: dict[str, str], peer: str | None = "192.0.2.7", scheme: str = "http", **settings: Any
) -> str:
    return Addresses(Settings(**settings)).service(scheme, lambda: "192.0.2.1:8043", peer, headers)


def test_host_of_the_request_is_the_address() -> None:
    assert service({"host": "pacs:8043"}) == "http://pacs:8043/dicom-web"
    assert service({"host": "[2001:db8::1]:8043"}, scheme="https") == "https://[2001:db8::1]:8043/dicom-web"


@pytest.mark.parametrize("host", ["", "a b", "evil\r\nX: y", "a/b", '"x"'])
def test_host_that_is_none_is_not_repeated(host: str) -> None:
    assert service({"host": host}) == "http://192.0.2.1:8043/dicom-web"


@pytest.mark.parametrize(("root", "path"), [("/ups/", "/ups"), ("ups/rs", "/ups/rs"), ("/", ""), ("", "")])
def test_root(root: str, path: str) -> None:
    assert service({"host": "pacs"}, root=root) == f"http://pacs{path}"


def test_public_url_is_the_last_word() -> None:
    assert service(FORWARDED, public_url="https://ris.example/ups/") == "https://ris.example/ups"


@pytest.mark.parametrize("proxy", ["192.0.2.7", "192.0.2.0/24"])
def test_proxy_that_is_configured_may_say_where_the_client_came_in(proxy: str) -> None:
    assert service(FORWARDED, trusted_proxies=(proxy,)) == "https://pacs.example/dicom-web"
    assert (
        service(FORWARDED, "::ffff:192.0.2.7", trusted_proxies=(proxy,)) == "https://pacs.example/dicom-web"
    )


@pytest.mark.parametrize(
    ("peer", "proxies"), [("192.0.2.7", ()), ("192.0.2.7", ("192.0.2.8", "::1")), (None, ("::/0",))]
)
def test_nobody_else_may(peer: str | None, proxies: tuple[str, ...]) -> None:
    assert service(FORWARDED, peer, trusted_proxies=proxies) == "http://inner:8043/dicom-web"


def test_prefix_of_a_proxy_stands_before_the_root() -> None:
    headers = {**FORWARDED, "x-forwarded-prefix": "/site/"}
    assert service(headers, trusted_proxies=("192.0.2.7",)) == "https://pacs.example/site/dicom-web"


def test_trusted_proxy_must_be_an_address_or_network() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        Addresses(Settings(trusted_proxies=("nonsense",)))


def test_web_sockets_have_the_scheme_of_the_service() -> None:
    assert web_socket("http://a/b") == "ws://a/b"
    assert web_socket("https://a/b") == "wss://a/b"


@pytest.mark.parametrize(
    ("peer", "local"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("::ffff:127.0.0.1", True), ("192.0.2.1", False),
     ("", False), (None, False), ("x", False)],
)  # fmt: skip
def test_loopback(peer: str | None, local: bool) -> None:
    assert is_loopback(peer) is local


# --- origins ----------------------------------------------------------------------------------------

OURS = "https://pacs.example/dicom-web"


def at(origin: str | None, **more: str) -> dict[str, str]:
    return {"host": "pacs.example", **({} if origin is None else {"origin": origin}), **more}


@pytest.mark.parametrize(
    "origin", [None, "https://pacs.example", "http://pacs.example:80", "https://PACS.example:443"]
)
def test_own_pages_and_programs_may_do_everything(origin: str | None) -> None:
    origins = Origins(())
    assert not origins.is_foreign(at(origin), OURS)
    origins.check("POST", at(origin), OURS)
    assert origins.headers(at(origin)) == ()


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "https://pacs.example.evil.example", "file://", "x", "http://[", ""],
)
def test_foreign_pages_may_change_nothing(origin: str) -> None:
    origins = Origins(("https://viewer.example",))
    assert origins.is_foreign(at(origin), OURS)
    origins.check("GET", at(origin), OURS)  # answered, but no browser shows it to the page
    with pytest.raises(HttpProblem) as problem:
        origins.check("POST", at(origin), OURS)
    assert problem.value.status == 403
    assert origins.headers(at(origin)) == ()


def test_own_page_behind_a_proxy_that_rewrites_the_host() -> None:
    headers = {"host": "inner:8043", "x-forwarded-host": "pacs.example", "origin": "https://pacs.example"}
    assert not Origins(()).is_foreign(headers, "http://inner:8043/dicom-web")


def test_allowed_origin_is_told_so_with_credentials() -> None:
    headers = dict(Origins(("https://viewer.example/",)).headers(at("https://viewer.example")))
    assert headers["Access-Control-Allow-Origin"] == "https://viewer.example"
    assert headers["Access-Control-Allow-Credentials"] == "true"
    assert headers["Vary"] == "Origin"


def test_everybody_is_let_in_without_credentials() -> None:
    origins = Origins(("*",))
    assert not origins.is_foreign(at("https://any.example"), OURS)
    headers = dict(origins.headers(at("https://any.example")))
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Credentials" not in headers


def test_preflight() -> None:
    asking = {"access-control-request-method": "PUT", "access-control-request-headers": "content-type"}
    origins = Origins(("https://viewer.example",))
    assert origins.preflight("OPTIONS", at("https://viewer.example")) is None
    assert origins.preflight("GET", at("https://viewer.example", **asking)) is None
    answer = origins.preflight("OPTIONS", at("https://viewer.example", **asking))
    assert answer is not None
    assert answer.status == 204
    assert "PUT" in (answer.header("Access-Control-Allow-Methods") or "")
    assert answer.header("Access-Control-Allow-Headers") == "content-type"
    with pytest.raises(HttpProblem):
        origins.preflight("OPTIONS", at("https://evil.example", **asking))
